"""The parts of the training loop, by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from dmnet.core.errors import CheckpointError, ConfigError
from dmnet.core.training import loop
from dmnet.core.training.optimizer import Ema, make_optimizer, rate
from dmnet.core.training.processes import Group, process_group
from dmnet.core.training.settings import TrainConfig
from dmnet.core.training.start import take

CPU = torch.device("cpu")


def test_learning_rates_by_hand() -> None:
    steps = TrainConfig(epochs=10, schedule="steps", milestones=(4, 8), warmup_steps=5)
    rates = [rate(step, 10, steps) for step in (0, 4, 39, 40, 79, 80, 99)]
    assert rates == pytest.approx([0.2, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    cosine = TrainConfig(epochs=10, warmup_steps=10)
    assert rate(9, 10, cosine) == 1.0
    assert rate(0, 10, cosine) == pytest.approx(0.1)
    assert rate(55, 10, cosine) == pytest.approx(0.01 + 0.99 / 2)
    short = TrainConfig(epochs=1, warmup_steps=500)
    assert rate(9, 100, short) == 1.0  # the warm-up is at most a tenth


def test_a_warm_up_in_epochs_may_be_longer() -> None:
    config = TrainConfig(epochs=3, schedule="constant", warmup_steps=0, warmup_epochs=1.5)
    rates = [rate(step, 4, config) for step in (0, 2, 5, 6, 11)]
    assert rates == pytest.approx([1 / 6, 0.5, 1.0, 1.0, 1.0])
    none = TrainConfig(epochs=3, schedule="constant", warmup_steps=0)
    assert rate(0, 4, none) == 1.0


def test_which_parameters_decay() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    config = TrainConfig(weight_decay=0.5)
    weights, vectors = make_optimizer(net, config).param_groups
    assert ([p.ndim for p in weights["params"]], weights["weight_decay"]) == ([2], 0.5)
    assert ([p.ndim for p in vectors["params"]], vectors["weight_decay"]) == ([1, 1, 1], 0.0)
    all_decay = make_optimizer(net, TrainConfig(weight_decay=0.5, decay_vectors=True))
    assert [group["weight_decay"] for group in all_decay.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize(("nesterov", "moved"), [(True, 1.0 + 0.5), (False, 1.0)])
def test_the_first_step_of_sgd_by_hand(nesterov: bool, moved: float) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    how = TrainConfig(lr=1.0, momentum=0.5, weight_decay=0.0, nesterov=nesterov)
    optimizer = make_optimizer(net, how)
    net(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert net.weight.item() == -moved


def test_an_average_goes_on_where_it_was() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = Ema(net, 0.5, ramp=1)
    nn.init.ones_(net.weight)
    ema.update(net)
    other = Ema(net, 0.5, ramp=1)
    other.load(ema.state())
    for each in (ema, other):
        each.update(net)
    assert torch.equal(ema.model.weight, other.model.weight)
    first = 1 - 0.5 * (1 - torch.exp(torch.tensor(-1.0)))
    second = 1 - 0.5 * (1 - torch.exp(torch.tensor(-2.0)))
    assert ema.model.weight.item() == pytest.approx((first + (1 - first) * second).item())


def test_the_fused_optimizers_do_what_the_plain_ones_do() -> None:
    torch.manual_seed(0)
    quick = nn.Linear(4, 3)
    plain = copy.deepcopy(quick)
    x, how = torch.rand(5, 4), TrainConfig(optimizer="adamw", lr=0.1, weight_decay=0.0)
    ours = make_optimizer(quick, how)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.0, foreach=False)
    for _ in range(5):
        for net, optimizer in ((quick, ours), (plain, theirs)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(quick.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_split_batch() -> None:
    batch = (list("abcde"), list("12345"))
    assert [len(part[0]) for part in loop.split_batch(batch, 2)] == [3, 2]
    assert [len(part[0]) for part in loop.split_batch(batch, 9)] == [1] * 5
    assert loop.split_batch(batch, 1) == [batch]


def test_shares_of_a_batch_are_equally_large() -> None:
    shares = [Group(CPU, rank, 3).share(list(range(7))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, ~0], [2, 5, ~1]]  # the first two fill it up
    assert [Group(CPU, rank, 3).share([8]) for rank in range(3)] == [[8], [~8], [~8]]
    assert Group(CPU).share([1, 2]) == [1, 2]


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as group:
        assert (group.rank, group.world, group.device) == (0, 1, CPU)
        assert group.shared({"AP": 0.5}) == group.mean({"AP": 0.5}) == {"AP": 0.5}


def test_a_batch_that_cannot_be_shared() -> None:
    task = loop.Task("x", Ones([]).batches, Ones.losses, lambda state, row: b"")
    with pytest.raises(ConfigError, match="4 images cannot be shared evenly by 3 processes"):
        loop.run(nn.Identity(), task, TrainConfig(batch=4), Group(CPU, 0, 3))


def test_what_does_not_fit_is_left_as_it_was() -> None:
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    nn.init.zeros_(net["head"].weight)
    state = {"weight": torch.ones(2, 2, dtype=torch.float16), "other": torch.ones(1)}
    found = take(net, state, Path("x.pt"), "mine")
    assert (found.taken, found.unused) == (("body.weight",), ("other",))
    assert net["body"].weight.tolist() == [[1, 1], [1, 1]]
    assert net["body"].weight.dtype == torch.float32
    with pytest.raises(CheckpointError, match="none of its 1 tensors has a name and shape of mine"):
        take(net, {"other": torch.ones(1)}, Path("x.pt"), "mine")


class Ones:
    """A task that counts: a weight that should become what every image is."""

    def __init__(self, images: list[list[float]]) -> None:
        self.images, self.began = images, list[int]()

    def batches(self, epoch: int) -> DataLoader[Any]:
        self.began.append(epoch)
        pairs: Any = [(torch.tensor(rows), torch.tensor(rows)) for rows in self.images]
        return DataLoader(pairs, batch_size=None)

    @staticmethod
    def losses(
        net: nn.Module, batch: loop.Batch, device: torch.device, half: torch.dtype | None
    ) -> dict[str, torch.Tensor]:
        return {"loss": (net(batch[0][:, None]) - batch[1][:, None]).square().mean()}

    def train(self, config: TrainConfig, **scores: list[float]) -> loop.Trained:
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)
        given = [
            dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)
        ]
        task = loop.Task(
            "ones", self.batches, self.losses,
            lambda state, row: repr((state["weight"].item(), row["epoch"])).encode(),
            (lambda net: given.pop(0)) if scores else None, frozenset({"error"}),
        )  # fmt: skip
        return loop.run(net, task, config, Group(CPU))


PLAIN = TrainConfig(epochs=2, lr=0.25, momentum=0, weight_decay=0, warmup_steps=0, ema=0, clip=0,
                    schedule="constant", accumulate=2)  # fmt: skip


def test_two_epochs_by_hand() -> None:
    """The loss is the mean over images: (1 * 2 + 1/4) / 3 for w = 0, then 0.5, then 0.75."""
    task = Ones([[1.0, 1.0], [1.0]])
    trained = task.train(PLAIN)
    assert task.began == [0, 1]
    assert trained.history[0]["loss"] == pytest.approx((2 * 1 + 1 * 0.25) / 3)
    assert trained.history[1]["loss"] == pytest.approx((2 * 0.0625 + 1 * 0.015625) / 3)
    assert trained.best == trained.last == b"(0.9375, 2)"


def test_the_best_epoch_is_that_of_the_named_score() -> None:
    scores = {"AP": [0.3, 0.4, 0.2], "error": [3.0, 1.0, 0.5]}
    for metric, best in (("AP", 2), ("error", 3)):
        config = TrainConfig(epochs=3, metric=metric)
        trained = Ones([[1.0]]).train(config, **scores)
        assert trained.best_epoch == best
        assert [row[metric] for row in trained.history] == scores[metric]
    with pytest.raises(ConfigError, match="no score is called 'mAP'; there are: AP, error"):
        Ones([[1.0]]).train(TrainConfig(metric="mAP"), **scores)
