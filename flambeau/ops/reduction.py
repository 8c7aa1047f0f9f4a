"""Reductions: sums, products, extremes, their positions, and what is made of them."""

from __future__ import annotations

from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.declare import composite, operation_dtype, reduction
from flambeau.ops.view import expand, unsqueeze, view
from flambeau.tensor import Tensor


def accumulate_in(source, asked):
    """Sums and products: integers in int64, half types in float32; ``dtype=`` overrides."""
    result = asked or (source if source.category in ("floating", "complex") else types.int64)
    return operation_dtype(result), result


@reduction(
    "sum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    combine="sum",
    promote=accumulate_in,
    variants="function method out",
)
def sum(self):
    """Returns the sum over ``dim`` (all dimensions by default)."""
    return self


@sum.derivative
def sum_backward(grad, self_layout, dim, keepdim):
    return {"self": expand_reduced(grad, self_layout, dim, keepdim)}


def expand_reduced(grad: Tensor, layout: Layout, dim, keepdim: bool) -> Tensor:
    """A reduced tensor repeated along the dimensions of ``layout`` that were reduced."""
    if not keepdim and grad.ndim != layout.ndim:
        ndim = layout.ndim
        dims = range(ndim) if dim in (None, ()) else sorted(d % ndim for d in as_dims(dim))
        for d in dims:
            grad = unsqueeze(grad, d)
    return expand(grad, layout.shape)


def as_dims(dim) -> tuple[int, ...]:
    return dim if isinstance(dim, tuple) else (dim,)


def sum_to_shape(tensor: Tensor, shape) -> Tensor:
    """The sum over the dimensions along which ``shape`` was broadcast."""
    lead = tensor.ndim - len(shape)
    dims = tuple(range(lead)) + tuple(
        lead + d for d, n in enumerate(shape) if n == 1 and tensor.shape[lead + d] != 1
    )
    if dims:
        tensor = sum(tensor, dims, True)
    if lead:
        tensor = view(tensor, tuple(shape))
    return tensor


@composite(
    "mean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    variants="function method out",
)
def mean(self, dim, keepdim, dtype):
    """Returns the mean over ``dim`` (all dimensions by default)."""
    if (dtype or self.dtype).category not in ("floating", "complex"):
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {self.dtype.title}"
        )
    total = sum(self, dim, keepdim, dtype=dtype)
    return total / (self.numel() / max(total.numel(), 1) if self.numel() else float("nan"))
