"""viewer.html of `dmnet predict` in a real browser: every layer, a phone, nothing from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import Tab
from tests.pipeline.predict.conftest import Predict, draw, write_png

WIDE = {"viewport": {"width": 1200, "height": 800}}


@pytest.fixture
def page(predict: Predict, tmp_path: Path) -> Path:
    """Two pictures; the first has a red and a blue object, of which the red one is annotated."""
    root = tmp_path / "data"
    write_png(
        root / "images" / "a.png", draw((200, 300), [(40, 30, 60, 50, 1), (90, 32, 110, 60, 4)])
    )
    write_png(root / "images" / "b.png", draw((150, 150), [(100, 100, 120, 130, 1)]))
    (root / "annotations").mkdir()
    (root / "annotations" / "a.txt").write_text("40,30,20,20,1,1,0,0\n200,150,20,20,1,4,0,0\n")
    assert predict(root / "images") == 0
    return tmp_path / "out" / "viewer.html"


def outputs(tab: Tab, part: str) -> dict[str, str]:
    rows = tab.page.locator(f'[data-part="{part}"] label').all()
    return {r.locator("span").inner_text(): r.locator("output").inner_text() for r in rows}


def text(tab: Tab, part: str) -> str:
    return str(tab.page.locator(f'[data-part="{part}"]').inner_text())


def test_all_layers_are_filled(chromium: Any, page: Path) -> None:
    tab = Tab(chromium, page, **WIDE)
    shown = outputs(tab, "layers")
    windows = int(shown.pop("crop windows"))
    assert windows >= 1
    assert shown == {
        "whole image": "2", "crops": "2", "fused": "2", "ground truth": "2", "density": "2.0",
    }  # fmt: skip
    assert [text(tab, name) for name in ("tp", "fp", "fn")] == ["1", "1", "1"]
    for name in ("whole image", "crops", "crop windows", "density", "ground truth"):
        tab.page.get_by_role("checkbox", name=name).check()
    tab.page.locator('[data-part="score"]').fill("0.7")
    assert outputs(tab, "layers")["crops"] == "1"
    tab.page.get_by_role("checkbox", name="pedestrian").uncheck()
    assert text(tab, "objects") == "0"
    tab.page.keyboard.press("n")
    assert text(tab, "name") == "b.png"
    assert "ground truth" in outputs(tab, "layers")  # empty here: nobody annotated it
    assert outputs(tab, "layers")["ground truth"] == ""
    tab.close()


def test_on_a_phone(chromium: Any, page: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    tab = Tab(chromium, page, **phone)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.page.get_by_role("button", name="Next image").tap()
    assert text(tab, "name") == "b.png"
    tab.close()


def test_new_labels_renew_the_page_alone(
    predict: Predict, page: Path, tmp_path: Path, finder: Any
) -> None:
    seen = len(finder.seen)
    (tmp_path / "data" / "annotations" / "b.txt").write_text("100,100,20,30,1,1,0,0\n")
    before = page.read_text()
    assert predict(tmp_path / "data" / "images") == 0
    assert page.read_text() != before
    assert len(finder.seen) == seen


def test_without_a_slicer_there_is_one_layer(
    predict: Predict, chromium: Any, tmp_path: Path
) -> None:
    picture = write_png(tmp_path / "a.png", draw((60, 90), [(4, 4, 20, 20, 1)]))
    assert predict(picture, "--slicer", "none") == 0
    tab = Tab(chromium, tmp_path / "out" / "viewer.html", **WIDE)
    assert outputs(tab, "layers") == {"fused": "1"}
    tab.close()


def test_many_pictures_stay_beside_the_page(predict: Predict, tmp_path: Path) -> None:
    from dmnet.pipeline.predict import run

    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", draw((60, 90), [(4, 4, 20, 20, 1)]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "EMBEDDED", 300)
        assert predict(tmp_path / "in", "--slicer", "none") == 0
    page = (tmp_path / "out" / "viewer.html").read_text()
    assert "viewer/2.jpg" in page
    assert "data:image/jpeg" not in page
