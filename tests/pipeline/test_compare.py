"""The report of fuse-eval, and ``dmnet compare``: two runs side by side from what they left."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dmnet.pipeline.cli import main
from tests.browser import Tab

from .conftest import draw_scene, write_split

IDS = ("100", "101", "102")


def detections(folder: Path, crops: Path, wanted: float) -> Path:
    """Foreign results: every object of the images, the last ones wrong; nothing in the crops."""
    parents = json.loads(crops.read_text())["parents"]
    rows: list[dict[str, Any]] = []
    for parent in parents:
        truth = draw_scene(int(Path(parent["file_name"]).stem))[1].objects
        pairs = zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
        for at, ((x1, y1, x2, y2), label) in enumerate(pairs):
            off = 0 if at < wanted * len(truth) else 60
            row = {"image_id": parent["id"], "category_id": label, "score": 0.9 - at / 20}
            rows.append({**row, "bbox": [x1 + off, y1, x2 - x1, y2 - y1]})
    folder.mkdir()
    (folder / "results_images.json").write_text(json.dumps(rows))
    (folder / "results_crops.json").write_text("[]")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs good and poor of the same three images, scored."""
    root = tmp_path_factory.mktemp("compare")
    write_split(root / "data", "val", range(100, 103))
    for name, wanted in (("good", 0.8), ("poor", 0.5)):
        places = ["--data", str(root / "data"), "--artifacts", str(root / "artifacts")]
        places += ["--run", name]
        for stage in ("density", "crop"):
            assert main([stage, *places, "--crop.threshold", "0.2"]) == 0
        crops = root / "artifacts" / name / "val" / "crop" / "crops.json"
        found = detections(root / name, crops, wanted)
        options = ["--detections", str(found), "--fuse-eval.bootstrap", "10"]
        options += ["--fuse-eval.edge-cover", str(wanted), "--crop.threshold", "0.2"]
        assert main(["fuse-eval", *places, *options]) == 0
    return root


def compare(root: Path, *words: str, data: str = "data") -> int:
    places = ["--data", str(root / data), "--artifacts", str(root / "artifacts")]
    return main(["compare", *words, *places, "--out", str(root / "compare.html")])


def lines(text: str, *start: str) -> list[list[str]]:
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return [row for row in rows if row[: len(start)] == list(start)]


def test_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(root, "good", "poor", "--bootstrap", "20") == 0
    said = capsys.readouterr().out
    (good,), (poor,), (gap,) = (
        [row for row in lines(said, "coco@500", name) if len(row) > 7]
        for name in ("good", "poor", "poor - good")
    )
    scores = json.loads((root / "artifacts/good/val/fuse-eval/scores.json").read_text())
    assert good[2] == f"{scores['protocols']['coco@500']['fused']['AP']:.4f}"
    assert float(gap[2]) == pytest.approx(float(poor[2]) - float(good[2]), abs=1.1e-4)
    assert float(gap[2]) < 0
    (change,) = lines(said, "coco@500", "poor - good", "AP")
    value, low, high, p = map(float, change[3:])
    assert low <= value <= high < 0 and p < 0.1
    assert lines(said, "fuse-eval.edge-cover") == [["fuse-eval.edge-cover", "0.8", "0.5"]]
    (car,) = lines(said, "coco@500", "car")
    assert float(car[4]) == pytest.approx(float(car[3]) - float(car[2]), abs=1.1e-4)


def test_the_page_is_the_same_every_time(root: Path) -> None:
    pages = []
    for _ in range(2):
        assert compare(root, "good", "poor", "--bootstrap", "5") == 0
        pages.append((root / "compare.html").read_text())
    assert pages[0] == pages[1]
    assert "good against poor" in pages[0] and "minus good" in pages[0]
    assert "fuse-eval.edge-cover" in pages[0] and 'id="viewer"' in pages[0]


def test_whole_images_can_be_compared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(root, "good", "poor", "--result", "crops", "--bootstrap", "0") == 0
    said = capsys.readouterr().out
    assert "crops detections on 3 images of val" in said and "95 %" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("good",), "at least two runs"),
        (("good", "good"), "each named once"),
        (("good", "nobody"), "make fuse-eval MODE=val"),
        (("good", "poor", "--split", "train"), "has no finished scores of train"),
        (("good", "poor", "--split", "valid"), "has no finished scores of valid"),
    ],
)
def test_what_cannot_be_compared(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert compare(root, *words) == 2
    assert said in capsys.readouterr().err


def test_other_images_and_damaged_scores(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "artifacts", tmp_path / "artifacts")
    shutil.copytree(root / "data", tmp_path / "data")
    folder = tmp_path / "artifacts/poor/val/fuse-eval"
    journal = (folder / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(journal[1:]))
    assert compare(tmp_path, "good", "poor") == 2
    assert "1 images are only in one of them" in capsys.readouterr().err
    (folder / "scores.json").write_text('{"protocols": {"coco@500": {"fused": 3}}}')
    assert compare(tmp_path, "good", "poor") == 2
    assert "not the scores of a run" in capsys.readouterr().err
    (tmp_path / "data/VisDrone2019-DET-val/annotations/101.txt").unlink()
    (folder / "items.jsonl").write_text("".join(journal))
    shutil.copy(root / "artifacts/poor/val/fuse-eval/scores.json", folder / "scores.json")
    assert compare(tmp_path, "good", "poor") == 2
    assert "1 of the 3 scored images have no annotations" in capsys.readouterr().err


def test_the_report_of_a_run(root: Path, chromium: Any) -> None:
    report = root / "artifacts/good/val/fuse-eval/report.html"
    html = report.read_text()
    assert str(root) not in html  # nothing of this machine
    tab = Tab(chromium, report, viewport={"width": 1300, "height": 900})
    page = tab.page
    assert "SET='" in page.locator("#facts").inner_text()
    assert re.search(r"\d\d/\d\d/20\d\d", page.locator("#written").inner_text())
    page.locator("#facts summary").click()
    assert page.get_by_text("fuse-eval.edge-cover", exact=True).is_visible()
    layers = page.locator('[data-part="layers"] label span').all_inner_texts()
    assert layers == ["whole image", "crops", "fused", "ground truth", "crop windows", "density"]
    assert page.locator('[data-part="position"]').inner_text() == "1 / 3"
    name = page.locator('[data-part="name"]')
    first = name.inner_text()
    page.keyboard.press("n")  # the page's, not the viewer's
    assert name.inner_text() == first
    page.locator("canvas").click()
    page.keyboard.press("n")
    assert name.inner_text() != first
    page.get_by_role("link", name="Classes").click()  # an anchor leaves the viewer alone
    assert name.inner_text() != first
    tab.close()
