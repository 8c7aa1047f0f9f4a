"""Reading and writing at positions given by tensors: the primitives under all indexing.

Positions are turned into offsets by a pointwise call; `take` reads there, `scatter_rows` writes or
combines there.  Indices are checked when the operator is called, because an error must name its
line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compiler import kernel as k
from flambeau.compiler.kernel import Value
from flambeau.compiler.scatter import plan_nonzero, plan_scatter, plan_scatter_along
from flambeau.core import dtype as types
from flambeau.core.layout import Layout, may_overlap_itself, reach
from flambeau.engine.call import Call, Library, Lowered, View
from flambeau.engine.watch import host_check
from flambeau.interchange import shared_array
from flambeau.ops import call as path
from flambeau.ops.creation import arange, empty_tensor, filled
from flambeau.ops.declare import composite, copy_, kernel_operator
from flambeau.ops.fused import FusedPointwise
from flambeau.ops.view import as_strided, contiguous, reshape
from flambeau.tensor import Tensor


def bounds(index: Tensor) -> tuple[int, int] | None:
    """The least and the greatest entry; None for an empty tensor."""
    if not index.numel():
        return None
    values = shared_array(Tensor._from_storage(index._storage, index._layout))
    return int(values.min()), int(values.max())


@host_check
def check_indices(index: Tensor, dim: int, size: int) -> None:
    """IndexError where an entry is outside ``[-size, size)``."""
    found = bounds(index)
    if found is None or (found[0] >= -size and found[1] < size):
        return
    wrong = found[0] if found[0] < -size else found[1]
    raise IndexError(f"index {wrong} is out of bounds for dimension {dim} with size {size}")


@host_check
def check_range(index: Tensor, size: int, error: type[Exception], message: str) -> None:
    """The error where an entry is outside ``[0, size)``; its message may name the ``{wrong}``."""
    found = bounds(index)
    if found is not None and (found[0] < 0 or found[1] >= size):
        raise error(message.format(wrong=found[0] if found[0] < 0 else found[1]))


# -- reading ---------------------------------------------------------------------------------------


def _take_body(source: Any, *rest: Value) -> Value:
    """``rest``: the indices, the offset of what is not indexed, then size and stride per index."""
    count = (len(rest) - 1) // 3
    offset = rest[count]
    for position, index in enumerate(rest[:count]):
        size, stride = rest[count + 1 + 2 * position], rest[count + 2 + 2 * position]
        entry = index.cast(types.int64)
        offset = offset + k.where(entry < 0, entry + size, entry) * stride
    return source(offset)


_TAKE = FusedPointwise(
    "index",
    _take_body,
    contiguous=True,
    indexed=(0,),
    positions=lambda layouts, static: (static[0],),
)


def _offsets_body(*rest: Value) -> Value:
    return _take_body(lambda offset: offset, *rest)


_OFFSETS = FusedPointwise(
    "offsets",
    _offsets_body,
    contiguous=True,
    results=lambda layouts, static: (types.int64,),
    positions=lambda layouts, static: (static[0],),
)


def take(
    source: Tensor,
    walk: Layout,
    indices: Sequence[Tensor],
    sizes: Sequence[int],
    strides: Sequence[int],
) -> Tensor:
    """``source`` at ``walk`` (offsets per result index) plus each index times its stride.

    ``walk`` has the result's shape, the indices broadcast to it; negative ones count from the end.
    """
    numbers = [n for pair in zip(sizes, strides, strict=True) for n in pair]
    return _TAKE((source, *indices), numbers, (walk,))[0]


def offsets_of(
    walk: Layout, indices: Sequence[Tensor], sizes: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """The offsets that :func:`take` reads at, as a contiguous int64 tensor of ``walk``'s shape."""
    numbers = [n for pair in zip(sizes, strides, strict=True) for n in pair]
    return contiguous(_OFFSETS(tuple(indices), numbers, (walk,))[0])


def walk_layout(layout: Layout, shape: Sequence[int], strides: Sequence[int]) -> Layout:
    """A running offset over ``shape``."""
    return Layout.of(shape, types.int64, layout.device, strides)


# -- writing ---------------------------------------------------------------------------------------


class _ScatterRows:
    """Writes rows of values into a destination at offsets; see `compiler/scatter.py`."""

    name = "scatter"

    def build(self, key: Any, first_slot: int) -> Call:
        _, slots, layouts, (mode, rows, length), destinations = key
        values, offsets = (View(slot, layout) for slot, layout in zip(slots, layouts, strict=True))
        ((slot, layout),) = destinations
        write = View(slot, layout)
        operands = {"destination": write, "values": values, "offsets": offsets}

        def lower(_: Any) -> Lowered:
            return Lowered(plan_scatter(layout.dtype, mode, rows, length), operands)

        return Call(self.name, key, (values, offsets, write), (write,), (), (), Library(lower))


_SCATTER_ROWS = _ScatterRows()


def scatter_rows(
    target: Tensor, values: Tensor, offsets: Tensor, mode: str, length: int = 1
) -> None:
    """``target`` at ``offsets + 0 … length - 1`` gets, or is combined with, rows of ``values``.

    Records no graph.  ``mode`` is one of `compiler.scatter.MODES`.
    """
    if not values.numel():
        return
    rows = values.numel() // length
    path.record(_SCATTER_ROWS, (contiguous(values), offsets), (mode, rows, length), (), (target,))


class _ScatterAlong:
    """Writes values into a destination along a dimension; see `compiler/scatter.py`."""

    name = "scatter"

    def build(self, key: Any, first_slot: int) -> Call:
        _, slots, layouts, (mode, blocks, size), destinations = key
        values, index = (View(slot, layout) for slot, layout in zip(slots, layouts, strict=True))
        ((slot, layout),) = destinations
        write = View(slot, layout)
        operands = {"destination": write, "values": values, "index": index}
        step = int(values.layout.ndim > 0)

        def lower(_: Any) -> Lowered:
            steps = plan_scatter_along(layout.dtype, index.layout.dtype, mode, blocks, size, step)
            return Lowered(steps, operands)

        return Call(self.name, key, (values, index, write), (write,), (), (), Library(lower))


_SCATTER_ALONG = _ScatterAlong()


def scatter_along(target: Tensor, dim: int, index: Tensor, values: Tensor, mode: str) -> None:
    """A contiguous ``target`` gets, or is combined with, ``values`` at ``index`` along ``dim``.

    ``index`` and ``values`` have one shape, nowhere larger than the target's but along ``dim``.
    Records no graph.
    """
    if not values.numel():
        return
    layout, shape = target._layout, tuple(index.shape)
    stride, size = (layout.strides[dim], layout.shape[dim]) if layout.ndim else (1, 1)
    if not layout.ndim or shape[:dim] + shape[dim + 1 :] == (
        layout.shape[:dim] + layout.shape[dim + 1 :]
    ):
        blocks = _blocks(shape, dim)
        operands = (_single(values), contiguous(index))
        path.record(_SCATTER_ALONG, operands, (mode, blocks, size), (), (target,))
        return
    strides = [0 if d == dim else s for d, s in enumerate(layout.strides)]
    offsets = offsets_of(walk_layout(layout, shape, strides), (index,), (size,), (stride,))
    scatter_rows(target, values, offsets, mode)


def _blocks(shape: Sequence[int], dim: int) -> tuple[int, int, int]:
    """A shape as (outer, count, inner) around ``dim``."""
    if not shape:
        return 1, 1, 1
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def _single(values: Tensor) -> Tensor:
    """One number that was expanded as a scalar; everything else row by row."""
    layout = values._layout
    if layout.ndim and not any(layout.strides):
        return Tensor._from_storage(values._storage, layout.view((), (), layout.offset))
    return contiguous(values if layout.ndim else reshape(values, (1,)))


# -- positions of true elements --------------------------------------------------------------------


@kernel_operator("_nonzero_positions(Tensor mask, int count) -> Tensor", variants="")
def nonzero_positions(mask, count):
    # One place more: the kernel writes before it knows whether to keep.
    return Layout.of((count + 1,), types.int64, mask.device)


nonzero_positions.differentiable = False


@nonzero_positions.lower
def nonzero_positions_lower(call, target, mask, count):
    operands = {"mask": call.reads[0], "result": call.writes[0]}
    return Lowered(plan_nonzero(mask.numel), operands)


def true_positions(mask: Tensor) -> Tensor:
    """Row-major positions of the true elements, int64."""
    flat = contiguous(mask)
    count = int(shared_array(Tensor._from_storage(flat._storage, flat._layout)).sum())
    positions = nonzero_positions(reshape(flat, (flat.numel(),)), count)
    layout = positions._layout
    return Tensor._from_storage(positions._storage, layout.view((count,), (1,), 0))


def coordinate(positions: Tensor, shape: Sequence[int], dim: int) -> Tensor:
    """The index along ``dim`` of row-major positions."""
    if len(shape) == 1:
        return positions
    below = math.prod(shape[dim + 1 :])
    return _COORDINATES[dim == 0, below == 1]((positions,), (below, shape[dim]))[0]


def _quotient(a: Value, b: Value) -> Value:
    """Whole quotients of positions: exact, for they have less than 52 bits, and in vectors."""
    return (a.cast(types.float64) / b.cast(types.float64)).cast(types.int64)


def _coordinate_body(first: bool, last: bool) -> Callable[..., Value]:
    def body(position: Value, below: Value, size: Value) -> Value:
        above = position if last else _quotient(position, below)
        return above if first else above - _quotient(above, size) * size

    return body


# By whether the dimension is the first, and whether the numbers of the ones after it are 1.
_COORDINATES = {
    (first, last): FusedPointwise("coordinate", _coordinate_body(first, last))
    for first in (False, True)
    for last in (False, True)
}


@composite("nonzero(Tensor self) -> Tensor", variants="method out", differentiable=False)
def nonzero(self):
    """Returns the indices of the nonzero elements: ``(count, ndim)``, int64."""
    mask = self != 0 if self.dtype is not types.bool_ else self
    positions = true_positions(mask)
    count = positions.shape[0]
    if self.ndim == 0:
        return empty_tensor((count, 0), types.int64)
    result = empty_tensor((self.ndim, count), types.int64)
    for dim in range(self.ndim):
        result.select(0, dim).copy_(coordinate(positions, self.shape, dim))
    return result.t()


def nonzero_tuple(tensor: Tensor) -> tuple[Tensor, ...]:
    """One index tensor per dimension (``as_tuple=True``)."""
    mask = tensor != 0 if tensor.dtype is not types.bool_ else tensor
    positions = true_positions(mask)  # type: ignore[arg-type]
    if tensor.ndim == 0:
        return (coordinate(positions, (1,), 0),)
    return tuple(coordinate(positions, tensor.shape, d) for d in range(tensor.ndim))


# -- as_strided's derivative, here because views that overlap themselves need a scatter ------------


@as_strided.derivative
def as_strided_backward(grad, self_layout, size, stride, storage_offset):
    layout = self_layout
    start = layout.offset if storage_offset is None else storage_offset
    viewed = layout.view(size, stride, start)
    extent = max(reach(layout.shape, layout.strides, layout.offset), reach(size, stride, start))
    whole = filled(Layout.of((extent,), grad.dtype), 0)
    if not may_overlap_itself(viewed):
        copy_(as_strided(whole, tuple(size), tuple(stride), start), grad)
        return {
            "self": as_strided(whole, tuple(layout.shape), tuple(layout.strides), layout.offset)
        }
    places = contiguous(
        as_strided(arange(extent), tuple(viewed.shape), tuple(viewed.strides), start)
    )
    scatter_rows(whole, contiguous(grad), places, "sum")
    return {"self": as_strided(whole, tuple(layout.shape), tuple(layout.strides), layout.offset)}
