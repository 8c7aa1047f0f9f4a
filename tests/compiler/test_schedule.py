"""Generated loops: reductions over every kind of layout, their accuracy, and pointwise tails."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.schedule_columns import COLUMN_BLOCK
from flambeau.compiler.schedule_rows import ROW_CHUNK
from tests.engine.programs import threads

SHAPES = [
    (1,), (3,), (16,), (17,), (64,), (65,), (1000,), (0,), (1, 1), (1, 7), (7, 1), (5, 33), (33, 5),
    (4, COLUMN_BLOCK), (3, COLUMN_BLOCK + 1), (300, 6), (0, 4), (4, 0), (2, 3, 4), (3, 1, 5),
    (4, 5, 65), (2, 0, 3), (2, 3, 4, 5), (1, 1, 1, 1), (3, 1, 2, 1), (2, 300, 3),
]  # fmt: skip
LONG = [
    (ROW_CHUNK * 2,), (ROW_CHUNK * 3 + 5,), (3, ROW_CHUNK * 2 + 1), (5000, 3),
    (ROW_CHUNK + 100, 2), (2, 4100, 5), (40, 2100), (2100, 40), (7, 3000, 2),
]  # fmt: skip


def dims_of(ndim: int) -> list[tuple[int, ...]]:
    sizes = range(1, ndim + 1)
    return [d for n in sizes for d in itertools.combinations(range(ndim), n)]


def layouts_of(array: np.ndarray) -> list[np.ndarray]:
    """The same values as differently laid out arrays."""
    result = [array]
    if array.ndim > 1:
        result.append(np.ascontiguousarray(array.swapaxes(0, -1)).swapaxes(0, -1))
    wide = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    wide[tuple(slice(None, None, 2) for _ in array.shape)] = array
    result.append(wide[tuple(slice(None, None, 2) for _ in array.shape)])
    return result


def check(array: np.ndarray, dims: tuple[int, ...]) -> None:
    exact = array.astype(np.float64)
    bound = np.abs(exact).sum(dims) * 5e-7 + 1e-30
    for laid_out in layouts_of(array):
        x = torch.from_numpy(laid_out)
        total = x.sum(dims).numpy()
        assert (np.abs(total - exact.sum(dims)) <= bound).all(), (array.shape, dims)
        kept = x.sum(dims, keepdim=True)
        assert kept.shape == exact.sum(dims, keepdims=True).shape
        np.testing.assert_array_equal(kept.numpy().reshape(total.shape), total)
        if all(array.shape[d] for d in dims):
            np.testing.assert_array_equal(x.amax(dims).numpy(), array.max(dims))
            np.testing.assert_array_equal(x.amin(dims).numpy(), array.min(dims))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reductions(shape):
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for dims in dims_of(len(shape)):
        check(array, dims)


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_long_reductions(shape):
    array = np.random.default_rng(2).uniform(0, 1, shape).astype(np.float32)
    for dims in dims_of(len(shape)):
        check(array, dims)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool", "float64", "float16"])
def test_reductions_of_other_types(kind):
    array = np.random.default_rng(3).integers(0, 2 if kind == "bool" else 9, (37, 70)).astype(kind)
    for dims, laid_out in itertools.product([(0,), (1,), (0, 1)], layouts_of(array)):
        x = torch.from_numpy(laid_out)
        exact = array.astype(np.float64).sum(dims)
        np.testing.assert_allclose(x.sum(dims).numpy().astype(np.float64), exact, rtol=1e-3)
        np.testing.assert_array_equal(x.amax(dims).numpy(), array.max(dims))


@pytest.mark.parametrize("shape", [(5,), (100,), (6, 7), (100, 3), (3, 100), (70, 70)], ids=str)
def test_places_of_extremes_are_the_first_ones(shape):
    array = np.random.default_rng(4).integers(0, 4, shape).astype(np.float32)
    for laid_out in layouts_of(array):
        x = torch.from_numpy(laid_out)
        for dim in range(len(shape)):
            np.testing.assert_array_equal(x.argmax(dim).numpy(), array.argmax(dim))
            np.testing.assert_array_equal(x.argmin(dim).numpy(), array.argmin(dim))
        assert x.argmax().item() == array.argmax()


def test_a_nan_wins_every_extreme():
    array = np.arange(200, dtype=np.float32).reshape(10, 20)
    array[3, 5] = np.nan
    x = torch.from_numpy(array)
    assert np.isnan(x.amax().item()) and np.isnan(x.amin().item())
    assert x.argmax().item() == 65 and x.argmin().item() == 65
    assert np.isnan(x.amax(1).numpy()).tolist() == [k == 3 for k in range(10)]
    assert np.isnan(x.amin(0).numpy()).tolist() == [k == 5 for k in range(20)]


def test_long_sums_stay_accurate():
    """Pairwise-like summation: a million equal numbers lose next to nothing."""
    x = torch.full((1 << 20,), 0.1)
    assert x.sum().item() == pytest.approx(float(np.float32(0.1)) * (1 << 20), rel=1e-6)
    rows = torch.full((1 << 14, 3), 0.1)
    expected = float(np.float32(0.1)) * (1 << 14)
    assert rows.sum(0).tolist() == pytest.approx([expected] * 3, rel=1e-6)


@pytest.mark.parametrize("shape", [(200_000,), (300, 1000), (1000, 300), (30, 100, 50)], ids=str)
def test_threads_change_no_bit_of_a_reduction(shape):
    array = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            x = torch.tensor(array)
            results.append([x.sum(d).numpy().tobytes() for d in dims_of(len(shape))])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 31, 33, 100, 4097])
def test_pointwise_tails_touch_nothing_else(n):
    memory = np.full(n + 64, 7.0, np.float32)
    x = torch.from_numpy(memory)[32 : 32 + n]
    x.mul_(2.0).add_(1.0)
    assert (memory[:32] == 7.0).all() and (memory[32 + n :] == 7.0).all()
    assert (memory[32 : 32 + n] == 15.0).all()


@pytest.mark.parametrize("shape", [(5, 7), (16, 16), (3, 33), (40, 2), (2, 3, 4)], ids=str)
def test_pointwise_of_mixed_layouts(shape):
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    for x, y in itertools.product(layouts_of(a), layouts_of(b)):
        result = torch.from_numpy(x) * 2.0 + torch.from_numpy(y)
        np.testing.assert_array_equal(result.numpy(), a * 2 + b)
        out = torch.from_numpy(x.copy())
        out.copy_(torch.from_numpy(y))
        np.testing.assert_array_equal(out.numpy(), b)
