"""The pipeline in memory, on pictures whose objects are known."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import read_image
from dmnet.core.records import Detections
from dmnet.cropping.slicers import CropConfig
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.scene import ArrayPixels, Scene
from dmnet.pipeline.predict.settings import PredictConfig
from tests.pipeline.predict.conftest import Counter, Finder, draw, write_png

OBJECTS = [(40, 30, 60, 50, 1), (70, 32, 90, 60, 4), (500, 300, 520, 330, 1)]
BOXES = sorted([float(v) for v in row[:4]] for row in OBJECTS)


def test_one_array(model: Model) -> None:
    result = model(draw((400, 600), OBJECTS))
    assert sorted(result.detections.boxes.tolist()) == BOXES
    assert result.detections.labels.tolist() == [1, 1, 4]  # by descending score
    assert result.counts() == {"pedestrian": 2, "car": 1}
    assert result.density is not None
    assert result.density.count == pytest.approx(3, rel=1e-5)
    assert len(result.windows) == 2
    assert list(result.timings) == ["read", "density", "slice", "detect", "fuse"]


def test_whole_image_and_windows_go_through_the_detector() -> None:
    finder = Finder()
    result = Model(finder, Counter())(draw((400, 600), OBJECTS))
    crops = [(y2 - y1, x2 - x1) for x1, y1, x2, y2 in result.windows]
    assert sorted(finder.seen) == sorted([(400, 600), *crops])


def test_lists_paths_and_arrays_keep_their_order(model: Model, tmp_path: Path) -> None:
    pictures = [draw((100, 100), [(10 * i, 10, 10 * i + 9, 30, 1)]) for i in range(5)]
    sources = [write_png(tmp_path / f"{i}.png", each) for i, each in enumerate(pictures)]
    results = model([*sources[:3], *pictures[3:]])
    assert [r.detections.boxes[0, 0] for r in results] == [0, 10, 20, 30, 40]
    assert results[0].name == str(sources[0])


def test_an_image_without_objects(model: Model) -> None:
    result = model(draw((64, 64), []))
    assert (len(result.detections), result.windows, result.counts()) == (0, (), {})
    assert result.plot().shape == (64, 64, 3)


def test_one_pixel(model: Model) -> None:
    assert len(model(np.zeros((1, 1, 3), np.uint8)).detections) == 0


def test_confidence_and_classes() -> None:
    image = draw((400, 600), OBJECTS)
    sure = Model(Finder(), Counter(), confidence=0.7)(image)
    assert sure.counts() == {"pedestrian": 2}
    cars = Model(Finder(), Counter(), only=("car",))(image)
    assert cars.counts() == {"car": 1}
    with pytest.raises(ConfigError, match="no class is called 'cat'"):
        Model(Finder(), Counter(), only=("cat",))
    with pytest.raises(ConfigError, match="confidence must be 0 to 1"):
        Model(Finder(), Counter(), confidence=1.5)


def test_a_slicer_without_density_network() -> None:
    with pytest.raises(ConfigError, match="needs a density network"):
        Model(Finder())
    grid = PredictConfig(crop=CropConfig.of(slicer="grid", tile=200))
    result = Model(Finder(), config=grid)(draw((400, 600), OBJECTS))
    assert sorted(result.detections.boxes.tolist()) == BOXES
    assert result.density is None
    assert len(result.windows) > 5


def test_the_oracle_is_refused() -> None:
    with pytest.raises(ValueError, match="oracle needs annotations"):
        PredictConfig(crop=CropConfig.of(slicer="oracle"))


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_arrays_that_are_no_images(model: Model, array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\(height, width, 3\) uint8"):
        model(array)


def test_a_broken_image_stops_only_itself(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    good = draw((50, 50), [(5, 5, 20, 20, 1)])

    def bad() -> ArrayPixels:
        return ArrayPixels(read_image(tmp_path / "bad.jpg"))

    scenes = [Scene("a", partial(ArrayPixels, good)), Scene("b", bad)] * 2
    outcomes = [outcome for _, outcome in model.scenes(scenes)]
    assert [isinstance(each, InputError) for each in outcomes] == [False, True] * 2
    with pytest.raises(InputError, match="not an image"):
        model(tmp_path / "bad.jpg")


class Reduced:
    """An image whose whole is seen at half its size."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.whole, self.size = image, image[::2, ::2], image.shape[:2]
        self.blank = False

    def crop(self, window: tuple[int, int, int, int]) -> np.ndarray:
        x1, y1, x2, y2 = window
        return self.image[y1:y2, x1:x2]


def test_a_reduced_whole_gives_boxes_of_the_full_image(model: Model) -> None:
    image = draw((401, 600), OBJECTS)
    (_, result), = model.scenes([Scene("", lambda: Reduced(image))])  # fmt: skip
    assert result.size == (401, 600)
    assert result.density.size == (401, 600)
    assert result.density.stride == 8
    expected = np.array([OBJECTS[i][:4] for i in (0, 2, 1)])
    assert result.detections.boxes == pytest.approx(expected, abs=2)


def test_pictures_and_files_of_a_result(model: Model, tmp_path: Path) -> None:
    result = model(draw((400, 600), OBJECTS))
    shown = result.plot(windows=True, density=True, scores=False, legend=False)
    assert shown.shape == (400, 600, 3)
    x1, y1, _, y2 = result.windows[0]
    assert shown[(y1 + y2) // 2, x1].tolist() == [255, 255, 255]
    assert result._repr_png_().startswith(b"\x89PNG")
    data = json.loads(result.save(tmp_path / "r.json").read_text())
    assert sorted(row["bbox"] for row in data["annotations"])[0] == [40.0, 30.0, 20.0, 20.0]
    assert data["images"][0]["width"] == 600
    assert read_image(result.save(tmp_path / "r.png")).shape[1] == 600
    with pytest.raises(ConfigError, match=r"writes \.jpg, \.png or \.json"):
        result.save(tmp_path / "r.xyz")


def test_to_supervision(model: Model) -> None:
    pytest.importorskip("supervision", reason="needs the extra viz")
    found = model(draw((400, 600), OBJECTS)).to_supervision()
    assert found.xyxy.shape == (3, 4)
    assert found.data["class_name"].tolist() == ["pedestrian", "pedestrian", "car"]
    assert isinstance(model(draw((9, 9), [])).detections, Detections)
