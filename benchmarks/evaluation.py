"""How fast detections are scored: ``python benchmarks/evaluation.py`` prints the table.

Input: the third-party detections on VisDrone val (138,939 rows, 548 images) if they lie beside the
checkout (``../shared/data``), otherwise a generated set of about that size. Baseline of every
protocol: pycocotools (``evaluate`` and ``accumulate`` at caps 1, 10 and the named one) on the same
set in the same run, from rows in memory on both sides.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from table import SHARED, Row, seconds, show

from dmnet.core.classes import VISDRONE
from dmnet.fusion.evaluation.bootstrap import intervals, resample
from dmnet.fusion.evaluation.coco import as_coco, coco_images
from dmnet.fusion.evaluation.error_types import error_costs
from dmnet.fusion.evaluation.evaluate import evaluate, score_images
from dmnet.fusion.evaluation.inputs import read_found, read_truth
from dmnet.fusion.evaluation.matched import matched
from dmnet.fusion.evaluation.scored_images import ScoredImage


def unpack(folder: Path) -> tuple[Path, Path] | None:
    """Ground truth and detections of VisDrone val, or None where they are not at hand."""
    archives = (
        SHARED / "visdrone-annotations.tar.xz",
        SHARED / "detections" / "visdrone-val-thirdparty.tar.xz",
    )
    if not all(archive.is_file() for archive in archives):
        return None
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder / "VisDrone2019-DET-val" / "annotations", folder / "pred_txt"


def generated(images: int = 548, objects: int = 70, found: int = 253) -> list[ScoredImage]:
    """A set of VisDrone val's size: jittered copies of the objects, of which some are FP."""
    rng = np.random.default_rng(0)
    out = []
    for number in range(images):
        truth = np.zeros((objects, 6))
        truth[:, :2] = rng.integers(0, 900, (objects, 2))
        truth[:, 2:4] = rng.integers(6, 60, (objects, 2))
        truth[:, 4], truth[:, 5] = 1, rng.integers(1, 11, objects)
        rows = truth[rng.integers(0, objects, found)].copy()
        rows[:, :4] += rng.normal(0, 4, (found, 4))
        rows[:, 2:4] = np.maximum(rows[:, 2:4], 1)
        rows[:, 4] = np.sort(rng.random(found))[::-1]
        out.append(ScoredImage(truth, rows, (1000, 1000), f"{number:04d}"))
    return out


def oracle(images: list[ScoredImage], cap: int) -> float:
    """Seconds of pycocotools, and a check that the AP is the same."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            truth, found = as_coco(images, VISDRONE.scored)
            apis = []
            for rows in (truth["annotations"], found):
                api = COCO()
                api.dataset = {**truth, "annotations": rows}
                api.createIndex()
                apis.append(api)
            evaluation = COCOeval(*apis, "bbox")
            evaluation.params.maxDets = [1, 10, cap]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0, 2]
        ap.append(float(precision[precision > -1].mean()))

    ap: list[float] = []
    taken = seconds(run)
    ours = score_images(images, f"coco@{cap}").summary["AP"]
    if abs(ap[0] - ours) > 1e-9:
        raise SystemExit(f"coco@{cap}: AP {ours} differs from that of pycocotools, {ap[0]}")
    return taken


def rows() -> list[Row]:
    """All measurements."""
    with tempfile.TemporaryDirectory() as folder:
        paths = unpack(Path(folder))
        found: list[Row] = []
        if paths is None:
            images = generated()
        else:
            images, _ = read_found(paths[1], read_truth(paths[0]))
            for protocol in ("visdrone", "coco@500"):
                taken = seconds(lambda p=protocol: evaluate(*paths, p))
                found.append((f"{protocol}, files included", taken, None, None, "1,096 txt read"))
    scored = coco_images(images)
    base = {cap: oracle(scored, cap) for cap in (100, 500)}
    number = sum(len(image.found) for image in images)
    for protocol in ("visdrone", "visdrone-macro", "coco@100", "coco@500"):
        taken = seconds(lambda p=protocol: score_images(images, p), 2)
        slow = base[100 if protocol == "coco@100" else 500]
        note = f"{number:,} detections, against pycocotools"
        found.append((protocol, taken, slow, slow / taken, note))
    table = matched(scored, "coco@500", classes=VISDRONE.scored)
    costs = seconds(lambda: error_costs(table))
    found.append(("error types and their costs", costs, None, None, "matched before"))
    ten = seconds(lambda: intervals(table, resample(table, repeats=10))) / 10
    found.append(("bootstrap, one repetition", ten, base[500], base[500] / ten, "AP, AP50, AP75"))
    return found


def main() -> None:
    """Print the table."""
    show("evaluation", rows())


if __name__ == "__main__":
    main()
