"""Rasters by blocks: the same objects as in one look, each once, at the right place on the map."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest

from dmnet.core import limits
from dmnet.core.errors import InputError
from dmnet.core.records import Detections
from dmnet.pipeline.predict import raster
from dmnet.pipeline.predict.settings import RasterConfig
from tests.pipeline.conftest import tree
from tests.pipeline.predict.conftest import Finder, Predict, draw

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

SIZE = (700, 900)
EAST, NORTH, METRE = 500_000.0, 4_600_000.0, 0.25
OBJECTS = [
    (20, 20, 40, 50, 1),
    (215, 100, 245, 130, 1),  # across the seam of two blocks
    (410, 205, 440, 240, 4),  # across a corner
    (600, 600, 630, 640, 1),
    (860, 660, 900, 700, 4),  # in the last corner
]
BLOCKS = ["--raster.block", "256", "--raster.overlap", "64"]


def write_raster(
    path: Path, values: np.ndarray, *, crs: str | None = "EPSG:32631", nodata: float | None = None
) -> Path:
    """Bands ``(n, h, w)`` as a GeoTIFF with quarter-metre pixels."""
    how = {"crs": crs, "transform": rasterio.Affine(METRE, 0, EAST, 0, -METRE, NORTH)}
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], nodata=nodata,
        count=len(values), dtype=values.dtype, tiled=True, blockxsize=256, blockysize=256,
        **(how if crs else {"transform": rasterio.Affine(2, 0, 0, 0, 2, 0)}),
    ) as target:  # fmt: skip
        target.write(values)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "town.tif", draw(SIZE, OBJECTS).transpose(2, 0, 1))


def polygons(path: Path) -> np.ndarray:
    """Bounding boxes of the features ``(N, 4)``, sorted."""
    data = json.loads(path.read_text())
    rings = [np.array(f["geometry"]["coordinates"][0]) for f in data["features"]]
    return np.array(sorted([*ring.min(axis=0), *ring.max(axis=0)] for ring in rings))


def on_the_map() -> np.ndarray:
    return np.array(
        sorted(
            [EAST + x1 * METRE, NORTH - y2 * METRE, EAST + x2 * METRE, NORTH - y1 * METRE]
            for x1, y1, x2, y2, _ in OBJECTS
        )
    )


def test_coordinates_are_right_to_a_pixel(
    predict: Predict, scene: Path, tmp_path: Path, finder: Finder
) -> None:
    assert predict(scene, *BLOCKS) == 0
    assert max(max(size) for size in finder.seen) <= 256
    geo = tmp_path / "out/geo"
    native = polygons(geo / "town.native.geojson")
    assert native == pytest.approx(on_the_map(), abs=METRE)
    world = polygons(geo / "town.geojson")
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32631", world[:, 0], world[:, 1])
    assert np.sort(x) == pytest.approx(np.sort(native[:, 0]), abs=2 * METRE)
    assert np.sort(y) == pytest.approx(np.sort(native[:, 1]), abs=2 * METRE)
    first = json.loads((geo / "town.geojson").read_text())["features"][0]
    assert first["properties"] == {"class": "pedestrian", "score": 0.9}
    ring = np.array(first["geometry"]["coordinates"][0])
    area = (ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum()
    assert area > 0  # counter-clockwise


def test_geopackage(predict: Predict, scene: Path, tmp_path: Path) -> None:
    predict(scene, *BLOCKS)
    path = tmp_path / "out/geo/town.gpkg"
    assert path.read_bytes()[68:72] == b"GPKG"
    base = sqlite3.connect(path)
    tables = base.execute("SELECT table_name, srs_id FROM gpkg_contents ORDER BY 1").fetchall()
    assert tables == [("detections", 32631), ("detections_wgs84", 4326)]
    assert base.execute("PRAGMA foreign_key_check").fetchall() == []
    rows = base.execute("SELECT geom, class FROM detections").fetchall()
    base.close()
    assert sorted(name for _, name in rows) == ["car", "car", *["pedestrian"] * 3]
    boxes = []
    for blob, _ in rows:
        assert blob[:3] == b"GP\0"
        low_x, high_x, low_y, high_y = struct.unpack("<4d", blob[8:40])
        assert len(blob) == 40 + 13 + 5 * 16
        boxes.append([low_x, low_y, high_x, high_y])
    assert np.array(sorted(boxes)) == pytest.approx(on_the_map(), abs=METRE)


def test_counts_do_not_count_overlaps_twice(predict: Predict, scene: Path, tmp_path: Path) -> None:
    predict(scene, *BLOCKS)
    row = (tmp_path / "out/counts.csv").read_text().splitlines()[1].split(",")
    assert row[-2] == "5"
    assert float(row[-1]) == pytest.approx(5, abs=1.5)  # seams cut the true objects' mass


def test_stopped_and_started_again(
    predict: Predict,
    scene: Path,
    tmp_path: Path,
    finder: Finder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predict(scene, *BLOCKS, out="whole")
    total = len(finder.seen)
    usual = Finder.predict

    def stopping(self: Finder, images: list) -> list:
        if len(self.seen) > total + 12:
            raise KeyboardInterrupt
        return usual(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(Finder, "predict", stopping)
        assert predict(scene, *BLOCKS, out="torn") == 130
    done = [name for name in tree(tmp_path / "torn") if name.startswith("found/")]
    assert 0 < len(done) < 20
    finder.seen.clear()
    assert predict(scene, *BLOCKS, out="torn") == 0
    assert 0 < len(finder.seen) < total
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")
    finder.seen.clear()
    assert predict(scene, *BLOCKS, "--confidence", ".7", out="torn") == 0
    assert finder.seen == []
    assert len(polygons(tmp_path / "torn/geo/town.geojson")) == 3


def test_sixteen_bits_five_bands_and_nodata(
    predict: Predict,
    tmp_path: Path,
    finder: Finder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = draw(SIZE, OBJECTS).astype(np.uint16).transpose(2, 0, 1)
    bands = np.zeros((5, *SIZE), np.uint16)
    bands[[3, 2, 1]] = picture * 40 + 1000
    bands[:, :300] = 0
    path = write_raster(tmp_path / "deep.tif", bands, nodata=0)
    assert predict(path, *BLOCKS, "--bands", "4,3,2") == 0
    told = capsys.readouterr().err
    assert "deep.tif: values stretched to 0..255, band 4:" in told
    assert len(polygons(tmp_path / "out/geo/deep.geojson")) == 2  # the others lie in nodata
    assert predict(path, "--bands", "7,3,2", out="other") == 1
    assert "has 5 bands, bands (7, 3, 2) were asked for" in capsys.readouterr().err


def test_jpeg_2000(predict: Predict, tmp_path: Path) -> None:
    with rasterio.Env() as environment:
        if "JP2OpenJPEG" not in environment.drivers():
            pytest.skip("this GDAL has no JPEG 2000")
    path = tmp_path / "town.jp2"
    values = draw(SIZE, OBJECTS).transpose(2, 0, 1)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=SIZE[0], width=SIZE[1], count=3, dtype="uint8",
        crs="EPSG:32631", transform=rasterio.Affine(METRE, 0, EAST, 0, -METRE, NORTH),
        QUALITY="100", REVERSIBLE="YES",
    ) as target:  # fmt: skip
        target.write(values)
    assert predict(path, *BLOCKS) == 0
    native = polygons(tmp_path / "out/geo/town.native.geojson")
    assert native == pytest.approx(on_the_map(), abs=METRE)


def test_a_grey_picture_of_sixteen_bits(predict: Predict, tmp_path: Path) -> None:
    values = np.full((1, 120, 160), 3000, np.uint16)
    values[0, 40:60, 40:60] = 9000
    path = write_raster(tmp_path / "grey.tif", values, crs=None)
    assert raster.is_raster(path)
    opened = raster.open_raster(path, RasterConfig())
    image, valid = opened.read((0, 0, 160, 120))
    assert valid
    assert (image[0, 0].tolist(), image[50, 50].tolist()) == ([0, 0, 0], [255, 255, 255])
    assert predict(path) == 0
    assert not (tmp_path / "out/geo").exists()


def test_plain_pictures_stay_pictures(tmp_path: Path) -> None:
    values = draw((50, 60), []).transpose(2, 0, 1)
    assert not raster.is_raster(write_raster(tmp_path / "plain.tif", values, crs=None))
    (tmp_path / "bad.tif").write_bytes(b"II*\0 no tiff")
    assert not raster.is_raster(tmp_path / "bad.tif")
    with pytest.raises(InputError, match="damaged or unreadable raster"):
        raster.open_raster(tmp_path / "bad.tif", RasterConfig())


def test_blocks_and_cores_by_hand() -> None:
    config = RasterConfig(block=100, overlap=20)
    windows = raster.blocks((100, 250), config)
    assert windows == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert raster.cores(windows) == [(0, 0, 90, 100), (90, 0, 165, 100), (165, 0, 250, 100)]


def test_an_object_at_a_seam_is_found_once() -> None:
    windows = [(0, 0, 100, 100), (80, 0, 180, 100)]

    def at(*boxes: list[float]) -> Detections:
        return Detections(np.array(boxes), np.full(len(boxes), 0.5), np.ones(len(boxes), np.int64))

    parts = [
        (windows[0], at([84, 10, 94, 20], [84, 50, 97, 60], [5, 5, 9, 9])),
        (windows[1], at([5, 10, 15, 20], [6, 50, 17, 60], [40, 40, 50, 50])),
    ]
    found = raster.joined(parts, overlap=20)
    assert len(found) == 4
    assert sorted(found.boxes[:, 0].tolist()) in ([5, 84, 84, 120], [5, 84, 86, 120])


def test_settings() -> None:
    with pytest.raises(ValueError, match="overlap must be below half of block"):
        RasterConfig(block=100, overlap=50)
    with pytest.raises(ValueError, match="bands must be one or three"):
        RasterConfig(bands=(1, 2))


def test_what_gdal_says_and_rasterio_lets_pass(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the campaign fuzz: damaged GeoTIFF keys."""
    from rasterio._err import CPLE_AppDefinedError

    def fails(*_: object, **__: object) -> None:
        raise CPLE_AppDefinedError(1, 1, "Key 256 of unknown type.")

    monkeypatch.setattr(rasterio, "open", fails)
    with pytest.raises(InputError, match=r"town\.tif: damaged or unreadable raster .*Key 256"):
        raster.open_raster(scene, RasterConfig())
    assert not raster.is_raster(scene)


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("RASTER_PIXELS", 629_999, "declares 900x700 pixels, more than the limit of 629,999"),
        ("RASTER_BANDS", 2, "declares 3 bands, more than the limit of 2"),
        ("RASTER_BLOCK_BYTES", 3 * 256 * 256 - 1, "its blocks of 196,608 bytes .* in tiles"),
    ],
)
def test_what_a_raster_declares_has_limits(
    limit: str, value: int, reason: str, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert raster.open_raster(scene, RasterConfig()).size == SIZE
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(InputError, match=rf"town\.tif: {reason}"):
        raster.open_raster(scene, RasterConfig())


def test_a_raster_that_declares_too_much_is_set_aside_and_the_others_go_on(
    predict: Predict, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is decoded: the file is some kilobytes and would be 120 GB."""
    huge = tmp_path / "huge.tif"
    how = {"crs": "EPSG:32631", "transform": rasterio.Affine(2, 0, 0, 0, -2, 9)}
    with rasterio.open(
        huge, "w", driver="GTiff", width=200_001, height=200_001, count=3, dtype="uint8",
        tiled=True, sparse_ok=True, BIGTIFF="YES", **how,
    ):  # fmt: skip
        pass
    assert predict(huge, scene, *BLOCKS, "--max-bad", "1") == 0
    assert "declares 200001x200001 pixels" in capsys.readouterr().err
    assert "found/town.json" in tree(tmp_path / "out")


ELSEWHERE = """<VRTDataset rasterXSize="900" rasterYSize="700">
<VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


def test_files_beside_a_raster_lead_nowhere(scene: Path, tmp_path: Path) -> None:
    """GDAL takes what lies beside a file for its mask, also where that reads another one."""
    (tmp_path / "elsewhere").mkdir()
    blank = write_raster(tmp_path / "elsewhere" / "blank.tif", np.zeros((1, *SIZE), np.uint8))
    (tmp_path / "town.tif.msk").write_text(ELSEWHERE.format(blank))
    assert raster.open_raster(scene, RasterConfig()).read((0, 0, 900, 700))[1]


def test_overviews_in_other_files_are_refused(scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene, "r+") as target:
        target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "other.tif"))
    with pytest.raises(InputError, match=r"town\.tif: names its overviews in another file"):
        raster.open_raster(scene, RasterConfig())


def tag_bomb(order: str, big: bool, tags: int = 50) -> bytes:
    """A TIFF whose tags all name the same 10,000 bytes."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + ("HHQ" if big else "L"), *((8, 0, 16) if big else (8,)))
    kind = order + ("HHQQ" if big else "HHLL")
    listed = b"".join(struct.pack(kind, 40_000 + i, 7, 10_000, 0) for i in range(tags))
    return head + struct.pack(order + ("Q" if big else "H"), tags) + listed + bytes(10_008)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_tags_that_name_the_same_bytes_again_and_again(
    order: str, big: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tag_bomb(order, big))
    with pytest.raises(InputError, match=r"a\.tif: its tags say that they hold more than"):
        raster.open_raster(path, RasterConfig())
    path.write_bytes(tag_bomb(order, big, tags=1))
    with pytest.raises(InputError, match=r"damaged or unreadable raster"):
        raster.open_raster(path, RasterConfig())
