"""Whether tensors are equal, or close enough."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtype as types
from flambeau.ops.comparison import eq, isfinite, isnan, le, logical_and, logical_not, logical_or
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite
from flambeau.ops.pointwise import abs as absolute
from flambeau.ops.pointwise import add, mul, sub
from flambeau.ops.reduction import all as all_
from flambeau.ops.reduction import any as any_
from flambeau.ops.view import reshape, unsqueeze
from flambeau.tensor import Tensor


@composite("equal(Tensor self, Tensor other) -> bool", differentiable=False)
def equal(self: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same elements; NaN equals nothing."""
    if self.shape != other.shape:
        return False
    return bool(all_(eq(self, other)))


@composite(
    "isclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) "
    "-> Tensor",
    differentiable=False,
)
def isclose(self: Tensor, other: Tensor, rtol: float, atol: float, equal_nan: bool) -> Tensor:
    """Returns where ``|self - other| <= atol + rtol * |other|``, or both are equal."""
    if self.dtype is not other.dtype:
        raise RuntimeError(f"{self.dtype.title} did not match {other.dtype.title}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise RuntimeError(
                f"{name} must be greater than or equal to zero, but got {_shortest(value)}"
            )
    close = eq(self, other)
    if equal_nan and self.is_floating_point():
        close = logical_or(close, logical_and(isnan(self), isnan(other)))
    if rtol == 0 and atol == 0:
        return close
    error = absolute(sub(_countable(self), _countable(other)))
    allowed = add(absolute(mul(other, rtol)), atol)
    return logical_or(close, logical_and(isfinite(error), le(error, allowed)))


def _countable(tensor: Tensor) -> Tensor:
    """Booleans as numbers, which can be subtracted."""
    return to_dtype(tensor, types.int64) if tensor.dtype.category == "bool" else tensor


def _shortest(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


@composite(
    "allclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) "
    "-> bool",
    differentiable=False,
)
def allclose(self: Tensor, other: Tensor, rtol: float, atol: float, equal_nan: bool) -> bool:
    """Whether `isclose` holds for every element."""
    return bool(all_(isclose(self, other, rtol, atol, equal_nan)))


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Returns where ``elements`` are among ``test_elements``; one of both may be a number."""
    if isinstance(test_elements, Tensor):
        sought = reshape(test_elements, (-1,))
        listed = unsqueeze(elements, -1) if isinstance(elements, Tensor) else elements
        found = any_(eq(sought, listed), -1)
    else:
        found = eq(elements, test_elements)
    return logical_not(found) if invert else found


@isclose.samples
def isclose_samples(make: Any) -> Any:
    yield make(4), make(4)
    yield make(3, 4), make(4), {"atol": 1.0}
    yield make(4), make(4), {"rtol": 0.5, "atol": 0.1}
    yield make(4, dtype="int64"), make(4, dtype="int64"), {"atol": 2.0}
    yield make(4, dtype="float64"), make(4)
    yield make(4), make(4), -1.0
