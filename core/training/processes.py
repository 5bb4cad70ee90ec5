"""The processes that train one network together: torchrun starts them, gloo or NCCL joins them.

Each takes its share of every batch and the gradients are averaged, so that the number of processes
does not change what a batch is.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dmnet.core.training.device import pick_device
from dmnet.core.training.norms import share_norms

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among all: its device, its number ``rank`` of ``world``."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def share(self, batch: list[int]) -> list[int]:
        """Every ``world``-th row of a batch, as many for each process: the first ones fill it up.

        A row that only fills up is written as ``~row``.

        >>> Group(torch.device("cpu"), 1, 2).share([5, 6, 7])  # ~5 is -6
        [6, -6]
        """
        mine = range(self.rank, -(-len(batch) // self.world) * self.world, self.world)
        return [batch[i] if i < len(batch) else ~batch[i % len(batch)] for i in mine]

    def shared(self, value: T) -> T:
        """The value of process 0, in every process."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes of every value."""
        if self.world == 1:
            return dict(values)
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return dict(zip(values, (tensor / self.world).tolist(), strict=True))

    def with_shared_norms(self, net: nn.Module) -> nn.Module:
        """The network whose batch norms see the whole batch; on GPUs torch's own do."""
        if self.world == 1:
            return net
        if self.device.type != "cuda":
            return share_norms(net)
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return converted

    def averaging(self, net: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes."""
        return DistributedDataParallel(net) if self.world > 1 else net


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """Join the group that torchrun describes in the environment, if there is one.

    A process joins once and stays until it ends: gloo finds no second group at the same address.

    Args:
        device: torch device, or ``auto``; with several GPUs each process takes that of its number.
    """
    picked = _local_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(picked)
        return
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if picked.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
    yield Group(picked, distributed.get_rank(), distributed.get_world_size())


def _local_device(device: str) -> torch.device:
    picked = torch.device(pick_device(device))
    if picked.type == "cuda" and "LOCAL_RANK" in os.environ:
        picked = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(picked)
    return picked


def no_sync(net: nn.Module) -> AbstractContextManager[Any]:
    """Gradients stay in the process meanwhile: all but the last part of a batch."""
    return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()


def shared_count(count: Tensor) -> Tensor:
    """What a loss summed over a batch is divided by: ``count``, at least 1.

    Under DDP, which averages the processes, the mean of all their counts: the average of the
    quotients is then the quotient of one process with the whole batch.
    """
    total, world = count.detach().clone(), 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        world = distributed.get_world_size()
    return total.clamp(min=1) / world


def shared_part(count: Tensor) -> Tensor:
    """What a mean over ``count`` rows of this process is multiplied by.

    The average over the processes, which DDP makes, is then the mean over the rows of all; alone
    it is 1.
    """
    return count.clamp(min=1) / shared_count(count)


def shared_size(height: int, width: int) -> tuple[int, int]:
    """The largest height and width that any process asks for: a batch has one size in all."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return height, width
    sides = torch.tensor([height, width])  # on the CPU: gloo is always there
    distributed.all_reduce(sides, distributed.ReduceOp.MAX)
    height, width = sides.tolist()
    return height, width
