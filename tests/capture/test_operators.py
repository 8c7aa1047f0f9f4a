"""Every operator's samples, compiled: results, gradients and errors bit for bit those of eager."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import sample_tensors as table

import flambeau as torch
from flambeau.ops.operator import Operator
from tests.capture.programs import same

# Calls per operator: one observes, one captures, the rest are replays on two sets of values.
CALLS = 4


def build(made: table.Made, call: int) -> torch.Tensor:
    values = made.values
    if made.is_float and call % 2:
        values = (values * 0.75).astype(values.dtype)
    tensor = torch.tensor(values)
    if made.dtype == "bfloat16":
        tensor = tensor.bfloat16()
    tensor = tensor.t() if made.transposed else tensor
    return tensor.requires_grad_() if made.is_float else tensor


def results_of(function: Any, values: list[Any], keywords: dict[str, Any], call: int) -> list[Any]:
    args = table.convert(values, lambda made: build(made, call))
    named = table.convert(keywords, lambda made: build(made, call))
    torch.manual_seed(call)
    try:
        found = function(*args, **named)
        outputs = [t for t in table.leaves(found, torch.Tensor) if t.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(t) * 0.5 for t in outputs])
    except Exception as error:
        return [type(error), str(error)]
    leaves = table.leaves([args, named], torch.Tensor)
    return [found, [t.detach() for t in leaves], [t.grad for t in leaves]]


@pytest.mark.parametrize("op", table.with_samples(), ids=lambda op: op.name)
def test_the_first_sample(op: Operator) -> None:
    values, keywords = next(iter(table.samples(op)))

    def function(*args: Any, **named: Any) -> Any:
        return op(*args, **named)

    compiled = torch.compile(function)
    for call in range(CALLS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = results_of(function, values, keywords, call)
            found = results_of(compiled, values, keywords, call)
        assert same(expected, found), f"call {call}"
