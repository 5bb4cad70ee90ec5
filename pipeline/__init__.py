"""Stages, their order, and the command line."""
