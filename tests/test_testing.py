"""``torch.testing.assert_close``: what it lets pass, and PyTorch's words where it does not."""

from __future__ import annotations

from typing import Any

import pytest

import flambeau as torch
from flambeau.testing import assert_close

NAN = torch.tensor([float("nan")])


def test_close_values_pass() -> None:
    assert_close(torch.ones(3), torch.ones(3) + 1e-6)
    assert_close([1.0, {"a": torch.ones(2)}], [1.0, {"a": torch.ones(2)}])
    assert_close(NAN, NAN, equal_nan=True)
    assert_close(torch.ones(2), torch.ones(2).double(), check_dtype=False)


REPORT = """Tensor-likes are not close!

Mismatched elements: 1 / 3 (33.3%)
Greatest absolute difference: 1.0 at index (2,) (up to 1e-05 allowed)
Greatest relative difference: 0.25 at index (2,) (up to 1.3e-06 allowed)"""

SCALARS = """Scalars are not close!

Expected 1.1 but got 1.0.
Absolute difference: 0.10000000000000009 (up to 1e-07 allowed)
Relative difference: 0.09090909090909098 (up to 1e-07 allowed)"""

CASES: list[tuple[Any, Any, str]] = [
    (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]), REPORT),
    (1.0, 1.1, SCALARS),
    (
        torch.ones(2),
        torch.ones(3),
        "The values for attribute 'shape' do not match: torch.Size([2]) != torch.Size([3]).",
    ),
    (
        torch.tensor([1.0]),
        torch.tensor([1]),
        "The values for attribute 'dtype' do not match: torch.float32 != torch.int64.",
    ),
    ([1, 2], [1], "The length of the sequences mismatch: 2 != 1"),
]


@pytest.mark.parametrize(("actual", "expected", "text"), CASES)
def test_differences_are_reported(actual: Any, expected: Any, text: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_close(actual, expected)
    assert str(caught.value) == text


def test_the_place_is_named() -> None:
    with pytest.raises(AssertionError, match=r"The failure occurred for item \[0\]"):
        assert_close([torch.ones(2)], [torch.zeros(2)])


def test_both_tolerances_or_none() -> None:
    with pytest.raises(ValueError, match="must be either specified or omitted, but got no atol"):
        assert_close(torch.ones(1), torch.ones(1), rtol=0)
