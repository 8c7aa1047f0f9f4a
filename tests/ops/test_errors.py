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
