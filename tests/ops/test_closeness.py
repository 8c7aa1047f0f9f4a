"""Equality, closeness and membership where samples do not reach."""

from __future__ import annotations

import pytest

import flambeau as torch


def test_equal_is_a_python_bool() -> None:
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(x, x.clone()) is True
    assert torch.equal(x, torch.tensor([1.0, 3.0])) is False
    assert torch.equal(x, torch.ones(3)) is False
    assert torch.equal(torch.tensor([float("nan")]), torch.tensor([float("nan")])) is False
    assert torch.equal(x, x.double()) is True


def test_allclose() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf")])
    assert not torch.allclose(x, x)
    assert torch.allclose(x, x, equal_nan=True)
    assert x.allclose(x + 1e-9, equal_nan=True)
    with pytest.raises(RuntimeError, match="Float did not match Double"):
        torch.allclose(x, x.double())
    with pytest.raises(
        RuntimeError, match="rtol must be greater than or equal to zero, but got -1"
    ):
        torch.isclose(x, x, rtol=-1)


def test_isin() -> None:
    x = torch.arange(4).reshape(2, 2)
    assert torch.isin(x, torch.tensor([1, 3])).tolist() == [[False, True], [False, True]]
    assert torch.isin(x, 2, invert=True).tolist() == [[True, True], [False, True]]
    assert torch.isin(2, x).item() is True
