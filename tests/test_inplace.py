"""In-place writes under autograd against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import inplace_cases, semantics


@pytest.mark.parametrize("name", inplace_cases.CASES)
def test_inplace(name: str, window: int) -> None:
    semantics.check("inplace", inplace_cases.CASES, name, torch)
