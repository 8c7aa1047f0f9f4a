"""Sample tables as arguments for flambeau or, in tools/record_ops.py, for PyTorch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import flambeau.bindings  # noqa: F401 - declares the operators
from flambeau.ops.operator import OPERATORS, Operator


class Made:
    """A tensor to be: values, type name, and whether it is seen transposed."""

    def __init__(self, values: np.ndarray, dtype: str, transposed: bool) -> None:
        self.values = values
        self.dtype = dtype
        self.transposed = transposed

    @property
    def is_float(self) -> bool:
        return self.dtype in ("float16", "bfloat16", "float32", "float64")


class Maker:
    """``make(*shape, dtype=…, low=…, high=…, transposed=…)``: the same numbers on every run."""

    def __init__(self, name: str) -> None:
        self.random = np.random.default_rng(zlib.crc32(name.encode()))

    def __call__(
        self,
        *shape: int,
        dtype: str = "float32",
        low: float = -2,
        high: float = 2,
        transposed: bool = False,
        values: Any = None,
    ) -> Made:
        if values is not None:
            numbers = np.asarray(values, np.float64)
        elif dtype == "bool":
            numbers = self.random.integers(0, 2, shape)
        elif dtype.startswith(("int", "uint")):
            first = max(int(low), 0) if dtype.startswith("u") else int(low)
            numbers = self.random.integers(first, max(int(high), first + 1), shape)
        else:
            numbers = self.random.uniform(low, high, shape)
        kind = "float32" if dtype == "bfloat16" else dtype
        return Made(np.asarray(numbers).astype(kind), dtype, transposed)


def samples(op: Operator) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments and keywords of each sample, with `Made` in the tensors' places."""
    assert op.sample_table is not None
    for sample in op.sample_table(Maker(op.name)):
        values = list(sample) if isinstance(sample, tuple) else [sample]
        keywords = values.pop() if values and isinstance(values[-1], dict) else {}
        yield values, keywords


def convert(value: Any, build: Callable[[Made], Any]) -> Any:
    """The same structure with every `Made` built and every type given by name looked up."""
    if isinstance(value, Made):
        return build(value)
    if isinstance(value, (list, tuple)):
        return type(value)(convert(v, build) for v in value)
    if isinstance(value, dict):
        return {k: convert(v, build) for k, v in value.items()}
    return value


def with_samples() -> list[Operator]:
    """Every operator that carries a table, by name."""
    return sorted(
        (op for op in OPERATORS.values() if op.sample_table is not None), key=lambda op: op.name
    )


def leaves(value: Any, kind: type) -> list[Any]:
    """The objects of a type inside nested sequences and dictionaries, in order."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, dict):
        return [found for v in value.values() for found in leaves(v, kind)]
    if isinstance(value, (list, tuple)):
        return [found for v in value for found in leaves(v, kind)]
    return []


def cotangent(shape: Any, index: int) -> np.ndarray:
    """The fixed vector that output ``index``'s gradient is seeded with."""
    count = int(np.prod(shape, dtype=np.int64))
    return (np.cos(np.arange(count) * 1.7 + index) + 0.3).reshape(tuple(shape))
