"""Limits of what is read from files, in one place; `docs/security.md` says why each is there.

Sizes are looked at before memory is taken: what a file declares about itself (pixels, shapes,
unpacked bytes) is compared with these, never trusted.
"""

from __future__ import annotations

IMAGE_PIXELS = 150_000_000
"""Pixels of an image, unless a setting ``max_pixels`` says otherwise (3 bytes each in memory)."""

JPEG_SIDE = 65_500
"""Pixels of a side of a JPEG file, as its library has it."""

MAP_CELLS = IMAGE_PIXELS
"""Cells of a density map: one a pixel of the largest image (at most 8 bytes each)."""

TEXT_BYTES = 64_000_000
"""Bytes of a text, CSV or XML file."""

YAML_BYTES = 1_000_000
"""Bytes of a YAML file; its parser is slow."""

YAML_DEPTH = 32
"""Levels of nesting in a YAML file."""

JSON_BYTES = 1_000_000_000
"""Bytes of a JSON file (8,629 images with 500 detections each are 400 MB)."""

JSON_PARTS, JSON_VALUES = 20_000_000, 150_000_000
"""Lists and objects, and values between commas, of a JSON file: some 8 GB once it is read."""

XML_TAGS = 4_000_000
"""Tags, and attributes, of an XML file (`OBJECTS` objects have three million tags)."""

FILE_BYTES = 4_000_000_000
"""Bytes of an image, map or ONNX file."""

WEIGHTS_BYTES = 8_000_000_000
"""Bytes of a weights file once it is unpacked."""

PICKLE_PARTS = 10_000_000
"""Operations of the pickle in a weights file, and parts of one thing that it makes."""

HEADER_BYTES = 16_000_000
"""Bytes of an artifact's ``stage.json``."""

JOURNAL_BYTES = 8_000_000_000
"""Bytes of an artifact's journal (200,000 items are 100 MB)."""

LINE_BYTES = 64_000_000
"""Bytes of one line of a journal."""

OBJECTS = 100_000
"""Objects or detections of one image in one file."""

DIGITS = 15
"""Digits of a whole number in a file; all such numbers are exact as floats too."""

NAME_BYTES = 255
"""Bytes of a file name, as most file systems have it."""

CLASS_INDEX = 100_000
"""Largest class index of a detector."""

HDF5_SECONDS = 30
"""Seconds of computing that decoding one HDF5 file may take."""

HDF5_MEMORY = 8_000_000_000
"""Bytes of addresses of the process that decodes HDF5 files."""

RASTER_PIXELS = 40_000_000_000
"""Pixels of a raster, which is read block by block."""

RASTER_BANDS = 1_000
"""Bands of a raster."""

RASTER_BLOCK_BYTES = 2_000_000_000
"""Bytes of one block as the raster's file has it; they are decoded at once."""

VIDEO_FRAMES = 10_000_000
"""Frames of a video (92 hours at 30 a second)."""

VIDEO_SIDE = 16
"""Pixels that a side of a video's frames has at least: decoders write beyond smaller ones."""
