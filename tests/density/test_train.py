from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmnet.core.config import build
from dmnet.core.errors import CheckpointError, ConfigError, DmnetError
from dmnet.core.images import encode_jpeg
from dmnet.core.records import DensityMap
from dmnet.core.training.loop import Trained
from dmnet.core.training.weights import read_payload
from dmnet.density.judge import evaluate
from dmnet.density.networks import IMAGENET, TorchNetwork, load_network
from dmnet.density.networks import build as build_network
from dmnet.density.predict import predict
from dmnet.density.samples import DensityPair
from dmnet.density.scale import Scaling
from dmnet.density.settings import AugmentConfig, DataConfig, TrainConfig
from dmnet.density.train import scaling_of, train

SMALL = TrainConfig(epochs=3, batch=2, crop=32, lr=1e-3, seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def blobs(folder: Path, count: int, size: int = 48, seed: int = 0) -> list[DensityPair]:
    """Images with white squares on grey, each an object of one bright cell."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        cells = np.zeros((size // 4, size // 4), np.float32)
        image = np.full((size, size, 3), 60, np.uint8)
        for y, x in rng.integers(1, size // 4 - 1, (rng.integers(0, 7), 2)):
            cells[y, x] += 1
            image[y * 4 : y * 4 + 4, x * 4 : x * 4 + 4] = 250
        path = folder / f"{seed}-{index}.png"
        path.write_bytes(encode_jpeg(image))
        density = DensityMap(cells, 4, (size, size))
        made.append(DensityPair(path, lambda density=density: density))  # type: ignore[misc]
    return made


def same_weights(a: bytes, b: bytes, folder: Path) -> bool:
    paths = [folder / "a.pt", folder / "b.pt"]
    for path, data in zip(paths, (a, b), strict=True):
        path.write_bytes(data)
    states = [load_network(path)[0].state_dict() for path in paths]
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_history_and_weights(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 5)
    result = train(samples, samples[:2], SMALL, checkpoint=tmp_path / "c.pt")
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    expected = ["epoch", "lr", "loss", "val_mae", "val_rmse", "val_game"]
    assert all(list(row) == expected for row in result.history)
    path = tmp_path / "w.pt"
    path.write_bytes(result.last)
    network, meta = load_network(path)
    assert meta["architecture"] == "mcnn"
    assert meta["config"]["crop"] == 32
    assert Scaling.of(meta) == scaling_of(SMALL)
    row = evaluate(network, samples[:2], Scaling.of(meta))
    assert row["val_mae"] == pytest.approx(result.history[-1]["val_mae"], rel=1e-5)


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 4)
    result = train(samples, samples, SMALL, checkpoint=tmp_path / "c.pt")
    path = tmp_path / "w.pt"
    path.write_bytes(result.best)
    found = evaluate(load_network(path)[0], samples, scaling_of(SMALL))["val_mae"]
    assert found == pytest.approx(min(float(row["val_mae"]) for row in result.history), rel=1e-5)


def test_without_a_validation_set_the_last_is_the_best(tmp_path: Path) -> None:
    result = train(blobs(tmp_path, 2), [], replace(SMALL, epochs=2), checkpoint=tmp_path / "c.pt")
    assert list(result.history[0]) == ["epoch", "lr", "loss"]
    assert result.best == result.last


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mcnn", "unet"])
def test_training_learns_to_count(network: str, tmp_path: Path) -> None:
    samples, val = blobs(tmp_path, 24), blobs(tmp_path, 12, seed=1)
    config = TrainConfig(network=network, width=4, epochs=12, batch=4, crop=48, lr=3e-3, ema=0.9)  # type: ignore[arg-type]
    config = replace(config, target_scale=10.0)
    result = train(samples, val, config, checkpoint=tmp_path / "c.pt")
    counts = np.array([sample.density().count for sample in val])
    constant = np.abs(counts - np.mean([s.density().count for s in samples])).mean()
    assert min(float(row["val_mae"]) for row in result.history) < 0.5 * constant


@pytest.mark.parametrize("network", ["mcnn", "unet", "mobilenet"])
def test_whole_images_of_any_size(network: str, tmp_path: Path) -> None:
    config = replace(SMALL, network=network, width=2, epochs=1, crop=0, batch=1)  # type: ignore[arg-type]
    result = train(blobs(tmp_path, 2, size=52), [], config, checkpoint=tmp_path / "c.pt")
    assert np.isfinite(float(result.history[0]["loss"]))


def test_training_repeats(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 3)
    config = replace(SMALL, epochs=2)
    runs = [train(samples, samples[:1], config, checkpoint=tmp_path / f"{n}.pt") for n in "ab"]
    assert runs[0].last == runs[1].last
    assert runs[0].history == runs[1].history
    other = train(samples, [], replace(config, seed=4), checkpoint=tmp_path / "c.pt")
    assert not same_weights(other.last, runs[0].last, tmp_path)


def test_reading_in_other_processes_changes_nothing(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 3)
    config = replace(SMALL, epochs=1)
    alone = train(samples, [], config, checkpoint=tmp_path / "a.pt")
    helped = train(samples, [], replace(config, loaders=1), checkpoint=tmp_path / "b.pt")
    assert same_weights(alone.last, helped.last, tmp_path)


def interrupted(samples: list[DensityPair], config: TrainConfig, checkpoint: Path) -> Trained:
    """Stop with an exception in the validation of the second epoch, then go on."""
    calls = 0

    def stop(index: int, density: DensityMap) -> dict[str, tuple[float, float]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        train(samples, samples[:1], config, checkpoint=checkpoint, measure=stop)
    assert checkpoint.exists()
    return train(samples, samples[:1], config, checkpoint=checkpoint)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, optimizer="sgd", lr=1e-6, ema=0.0, schedule="constant", loss="l1"),
        replace(SMALL, network="unet", width=2),
        replace(SMALL, network="mobilenet", stride=8, long_side=40, crop=32, windows=(2, 4)),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights(
    config: TrainConfig, tmp_path: Path
) -> None:
    samples = blobs(tmp_path, 3)
    straight = train(samples, samples[:1], config, checkpoint=tmp_path / "a.pt")
    resumed = interrupted(samples, config, tmp_path / "b.pt")
    assert resumed.last == straight.last
    assert resumed.best == straight.best
    assert resumed.history == straight.history


LONG = replace(SMALL, epochs=12)

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_train import LONG, blobs, train
folder = Path(sys.argv[2])
train(blobs(folder, 2), [], LONG, checkpoint=folder / "c.pt")
"""


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= read_payload(checkpoint)["epoch"] < LONG.epochs
    resumed = train(blobs(tmp_path, 2), [], LONG, checkpoint=checkpoint)
    straight = train(blobs(tmp_path, 2), [], LONG, checkpoint=tmp_path / "straight.pt")
    assert resumed.last == straight.last
    assert resumed.history == straight.history


SHARED = replace(SMALL, optimizer="sgd", lr=1e-3, momentum=0.0, ema=0.0)
"""Without Adam, which makes much of the signs of gradients that are all but 0."""

TOGETHER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_train import SHARED, blobs, train
folder = Path(sys.argv[2]) / os.environ["RANK"]
result = train(blobs(folder, 4), blobs(folder, 1, seed=1), SHARED, device="cpu")
(folder / "last.pt").write_bytes(result.last)
(folder / "history.json").write_text(json.dumps(result.history))
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """Processes of torchrun on a CPU (gloo): each sees half of every batch."""
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    (tmp_path / "together.py").write_text(TOGETHER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(tmp_path / "together.py"), str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen([sys.executable, *torchrun, *script]) as both:
        alone = train(blobs(tmp_path, 4), blobs(tmp_path, 1, seed=1), SHARED)
        assert both.wait() == 0
    files = [(tmp_path / rank / "last.pt").read_bytes() for rank in ("0", "1")]
    assert same_weights(*files, tmp_path)
    (tmp_path / "alone.pt").write_bytes(alone.last)
    paths = [tmp_path / "alone.pt", tmp_path / "0" / "last.pt"]
    states = [load_network(path)[0].state_dict() for path in paths]
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-7)
    assert states[0]["head.weight"].abs().max() > 1e-5  # it was 0 at first
    for row, other in zip(
        alone.history, json.loads((tmp_path / "0" / "history.json").read_text()), strict=True
    ):
        assert row == pytest.approx(other, rel=1e-3)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 2)
    path = tmp_path / "c.pt"
    train(samples, [], replace(SMALL, epochs=1), checkpoint=path)
    with pytest.raises(CheckpointError, match="other settings or data; remove it"):
        train(samples, [], replace(SMALL, epochs=2), checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable torch file"):
        train(samples, [], replace(SMALL, epochs=1), checkpoint=path)


def test_a_finished_training_gives_its_result_again(tmp_path: Path) -> None:
    samples, config = blobs(tmp_path, 2), replace(SMALL, epochs=1)
    first = train(samples, [], config, checkpoint=tmp_path / "c.pt")
    assert train(samples, [], config, checkpoint=tmp_path / "c.pt") == first


def test_further_measures_are_ratios_of_sums(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 2)

    def measure(index: int, density: DensityMap) -> dict[str, tuple[float, float]]:
        assert density.size == (48, 48)
        return {"recall": (index, index + 2)}

    config = replace(SMALL, epochs=1)
    result = train(samples, samples, config, checkpoint=tmp_path / "c.pt", measure=measure)
    assert result.history[0]["recall"] == pytest.approx(1 / 5)


def test_the_scale_of_the_targets_is_not_in_the_prediction(tmp_path: Path) -> None:
    """A network that learned a constant answers it, whatever the scale."""
    image = np.full((32, 32, 3), 200, np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encode_jpeg(image))
    density = DensityMap(np.full((8, 8), 0.5, np.float32), 4, (32, 32))
    sample = DensityPair(path, lambda: density)
    config = TrainConfig(
        epochs=60, batch=1, crop=32, lr=3e-3, warmup_epochs=0, ema=0, target_scale=10,
        data=DataConfig(augment=AugmentConfig(zoom=(1, 1))),
    )  # fmt: skip
    result = train([sample], [], config, checkpoint=tmp_path / "c.pt")
    (tmp_path / "w.pt").write_bytes(result.last)
    network, _ = load_network(tmp_path / "w.pt")
    found = predict(TorchNetwork(network), image, scaling_of(config)).values
    assert found.mean() == pytest.approx(0.5, abs=0.1)


def test_no_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image to train"):
        train([], [], SMALL, checkpoint=tmp_path / "c.pt")


def test_a_loss_that_explodes_is_an_error(tmp_path: Path) -> None:
    config = replace(SMALL, optimizer="sgd", lr=100.0, clip=0, warmup_epochs=0, epochs=9)
    with pytest.raises(DmnetError, match=r"loss is not finite in epoch .* lower lr"):
        train(blobs(tmp_path, 4), [], config, checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 100}, "multiple of 16"),
        ({"crop": 0}, r"train_density\.crop 0 needs batch 1"),
        ({"lr": 0}, "lr must be above 0"),
        ({"data": {"augment": {"zoom": [0.5, float("nan")]}}}, "augment.zoom must be 0.01 to 100"),
        ({"ema": 1.0}, "ema must be 0 to below 1"),
        ({"epochs": 0}, "epochs must be 1 to"),
        ({"stride": 8}, "stride of mcnn is 4, got 8"),
        ({"long_side": -1}, "long_side must be 0 to"),
        ({"windows": (1, 4)}, "windows must be 2 to 1,024, got 1"),
        ({"windows": 65, "crop": 256}, "windows of 65 cells of 4 pixels are larger than crop, 256"),
        ({"own": {"width": 3}}, "own has to be empty here, got width"),
        ({"network": "mnn"}, "network must be one of mcnn, mobilenet, unet, or module:name"),
        ({"input_mean": (1, 2)}, "input_mean must be one number or three, got 2"),
        ({"input_std": (1, 0, 1)}, "input_std must be above 0, at most"),
        ({"data": {"augment": {"photometric": 2}}}, "augment.photometric must be 0 to 1"),
        ({"leak": 2}, "leak must be 0 to 1"),
    ],
)
def test_settings_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, values, "train_density")


def test_tensorboard_is_optional(tmp_path: Path) -> None:
    from dmnet.core.errors import MissingExtraError

    config = replace(SMALL, epochs=1, tensorboard=True)
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(MissingExtraError, match=r"dmnet\[tensorboard\]"):
            train(blobs(tmp_path, 1), [], config, log_folder=tmp_path / "t")
        return
    train(blobs(tmp_path, 1), [], config, log_folder=tmp_path / "t")
    assert any((tmp_path / "t").iterdir())


def test_a_cache_of_any_size_changes_nothing(tmp_path: Path) -> None:
    samples = blobs(tmp_path, 3)
    runs = [
        train(samples, [], replace(SMALL, data=DataConfig(cache_gb=room)))
        for room in (0, 1e-5, 1.0)
    ]
    assert runs[0].history == runs[1].history == runs[2].history
    assert all(same_weights(runs[0].last, run.last, tmp_path) for run in runs[1:])


def test_small_pictures_and_loaders(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=1, long_side=40)
    config = replace(config, data=DataConfig(augment=AugmentConfig(photometric=0.3)))
    samples = blobs(tmp_path, 3, size=80)
    alone = train(samples, samples[:1], config, checkpoint=tmp_path / "a.pt")
    more = replace(config, loaders=1)
    helped = train(samples, samples[:1], more, checkpoint=tmp_path / "b.pt")
    assert same_weights(alone.last, helped.last, tmp_path)
    (tmp_path / "w.pt").write_bytes(alone.last)
    _, meta = load_network(tmp_path / "w.pt")
    assert Scaling.of(meta) == Scaling(128.0, 64.0, 40)


def test_a_backbone_changes_the_start_and_leaves_no_path(tmp_path: Path) -> None:
    config = replace(SMALL, network="mobilenet", epochs=1, lr=1e-9, ema=0.0)
    other = build_network("mobilenet").state_dict()
    path = tmp_path / "backbone.pth"
    torch.save({k: v for k, v in other.items() if k.startswith("features")}, path)
    samples = blobs(tmp_path, 1)
    result = train(samples, [], replace(config, init=str(path)), checkpoint=tmp_path / "c.pt")
    (tmp_path / "w.pt").write_bytes(result.last)
    network, meta = load_network(tmp_path / "w.pt")
    key = "features.0.0.weight"
    torch.testing.assert_close(network.state_dict()[key], other[key], atol=1e-6, rtol=0)
    assert meta["config"]["init"] == "backbone.pth"
    assert Scaling.of(meta) == Scaling(*IMAGENET)


def test_a_training_goes_on_from_weights_of_an_earlier_one(tmp_path: Path) -> None:
    """The stored network gives objects per cell; in training its answer is scaled again."""
    samples = blobs(tmp_path, 2)
    first = train(samples, [], SMALL)
    path = tmp_path / "first.pt"
    path.write_bytes(first.last)
    still = replace(SMALL, epochs=1, lr=1e-9, ema=0.0, init=str(path), target_scale=10.0)
    (tmp_path / "w.pt").write_bytes(train(samples, [], still).last)
    states = [load_network(tmp_path / name)[0].state_dict() for name in ("first.pt", "w.pt")]
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("network", ["mcnn", "unet", "mobilenet"])
def test_the_first_loss_is_that_of_an_empty_map(network: str, tmp_path: Path) -> None:
    samples = blobs(tmp_path, 2)
    how = replace(SMALL, network=network, width=4, epochs=1, crop=0, batch=1, lr=1e-9)
    result = train(samples, [], how, checkpoint=tmp_path / "c.pt")
    cells = [sample.density().values.astype(np.float64) for sample in samples]
    empty = np.mean([((how.target_scale * values) ** 2).sum() for values in cells])
    assert result.history[0]["loss"] == pytest.approx(empty, rel=1e-4)
