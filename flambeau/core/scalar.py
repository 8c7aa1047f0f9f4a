"""Python numbers as operands: their category and how they take part in type promotion."""

from __future__ import annotations

from collections.abc import Iterable

from flambeau.core import dtype as types
from flambeau.core.config import config
from flambeau.core.dtype import dtype, promote_types

Number = bool | int | float | complex
_RANK = {"bool": 0, "integer": 1, "floating": 2, "complex": 3}


def default_dtype() -> dtype:
    """What Python floats become: ``torch.get_default_dtype()``."""
    return types.BY_NAME[config.default_dtype]


def scalar_dtype(kind: type, default: dtype) -> dtype:
    """The type a Python number of class ``kind`` stands for."""
    if kind is bool:
        return types.bool_
    if kind is int:
        return types.int64
    if kind is float:
        return default
    return default.to_complex()


def result_type(
    dimensioned: Iterable[dtype], zero_dim: Iterable[dtype], scalars: Iterable[dtype]
) -> dtype:
    """PyTorch's ``result_type``: tensors with dimensions outrank 0-d tensors, which outrank
    numbers.

    A lower-ranked operand changes the result only if its category (bool < integer < floating <
    complex) is above that of every higher-ranked one.
    """
    result: dtype | None = None
    for group in (dimensioned, zero_dim, scalars):
        merged: dtype | None = None
        for d in group:
            merged = d if merged is None else promote_types(merged, d)
        if merged is None:
            continue
        if result is None or _RANK[merged.category] > _RANK[result.category]:
            result = merged if result is None else _lift(result, merged)
    assert result is not None, "result_type of no operands"
    return result


def _lift(higher: dtype, lower: dtype) -> dtype:
    """``lower`` has the greater category; a real tensor keeps its precision in a complex result."""
    if lower.is_complex and higher.is_floating_point:
        return higher.to_complex()
    return lower
