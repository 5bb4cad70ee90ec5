"""Hostile and broken files: bounded, never executed, never followed elsewhere, one named error."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image as Pil

from dmnet.core import limits, links
from dmnet.core.classes import VISDRONE
from dmnet.core.dataset import open_dataset
from dmnet.core.errors import InputError
from dmnet.core.files import remove_temporary, write_atomic
from dmnet.core.formats import (
    coco,
    coco_results,
    crops,
    density_h5,
    dota,
    labelme,
    npy,
    parts,
    visdrone,
    voc,
)
from dmnet.core.formats.rows import read_rows
from dmnet.core.images import read_image, read_size
from dmnet.core.presets import read_preset, read_yaml
from dmnet.core.reading import read_bytes, read_json, read_text
from dmnet.core.sizes import read_sizes

SIZE = (32, 64)


def refused(reason: str) -> pytest.RaisesExc[InputError]:
    return pytest.raises(InputError, match=reason)


# --- regular files -------------------------------------------------------------------------------


def test_pipes_and_devices_never_block(tmp_path: Path) -> None:
    pipe = tmp_path / "a.jpg"
    os.mkfifo(pipe)
    for read in (read_bytes, read_text, read_json, read_image, read_size, voc.read, read_yaml):
        with refused("not a regular file"):
            read(pipe)
        with refused("not a regular file"):
            read(Path("/dev/zero"))
    with refused("cannot be read"):
        read_bytes(tmp_path / "a\0b")


def test_sizes_are_looked_at_first(tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    with big.open("wb") as file:
        file.truncate(limits.TEXT_BYTES + 1)
    with refused("64,000,001 bytes are more than the limit of 64,000,000"):
        read_text(big)
    with refused("more than the limit of 1,000,000"):
        read_yaml(big)


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    """Files of holes, which take no room: nothing of them may be read."""
    for name, limit, read in (
        ("a.json", limits.JSON_BYTES, read_json),
        ("a.png", limits.FILE_BYTES, read_size),
        ("a.h5", limits.FILE_BYTES, density_h5.read),
    ):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(limit + 1)
        with refused(f"{limit + 1:,} bytes are more than the limit of {limit:,}"):
            read(path)


def test_parts_are_counted_before_they_are_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": [1, 2, 3]}, {}]')
    assert read_json(path) == [{"a": [1, 2, 3]}, {}]
    monkeypatch.setattr(limits, "JSON_PARTS", 3)
    with refused("4 lists and objects, 3 values: more than is read; split it"):
        read_json(path)
    monkeypatch.setattr(limits, "JSON_PARTS", 4)
    monkeypatch.setattr(limits, "JSON_VALUES", 2)
    with refused("more than is read"):
        read_json(path)
    monkeypatch.setattr(limits, "XML_TAGS", 4)
    for text in ("<annotation><a/><b></b></annotation>", f"<annotation {'a=1 ' * 5}/>"):
        path.write_text(text)
        with refused("more than 4 tags or attributes"):
            voc.read(path, size=(9, 9))


# --- pictures ------------------------------------------------------------------------------------


def test_only_known_kinds_of_pictures_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with refused("not an image, whatever its name says"):
        read_image(path)
    gif = io.BytesIO()
    Pil.new("P", (4, 4)).save(gif, "GIF")
    path.write_bytes(gif.getvalue())
    with refused("known here: JPEG, PNG, BMP, TIFF, WEBP"):
        read_size(path)


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_declared_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(60_000, 60_000))
    for read in (read_image, read_size):
        with refused("60000x60000 is more than the limit of 150,000,000 pixels"):
            read(path)
    assert read_size(path, max_pixels=4 * 10**9) == (60_000, 60_000)  # above Pillow's own limit


# --- maps ----------------------------------------------------------------------------------------


def test_archives_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (60_000, 60_000)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("density.npy", header.getvalue() + bytes(10_000_000))
    with refused("declares 60000x60000 values, more than the limit"):
        npy.read(path, "density")


def test_archives_that_are_damaged_encrypted_or_strange(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, density=np.ones((4, 4), np.float32))
    good = path.read_bytes()
    head = good.index(b"PK\x01\x02")  # the directory's entry: flags at 8, method at 10
    local = good.index(b"PK\x03\x04")
    for at, here, value, reason in (
        (8, 6, 1, "is encrypted"),
        (10, 8, 99, r"packed in an unusual way \(method 99\)"),
    ):
        data = bytearray(good)
        data[head + at : head + at + 2] = data[local + here : local + here + 2] = struct.pack(
            "<H", value
        )
        path.write_bytes(data)
        with refused(reason):
            npy.read(path, "density")
    path.write_bytes(good[:80] + bytes(8) + good[88:])
    with refused("not a readable numpy file of numbers"):
        npy.read(path, "density")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "holds object values"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (", "not a readable numpy file"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9), }", "cut short: 0 of 324"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-9, 9), }", "a side of -9"),
        ("(" * 5000, "not a readable numpy file"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (%s, 2), }" % ("9" * 5000), "not a re"),
    ],
)
def test_numpy_headers(tmp_path: Path, header: str, reason: str) -> None:
    path = tmp_path / "a.npy"
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    with refused(reason):
        npy.read(path, "density")


def test_numpy_files_are_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, array in (("a", values), ("f", np.asfortranarray(values)), ("e", values[:0])):
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(npy.read(tmp_path / f"{name}.npy", "density"), array)
        np.savez_compressed(tmp_path / f"{name}.npz", other=np.ones(1), density=array)
        assert np.array_equal(npy.read(tmp_path / f"{name}.npz", "density"), array)


def test_hdf5_never_leaves_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8 * 16 * 4))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("density", (8, 16), "f4", external=[(str(secret), 0, 512)])
    with refused("keeps its values in other files, which are not read"):
        density_h5.read_foreign(path, SIZE)
    with h5py.File(path, "w") as file:
        file["density"] = h5py.ExternalLink("other.h5", "density")
    with refused("is a link to elsewhere"):
        density_h5.read_foreign(path, SIZE)
    with h5py.File(path, "w") as file:
        file["here"] = np.zeros((8, 16), np.float32)
        file["density"] = h5py.SoftLink("/here")
    with refused("is a link to elsewhere"):
        density_h5.read_foreign(path, SIZE)
    layout = h5py.VirtualLayout((8, 16), "f4")
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("density", layout)
    with refused("keeps its values in other files"):
        density_h5.read_foreign(path, SIZE)


def test_hdf5_declares_too_much_or_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("density", (60_000, 60_000), "f4", chunks=(64, 64))
    with refused("declares 60000x60000 values"):
        density_h5.read_foreign(path, SIZE)
    with h5py.File(path, "w") as file:
        file["density"] = np.array([b"a"], dtype=h5py.string_dtype())
    with refused("expected real numbers"):
        density_h5.read_foreign(path, SIZE)


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "aliases"),
        ("a: &a [*a]\n", "aliases"),
        ("[" * 100 + "]" * 100, "nested more than 32 levels"),
        ("crop: {threshold: .nan}", "not a finite number"),
        ("crop: {threshold: " + "1" * 5000 + "}", "not a YAML file of settings"),
        ("crop: {threshold: 0x" + "f" * 5000 + "}", "a whole number of more than 15 digits"),
        ("crop: {window: [" + ":".join(["59"] * 3000) + ", 1]}", "more than 15 digits"),
        ("crop: !!python/object/apply:os.system [ls]", "not a YAML file of settings"),
        ("crop: !!int x", "not a YAML file of settings"),
        ("crop: !!bool x", "not a YAML file of settings"),
        ("? [a]\n: 1\n", "not a YAML file of settings"),
    ],
)
def test_yaml(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with refused(reason):
        read_yaml(path)


def test_yaml_dates_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 2024-13-45\nb: 2024-01-02\n")
    assert read_yaml(path) == {"a": "2024-13-45", "b": "2024-01-02"}


HUGE = "9" * 5000


def ground_truth(**image: object) -> dict[str, object]:
    row = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9, **image}
    return {"images": [row], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    "text",
    [
        HUGE,
        json.dumps(ground_truth()).replace('"width": 9', f'"width": {HUGE}'),
        json.dumps(ground_truth()).replace('"width": 9', '"width": 1e400'),
        json.dumps(ground_truth()).replace('"width": 9', f'"width": {10**30}'),
        "[" * 100_000,
        '{"a":' * 100_000,
        "[1, 2",
        "\xff\xfe",
    ],
)
def test_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    for read in (coco.read_ground_truth, coco_results.read_results, crops.read, parts.read):
        with refused(r"a\.json"):
            read(path)


def test_long_names_of_digits_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "1" * 40, "b": 12, "c": 0.12345678901234567, "d": [-1]}))
    assert read_json(path) == {"a": "1" * 40, "b": 12, "c": 0.12345678901234567, "d": [-1]}


def test_numbers_in_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for number in (HUGE, "1e400", "nan", "1e300"):
        path.write_text(f"1,2,3,4,{number},4,0,0\n")
        with refused("score|not a number"):
            visdrone.read_annotations(path, "a", SIZE)
    path.write_text("1,2,3,4,1,4,0,0\n" * (limits.OBJECTS + 1))
    with refused("more than 100,000 rows"):
        visdrone.read_annotations(path, "a", SIZE)


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for value in (HUGE, "²", "x" * 200_000):
        path.write_text(f"split,image,width,height\nval,a,{value},9\n")
        with refused(r"a\.csv:2: (width|not a table)"):
            read_sizes(path, "val")


def test_numbers_in_xml(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for side in (HUGE, "²", "0"):
        path.write_text(
            f"<annotation><size><width>{side}</width><height>9</height></size></annotation>"
        )
        with refused("not a whole number above 0"):
            voc.read(path)
    thing = (
        "<name>car</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
    )
    path.write_text(
        "<annotation><size><width>9</width><height>9</height></size>"
        f"<object truncation='1e300'>{thing}</object></annotation>"
    )
    with refused("truncation '1e300' is not a whole number"):
        voc.read(path)


def test_flags_of_labelme_are_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    shape = {"label": "car", "points": [[0, 0], [3, 3]], "flags": 0.5}
    path.write_text(json.dumps({"shapes": [shape]}))
    with refused(r"shapes\[0\]: 'flags' is not a mapping"):
        labelme.read(path, "a", SIZE, VISDRONE)


def many_files() -> dict[str, str]:
    """Files with three objects of one image, in every format that has a file of its own."""
    sides = "<xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"
    thing = f"<name>car</name><bndbox>{sides}</bndbox>"
    shape = {"label": "car", "points": [[0, 0], [3, 3]]}
    image = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3]}
    truth = {"images": [image], "annotations": [row] * 3, "categories": [{"id": 1, "name": "car"}]}
    return {
        "voc.xml": "<annotation><size><width>9</width><height>9</height></size>"
        f"{f'<object>{thing}</object>' * 3}</annotation>",
        "labelme.json": json.dumps({"shapes": [shape] * 3}),
        "dota.txt": "0 0 3 0 3 3 0 3 car 0\n" * 3,
        "visdrone.txt": "0,0,3,3,1,4,0,0\n" * 3,
        "coco.json": json.dumps(truth),
        "results.json": json.dumps([row | {"score": 0.5}] * 3),
        "parts.json": json.dumps([[[0, 0, 3, 3, 0.5, 4]] * 3]),
    }


READERS: dict[str, Callable[[Path], object]] = {
    "voc.xml": voc.read,
    "labelme.json": lambda path: labelme.read(path, "a", SIZE, VISDRONE),
    "dota.txt": lambda path: dota.read(path, "a", SIZE, VISDRONE),
    "visdrone.txt": lambda path: visdrone.read_annotations(path, "a", SIZE),
    "coco.json": coco.read,
    "results.json": coco_results.read_results,
    "parts.json": parts.read,
}


@pytest.mark.parametrize("name", READERS)
def test_objects_of_one_image_have_a_limit(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text(many_files()[name])
    READERS[name](path)
    monkeypatch.setattr(limits, "OBJECTS", 2)
    with refused("more than 2"):
        READERS[name](path)


def test_presets_that_include_each_other_over_and_over_are_read_once(tmp_path: Path) -> None:
    """Thirty files, each including the next one twice: two to the thirtieth ways."""
    for index in range(30):
        text = f"include: [p{index + 1}, p{index + 1}]\n" if index < 29 else ""
        (tmp_path / f"p{index}.yaml").write_text(f"{text}crop: {{threshold: 0.{index + 1}}}\n")
    assert read_preset(tmp_path / "p0.yaml") == {"crop": {"threshold": 0.1}}
    (tmp_path / "p29.yaml").write_text("include: [p0]\n")
    with refused("includes itself"):
        read_preset(tmp_path / "p0.yaml")


def test_chains_of_presets_have_an_end(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"p{index}.yaml").write_text(f"include: [p{index + 1}]\n")
    with refused("included through more than 32 files"):
        read_preset(tmp_path / "p0.yaml")


@pytest.mark.parametrize(
    ("field", "value"),
    [("detections", [[0, 0, 3, 3, 0.5, 1e300]]), ("count", "many"), ("size", [9]), ("windows", 3)],
)
def test_records_of_predictions(tmp_path: Path, field: str, value: object) -> None:
    from dmnet.pipeline.predict.found import read_found

    good = {"made_from": "x", "size": [9, 9], "count": 1.5, "windows": [[0, 0, 3, 3]],
            "detections": [[0, 0, 3, 3, 0.5, 4]]}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(good))
    found = read_found(path, "x")
    assert found is not None and found.detections.labels.tolist() == [4]
    assert read_found(path, "y") is None
    path.write_text(json.dumps(good | {field: value}))
    with refused("not a file of detections"):
        read_found(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../x.jpg", "climbs out"),
        ("/etc/x.jpg", "is an absolute path"),
        ("a\0.jpg", "holds control characters"),
        ("a\n.jpg", "holds control characters"),
        ("\ud800.jpg", "is not UTF-8"),
        ("x" * 300 + ".jpg", "is longer than 255 bytes"),
    ],
)
def test_names_in_crop_files(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / "crops.json"
    parent = {"id": 1, "file_name": name, "width": 9, "height": 9}
    path.write_text(json.dumps({"parents": [parent], "images": []}))
    with refused(reason) as error:
        crops.read(path)
    assert str(error.value).isprintable()


# --- data sets -----------------------------------------------------------------------------------


def test_one_bad_name_never_stops_the_others(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = png(4, 4)
    (images / "good.png").write_bytes(picture)
    (images / "bell\x07.png").write_bytes(picture)
    (images / "loop.png").symlink_to("loop.png")
    os.mkfifo(images / "pipe.png")
    os.close(os.open(bytes(images) + b"/bad\xff.png", os.O_CREAT))
    found = open_dataset(tmp_path, "val")
    assert [entry.image_id for entry in found.entries] == ["good"]
    problems = "\n".join(found.problems)
    assert "bell\\x07.png: its name holds control characters; it is left out" in problems
    assert "loop.png" in problems and "pipe.png: its name is no regular file's" in problems
    assert "bad\\udcff.png: its name is not UTF-8" in problems


# --- writing -------------------------------------------------------------------------------------


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in (".a.h5.123.tmp", ".b.jpg.9.tmp", "c.tmp", ".d.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".e.jpg.77.tmp").write_bytes(b"")
    remove_temporary(tmp_path)
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left == [".d.tmp", "c.tmp"]


def test_writing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        write_atomic(Path("/dev/full/x.txt"), [b"a"])
    assert error.value.filename
    with refused("its name is too long here"):
        write_atomic(tmp_path / ("é" * 200), [b"a"])
    write_atomic(tmp_path / ("é" * 127), [b"a"])
    assert [len(p.name) for p in tmp_path.iterdir()] == [127]


def test_rows_are_counted_before_they_are_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n" * 300_000 + b"1")
    with refused("a.txt:100001: more than 100,000 rows"):
        read_rows(path, 1, "number")
    path.write_bytes(b"1" + b"\n" * 300_000)
    assert read_rows(path, 1, "number")[0].tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "car\n"),
        ("data.yaml", "names: [car]\nval: .\n"),
        ("val.json", '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}]}'),
    ],
)
def test_files_about_a_data_set_are_not_read_elsewhere(
    tmp_path: Path, name: str, text: str
) -> None:
    data, other = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    other.write_text(text)
    if name == "classes.txt":
        size = "<size><width>9</width><height>9</height></size>"
        (data / "a.xml").write_text(f"<annotation>{size}</annotation>")
    (data / name).symlink_to(other)
    with refused(rf"{name}: leads out of the data set; --follow-links"):
        open_dataset(data, "val")
    token = links.ALLOWED.set(True)
    try:
        assert open_dataset(data, "val").classes.names == ("car",)
    finally:
        links.ALLOWED.reset(token)


@pytest.mark.parametrize("form", ["voc", "yolo", "a folder of lists"])
def test_lists_of_images_are_not_read_elsewhere(tmp_path: Path, form: str) -> None:
    """What they hold would turn up in messages about images that are not there."""
    data, other = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    other.mkdir()
    (other / "val.txt").write_text("a secret\n")
    (data / "classes.txt").write_text("car\n")
    if form == "yolo":
        (data / "data.yaml").write_text("names: [car]\nval: val.txt\n")
        (data / "val.txt").symlink_to(other / "val.txt")
    else:
        (data / "Annotations").mkdir()
        size = "<size><width>9</width><height>9</height></size>"
        (data / "Annotations" / "a.xml").write_text(f"<annotation>{size}</annotation>")
        (data / "ImageSets").mkdir()
        if form == "voc":
            (data / "ImageSets" / "Main").mkdir()
            (data / "ImageSets" / "Main" / "val.txt").symlink_to(other / "val.txt")
        else:
            (data / "ImageSets" / "Main").symlink_to(other)
    with refused(r"val\.txt: leads out of the data set; --follow-links") as caught:
        open_dataset(data, "val")
    assert "secret" not in str(caught.value)
