"""Epilogues: what is moved into a product, what is not, and that no bit changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import flambeau as torch
from flambeau.core.config import config
from flambeau.engine.inspect import last_plan
from flambeau.engine.tape import thread
from flambeau.nn import functional as F

# One row, one column, small, several tiles and blocks of k.
SIZES = [(1, 40, 30), (30, 1, 70), (5, 7, 9), (3, 200, 90), (33, 65, 300), (130, 100, 600)]


@pytest.fixture(autouse=True)
def empty_tape():
    thread.tape.flush()
    yield
    thread.tape.flush()


def steps_of(function: Callable[..., object], *arguments: torch.Tensor) -> list[str]:
    """The names of the steps that a call of the function takes; its results live meanwhile."""
    thread.tape.flush()
    result = function(*arguments)
    thread.tape.flush()
    names = [step.name for step in last_plan().steps]
    del result
    return names


def values_of(function: Callable[..., object], *arguments: torch.Tensor) -> list[np.ndarray]:
    torch.manual_seed(7)
    result = function(*arguments)
    results = result if isinstance(result, tuple) else (result,)
    return [t.float().numpy().copy() for t in results]


def assert_same_bits(function: Callable[..., object], *arguments: torch.Tensor) -> None:
    """One call at a time or all at once, on any number of threads: the same results."""
    window, threads = config.window, torch.get_num_threads()
    try:
        config.window = 1
        expected = values_of(function, *arguments)
        config.window = window
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for a, b in zip(values_of(function, *arguments), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        config.window = window
        torch.set_num_threads(threads)


def operands(m: int, n: int, k: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(m + n + k)
    shapes = ((m, k), (n, k), (n,), (m, n))
    return [torch.randn(*shape).to(dtype) for shape in shapes]


CONSUMERS = {
    "relu": lambda y, r: y.relu(),
    "gelu": lambda y, r: F.gelu(y),
    "tanh-gelu": lambda y, r: F.gelu(y, approximate="tanh"),
    "residual": lambda y, r: y + r,
    "chain": lambda y, r: torch.sigmoid(y * 0.5) * y + r,
    "column": lambda y, r: y * r[:, :1],
    "row": lambda y, r: y - r[:1],
    "comparison": lambda y, r: y > r,
    "double": lambda y, r: y.double() + r,
    "half": lambda y, r: y.bfloat16(),
    "two results": lambda y, r: (y.exp(), y + r),
    "own result too": lambda y, r: (y, y.relu()),
    "in place": lambda y, r: y.relu_().add_(r),
    "dropout": lambda y, r: F.dropout(y, 0.3),
    "reshaped": lambda y, r: y.reshape(-1, 1, y.shape[1]).relu(),
    "transposed": lambda y, r: y.t() * 2.0,
    "flat": lambda y, r: y.reshape(-1) + 1.0,
    "transposed operand": lambda y, r: y + r.t().contiguous().t(),
    "slice": lambda y, r: y[:, ::2].exp(),
    "with itself": lambda y, r: y + y.flip(0),
}
MOVED = {
    "relu", "gelu", "tanh-gelu", "residual", "chain", "column", "row", "comparison", "double",
    "half", "two results", "own result too", "in place", "dropout", "reshaped", "transposed",
}  # fmt: skip


@pytest.mark.parametrize("name", CONSUMERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_same_bits(name: str, dtype: torch.dtype) -> None:
    consumer = CONSUMERS[name]
    for size in SIZES:
        x, w, b, r = operands(*size, dtype)
        assert_same_bits(lambda x, w, b, r: consumer(F.linear(x, w, b), r), x, w, b, r)
        assert_same_bits(lambda x, w, b, r: consumer(x @ w.t(), r), x, w, b, r)


@pytest.mark.parametrize("name", CONSUMERS)
def test_what_is_moved_into_the_product(name: str) -> None:
    for size in ((33, 65, 300), (1, 40, 30)):
        x, w, b, r = operands(*size)
        steps = steps_of(lambda: CONSUMERS[name](F.linear(x, w, b), r))  # noqa: B023
        moved = any(step.startswith("_addmm_bias+") for step in steps)
        fits_one_row = name in ("flat", "transposed operand") and size[0] == 1
        assert moved == (name in MOVED or fits_one_row), steps


def test_batches() -> None:
    for batch, m, n, k in [(9, 4, 4, 4), (3, 1, 40, 30), (20, 64, 70, 64), (4, 9, 1, 20)]:
        a, b, r = torch.randn(batch, m, k), torch.randn(batch, k, n), torch.randn(batch, m, n)
        for function in (
            lambda a, b, r: F.gelu(a @ b) + r,
            lambda a, b, r: (a @ b[:1]) * r[:, :1],
            lambda a, b, r: ((a[:1] @ b) * 0.5).softmax(-1) + r,
        ):
            assert_same_bits(function, a, b, r)


def test_positions_are_added_to_a_product_of_tokens() -> None:
    """An operand that repeats along the outermost rows takes two loops over the rows."""
    x, w, position = torch.randn(3, 10, 20), torch.randn(40, 20), torch.randn(10, 40)

    def embed(x, w, position):
        return F.linear(x, w) + position

    assert len(steps_of(embed, x, w, position)) == 1
    assert_same_bits(embed, x, w, position)


def test_two_products_of_one_gate() -> None:
    x, w, v = torch.randn(50, 64), torch.randn(96, 64), torch.randn(96, 64)

    def gate(x, w, v):
        return F.silu(F.linear(x, w)) * F.linear(x, v)

    assert len(steps_of(gate, x, w, v)) == 2
    assert_same_bits(gate, x, w, v)


def test_results_that_are_overwritten() -> None:
    def over_its_input(x, w):
        x = x * 1.0
        x.copy_(x @ w)
        return x

    def over_its_result(x, w):
        y = x @ w
        z = y + 1.0
        y.mul_(2.0)
        return y, z

    def through_a_view(x, w):
        y = x @ w
        y[3:7].zero_()
        return y.relu(), y.t().contiguous()

    def into_an_older_result(x, w):
        z = x + 1.0
        z += x @ w
        return z

    def of_something_between(x, w):
        y = x @ w
        s = x.sum()
        return (y + s).relu()

    def needed_before(x, w):
        y = x @ w
        t = y.t().contiguous() @ w
        return y + t

    x, w = torch.randn(60, 60), torch.randn(60, 60)
    for function in (
        over_its_input, over_its_result, through_a_view, into_an_older_result,
        of_something_between, needed_before,
    ):  # fmt: skip
        assert_same_bits(function, x, w)


def test_gradients() -> None:
    def step(x, w, b, v):
        w, b, v = (t.detach().clone().requires_grad_() for t in (w, b, v))
        loss = (F.dropout(F.gelu(F.linear(x, w, b)), 0.2) @ v).tanh().pow(2).mean()
        loss.backward()
        return loss.detach(), w.grad, b.grad, v.grad

    for m, n, k in itertools.product((1, 40), (1, 70), (64,)):
        x, w, b, _ = operands(m, n, k)
        assert_same_bits(step, x, w, b, torch.randn(n, 30))


def test_a_result_that_nobody_sees_takes_no_memory() -> None:
    x, w = torch.randn(64, 64), torch.randn(64, 64)
    thread.tape.flush()
    y = (x @ w).relu()
    thread.tape.flush()
    assert last_plan().arena_offsets == {}
    assert y.shape == (64, 64)


def test_rows_that_are_read_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum's elements lie elsewhere than those of the product that it reads."""

    def compute() -> bytes:
        x = torch.sin(torch.arange(24.0)).reshape(2, 3, 4)
        rows = x.transpose(0, 1).reshape(6, 4) @ torch.cos(torch.arange(16.0)).reshape(4, 4)
        return (x + rows.reshape(3, 2, 4).transpose(0, 1)).numpy().tobytes()

    thread.tape.flush()
    together = compute()
    monkeypatch.setattr(config, "window", 1)
    thread.tape.remaining = 1
    alone = compute()
    thread.tape.flush()
    monkeypatch.undo()
    thread.tape.remaining = config.window
    assert together == alone
