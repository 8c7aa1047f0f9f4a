"""Square brackets and indices against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics
from tests.ops import indexing_cases


@pytest.mark.parametrize("name", indexing_cases.CASES)
def test_indexing(name: str, window: int) -> None:
    semantics.check("indexing", indexing_cases.CASES, name, torch)
