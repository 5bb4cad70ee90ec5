from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmnet.core.classes import Classes
from dmnet.core.errors import CheckpointError, ConfigError, InputError
from dmnet.core.records import Detections, Image
from dmnet.core.training.weights import read_weights
from dmnet.detectors import base
from dmnet.detectors.base import NetDetector, build_model, load_net
from dmnet.detectors.load import Detector, at_side, load_detector
from dmnet.detectors.names import DETECTORS

SMALL: dict[str, Any] = {
    "min_size": 64, "max_size": 96, "fpn_channels": 16, "head_channels": 16, "proposals": 20,
    "roi_samples": 16, "max_detections": 7,
}  # fmt: skip
NAME = "fasterrcnn-mobilenetv3"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    path.write_bytes(base.save_net(build_model(NAME, SMALL), metrics={"AP": 0.5}))
    return path


def test_every_name_has_one_place() -> None:
    assert set(DETECTORS) == {
        "fasterrcnn-r50", "fasterrcnn-r50-v2", "fasterrcnn-mobilenetv3", "fasterrcnn-mobilenetv2",
        "retinanet-r50", "fcos-r50", "fcos-mobilenetv2",
        "yolov6-n", "yolov6-t", "yolov6-s", "yolov6-m", "yolov6-l",
        "yolox-nano", "yolox-tiny", "yolox-s", "mmdet", "onnx", "results",
    }  # fmt: skip


def test_unknown_names_and_settings() -> None:
    with pytest.raises(ConfigError, match="no detector is called 'yolo'; there are: fasterrcnn"):
        build_model("yolo")
    with pytest.raises(ConfigError, match="did you mean 'min_size'"):
        build_model(NAME, {"minsize": 3})
    with pytest.raises(ConfigError, match="give its weights file too"):
        load_detector("onnx")


def test_no_images_no_detections() -> None:
    detector = NetDetector(build_model(NAME, SMALL), "cpu")
    assert detector.predict([]) == []
    assert isinstance(detector, Detector)


def test_saved_and_loaded_network_finds_the_same(weights: Path, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    net = build_model(NAME, SMALL)
    weights.write_bytes(base.save_net(net, config={"epochs": 1}))
    images = [rng.integers(0, 255, (h, w, 3)).astype(np.uint8) for h, w in ((64, 80), (50, 40))]
    before = NetDetector(net, "cpu").predict(images)
    after = load_detector(weights, device="cpu").predict(images)
    for a, b in zip(before, after, strict=True):
        assert len(a) == 7
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.scores, b.scores)
        assert (np.diff(a.scores) <= 0).all()
    meta = read_weights(weights)[1]
    assert meta["architecture"] == NAME
    assert meta["classes"][3] == "car"
    assert meta["config"] == {"epochs": 1}
    assert meta["input"]["mean"] == [0.485, 0.456, 0.406]


def test_settings_may_be_overridden_when_loading(weights: Path) -> None:
    assert load_net(weights, settings={"max_detections": 3}).settings["max_detections"] == 3


def test_the_same_weights_give_the_same_bytes() -> None:
    net = build_model(NAME, SMALL)
    assert base.save_net(net) == base.save_net(net)


def test_weights_of_another_architecture(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=f"holds weights of '{NAME}', not of 'fcos-r50'"):
        load_net(weights, "fcos-r50")


def test_weights_of_another_class_count(weights: Path) -> None:
    with pytest.raises(CheckpointError, match="trained for 10 classes, expected 3"):
        load_net(weights, classes=3)
    state = {k: v for k, v in read_weights(weights)[0].items()}
    plain = weights.with_name("plain.pth")
    torch.save(state, plain)
    with pytest.raises(CheckpointError, match=r"shape \(11, 16\).*3 classes needs \(4, 16\)"):
        load_net(plain, NAME, SMALL, classes=3)


def test_a_plain_state_dict_needs_a_name(tmp_path: Path) -> None:
    net = build_model(NAME, SMALL)
    path = tmp_path / "plain.pth"
    torch.save(net.state_dict(), path)
    with pytest.raises(CheckpointError, match="does not say its architecture"):
        load_net(path)
    assert load_net(path, NAME, SMALL).architecture == NAME


def test_a_state_dict_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(OrderedDict(a=torch.zeros(3)), path)
    with pytest.raises(CheckpointError, match=r"not weights of fasterrcnn.*missing.*1 are unknown"):
        load_net(path, NAME, SMALL)


class _Payload:
    pass


def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": _Payload()}, path)
    with pytest.raises(CheckpointError, match="refused: it holds pickled objects"):
        load_net(path, NAME)
    path.write_bytes(pickle.dumps([1, 2], protocol=2))
    with pytest.raises(CheckpointError):
        load_net(path, NAME)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="holds a list, expected a state_dict"):
        load_net(path, NAME)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_detector(tmp_path / "absent.pt")


def test_an_image_beyond_the_pixel_budget_is_named() -> None:
    detector = NetDetector(build_model(NAME, SMALL), "cpu", max_pixels=100)
    with pytest.raises(
        InputError, match="image of 20x10: has 200 pixels, more than max_pixels=100"
    ):
        detector.predict([np.zeros((10, 20, 3), np.uint8)])


class _Full(base.NetDetector):
    pass


def test_out_of_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = _Full(build_model(NAME, SMALL), "cpu")

    def fail(images: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(detector.net, "detect", fail)
    with pytest.raises(base.DmnetError, match=r"out of memory on cpu with 1 images.*\(20x10"):
        detector.predict([np.zeros((10, 20, 3), np.uint8)])


def test_equal_scores_keep_their_order() -> None:
    found = base.Found(
        boxes=torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]),
        scores=torch.tensor([0.5, 0.9, 0.5]),
        labels=torch.tensor([1, 2, 3]),
    )
    assert base.to_detections(found).labels.tolist() == [2, 1, 3]


def test_a_network_in_training_mode_needs_targets() -> None:
    with pytest.raises(ValueError, match="needs targets"):
        build_model(NAME, SMALL)([torch.zeros(3, 8, 8)])


def test_weights_of_other_classes_are_mapped_by_name_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The network's classes come from its weights file; labels are the data set's."""
    net = build_model("yolov6-n", {"input_size": 64}, Classes(("bus", "cat", "Car")))
    path = tmp_path / "weights.pt"
    path.write_bytes(base.save_net(net))
    assert read_weights(path)[1]["classes"] == ["bus", "cat", "Car"]
    with caplog.at_level(logging.WARNING, logger="dmnet"):
        detector = load_detector(path, device="cpu", classes=Classes(("car", "truck", "bus")))
    assert isinstance(detector, NetDetector) and detector.table is not None
    assert detector.table.tolist() == [3, -1, 1]
    assert "bus -> bus, Car -> car; dropped: cat; never found: truck" in caplog.text
    same = load_detector(path, device="cpu", classes=Classes(("Bus", "cat", "car")))
    assert isinstance(same, NetDetector) and same.table is None
    with pytest.raises(ConfigError, match=r"none of the detector's classes \(bus, cat, Car\)"):
        load_detector(path, device="cpu", classes=Classes(("ship",)))


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("yolox-nano", ("input_size",)),
        ("yolov6-n", ("input_size",)),
        ("fcos-mobilenetv2", ("min_size", "max_size")),
        ("fasterrcnn-mobilenetv3", ("min_size", "max_size")),
    ],
)
def test_at_another_side_it_is_the_network_that_was_made_for_it(
    name: str, sides: tuple[str, ...], rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"fpn_channels": 64, "head_channels": 64} if len(sides) > 1 else {}
    small["score_threshold"] = 0.0
    own = build_model(name, {**small, **dict.fromkeys(sides, 64)})
    made = build_model(name, {**small, **dict.fromkeys(sides, 96)})
    made.load_state_dict(own.state_dict())
    detector = NetDetector(own, "cpu")
    image = rng.integers(0, 255, (50, 90, 3), np.uint8)
    before = detector.predict([image])[0]
    other = at_side(detector, 96)
    found, expected = (each.predict([image])[0] for each in (other, NetDetector(made, "cpu")))
    assert len(expected) > 20
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(detector.predict([image])[0].boxes, before.boxes)
    assert len(before) != len(expected) or not np.array_equal(before.boxes, expected.boxes)


def test_a_fixed_input_has_no_other_side() -> None:
    class Plain:
        def predict(self, images: Sequence[Image]) -> list[Detections]:
            return [Detections.empty() for _ in images]

    detector = Plain()
    assert at_side(detector, 0) is detector
    with pytest.raises(ConfigError, match=r"detect.whole_side 96: .* is fixed; set it to 0"):
        at_side(detector, 96)
