"""One good file of every kind that is read, and how it is read."""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image as Pil

from dmnet.core import config
from dmnet.core.classes import VISDRONE
from dmnet.core.finished import Record
from dmnet.core.formats import (
    coco,
    coco_results,
    crops,
    density_h5,
    dota,
    labelme,
    parts,
    visdrone,
    voc,
    yolo,
)
from dmnet.core.images import encode_jpeg, read_image
from dmnet.core.journal import begin_line, header_text, read_header, read_journal
from dmnet.core.presets import read_yaml
from dmnet.core.records import Annotations, DensityMap, Detections
from dmnet.core.sizes import read_sizes
from dmnet.density.kernels import KernelBank
from tests import written
from tests.campaigns import grammar

SIZE = (24, 40)


@dataclass(frozen=True)
class Seed:
    """A kind of file: its name, good contents, and its reader."""

    name: str
    make: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    json: bool = False
    """The contents are JSON: values are replaced too, not bytes alone."""
    grow: Callable[[random.Random], bytes] | None = None
    """A file from the rules of the format; half of the tries are such files."""


def _annotations() -> Annotations:
    return Annotations.of("a", SIZE, [[1, 2, 9, 8], [0, 0, 40, 24]], [4, 0])


def _detections() -> Detections:
    return Detections(np.array([[1.0, 2, 9, 8]]), np.array([0.5]), np.array([4]))


def _truth() -> list[bytes]:
    names = {"a": "a.jpg"}
    data = written.ground_truth([_annotations()], names, ignored=True)
    return [json.dumps(data).encode()]


def _crops() -> list[bytes]:
    found = written.crop_set({"a.jpg": SIZE}, [("a.jpg", (0, 0, 20, 20), "a_0.jpg")])
    return [written.crops_text(found).encode()]


def _map() -> DensityMap:
    return DensityMap(np.full((6, 10), 0.01, np.float32), 4, SIZE)


def _h5() -> list[bytes]:
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        data = np.full((6, 10), 0.01, np.float32)
        file.create_dataset(
            "density", data=data, chunks=(3, 5), compression="gzip", fletcher32=True
        )
        file.attrs["stride"] = 4
    return [density_h5.write(_map(), {}), packed.getvalue()]


def _numpy(save: Callable[..., None], **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def _npy() -> list[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, _map().values)
    return [buffer.getvalue()]


def _npz() -> list[bytes]:
    values = _map().values
    other = np.ones(3)
    return [_numpy(np.savez, density=values), _numpy(np.savez_compressed, density=values, b=other)]


def _pictures(*kinds: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        found = []
        for kind in kinds:
            for shown in (Pil.fromarray(image), Pil.fromarray(image[..., 0])):
                buffer = io.BytesIO()
                shown.save(buffer, kind)
                found.append(buffer.getvalue())
        return [*found, encode_jpeg(image)] if "JPEG" in kinds else found

    return make


def _journal() -> list[bytes]:
    stamp = [3, 5, "abc"]
    record = Record("a", "key", {"a.h5": stamp}, {"image": ["a.jpg", *stamp]}, {"count": 1.0})
    sealed = (record.line() + begin_line("a") + record.line()).encode()
    old = json.dumps({"id": "a", "key": "k", "files": {"a.h5": stamp}, "inputs": {}})
    return [sealed, (old + "\n" + json.dumps({"begin": True, "id": "a"}) + "\n").encode()]


def _in_folder(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read a file as the one of its name in a folder."""

    def reader(path: Path) -> Any:
        return read(path.replace(path.with_name(name)).parent)

    return reader


def _header() -> list[bytes]:
    header = {
        "stage": "crop",
        "version": 1,
        "config": {},
        "facts": {},
        "outputs": {"a": [1, 2, "c"]},
    }
    return [json.dumps(header).encode(), header_text({**header, "journal": ""}).encode()]


def _yaml() -> list[bytes]:
    return [
        b"crop:\n  threshold: 0.1\n  window: [70, 70]\n  slicer: density\n",
        b"fuse-eval: {merge: {iou: .7, method: nms}, protocols: [coco@500, visdrone]}\n",
    ]


def _settings(path: Path) -> None:
    from dmnet.pipeline.context import Context

    Context(settings=read_yaml(path)).check_settings()


def _onnx_settings() -> list[bytes]:
    text = (Path(__file__).parents[2] / "configs" / "onnx" / "yolox-nano-coco.yaml").read_bytes()
    return [text, b"layout: cxcywh\nstrides: [8]\nclass_map: [0=1, 2=4]\ninput_size: [64, 64]\n"]


def _read_onnx_settings(path: Path) -> None:
    from dmnet.detectors.onnx import OnnxDecoding, class_table, network_input, place

    how = config.build(OnnxDecoding, read_yaml(path), "onnx")
    class_table(how, VISDRONE)
    where = place(SIZE, how)
    if where.canvas[0] * where.canvas[1] < 10**6:
        network_input(np.zeros((*SIZE, 3), np.uint8), where, how)


def _weights() -> list[bytes]:
    from dmnet.core.training.weights import to_bytes
    from dmnet.density.networks import build, save_network
    from dmnet.density.scale import Scaling

    network = build("mcnn")
    plain = io.BytesIO()
    import torch

    torch.save(network.state_dict(), plain, _use_new_zipfile_serialization=False)
    ours = save_network(network, "mcnn", 0, Scaling(), {})
    return [ours, to_bytes(network.state_dict()), plain.getvalue()]


def _read_weights(path: Path) -> None:
    from dmnet.density.networks import load_network

    load_network(path)


def constant_onnx(
    *shapes: tuple[int, ...], meta: dict[str, Any], kind: str = "FLOAT", image: Sequence[Any] = ()
) -> bytes:
    """A network that answers every image with zeros; its input is of ``kind``."""
    import onnx

    make = onnx.helper
    floats = onnx.TensorProto.FLOAT
    weights = [
        make.make_tensor(f"w{i}", floats, shape, np.zeros(shape[:64], np.float32).ravel())
        for i, shape in enumerate(shapes)
    ]
    nodes = [make.make_node("Identity", [f"w{i}"], [f"out{i}"]) for i in range(len(shapes))]
    outputs = [make.make_tensor_value_info(f"out{i}", floats, s) for i, s in enumerate(shapes)]
    kinds = getattr(onnx.TensorProto, kind)
    taken = make.make_tensor_value_info("images", kinds, list(image) or [1, 3, 32, 32])
    graph = make.make_graph(nodes, "constant", [taken], outputs, weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    make.set_model_props(model, {"dmnet": json.dumps(meta)})
    data: bytes = model.SerializeToString()
    return data


def _density_onnx() -> list[bytes]:
    meta = {"kind": "density", "stride": 4, "multiple": 4, "reach": 8}
    return [constant_onnx((1, 1, 8, 8), meta=meta)]


def _read_density_onnx(path: Path) -> None:
    from dmnet.density.load import load_density

    load_density(path).predict(np.zeros((32, 32, 3), np.uint8), max_pixels=1 << 16)


def _detector_onnx() -> list[bytes]:
    how = {"layout": "cxcywh", "class_map": ["0=1", "1=4"], "input_size": [32, 32]}
    return [constant_onnx((1, 5, 7), meta={"kind": "detector", "decoding": how})]


def _read_detector_onnx(path: Path) -> None:
    from dmnet.detectors.onnx import OnnxDetector

    OnnxDetector(path, device="cpu").predict([np.zeros((*SIZE, 3), np.uint8)])


def _found() -> list[bytes]:
    from dmnet.pipeline.predict.found import Found

    return [Found(SIZE, _detections(), ((0, 0, 20, 20),), 1.5).write("abc")]


def _read_found(path: Path) -> None:
    from dmnet.pipeline.predict.found import read_found

    read_found(path, "abc")


def _frames() -> list[bytes]:
    from dmnet.pipeline.predict.found import Found, write_frames

    return [write_frames([Found(SIZE, _detections()), None])]


def _read_frames(path: Path) -> None:
    from dmnet.pipeline.predict.found import read_frames

    read_frames(path)


def _raster() -> list[bytes]:
    import rasterio

    files = []
    for kind, how in (("uint8", {}), ("uint16", {"compress": "deflate", "tiled": True})):
        values = np.random.default_rng(0).integers(0, 200, (3, 32, 48)).astype(kind)
        shape = {"count": 3, "height": 32, "width": 48, "dtype": kind, "crs": "EPSG:32631"}
        blocks = {"blockxsize": 16, "blockysize": 16} if how else {}
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", **shape, **how, **blocks,
                             transform=rasterio.Affine(2, 0, 9, 0, -2, 9)) as file:  # fmt: skip
                file.write(values)
            files.append(memory.read())
    return files


def _read_raster(path: Path) -> None:
    from dmnet.pipeline.predict.raster import is_raster, open_raster
    from dmnet.pipeline.predict.settings import RasterConfig

    is_raster(path)
    found = open_raster(path, RasterConfig())
    found.read((0, 0, min(64, found.size[1]), min(64, found.size[0])), 2)


def _video() -> list[bytes]:
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.avi")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, SIZE[::-1])
        for level in range(4):
            writer.write(np.full((*SIZE, 3), 60 * level, np.uint8))
        writer.release()
        return [path.read_bytes()]


def _read_video(path: Path) -> None:
    from dmnet.pipeline.predict.video import frames, open_video

    found = open_video(path)
    list(frames(found, [range(min(8, found.frames))]))


SEEDS = {
    seed.name: seed
    for seed in (
        Seed("visdrone.txt", lambda: [visdrone.write_annotations(_annotations()).encode()],
             lambda path: visdrone.read_annotations(path, "a", SIZE)),
        Seed("results.txt", lambda: [visdrone.write_results(_detections()).encode()],
             visdrone.result_rows),
        Seed("yolo.txt", lambda: [yolo.write(_annotations()).encode()],
             lambda path: yolo.read(path, "a", SIZE)),
        Seed("voc.xml", lambda: [voc.write(_annotations(), "a.jpg").encode()], voc.read),
        Seed("dota.txt", lambda: [dota.write(_annotations()).encode()],
             lambda path: dota.read(path, "a", SIZE, VISDRONE)),
        Seed("labelme.json", lambda: [labelme.write(_annotations(), "a.jpg").encode()],
             lambda path: labelme.read(path, "a", SIZE, VISDRONE), True),
        Seed("coco.json", _truth, coco.read_ground_truth, True),
        Seed("results.json",
             lambda: [coco_results.write_results([(1, _detections())]).encode()],
             coco_results.read_results, True),
        Seed("parts.json", lambda: [parts.write([_detections()])], parts.read, True),
        Seed("windows.json", lambda: [parts.write_windows([((0, 0, 9, 9), _detections())])],
             parts.read_windows, True),
        Seed("crops.json", _crops, crops.read, True),
        Seed("sizes.csv", lambda: [b"split,image,width,height\nval,a,40,24\nval,b,40,24\n"],
             lambda path: read_sizes(path, "val")),
        Seed("map.h5", _h5, lambda path: density_h5.read_foreign(path, SIZE)),
        Seed("map.npy", _npy, lambda path: density_h5.read_foreign(path, SIZE)),
        Seed("map.npz", _npz, lambda path: density_h5.read_foreign(path, SIZE)),
        Seed("kernels.h5", lambda: [KernelBank.build([0, 0.5, 1]).to_bytes()], KernelBank.load),
        Seed("picture.jpg", _pictures("JPEG"), read_image),
        Seed("picture.png", _pictures("PNG", "BMP"), read_image),
        Seed("picture.tif", _pictures("TIFF", "WEBP"), read_image, grow=grammar.tiff),
        Seed("items.jsonl", _journal, _in_folder("items.jsonl", read_journal)),
        Seed("stage.json", _header, _in_folder("stage.json", read_header), True),
        Seed("settings.yaml", _yaml, _settings, grow=grammar.settings),
        Seed("onnx.yaml", _onnx_settings, _read_onnx_settings, grow=grammar.onnx_settings),
        Seed("weights.pt", _weights, _read_weights),
        Seed("density.onnx", _density_onnx, _read_density_onnx),
        Seed("detector.onnx", _detector_onnx, _read_detector_onnx),
        Seed("found.json", _found, _read_found, True),
        Seed("frames.json", _frames, _read_frames, True),
        Seed("raster.tif", _raster, _read_raster, grow=grammar.tiff),
        Seed("video.avi", _video, _read_video, grow=grammar.avi),
    )
}  # fmt: skip
"""Every kind by name; the name ends as the file's does."""
