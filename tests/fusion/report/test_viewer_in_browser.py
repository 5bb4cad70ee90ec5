"""The viewer as a user meets it: slider, classes, layers, keys, link, phone, dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.classes import Classes
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.report.viewer import ViewerImage, density_png, picture_jpeg, viewer_page
from tests.browser import Tab

CLASSES = Classes(("car", "bus"))
SIZE = (300, 400)


def picture(name: str, shade: int) -> ViewerImage:
    """Cars of score .9, .6, .3 and a bus of .8; truth: the first car, another car, the bus."""
    boxes = np.array(
        [[20, 20, 60, 50], [100, 20, 140, 50], [200, 20, 240, 50], [50, 150, 150, 210]]
    )
    found = Detections(boxes, np.array([0.9, 0.6, 0.3, 0.8]), np.array([1, 1, 1, 2]))
    truth = Annotations.of(name, SIZE, [boxes[0], [300, 200, 340, 230], boxes[3]], [1, 1, 2])
    heat = np.zeros(SIZE)
    heat[20:50, 20:60] = 1
    return ViewerImage(
        name,
        picture_jpeg(np.full((*SIZE, 3), shade, dtype=np.uint8)),
        SIZE,
        {"whole image": found[:2], "crops": found[1:], "fused": found},
        truth,
        [(0, 0, 200, 150)],
        density_png(heat),
        3.2,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    images = [picture("first", 60), picture("second & last", 200)]
    file = folder / "viewer.html"
    file.write_text(viewer_page("Test", images, CLASSES), encoding="utf-8")
    return file


@pytest.fixture
def tab(chromium: Any, path: Path) -> Iterator[Tab]:
    opened = Tab(chromium, path, viewport={"width": 1200, "height": 800})
    yield opened
    opened.close()


def text(tab: Tab, part: str) -> str:
    return str(tab.page.locator(f'[data-part="{part}"]').inner_text())


def outputs(tab: Tab, part: str) -> dict[str, str]:
    rows = tab.page.locator(f'[data-part="{part}"] label').all()
    pairs = [(r.locator("span").inner_text(), r.locator("output")) for r in rows]
    return {name: out.inner_text() for name, out in pairs}


def colour_at(tab: Tab, x: float, y: float) -> list[int]:
    """Colour of the canvas at a place of the picture, by pixels as they are on screen."""
    tab.page.wait_for_timeout(120)
    script = """([x, y, w, h]) => {
      const c = document.querySelector("canvas"), box = c.getBoundingClientRect();
      const s = Math.min(box.width / w, box.height / h), dots = window.devicePixelRatio;
      const px = (box.width - w * s) / 2 + x * s, py = (box.height - h * s) / 2 + y * s;
      return [...c.getContext("2d").getImageData(px * dots, py * dots, 1, 1).data].slice(0, 3);
    }"""
    found: list[int] = tab.page.evaluate(script, [x, y, SIZE[1], SIZE[0]])
    return found


def link(tab: Tab) -> str:
    tab.page.wait_for_timeout(300)
    return str(tab.page.url).partition("#")[2]


def test_counts_follow_the_slider(tab: Tab) -> None:
    assert text(tab, "objects") == "4"
    assert [text(tab, name) for name in ("tp", "fp", "fn")] == ["2", "2", "1"]
    assert outputs(tab, "classes") == {"car": "3", "bus": "1"}
    assert text(tab, "total") == "8 objects in 2 images"
    tab.page.locator('[data-part="score"]').fill("0.7")
    assert text(tab, "objects") == "2"
    assert [text(tab, name) for name in ("tp", "fp", "fn")] == ["2", "0", "1"]
    assert outputs(tab, "classes") == {"car": "1", "bus": "1"}
    tab.page.wait_for_timeout(500)
    assert text(tab, "live") == (
        "first: 2 objects at score 0.70 or more; 2 TP, 0 FP, 1 FN: 1 car, 1 bus"
    )
    assert "score=0.70" in link(tab)


def test_classes_on_and_off(tab: Tab) -> None:
    tab.page.get_by_role("checkbox", name="car").uncheck()
    assert text(tab, "objects") == "1"
    assert [text(tab, name) for name in ("tp", "fp", "fn")] == ["1", "0", "0"]
    tab.page.get_by_role("button", name="all off").click()
    assert text(tab, "objects") == "0"
    tab.page.get_by_role("button", name="all on").click()
    assert text(tab, "objects") == "4"


def test_layers_are_drawn(tab: Tab) -> None:
    grey = colour_at(tab, 30, 30)
    assert max(abs(value - 60) for value in grey) < 4
    assert colour_at(tab, 20, 35) == [255, 82, 82]  # the first class is red
    assert outputs(tab, "layers") == {
        "whole image": "2", "crops": "3", "fused": "4", "ground truth": "3", "crop windows": "1",
        "density": "3.2",
    }  # fmt: skip
    tab.page.get_by_role("checkbox", name="fused").uncheck()
    assert max(abs(value - 60) for value in colour_at(tab, 20, 35)) < 4
    tab.page.get_by_role("checkbox", name="density").check()
    red, green, blue = colour_at(tab, 30, 30)
    assert red > 200
    assert green > 200
    assert blue < 180
    assert max(abs(value - 60) for value in colour_at(tab, 300, 100)) < 4
    tab.page.get_by_role("checkbox", name="ground truth").check()
    assert min(colour_at(tab, 320, 200)) > 200  # white, where nothing was found


def test_outcome_colours(tab: Tab) -> None:
    tab.page.get_by_label("TP, FP, FN").check()
    assert colour_at(tab, 20, 35) == [0x46, 0xCD, 0x5A]  # TP
    assert colour_at(tab, 100, 35) == [0xFF, 0x48, 0x48]  # FP
    assert "colour=outcome" in link(tab)


def test_keys(tab: Tab) -> None:
    press = tab.page.keyboard.press
    press("n")
    assert text(tab, "name") == "second & last"
    assert text(tab, "position") == "2 / 2"
    press("ArrowRight")
    assert text(tab, "name") == "first"
    press("p")
    assert text(tab, "name") == "second & last"
    press("+")
    press("+")
    assert text(tab, "zoom-value") == "225 %"
    press("Shift+ArrowRight")
    assert "view=" in link(tab)
    press("0")
    assert text(tab, "zoom-value") == "100 %"
    for _ in range(4):
        press("]")
    assert text(tab, "score-value") == "0.45"
    press("[")
    assert text(tab, "score-value") == "0.40"
    press("w")
    assert "windows" in link(tab)
    press("3")
    assert "fused" not in link(tab)
    press("?")
    assert tab.page.get_by_role("dialog").is_visible()
    press("n")  # behind the dialog nothing moves
    assert text(tab, "name") == "second & last"
    press("Escape")
    assert tab.page.get_by_role("dialog").count() == 0


def test_arrows_belong_to_the_slider_while_it_has_the_focus(tab: Tab) -> None:
    tab.page.locator('[data-part="score"]').focus()
    tab.page.keyboard.press("ArrowRight")
    assert text(tab, "name") == "first"
    assert text(tab, "score-value") == "0.26"


def test_wheel_drag_and_double_click(tab: Tab) -> None:
    box = tab.page.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(*middle)
    tab.page.mouse.wheel(0, -400)
    tab.page.wait_for_timeout(100)
    assert int(text(tab, "zoom-value").split()[0]) > 150
    before = link(tab)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 80, middle[1] + 40, steps=4)
    tab.page.mouse.up()
    assert link(tab) != before
    tab.page.get_by_role("button", name="Fit").click()
    assert text(tab, "zoom-value") == "100 %"
    tab.page.mouse.dblclick(*middle)
    assert text(tab, "zoom-value") == "200 %"


def test_hover_names_the_box(tab: Tab) -> None:
    box = tab.page.locator("canvas").bounding_box()
    scale = min(box["width"] / SIZE[1], box["height"] / SIZE[0])
    left = box["x"] + (box["width"] - SIZE[1] * scale) / 2
    top = box["y"] + (box["height"] - SIZE[0] * scale) / 2
    tab.page.mouse.move(left + 100 * scale, top + 180 * scale)
    assert text(tab, "hint") == "bus 0.800 · fused · 100 x 60 px at 50, 150"
    tab.page.mouse.move(left + 390 * scale, top + 280 * scale)
    assert not tab.page.locator('[data-part="hint"]').is_visible()


def test_a_link_keeps_the_state(chromium: Any, path: Path) -> None:
    fragment = "#image=second+%26+last&score=0.70&layers=crops,truth&off=bus&view=0.3,0.4,3"
    tab = Tab(chromium, path, fragment, viewport={"width": 1200, "height": 800})
    assert text(tab, "name") == "second & last"
    assert text(tab, "score-value") == "0.70"
    assert text(tab, "zoom-value") == "300 %"
    assert tab.page.get_by_role("checkbox", name="crops").is_checked()
    assert not tab.page.get_by_role("checkbox", name="fused").is_checked()
    assert not tab.page.get_by_role("checkbox", name="bus").is_checked()
    assert text(tab, "objects") == "1"
    tab.page.evaluate("location.hash = '#image=first&score=0.5'")
    tab.page.wait_for_timeout(100)
    assert text(tab, "name") == "first"
    assert text(tab, "zoom-value") == "100 %"
    tab.close()


@pytest.mark.parametrize("fragment", ["#image=nobody&score=x&view=1,2", "#image=&off=boat", "#a"])
def test_a_damaged_link_does_no_harm(chromium: Any, path: Path, fragment: str) -> None:
    tab = Tab(chromium, path, fragment)
    assert text(tab, "name") == "first"
    assert text(tab, "score-value") == "0.25"
    tab.close()


def test_phone(chromium: Any, path: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    tab = Tab(chromium, path, **phone)
    width = tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    order = ["canvas", "objects", "thumbs", "score"]
    tops = [tab.page.locator(f'[data-part="{name}"]').bounding_box()["y"] for name in order]
    assert tops == sorted(tops)
    buttons = tab.page.locator("#viewer button:visible").all()
    assert all(button.bounding_box()["height"] >= 40 for button in buttons)
    tab.page.get_by_role("button", name="Next image").tap()
    assert text(tab, "name") == "second & last"
    tab.close()


def test_dark_mode(chromium: Any, path: Path) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        tab = Tab(chromium, path, color_scheme=scheme)
        found = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = sum(int(part) for part in found[4:-1].split(","))
        tab.close()
    assert shades["dark"] < 120 < 650 < shades["light"]


def test_every_control_has_a_name(tab: Tab) -> None:
    tab.page.wait_for_timeout(400)
    nameless = tab.page.evaluate(
        """[...document.querySelectorAll("#viewer button, #viewer input")].filter(one =>
        !(one.getAttribute("aria-label") || one.innerText || one.textContent
          || (one.labels && one.labels[0] && one.labels[0].textContent))).length"""
    )
    assert nameless == 0
    label = tab.page.locator("canvas").get_attribute("aria-label")
    assert label.startswith("Picture first: 4 objects")
    for _ in range(30):  # the keyboard alone reaches the picture and the slider
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.dataset.part") == "score":
            return
    pytest.fail("the slider cannot be reached with the Tab key")


def test_a_missing_picture_is_said(chromium: Any, tmp_path: Path) -> None:
    gone = ViewerImage("gone", "pictures/gone.jpg", SIZE, {"fused": Detections.empty()})
    file = tmp_path / "viewer.html"
    file.write_text(viewer_page("Test", [gone], CLASSES), encoding="utf-8")
    tab = Tab(chromium, file)
    tab.page.wait_for_timeout(300)
    assert tab.page.get_by_text("file is missing").is_visible()
    assert all("gone.jpg" in error or "ERR_FILE_NOT_FOUND" in error for error in tab.errors)
    tab.errors.clear()
    tab.close()


def test_pictures_beside_the_page(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(picture_jpeg(np.full((*SIZE, 3), 150, dtype=np.uint8)))
    image = ViewerImage("a b", "a%20b.jpg", SIZE, {"fused": Detections.empty()})
    file = tmp_path / "viewer.html"
    file.write_text(viewer_page("Test", [image], CLASSES), encoding="utf-8")
    tab = Tab(chromium, file)
    tab.page.wait_for_timeout(300)
    assert not tab.page.get_by_text("file is missing").is_visible()
    tab.close()


def test_no_images(chromium: Any, tmp_path: Path) -> None:
    file = tmp_path / "viewer.html"
    file.write_text(viewer_page("Test", [], CLASSES), encoding="utf-8")
    tab = Tab(chromium, file)
    assert tab.page.get_by_text("There are no pictures to show.").is_visible()
    tab.close()
