"""Loops: the order in which a group's kernels walk dimensions, and where operands are meanwhile.

A *walk* says which element of its slot an operand touches in each iteration.  Two operands of one
slot with equal walks touch the same element in the same iteration, so what one writes the other
may find in a register.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flambeau.compiler.schedule_columns import COLUMN_BLOCK, MAX_ROWS
from flambeau.compiler.schedule_reduction import LOOP_RUN
from flambeau.compiler.schedule_rows import MAX_CHUNKS, ROW_CHUNK
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, broadcast_strides
from flambeau.engine.call import Call, Reduction, View

# Loops, outermost first: the dimensions that each of them walks.  An empty one is made up: it runs
# once, where a kernel needs a loop and there is no dimension for it.
Axes = tuple[tuple[int, ...], ...]

# Fewer rows than this are worth cutting, fewer blocks of columns, and shorter ones are not.
_FEW_ROWS = 8
_FEW_BLOCKS = 16
_MANY_CHUNKS = 2
_MANY_ROWS = 512
# Elements that one thread does as fast as several.
_LITTLE_WORK = 65536
# Columns whose sums stay in the second-level cache beside the rows.
_BAND_COLUMNS = 16384


class Walk(NamedTuple):
    """Where an operand is: ``strides`` over the loops' shape, 0 along dimensions of size 1."""

    dtype: dtype
    offset: int
    strides: tuple[int, ...]


def loop_shape(call: Call) -> tuple[int, ...]:
    """The shape that the call's elementwise work ranges over."""
    if isinstance(call.work, Reduction):
        return call.reads[0].layout.shape
    return call.writes[0].layout.shape


@functools.lru_cache(maxsize=4096)
def walk_of(
    layout: Layout, own: tuple[int, ...], shape: tuple[int, ...], dims: tuple[int, ...]
) -> Walk:
    """The walk of an operand of work over the shape ``own``, which is the loops' ``shape`` or that
    without ``dims`` (as dimensions of size 1 or left out).
    """
    strides = broadcast_strides(layout, own)
    if own != shape:
        if len(own) == len(shape):
            strides = tuple([0 if d in dims else s for d, s in enumerate(strides)])
        else:
            left = iter(strides)
            strides = tuple([0 if d in dims else next(left) for d in range(len(shape))])
    strides = tuple([0 if n == 1 else s for s, n in zip(strides, shape, strict=True)])
    return Walk(layout.dtype, layout.offset, strides)


@functools.lru_cache(maxsize=1024)
def kept_shapes(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Both shapes of a reduction's results: with and without the reduced dimensions."""
    return (
        tuple([1 if d in dims else n for d, n in enumerate(shape)]),
        tuple([n for d, n in enumerate(shape) if d not in dims]),
    )


def is_reduced(axis: tuple[int, ...], dims: Sequence[int]) -> bool:
    return not axis or axis[0] in dims


def is_row(axes: Axes, dims: Sequence[int]) -> bool:
    """Whether the innermost loop is reduced."""
    return is_reduced(axes[-1], dims)


def reduced_part(axes: Axes, dims: Sequence[int]) -> Axes:
    """The reduced loops, which decide the order of additions (with `is_row`)."""
    return tuple([a for a in axes if is_reduced(a, dims)])


def extents_of(axes: Axes, shape: Sequence[int]) -> tuple[int, ...]:
    extents = []
    for dims in axes:
        n = 1
        for d in dims:
            n *= shape[d]
        extents.append(n)
    return tuple(extents)


def merges(strides: Sequence[int], shape: Sequence[int], outer: int, inner: int) -> bool:
    """Whether two neighbouring dimensions can be walked as one loop."""
    return strides[outer] == strides[inner] * shape[inner]


def pointwise_axes(
    shape: Sequence[int], leading: Sequence[int], others: Sequence[Sequence[int]]
) -> Axes:
    """Loops over ``shape``, outermost first, in the order of the strides ``leading``."""
    order = [d for d, n in enumerate(shape) if n != 1]
    order.sort(key=lambda d: -leading[d])
    axes: list[tuple[int, ...]] = []
    for d in order:
        if axes and all(merges(s, shape, axes[-1][-1], d) for s in (leading, *others)):
            axes[-1] += (d,)
        else:
            axes.append((d,))
    return tuple(axes)


def call_axes(call: Call) -> Axes:
    """The loops of a reduction, which its operands determine."""
    assert isinstance(call.work, Reduction)
    primary, dims = call.reads[0].layout, call.work.dims
    shape = primary.shape
    others = [broadcast_strides(v.layout, shape) for v in call.reads[1:] if not v.indexed]
    others += [walk_of(v.layout, v.layout.shape, shape, dims).strides for v in call.writes]
    return reduction_axes(primary, dims, others)


def reduction_axes(
    primary: Layout, dims: tuple[int, ...], others: Sequence[Sequence[int]] = ()
) -> Axes:
    """Loops of a reduction: kept ones first, but for a last kept one where that is the fastest.

    Depends on the layouts of the call alone (``others`` are strides of its other operands and its
    results), so the order of additions never depends on what was fused into the loops.
    """
    shape, strides = primary.shape, primary.strides
    order = [d for d, n in enumerate(shape) if n != 1]
    order.sort(key=lambda d: -strides[d])
    axes: list[tuple[int, ...]] = []
    for d in order:
        same_kind = bool(axes) and (axes[-1][-1] in dims) == (d in dims)
        if same_kind and all(merges(s, shape, axes[-1][-1], d) for s in (strides, *others)):
            axes[-1] += (d,)
        else:
            axes.append((d,))
    kept = [a for a in axes if a[0] not in dims]
    reduced = [a for a in axes if a[0] in dims] or [()]
    if axes and axes[-1][0] not in dims:
        return (*kept[:-1], *reduced, kept[-1])
    return (*kept, *reduced)


def cut_axes(
    axes: Axes, dims: Sequence[int], shape: Sequence[int], walks: Iterable[Walk]
) -> Axes | None:
    """The loops cut so that each walk has one stride along each; None where that would cut a
    reduced one, or change which loop is innermost.
    """
    walks = list(walks)
    pieces: list[list[tuple[int, ...]]] = []
    for axis in axes:
        parts = [axis[:1]]
        for outer, inner in zip(axis, axis[1:], strict=False):
            if all(merges(w.strides, shape, outer, inner) for w in walks):
                parts[-1] += (inner,)
            else:
                parts.append((inner,))
        if len(parts) > 1 and is_reduced(axis, dims):
            return None
        pieces.append(parts)
    if is_row(axes, dims):
        return tuple([part for parts in pieces for part in parts])
    *before, last = pieces
    kept = [p for parts in before for p in parts if not is_reduced(p, dims)]
    reduced = [p for parts in before for p in parts if is_reduced(p, dims)]
    return (*kept, *last[:-1], *reduced, last[-1])


def is_split(axes: Axes, dims: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether chunks are reduced by one kernel and combined by a second.

    Where one kernel can do it all, both ways add in the same order, so this is a matter of speed
    only: few long reductions would leave threads idle.
    """
    extents = extents_of(axes, shape)
    reduced = [n for n, a in zip(extents, axes, strict=True) if is_reduced(a, dims)]
    kept = [n for n, a in zip(extents, axes, strict=True) if not is_reduced(a, dims)]
    tasks = 1
    if is_row(axes, dims):
        for n in kept:
            tasks *= n
        if reduced[-1] > MAX_CHUNKS * ROW_CHUNK:
            return True
        return tasks < _FEW_ROWS and reduced[-1] >= _MANY_CHUNKS * ROW_CHUNK
    if len(reduced) > 1:
        return False
    for n in kept[:-1]:
        tasks *= n
    tasks *= -(-kept[-1] // COLUMN_BLOCK)
    if reduced[-1] > MAX_ROWS:
        return True
    return tasks < _FEW_BLOCKS and reduced[-1] >= _MANY_ROWS


def suits_bands(axes: Axes, shape: Sequence[int]) -> bool:
    """Whether rows may be reduced band by band while columns are added up: enough bands for all
    threads (or too little work to share), columns that stay in the cache.
    """
    rows, columns = extents_of(axes, shape)
    enough = rows >= _FEW_ROWS * LOOP_RUN or rows * columns <= _LITTLE_WORK
    return enough and 1 < columns <= _BAND_COLUMNS


def walk_of_view(view: View, call: Call, shape: tuple[int, ...], dims: tuple[int, ...]) -> Walk:
    """The walk of a call's operand in loops over ``shape`` (see `walk_of`)."""
    if not isinstance(call.work, Reduction):
        return walk_of(view.layout, loop_shape(call), shape, dims)
    own = view.layout.shape if view in call.writes else shape
    return walk_of(view.layout, own, shape, call.work.dims)
