from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import encode_png, read_image
from dmnet.core.records import Detections, Image, Size
from dmnet.detectors import infer
from dmnet.detectors.base import NetDetector, build_model
from dmnet.detectors.infer import InferConfig, Job, detect_items
from dmnet.detectors.packing import PackConfig
from dmnet.detectors.training.data import TrainingImage

Scenes = Callable[..., list[TrainingImage]]


class Mean:
    """One detection an image: its size as box, its mean value as score."""

    def __init__(self) -> None:
        self.batches: list[list[Size]] = []

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        self.batches.append([(i.shape[0], i.shape[1]) for i in images])
        return [
            Detections(
                np.array([[0, 0, i.shape[1], i.shape[0]]]), np.array([i.mean()]), np.array([1])
            )
            for i in images
        ]


class Rounded(Mean):
    def input_shape(self, size: Size) -> Size:
        return -(-size[0] // 32) * 32, -(-size[1] // 32) * 32


def images_of(folder: Path, count: int, rng: np.random.Generator) -> list[Path]:
    paths = []
    for index in range(count):
        path = folder / f"{index}.png"
        path.write_bytes(encode_png(rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)))
        paths.append(path)
    return paths


def test_nothing_to_do() -> None:
    assert list(detect_items(Mean(), [])) == []


@pytest.mark.parametrize("open_images", [1, 2, 16])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_every_window_gets_its_own_result_in_order(
    tmp_path: Path, rng: np.random.Generator, batch: int, open_images: int
) -> None:
    paths = images_of(tmp_path, 5, rng)
    jobs: list[Job] = [
        (paths[0], [None, (0, 0, 20, 20), (5, 6, 60, 40)]),
        (paths[1], []),
        (paths[2], [(0, 0, 30, 10)]),
        (paths[3], [(30, 10, 50, 30), None]),
        (paths[4], [None]),
    ]
    config = InferConfig(batch=batch, open_images=open_images)
    done = list(detect_items(Rounded(), iter(jobs), config))
    assert [path for path, _ in done] == paths
    for (path, windows), (_, found) in zip(jobs, done, strict=True):
        assert isinstance(found, list)
        pixels = read_image(path)
        parts = [infer.cut_window(pixels, window, path) for window in windows]
        assert [f.scores[0] for f in found] == [part.mean() for part in parts]
        assert [f.boxes[0, 2:].tolist() for f in found] == [
            [part.shape[1], part.shape[0]] for part in parts
        ]


def test_windows_of_many_images_share_batches(tmp_path: Path, rng: np.random.Generator) -> None:
    jobs: list[Job] = [(p, [(0, 0, 20, 30), None]) for p in images_of(tmp_path, 4, rng)]
    detector = Rounded()
    list(detect_items(detector, jobs, InferConfig(batch=4)))
    assert detector.batches == [[(30, 20)] * 4, [(40, 60)] * 4]
    detector = Rounded()
    list(detect_items(detector, jobs, InferConfig(batch=4, batch_pixels=2 * 64 * 64)))
    assert detector.batches[-1] == [(40, 60)] * 2
    plain = Mean()
    list(detect_items(plain, jobs, InferConfig(batch=4)))
    assert all(len(set(sizes)) == 1 for sizes in plain.batches)


class Sided(Rounded):
    """Has an input of any size, and says which one in its score."""

    def __init__(self, side: int = 64) -> None:
        super().__init__()
        self.side = side

    def at_side(self, side: int) -> Sided:
        return Sided(side)

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        return [replace(each, scores=np.array([self.side])) for each in super().predict(images)]


@pytest.mark.parametrize("pack", [PackConfig(), PackConfig(side=64)])
def test_whole_images_have_an_input_of_their_own(
    tmp_path: Path, rng: np.random.Generator, pack: PackConfig
) -> None:
    jobs: list[Job] = [(p, [None, (0, 0, 60, 40)]) for p in images_of(tmp_path, 2, rng)]
    config = InferConfig(whole_side=96, pack=pack)
    found = [each for _, each in detect_items(Sided(), jobs, config)]
    assert [[f.scores.tolist() for f in each] for each in found] == [[[96], [64]]] * 2
    with pytest.raises(ConfigError, match=r"detect\.whole_side 96: the input of this detector"):
        list(detect_items(Mean(), jobs, config))


def test_few_images_are_open_at_a_time(tmp_path: Path, rng: np.random.Generator) -> None:
    asked = []

    def jobs() -> Sequence[Job]:
        for path in images_of(tmp_path, 30, rng):
            asked.append(path)
            yield path, [None]  # type: ignore[misc]

    config = InferConfig(batch=1000, open_images=4, decoders=2)
    for index, _ in enumerate(detect_items(Mean(), jobs(), config)):
        assert len(asked) <= index + 4 + config.decoders + 2


def test_a_bad_image_is_set_aside(tmp_path: Path, rng: np.random.Generator) -> None:
    paths = images_of(tmp_path, 3, rng)
    paths[1].write_bytes(b"not an image")
    jobs: list[Job] = [(path, [None]) for path in paths]
    jobs.append((paths[2], [(0, 0, 61, 10)]))
    done = [found for _, found in detect_items(Mean(), jobs)]
    assert isinstance(done[0], list) and isinstance(done[2], list)
    assert isinstance(done[1], InputError) and "1.png" in str(done[1])
    assert isinstance(done[3], InputError) and "(0, 0, 61, 10) does not lie" in str(done[3])
    small = [found for _, found in detect_items(Mean(), jobs[:1], InferConfig(max_pixels=99))]
    assert isinstance(small[0], InputError)


def test_windows_are_views(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    assert np.shares_memory(infer.cut_window(image, (1, 2, 3, 4), Path("a")), image)


def test_batches_change_nothing_for_a_network(scenes: Scenes) -> None:
    settings = {"min_size": 64, "max_size": 64, "fpn_channels": 16, "head_channels": 16}
    detector = NetDetector(build_model("fasterrcnn-mobilenetv3", settings), "cpu")
    jobs: list[Job] = [(s.image, [None, (3, 4, 50, 60), (0, 0, 33, 20)]) for s in scenes(3)]
    one, many = (list(detect_items(detector, jobs, InferConfig(batch=batch))) for batch in (1, 8))
    for (_, a), (_, b) in zip(one, many, strict=True):
        assert isinstance(a, list) and isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x.scores, y.scores, atol=1e-5)
            assert len(x) > 100


class Small(Mean):
    """Has memory for so many pixels at once; says what torch says where there is not enough."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error = room, error

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        if sum(image.shape[0] * image.shape[1] for image in images) > self.room:
            raise self.error
        return super().predict(images)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_batch_that_does_not_fit_is_halved(
    tmp_path: Path, rng: np.random.Generator, error: Exception
) -> None:
    jobs: list[Job] = [(path, [None]) for path in images_of(tmp_path, 7, rng)]
    config = InferConfig(batch=7)
    detector = Small(2 * 40 * 60, error)
    found = list(detect_items(detector, jobs, config))
    assert {len(batch) for batch in detector.batches} == {1, 2}
    for (path, got), (_, good) in zip(found, detect_items(Mean(), jobs, config), strict=True):
        assert not isinstance(got, InputError) and not isinstance(good, InputError), path
        assert got[0].scores.tolist() == good[0].scores.tolist()


def test_an_image_that_never_fits_is_set_aside_and_the_others_go_on(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    paths = images_of(tmp_path, 3, rng)
    paths[1].write_bytes(encode_png(np.zeros((400, 600, 3), np.uint8)))
    detector = Small(40 * 60, MemoryError())
    found = dict(detect_items(detector, [(path, [None]) for path in paths], InferConfig(batch=3)))
    assert isinstance(found[paths[1]], InputError)
    assert "not enough memory to detect 600x400 pixels by themselves" in str(found[paths[1]])
    assert all(not isinstance(found[path], InputError) for path in (paths[0], paths[2]))


def test_other_faults_of_a_detector_are_no_lack_of_memory(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    jobs: list[Job] = [(path, [None]) for path in images_of(tmp_path, 2, rng)]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(detect_items(Small(0, RuntimeError("shapes do not fit")), jobs))
