"""Labels of crops: which objects a crop shows, which it cuts, and what its file is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.classes import IGNORED_REGION
from dmnet.core.records import Annotations, Crop


def crop_id(window: Window, image_id: str) -> str:
    """``{top}_{left}_{bottom}_{right}_{image}``: the published naming; never parsed.

    The folders of an image in a folder stay in front: ``north/{top}_{left}_..._{image}``.
    """
    left, top, right, bottom = window
    folder, slash, name = image_id.rpartition("/")
    return f"{folder}{slash}{top}_{left}_{bottom}_{right}_{name}"


def crop_file_name(window: Window, image_id: str) -> str:
    """File name of the crop image; ``crops.json`` says what is in it, not the name."""
    return f"{crop_id(window, image_id)}.jpg"


def crop_annotations(
    annotations: Annotations, window: Window, min_visible: float = 1.0
) -> Annotations:
    """Ground truth of a crop, in the crop's own pixels, rows in file order.

    An object stays if at least ``min_visible`` of its area is inside; its box is clipped and
    shifted. What is cut below that bound becomes an ignored region (category 0, score 0), not
    background. Ignored regions are clipped and kept. What lies outside is gone.

    Args:
        annotations: ground truth of the image.
        window: half-open pixels of the image.
        min_visible: share of the box, 0 to 1; 1 is fully inside, as the published code has it.
    """
    crop = Crop(annotations.image_id, window)
    share = box.visible(annotations.boxes, window)
    seen = share > 0
    cut = (share < min_visible) & (annotations.labels != IGNORED_REGION)
    shown = replace(
        annotations,
        image_id=crop_id(window, annotations.image_id),
        size=crop.size,
        boxes=box.clip(crop.to_crop(annotations.boxes), crop.size),
        labels=np.where(cut, IGNORED_REGION, annotations.labels),
        score=np.where(cut, 0, annotations.score),
    )
    return shown[seen]
