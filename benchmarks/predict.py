"""The whole command against SAHI's: ``python benchmarks/predict.py --data VisDrone2019-DET-val``.

Pictures: 20 real ones at 1360 x 765, evenly spaced over a split of VisDrone-DET. The detector file
is the same for both; SAHI (Akyon et al. 2022) gets it behind its own `DetectionModel`, as its users
bring models of their own, and runs its own `predict` with slices of 512 at overlap 0.2 and the
whole picture, everything else as it comes. Both run as processes of their own, in turns, imports
included; scores from .05 on. Seconds are best of the repeats. SAHI has to be importable (``make
bench`` puts it beside the environment); where it or the data is missing, its lines are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmnet.core.classes import VISDRONE
from dmnet.core.dataset import open_dataset
from dmnet.core.images import read_size
from dmnet.core.records import Detections
from dmnet.fusion.evaluation.evaluate import score
from dmnet.pipeline.models import CONFIGS

SIZE = (765, 1360)
FLOOR = 0.05
SLICE, OVERLAP = 512, 0.2


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    cpu: float
    """Seconds of all its threads."""


def chosen(data: Path, count: int) -> list[Path]:
    """Evenly spaced pictures of the size that is asked for."""
    fitting = [path for path in sorted((data / "images").glob("*.jpg")) if read_size(path) == SIZE]
    return [fitting[index * len(fitting) // count] for index in range(min(count, len(fitting)))]


def copied(data: Path, pictures: Sequence[Path], target: Path) -> Path:
    """The pictures with their annotations as a data set, and as COCO without any, for SAHI."""
    for folder, suffix in (("images", ".jpg"), ("annotations", ".txt")):
        (target / folder).mkdir(parents=True)
        for path in pictures:
            name = path.with_suffix(suffix).name
            shutil.copyfile(data / folder / name, target / folder / name)
    height, width = SIZE
    listed = {
        "images": [
            {"id": number, "file_name": path.name, "width": width, "height": height}
            for number, path in enumerate(pictures, start=1)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in VISDRONE.scored.items()],
    }
    (target / "images.json").write_text(json.dumps(listed))
    return target


def timed(command: Sequence[str | Path], log: Path) -> Run:
    """Run a process to its end."""
    start, before = time.perf_counter(), os.times()
    with log.open("w") as stream:
        done = subprocess.run([str(word) for word in command], stdout=stream, stderr=stream)
    if done.returncode:
        raise SystemExit(log.read_text())
    after = os.times()
    cpu = after.children_user + after.children_system
    return Run(time.perf_counter() - start, cpu - before.children_user - before.children_system)


# --- SAHI ----------------------------------------------------------------------------------------


def sahi_predict(detector: Path, images: Path, out: Path, listing: Path | None) -> None:
    """What SAHI's command does, on our detector; ``listing``: results as JSON, no pictures."""
    from onnxruntime import InferenceSession
    from sahi.models.base import DetectionModel
    from sahi.predict import predict
    from sahi.prediction import ObjectPrediction

    from dmnet.detectors.load import load_detector

    class Model(DetectionModel):  # type: ignore[misc]
        """One of our detectors behind SAHI's interface."""

        def load_model(self) -> None:
            self.model = load_detector("onnx", detector, device="cpu")
            # threads as onnxruntime has them by itself, which suits one detector alone
            self.model.session = InferenceSession(detector, providers=["CPUExecutionProvider"])
            self.category_mapping = {str(i): name for i, name in VISDRONE.scored.items()}

        def perform_inference(self, image: Any, image_size: Any = None) -> None:
            self._original_predictions = self.model.predict([image])

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            (found,) = self._original_predictions
            found = found[found.scores > self.confidence_threshold]
            shift, shape = (
                listed[0] if listed and isinstance(listed[0], list | tuple) else listed
                for listed in (shift_amount_list, full_shape_list)  # of one image, or its own
            )
            rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(),
                       strict=True)  # fmt: skip
            listed = [
                ObjectPrediction(
                    bbox=box, category_id=label, category_name=VISDRONE.scored[label],
                    score=value, shift_amount=shift or [0, 0], full_shape=shape,
                )
                for box, value, label in rows
            ]  # fmt: skip
            self._object_prediction_list_per_image = [listed]

    predict(
        detection_model=Model(confidence_threshold=FLOOR, device="cpu"),
        source=str(images), slice_height=SLICE, slice_width=SLICE,
        overlap_height_ratio=OVERLAP, overlap_width_ratio=OVERLAP,
        dataset_json_path=str(listing) if listing else None, novisual=listing is not None,
        project=str(out.parent), name=out.name, verbose=0,
    )  # fmt: skip


# --- both ----------------------------------------------------------------------------------------


def ours(data: Path, out: Path, more: Sequence[str], *, pictures: bool) -> Run:
    """The command, into an empty folder."""
    words = [sys.executable, "-m", "dmnet", "predict", data / "images", "--out", out]
    words += ["--confidence", str(FLOOR), "--device", "cpu", *more]
    return timed([*words, *([] if pictures else ["--save", "coco"])], out.with_suffix(".log"))


def theirs(data: Path, out: Path, detector: Path, *, pictures: bool) -> Run:
    """SAHI's, into an empty folder."""
    words = [sys.executable, __file__, "--sahi", detector, data / "images", out]
    return timed([*words, *([] if pictures else [data / "images.json"])], out.with_suffix(".log"))


def average_precision(data: Path, rows: Sequence[dict[str, Any]], names: dict[int, str]) -> float:
    """AP by coco@500 of COCO results."""
    dataset = open_dataset(data, "val")
    truths = [dataset.annotations(entry)[0] for entry in dataset.with_annotation]
    found = {
        name: Detections.from_coco([row for row in rows if row["image_id"] == number])
        for number, name in names.items()
    }
    return float(score(truths, found, "coco@500").summary["AP"])


def our_ap(data: Path, out: Path) -> float:
    """AP of the command's predictions.json."""
    made = json.loads((out / "predictions.json").read_text())
    names = {image["id"]: Path(image["file_name"]).stem for image in made["images"]}
    return average_precision(data, made["annotations"], names)


def their_ap(data: Path, out: Path) -> float:
    """AP of SAHI's result.json."""
    rows = json.loads((out / "result.json").read_text())
    listed = json.loads((data / "images.json").read_text())["images"]
    names = {image["id"]: Path(image["file_name"]).stem for image in listed}
    return average_precision(data, rows, names)


def measured(
    data: Path, detector: Path, more: Sequence[str], repeats: int, place: Path
) -> dict[str, list[Run]]:
    """Every run, in turns, by name; the folders stay for the scores."""
    with_sahi = importlib.util.find_spec("sahi") is not None
    runs: dict[str, list[Run]] = {}
    for number in range(repeats):
        for pictures in (False, True):
            end = f"{'pictures' if pictures else 'boxes'}-{number}"
            mine = ours(data, place / f"ours-{end}", more, pictures=pictures)
            runs.setdefault(f"ours {pictures}", []).append(mine)
            if with_sahi:
                run = theirs(data, place / f"sahi-{end}", detector, pictures=pictures)
                runs.setdefault(f"sahi {pictures}", []).append(run)
    return runs


def table(runs: dict[str, list[Run]], aps: dict[str, float], count: int) -> list[str]:
    """Markdown rows: per image, the process's start included."""
    lines = [
        f"| {count} pictures at 1360x765, per image | s | CPU s | AP (coco@500) | faster | CPU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for pictures, what in ((False, "boxes as COCO"), (True, "and annotated pictures")):
        base = runs.get(f"sahi {pictures}")
        for name, title in (("sahi", "SAHI, 512 / .2"), ("ours", "dmnet predict")):
            if not (own := runs.get(f"{name} {pictures}")):
                continue
            wall, cpu = (min(getattr(run, key) for run in own) for key in ("seconds", "cpu"))
            ratio = "| | |"
            if name == "ours" and base:
                faster = min(run.seconds for run in base) / wall
                ratio = f"| {faster:.2f} | {min(run.cpu for run in base) / cpu:.2f} |"
            lines.append(
                f"| {title}, {what} | {wall / count:.3f} | {cpu / count:.3f} | {aps[name]:.4f} "
                f"{ratio}"
            )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images and annotations of a split")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sahi", nargs="+", metavar="PATH", help=argparse.SUPPRESS)
    given, more = parser.parse_known_args()
    if given.sahi:
        detector, images, out, *listing = map(Path, given.sahi)
        sahi_predict(detector, images, out, listing[0] if listing else None)
        return
    if given.data is None:
        print("skipped: give real pictures with --data")
        return
    detector = CONFIGS / "weights" / "visdrone-detector.onnx"
    pictures = chosen(given.data, given.pictures)
    with tempfile.TemporaryDirectory() as folder:
        data = copied(given.data, pictures, Path(folder, "data"))
        runs = measured(data, detector, more, given.repeats, Path(folder))
        aps = {"ours": our_ap(data, Path(folder, "ours-boxes-0"))}
        if "sahi False" in runs:
            aps["sahi"] = their_ap(data, Path(folder, "sahi-boxes-0"))
        print("\n".join(table(runs, aps, len(pictures))))
        said = Path(folder, "ours-boxes-0.log").read_text().splitlines()
        print(*[f"\n{line}" for line in said if "padding" in line])


if __name__ == "__main__":
    main()
