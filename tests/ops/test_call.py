"""The flat forms of recording do what the plain ones say: the specification of the hot path."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import flambeau as torch
from flambeau.engine.tape import thread
from flambeau.graph import Node
from flambeau.ops import call as path
from flambeau.ops.operator import OPERATORS

BINARY = ["add", "sub", "mul", "div", "maximum", "atan2", "lt", "eq"]
UNARY = ["neg", "exp", "relu", "sqrt", "tanh", "abs", "isnan", "logical_not"]


def operator(name: str) -> Any:
    key = next(k for k in (name, f"{name}.Tensor") if k in OPERATORS)
    return OPERATORS[key]


def record_plainly(op: Any, *arguments: Any) -> torch.Tensor:
    """What `unary_form`, `binary_form` and `number_form` stand for."""
    operands = [a if isinstance(a, torch.Tensor) else type(a) for a in arguments]
    numbers = [a for a in arguments if not isinstance(a, torch.Tensor)]
    [result] = path.record(op, operands, op.default_static, numbers)
    if op.differentiable and path.needs_graph(arguments):
        path.attach(op, arguments, (result,), None)
    return result


def refuse(a: Any, b: Any) -> Any:
    raise AssertionError("not called for tensors and numbers")


def record_inplace_plainly(op: Any, target: torch.Tensor, other: Any) -> torch.Tensor:
    """What `record_inplace` stands for."""
    operands = [target, other if isinstance(other, torch.Tensor) else type(other)]
    numbers = [] if isinstance(other, torch.Tensor) else [other]
    path.record(op, operands, op.default_static, numbers, (target,))
    return target


def tensors() -> dict[str, torch.Tensor]:
    """Of every kind that the forms tell apart."""
    leaf = (torch.arange(12).float() * 0.25 - 1.0).reshape(3, 4)
    grown = leaf.clone().requires_grad_()
    made = grown * 2.0
    return {
        "plain": leaf,
        "leaf": grown,
        "made": made,
        "row": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "transposed": torch.arange(12).float().reshape(4, 3).t(),
        "view of made": made[:, :],
        "detached": made.detach(),
        "integers": torch.arange(12).reshape(3, 4),
        "doubles": torch.ones(3, 4, dtype=torch.float64),
        "zero-dimensional": torch.tensor(2.0),
    }


def describe(result: torch.Tensor, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Everything that must not depend on the form."""
    node = result.grad_fn
    graph = None
    if node is not None:
        positions = {id(a): k for k, a in enumerate(arguments)}
        targets = [
            t.sequence if isinstance(t, Node) else positions.get(id(t)) for t in node.targets
        ]
        saved = [type(s).__name__ for s in node.saved]
        graph = (node.name(), targets, node.numbers, list(node.layouts), saved, list(node.versions))
    return (
        result.shape, result.stride(), result.dtype, result.requires_grad, result.is_leaf, graph,
        result._version, result.tolist(),
    )  # fmt: skip


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, grad):
    op = operator(name)
    for x in tensors().values():
        with torch.set_grad_enabled(grad):
            flat, plain = path.unary_form(op)(x), record_plainly(op, x)
        assert repr(describe(flat, (x,))) == repr(describe(plain, (x,)))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, grad):
    op = operator(name)
    made = tensors()
    for a, b in itertools.product(made.values(), repeat=2):
        with torch.set_grad_enabled(grad):
            flat, plain = path.binary_form(op, refuse)(a, b), record_plainly(op, a, b)
        assert repr(describe(flat, (a, b))) == repr(describe(plain, (a, b)))


@pytest.mark.parametrize("number", [2, -0.5, 3.25, 7])
@pytest.mark.parametrize("name", ["add", "mul", "div", "lt"])
def test_a_number(name, number):
    op = operator(name)
    for x in tensors().values():
        flat, plain = path.number_form(op)(x, number), record_plainly(op, x, number)
        assert repr(describe(flat, (x, number))) == repr(describe(plain, (x, number)))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_in_place(name):
    op = operator(name)
    for other in (2.0, 3, "plain", "row", "transposed", "zero-dimensional"):
        results = []
        for form in (path.record_inplace, record_inplace_plainly):
            made = tensors()
            target = made["plain"]
            with torch.no_grad():
                form(op, target, made[other] if isinstance(other, str) else other)
            results.append((target._version, target.tolist()))
        assert repr(results[0]) == repr(results[1])


def test_an_operand_twice():
    x = torch.arange(4).float().requires_grad_()
    op = operator("mul")
    flat, plain = path.binary_form(op, refuse)(x, x), record_plainly(op, x, x)
    flat.sum().backward()
    first, x.grad = x.grad.tolist(), None
    plain.sum().backward()
    assert first == x.grad.tolist() == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.ones(3) + torch.ones(4),
        lambda: torch.ones(3).add_(torch.ones(4)),
        lambda: torch.ones(3).int().add_(1.5),
        lambda: torch.ones(1).expand(3).add_(1.0),
        lambda: torch.ones(3) - torch.ones(3).bool(),
    ],
)
def test_errors_leave_the_tape_as_it_was(wrong):
    x = torch.ones(3)
    thread.tape.flush()
    y = x + 1.0
    with pytest.raises(RuntimeError):
        wrong()
    assert not thread.tape.busy
    z = y * 2.0
    assert (y.tolist(), z.tolist()) == ([2.0] * 3, [4.0] * 3)


def test_methods_and_operators_take_the_same_path():
    a, b = torch.arange(4).float(), torch.ones(4)
    expected = [1.0, 2.0, 3.0, 4.0]
    assert (a + b).tolist() == a.add(b).tolist() == torch.add(a, b).tolist() == expected
    assert (a + 1).tolist() == (1 + a).tolist() == a.add(1).tolist() == expected
    a += b
    assert a.tolist() == expected and a._version == 1
    a.add_(b, alpha=2)
    assert a.tolist() == [3.0, 4.0, 5.0, 6.0] and a._version == 2


def test_an_unsaved_input_still_has_a_shape():
    """Only the weight wants a gradient, so the weight itself is not saved; and the other way."""
    x, weight = torch.ones(1, 1, 4, 4), torch.ones(2, 1, 3, 3)
    for wanting in (x, weight):
        wanting.requires_grad_()
        torch.nn.functional.conv2d(x, weight).sum().backward()
        assert wanting.grad.shape == wanting.shape
        wanting.requires_grad_(False)
