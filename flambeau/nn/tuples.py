"""Sizes given as one number or one per dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def as_tuple(value: Any, length: int) -> tuple[Any, ...]:
    """``value`` as a tuple: its entries where it has some, else itself ``length`` times."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * length
