"""Data that cannot be right, or cannot be meant so: refused or named, never wrong in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core.classes import VISDRONE
from dmnet.core.dataset import open_dataset
from dmnet.core.errors import DmnetError, InputError
from dmnet.core.formats import labelme, voc
from dmnet.core.formats.coco_results import doubts
from dmnet.core.images import encode_jpeg
from dmnet.core.records import Detections
from dmnet.detectors.load import load_detector
from dmnet.fusion.evaluation.inputs import read_found, read_truth
from dmnet.pipeline.cli import main
from dmnet.pipeline.predict.inputs import find_inputs

from .conftest import Run


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.new("RGB", size).save(path)
    return path


def coco(root: Path, **changes: Any) -> Path:
    """A data set of one image of 60x40 with one car."""
    picture(root / "images" / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    car = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 10, 10]}
    data = {
        "images": [image | changes.get("image", {})],
        "annotations": [car | changes.get("car", {})],
        "categories": [{"id": 3, "name": "car"} | changes.get("category", {})],
    }
    (root / "val.json").write_text(json.dumps(data))
    return root


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"car": {"iscrowd": "0"}}, "not 0 or 1"),
        ({"car": {"ignore": "false"}}, "not 0 or 1"),
        ({"image": {"width": True}}, "needs 'width' and 'height' above 0"),
        ({"image": {"file_name": " "}}, "'file_name' is empty"),
        ({"category": {"name": ""}}, "empty name"),
    ],
)
def test_coco_values_of_another_kind(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(coco(tmp_path, **changes), "val")


@pytest.mark.parametrize(("side", "said"), [(10**12, "more than any picture"),
                                            (100_000, "raise --density.stride")])  # fmt: skip
def test_sizes_that_no_map_can_have(
    tmp_path: Path, dmnet: Run, capsys: pytest.CaptureFixture[str], side: int, said: str
) -> None:
    data = coco(tmp_path / "coco", image={"width": side, "height": side})
    assert dmnet("density", "--data", str(data)) in (1, 2)
    assert said in capsys.readouterr().err


def test_the_image_has_another_size_than_its_labels_say(
    tmp_path: Path, dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    data = coco(tmp_path / "coco", image={"width": 30, "height": 20})
    options = ["--data", str(data), "--crop.slicer", "grid"]
    assert dmnet("crop", *options) == 1
    assert "has 60x40 pixels, but labels or sizes say 30x20" in capsys.readouterr().err
    assert dmnet("crop", *options, "--crop.write-images", "false") == 0
    assert dmnet("detect", *options[:2], "--detector-weights", str(weights(tmp_path))) == 1
    assert "has (40, 60) (h, w) pixels" in capsys.readouterr().err


def weights(folder: Path) -> Path:
    from dmnet.detectors.base import build_model, save_net

    path = folder / "weights.pt"
    path.write_bytes(save_net(build_model("yolox-nano", {"input_size": 64})))
    return path


def test_voc_and_labelme_files_made_for_another_size(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = (
        "<annotation><size><width>80</width><height>60</height></size><object><name>car</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    path.write_text(text)
    said = "made for an image of 80x60, but the image has 40x30: do they belong?"
    assert voc.read(path, size=(30, 40))[1] == [f"{path}: {said}"]
    assert voc.read(path, size=(60, 80))[1] == []
    path.write_text(text.replace(">80<", ">0<"))
    assert voc.read(path, size=(30, 40))[1] == []
    path.write_text(json.dumps({"shapes": [], "imageWidth": 80, "imageHeight": 60}))
    warnings = labelme.read(path, "a", (30, 40), open_dataset(coco(tmp_path / "c"), "val").classes)
    assert warnings[1] == [f"{path}: {said}"]


def labelme_file(path: Path, points: object, image: str) -> None:
    shape = {"label": "car", "points": points, "shape_type": "rectangle"}
    path.write_text(json.dumps({"version": "5", "shapes": [shape], "imagePath": image}))


@pytest.mark.parametrize("points", [[["1_0", "1"], ["9", "9"]], [[1, 1, 5], [9, 9, 5]] * 2])
def test_labelme_points_are_pairs_of_numbers(tmp_path: Path, points: object) -> None:
    picture(tmp_path / "a.png")
    labelme_file(tmp_path / "a.json", points, "a.png")
    data = open_dataset(tmp_path, "val")
    with pytest.raises(InputError, match="points are not pairs of numbers"):
        data.annotations(data.entries[0])


def test_values_of_labels_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    shape = {"label": "car", "points": [[1, 1], [9, 9]], "flags": {"ignore": "false"}}
    path.write_text(json.dumps({"shapes": [shape]}))
    with pytest.raises(InputError, match="'flags' is not a mapping to true and false"):
        labelme.read(path, "a", (30, 40), VISDRONE)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    path.write_text(f"<annotation><object><name>car</name>{box}{box}</object></annotation>")
    with pytest.raises(InputError, match="object 1: 2 elements <bndbox>, not one"):
        voc.read(path, size=(30, 40))


def test_two_labelme_files_of_one_image(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("a", "b"):
        labelme_file(tmp_path / f"{name}.json", [[1, 1], [9, 9]], "a.png")
    data = open_dataset(tmp_path, "val")
    assert data.entries[0].annotation == tmp_path / "a.json"
    (problem,) = data.problems
    assert problem.endswith("b.json: labels the same image as a.json; it is left out")


def test_voc_lists_that_name_what_is_not_there(tmp_path: Path) -> None:
    xml = "<annotation><size><width>9</width><height>9</height></size></annotation>"
    for name, text in {"Annotations/a.xml": xml, "ImageSets/Main/val.txt": "a\ngone\n",
                       "classes.txt": "car"}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (problem,) = open_dataset(tmp_path, "val").problems
    assert problem.endswith("val.txt: lists gone, which is not there")


def yolo(root: Path, names: str = "[car]") -> Path:
    picture(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    (root / "data.yaml").write_text(f"val: images\nnames: {names}\n")
    return root


def test_yolo_labels_of_no_image(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    assert not open_dataset(root, "val").problems
    (root / "labels" / "cafe\u0301.txt").write_text("")
    (problem,) = open_dataset(root, "val").problems
    assert problem.endswith("labels no image (1 such files)")


@pytest.mark.parametrize("names", ["[yes, no]", "[car, ~]", "[{car: 1}]", "['', car]"])
def test_yolo_names_that_are_no_names(tmp_path: Path, names: str) -> None:
    with pytest.raises(InputError, match=r"no text; put it in quotes|empty name"):
        open_dataset(yolo(tmp_path, names), "val")


def test_yolo_number_of_classes(tmp_path: Path) -> None:
    assert len(open_dataset(yolo(tmp_path / "a", "[car]\nnc: 1"), "val").classes) == 1
    with pytest.raises(InputError, match="nc: 2, but names: lists 1 classes"):
        open_dataset(yolo(tmp_path / "b", "[car]\nnc: 2"), "val")


def test_files_of_names_that_no_reader_takes_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(yolo(tmp_path) / "images" / "b\x07.png")
    assert len(open_dataset(tmp_path, "val")) == 1
    assert "its name holds control characters; it is left out" in caplog.text


def test_nothing_at_all_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    assert len(open_dataset(tmp_path, "val")) == 0
    assert "nothing in split 'val': no image and no label" in caplog.text


def test_folders_inside_a_visdrone_split(tmp_path: Path) -> None:
    for name in ("north/a", "south/a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
        path = tmp_path / "annotations" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1,1,9,9,1,4,0,0\n")
    data = open_dataset(tmp_path, "val")
    assert [entry.image_id for entry in data.with_annotation] == ["b", "north/a", "south/a"]
    assert [image.image_id for image in read_truth(tmp_path).images] == ["b", "north/a", "south/a"]


def test_labels_that_no_format_reads_beside_the_images(tmp_path: Path) -> None:
    root = coco(tmp_path)
    (root / "val.json").write_bytes((root / "val.json").read_text().encode("utf-16"))
    with pytest.raises(InputError, match=r"JSON files beside them \(val.json\)"):
        open_dataset(root, "val")


def found(box: list[float], score: float = 0.5) -> Detections:
    return Detections([box], [score], [1])


def test_detections_that_were_meant_otherwise() -> None:
    size = (100, 200)
    right = found([10, 10, 190, 105])  # a little beyond the border, as detectors do
    assert not list(doubts([(right, size)]))
    (text,) = doubts([(right, size), (found([150, 50, 330, 90]), size)])
    assert text.startswith("1 of 2 boxes reach far beyond their image")
    (text,) = doubts([(found([0.1, 0.2, 0.5, 0.9]), size)])
    assert text == "1 of 1 boxes lie in the first pixel; are they shares of the image?"
    (text,) = doubts([(found([1, 1, 9, 9], 93.0), size), (right, size)])
    assert text == "1 of 2 scores lie outside 0 to 1; are they per cent?"


def test_evaluate_and_fuse_eval_say_so(
    tmp_path: Path, data: Path, dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"image_id": 1, "category_id": 3, "bbox": [50, 30, 55, 35], "score": 90}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    truth = read_truth(coco(tmp_path / "coco"))
    said = read_found(tmp_path / "results.json", truth)[1]
    assert [text.partition(": ")[2][:6] for text in said] == ["1 of 1"] * 2
    images = [{**row, "bbox": [300, 200, 310, 210], "score": 0.5}]
    (tmp_path / "results_images.json").write_text(json.dumps(images))
    assert dmnet("crop", "--crop.slicer", "grid", "--crop.write-images", "false") == 0
    given = ["--detections", str(tmp_path), "--fuse-eval.bootstrap", "0"]
    assert dmnet("fuse-eval", *given, "--fuse-eval.pictures", "0") == 0
    assert "1 of 1 boxes reach far beyond their image" in capsys.readouterr().err


def foreign_maps(folder: Path, factor: float) -> Path:
    folder.mkdir()
    for name in ("100", "101", "102"):
        np.save(folder / f"{name}.npy", np.full((60, 80), factor))
    return folder


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1e300, "more than 100,000: scale it"), (1e-7, "no map reaches --crop.threshold")],
)
def test_density_maps_of_another_scale(
    tmp_path: Path, dmnet: Run, capsys: pytest.CaptureFixture[str], factor: float, said: str
) -> None:
    assert dmnet("crop", "--density", str(foreign_maps(tmp_path / "maps", factor))) in (0, 1)
    assert said in capsys.readouterr().err


def test_crops_of_another_data_set_with_the_same_names(
    tmp_path: Path, dmnet: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = {"id": 1, "file_name": "100.jpg", "width": 900, "height": 900}
    crop = {"id": 1, "file_name": "c.jpg", "parent_id": 1, "window": [500, 500, 900, 900]}
    path = tmp_path / "crops.json"
    path.write_text(json.dumps({"parents": [parent], "images": [crop]}))
    assert dmnet("convert", "--crops", str(path)) == 1
    assert "leaves the 320x240 image" in capsys.readouterr().err


def test_pictures_that_dmnet_wrote_are_not_predicted_on(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "out" / "pictures" / "a.png")
    assert len(find_inputs([str(tmp_path)]).files) == 2
    (tmp_path / "out" / "stage.json").write_text("{}")
    assert [each.id for each in find_inputs([str(tmp_path)]).files] == ["a.png"]
    assert len(find_inputs([str(tmp_path / "out")]).files) == 1


def test_pictures_longer_than_a_jpeg_can_be() -> None:
    with pytest.raises(InputError, match="65501x1 pixels, but a JPEG file holds 65,500 a side"):
        encode_jpeg(np.zeros((1, 65_501, 3), np.uint8))


def test_one_picture_that_cannot_be_drawn_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = picture(tmp_path / "a.png", (65_501, 2))
    small = picture(tmp_path / "b.png")
    out = tmp_path / "out"
    given = ["predict", str(long), str(small), "--out", str(out), "--slicer", "none"]
    assert main([*given, "--save", "pictures"]) == 1
    assert "a.png: 65501x2 pixels, but a JPEG file holds" in capsys.readouterr().err
    assert (out / "pictures" / "b.jpg").is_file()


def test_an_onnx_file_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(DmnetError, match="ONNX"):
        load_detector(tmp_path / "a.onnx")
