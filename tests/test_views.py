"""Views, aliasing and storages against what PyTorch did (tools/record_semantics.py)."""

import pytest

import flambeau as torch
from tests import semantics, view_cases


@pytest.mark.parametrize("name", view_cases.CASES)
def test_views(name: str, window: int) -> None:
    semantics.check("views", view_cases.CASES, name, torch)
