"""Density maps: kernels, ground truth, networks, training and prediction."""
