"""One command for a data set of one's own (docs/own-data.md): trains, crops, detects, scores."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.images import encode_jpeg
from dmnet.fusion.evaluation.evaluate import evaluate
from dmnet.pipeline.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
SMALL = ("--train-detector.epochs 1 --train-detector.yolox.input-size 64 --workers 1 "
         "--train-detector.pictures 0 --fuse-eval.bootstrap 0")  # fmt: skip


@pytest.fixture
def boats(tmp_path: Path) -> Path:
    """A YOLO data set of two classes: light and dark rectangles on grey."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for index in range(count):
            pixels, rows = np.full((96, 128, 3), 128, np.uint8), []
            for x, y in rng.integers(10, 60, (6, 2)):
                label = int(rng.integers(2))
                pixels[y : y + 16, x : x + 24] = (30, 220)[label]
                rows.append(f"{label} {(x + 12) / 128} {(y + 8) / 96} {24 / 128} {16 / 96}\n")
            (tmp_path / "images" / split / f"{index}.jpg").write_bytes(encode_jpeg(pixels))
            (tmp_path / "labels" / split / f"{index}.txt").write_text("".join(rows))
    data = tmp_path / "data.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [barge, tug boat]\n")
    return data


def command(data: Path, root: Path) -> list[str]:
    """The command of the page as `make` hands it on, on other data and smaller."""
    line = next(each for each in PAGE.read_text().splitlines() if each.startswith("make all"))
    given = dict(word.split("=", 1) for word in shlex.split(line)[2:])
    assert given.keys() == {"DATA", "RUN", "WEIGHTS", "CONFIG"}
    options = ["--data", str(data), "--run", given["RUN"], "--artifacts", str(root)]
    options += ["--weights", given["WEIGHTS"], "--config", given["CONFIG"]]
    return ["all", *options, *SMALL.split()]


def test_the_command_of_the_page(
    boats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "artifacts"
    assert main(command(boats, root)) == 0
    said = capsys.readouterr().err
    assert "visdrone-detector.pt: 636 tensors taken, 6 of the network start anew" in said
    made = root / "cars" / "val"
    history = (made.parent / "train" / "train-detector" / "history.csv").read_text()
    rows = list(csv.DictReader(history.splitlines()))
    assert len(rows) == 1 and float(rows[0]["loss"]) > 0
    protocols = json.loads((made / "fuse-eval" / "scores.json").read_text())["protocols"]
    fused = protocols["coco@500"]["fused"]
    assert list(fused["classes"]) == ["barge", "tug boat"] and fused["counts"]["objects"] == 12
    again = evaluate(boats, made / "fuse-eval" / "results.json", "coco@500")
    assert again.summary["AP"] == pytest.approx(fused["AP"], nan_ok=True)
    assert "tug boat" in (made / "fuse-eval" / "report.html").read_text()
    assert main(command(boats, root)) == 0
    done = [text for text in capsys.readouterr().err.splitlines() if " done, " in text]
    assert len(done) == 9 and all(": 0 done" in text for text in done)


def test_a_start_that_is_no_file_and_no_name_is_refused(
    boats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*command(boats, tmp_path / "artifacts"), "--train-detector.init", "visdron"]
    assert main(options) == 2
    assert "there is no file visdron, nor a shipped model of this name" in capsys.readouterr().err
