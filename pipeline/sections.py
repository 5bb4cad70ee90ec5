"""What the pipeline adds to the report: crops, density and windows, training curves."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from dmnet.core.formats import density_h5
from dmnet.core.images import read_image
from dmnet.core.spread import place
from dmnet.cropping.recall import GROUPS, UNIT, SliceCounts
from dmnet.fusion.report.page import Overlay
from dmnet.fusion.report.template import embedded
from dmnet.fusion.report.viewer import density_png, picture_jpeg
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


def sections(context: Context, source: str, figures: Mapping[str, float]) -> list[Section]:
    """``(title, html)`` of every part there is something for.

    Args:
        context: of this run.
        source: where the crops come from, see `FoundCrops.source`.
        figures: what `crop_figures` gave.
    """
    found = [("Crops", _crop_table(source, figures))]
    for stage, title in (
        ("train-density", "Training of the density network"),
        ("train-detector", "Training of the detector"),
    ):
        folder = context.folder(stage, "train")
        if (folder / "curves.png").exists():
            found.append((title, _curves(folder)))
    return found


def crop_figures(counts: SliceCounts) -> dict[str, float]:
    """Crops per image, relative pixels and region recall as numbers by name."""
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


def _crop_table(source: str, figures: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{value:.3f}</td></tr>"
        for name, value in figures.items()
    )
    source = html.escape(NAMES.get(source, source))
    return (
        f"<p>Windows come from {source}. Region recall is the share of objects that lie fully "
        f"inside at least one crop; relative pixels are the crops' pixels over the image's.</p>"
        f"<table>{rows}</table>"
    )


def overlays(context: Context, crops: FoundCrops) -> Callable[[str], Overlay]:
    """Windows and density of an image for the viewer; maps only where the crops come from them."""
    windows = crops.crops.windows()
    stage = {"true": "density", "predicted": "predict-density"}.get(crops.source)

    def overlay(image_id: str) -> Overlay:
        path = place(context.folder(stage), f"{image_id}.h5") if stage else None
        if path is None or not path.exists():
            return Overlay(windows.get(image_id, []))
        density = density_h5.read(path)
        return Overlay(windows.get(image_id, []), density_png(density.values), density.count)

    return overlay


def _curves(folder: Path) -> str:
    picture = embedded((folder / "curves.png").read_bytes(), "png")
    text = (folder / "history.csv").read_text(encoding="utf-8")
    history = list(csv.DictReader(io.StringIO(text)))
    table = _last_row(history[-1]) if history else ""
    shown = f'<p><img style="max-width:100%" alt="curves" src="{picture}"></p>{table}'
    sheet = folder / "predictions.jpg"
    if sheet.exists():
        source = embedded(picture_jpeg(read_image(sheet), 1200, 130_000), "jpeg")
        shown += f'<p>Annotations (left) and detections (right):</p><p><img style="width:100%" ' \
                 f'alt="predictions" src="{source}"></p>'  # fmt: skip
    return shown


def _last_row(row: Mapping[str, str]) -> str:
    shown = {name: value for name, value in row.items() if value not in ("", None)}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in shown)
    cells = "".join(f"<td>{float(value):.4g}</td>" for value in shown.values())
    return f"<p>Last epoch:</p><table><tr>{head}</tr><tr>{cells}</tr></table>"
