"""Functions that make tensors against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics
from tests.ops import creation_cases


@pytest.mark.parametrize("name", creation_cases.CASES)
def test_creation(name: str, window: int) -> None:
    semantics.check("creation", creation_cases.CASES, name, torch)
