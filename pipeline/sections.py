"""Parts of the report that the pipeline adds: crops, density pictures, training curves."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dmnet.core.config import build
from dmnet.core.errors import DmnetError
from dmnet.core.formats import density_h5
from dmnet.core.images import encode_jpeg, read_image
from dmnet.core.journal import read_header
from dmnet.core.records import Annotations
from dmnet.cropping.pictures import crop_picture
from dmnet.cropping.recall import GROUPS, UNIT, SliceCounts, count_crops, merge_counts
from dmnet.cropping.slicers import CropConfig
from dmnet.pipeline.context import Context
from dmnet.pipeline.inputs import FoundCrops

NAMES = {
    "true": "ground-truth density maps: the crops know the labels, so scores are an upper bound",
    "predicted": "predicted density maps",
    "folder": "density maps made elsewhere",
    "none": "a slicer that uses no density maps",
    "foreign": "crops made elsewhere",
}
Section = tuple[str, str]


def sections(
    context: Context, crops: FoundCrops, truths: Sequence[Annotations], pictures: int
) -> list[Section]:
    """``(title, html)`` of every part there is something for."""
    found = [("Crops", _crop_table(crops, truths))]
    some = truths[:: max(1, len(truths) // max(1, pictures))][:pictures]
    density = "".join(_density_pictures(context, crops, some))
    if density:
        found.append(("Density, windows and crops", density))
    for stage, title in (
        ("train-density", "Training of the density network"),
        ("train-detector", "Training of the detector"),
    ):
        folder = context.folder(stage, "train")
        if (folder / "curves.png").exists():
            found.append((title, _curves(folder)))
    return found


def count_windows(crops: FoundCrops, truths: Sequence[Annotations]) -> SliceCounts:
    """What the crops show of the objects."""
    windows = {n: [c.window for c in listed] for n, listed in crops.crops.by_parent().items()}
    return merge_counts(count_crops(truth, windows[truth.image_id]) for truth in truths)


def crop_figures(counts: SliceCounts) -> dict[str, float]:
    """Crops an image, relative pixels and region recall as numbers by name."""
    images = max(1, counts.images)
    figures = {
        "crops_per_image": counts.crops / images,
        "relative_pixels": counts.pixels / images / UNIT,
    }
    for index, group in enumerate(GROUPS):
        objects = int(counts.objects[index])
        if objects:
            figures[f"region_recall_{group}"] = int(counts.covered[index]) / objects
    return figures


def _crop_table(crops: FoundCrops, truths: Sequence[Annotations]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{value:.3f}</td></tr>"
        for name, value in crop_figures(count_windows(crops, truths)).items()
    )
    source = html.escape(NAMES.get(crops.source, crops.source))
    return (
        f"<p>Windows come from {source}. Region recall is the share of objects that lie fully "
        f"inside at least one crop; relative pixels are the crops' pixels over the image's.</p>"
        f"<table>{rows}</table>"
    )


def _density_pictures(
    context: Context, crops: FoundCrops, truths: Sequence[Annotations]
) -> Iterator[str]:
    """Panels of image, density, windows and crops; none where maps or images are not at hand."""
    stage = {"true": "density", "predicted": "predict-density"}.get(crops.source)
    header = read_header(crops.path.parent)
    if stage is None or header is None:
        return
    names = set(CropConfig.__dataclass_fields__)
    config = build(CropConfig, {k: v for k, v in header["config"].items() if k in names}, "crop")
    images = {e.image_id: e.image for e in context.dataset.with_image if e.image is not None}
    for truth in truths:
        path = images.get(truth.image_id)
        density = context.folder(stage) / f"{truth.image_id}.h5"
        if path is None or not density.exists():
            continue
        try:
            picture = crop_picture(
                read_image(path), density_h5.read(density), config, truth, truth.image_id
            )
        except DmnetError as error:
            yield f"<p>{html.escape(str(error))}</p>"
            continue
        yield f'<p><img style="width:100%" alt="{html.escape(truth.image_id)}" ' \
              f'src="{_embedded(encode_jpeg(picture, 85), "jpeg")}"></p>'  # fmt: skip


def _curves(folder: Path) -> str:
    picture = _embedded((folder / "curves.png").read_bytes(), "png")
    text = (folder / "history.csv").read_text(encoding="utf-8")
    history = list(csv.DictReader(io.StringIO(text)))
    table = _last_row(history[-1]) if history else ""
    shown = f'<p><img style="max-width:100%" alt="curves" src="{picture}"></p>{table}'
    sheet = folder / "predictions.jpg"
    if sheet.exists():
        source = _embedded(sheet.read_bytes(), "jpeg")
        shown += f'<p>Annotations (left) and detections (right):</p><p><img style="width:100%" ' \
                 f'alt="predictions" src="{source}"></p>'  # fmt: skip
    return shown


def _last_row(row: Mapping[str, str]) -> str:
    shown = {name: value for name, value in row.items() if value not in ("", None)}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in shown)
    cells = "".join(f"<td>{float(value):.4g}</td>" for value in shown.values())
    return f"<p>Last epoch:</p><table><tr>{head}</tr><tr>{cells}</tr></table>"


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
