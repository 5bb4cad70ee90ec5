"""YOLOX in three small sizes, written from the paper."""
