"""Crop windows from density maps, other slicers, crop labels, and what a slicer is worth."""
