"""Tensors as Python objects against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics, tensor_cases


@pytest.mark.parametrize("name", tensor_cases.CASES)
def test_tensor(name: str, window: int) -> None:
    semantics.check("tensor", tensor_cases.CASES, name, torch)
