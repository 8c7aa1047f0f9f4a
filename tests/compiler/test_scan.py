"""Scan kernels against numpy: rows, columns and chunks, both ways, every type."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.scan import _CHUNK, _LINES
from flambeau.ops.scan import running_sum
from tests.engine.programs import threads

SHAPES = [
    ((5,), 0), ((3, 5), 1), ((4, 16), 1), ((16, 16), 1), ((17, 33), 1), ((40, 100), 1),
    ((3, 5), 0), ((2, 37, 3), 1), ((2, 9, 40), 1), ((2, 5, 70), 1), ((2100, 64), 0),
    ((1, 0), 1), ((0, 4), 1), ((_CHUNK * 4 + 7,), 0), ((_CHUNK * _LINES + 5,), 0),
    ((3, _CHUNK * 8 - 1), 1), ((_CHUNK * 5 + 1, 3), 0), ((2, _CHUNK * 2, 17), 1),
    ((_LINES + 3, _CHUNK * 2), 1),
]  # fmt: skip
KINDS = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]


def values(shape: tuple[int, ...], kind: str) -> np.ndarray:
    array = np.random.default_rng(6).integers(-3, 4, shape)
    return (array > 0) if kind == "bool" else array.astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_cumsum(shape, dim, kind):
    array = values(shape, kind)
    result = torch.cumsum(torch.from_numpy(array), dim).numpy()
    floating = kind.startswith("float")
    exact = np.cumsum(array.astype(np.float64 if floating else np.int64), dim)
    np.testing.assert_array_equal(result, exact.astype(result.dtype))


@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_from_the_end(shape, dim):
    array = values(shape, "float32")
    result = running_sum(torch.from_numpy(array), dim, True).numpy()
    exact = np.flip(np.cumsum(np.flip(array, dim), dim), dim)
    np.testing.assert_array_equal(result, exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_cummax_and_where(shape, dim, kind):
    array = values(shape, kind)
    if kind.startswith("float") and array.size > 20:
        array.reshape(-1)[-1:-20:-9] = np.nan
    found, places = (t.numpy() for t in torch.cummax(torch.from_numpy(array), dim))
    np.testing.assert_array_equal(found, np.maximum.accumulate(array, dim))
    np.testing.assert_array_equal(np.take_along_axis(array, places, dim), found)
    # The last of equal elements is named.
    later = np.arange(array.shape[dim]).reshape([-1 if d == dim else 1 for d in range(array.ndim)])
    same = (array == found) | (np.isnan(array) & np.isnan(found))
    expected = np.maximum.accumulate(np.where(same, later, -1), dim)
    np.testing.assert_array_equal(places, expected)


@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
def test_cummin_and_cumprod(shape, dim):
    array = values(shape, "int64")
    tensor = torch.from_numpy(array)
    np.testing.assert_array_equal(torch.cummin(tensor, dim)[0], np.minimum.accumulate(array, dim))
    np.testing.assert_array_equal(torch.cumprod(tensor, dim), np.cumprod(array, dim))


def test_threads_agree():
    rng = np.random.default_rng(7)
    array = torch.from_numpy(rng.standard_normal(_CHUNK * _LINES * 3).astype(np.float32))
    wide = torch.from_numpy(rng.standard_normal((5000, 7)))
    results = []
    for count in (1, 3):
        with threads(count):
            results.append([t.cumsum(0).numpy().copy() for t in (array, wide)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_long_sums_stay_accurate():
    array = np.random.default_rng(8).standard_normal(200_000).astype(np.float32)
    found = torch.from_numpy(array).cumsum(0).numpy()
    exact = np.cumsum(array.astype(np.float64))
    assert np.abs(found - exact).max() <= 1e-6 * np.abs(exact).max()
