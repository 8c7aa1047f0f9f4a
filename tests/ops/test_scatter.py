"""Writes at computed places, against numpy: along every dimension, rows at once, one value."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from tests.engine.programs import threads

SHAPE = (40, 30, 17)


def numbers(shape: list[int] | tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(9).integers(-5, 5, shape).astype(np.float32)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_scatter_add(dim):
    shape = list(SHAPE)
    shape[dim] = 55
    index = np.random.default_rng(1).integers(0, SHAPE[dim], shape)
    values, expected = numbers(shape), np.zeros(SHAPE, np.float32)
    where = list(np.indices(shape))
    where[dim] = index
    np.add.at(expected, tuple(where), values)
    zeros = torch.zeros(*SHAPE)
    result = zeros.scatter_add(dim, torch.from_numpy(index), torch.from_numpy(values))
    np.testing.assert_array_equal(result.numpy(), expected)
    part = zeros.scatter_add(dim, torch.from_numpy(index[:20, :20, :10]), torch.from_numpy(values))
    where = [w[:20, :20, :10] for w in where]
    expected = np.zeros(SHAPE, np.float32)
    np.add.at(expected, tuple(where), values[:20, :20, :10])
    np.testing.assert_array_equal(part.numpy(), expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_slices_added_and_written(dim, order):
    index = np.random.default_rng(2).integers(0, SHAPE[dim], 70)
    shape = list(SHAPE)
    shape[dim] = 70
    values = numbers(shape)
    key: list[object] = [slice(None)] * 3
    key[dim] = index
    added, written = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    np.add.at(added, tuple(key), values)
    written[tuple(key)] = values
    laid_out = torch.zeros(*(SHAPE[d] for d in order)).permute(*np.argsort(order).tolist())
    picked, given = torch.from_numpy(index), torch.from_numpy(values)
    np.testing.assert_array_equal(laid_out.index_add(dim, picked, given).numpy(), added)
    places = (*[slice(None)] * dim, picked)
    laid_out[places] = given
    np.testing.assert_array_equal(laid_out.numpy(), written)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "int32", "uint8"])
def test_other_types(kind):
    target = torch.zeros(9, dtype=getattr(torch, kind))
    index = torch.tensor([1, 3, 3, 8])
    values = torch.tensor([1, 2, 3, 4]).to(target.dtype)
    assert target.scatter_add(0, index, values).tolist() == [0, 1, 0, 5, 0, 0, 0, 0, 4]


def test_one_value_for_all():
    index = torch.tensor([1, 3, 3])
    assert torch.zeros(4).scatter(0, index, 2.5).tolist() == [0, 2.5, 0, 2.5]
    assert torch.bincount(index, minlength=5).tolist() == [0, 1, 0, 2, 0]
    assert torch.zeros(()).scatter_add(0, torch.tensor(0), torch.tensor(2.0)).item() == 2


def test_threads_agree():
    index = torch.from_numpy(np.random.default_rng(3).integers(0, 50, (300, 200)))
    values = torch.from_numpy(np.random.default_rng(4).standard_normal((300, 200)))
    results = []
    for count in (1, 3):
        with threads(count):
            both = [torch.zeros(50, 200).double(), torch.zeros(300, 50).double()]
            results.append([t.scatter_add(d, index, values).numpy() for d, t in enumerate(both)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "shape", [(1000,), (30, 40), (3, 7, 11), (1, 5), (5, 1), (2, 3, 4, 5), (0, 3), (1, 1)], ids=str
)
def test_positions_of_true_elements(shape):
    array = np.random.default_rng(5).integers(0, 2, shape)
    tensor = torch.from_numpy(array)
    np.testing.assert_array_equal(tensor.nonzero().numpy(), np.argwhere(array))
    values = np.random.default_rng(6).standard_normal(shape)
    picked = torch.from_numpy(values)[tensor > 0]
    np.testing.assert_array_equal(picked.numpy(), values[array > 0])
