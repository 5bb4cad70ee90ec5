"""Engines that carry out a stage: processes of this machine, or a Ray cluster."""
