"""Files grown from the rules of their format: well-formed outside, anything inside.

A mutated file is mostly refused at its outside. Here the outside is right, so that what a reader
does with odd values, and with parts in odd combinations, is reached more often.
"""

from __future__ import annotations

import dataclasses
import io
import json
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tests.campaigns.mutate import VALUES

NUMBERS = [0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 40, 64, 255, 256, 1000, 32_767, 65_535, 2**31 - 1,
           2**31, 2**32 - 1]  # fmt: skip
"""Sizes, counts and offsets."""


# --- YAML ----------------------------------------------------------------------------------------


def settings(rng: random.Random) -> bytes:
    """A file of settings: real sections and names, with any values, aliases and tags."""
    from dmnet.pipeline.context import STAGES, stage_module

    lines = []
    for stage in rng.sample(list(STAGES), rng.randint(1, 3)):
        config = stage_module(stage).Config()
        lines.append(f"{stage.replace('-', rng.choice('-_'))}: {_flow(_tree(config), rng, 0)}")
    return "\n".join(lines).encode(errors="surrogatepass")


def onnx_settings(rng: random.Random) -> bytes:
    """A description of an ONNX detector, with any values."""
    from dmnet.detectors.onnx import OnnxDecoding

    names = [field.name for field in dataclasses.fields(OnnxDecoding)]
    chosen = rng.sample(names, rng.randint(1, 4))
    lines = [f"{name}: {_flow(None, rng, 0)}" for name in chosen]
    return "\n".join([*lines, "class_map: [0=1]"]).encode(errors="surrogatepass")


def _tree(config: Any) -> dict[str, Any]:
    """Names and defaults, groups as mappings."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {n: _tree(v) if dataclasses.is_dataclass(v) else v for n, v in values.items()}


def _flow(value: Any, rng: random.Random, depth: int) -> str:
    """A value in YAML's flow style: as it is, or another."""
    if isinstance(value, Mapping) and value and rng.random() < 0.8:
        names = rng.sample(sorted(value), rng.randint(1, min(4, len(value))))
        return "{" + ", ".join(f"{n}: {_flow(value[n], rng, depth + 1)}" for n in names) + "}"
    odd = rng.random()
    if odd < 0.3 and depth:
        return _plain(value)
    if odd < 0.4 and depth < 4:
        return "[" + ", ".join(_flow(None, rng, depth + 1) for _ in range(rng.randint(0, 4))) + "]"
    if odd < 0.5:
        return rng.choice(["&a 1", "*a", "!!int '3'", "!!python/name:os.system", "!!binary aGk=",
                           "2024-01-02", "0x1F", "0o17", "1_000", "12:30", ".nan", "-.inf", "~",
                           "<<", "? a", "yes", "'", '"\\uD800"', "|", "9" * 400])  # fmt: skip
    return _plain(rng.choice([*VALUES, *NUMBERS, -1, 0.5, 1e-300]))


def _plain(value: Any) -> str:
    return json.dumps(value, default=str)


# --- TIFF ----------------------------------------------------------------------------------------

TAGS: dict[int, Sequence[int]] = {
    256: (48,), 257: (32,), 258: (8, 8, 8), 259: (1,), 262: (2,), 277: (3,), 278: (32,),
    284: (1,), 339: (1, 1, 1), 322: (16,), 323: (16,), 338: (0,), 317: (1,), 266: (1,),
}  # fmt: skip
"""Tags by number and ordinary values: sides, bits, compression, colours, strips, tiles ..."""

CODES = {259: (1, 2, 3, 4, 5, 6, 7, 8, 32_773, 34_925, 50_000, 50_001), 262: range(10),
         339: range(7), 258: (1, 2, 4, 8, 12, 16, 24, 32, 64), 284: (0, 1, 2)}  # fmt: skip
"""Other values that mean something."""


def tiff(rng: random.Random) -> bytes:
    """A TIFF of one picture whose directory says anything, with keys of a GeoTIFF."""
    order = rng.choice("<>")
    data = bytes(rng.randrange(256) for _ in range(64)) * rng.choice([1, 72, 200])
    entries = {tag: (3, list(values)) for tag, values in TAGS.items() if rng.random() < 0.85}
    if rng.random() < 0.7:
        entries.pop(322, None), entries.pop(323, None)
    for tag in rng.sample(sorted(entries), min(len(entries), rng.choice([0, 1, 1, 2]))):
        kind, values = entries[tag]
        new = rng.choice([*CODES.get(tag, NUMBERS), *NUMBERS]) % 2**16
        entries[tag] = (kind, [new] * rng.choice([len(values), len(values), 1, 5]))
    start = 8
    for tag, value in ((273, start), (279, len(data)), (324, start), (325, len(data))):
        odd = rng.random() < 0.1
        entries[tag] = (4, [rng.choice(NUMBERS) if odd else value] * rng.choice([1, 1, 1, 6, 40]))
    return _tiff(order, data, entries, _geo(rng))


def _geo(rng: random.Random) -> dict[int, tuple[int, list[Any]]]:
    if rng.random() < 0.4:
        return {}
    doubles = [0.0, 1.0, 2.0, -2.0, 1e308, float("nan"), float("inf"), 5e-324]
    keys = [1, 1, 0, 1, 3072, 0, 1, rng.choice([32_631, 4326, 0, 32_767, 65_535])]
    keys[rng.randrange(len(keys))] = rng.choice(NUMBERS) % 2**16
    return {
        33_550: (12, [rng.choice(doubles) for _ in range(rng.choice([2, 3, 3]))]),
        33_922: (12, [rng.choice(doubles) for _ in range(rng.choice([5, 6, 6, 12]))]),
        34_735: (3, keys),
        42_113: (2, list(rng.choice([b"0\0", b"nan\0", b"1e400\0", b"x\0"]))),
    }


def _tiff(
    order: str, data: bytes, entries: dict[int, tuple[int, list[Any]]],
    more: dict[int, tuple[int, list[Any]]],
) -> bytes:  # fmt: skip
    every = {**entries, **more}
    place = 8 + len(data)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, place)
    rows, after = io.BytesIO(), io.BytesIO()
    beyond = place + 2 + 12 * len(every) + 4
    for tag in sorted(every):
        kind, values = every[tag]
        packed = struct.pack(
            f"{order}{len(values)}{ {2: 'B', 3: 'H', 4: 'I', 12: 'd'}[kind] }", *values
        )
        if len(packed) > 4:
            where = struct.pack(order + "I", beyond + after.tell())
            after.write(packed)
        else:
            where = packed.ljust(4, b"\0")
        rows.write(struct.pack(order + "HHI", tag, kind, len(values)) + where)
    count = struct.pack(order + "H", len(every))
    return head + data + count + rows.getvalue() + bytes(4) + after.getvalue()


# --- AVI -----------------------------------------------------------------------------------------


def avi(rng: random.Random) -> bytes:
    """A video of a few JPEG (or raw) frames whose headers say anything."""
    from PIL import Image

    packed = io.BytesIO()
    Image.new("RGB", (40, 24), (9, 99, 199)).save(packed, "JPEG")
    frame, count = packed.getvalue(), rng.randint(0, 5)

    def odd(value: int) -> int:
        return rng.choice(NUMBERS) if rng.random() < 0.12 else value

    code = rng.choice([b"MJPG", b"MJPG", b"MJPG", b"DIB ", b"XVID", b"H264", b"\0\0\0\0"])
    main = struct.pack("<14I", odd(200_000), 0, 0, odd(16), odd(count), 0, odd(1), 0, odd(40),
                       odd(24), 0, 0, 0, 0)  # fmt: skip
    stream = b"vids" + code + struct.pack(
        "<IHHIIIIIIIIHHHH", 0, 0, 0, 0, odd(1), odd(5), 0, odd(count), 0, 0, 0, 0, 0, 40, 24
    )  # fmt: skip
    shape = struct.pack("<IiiHH", 40, odd(40) % 2**31, odd(24) % 2**31, 1, odd(24) % 2**16)
    shape += code + struct.pack("<IiiII", odd(2880), 0, 0, 0, 0)
    stream_list = _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", shape))
    frames = [_chunk(rng.choice([b"00dc", b"00dc", b"00db", b"01wb"]), frame) for _ in range(count)]
    index, at = b"", 4
    for each in frames:
        index += b"00dc" + struct.pack("<III", 16, odd(at), odd(len(each) - 8))
        at += len(each)
    body = _list(b"hdrl", _chunk(b"avih", main) + stream_list * rng.choice([1, 1, 1, 0, 3]))
    body += _list(b"movi", b"".join(frames)) + (
        _chunk(b"idx1", index) if rng.random() < 0.8 else b""
    )
    return b"RIFF" + struct.pack("<I", odd(len(body) + 4)) + b"AVI " + body


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
