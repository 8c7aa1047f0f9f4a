"""Norms of vectors."""

from __future__ import annotations

import math as numbers

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, reduced_dims
from flambeau.ops.fused import FusedReduction
from flambeau.ops.reduction import (
    reduction_samples,
    restore_reduced,
    several_dims_samples,
    zero_where_zero,
)
from flambeau.ops.reduction import sum as sum_

_LARGEST = FusedReduction("norm_inf", "max", k.absolute)
_SMALLEST = FusedReduction("norm_inf", "min", k.absolute)
_COUNT = FusedReduction("norm_0", "sum", lambda x: k.where(x != 0, x.like(1.0), 0.0))
_SUM = FusedReduction("norm_1", "sum", k.absolute)
_ROOT = FusedReduction("norm_2", "sum", lambda x: x * x, k.sqrt)
_POWER = FusedReduction(
    "norm_p",
    "sum",
    lambda x, p, inverse: math.pow(k.absolute(x), p),
    lambda total, p, inverse: math.pow(total, inverse),
)
_KINDS = {numbers.inf: _LARGEST, -numbers.inf: _SMALLEST, 0.0: _COUNT, 1.0: _SUM, 2.0: _ROOT}


@composite(
    "linalg_vector_norm(Tensor self, float ord=2, int[1]? dim=None, bool keepdim=False, *, "
    "ScalarType? dtype=None) -> Tensor",
    variants="",
)
def vector_norm(self, ord, dim, keepdim, dtype):
    """Returns ``sum(abs(self) ** ord) ** (1 / ord)`` over ``dim``."""
    if not self.dtype.is_floating_point:
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
            f"{self.dtype.title}"
        )
    if dtype is not None:
        self = to_dtype(self, dtype)
    dims = reduced_dims(dim, self.ndim)
    if abs(ord) == numbers.inf or ord < 0:
        _check_identity(self, dims, ord)
    kind = _KINDS.get(ord)
    if kind is not None:
        return kind((self,), dims, keepdim)[0]
    return _POWER((self,), dims, keepdim, (ord, 1.0 / ord))[0]


def _check_identity(self, dims, ord) -> None:
    if self.numel():
        return
    if len(dims) == self.ndim:
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {ord:g} norm on an empty tensor because the "
            "operation does not have an identity"
        )
    for d in dims:
        if self.shape[d] == 0:
            raise RuntimeError(
                f"linalg.vector_norm cannot compute the {ord:g} norm on the dimension {d} because "
                "this dimension is empty and the operation does not have an identity"
            )


@vector_norm.derivative
def vector_norm_backward(grad, self, result, ord, dim, keepdim):
    layout = self._layout
    grad = restore_reduced(grad, layout, dim, keepdim)
    norm = restore_reduced(result, layout, dim, keepdim)
    if ord == 0:
        return {}
    if ord == 1:
        return {"self": self.sgn() * grad}
    if ord == 2:
        return {"self": self * zero_where_zero(grad / norm, norm)}
    if abs(ord) == numbers.inf:
        chosen = self.abs() == norm
        count = sum_(chosen, reduced_dims(dim, layout.ndim), True)
        return {"self": self.sgn() * (to_dtype(chosen, grad.dtype) * (grad / count))}
    if ord < 1:
        scaled = self.sgn() * zero_where_zero(self.abs().pow(ord - 1), self)
        return {"self": scaled * grad * norm.pow(1 - ord)}
    factor = zero_where_zero(grad / norm.pow(ord - 1), norm)
    if ord < 2:
        return {"self": self.sgn() * self.abs().pow(ord - 1) * factor}
    return {"self": self * self.abs().pow(ord - 2) * factor}


vector_norm.node_name = "LinalgVectorNormBackward0"


@composite(
    'norm(Tensor self, any p="fro", any dim=None, bool keepdim=False, ScalarType? dtype=None) '
    "-> Tensor",
    variants="function method out",
)
def norm(self, p, dim, keepdim, dtype):
    """Returns the ``p``-norm over ``dim``; ``"fro"`` is the root of the sum of squares."""
    if p == "nuc":
        raise RuntimeError("norm(): the nuclear norm needs torch.linalg.matrix_norm")
    order = 2.0 if p is None or p == "fro" else float(p)
    dims = tuple(dim) if isinstance(dim, list) else dim
    if isinstance(dims, int):
        dims = (dims,)
    return vector_norm.record([self, order, dims, keepdim, dtype])


@norm.samples
def norm_samples(make):
    for sample in several_dims_samples(make):
        yield sample[0], 2, *sample[1:]
    for p in (0, 0.5, 1, 1.5, 3, numbers.inf, -numbers.inf):
        yield make(3, 5), p, 1
    yield make(values=[[0, 0, 0], [3, 4, 0]]), 2, 1
    yield (make(33),)
    yield make(3, 5, dtype="float64"), "fro"


@vector_norm.samples
def vector_norm_samples(make):
    for sample in reduction_samples(make):
        yield sample[0], 2, *sample[1:]
