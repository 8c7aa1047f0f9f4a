"""How a loss is reduced: the names, their numbers in the operators, and the old switches."""

from __future__ import annotations

import warnings

NONE = 0
MEAN = 1
SUM = 2

_NUMBERS = {"none": NONE, "mean": MEAN, "elementwise_mean": MEAN, "sum": SUM}


def reduction_number(reduction: str) -> int:
    """Returns the number that loss operators take for ``"none"``, ``"mean"`` or ``"sum"``."""
    if reduction not in _NUMBERS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if reduction == "elementwise_mean":
        warnings.warn(
            "reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.",
            stacklevel=3,
        )
    return _NUMBERS[reduction]


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """``reduction``, or what the old switches mean where one of them is given (and a warning)."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is not None and not reduce:
        meant = "none"
    elif size_average is None or size_average:
        meant = "mean"
    else:
        meant = "sum"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{meant}' instead.",
        stacklevel=3,
    )
    return meant
