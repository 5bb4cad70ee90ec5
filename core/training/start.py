"""Starting weights for a training from any file of weights that fits, in whole or in part."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dmnet.core.errors import CheckpointError

LEAST = 0.1
"""Share of a file's tensors that has to fit; a bias or two fit by chance."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a network took from a file: names of the network's tensors, and of the file's."""

    taken: tuple[str, ...]
    """of the network, now as in the file"""
    new: tuple[str, ...]
    """of the network, left as they were: the file has none of this name and shape"""
    unused: tuple[str, ...]
    """of the file"""


def prefix_of(own: Iterable[str], names: Iterable[str]) -> str:
    """What has to precede the names for most of them to be among ``own``; of equals the shortest.

    >>> prefix_of(["body.stem.weight", "head.bias"], ["stem.weight", "fc.bias"])
    'body.'
    """
    mine, found = set(own), {""}
    for name in names:
        found |= {key.removesuffix(name) for key in mine if key.endswith(f".{name}")}
    wanted = list(names)
    return min(found, key=lambda p: (-sum(p + name in mine for name in wanted), len(p), p))


def take(net: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> Start:
    """Put every tensor whose name and shape fit into a network.

    Names of a backbone alone are found in the network where most of them fit; half precision is
    widened. What was taken is logged.

    Args:
        net: the network, changed in place.
        state: tensors by name.
        path: the file they are from, and `name` of the network, for messages.
        name: of the network.

    Raises:
        CheckpointError: none fits, or so few that it is another network's file.
    """
    own = net.state_dict()
    prefix = prefix_of(own, state)
    fits = {k for k, v in state.items() if prefix + k in own and own[prefix + k].shape == v.shape}
    if not fits or len(fits) < LEAST * len(state):
        raise CheckpointError(
            path,
            f"{len(fits) or 'none'} of its {len(state)} tensors has a name and shape of {name} "
            f"(its first is '{next(iter(state))}'); give weights of a network of this family",
        )
    net.load_state_dict({prefix + key: state[key] for key in fits}, strict=False)
    taken = {prefix + key for key in fits}
    found = Start(
        tuple(key for key in own if key in taken),
        tuple(key for key in own if key not in taken),
        tuple(key for key in state if key not in fits),
    )
    _say(path, found)
    return found


def _say(path: Path, found: Start) -> None:
    new = [name for name in found.new if not name.endswith("num_batches_tracked")]
    _log.info(
        "%s: %d tensors taken, %d of the network start anew%s, %d of the file unused",
        path.name,
        len(found.taken),
        len(new),
        f" ({', '.join(new[:4])}{' ...' if len(new) > 4 else ''})" if new else "",
        len(found.unused),
    )
