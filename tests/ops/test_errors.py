"""Users' mistakes are answered with PyTorch's types and texts."""

from __future__ import annotations

import json
from pathlib import Path

import error_cases
import pytest

import flambeau as torch

PATH = Path(__file__).resolve().parent.parent / "references" / "errors" / "errors.json"
EXPECTED: dict[str, list[str]] = json.loads(PATH.read_text())


def test_every_case_is_recorded() -> None:
    assert list(EXPECTED) == list(error_cases.CASES), "run tools/record_errors.py"


@pytest.mark.parametrize("name", error_cases.CASES)
def test_type_and_text(name: str) -> None:
    torch.manual_seed(0)
    kind, text = error_cases.outcome(error_cases.CASES[name], torch)
    # Python 3.13 adds a guess to its own errors about keywords.
    assert [kind, text.split(". Did you mean")[0]] == EXPECTED[name]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: torch.hypot(x, x), "hypot_cpu"),
        (lambda x: torch.group_norm(x, 2), "GroupNormKernelImpl"),
        (lambda x: torch.addmm(x[0, :4], x, x.t()), "addmm_impl_cpu_"),
        (lambda x: torch.mm(x, x.t()), "addmm_impl_cpu_"),
    ],
)
def test_types_that_an_operator_refuses(call, text):
    with pytest.raises(NotImplementedError, match=f"\"{text}\" not implemented for 'Bool'"):
        call(torch.ones(4, 6, dtype=torch.bool))


def test_an_operand_that_is_written_keeps_its_shape():
    x = torch.arange(5.0)
    with pytest.raises(RuntimeError, match=r"output with shape \[5\] doesn't match the broadcast"):
        torch.add(x, torch.ones(4, 5), out=x)
    assert x.tolist() == [0, 1, 2, 3, 4]
