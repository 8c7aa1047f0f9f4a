"""Tiled pointwise kernels: operands that disagree on which loop is contiguous."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import flambeau as torch
from flambeau.compiler.schedule_tiles import BLOCK_COLUMNS, BLOCK_ROWS
from tests.engine.programs import threads

SHAPES = [
    (8, 8), (16, 16), (15, 17), (33, 9), (64, 256), (BLOCK_ROWS + 1, BLOCK_COLUMNS + 1),
    (2 * BLOCK_ROWS + 30, BLOCK_COLUMNS - 1), (7, 40), (40, 7), (1, 30), (0, 9),
]  # fmt: skip


def numbers(shape: tuple[int, ...], kind: str = "float32") -> np.ndarray:
    values = np.random.default_rng(4).integers(-100, 100, shape)
    return values.astype(bool if kind == "bool" else kind)


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "float16", "int64", "int16", "uint8", "bool"]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transposed_copy(shape, kind):
    array = numbers(shape, kind)
    result = torch.from_numpy(array).t().contiguous()
    np.testing.assert_array_equal(result.numpy(), array.T)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transposed_operand_and_result(shape):
    array = numbers(shape)
    x = torch.from_numpy(array)
    y = torch.from_numpy(np.ascontiguousarray(array.T * 3)).t()
    np.testing.assert_array_equal((x + y.relu()).numpy(), array + np.maximum(array * 3, 0))
    out = torch.empty(shape[1], shape[0]).t()
    torch.mul(x, 2, out=out)
    np.testing.assert_array_equal(out.numpy(), array * 2)
    y.add_(x)
    np.testing.assert_array_equal(y.numpy(), array * 4)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_permutations(order):
    array = numbers((3, 20, 9, 34))
    x = torch.from_numpy(array)
    np.testing.assert_array_equal(x.permute(order).contiguous().numpy(), array.transpose(order))
    halved = x[:, ::2].permute(order).contiguous()
    np.testing.assert_array_equal(halved.numpy(), array[:, ::2].transpose(order))


def test_channels_last():
    array = numbers((4, 20, 17, 33))
    x = torch.from_numpy(array)
    last = x.contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(last.numpy(), array)
    scale = torch.arange(20.0).view(1, 20, 1, 1)
    expected = (array * 2 + array) * np.arange(20).reshape(1, 20, 1, 1)
    np.testing.assert_array_equal(((last * 2 + x) * scale).numpy(), expected)


def test_several_transposed_operands_and_results():
    a, b, c = (numbers((70, 90)) + k for k in range(3))
    x, y, z = (torch.from_numpy(v) for v in (a, b, c))
    kept = torch.empty(70, 90)
    first = torch.empty(90, 70).t()
    second = torch.empty(90, 70).t()
    total = x + y.t().contiguous().t()
    first.copy_(total * z)
    second.copy_(total - z)
    kept.copy_(total)
    np.testing.assert_array_equal(first.numpy(), (a + b) * c)
    np.testing.assert_array_equal(second.numpy(), a + b - c)
    np.testing.assert_array_equal(kept.numpy(), a + b)


def test_threads_agree():
    x = torch.from_numpy(numbers((3, 500, 300)))
    with threads(1):
        one = (x.transpose(1, 2).contiguous() * 2).numpy().copy()
    with threads(3):
        three = (x.transpose(1, 2).contiguous() * 2).numpy()
    np.testing.assert_array_equal(one, three)


def test_one_kernel_serves_all_sizes():
    def kernel(rows: int, columns: int) -> str:
        x = torch.zeros(rows, columns)
        return str(torch.explain(lambda: x.t().contiguous())).split("kernel", 1)[1]

    assert kernel(20, 30).splitlines()[0] == kernel(90, 200).splitlines()[0]


@pytest.mark.parametrize("kind", ["float32", "uint8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_few_channels(channels, kind):
    array = numbers((2, channels, 20, 31), kind)
    x = torch.from_numpy(array)
    last = x.contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(last.numpy(), array)
    np.testing.assert_array_equal(last.contiguous().numpy(), array)
    np.testing.assert_array_equal((last + x).numpy(), array + array)
    np.testing.assert_array_equal(x.permute(0, 2, 3, 1).contiguous(), array.transpose(0, 2, 3, 1))
