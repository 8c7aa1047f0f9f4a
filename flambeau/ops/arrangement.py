"""Whole tensors seen or laid out differently: grids, broadcasting, diagonals, neighbours."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.core.layout import Size
from flambeau.ops.comparison import logical_xor
from flambeau.ops.conversion import clone
from flambeau.ops.creation import arange, filled, zeros
from flambeau.ops.declare import composite, copy_
from flambeau.ops.indexing import gather
from flambeau.ops.joining import cat, split, stack
from flambeau.ops.pointwise import sub, where
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.scatter import nonzero, nonzero_tuple
from flambeau.ops.view import (
    contiguous,
    diagonal,
    expand,
    flatten,
    reshape,
    slice_,
    transpose,
    unsqueeze,
)
from flambeau.ops.view_operator import view as declare_view
from flambeau.tensor import Tensor, wrap_dim

# -- broadcasting ----------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape to which all of them expand."""
    result: list[int] = []
    for position, given in enumerate(shapes):
        shape = (given,) if isinstance(given, int) else tuple(given)
        result[:0] = [1] * (len(shape) - len(result))
        for d in range(-1, -len(shape) - 1, -1):
            if shape[d] == 1 or shape[d] == result[d]:
                continue
            if result[d] != 1:
                raise RuntimeError(
                    f"Attempting to broadcast a dimension of length {shape[d]} at {d}! Mismatching "
                    f"argument at index {position} had {shape}; but expected shape should be "
                    f"broadcastable to {result}"
                )
            result[d] = shape[d]
    return Size(result)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of the tensors, all expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    shape: tuple[int, ...] = ()
    for tensor in tensors:
        shape = _joint_shape(shape, tensor.shape)
    return tuple(expand(tensor, shape) for tensor in tensors)


def _joint_shape(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    ndim = max(len(a), len(b))
    first = (1,) * (ndim - len(a)) + tuple(a)
    second = (1,) * (ndim - len(b)) + tuple(b)
    for d in range(ndim - 1, -1, -1):
        if 1 not in (first[d], second[d]) and first[d] != second[d]:
            raise RuntimeError(
                f"The size of tensor a ({first[d]}) must match the size of tensor b ({second[d]}) "
                f"at non-singleton dimension {d}"
            )
    return tuple(n if m == 1 else m for m, n in zip(first, second))


@composite("broadcast_to(Tensor(a) self, int[] size) -> Tensor(a)")
def broadcast_to(self: Tensor, size: tuple[int, ...]) -> Tensor:
    """Returns the view expanded to ``size``."""
    return expand(self, size)


# -- grids -----------------------------------------------------------------------------------------


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Views of the 1-d tensors along the axes of the grid that they span."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    if indexing is None:
        warnings.warn(
            "torch.meshgrid: in an upcoming release, it will be required to pass the indexing "
            "argument.",
            UserWarning,
            stacklevel=2,
        )
        indexing = "ij"
    if indexing not in ("ij", "xy"):
        raise RuntimeError(
            'torch.meshgrid: indexing must be one of "xy" or "ij", but received: ' + indexing
        )
    for tensor in tensors:
        if tensor.ndim > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {tensor}"
            )
    swapped = indexing == "xy" and len(tensors) >= 2
    axes = [tensors[1], tensors[0], *tensors[2:]] if swapped else list(tensors)
    shape = tuple(t.numel() for t in axes)
    grids = []
    for d, tensor in enumerate(axes):
        ones = [1] * len(axes)
        ones[d] = tensor.numel()
        grids.append(expand(reshape(tensor, tuple(ones)), shape))
    if swapped:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Rows of all combinations of the 1-d tensors' elements."""
    if len(tensors) == 1:
        return tensors[0]
    grids = meshgrid(*tensors, indexing="ij")
    return stack([flatten(grid) for grid in grids], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Rows of all combinations of ``r`` elements of a vector, in order."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.numel()), r))
    if not rows or r == 0:
        return reshape(slice_(input, 0, 0, 0, 1), (0, r)) if r else slice_(input, 0, 0, 0, 1)
    return stack([input[[row[k] for row in rows]] for k in range(r)], 1)


def atleast_1d(*tensors: Any) -> Any:
    """The tensors with at least one dimension."""
    return _each(tensors, lambda t: reshape(t, (1,)) if t.ndim == 0 else t)


def atleast_2d(*tensors: Any) -> Any:
    """The tensors with at least two dimensions; vectors become rows."""
    return _each(tensors, _two_dimensions)


def atleast_3d(*tensors: Any) -> Any:
    """The tensors with at least three dimensions; matrices get a last one."""
    return _each(tensors, lambda t: t if t.ndim > 2 else unsqueeze(_two_dimensions(t), -1))


def _two_dimensions(tensor: Tensor) -> Tensor:
    if tensor.ndim == 0:
        return reshape(tensor, (1, 1))
    return unsqueeze(tensor, 0) if tensor.ndim == 1 else tensor


def _each(tensors: tuple[Any, ...], change: Any) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], Tensor):
        return change(tensors[0])
    listed = tensors[0] if len(tensors) == 1 else tensors
    return tuple(change(t) for t in listed)


def block_diag(*tensors: Tensor) -> Tensor:
    """Returns the matrices along the diagonal of zeros; scalars and vectors count as rows."""
    blocks = [_two_dimensions(t) for t in tensors]
    height, width = sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)
    rows = []
    left = 0
    for block in blocks:
        before = zeros(block.shape[0], left, dtype=block.dtype)
        after = zeros(block.shape[0], width - left - block.shape[1], dtype=block.dtype)
        rows.append(cat([before, block, after], 1))
        left += block.shape[1]
    return cat(rows, 0) if height else zeros(0, width)


# -- forms -----------------------------------------------------------------------------------------


@composite("ravel(Tensor(a) self) -> Tensor(a)")
def ravel(self: Tensor) -> Tensor:
    """Returns the elements in one dimension; a view of contiguous tensors."""
    return reshape(contiguous(self), (-1,))


@composite("adjoint(Tensor(a) self) -> Tensor(a)")
def adjoint(self: Tensor) -> Tensor:
    """Returns the conjugate transpose of matrices; of real ones a view."""
    return transpose(self, -2, -1)


@composite("conj(Tensor(a) self) -> Tensor(a)")
def conj(self: Tensor) -> Tensor:
    """Returns the conjugate: real tensors as they are."""
    return self


@composite("real(Tensor(a) self) -> Tensor(a)", variants="function")
def real(self: Tensor) -> Tensor:
    """Returns the real part: real tensors as they are."""
    return self


@composite("split_with_sizes(Tensor self, int[] split_sizes, int dim=0) -> Tensor[]")
def split_with_sizes(self: Tensor, split_sizes: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:
    """Returns views of the given sizes along a dimension."""
    return split(self, list(split_sizes), dim)


@declare_view(
    "unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)", variants="method"
)
def unfold(layout: Any, dimension: int, size: int, step: int) -> Any:
    """Returns a view of all windows of ``size`` along a dimension, as a last dimension."""
    dimension = wrap_dim(dimension, layout.ndim)
    shape, strides = list(layout.shape) or [1], list(layout.strides) or [1]
    n = shape[dimension]
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if size > n:
        raise RuntimeError(
            f"maximum size for tensor at dimension {dimension} is {n} but size is {size}"
        )
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    stride = strides[dimension]
    if layout.ndim:
        shape[dimension], strides[dimension] = (n - size) // step + 1, stride * step
    else:
        shape, strides = [], []
    return layout.view([*shape, size], [*strides, stride], layout.offset)


@unfold.derivative
def unfold_backward(grad: Tensor, self_layout: Any, dimension: int, size: int, step: int) -> Any:
    # Windows overlap, so their positions are added one after the other.
    whole = filled(self_layout.with_dtype(grad.dtype).contiguous(), 0)
    if self_layout.ndim == 0:
        return {"self": sum_(grad, -1) if size else whole}
    dimension = wrap_dim(dimension, self_layout.ndim)
    count = grad.shape[dimension]
    for k in range(size):
        part = slice_(whole, dimension, k, k + (count - 1) * step + 1, step)
        part += grad[..., k]
    return {"self": whole}


# -- neighbours and diagonals ----------------------------------------------------------------------


@composite("trace(Tensor self) -> Tensor")
def trace(self: Tensor) -> Tensor:
    """Returns the sum of a matrix's diagonal."""
    if self.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {self.ndim}")
    return sum_(diagonal(self))


@composite(
    "diff(Tensor self, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor"
)
def diff(self: Tensor, n: int, dim: int, prepend: Tensor | None, append: Tensor | None) -> Tensor:
    """Returns the ``n``-th differences of neighbours along a dimension."""
    if self.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    if n == 0:
        return clone(self)
    dim = wrap_dim(dim, self.ndim)
    parts = [t for t in (prepend, self, append) if t is not None]
    joined = cat(parts, dim) if len(parts) > 1 else self
    minus = logical_xor if joined.dtype.category == "bool" else sub
    for _ in range(min(n, joined.shape[dim])):
        length = joined.shape[dim]
        joined = minus(
            slice_(joined, dim, 1, length, 1), slice_(joined, dim, 0, max(length - 1, 0), 1)
        )
    return joined


@composite("take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor")
def take_along_dim(self: Tensor, indices: Tensor, dim: int | None) -> Tensor:
    """Returns the elements at ``indices`` along a dimension; the other dimensions broadcast."""
    if dim is None:
        return gather(flatten(self), 0, _from_the_end(flatten(indices), self.numel()))
    if self.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {self.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    dim = wrap_dim(dim, self.ndim)
    shape = list(_joint_shape(_without(self.shape, dim), _without(indices.shape, dim)))
    own, chosen = list(shape), list(shape)
    own[dim], chosen[dim] = self.shape[dim], indices.shape[dim]
    places = _from_the_end(expand(indices, tuple(chosen)), self.shape[dim])
    return gather(expand(self, tuple(own)), dim, places)


def _from_the_end(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end."""
    return where(indices < 0, indices + size, indices)


def _without(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim + 1 :])


@composite("argwhere(Tensor self) -> Tensor", differentiable=False)
def argwhere(self: Tensor) -> Tensor:
    """Returns the positions of the elements that are not zero, one per row."""
    return nonzero(self)


def nonzero_of(input: Tensor, *, out: Tensor | None = None, as_tuple: bool = False) -> Any:
    """``torch.nonzero``: positions of what is not zero, as rows or as a tuple of columns."""
    if as_tuple:
        return nonzero_tuple(input)
    return nonzero(input) if out is None else nonzero(input, out=out)


@composite(
    "fill_diagonal_(Tensor self, Scalar fill_value, bool wrap=False) -> Tensor", variants="method"
)
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool) -> Tensor:
    """Writes a number along the main diagonal."""
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    shape, strides = self.shape, self.stride()
    step, length = sum(strides), min(shape)
    if wrap and self.ndim == 2 and shape[0] > shape[1] + 1:
        rows = arange(0, shape[0] * shape[1], shape[1] + 1)
        self[rows // shape[1], rows % shape[1]] = fill_value
        return self
    diagonal_ = self.as_strided((length,), (step,), self.storage_offset())
    copy_(diagonal_, expand(filled(diagonal_._layout.view((), (), 0), fill_value), (length,)))
    return self


@composite("dist(Tensor self, Tensor other, Scalar p=2) -> Tensor")
def dist(self: Tensor, other: Tensor, p: Any) -> Tensor:
    """Returns the p-norm of the difference."""
    return sub(self, other).norm(p)


@composite("cross(Tensor self, Tensor other, int? dim=None) -> Tensor")
def cross(self: Tensor, other: Tensor, dim: int | None) -> Tensor:
    """Returns the vector products along a dimension of size 3 (the first such by default)."""
    if dim is None:
        dim = next((d for d, n in enumerate(self.shape) if n == 3), -1)
    if self.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {self.shape[dim]} and "
            f"{other.shape[dim]}"
        )
    a, b = broadcast_tensors(self, other)
    (a0, a1, a2), (b0, b1, b2) = a.unbind(dim), b.unbind(dim)
    return stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape."""
    return input.shape == other.shape


# -- samples ---------------------------------------------------------------------------------------


@unfold.samples
def unfold_samples(make: Any) -> Any:
    yield make(7), 0, 3, 2
    yield make(2, 7), 1, 3, 1
    yield make(5, 4), 0, 2, 3
    yield make(3), 0, 5, 1
    yield make(3), 0, 2, 0


@trace.samples
def trace_samples(make: Any) -> Any:
    yield (make(3, 4),)
    yield (make(3),)


@diff.samples
def diff_samples(make: Any) -> Any:
    yield (make(5),)
    yield make(3, 5), 2
    yield make(3, 5), 1, 0
    yield make(3, 5), 1, -1, make(3, 1), make(3, 2)
    yield (make(),)


@take_along_dim.samples
def take_along_dim_samples(make: Any) -> Any:
    yield make(3, 4), make(3, 2, dtype="int64", low=0, high=4), 1
    yield make(3, 4), make(1, 4, dtype="int64", low=0, high=3), 0
    yield make(3, 4), make(5, dtype="int64", low=0, high=12)


@cross.samples
def cross_samples(make: Any) -> Any:
    yield make(4, 3), make(4, 3), 1
    yield make(3, 2), make(3, 2), 0


@ravel.samples
def ravel_samples(make: Any) -> Any:
    yield (make(2, 3),)
    yield (make(2, 3, transposed=True),)


@dist.samples
def dist_samples(make: Any) -> Any:
    yield make(2, 3), make(2, 3)
    yield make(2, 3), make(3), 1


METHODS: dict[str, Any] = {"nonzero": nonzero_of}
