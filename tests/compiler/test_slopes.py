"""Computed accesses that turn out to be rows of neighbours."""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.kernel import INDEXED, IOTA, UNIT, Operand, Tracer
from flambeau.compiler.slopes import inner_slopes
from flambeau.core import dtype as types


def test_slopes():
    tracer = Tracer()
    counter = tracer.load(tracer.operand(Operand(types.int64, UNIT, IOTA)))
    start = tracer.load(tracer.operand(Operand(types.int64, 0)))
    other = tracer.load(tracer.operand(Operand(types.int64, UNIT)))
    values = [counter, start, other, counter + start * 3, counter - start, start - counter,
              counter + counter, counter + other]  # fmt: skip
    slopes = inner_slopes(tracer.finish((False,)))
    assert [slopes[v.index] for v in values] == [1, 0, None, 1, 1, -1, None, None]


def test_gather_of_an_unchanging_offset():
    tracer = Tracer()
    start = tracer.load(tracer.operand(Operand(types.int64, 0)))
    table = tracer.operand(Operand(types.float32, 0, INDEXED))
    value = tracer.gather(table, start)
    assert inner_slopes(tracer.finish((False,)))[value.index] == 0


def test_rows_and_columns_by_index():
    array = np.random.default_rng(5).standard_normal((30, 37)).astype(np.float32)
    table = torch.from_numpy(array)
    index = np.array([3, 0, 29, 3, -1])
    picked = torch.from_numpy(index)
    np.testing.assert_array_equal(table[picked].numpy(), array[index])
    np.testing.assert_array_equal(table[:, picked].numpy(), array[:, index])
    np.testing.assert_array_equal(table.t()[picked].numpy(), array.T[index])
    np.testing.assert_array_equal(table[picked, picked].numpy(), array[index, index])
    wide = picked.view(5, 1).expand(5, 33)
    np.testing.assert_array_equal(table[wide, 2].numpy(), array[index, 2][:, None].repeat(33, 1))


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "bool", "int16"])
@pytest.mark.parametrize("shape", [(100,), (3, 37), (17,), (2, 3, 40)], ids=str)
def test_flips_read_backwards(shape, kind):
    array = np.random.default_rng(6).integers(0, 2 if kind == "bool" else 100, shape).astype(kind)
    tensor = torch.from_numpy(array)
    for dim in range(len(shape)):
        np.testing.assert_array_equal(tensor.flip(dim).numpy(), np.flip(array, dim))
    everywhere = tuple(range(len(shape)))
    np.testing.assert_array_equal(tensor.flip(everywhere).numpy(), np.flip(array))
