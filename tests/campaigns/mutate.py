"""Broken files from good ones: bytes are changed at random, or values of JSON replaced."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

TOKENS = [
    b"", b"\0", b"\xff\xfe", b"-1", b"0", b"nan", b"inf", b"1e400", b"9" * 5000, b"1e300",
    b"[" * 3000, b"{" * 3000, b"(" * 3000, b",", b"\n", b"\r", b'"', b"'", b"../../x", b"/dev/zero",
    b"\xed\xa0\x80",
    b"&a", b"*a", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"%n", b"true", b"null", b"2024-13-45",
    b"\x7f" * 300, b"!!python/object/apply:os.system [ls]", b"<", b">", b"1_0",
    "²".encode(), b" " * 9,
]  # fmt: skip
"""What readers stumble over."""

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "a", "\0", "../../x.jpg", "/etc/passwd", "\ud800",
    "x" * 300, [], [[]], {},
    [1, 2],
    {"id": 1}, [0, 0, 0, 0], [1e308] * 4, "1", "1e400", "é" * 200,
]  # fmt: skip
"""Values that stand for others in JSON."""


LARGEST = 2_000_000
"""Bytes of a broken file: no more, however often a change repeats them."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to eight random changes."""
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        data = rng.choice(CHANGES)(data, rng)[:LARGEST]
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * rng.choice([1, 2, 20]) + data[end:]


def _token(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at + rng.choice([0, 1, 4]) :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """A field of four or eight bytes with an extreme value, as sizes and counts in headers are."""
    at, width = rng.randrange(len(data) + 1), rng.choice([2, 4, 8])
    value = rng.choice(
        [0, 1, 0x7F, 2 ** (8 * width - 1) - 1, 2 ** (8 * width) - 1, 60_000 % 256**width]
    )
    return data[:at] + value.to_bytes(width, rng.choice(["little", "big"])) + data[at + width :]  # type: ignore[arg-type]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    _flip, _byte, _cut, _drop, _repeat, _token, _number, _number,
]  # fmt: skip


def regrown(data: bytes, rng: random.Random) -> bytes:
    """A JSON file of the same shape with some values replaced, keys lost or doubled lists."""
    tree = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        tree = _graft(tree, rng)
    return json.dumps(tree).encode()


def _graft(tree: Any, rng: random.Random) -> Any:
    if rng.random() < 0.1 or not isinstance(tree, dict | list) or not tree:
        return rng.choice(VALUES)
    if isinstance(tree, dict):
        key = rng.choice(sorted(tree))
        if rng.random() < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        return {**tree, key: _graft(tree[key], rng)}
    at = rng.randrange(len(tree))
    if rng.random() < 0.1:
        return tree * 2
    return [*tree[:at], _graft(tree[at], rng), *tree[at + 1 :]]
