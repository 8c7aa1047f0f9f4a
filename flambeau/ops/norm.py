"""Norms of vectors: the elements over some dimensions, taken as one vector."""

from __future__ import annotations

from math import inf

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, reduced_dims
from flambeau.ops.fused import FusedReduction
from flambeau.ops.pointwise import where
from flambeau.ops.reduction import restore_reduced
from flambeau.ops.reduction import sum as sum_
from flambeau.tensor import Tensor

_NAME = "linalg_vector_norm"


# Orders with a kernel of their own; any other is the last one with its number.
_KERNELS = {
    2.0: FusedReduction(_NAME, "sum", lambda x: x * x, k.sqrt),
    1.0: FusedReduction(_NAME, "sum", k.absolute),
    0.0: FusedReduction(_NAME, "sum", lambda x: (x != 0).cast(x.dtype)),
    inf: FusedReduction(_NAME, "max", k.absolute),
    -inf: FusedReduction(_NAME, "min", k.absolute),
}
_ANY_ORDER = FusedReduction(
    _NAME,
    "sum",
    lambda x, order, inverse: math.pow(k.absolute(x), order),
    lambda total, order, inverse: math.pow(total, inverse),
)


@composite(
    "_vector_norm(Tensor self, Scalar ord, int[1]? dim, bool keepdim) -> Tensor", variants=""
)
def vector_norm(self, ord, dim, keepdim):
    """``sum(|x| ** ord) ** (1 / ord)`` over ``dim``; the limits for 0 and infinite orders."""
    order = float(ord)
    dims = reduced_dims(dim, self.ndim)
    if order < 0 or order == inf:
        _check_not_empty(self, order, dim, dims)
    kernel = _KERNELS.get(order)
    if kernel is not None:
        return kernel((self,), dims, keepdim)[0]
    return _ANY_ORDER((self,), dims, keepdim, (order, 1.0 / order))[0]


vector_norm.node_name = "LinalgVectorNormBackward0"


def _check_not_empty(self: Tensor, order: float, dim, dims: tuple[int, ...]) -> None:
    text = f"linalg.vector_norm cannot compute the {order:g} norm on "
    if self.numel() or all(self.shape[d] for d in dims):
        return
    if dim is None or len(dims) == self.ndim:
        text += "an empty tensor because the operation does not have an identity"
    else:
        empty = next(d for d in dims if self.shape[d] == 0)
        text += (
            f"the dimension {empty}because this dimension is empty and the operation "
            "does not have an identity"
        )
    raise RuntimeError(text)


@vector_norm.derivative
def vector_norm_backward(grad, self, result, ord, dim, keepdim):
    order = float(ord)
    grad = restore_reduced(grad, self._layout, dim, keepdim)
    result = restore_reduced(result, self._layout, dim, keepdim)
    if order == 0.0:
        return {}
    if order == 1.0:
        return {"self": grad * self.sgn()}
    if order in (inf, -inf):
        chosen = to_dtype(self.abs() == result, grad.dtype)
        count = sum_(chosen, reduced_dims(dim, self.ndim), True)
        return {"self": grad / count * chosen * self.sgn()}
    if order == 2.0:
        # At the origin the gradient is taken as zero.
        return {"self": self * where(result == 0, 0.0, grad / result)}
    ratio = where(result == 0, 0.0, self.abs() / result)
    powers = ratio.pow(order - 1)
    if order < 1:
        powers = where(self == 0, 0.0, powers)
    return {"self": grad * self.sgn() * powers}


@composite(
    "norm(Tensor self, any p=2, any dim=None, bool keepdim=False, *, ScalarType? dtype=None) "
    "-> Tensor",
    variants="function method out",
)
def norm(self, p, dim, keepdim, dtype):
    """Returns the ``p``-norm over ``dim`` (all dimensions by default); ``"fro"`` is 2.

    In ``dtype`` where given.
    """
    order = 2.0 if p is None or p == "fro" else p
    if isinstance(order, str):
        raise RuntimeError(f"linalg.matrix_norm: Order {order} not supported.")
    if not (self.dtype.is_floating_point or self.dtype.is_complex):
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. "
            f"Got {self.dtype.title}"
        )
    if dtype is not None and dtype is not self.dtype:
        if dtype.itemsize < self.dtype.itemsize:
            raise RuntimeError(
                f"linalg.vector_norm: the dtype of the input ({self.dtype.title}) should be "
                f"convertible without narrowing to the specified dtype ({dtype.title})"
            )
        self = to_dtype(self, dtype)
    if isinstance(dim, list):
        dim = tuple(dim)
    return vector_norm(self, order, dim, keepdim)


@norm.samples
def norm_samples(make):
    for order in (2, 1, float("inf"), float("-inf"), 0, 3, 0.5, -1.5):
        yield make(3, 5), order
        yield make(3, 4, 5), order, (0, 2), True
    yield (make(3, 5),)
    yield make(4, 3, transposed=True), 2, 0
    yield make(values=[[0, 0], [3, 4]]), 2, 1
    yield make(values=[[0, 0], [3, -4]]), 3, 1
    yield make(values=[[2, -2], [3, 4]]), float("inf"), 1
    yield (make(0),)
    yield make(0), float("inf")
    yield make(0, 2), float("inf"), 0
    yield (make(3, dtype="int64"),)
    yield make(4, 5, dtype="bfloat16"), 2, 1
