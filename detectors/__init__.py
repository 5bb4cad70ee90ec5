"""Detectors behind one interface."""
