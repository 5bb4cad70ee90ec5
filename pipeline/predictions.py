"""Pictures of what a trained detector finds, beside what is annotated."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from dmnet.core.classes import Classes
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Annotations, Image
from dmnet.cropping.pictures import contact_sheet
from dmnet.detectors.load import load_detector
from dmnet.fusion.report.draw import draw_boxes

LONGEST = 640
"""Longest side of one picture, pixels."""


def predictions_jpg(
    weights: bytes,
    pairs: Iterable[tuple[Annotations, Image]],
    *,
    classes: Classes,
    threshold: float,
    device: str,
    model: str | None = None,
) -> bytes:
    """A sheet with a row per image: annotations left, detections from ``threshold`` on right.

    Args:
        weights: a weights file of train-detector.
        pairs: images and what is annotated there.
        classes: of the annotations.
        threshold: detections with lower scores are not drawn.
        device: torch device.
        model: the network, where the file alone does not decide it; see `load_detector`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        path.write_bytes(weights)
        source, file = (model, path) if model else (path, None)
        detector = load_detector(source, file, device=device, classes=classes)
    sheet: list[Image] = []
    for truth, image in pairs:
        found = detector.predict([image])[0]
        sheet.append(draw_boxes(image, truth, longest=LONGEST))
        sheet.append(
            draw_boxes(image, found, names=classes.scored, min_score=threshold, longest=LONGEST)
        )
    return encode_jpeg(contact_sheet(sheet, columns=2), 88)
