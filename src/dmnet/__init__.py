"""Density-guided object detection in aerial images (DMNet, CVPR Workshops 2020, and beyond)."""

__version__ = "0.1.0"
