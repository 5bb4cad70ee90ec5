from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from dmnet.core import hdf5
from dmnet.core.errors import ConfigError, InputError
from dmnet.density.kernels import KernelBank, default_sigmas


@pytest.fixture(scope="module")
def bank() -> KernelBank:
    return KernelBank.build()


def by_definition(sigma: float) -> np.ndarray:
    radius = math.ceil(4 * sigma)
    impulse = np.zeros((2 * radius + 1, 2 * radius + 1))
    impulse[radius, radius] = 1
    kernel = gaussian_filter(impulse, sigma, mode="constant")
    return kernel / kernel.sum()


def test_a_kernel_without_width_is_one_pixel() -> None:
    np.testing.assert_array_equal(KernelBank.build([0])[0.0], [[1.0]])


@pytest.mark.parametrize("sigma", [0.025, 0.1, 0.375, 1.0, 2.05, 7.4, 15.0, 20.0])
def test_kernels_follow_the_definition(bank: KernelBank, sigma: float) -> None:
    expected = by_definition(sigma)
    assert bank[sigma].dtype == np.float64
    assert bank[sigma].shape == expected.shape
    np.testing.assert_allclose(bank[sigma], expected, rtol=1e-13, atol=1e-300)
    assert bank[sigma].sum() == pytest.approx(1.0, abs=1e-14)


def test_the_default_bank_has_the_801_published_sigmas(bank: KernelBank) -> None:
    assert list(bank) == default_sigmas().tolist()
    assert len(bank) == 801
    assert bank.largest == 20.0
    assert [list(bank)[i] for i in (0, 1, 2, 800)] == [0.0, 0.025, 0.05, 20.0]


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(0.0, 0.0), (0.012, 0.0), (0.013, 0.025), (0.0125, 0.025), (15.01, 15.0), (20.0, 20.0)],
)
def test_nearest_takes_the_larger_on_a_tie(bank: KernelBank, sigma: float, expected: float) -> None:
    assert bank.nearest(sigma) == expected


@given(st.floats(0, 20))
def test_nearest_is_nearest(sigma: float) -> None:
    keys = default_sigmas()
    found = _BANK.nearest(sigma)
    assert abs(found - sigma) <= np.abs(keys - sigma).min() + 1e-12


_BANK = KernelBank.build()


def test_an_exact_tie_of_binary_fractions() -> None:
    bank = KernelBank.build([1, 2, 4])
    assert bank.nearest(1.5) == 2
    assert bank.nearest(3.0) == 4
    assert bank.nearest(0.0) == 1


@pytest.mark.parametrize(("sigma", "expected"), [(20.01, 20.0), (20.013, 20.025), (46.0, 46.0)])
def test_a_sigma_above_the_bank_extends_it(bank: KernelBank, sigma: float, expected: float) -> None:
    found = bank.nearest(sigma)
    assert found == expected
    np.testing.assert_allclose(bank[found], by_definition(expected), rtol=1e-12, atol=1e-300)


def test_extending_does_not_change_later_answers(bank: KernelBank) -> None:
    bank[bank.nearest(46.0)]
    assert bank.nearest(30.0) == 30.0
    assert bank.nearest(19.99) == 20.0
    assert len(bank) == 801


def test_a_sigma_above_the_bank_can_be_an_error() -> None:
    bank = KernelBank.build([0, 1])
    with pytest.raises(ConfigError, match=r"sigma 1\.500 px is above .*sigma\.above"):
        bank.nearest(1.5, above="error")


@pytest.mark.parametrize("sigma", [float("nan"), float("inf"), -1.0])
def test_impossible_sigmas_are_errors(bank: KernelBank, sigma: float) -> None:
    with pytest.raises(ConfigError, match="finite and >= 0"):
        bank.nearest(sigma)
    with pytest.raises(ConfigError, match="finite and >= 0"):
        KernelBank.build([sigma])


def test_an_empty_bank_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        KernelBank.build([])


def test_a_stored_bank_is_the_same(bank: KernelBank, tmp_path: Path) -> None:
    path = tmp_path / "bank.h5"
    bank.save(path)
    loaded = KernelBank.load(path)
    assert list(loaded) == list(bank)
    for sigma in (0.0, 0.025, 3.3, 20.0):
        np.testing.assert_array_equal(loaded.profile(sigma), bank.profile(sigma))
    assert path.read_bytes() == KernelBank.build().to_bytes()
    assert path.stat().st_size < 500_000
    assert [p.name for p in tmp_path.iterdir()] == ["bank.h5"]


def test_the_default_bank_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KernelBank.build().save(tmp_path / "usual.h5")
    KernelBank.build([1.0]).save(tmp_path / "other.h5")
    monkeypatch.setattr(hdf5, "read", None)
    assert len(KernelBank.load(tmp_path / "usual.h5")) == 801
    with pytest.raises(InputError, match="not a readable kernel bank"):
        KernelBank.load(tmp_path / "other.h5")


def test_pooled_profiles_sum_the_cells_they_cover(bank: KernelBank) -> None:
    for phase in range(4):
        cells = np.zeros(4 * 40)
        factor = bank.profile(15.0)
        cells[phase : phase + len(factor)] = factor
        expected = cells.reshape(-1, 4).sum(axis=1)[: len(bank.pooled(15.0, phase, 4))]
        np.testing.assert_allclose(bank.pooled(15.0, phase, 4), expected, rtol=1e-12)
        assert bank.pooled(15.0, phase, 4) is bank.pooled(15.0, phase, 4)
        assert bank.pooled(15.0, phase, 4).sum() == pytest.approx(1)


def test_a_damaged_bank_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bank.h5"
    with pytest.raises(InputError, match="cannot be read"):
        KernelBank.load(path)
    data = KernelBank.build([0, 1, 2]).to_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a readable kernel bank"):
        KernelBank.load(path)


def test_a_bank_of_other_lengths_is_an_error(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "bank.h5"
    KernelBank.build([0, 1, 2]).save(path)
    with h5py.File(path, "r+") as file:
        file["length"][0] = 3
    with pytest.raises(InputError, match="do not fit"):
        KernelBank.load(path)
