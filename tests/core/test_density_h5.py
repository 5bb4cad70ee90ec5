from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dmnet.core.errors import InputError
from dmnet.core.formats import density_h5
from dmnet.core.records import DensityMap


def a_map(stride: int = 4) -> DensityMap:
    values = np.random.default_rng(0).random((-(-30 // stride), -(-45 // stride)))
    return DensityMap(values.astype(np.float32), stride, (30, 45))


def stored(tmp_path: Path, data: bytes, name: str = "map.h5") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def foreign(tmp_path: Path, values: Any, key: str = "density", **attrs: Any) -> Path:
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file[key] = values
        file[key].attrs.update(attrs)
    return path


def settings_of(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        return json.loads(file["density"].attrs["settings"])


# own files


@pytest.mark.parametrize("compression", [0, 1, 3, 9])
@pytest.mark.parametrize("stride", [1, 4])
def test_round_trip(stride: int, compression: int, tmp_path: Path) -> None:
    density = a_map(stride)
    data = density_h5.write(density, {"sigma": 15}, compression=compression)
    path = stored(tmp_path, data)
    found = density_h5.read(path)
    np.testing.assert_array_equal(found.values, density.values)
    assert found.values.dtype == np.float32
    assert (found.stride, found.size) == (stride, (30, 45))
    assert settings_of(path) == {"sigma": 15}


def test_the_file_is_what_is_documented(tmp_path: Path) -> None:
    density = a_map()
    path = stored(tmp_path, density_h5.write(density, {"method": "geometry", "klasse": "ä"}))
    with h5py.File(path, "r") as file:
        dataset = file["density"]
        assert dataset.dtype == np.float32
        assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == ("gzip", True, True)
        assert dataset.attrs["stride"] == 4
        assert dataset.attrs["count"] == pytest.approx(density.count)
        assert dataset.attrs["image_size"].tolist() == [30, 45]
    assert settings_of(path) == {"method": "geometry", "klasse": "ä"}


def origin(count: int = 2) -> density_h5.Origin:
    rng = np.random.default_rng(1)
    distances = np.where(rng.random((count, 3)) < 0.3, np.inf, rng.random((count, 3)))
    return density_h5.Origin(rng.integers(0, 30, (count, 2)), distances, rng.random(count))


@pytest.mark.parametrize("count", [0, 1, 70])
def test_what_a_map_was_made_from_round_trips(count: int, tmp_path: Path) -> None:
    made = origin(count)
    path = stored(tmp_path, density_h5.write(a_map(), {"a": 1}, made))
    with h5py.File(path, "r") as file:
        assert sorted(file) == ["density", "distances", "points", "sigmas"]
        assert file["points"].fletcher32 == (count > 0)
        assert file["points"].dtype == np.int64
        for name in ("points", "distances", "sigmas"):
            np.testing.assert_array_equal(file[name][()], getattr(made, name))
    np.testing.assert_array_equal(density_h5.read(path).values, a_map().values)
    assert settings_of(path) == {"a": 1}


def test_an_empty_map_of_one_pixel(tmp_path: Path) -> None:
    density = DensityMap(np.zeros((1, 1), np.float32), 1, (1, 1))
    path = stored(tmp_path, density_h5.write(density))
    assert density_h5.read(path).count == 0
    assert settings_of(path) == {}


def test_the_same_map_gives_the_same_bytes() -> None:
    assert density_h5.write(a_map(), {"a": 1, "b": 2}) == density_h5.write(
        a_map(), {"b": 2, "a": 1}
    )


def test_the_same_origin_gives_the_same_bytes_at_any_time() -> None:
    """HDF5 notes when a dataset was made, to the second, unless it is told not to."""
    points = np.array([[1, 2], [3, 4]])
    origin = density_h5.Origin(points, np.array([[2.5], [2.5]]), np.array([15.0, 15.0]))
    first = density_h5.write(a_map(), {}, origin)
    time.sleep(1.1)
    assert density_h5.write(a_map(), {}, origin) == first


def test_a_sparse_map_is_small() -> None:
    values = np.zeros((765, 1360), np.float32)
    values[100:130, 200:230] = 0.1
    assert len(density_h5.write(DensityMap(values, 1, values.shape))) < 40_000


def test_a_very_large_map_is_stored_in_strips() -> None:
    values = np.zeros((1100, 8000), np.float32)
    data = density_h5.write(DensityMap(values, 1, values.shape))
    with h5py.File(io.BytesIO(data), "r") as file:
        assert file["density"].chunks == (524, 8000)


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(0, 1e6, width=32),
    )
)
def test_every_map_round_trips(values: np.ndarray) -> None:
    density = DensityMap(values, 1, values.shape)
    path = _FOLDER / "map.h5"
    path.write_bytes(density_h5.write(density))
    np.testing.assert_array_equal(density_h5.read(path).values, values)


_FOLDER = Path()


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    global _FOLDER
    _FOLDER = tmp_path_factory.mktemp("maps")


# damage


@pytest.mark.parametrize("compression", [0, 3])
def test_a_flipped_bit_never_gives_another_map(compression: int, tmp_path: Path) -> None:
    density = a_map()
    data = density_h5.write(density, {"a": 1}, compression=compression)
    noticed = 0
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        path = stored(tmp_path, bytes(damaged))
        try:
            found = density_h5.read(path)
        except InputError as error:
            assert str(path) in str(error)
            noticed += 1
            continue
        np.testing.assert_array_equal(found.values, density.values)
        assert (found.stride, found.size) == (density.stride, density.size)
    assert noticed > 100


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path: Path) -> None:
    density = a_map()
    data = bytearray(density_h5.write(density, compression=0))
    place = data.index(density.values.tobytes())
    data[place + 10] ^= 4
    with pytest.raises(InputError, match="damaged or cut-short HDF5"):
        density_h5.read(stored(tmp_path, bytes(data)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_an_error(share: float, tmp_path: Path) -> None:
    data = density_h5.write(a_map(1))
    path = stored(tmp_path, data[: int(len(data) * share)])
    for read in (density_h5.read, lambda p: density_h5.read_foreign(p, (30, 45))):
        with pytest.raises(InputError, match=r"map\.h5: damaged or cut-short HDF5 file"):
            read(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for name in ("no.h5", "no.npy", "no.npz"):
        with pytest.raises(InputError, match=r"cannot be read \(No such file"):
            density_h5.read_foreign(tmp_path / name, (4, 4))
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        density_h5.read(tmp_path / "no.h5")


def test_a_foreign_file_is_no_own_file(tmp_path: Path) -> None:
    path = foreign(tmp_path, np.zeros((4, 4)))
    with pytest.raises(InputError, match="lacks the attributes stride and image_size"):
        density_h5.read(path)


# foreign maps


@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [
        ((30, 45), 1, (30, 45)),
        ((30, 45), 4, (8, 12)),
        ((765, 1360), 8, (96, 170)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_the_stride_is_inferred(
    size: tuple[int, int], stride: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    found = density_h5.read_foreign(foreign(tmp_path, np.ones(shape)), size)
    assert (found.stride, found.size, found.values.shape) == (stride, size, shape)
    assert found.values.dtype == np.float32


def test_a_map_without_its_partial_cells_gets_them_back_empty(tmp_path: Path) -> None:
    found = density_h5.read_foreign(foreign(tmp_path, np.ones((191, 340))), (765, 1360))
    assert found.values.shape == (192, 340)
    assert found.count == 191 * 340
    assert not found.values[-1].any()


def test_a_stated_stride_wins(tmp_path: Path) -> None:
    path = foreign(tmp_path, np.ones((1, 1)), stride=4)
    assert density_h5.read_foreign(path, (3, 3)).stride == 4
    assert density_h5.read_foreign(path, (3, 3), 3).stride == 3


@pytest.mark.parametrize("size", [(31, 45), (30, 44)])
def test_an_own_map_of_another_image_is_an_error(size: tuple[int, int], tmp_path: Path) -> None:
    path = stored(tmp_path, density_h5.write(a_map()))
    assert density_h5.read_foreign(path, (30, 45)).stride == 4
    with pytest.raises(InputError, match="made for a 30x45"):
        density_h5.read_foreign(path, size)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, np.nan], [np.nan, 0]], "2 NaN values, the first at row 0, column 1"),
        ([[0, 0], [np.inf, 0]], "1 infinite values, the first at row 1, column 0"),
        ([[0, 0], [-np.inf, 0]], "1 infinite values"),
        ([[0, -2.5], [0, 0]], r"1 negative values \(least -2\.5\); clamp"),
        ([1, 2, 3], r"2-D \(h, w\), this has shape \(3,\)"),
        ([[[1, 2], [3, 4]]], r"2-D \(h, w\), this has shape \(1, 2, 2\)"),
        ([[1, 2, 3]], r"no stride makes a map of shape \(1, 3\) from a 2x2"),
        ([[1j, 0], [0, 0]], "complex128 values, expected real numbers"),
    ],
)
@pytest.mark.parametrize("kind", ["h5", "npy", "npz"])
def test_values_that_are_no_map(values: Any, message: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"foreign.{kind}"
    if kind == "h5":
        foreign(tmp_path, values)
    elif kind == "npy":
        np.save(path, values)
    else:
        np.savez(path, density=values)
    with pytest.raises(InputError, match=rf"foreign\.{kind}: .*{message}"):
        density_h5.read_foreign(path, (2, 2))


def test_a_wrong_stride_is_an_error(tmp_path: Path) -> None:
    path = foreign(tmp_path, np.ones((8, 12)))
    with pytest.raises(
        InputError, match=r"at stride 8 of a 30x45 .* shape \(4, 6\), got \(8, 12\)"
    ):
        density_h5.read_foreign(path, (30, 45), 8)
    path = foreign(tmp_path, np.ones((8, 12)), stride=-4)
    with pytest.raises(InputError, match="stride must be at least 1"):
        density_h5.read_foreign(path, (30, 45))
    path = foreign(tmp_path, np.ones((8, 12)), stride="four")
    with pytest.raises(InputError, match="unreadable attribute stride"):
        density_h5.read_foreign(path, (30, 45))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset 'density' \(there: dens\)"):
        density_h5.read_foreign(foreign(tmp_path, np.ones((2, 2)), key="dens"), (2, 2))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("density")
    with pytest.raises(InputError, match="no dataset 'density'"):
        density_h5.read_foreign(tmp_path / "group.h5", (2, 2))
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(InputError, match=r"no array 'density' \(there: a, b\)"):
        density_h5.read_foreign(tmp_path / "two.npz", (2, 2))


def test_numpy_maps(tmp_path: Path) -> None:
    values = np.arange(4).reshape(2, 2)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "named.npz", other=values[:1], density=values)
    np.savez(tmp_path / "single.npz", anything=values)
    for name in ("a.npy", "named.npz", "single.npz"):
        found = density_h5.read_foreign(tmp_path / name, (2, 2))
        np.testing.assert_array_equal(found.values, values)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds object values"):
        density_h5.read_foreign(tmp_path / "a.npy", (2, 2))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_numpy_files_are_errors(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        (np.save if name == "a.npy" else np.savez)(file, np.ones((20, 20)))
    data = path.read_bytes()
    for cut in (0, 5, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"not a readable numpy file|cut short"):
            density_h5.read_foreign(path, (20, 20))


def test_another_file_type_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"expected one of \.h5, \.hdf5, \.npy, \.npz"):
        density_h5.read_foreign(path, (2, 2))
