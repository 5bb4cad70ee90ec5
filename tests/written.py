"""What only tests write and read: COCO ground truth as one object, VisDrone results as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dmnet.core.boxes import Window, from_xywh
from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.formats import visdrone
from dmnet.core.formats.coco import Json, ground_truth_json, image_ids
from dmnet.core.formats.crops import CropImage, CropSet, Parent, rendered
from dmnet.core.records import Annotations, DensityMap, Detections, Size


def ground_truth(
    items: Iterable[Annotations],
    file_names: Mapping[str, str],
    *,
    ignored: bool,
    ids: Mapping[str, int] | None = None,
    classes: Classes = VISDRONE,
) -> Json:
    """Build a ground-truth file in memory, see `ground_truth_json`.

    Args:
        items: annotations of the images, in any order.
        file_names: file name by image id.
        ignored: also write the rows that are not to be scored. Only then is the way back exact for
            every row.
        ids: COCO ids by file name, where some images of the set are left out; None counts.
        classes: of the annotations.
    """
    ordered = sorted(items, key=lambda ann: file_names[ann.image_id])
    names = [file_names[ann.image_id] for ann in ordered]
    images = [(name, ann.size) for name, ann in zip(names, ordered, strict=True)]
    rows = (ann if ignored else ann.objects for ann in ordered)
    made = ground_truth_json(images, rows, image_ids(names) if ids is None else ids, classes)
    data: Json = json.loads(b"".join(made))
    return data


def read_results(path: Path) -> Detections:
    """Detections of one VisDrone result file."""
    rows = visdrone.result_rows(path)
    return Detections(from_xywh(rows[:, :4]), rows[:, 4], rows[:, 5].astype(int))


def crop_set(
    parents: Mapping[str, Size],
    windows: Iterable[tuple[str, Window, str]],
    ids: Mapping[str, int] | None = None,
) -> CropSet:
    """Give ids, 1-based in the order of sorted file names.

    Args:
        parents: size of every image by its file name.
        windows: ``(parent's file name, window, crop's file name)``.
        ids: the parents' ids by file name, where some images of the set are left out; None
            counts.
    """
    ids = image_ids(parents) if ids is None else ids
    listed = sorted(windows, key=lambda entry: entry[2])
    return CropSet(
        tuple(Parent(ids[name], name, parents[name]) for name in sorted(parents)),
        tuple(
            CropImage(index, name, ids[parent], window)
            for index, (parent, window, name) in enumerate(listed, start=1)
        ),
    )


def crops_text(crops: CropSet) -> str:
    """Render, one image a line."""
    return "".join(rendered(crops.parents, crops.crops))


def pooled(density: DensityMap, stride: int) -> DensityMap:
    """A map at stride 1 sum-pooled; the count is kept, the border cells are partial."""
    rows, cols = (np.arange(0, side, stride) for side in density.size)
    wide = np.add.reduceat(density.values, rows, axis=0, dtype=np.float64)
    both = np.add.reduceat(wide, cols, axis=1)
    return DensityMap(both.astype(np.float32), stride, density.size)
