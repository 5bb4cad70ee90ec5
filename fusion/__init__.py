"""Placing, merging and scoring of detections."""
