from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmnet.core.errors import CheckpointError, ConfigError, DmnetError
from dmnet.core.images import read_image
from dmnet.core.overlaps import overlap_matrix
from dmnet.core.records import Size
from dmnet.core.training.loop import Trained
from dmnet.core.training.weights import read_weights
from dmnet.detectors.base import DetectionNet, Found, NetDetector, Target, build_model
from dmnet.detectors.training.augmentation import AugmentConfig
from dmnet.detectors.training.data import DataConfig, TrainingImage
from dmnet.detectors.training.settings import TrainConfig
from dmnet.detectors.training.train import train
from tests import written

Scenes = Callable[..., list[TrainingImage]]
QUIET = TrainConfig(epochs=2, batch=2, ema=0.0, warmup_steps=0, clip=0.0)


class Toy(DetectionNet):
    """Learns to count boxes from the mean of a convolution."""

    architecture, classes = "toy", 10

    def __init__(self) -> None:
        super().__init__()
        self.settings = {}
        self.conv = nn.Conv2d(3, 1, 3)
        self.epochs: list[int] = []

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        errors = [
            (self.conv(image[None]).mean() - len(target["boxes"])) ** 2
            for image, target in zip(images, targets, strict=True)
        ]
        return {"loss_count": torch.stack(errors).mean()}

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        return []

    def input_shape(self, size: Size) -> Size:
        return size

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.epochs.append(epoch)


def run(samples: list[TrainingImage], config: TrainConfig, **kwargs: Any) -> tuple[Trained, Toy]:
    torch.manual_seed(0)
    net = Toy()
    return train(net, samples, config, device="cpu", **kwargs), net


def state_of(trained: Trained, folder: Path) -> dict[str, Tensor]:
    path = folder / "trained.pt"
    path.write_bytes(trained.best)
    return read_weights(path)[0]


def test_history_and_metadata(scenes: Scenes, tmp_path: Path) -> None:
    trained, net = run(scenes(4), QUIET, meta={"command": "make"})
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert set(trained.history[0]) == {"epoch", "lr", "loss", "loss/count"}
    assert trained.best_epoch == 2
    assert net.epochs == [0, 1]
    (tmp_path / "w.pt").write_bytes(trained.best)
    meta = read_weights(tmp_path / "w.pt")[1]
    assert meta["config"]["epochs"] == 2
    assert meta["command"] == "make"
    assert meta["metrics"]["loss"] == trained.history[1]["loss"]
    assert len(meta["data"]) == 24


def test_a_step_of_plain_sgd_by_hand(scenes: Scenes, tmp_path: Path) -> None:
    still = DataConfig(augment=AugmentConfig(flip=0.0, zoom=(1.0, 1.0), photometric=0.0))
    config = replace(QUIET, epochs=1, batch=1, lr=0.1, momentum=0.0, weight_decay=0.0, data=still)
    sample = scenes(1)[0]
    trained, _ = run([sample], config)
    torch.manual_seed(0)
    net = Toy()
    image = torch.from_numpy(read_image(sample.image)).permute(2, 0, 1).float() / 255
    loss = (net.conv(image[None]).mean() - len(sample.annotations)) ** 2
    loss.backward()
    bias = net.conv.bias
    assert bias is not None and bias.grad is not None
    assert trained.history[0]["loss"] == pytest.approx(loss.item())
    expected = bias - 0.1 * bias.grad
    torch.testing.assert_close(state_of(trained, tmp_path)["conv.bias"], expected.detach())


def test_the_same_seed_gives_the_same_bytes(scenes: Scenes) -> None:
    samples = scenes(4)
    assert run(samples, QUIET)[0].best == run(samples, QUIET)[0].best
    assert run(samples, QUIET)[0].best != run(samples, replace(QUIET, seed=1))[0].best


def test_stored_pixels_change_nothing(scenes: Scenes, tmp_path: Path) -> None:
    samples = scenes(4)
    store = tmp_path / "store"
    plain, cold, warm = (run(samples, QUIET, cache=cache)[0] for cache in (None, store, store))
    assert plain.best == cold.best == warm.best
    assert len(list(store.iterdir())) == 4


def test_every_epoch_says_how_quick_it_was(
    scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(scenes(4), QUIET)
    lines = [line for line in caplog.messages if "images/s" in line]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss/count" in line and "waiting" in line for line in lines)
    assert lines[1].endswith("0 min 00 s left")


def test_accumulation_changes_only_memory(scenes: Scenes, tmp_path: Path) -> None:
    samples = scenes(6)
    whole = run(samples, replace(QUIET, batch=6))[0]
    parts = run(samples, replace(QUIET, batch=6, accumulate=4))[0]
    for row, other in zip(whole.history, parts.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
    torch.testing.assert_close(state_of(whole, tmp_path), state_of(parts, tmp_path))


def test_the_best_epoch_is_kept_and_stale_training_stops(scenes: Scenes, tmp_path: Path) -> None:
    given = iter([0.1, 0.7, 0.2, 0.7, 0.6, 0.9])
    seen: list[Tensor] = []

    def evaluate(net: DetectionNet) -> dict[str, float]:
        assert not net.training
        seen.append(net.state_dict()["conv.bias"].clone())
        nn.init.zeros_(next(net.parameters()))  # a copy: this must not reach the training
        return {"AP": next(given), "recall": 0.5}

    config = replace(QUIET, epochs=6, patience=3)
    trained, net = run(scenes(2), config, evaluate=evaluate)
    assert [row["AP"] for row in trained.history] == [0.1, 0.7, 0.2, 0.7, 0.6]
    assert trained.best_epoch == 2
    assert torch.equal(state_of(trained, tmp_path)["conv.bias"], seen[1])
    assert net.conv.weight.abs().sum() > 0


def test_evaluations_are_spaced(scenes: Scenes) -> None:
    config = replace(QUIET, epochs=5, eval_every=2)
    trained, _ = run(scenes(2), config, evaluate=lambda net: {"AP": 0.5})
    assert [row["epoch"] for row in trained.history if "AP" in row] == [2, 4, 5]


def test_the_average_is_what_is_kept(scenes: Scenes, tmp_path: Path) -> None:
    trained, net = run(scenes(2), replace(QUIET, ema=0.9))
    assert not torch.equal(state_of(trained, tmp_path)["conv.bias"], net.state_dict()["conv.bias"])


def test_errors(scenes: Scenes, tmp_path: Path) -> None:
    samples = scenes(2)
    with pytest.raises(ConfigError, match="no score is called 'mAP'; there are: AP"):
        run(samples, replace(QUIET, metric="mAP"), evaluate=lambda net: {"AP": 1.0})
    with pytest.raises(ConfigError, match="needs a folder"):
        run(samples, replace(QUIET, tensorboard=True))
    with pytest.raises(DmnetError, match=r"the loss is not finite in epoch \d"):
        run(samples, replace(QUIET, lr=100.0, epochs=9, batch=1))
    path = tmp_path / "last.pt"
    run(samples, QUIET, checkpoint=path)
    with pytest.raises(CheckpointError, match="belongs to a training with other settings"):
        run(samples, replace(QUIET, lr=0.5), checkpoint=path)


def test_tensorboard_files(scenes: Scenes, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    run(scenes(2), replace(QUIET, tensorboard=True), log_folder=tmp_path / "board")
    assert [path.name[:10] for path in (tmp_path / "board").iterdir()] == ["events.out"]


def test_a_finished_training_is_not_repeated(scenes: Scenes, tmp_path: Path) -> None:
    samples, path = scenes(2), tmp_path / "last.pt"
    first, _ = run(samples, QUIET, checkpoint=path)
    again, net = run(samples, QUIET, checkpoint=path)
    assert net.epochs == []
    assert again.best == first.best


SMALL: dict[str, dict[str, Any]] = {
    "yolov6-n": {"input_size": 64, "fine": True},
    "yolox-nano": {"input_size": 64},
    "fcos-mobilenetv2": {"min_size": 64, "max_size": 64, "fpn_channels": 32},
}


def trained_small(
    name: str, samples: list[TrainingImage], config: TrainConfig, **kwargs: Any
) -> tuple[Trained, DetectionNet]:
    torch.manual_seed(0)
    net = build_model(name, SMALL[name])
    return train(net, samples, config, device="cpu", **kwargs), net


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_training_ends_with_the_same_weights(
    name: str, scenes: Scenes, tmp_path: Path
) -> None:
    samples, config = scenes(4), replace(QUIET, optimizer="adamw", lr=1e-3, ema=0.9, clip=1.0)

    def stopped(net: DetectionNet) -> dict[str, float]:
        if (tmp_path / "last.pt").exists():
            raise KeyboardInterrupt
        return {"AP": 0.0}

    with pytest.raises(KeyboardInterrupt):
        trained_small(name, samples, config, evaluate=stopped, checkpoint=tmp_path / "last.pt")

    def even(net: DetectionNet) -> dict[str, float]:
        return {"AP": 0.0}

    resumed, _ = trained_small(
        name, samples, config, evaluate=even, checkpoint=tmp_path / "last.pt"
    )
    straight, net = trained_small(name, samples, config, evaluate=even)
    assert resumed.last == straight.last
    start = build_model(name, SMALL[name]).state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in net.state_dict().items())


def test_memory_order_changes_only_rounding(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a smooth network: at a kink of ReLU rounding decides whether a gradient is 0."""
    monkeypatch.setattr(nn.functional, "relu", nn.functional.silu)
    samples, config = scenes(4), replace(QUIET, lr=1e-3)
    first, quick = trained_small("yolov6-n", samples, config)
    second, plain = trained_small("yolov6-n", samples, replace(config, channels_last=False))
    weight = next(weight for weight in quick.parameters() if weight.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not next(plain.parameters()).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(quick.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    for one, other in zip(first.history, second.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from dmnet.detectors.base import build_model
from dmnet.detectors.training.data import DataConfig, read_coco
from dmnet.detectors.training.train import train
from dmnet.detectors.training.settings import TrainConfig

torch.set_num_threads(1)
torch.manual_seed(0)
name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3] + os.environ.get("RANK", ""))
small = {"min_size": 64, "max_size": 64, "fpn_channels": 32, "head_channels": 16,
         "proposals": 20, "roi_samples": 16}
config = TrainConfig(epochs=int(sys.argv[4]), batch=4, lr=0.003)
samples = read_coco(folder / "gt.json", {p.stem: p for p in folder.iterdir()})
last = out / "last.pt" if sys.argv[5] == "keep" else None
trained = train(build_model(name, small), samples, config, checkpoint=last, device="cpu")
(out / "weights.pt").write_bytes(trained.best)
(out / "losses.txt").write_text(" ".join(str(row["loss"]) for row in trained.history))
"""


def arguments(folder: Path, name: str, out: str, epochs: int, keep: str) -> list[str]:
    (folder / "train.py").write_text(SCRIPT)
    (folder / out).mkdir(exist_ok=True)
    return [str(folder / "train.py"), name, str(folder), str(folder / out), str(epochs), keep]


def start(arguments: list[str], *launcher: str) -> subprocess.Popen[bytes]:
    """The script in a process of its own, or in those of a launcher."""
    command = [sys.executable, *launcher, *arguments]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def here(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script in this process."""
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(arguments[0])


def write_set(samples: list[TrainingImage], folder: Path) -> None:
    names = {s.annotations.image_id: s.image.name for s in samples}
    truth = written.ground_truth([s.annotations for s in samples], names, ignored=True)
    (folder / "gt.json").write_text(json.dumps(truth))


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(scenes(6), tmp_path)
    name, last = "fasterrcnn-mobilenetv3", tmp_path / "killed" / "last.pt"
    killed = start(arguments(tmp_path, name, "killed", 3, "keep"))
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert last.exists()
    assert not (tmp_path / "killed" / "weights.pt").exists()
    here(arguments(tmp_path, name, "killed", 3, "keep"), monkeypatch)
    here(arguments(tmp_path, name, "straight", 3, "none"), monkeypatch)
    for file in ("weights.pt", "losses.txt"):
        same = (tmp_path / folder / file for folder in ("straight", "killed"))
        assert len({path.read_bytes() for path in same}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet-r50", "fcos-r50"])
def test_two_processes_give_the_loss_of_one(
    name: str, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(scenes(4), tmp_path)
    for rank in (0, 1):
        (tmp_path / f"rank{rank}").mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with start(arguments(tmp_path, name, "rank", 2, "none"), *torchrun) as both:
        here(arguments(tmp_path, name, "alone", 2, "none"), monkeypatch)
        assert both.wait() == 0
    alone, first, second = (
        np.array([float(v) for v in (tmp_path / run / "losses.txt").read_text().split()])
        for run in ("alone", "rank0", "rank1")
    )
    assert alone[0] != alone[1]
    np.testing.assert_allclose(first, alone, rtol=1e-4)
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_it_learns_from_random_weights(scenes: Scenes) -> None:
    samples = scenes(12, size=96, objects=6)
    settings = {
        "min_size": 96, "max_size": 96, "anchors": [8, 16, 32, 64, 128], "proposals": 100,
        "roi_samples": 64, "fpn_channels": 64, "head_channels": 128,
    }  # fmt: skip
    data = DataConfig(augment=AugmentConfig(zoom=(1.0, 1.2), photometric=0.1))
    config = TrainConfig(epochs=14, batch=2, optimizer="adamw", lr=2e-3, ema=0.8, data=data)
    net = build_model("fasterrcnn-mobilenetv3", settings)
    trained = train(net, samples, config, device="cpu")
    losses = [float(row["loss"]) for row in trained.history]
    assert losses[-1] < 0.5 * losses[0]
    found = NetDetector(net, "cpu").predict([read_image(s.image) for s in samples])
    hits = total = 0
    for sample, detections in zip(samples, found, strict=True):
        truth, sure = sample.annotations, detections[detections.scores > 0.2]
        right = overlap_matrix(truth.boxes, sure.boxes) >= 0.5
        right &= truth.labels[:, None] == sure.labels[None, :]
        hits += int(right.any(axis=1).sum())
        total += len(truth)
    assert hits > 0.6 * total
