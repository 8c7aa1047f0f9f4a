"""Values of compiled functions: bit for bit those of the functions themselves."""

from __future__ import annotations

import gc
import math
import time
from collections import namedtuple

import pytest

import flambeau as torch
from tests.capture.programs import agree, recorded, replayed

F = torch.nn.functional
Pair = namedtuple("Pair", "first second")


def gelu(x):
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def attention(x):
    scores = (x @ x.transpose(-1, -2)) / math.sqrt(x.shape[-1])
    return torch.softmax(scores, -1) @ x


def many(x):
    parts = []
    for k in range(3):
        parts.append(x.roll(k, 0) * (k + 1))
    total = torch.stack(parts).sum(0)
    return total, {"mean": total.mean(), "parts": parts}, [None, 3, "text", 2.5]


def in_place(x):
    y = x.clone()
    y[0] = 7.0
    y.add_(1).mul_(x)
    y[:, 1:3] -= x[:, :2]
    return y


def indexing(x):
    index = torch.tensor([2, 0, 1])
    return x[index], x[:, None, 1:], x[x.argmax(0)[0:1]], x.gather(1, index[:, None])


def layouts(x):
    y = x.t() + 1
    return y, y.contiguous(), (x * 2).t(), (x * 2)[1:, ::2]


def created(x):
    return (
        torch.zeros(3) + x[0, 0],
        torch.arange(4) * 2,
        torch.ones_like(x),
        torch.tensor([1.0, 2.0]) * x.sum(),
        torch.eye(2),
        x.new_full((2,), 3.0),
    )


def branches(x):
    if x.dim() == 2 and x.shape[0] > 2:
        x = x + 1
    if x.dtype == torch.float32:
        x = x * 2
    return x.float().norm(), x.max(dim=1), x.sort(descending=True)


def named(x):
    return Pair(x + 1, x - 1)


def nested_function(x):
    def inner(y, scale=3.0):
        return y * scale + x

    return inner(x) + inner(x, scale=2.0) + sum(inner(x[k]) for k in range(3)).sum()


FUNCTIONS = [
    gelu, attention, many, in_place, indexing, layouts, created, branches, named, nested_function,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_values(function):
    def program(compile):
        f = compile(function)
        return [f(torch.randn(4, 5) * (k + 1)) for k in range(6)]

    replayed(program, 3)


@pytest.mark.parametrize("function", [gelu, attention, in_place, nested_function])
def test_values_and_gradients(function):
    def program(compile):
        f = compile(function)
        results = []
        for k in range(6):
            x = (torch.randn(4, 5) * (k + 1)).requires_grad_()
            y = f(x)
            y.sum().backward()
            results += [y, x.grad]
        return results

    replayed(program, 3)


def test_gradients_pass_through_a_compiled_middle():
    def program(compile):
        f = compile(lambda a, b: (torch.tanh(a * b), a.exp().sum(0)))
        results = []
        for _ in range(6):
            a = torch.randn(3, 4, requires_grad=True)
            b = torch.randn(3, 4, requires_grad=True)
            first, second = f(a * 2, b.sin())
            (first.sum() + (second * second).sum()).backward()
            results += [first, second, a.grad, b.grad]
        for _ in range(3):
            a = torch.randn(3, 4, requires_grad=True)
            b = torch.randn(3, 4)
            _, second = f(a * 2, b)
            second.sum().backward()
            results += [second, a.grad]
        return results

    replayed(program, 3)


def test_autograd_grad_and_second_backward():
    def program(compile):
        f = compile(lambda x: (x * x).sum())
        results = []
        for _ in range(6):
            x = torch.randn(3, requires_grad=True)
            y = f(x)
            results += torch.autograd.grad(y, x, retain_graph=True)
            results += torch.autograd.grad(y, x)
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                torch.autograd.grad(y, x)
        return results

    replayed(program, 3)


def test_a_saved_tensor_that_was_written_is_an_error():
    f = torch.compile(lambda x: (x * x).sum())
    for _ in range(5):
        x = torch.randn(3, requires_grad=True)
        leaf = x * 1
        y = f(leaf)
        leaf.detach().add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    assert f.replays


def test_pending_inputs_and_chains():
    def program(compile):
        f = compile(lambda x, y: torch.relu(x + y) * 0.5)
        results = []
        for k in range(8):
            x = torch.randn(4, 4)
            y = x.sin()
            for _ in range(k % 3 + 1):
                x = f(x, y)
                y = x - y
            results += [x, y]
        return results

    replayed(program, 3)


def test_random_numbers_advance_as_in_eager():
    def program(compile):
        f = compile(lambda x: F.dropout(x, 0.4) + torch.rand(5) - torch.randn_like(x))
        return [value for _ in range(6) for value in (f(torch.ones(3, 5)), torch.rand(2))]

    replayed(program, 3)


def test_aliasing_inputs():
    def program(compile):
        def function(a, b):
            a.add_(1)
            return a * b

        f = compile(function)
        results = []
        for k in range(12):
            a, b = torch.randn(6), torch.randn(6)
            match k % 4:
                case 0:
                    results += [f(a, b), a, b]
                case 1:
                    results += [f(a, a), a]
                case 2:
                    results += [f(a[:4], a[2:]), a]
                case 3:
                    results += [f(a[:3], b[:3]), a, b]
        return results

    agree(program)
    agree(lambda compile: [x for k in range(3) for x in program(compile)])


def test_outputs_that_are_inputs_or_views_of_them():
    def program(compile):
        f = compile(lambda x, y: (x, y.view(2, 3), x[1:], (x + 1).view(-1)))
        results = []
        for _ in range(6):
            x, y = torch.randn(4), torch.randn(6)
            a, b, c, d = f(x, y)
            b.add_(1)
            c.zero_()
            d.mul_(2)
            results += [a is x, b._base is y, c._base is x, x, y, d, x._version, y._version]
        return results

    replayed(program, 3)


def test_results_are_not_shared_between_calls():
    f = torch.compile(lambda x: (x * 2, torch.tensor([1.0])))
    kept = []
    for k in range(6):
        a, b = f(torch.full((3,), float(k)))
        b.add_(k)
        kept.append((a, b))
    assert [(a[0].item(), b.item()) for a, b in kept] == [(2.0 * k, 1.0 + k) for k in range(6)]
    assert f.replays


def test_deleted_and_ignored_results():
    def program(compile):
        f = compile(lambda x: (x * 2, x.sin(), x.cos()))
        results = []
        for _ in range(6):
            x = torch.randn(5)
            a, _, c = f(x)
            del a
            f(x)
            results.append(c)
        return results

    replayed(program, 3)


def test_exceptions_come_as_in_eager():
    f = torch.compile(lambda x, y: (x @ y).relu())
    for _ in range(4):
        f(torch.ones(2, 3), torch.ones(3, 2))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        f(torch.ones(2, 3), torch.ones(2, 2))
    with pytest.raises(TypeError):
        f(torch.ones(2))
    assert f(torch.ones(2, 3), torch.ones(3, 2)).sum().item() == 12.0
    assert f.replays and f.reason is None


def test_indices_are_checked_in_replays():
    table = torch.randn(5, 3)
    f = torch.compile(lambda index: table[index] * 2)
    for k in range(5):
        assert bool((f(torch.tensor([k, 0])) == table[torch.tensor([k, 0])] * 2).all())
    assert f.replays
    with pytest.raises(IndexError, match="out of bounds"):
        f(torch.tensor([5, 0]))
    g = torch.compile(lambda x, y: F.cross_entropy(x, y))
    for _ in range(4):
        g(torch.randn(3, 4), torch.tensor([0, 1, 3]))
    assert g.replays
    with pytest.raises(IndexError, match="out of bounds"):
        g(torch.randn(3, 4), torch.tensor([0, 1, 4]))


def test_keyword_arguments_and_numbers():
    def program(compile):
        def function(x, *, scale=1.0, items=(), table=None):
            return x * scale + sum(items) + table["k"]

        f = compile(function)
        results = []
        for k in range(20):
            scale = [1.0, 2.0, 0.0, -0.0][k % 4]
            x = torch.randn(3)
            results.append(f(x, scale=scale, items=[1, x.sum()], table={"k": x}))
        return results

    replayed(program, 3)


def test_negative_zero_and_types_of_numbers_are_told_apart():
    def program(compile):
        f = compile(lambda x, k: (x * k, k))
        values = [0.0, -0.0, 0, False, 1, True, 1.0]
        return [f(torch.ones(2), k) for k in values * 4]

    replayed(program, 3)


def test_grad_mode_and_default_type():
    def program(compile):
        f = compile(lambda x: x * torch.ones(3))
        x = torch.randn(3, requires_grad=True)
        results = []
        for k in range(12):
            with torch.set_grad_enabled(k % 2 == 0):
                results.append(f(x))
            if k % 3 == 0:
                torch.set_default_dtype(torch.float64)
                results.append(f(x))
                torch.set_default_dtype(torch.float32)
        return results

    agree(program)


def test_requires_grad_of_inputs():
    def program(compile):
        f = compile(lambda x, y: x * y)
        results = []
        for k in range(16):
            x = torch.randn(3, requires_grad=k % 2 == 0)
            y = torch.randn(3, requires_grad=k % 4 < 2)
            results.append(f(x, y))
        return results

    replayed(program, 3)


def test_shapes_types_and_strides():
    def program(compile):
        f = compile(lambda x: (x + 1).sum(0))
        results = []
        for k in range(32):
            x = torch.randn(3, 3 + k % 2, dtype=torch.float64 if k % 4 < 2 else torch.float32)
            results.append(f(x.t() if k % 8 < 4 else x))
        return results

    replayed(program, 3)


def test_ever_new_shapes_fall_back(capsys):
    f = torch.compile(lambda x: x * 2)
    for k in range(200):
        assert f(torch.ones(k + 1)).sum().item() == 2 * (k + 1)
    assert "ever new shapes" in f.reason
    assert capsys.readouterr().err.count("falls back") == 1


@pytest.mark.parametrize(
    "function, reason",
    [
        (lambda x: x * x.sum().item(), "reads a value"),
        (lambda x: x if x.sum() > 0 else -x, "reads a value"),
        (lambda x: x * float(x.numpy()[0]), "reads a value"),
        (lambda x: [print(end=""), x + 1][1], "calls print()"),
        (lambda x: x + len(str(id(x))) * 0, "calls id()"),
    ],
    ids=["item", "if", "numpy", "print", "id"],
)
def test_falls_back_and_says_why_once(function, reason, capsys):
    def program(compile):
        f = compile(function)
        return [f(torch.randn(3)) for _ in range(8)]

    recorded(program, reason)
    error = capsys.readouterr().err
    assert error.count("falls back to recording") == 1
    assert "test_function.py:" in error


def test_what_a_garbage_collection_runs_is_not_the_functions():
    def callback(phase, info):
        time.perf_counter()  # a function that calls this would not be replayed

    gc.callbacks.append(callback)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        replayed(lambda compile: [f(torch.ones(3)) for f in [compile(gelu)] for _ in range(5)])
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
