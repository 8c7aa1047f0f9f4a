"""``torch.linalg``: linear algebra under its own names."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.arrangement import cross as _cross
from flambeau.ops.linear_algebra import linalg_norm as norm
from flambeau.ops.linear_algebra import matrix_norm, matrix_power, vander, vecdot
from flambeau.ops.linear_algebra import multi_dot as _multi_dot
from flambeau.ops.matmul import matmul
from flambeau.ops.norm import vector_norm
from flambeau.ops.view import diagonal as _diagonal
from flambeau.tensor import Tensor

__all__ = [
    "cross",
    "diagonal",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "multi_dot",
    "norm",
    "vander",
    "vecdot",
    "vector_norm",
]


def cross(input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """Returns the cross products of vectors of three along ``dim``."""
    result: Tensor = _cross(input, other, dim)
    return result if out is None else out.resize_(result.shape).copy_(result)  # type: ignore[attr-defined]


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Returns the diagonals of the matrices in the last two dimensions, as a view."""
    found: Tensor = _diagonal(A, offset, dim1, dim2)
    return found


def multi_dot(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """Returns the product of several matrices, in the cheapest order."""
    result: Tensor = _multi_dot(tuple(tensors))
    return result if out is None else out.resize_(result.shape).copy_(result)  # type: ignore[attr-defined]
