from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.formats import voc
from dmnet.core.records import Annotations
from dmnet.detectors.base import DetectionNet, build_model
from dmnet.detectors.training import data
from dmnet.detectors.training import sampler as epoch
from dmnet.detectors.training.augmentation import AugmentConfig
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.loader import TrainingData, make_loader, to_target
from dmnet.detectors.training.pixels import PixelStore
from dmnet.detectors.training.sampler import EpochBatches
from tests import written

Scenes = Callable[..., list[TrainingImage]]
STILL = AugmentConfig(flip=0.0, zoom=(1.0, 1.0), photometric=0.0)


def labelled(*labels: int, window: bool = False) -> TrainingImage:
    boxes = [[0, 0, 5, 5]] * len(labels)
    ann = Annotations.of("a", (10, 10), boxes, list(labels))
    return TrainingImage(Path("a.png"), ann, (0, 0, 10, 10) if window else None)


def files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.iterdir()}


def write_coco(path: Path, samples: list[TrainingImage]) -> Path:
    names = {s.annotations.image_id: s.image.name for s in samples}
    truth = written.ground_truth([s.annotations for s in samples], names, ignored=True)
    path.write_text(json.dumps(truth))
    return path


def test_coco_gives_the_annotations_back(scenes: Scenes, tmp_path: Path) -> None:
    samples = scenes(3)
    ann = samples[1].annotations
    ignored = replace(ann, score=np.zeros_like(ann.score))
    samples[1] = replace(samples[1], annotations=ignored)
    read = data.read_coco(write_coco(tmp_path / "gt.json", samples), files(tmp_path))
    assert [s.image for s in read] == [s.image for s in samples]
    assert data.data_digest(read) == data.data_digest(samples)
    assert len(to_target(data.load_scene(read[1], 10**6))["ignore"]) == len(ann)
    assert data.data_digest(read[:2]) != data.data_digest(samples)


def test_voc_gives_the_annotations_back(scenes: Scenes, tmp_path: Path) -> None:
    samples = scenes(2)
    folder = tmp_path / "xml"
    folder.mkdir()
    for s in samples:
        (folder / f"{s.annotations.image_id}.xml").write_text(
            voc.write(s.annotations, s.image.name)
        )
    assert data.data_digest(data.read_voc(folder, files(tmp_path))) == data.data_digest(samples)
    (folder / "lost.xml").write_text(voc.write(samples[0].annotations, "lost.png"))
    with pytest.raises(InputError, match=r"lost.xml: none of the .* images has this name"):
        data.read_voc(folder, files(tmp_path))


def test_other_classes_and_names_that_leave(scenes: Scenes, tmp_path: Path) -> None:
    path = write_coco(tmp_path / "gt.json", scenes(1))
    truth = json.loads(path.read_text())
    own = [{**row, "category_id": 4} for row in truth["annotations"]]
    strange = {**truth, "annotations": own, "categories": [{"id": 4, "name": "zebra"}]}
    path.write_text(json.dumps(strange))
    (sample,) = data.read_coco(path, files(tmp_path))
    assert sample.annotations.classes.names == ("zebra",)
    assert set(sample.annotations.labels.tolist()) == {1}
    truth["images"][0]["file_name"] = "../scene0_000.png"
    path.write_text(json.dumps(truth))
    assert data.read_coco(path, files(tmp_path)) == []


def test_crops_are_windows_of_their_parents(scenes: Scenes, tmp_path: Path) -> None:
    parent = scenes(1, size=64)[0]
    crops = written.crop_set(
        {parent.image.name: (64, 64)}, [(parent.image.name, (8, 4, 40, 24), "c.jpg")]
    )
    ann = Annotations.of("c", (20, 32), [[1, 1, 5, 5]], [4])
    crop = TrainingImage(Path("c.jpg"), ann)
    read = data.read_coco_crops(write_coco(tmp_path / "c.json", [crop]), crops, files(tmp_path))
    assert read[0].window == (8, 4, 40, 24)
    whole = data.load_scene(parent, 10**6).image
    np.testing.assert_array_equal(data.load_scene(read[0], 10**6).image, whole[4:24, 8:40])
    strange = TrainingImage(Path("d.jpg"), replace(ann, image_id="d"))
    other = write_coco(tmp_path / "d.json", [strange])
    with pytest.raises(InputError, match="'d' is not in the list of crops"):
        data.read_coco_crops(other, crops, files(tmp_path))


def test_images_that_do_not_fit_are_named(scenes: Scenes) -> None:
    sample = scenes(1, size=64)[0]
    wrong = replace(sample, annotations=replace(sample.annotations, size=(64, 63)))
    with pytest.raises(InputError, match="shows 64x64 pixels, its annotations say 63x64"):
        data.load_scene(wrong, 10**6)
    with pytest.raises(InputError, match=r"scene0_000.png"):
        data.load_scene(sample, 1000)


def test_repeat_factors_by_hand() -> None:
    # class 4 in all of four images, class 9 in one: sqrt(0.64 / 0.25) = 1.6
    samples = [labelled(4), labelled(4, 4), labelled(4, 9), labelled(4)]
    assert epoch.repeat_factors(samples, 0.64).tolist() == [1.0, 1.0, 1.6, 1.0]
    assert epoch.repeat_factors(samples, 0.0).tolist() == [1.0] * 4
    assert epoch.repeat_factors([labelled()], 0.5).tolist() == [1.0]
    assert epoch.repeat_factors([], 0.5).tolist() == []


def test_repeat_factors_are_met_on_average(rng: np.random.Generator) -> None:
    samples = [labelled(4), labelled(9)]
    counts = np.zeros(2)
    for _ in range(2000):
        order = epoch.epoch_order(samples, np.array([1.0, 1.6]), None, rng)
        counts += np.bincount(order, minlength=2)
    assert counts[0] == 2000
    assert counts[1] == pytest.approx(3200, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_crop_share(share: float, rng: np.random.Generator) -> None:
    samples = [labelled(4)] * 2 + [labelled(4, window=True)] * 6
    order = epoch.epoch_order(samples, np.ones(8), share, rng)
    assert len(order) == 8
    counts = np.bincount(order, minlength=8)
    assert counts[2:].sum() == round(share * 8)
    for part in (counts[:2], counts[2:]):
        assert part.max() - part.min() <= 1


def test_batches_hold_similar_shapes_and_everything(rng: np.random.Generator) -> None:
    shapes = [(32, 64), (64, 32)] * 5
    batches = epoch.batch_order(np.arange(10), shapes, 4, rng)
    assert [len(rows) for rows in batches] == [4, 4, 4]
    positions = sorted(p for rows in batches for p, _ in rows)
    assert positions == list(range(12))  # two are repeated to fill the last batch
    assert {i for rows in batches for _, i in rows} == set(range(10))
    mixed = [len({shapes[i] for _, i in rows}) for rows in batches]
    assert sorted(mixed) == [1, 1, 2]


def small_net() -> DetectionNet:
    return build_model("fasterrcnn-mobilenetv3", {"min_size": 64, "max_size": 64})


def training_data(samples: list[TrainingImage], config: DataConfig, epochs: int) -> TrainingData:
    return TrainingData(PixelStore(samples, small_net(), config), config, 0, epochs)


def batches_of(samples: list[TrainingImage], **kwargs: int) -> EpochBatches:
    return EpochBatches(samples, small_net(), DataConfig(), 4, 0, **kwargs)


def test_processes_share_every_batch() -> None:
    samples = [labelled(4)] * 10
    whole = list(batches_of(samples))
    parts = [list(batches_of(samples, rank=rank, world=2)) for rank in (0, 1)]
    for rows, one, two in zip(whole, *parts, strict=True):
        assert sorted(one + two) == sorted(rows)
        assert len(one) == len(two) == 2


def test_epochs_differ_and_repeat() -> None:
    batches = batches_of([labelled(4)] * 10)
    first = list(batches)
    batches.epoch = 1
    second = list(batches)
    batches.epoch = 0
    assert list(batches) == first
    assert [t[1:] for rows in first for t in rows] != [t[1:] for rows in second for t in rows]


def test_settings_that_do_not_fit() -> None:
    net = build_model("fasterrcnn-mobilenetv3")
    with pytest.raises(ConfigError, match="holds no image"):
        EpochBatches([], net, DataConfig(), 4, 0)
    with pytest.raises(ConfigError, match="needs crops"):
        EpochBatches([labelled(4)], net, DataConfig(crop_share=0.5), 4, 0)
    with pytest.raises(ValueError, match="crop_share must be 0 to 1"):
        DataConfig(crop_share=2.0)


def test_grey_or_mask(scenes: Scenes) -> None:
    sample = scenes(1)[0]
    ann = sample.annotations
    region = Annotations.of(ann.image_id, ann.size, [[0, 0, 64, 64]], [0])
    sample = replace(sample, annotations=region)
    for ignored, grey, regions in (("mask", False, 1), ("grey", True, 0)):
        config = DataConfig(ignored=ignored, augment=STILL)  # type: ignore[arg-type]
        image, target = training_data([sample], config, 1)[(0, 0, 0)]
        assert bool((image == 114).all()) == grey
        assert len(target["ignore"]) == regions
        assert len(target["boxes"]) == 0


def test_mosaic_stops_before_the_end(scenes: Scenes) -> None:
    samples = scenes(4)
    config = DataConfig(augment=replace(STILL, mosaic=1.0, mosaic_off=2))
    drawn = training_data(samples, config, 5)
    plain = training_data(samples, DataConfig(augment=STILL), 5)[(0, 0, 0)][0]
    assert not torch.equal(drawn[(2, 0, 0)][0], plain)
    assert torch.equal(drawn[(3, 0, 0)][0], plain)


@pytest.mark.slow
def test_loader_processes_change_nothing(scenes: Scenes) -> None:
    samples = scenes(5)
    loaded = []
    for loaders in (0, 1):
        config = DataConfig(augment=AugmentConfig(mosaic=0.5))
        drawn = training_data(samples, config, 9)
        batches = batches_of(samples)
        loader = make_loader(drawn, batches, loaders)
        rows = list(loader)
        batches.epoch = 1
        loaded.append(rows + list(loader))
    for (images, targets), (others, theirs) in zip(*loaded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, others, strict=True))
        for a, b in zip(targets, theirs, strict=True):
            assert torch.equal(a["boxes"], b["boxes"])
