"""Scores: matching, precision-recall curves, COCO and VisDrone protocols, error types."""
