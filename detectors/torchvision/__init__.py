"""Torchvision detectors: Faster R-CNN, RetinaNet, FCOS."""
