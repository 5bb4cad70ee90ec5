"""YOLOv6 in five sizes, written from the papers."""
