"""MMDetection for real: stand-in operators, safe loading, configs, training, inference."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmnet.core.errors import CheckpointError, ConfigError, InputError
from dmnet.core.images import encode_png, read_image
from dmnet.core.records import Detections
from dmnet.core.training.weights import weights_bytes

if importlib.util.find_spec("mmdet") is None:
    pytest.skip("needs the extra mmdet", allow_module_level=True)

from dmnet.detectors.load import Detector, load_detector
from dmnet.detectors.mmdet import config as fit
from dmnet.detectors.mmdet import standin
from dmnet.detectors.mmdet.detector import MmdetDetector, MmdetSettings
from dmnet.detectors.mmdet.libraries import libraries, read_checkpoint
from dmnet.detectors.mmdet.train import MmdetTraining, train_mmdet

CONFIGS = Path(__file__).parents[3] / "configs" / "mmdet"
RTMDET, FASTER = CONFIGS / "rtmdet_tiny.py", CONFIGS / "faster-rcnn_r50_fpn.py"
SIDE = 96
COLOURS = {1: (5, 5, 20), 4: (250, 240, 80)}
PIPELINE = "train_dataloader.dataset.pipeline"


def write_scenes(
    folder: Path, count: int = 8, classes: tuple[int, ...] = (1, 4), side: int = SIDE
) -> tuple[Path, Path]:
    """Four rectangles per image, one a quarter; gives the COCO file and the image folder."""
    half = side // 2
    rng = np.random.default_rng(0)
    images, rows = [], []
    (folder / "images").mkdir(parents=True)
    for index in range(count):
        picture = rng.integers(90, 110, (side, side, 3), np.uint8)
        for left, top in ((0, 0), (0, half), (half, 0), (half, half)):
            w, h = rng.integers(side // 6, side // 3, 2).tolist()
            x, y = (
                left + int(rng.integers(0, half - w)),
                top + int(rng.integers(0, half - h)),
            )
            category = int(rng.choice(classes))
            picture[y : y + h, x : x + w] = COLOURS[category]
            rows.append({"id": len(rows) + 1, "image_id": index + 1, "category_id": category,
                         "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})  # fmt: skip
        name = f"{index:02d}.png"
        (folder / "images" / name).write_bytes(encode_png(picture))
        images.append({"id": index + 1, "file_name": name, "width": side, "height": side})
    categories = [{"id": 1, "name": "pedestrian"}, {"id": 4, "name": "car"}]
    coco = folder / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return coco, folder / "images"


def settings(epochs: int, **more: Any) -> MmdetTraining:
    return MmdetTraining(epochs=epochs, batch=2, lr=0.001, input_size=(SIDE, SIDE), **more)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of RTMDet; weights in ``weights.pth``, MMDetection's own in ``work``."""
    folder = tmp_path_factory.mktemp("short")
    coco, images = write_scenes(folder, 4)
    trained = train_mmdet(RTMDET, coco, images, folder / "work", settings(2), val=(coco, images))
    (folder / "weights.pth").write_bytes(trained.weights)
    (folder / "history.json").write_text(json.dumps(trained.history))
    return folder


def pictures(folder: Path) -> list[Any]:
    return [read_image(path) for path in sorted((folder / "images").glob("*.png"))]


# --- the stand-in --------------------------------------------------------------------------------


def test_stand_in_nms_and_its_older_form() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    assert standin.nms(boxes, scores, 0.5, 0).tolist() == [1, 2]
    assert standin.nms(boxes[:0], scores[:0], 0.5, 0).tolist() == []
    near = torch.tensor([[0.0, 0, 9, 9], [0, 5, 9, 14]])  # inclusive ends: 10x10, IoU 1/3
    assert standin.nms(near, scores[:2], 0.3, 1).tolist() == [1]
    assert standin.nms(near, scores[:2], 0.3, 0).tolist() == [1, 0]


@pytest.mark.parametrize(("method", "wanted"), [(0, 0.0), (1, 0.5 * 0.1), (2, 0.5 * np.exp(-1.62))])
def test_stand_in_soft_nms_by_hand(method: int, wanted: float) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    dets = torch.zeros(2, 5)
    kept = standin.softnms(boxes, torch.tensor([0.9, 0.5]), dets, 0.3, 0.5, 0.001, method, 0)
    assert kept.tolist() == ([0, 1] if wanted else [0])
    assert dets[: len(kept), 4].tolist() == pytest.approx([0.9, wanted][: len(kept)])


def test_operators_agree_with_torchvision_in_both_directions() -> None:
    with libraries():
        from mmcv.ops import deform_conv2d, modulated_deform_conv2d, roi_align, roi_pool
        from mmcv.ops import sigmoid_focal_loss as focal
    from torchvision import ops

    torch.manual_seed(0)
    x = torch.rand(1, 4, 8, 8, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 6, 6], [0, 1, 2, 7, 5]], dtype=torch.double)
    weight = torch.rand(2, 4, 3, 3, dtype=torch.double, requires_grad=True)
    offset = torch.rand(1, 18, 6, 6, dtype=torch.double, requires_grad=True)
    mask = torch.rand(1, 9, 6, 6, dtype=torch.double, requires_grad=True)
    bias = torch.rand(2, dtype=torch.double, requires_grad=True)
    target = torch.tensor([0, 3, 4])
    logits = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4].double()
    steps: tuple[Any, ...] = (1, 0, 1, 1, 1)
    cases = [
        (roi_align(x, rois, 3, 1.0, 2, "avg", True), ops.roi_align(x, rois, 3, 1.0, 2, True), [x]),
        (roi_pool(x, rois, 3, 1.0), ops.roi_pool(x, rois, 3, 1.0), [x]),
        (deform_conv2d(x, offset, weight, *steps), ops.deform_conv2d(x, offset, weight),
         [x, offset, weight]),
        (modulated_deform_conv2d(x, offset, mask, weight, bias, *steps),
         ops.deform_conv2d(x, offset, weight, bias, mask=mask), [x, offset, weight, mask, bias]),
        (focal(logits, target, 2.0, 0.25, None, "sum"),
         ops.sigmoid_focal_loss(logits, one_hot, 0.25, 2.0, "sum"), [logits]),
    ]  # fmt: skip
    for ours, theirs, leaves in cases:
        assert torch.allclose(ours, theirs)
        a, b = (torch.autograd.grad((y * y).sum(), leaves) for y in (ours, theirs))
        assert all(torch.allclose(p, q) for p, q in zip(a, b, strict=True))


def test_a_missing_operator_says_its_name() -> None:
    with libraries():
        import mmcv._ext as ext
    if not isinstance(ext, standin.StandIn):
        pytest.skip("mmcv has its compiled operators here")
    assert standin.install()
    with pytest.raises(NotImplementedError, match="'box_iou_rotated' has no stand-in"):
        ext.box_iou_rotated(1, 2)


# --- safe loading --------------------------------------------------------------------------------


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


class _Attribute:
    def __reduce__(self) -> Any:
        from mmengine.logging.history_buffer import HistoryBuffer

        return getattr, (HistoryBuffer, "__init__")


@pytest.mark.parametrize("kind", ["code", "attribute"])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "ran", tmp_path / "evil.pth"
    evil = _Evil(trap) if kind == "code" else _Attribute()
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {"x": evil}}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth.*refused"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="refused"):
        MmdetDetector(path, MmdetSettings(config=str(RTMDET)), "cpu")
    with libraries(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)  # as mmengine falls back to
    assert not trap.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_bad_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        read_checkpoint(tmp_path / "text.pth")
    torch.save({"meta": {}}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    "stored",
    [{"model": {"type": "os.system", "command": "x"}, "pipeline": []},
     {"model": {"type": "RTMDet", "nms": {"type": "__import__('os')"}}, "pipeline": []},
     {"model": {"type": "A", "init_cfg": {"type": "Pretrained", "checkpoint": "x"}},
      "pipeline": []}],
)  # fmt: skip
def test_a_stored_config_names_registered_classes_only(stored: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(weights_bytes({"a": torch.zeros(1)}, {"mmdet": stored, "classes": ["car"]}))
    with pytest.raises(CheckpointError, match="refused"):
        MmdetDetector(path, None, "cpu")


# --- configs and data ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [RTMDET, FASTER], ids=lambda path: path.stem)
def test_shipped_configs_fit_classes_size_and_epochs(path: Path) -> None:
    with libraries():
        cfg = fit.read(path, ("model.test_cfg.extra=7",))
        assert cfg.model.test_cfg.extra == 7
        fit.set_classes(cfg, 3)
        fit.set_size(cfg, (320, 192))
        fit.set_epochs(cfg, 24, steps=10)
        fit.grey_ignored(cfg["train_dataloader"])
    text = json.dumps(fit.extract(cfg))
    assert '"num_classes": 3' in text and '"num_classes": 10' not in text
    assert cfg.train_cfg.max_epochs == 24
    assert [step.get("scale") for step in fit.test_pipeline(cfg)][1] == (320, 192)
    kinds = [fit.kind(step) for step in cfg.train_dataloader.dataset.pipeline]
    assert kinds[1:3] == ["LoadAnnotations", "DmnetGreyIgnored"]
    assert cfg.param_scheduler[0].end == 24
    assert cfg.param_scheduler[1].end == 24


def test_stored_config_comes_back(tmp_path: Path) -> None:
    with libraries():
        cfg = fit.read(RTMDET, ())
    stored = json.loads(json.dumps(fit.extract(cfg)))
    back = fit.restore(stored, tmp_path)
    assert back["model"]["backbone"]["arch"] == "P5"
    assert back["pipeline"][1]["scale"] == (1024, 1024)


def test_bad_configs_and_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such MMDetection config"), libraries():
        fit.read(tmp_path / "none.py", ())
    bad = tmp_path / "bad.py"
    bad.write_text("model = undefined_name")
    with pytest.raises(InputError, match="does not load"), libraries():
        fit.read(bad, ())
    bad.write_text("a = 1")
    with pytest.raises(InputError, match="it has no 'model'"), libraries():
        fit.read(bad, ())
    with pytest.raises(ConfigError, match="write key=value"), libraries():
        fit.read(RTMDET, ("lr",))


def test_ignored_regions_turn_grey_but_objects_stay() -> None:
    with libraries():
        from dmnet.detectors.mmdet.plugins import GREY, GreyIgnored
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, 2)
    results = {
        "img": image,
        "gt_bboxes": np.array([[0, 0, 6, 6], [2, 2, 4, 4]], dtype=np.float32),
        "gt_bboxes_labels": np.array([0, 1]),
        "gt_ignore_flags": np.array([True, False]),
    }
    out = GreyIgnored()(results)
    assert (out["img"][:2, :6] == GREY).all()
    assert (out["img"][2:4, 2:4] == image[2:4, 2:4]).all()
    assert (out["img"][6:] == image[6:]).all()
    assert out["gt_bboxes"].tolist() == [[2, 2, 4, 4]]
    assert out["gt_bboxes_labels"].tolist() == [1]


def test_bad_data(tmp_path: Path) -> None:
    coco, images = write_scenes(tmp_path, 1)
    good = json.loads(coco.read_text())

    def refuse(change: dict[str, Any], text: str) -> None:
        coco.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=text):
            train_mmdet(RTMDET, coco, images, tmp_path / "w", settings(1))

    row = good["annotations"][0]
    refuse({"annotations": [{**row, "category_id": 7}]}, "category 7, which is not among")
    refuse({"images": [{**good["images"][0], "file_name": "../coco.json"}]}, "is not in the folder")
    refuse({"images": []}, "no categories or no images")
    refuse({"categories": None}, "not a COCO ground truth file")


def test_mixed_precision_on_a_cpu_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    coco, images = write_scenes(tmp_path, 1)
    with pytest.raises(ConfigError, match="mixed precision needs a GPU"):
        train_mmdet(RTMDET, coco, images, tmp_path / "w", settings(1, amp=True))


# --- training and inference ----------------------------------------------------------------------


def test_a_short_training_gives_weights_history_and_ap(short: Path) -> None:
    history = json.loads((short / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(np.isfinite(row["loss"]) and "bbox_mAP" in row for row in history)
    _, meta = read_checkpoint(short / "weights.pth")
    assert meta["classes"] == ["pedestrian", "car"] and meta["categories"] == [1, 4]


def test_own_weights_and_mmdetections_checkpoint_detect_the_same(short: Path) -> None:
    images = [*pictures(short), np.zeros((50, 70, 3), np.uint8)]
    options = ("model.test_cfg.score_thr=0.0",)
    own = load_detector("mmdet", short / "weights.pth", settings={"options": options}, device="cpu")
    assert isinstance(own, Detector) and own.predict([]) == []
    assert isinstance(own, MmdetDetector) and own.input_shape((50, 70)) == (SIDE, SIDE)
    found = own.predict(images)
    assert len(found) == 5 and sum(map(len, found)) > 0
    assert all((np.diff(one.scores) <= 0).all() for one in found)
    assert {int(label) for one in found for label in one.labels} <= {1, 4}
    (best,) = (short / "work").glob("best_*.pth")
    how = MmdetSettings(config=str(RTMDET), options=options, input_size=(SIDE, SIDE), batch=1)
    theirs = MmdetDetector(best, how, "cpu").predict(images)
    for a, b in zip(found, theirs, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_weights_of_something_else_are_refused(short: Path) -> None:
    (best,) = (short / "work").glob("best_*.pth")
    with pytest.raises(ConfigError, match="does not hold its config"):
        MmdetDetector(best, None, "cpu")
    with pytest.raises(CheckpointError, match="names are missing"):
        MmdetDetector(best, MmdetSettings(config=str(FASTER)), "cpu")
    options = ("model.bbox_head.feat_channels=32",)
    with pytest.raises(CheckpointError, match="made for another number of classes"):
        MmdetDetector(short / "weights.pth", MmdetSettings(options=options), "cpu")


def test_no_detection_is_ap_0(short: Path) -> None:
    with libraries():
        from dmnet.detectors.mmdet.plugins import ZeroCocoMetric

        metric = ZeroCocoMetric(ann_file=str(short / "coco.json"), metric="bbox")
        metric.dataset_meta = {"classes": ("pedestrian", "car")}
        empty = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0),
                 "labels": torch.zeros(0, dtype=torch.long)}  # fmt: skip
        for index in range(4):
            sample = {"img_id": index + 1, "ori_shape": (SIDE, SIDE), "pred_instances": empty}
            metric.process({}, [sample])
        assert metric.evaluate(4)["coco/bbox_mAP"] == 0.0


def test_a_killed_training_resumes_to_the_same_weights(short: Path, tmp_path: Path) -> None:
    coco, images = short / "coco.json", short / "images"
    first = train_mmdet(RTMDET, coco, images, tmp_path / "b", _plain(epochs=1))
    resumed = train_mmdet(RTMDET, coco, images, tmp_path / "b", _plain(epochs=2))
    assert resumed.history[0] == first.history[0]
    again = train_mmdet(RTMDET, coco, images, tmp_path / "c", _plain(epochs=2))
    assert again.weights == resumed.weights
    assert again.history == resumed.history and len(again.history) == 2
    assert first.weights != resumed.weights


def _plain(epochs: int) -> MmdetTraining:
    """A constant learning rate, so that one epoch is the first half of two."""
    return settings(epochs, options=("param_scheduler=[]",))


def test_workers_started_by_spawn_have_the_stand_in(short: Path, tmp_path: Path) -> None:
    spawn = ("env_cfg.mp_cfg.mp_start_method=spawn",)
    code = (
        "import sys; from pathlib import Path\n"
        "from dmnet.detectors.mmdet.train import MmdetTraining, train_mmdet\n"
        "if __name__ == '__main__':\n"
        f"    how = MmdetTraining(options={spawn!r}, epochs=1, batch=2, loaders=1,\n"
        f"                        input_size=({SIDE}, {SIDE}))\n"
        "    print(train_mmdet(*map(Path, sys.argv[1:]), settings=how).history[0]['loss'])\n"
    )
    script = tmp_path / "spawn.py"
    script.write_text(code)
    paths = [RTMDET, short / "coco.json", short / "images", tmp_path / "w"]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, paths)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))


def average_precision_50(found: list[Detections], coco: Path) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(coco))
    rows = [
        {"image_id": i + 1, "category_id": int(label), "score": float(score),
         "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        for i, one in enumerate(found)
        for box, score, label in zip(one.boxes.tolist(), one.scores, one.labels, strict=True)
    ]  # fmt: skip
    judge = COCOeval(truth, truth.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 2]
    return float(precision[precision > -1].mean())


@pytest.mark.slow
def test_rtmdet_learns_eight_images(tmp_path: Path) -> None:
    coco, images = write_scenes(tmp_path, classes=(4,), side=160)
    calm = (f"{PIPELINE}.2.ratio_range=(0.9,1.1)", "custom_hooks=[]")
    how = MmdetTraining(options=calm, input_size=(160, 160), epochs=40, batch=4, lr=0.001,
                        checkpoint_every=40)  # fmt: skip
    trained = train_mmdet(RTMDET, coco, images, tmp_path / "w", how)
    (tmp_path / "weights.pth").write_bytes(trained.weights)
    found = MmdetDetector(tmp_path / "weights.pth", None, "cpu").predict(pictures(tmp_path))
    assert average_precision_50(found, coco) > 0.9
    assert all(one.labels[0] == 4 for one in found)


@pytest.mark.slow
def test_faster_rcnn_trains_and_detects(tmp_path: Path) -> None:
    coco, images = write_scenes(tmp_path, 2)
    trained = train_mmdet(FASTER, coco, images, tmp_path / "w", settings(2))
    assert [row["epoch"] for row in trained.history] == [1, 2]
    (tmp_path / "weights.pth").write_bytes(trained.weights)
    how = MmdetSettings(options=("model.test_cfg.rcnn.score_thr=0.0",))
    found = MmdetDetector(tmp_path / "weights.pth", how, "cpu").predict(pictures(tmp_path))
    assert all(len(one) > 0 and set(one.labels.tolist()) <= {1, 4} for one in found)
