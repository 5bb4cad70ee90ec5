"""The processes that train one network together: torchrun starts them, gloo or NCCL joins them.

Each takes its share of every batch and the gradients are averaged, so that the number of processes
does not change what a batch is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dmnet.core.training.device import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among all: its device, its number ``rank`` of ``world``."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def share(self, batch: list[T]) -> list[T]:
        """Every ``world``-th row of a batch, as many for each process: the first ones fill it up.

        >>> Group(torch.device("cpu"), 1, 2).share(["a", "b", "c"])
        ['b', 'a']
        """
        if self.world == 1:
            return batch
        count = -(-len(batch) // self.world)
        return [batch[(self.rank + i * self.world) % len(batch)] for i in range(count)]

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
        """The network whose batch norms see the whole batch, where that is possible (GPUs)."""
        if self.device.type == "cuda" and self.world > 1:
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
            return converted
        return net

    def averaging(self, net: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes."""
        return DistributedDataParallel(net) if self.world > 1 else net


@contextmanager
def process_group(device: str) -> Iterator[Group]:
    """Join the group that torchrun describes in the environment, if there is one.

    Args:
        device: torch device, or ``auto``; with several GPUs each process takes that of its number.
    """
    picked = _local_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(picked)
        return
    distributed.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    try:
        yield Group(picked, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


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
