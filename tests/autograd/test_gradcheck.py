"""First and second derivatives of every operator with samples, against central differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sample_tensors as table

import flambeau as torch
from flambeau.ops.operator import Operator

# Random, or with a gradient that is zero by definition where the function is not constant.
EXCEPTIONS = {"embedding"}
# Only these many elements of all inputs together, to keep the numerical Jacobians small.
LIMIT = 40
OPERATORS = [op for op in table.with_samples() if op.differentiable and op.name not in EXCEPTIONS]


def build(made: table.Made) -> torch.Tensor:
    values = made.values.astype(np.float64) if made.is_float else made.values
    tensor = torch.tensor(values)
    return tensor.t() if made.transposed else tensor


def is_ordinary(made: table.Made) -> bool:
    """Whether no element lies where functions have steps or kinks, and none is like another."""
    if not made.is_float:
        return True
    values = made.values.astype(np.float64).ravel()
    distinct = len(set(values.tolist())) == values.size
    return distinct and bool(
        np.isfinite(values).all() and (values * 2 != np.round(values * 2)).all()
    )


def small_samples(op: Operator) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The samples that a double has a gradient of, smallest first."""
    found = []
    for values, keywords in table.samples(op):
        if "dtype" in keywords:
            continue
        made = table.leaves((values, keywords), table.Made)
        size = sum(m.values.size for m in made if m.is_float)
        if 0 < size <= LIMIT and all(map(is_ordinary, made)):
            found.append((size, values, keywords))
    for _, values, keywords in sorted(found, key=lambda entry: entry[0]):
        yield values, keywords


def function_of(op: Operator, values: list[Any], keywords: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The operator as a function of its floating tensors, and those."""
    arguments, named = table.convert(values, build), table.convert(keywords, build)
    inputs = [t for t in table.leaves((arguments, named), torch.Tensor) if t.is_floating_point()]

    def replaced(value: Any, given: dict[int, Any]) -> Any:
        if isinstance(value, torch.Tensor):
            return given.get(id(value), value)
        if isinstance(value, (list, tuple)):
            return type(value)(replaced(v, given) for v in value)
        return value

    def function(*tensors: Any) -> Any:
        given = {id(old): new for old, new in zip(inputs, tensors, strict=True)}
        named_now = {k: replaced(v, given) for k, v in named.items()}
        outputs = table.leaves(op(*replaced(arguments, given), **named_now), torch.Tensor)
        return tuple(outputs)

    return function, [t.detach().clone().requires_grad_() for t in inputs]


def checked(op: Operator, check: Any, most: int) -> int:
    count = 0
    for values, keywords in small_samples(op):
        function, inputs = function_of(op, values, keywords)
        try:
            outputs = function(*inputs)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
            continue
        finite = all(bool(t.isfinite().all()) for t in outputs if t.is_floating_point())
        if not finite or not any(t.requires_grad for t in outputs):
            continue
        assert check(function, inputs, atol=1e-4, rtol=1e-3), f"{op.name} {values} {keywords}"
        count += 1
        if count == most:
            break
    return count


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_first_derivative(op: Operator) -> None:
    checked(op, torch.autograd.gradcheck, 2)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_second_derivative(op: Operator) -> None:
    checked(op, torch.autograd.gradgradcheck, 1)


def chained(x: Any) -> Any:
    y = x * 1
    y[0].mul_(x[1])
    y[1] = y[0].clone().sin() * 2
    y.t()[1].exp_()
    return y


WRITES = {
    "chain": chained,
    "slice": lambda x: _written(x, lambda y: y[:, 1:], lambda v: v.pow_(3)),
    "transposed": lambda x: _written(x, lambda y: y.t()[0], lambda v: v.mul_(v.clone())),
    "diagonal": lambda x: _written(x, lambda y: y[:, :2].diagonal(), lambda v: v.sigmoid_()),
    "masked": lambda x: _written(x, lambda y: y, lambda v: v.masked_fill_(x.detach() > 0.5, 2.0)),
    "index": lambda x: x[[0, 1, 0], [1, 2, 1]] ** 3,
    "put": lambda x: (x**2).index_put((torch.tensor([0]),), x[1].exp()),
    "windows": lambda x: x.reshape(6).as_strided((3, 3), (1, 1)) ** 3,
    "unfold": lambda x: x.reshape(6).unfold(0, 3, 2) ** 3,
    "split": lambda x: x.split(1)[0] ** 3 * x.unbind()[1],
    "embedding": lambda x: torch.nn.functional.embedding(torch.tensor([0, 1, 0]), x) ** 3,
    "scatter": lambda x: (x**3).scatter(0, torch.tensor([[0, 1, 0]]), x[:1].exp()),
    "repeat": lambda x: x.repeat(2, 1).roll(1, 0) ** 3,
}


def _written(x: Any, part: Any, write: Any) -> Any:
    y = x * 1.5
    write(part(y))
    return y


@pytest.mark.parametrize("name", WRITES)
def test_views_and_writes(name: str, window: int) -> None:
    values = np.array([[0.3, -0.7, 0.9], [1.2, 0.4, -0.2]])
    x = torch.tensor(values, requires_grad=True)
    assert torch.autograd.gradcheck(WRITES[name], (x,))
    assert torch.autograd.gradgradcheck(WRITES[name], (x,))
