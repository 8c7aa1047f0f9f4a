"""Sizes as tuples, and state dictionaries of wrapped models, under PyTorch's path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.nn.tuples import as_tuple


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes a tuple of ``n`` from a number; iterables are kept."""

    def parse(x: Any) -> tuple[Any, ...]:
        return as_tuple(x, n)

    parse.__name__ = name
    return parse


_single = _ntuple(1, "_single")
_pair = _ntuple(2, "_pair")
_triple = _ntuple(3, "_triple")
_quadruple = _ntuple(4, "_quadruple")


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Takes ``prefix`` off the keys of ``state_dict``, in place: ``"module."`` of DataParallel."""
    tables = [state_dict]
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        tables.append(metadata)
        if prefix.rstrip(".") in metadata:
            metadata[""] = metadata.pop(prefix.rstrip("."))
    for table in tables:
        for key in list(table):
            if key and key.startswith(prefix):
                table[key[len(prefix) :]] = table.pop(key)
