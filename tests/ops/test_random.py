"""Random functions against what PyTorch drew (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics
from tests.ops import random_cases


@pytest.mark.parametrize("name", random_cases.CASES)
def test_random(name: str, window: int) -> None:
    semantics.check("random", random_cases.CASES, name, torch)
