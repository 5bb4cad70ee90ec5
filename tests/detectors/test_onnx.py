"""The ONNX detector: placing, decoding by hand, foreign files, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from dmnet.core.classes import VISDRONE, Classes
from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.formats.visdrone import read_annotations
from dmnet.core.images import read_image
from dmnet.core.onnx import open_session, run
from dmnet.core.overlaps import overlap_matrix
from dmnet.core.presets import read_yaml
from dmnet.detectors.load import Detector
from dmnet.detectors.onnx import OnnxDetector, _resized, network_input, place
from dmnet.detectors.onnx_decoding import OnnxDecoding, class_table, grid, select, to_corners
from tests.campaigns.seeds import constant_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

YAML = Path(__file__).parents[2] / "configs" / "onnx" / "yolox-nano-coco.yaml"


def constant_model(
    path: Path,
    outputs: list[np.ndarray[Any, Any]],
    shape: list[int | str],
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """An ONNX file that answers every image with the same arrays."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes, infos, weights = [], [], []
    for index, array in enumerate(outputs):
        weights.append(numpy_helper.from_array(array, f"w{index}"))
        nodes.append(helper.make_node("Identity", [f"w{index}"], [f"out{index}"]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        infos.append(helper.make_tensor_value_info(f"out{index}", kind, list(array.shape)))
    image = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "constant", [image], infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if meta is not None:
        helper.set_model_props(model, {"dmnet": json.dumps(meta)})
    onnx.save(model, str(path))
    return path


# --- input ---------------------------------------------------------------------------------------


def test_letterbox_at_the_top_left_and_in_the_middle() -> None:
    how = OnnxDecoding(input_size=(416, 416))
    where = place((208, 832), how)
    assert (where.scaled, where.canvas, where.offset) == ((104, 416), (416, 416), (0, 0))
    middle = place((208, 832), OnnxDecoding(input_size=(416, 416), centred=True))
    assert middle.offset == (156, 0)


def test_bounded_sides_are_padded_to_multiples() -> None:
    how = OnnxDecoding(short_side=96, long_side=160, divisor=32)
    assert place((100, 400), how).scaled == (40, 160)
    assert place((100, 400), how).canvas == (64, 160)
    assert place((100, 100), how).scaled == (96, 96)
    small = place((10, 10), OnnxDecoding(long_side=160, max_zoom=4.0, border=16))
    assert (small.scaled, small.canvas, small.offset) == ((40, 40), (96, 96), (16, 16))


def test_input_values_by_hand() -> None:
    image = np.full((2, 2, 3), (255, 51, 0), dtype=np.uint8)
    plain = network_input(image, place((2, 2), OnnxDecoding(input_size=(4, 2))),
                          OnnxDecoding(input_size=(4, 2), fill=(51,)))  # fmt: skip
    assert plain.shape == (3, 2, 4)
    assert np.allclose(plain[:, 0, 0], [1.0, 0.2, 0.0])
    assert np.allclose(plain[:, 0, 3], [0.2, 0.2, 0.2])
    how = OnnxDecoding(input_size=(2, 2), channels="BGR", maximum=255, mean=(1, 2, 3), std=(2.0,))
    bgr = network_input(image, place((2, 2), how), how)
    assert bgr[:, 0, 0].tolist() == [-0.5, 24.5, 126.0]


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("size", [(96, 160), (50, 91), (301, 500), (191, 320)])
def test_pictures_are_scaled_as_torch_scales_them(
    size: tuple[int, int], smooth: bool, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 256, (191, 320, 3), np.uint8)
    shrinks = smooth and size[0] < 191
    given = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    given = given if shrinks else given.float()
    wanted = functional.interpolate(given, size, mode="bilinear", antialias=shrinks)
    got = _resized(image, size, smooth)
    apart = np.abs(got - wanted[0].permute(1, 2, 0).float().numpy())
    assert apart.max() <= (1 if shrinks else 0.01)
    assert (apart > 0.01).mean() < 0.005


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    st.booleans(),
    st.sampled_from([(0, 640, 0), (96, 256, 16), (0, 200, 8)]),
)
def test_boxes_come_back_where_they_were(
    size: tuple[int, int], centred: bool, sides: tuple[int, int, int]
) -> None:
    how = OnnxDecoding(short_side=sides[0], long_side=sides[1], border=sides[2], centred=centred)
    where = place(size, how)
    box = np.array([[0.0, 0.0, size[1], size[0]]])
    ratio = np.array([where.scaled[1] / size[1], where.scaled[0] / size[0]] * 2)
    there = box * ratio + np.array([where.offset[1], where.offset[0]] * 2)
    assert np.allclose(where.back(there), box)
    for offset, scaled, canvas in zip(where.offset, where.scaled, where.canvas, strict=True):
        assert 0 <= offset and offset + scaled <= canvas
    assert all(side % 32 == 0 for side in where.canvas)


# --- output --------------------------------------------------------------------------------------


def test_grid_goes_level_by_level_and_row_by_row() -> None:
    cells, steps = grid((32, 64), (16, 32))
    assert cells[:5].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1]]
    assert cells[8:].tolist() == [[0, 0], [1, 0]]
    assert steps[:, 0].tolist() == [16.0] * 8 + [32.0] * 2


def test_boxes_of_each_layout_by_hand() -> None:
    raw = np.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, np.log(2), 0.0]], np.float32)
    how = OnnxDecoding(layout="yolox", strides=(16,))
    assert to_corners(raw, (16, 32), how).tolist() == [[0, 0, 16, 16], [8, 0, 40, 16]]
    corners = to_corners(np.array([[10, 20, 4, 6]], np.float32), (64, 64), OnnxDecoding())
    assert corners.tolist() == [[8, 17, 12, 23]]
    with pytest.raises(ValueError, match="gives 2 boxes where strides"):
        to_corners(raw, (64, 64), how)


def test_best_class_or_several() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.9, 0.8], [0.7, 0.1], [0.0, 0.3]], np.float32)
    one = select(boxes, scores, OnnxDecoding(score_threshold=0.2))
    assert one[1].tolist() == pytest.approx([0.9, 0.3]) and one[2].tolist() == [0, 1]
    several = select(boxes, scores, OnnxDecoding(score_threshold=0.2, several_classes=True))
    assert several[1].tolist() == pytest.approx([0.9, 0.8, 0.3])
    capped = select(boxes, scores, OnnxDecoding(score_threshold=0.2, max_detections=1))
    assert capped[1].tolist() == pytest.approx([0.9])
    assert len(select(boxes, scores, OnnxDecoding(score_threshold=0.95))[0]) == 0


def test_class_table() -> None:
    def table(*pairs: str, classes: Classes = VISDRONE) -> list[int]:
        return class_table(OnnxDecoding(class_map=pairs), classes).tolist()

    assert table("0=1", "3=4") == table("0=person", "3=car") == [1, -1, -1, 4]
    assert table("0=person", "2=car", classes=Classes(("car",))) == [-1, -1, 1]
    assert class_table(OnnxDecoding(names=("cat", "bus")), VISDRONE).tolist() == [-1, 9]
    with pytest.raises(ConfigError, match="'car=4' is not of the form index=class"):
        table("car=4")
    with pytest.raises(ConfigError, match=r"'0=2' is not of .* by number 1-1"):
        table("0=2", classes=Classes(("car",)))
    with pytest.raises(ConfigError, match="none of 0=cat is a class of the data set"):
        table("0=cat")
    with pytest.raises(ConfigError, match="does not say what its classes are"):
        table()


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
def test_a_yolov8_like_file(tmp_path: Path, transposed: bool) -> None:
    rows = np.array([[32, 16, 20, 10, 0.9, 0.0], [32, 48, 8, 8, 0.0, 0.6], [5, 5, 2, 2, 0.0, 0.0]])
    out = rows.astype(np.float32)[None]
    out = out.transpose(0, 2, 1).copy() if transposed else out
    path = constant_model(tmp_path / "m.onnx", [out], [1, 3, 64, 64])
    settings = {"layout": "cxcywh", "objectness": False, "transposed": transposed,
                "input_size": [64, 64], "class_map": ["0=4", "1=1"]}  # fmt: skip
    detector = OnnxDetector(path, settings, "cpu")
    assert isinstance(detector, Detector)
    assert detector.predict([]) == []
    small, large = detector.predict(
        [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 128, 3), np.uint8)]
    )
    assert small.boxes.tolist() == [[22, 11, 42, 21], [28, 44, 36, 52]]
    assert small.labels.tolist() == [4, 1]
    assert small.scores == pytest.approx([0.9, 0.6])
    assert large.boxes[0].tolist() == [44, 22, 84, 42]


def test_classes_without_a_category_are_dropped(tmp_path: Path) -> None:
    out = np.array([[[32, 16, 20, 10, 0.9, 0.0], [9, 9, 4, 4, 0.0, 0.8]]], dtype=np.float32)
    path = constant_model(tmp_path / "m.onnx", [out], [1, 3, 64, 64])
    settings = {"objectness": False, "input_size": [64, 64], "class_map": ["1=6"]}
    (found,) = OnnxDetector(path, settings, "cpu").predict([np.zeros((64, 64, 3), np.uint8)])
    assert found.labels.tolist() == [6]


def test_objectness_and_sigmoid(tmp_path: Path) -> None:
    out = np.array([[[32, 16, 20, 10, 0.0, 0.0]]], dtype=np.float32)
    path = constant_model(tmp_path / "m.onnx", [out], ["n", 3, "h", "w"])
    settings = {"activation": "sigmoid", "class_map": ["0=4"], "long_side": 64}
    (found,) = OnnxDetector(path, settings, "cpu").predict([np.zeros((64, 64, 3), np.uint8)])
    assert found.scores == pytest.approx([0.25])


def test_errors_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    out = np.zeros((1, 5, 6), dtype=np.float32)
    good = constant_model(tmp_path / "m.onnx", [out], [1, 3, 64, 64])
    ask = {"class_map": ["0=1"], "input_size": [64, 64]}
    with pytest.raises(CheckpointError, match="no such ONNX file"):
        OnnxDetector(tmp_path / "none.onnx", {}, "cpu")
    for name, data in (("empty", b""), ("text", b"not onnx" * 9), ("cut", good.read_bytes()[:60])):
        bad = tmp_path / f"{name}.onnx"
        bad.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{name}.onnx"):
            OnnxDetector(bad, ask, "cpu")
    with pytest.raises(ConfigError, match="does not say what its classes are"):
        OnnxDetector(good, {}, "cpu")
    with pytest.raises(ConfigError, match=r"set input_size to \[64, 64\]"):
        OnnxDetector(good, {"class_map": ["0=1"]}, "cpu")
    with pytest.raises(ConfigError, match="did you mean 'strides'"):
        OnnxDetector(good, {**ask, "stride": [8]}, "cpu")
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(CheckpointError, match="no room for 3 classes"):
        OnnxDetector(good, {**ask, "class_map": ["2=1"]}, "cpu").predict([image])
    with pytest.raises(CheckpointError, match="5 boxes where strides"):
        OnnxDetector(good, {**ask, "layout": "yolox"}, "cpu").predict([image])
    with pytest.raises(CheckpointError, match="layout detections"):
        OnnxDetector(good, {**ask, "layout": "detections"}, "cpu").predict([image])
    density = constant_model(tmp_path / "d.onnx", [out], [1, 3, 64, 64], {"kind": "density"})
    with pytest.raises(CheckpointError, match="holds a density network"):
        OnnxDetector(density, ask, "cpu")
    gray = constant_model(tmp_path / "g.onnx", [out], [1, 1, 64, 64])
    with pytest.raises(CheckpointError, match="expected one"):
        OnnxDetector(gray, ask, "cpu")


def test_yolox_nano_finds_the_cars_of_a_real_picture(shared: Path) -> None:
    weights = shared / "data" / "weights" / "yolox-nano-coco-416.onnx"
    folder = shared / "data" / "visdrone-mini" / "VisDrone2019-DET-val"
    image = read_image(folder / "images" / "0000301_00001_d_0000156.jpg")
    detector = OnnxDetector(weights, read_yaml(YAML), "cpu")
    (found,) = detector.predict([image])
    size = (image.shape[0], image.shape[1])
    truth, _ = read_annotations(folder / "annotations" / "0000301_00001_d_0000156.txt", "x", size)
    vehicles = truth.boxes[np.isin(truth.labels, (4, 5, 6))]  # to COCO a van is a car
    cars = found[(found.labels == 4) & (found.scores > 0.3)]
    right = overlap_matrix(cars.boxes, vehicles).max(1) > 0.5
    assert right.sum() >= 8
    assert right.mean() > 0.6  # a network of 416 pixels on a picture of 1360: its boxes are loose
    assert set(found.labels.tolist()) <= {1, 3, 4, 6, 9, 10}


def test_another_side_of_the_input(tmp_path: Path) -> None:
    found = [np.zeros((1, 1, 6), np.float32)]
    described = {"class_map": ["0=1"], "long_side": 64, "objectness": True}
    free = OnnxDetector(
        constant_model(tmp_path / "a.onnx", found, [1, 3, "h", "w"]), described, "cpu"
    )
    assert free.input_shape((100, 200)) == (32, 64)
    assert free.at_side(128).input_shape((100, 200)) == (64, 128)
    assert free.input_shape((100, 200)) == (32, 64)
    fixed = {"class_map": ["0=1"], "input_size": [64, 64]}
    tied = OnnxDetector(constant_model(tmp_path / "b.onnx", found, [1, 3, 64, 64]), fixed, "cpu")
    with pytest.raises(ConfigError, match=r"b.onnx: detect.whole_side 128: .* is fixed"):
        tied.at_side(128)


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    """Found by the campaign fuzz: onnxruntime decodes it when it is asked for."""
    output = np.zeros((1, 5, 7), np.float32)
    path = constant_model(tmp_path / "a.onnx", [output], [1, 3, 32, 32], {"note": "aaaaaaaa"})
    path.write_bytes(path.read_bytes().replace(b"aaaaaaaa", b"\xff" * 8))
    with pytest.raises(CheckpointError, match="its metadata is damaged"):
        OnnxDetector(path, {}, "cpu")


@pytest.mark.parametrize("kind", ["INT64", "FLOAT16", "STRING"])
def test_other_inputs_than_floats_are_refused_at_opening(kind: str, tmp_path: Path) -> None:
    """Found by the campaign fuzz: such a file failed at its first image."""
    path = tmp_path / "a.onnx"
    path.write_bytes(constant_onnx((1, 5, 7), meta={}, kind=kind))
    ask = {"class_map": ["0=1"], "input_size": [32, 32]}
    with pytest.raises(
        CheckpointError, match=r"a\.onnx: its input 'images' takes tensor\(.*floats"
    ):
        OnnxDetector(path, ask, "cpu")


def test_a_file_that_fails_when_it_runs(tmp_path: Path) -> None:
    path = constant_model(tmp_path / "a.onnx", [np.zeros((1, 5, 7), np.float32)], ["n", 3, 32, 32])
    detector = OnnxDetector(path, {"class_map": ["0=1"], "input_size": [32, 32]}, "cpu")
    feed = {"images": np.zeros((1, 3, 8, 8), np.float32)}
    with pytest.raises(CheckpointError, match=r"a\.onnx: cannot be run on images \(1, 3, 8, 8\)"):
        run(path, detector.session, feed)


def test_outputs_that_no_array_can_hold(tmp_path: Path) -> None:
    """NumPy has 64 axes at most; onnxruntime passes its ValueError on."""
    path = tmp_path / "a.onnx"
    path.write_bytes(constant_onnx((1,) * 65, meta={}, image=[1, 3, 32, 32]))
    session, _ = open_session(path)
    with pytest.raises(CheckpointError, match=r"a\.onnx: cannot be run on images"):
        run(path, session, {"images": np.zeros((1, 3, 32, 32), np.float32)})


def test_out_of_memory_is_told_apart(tmp_path: Path) -> None:
    """So that a batch is halved: the errors of onnxruntime are no RuntimeErrors."""
    import onnxruntime

    class Full:
        def run(self, names: None, feed: object) -> None:
            kind = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException
            raise kind("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Conv: std::bad_alloc")

    with pytest.raises(MemoryError, match="bad_alloc"):
        run(tmp_path / "a.onnx", Full(), {})


def test_weights_in_other_files_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime looks for those of a file from memory in the working directory."""
    path = constant_model(tmp_path / "a.onnx", [np.zeros((1, 5, 7), np.float32)], [1, 3, 32, 32])
    model = onnx.load(str(path))
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="other.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    onnx.save(model, str(path))
    assert (tmp_path / "other.bin").is_file()
    with pytest.raises(CheckpointError, match=r"a\.onnx: not a usable ONNX file"):
        open_session(path)
