"""Pictures of what the cropping does: density, mask, windows, crops and objects over the image.

Everything returns RGB arrays; writing them is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.classes import IGNORED_REGION
from dmnet.core.errors import ConfigError
from dmnet.core.records import Annotations, DensityMap, Image, Size
from dmnet.cropping.density import DensityCrops
from dmnet.cropping.regions import window_area
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.cropping.windows import WindowScan, scan_windows

PANEL, HEAD = 640, 52
"""Width of one panel and height of the headings above, pixels."""

PER_AREA = 100 * 100
"""Densities are shown as objects on 100 x 100 pixels."""

OBJECT, WHOLE, CUT = "#ffd23d", "#3ddc68", "#ff4b4b"
"""Colours of objects: as annotated, fully inside a crop, not fully inside any."""

TAB10 = [colormaps["tab10"](i) for i in range(10) if i not in (2, 3)]
"""Colours of crops, in turn; without the green and red of objects."""

SHADOW = [withStroke(linewidth=1.5, foreground="k")]


def density_overlay(image: Image, density: DensityMap, top: float | None = None) -> Image:
    """Lay the density over a dim grey version of the image; empty ground stays grey.

    Args:
        image: RGB, size of the map's image or any reduction of it.
        density: the map.
        top: density (objects a pixel) of the strongest colour; default the map's maximum.
    """
    height, width = image.shape[:2]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    level = _per_pixel(density) / max(top or _peak(density), 1e-12)
    level = np.clip(cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA), 0, 1)
    colour = 255 * colormaps["inferno"](level)[..., :3]
    share = np.sqrt(level)[..., None]
    return np.asarray(np.rint((1 - share) * 0.6 * grey + share * colour), dtype=np.uint8)


def mask_overlay(image: Image, mask: NDArray[np.bool_]) -> Image:
    """Darken and grey what lies outside the mask ``(height, width)`` of the image's full size."""
    height, width = image.shape[:2]
    keep = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * 0.45
    return np.asarray(np.where(keep[..., None] > 0, image, grey), dtype=np.uint8)


def crop_picture(
    image: Image,
    density: DensityMap,
    config: CropConfig,
    annotations: Annotations | None = None,
    title: str = "",
) -> Image:
    """Four panels in a row: image and objects, density, mask with windows, crops.

    Args:
        image: RGB at full size.
        density: density map of the image.
        config: slicer and settings of the crops.
        annotations: ground truth, for the boxes and the true count.
        title: heading, for example the image id.

    Raises:
        ConfigError: map and image are of different sizes.
    """
    if density.size != image.shape[:2]:
        raise ConfigError(
            f"the density map is for an image of {density.size[0]}x{density.size[1]} (h x w), "
            f"the picture has {image.shape[0]}x{image.shape[1]}: give the map of this image"
        )
    crops = slice_image(config, density.size, density, annotations)
    own = config.settings
    dense = own if isinstance(own, DensityCrops) else DensityCrops()
    scan = scan_windows(density, dense.window)
    height, width = density.size
    small = _reduced(image)
    tall = PANEL * height / width  # pixels of a panel
    figure = Figure(figsize=(4 * PANEL / 100, (tall + HEAD) / 100), dpi=100, facecolor="w")
    figure.suptitle(title, x=0.004, y=0.99, ha="left", va="top", fontsize=12, weight="bold")
    frame = 0.244, tall / (tall + HEAD)
    panels = [figure.add_axes((0.004 + 0.2495 * i, 0.0, *frame)) for i in range(4)]
    _objects_panel(panels[0], small, density.size, annotations)
    _density_panel(panels[1], small, density, annotations)
    _mask_panel(panels[2], small, scan, dense.threshold)
    _crops_panel(panels[3], small, density.size, crops, annotations)
    for axes in panels:
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    return _pixels(figure)


def contact_sheet(pictures: Sequence[Image], columns: int = 1, gap: int = 8) -> Image:
    """Pictures in rows of ``columns`` on white, row by row, each cell as large as the largest.

    Raises:
        ConfigError: no picture is given.
    """
    if not pictures:
        raise ConfigError("a contact sheet needs at least one picture: name image ids that exist")
    wide = max(p.shape[1] for p in pictures) + gap
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    strips = []
    for row in rows:
        strip = np.full((max(p.shape[0] for p in row) + gap, wide * columns, 3), 255, np.uint8)
        for index, picture in enumerate(row):
            h, w = picture.shape[:2]
            strip[:h, index * wide : index * wide + w] = picture
        strips.append(strip)
    return np.concatenate(strips)[: -gap or None, : -gap or None]


def _objects_panel(axes: Axes, small: Image, size: Size, truth: Annotations | None) -> None:
    _show(axes, small, size)
    if truth is None:
        _caption(axes, f"image {size[1]} x {size[0]}, no annotations")
        return
    ignored = truth.boxes[truth.labels == IGNORED_REGION]
    _outline(axes, truth.objects.boxes, OBJECT, 0.8)
    _outline(axes, ignored, "#e8e8e8", 1.2, "--")
    _caption(
        axes,
        f"image {size[1]} x {size[0]}: {len(truth.objects)} objects"
        + (f", ignored regions dashed ({len(ignored)})" if len(ignored) else ""),
    )


def _density_panel(
    axes: Axes, small: Image, density: DensityMap, truth: Annotations | None
) -> None:
    _show(axes, density_overlay(small, density), density.size)
    true_count = "" if truth is None else f", true {len(truth.objects)}"
    _caption(axes, f"density: {density.count:.1f} objects{true_count}; stride {density.stride}")
    axes.add_patch(Rectangle((0.875, 0.02), 0.12, 0.72, transform=axes.transAxes, color="#000a"))
    inset = axes.inset_axes((0.962, 0.06, 0.022, 0.5))
    scale = ScalarMappable(Normalize(0, _peak(density) * PER_AREA), "inferno")
    bar = Colorbar(inset, scale, ticklocation="left")
    bar.ax.tick_params(labelsize=8, colors="w", length=2)
    bar.outline.set_edgecolor("w")
    inset.set_title("objects on\n100 x 100 px", color="w", fontsize=7, loc="right")


def _mask_panel(axes: Axes, small: Image, scan: WindowScan, threshold: float) -> None:
    mask, passed = scan.mask(threshold), scan.passed(threshold)
    _show(axes, mask_overlay(small, mask), scan.size)
    rows, cols = np.nonzero(passed)
    (height, width), left, top = scan.window, scan.left[cols], scan.top[rows]
    frames = np.stack([left, top, left + width, top + height], axis=1)
    _outline(axes, box.as_boxes(frames), "w", 0.5)
    if scan.size[1] <= 20 * width:  # narrower cells than that hold no readable number
        for x, y, total in zip(left, top, scan.sums[rows, cols], strict=True):
            text = axes.text(x + width / 2, y + height / 2, f"{total:.1f}", color="w", fontsize=7)
            text.set(ha="center", va="center", path_effects=SHADOW)
    _caption(
        axes,
        f"{len(rows)} of {passed.size} windows {height} x {width} hold >= {threshold:g} objects, "
        f"{100 * mask.mean():.0f} % of the pixels",
    )


def _crops_panel(
    axes: Axes, small: Image, size: Size, crops: Sequence[Window], truth: Annotations | None
) -> None:
    covered = np.zeros(size, dtype=np.bool_)
    for x1, y1, x2, y2 in crops:
        covered[y1:y2, x1:x2] = True
    _show(axes, mask_overlay(small, covered), size)
    pixels = sum(map(window_area, crops)) / (size[0] * size[1])
    caption = f"{len(crops)} crops, {100 * pixels:.0f} % of the pixels"
    if truth is not None:
        boxes = truth.objects.boxes
        whole = np.zeros(len(boxes), dtype=np.bool_)
        for window in crops:
            whole |= box.inside(boxes, window)
        _outline(axes, boxes[whole], WHOLE, 0.8)
        _outline(axes, boxes[~whole], CUT, 1.2)
        caption += f", {int(whole.sum())} of {len(whole)} objects whole (green)"
    for index, window in enumerate(crops):
        colour = TAB10[index % len(TAB10)]
        _outline(axes, box.as_boxes([window]), colour, 2.4)
        name = axes.text(window[0] + 4, window[1] + 4, str(index + 1), color="w", fontsize=9)
        name.set(va="top", weight="bold", bbox={"facecolor": colour, "pad": 1.5, "linewidth": 0})
    _caption(axes, caption)


def _show(axes: Axes, picture: Image, size: Size) -> None:
    axes.imshow(picture, extent=(0, size[1], size[0], 0), aspect="auto")


def _caption(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=10, loc="left", pad=4)


def _outline(
    axes: Axes, boxes: box.Boxes, colour: str | tuple[float, ...], width: float, style: str = "-"
) -> None:
    """Draw the frames of boxes ``(N, 4)``."""
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2, x1, y1], axis=1).reshape(-1, 5, 2)
    axes.add_collection(LineCollection(list(corners), colors=[colour], lw=width, linestyles=style))


def _per_pixel(density: DensityMap) -> NDArray[np.float32]:
    """Objects a pixel at the map's own resolution."""
    return density.values / np.float32(density.stride**2)


def _peak(density: DensityMap) -> float:
    return float(_per_pixel(density).max(initial=0.0)) or 1e-12


def _reduced(image: Image) -> Image:
    height, width = image.shape[:2]
    if width <= PANEL:
        return image
    target = PANEL, max(round(height * PANEL / width), 1)
    return np.asarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _pixels(figure: Figure) -> Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()
