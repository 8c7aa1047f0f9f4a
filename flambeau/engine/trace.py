"""Tracing: the bodies of a group's calls become kernels and what the kernels' operands are."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.core.layout import broadcast_strides
from flambeau.engine.call import IOTA_SLOT, Call
from flambeau.engine.fuse import Group
from flambeau.engine.loops import Axes, extents_of, is_reduced, pointwise_axes
from flambeau.engine.nest import Nest, Tracing
from flambeau.engine.partials import Bands, Chunks

# Loops shorter than this are not worth transposing tiles of.
_TILED_EXTENT = 8
# A loop so long is better innermost than one that is too short for tiles.
_LONG_EXTENT = 64


def trace(
    group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
) -> tuple[list[Nest], int]:
    """The kernels of a group, in order, and the bytes of workspace between them.

    ``starts[k]`` is where call ``k``'s numbers begin; ``stored`` are the slots that need memory.
    """
    if not group.reduces:
        return [_pointwise(group, calls, starts, stored)], 0
    if group.split:
        return Chunks(group, calls, starts, stored).nests()
    if any(group.adds_columns(calls[k]) for k in group.calls):
        return Bands(group, calls, starts, stored).nests()
    kernel = Tracing(group, group.axes, calls, starts, stored, group.dims)
    kernel.all_calls()
    flags = tuple(is_reduced(a, group.dims) for a in group.axes)
    return [kernel.nest(flags, extents_of(group.axes, group.shape))], 0


def _pointwise(
    group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
) -> Nest:
    shape = group.shape
    views = [v for v in {**group.reads, **group.writes} if not v.indexed]
    leading = next((v for v in group.writes if v.slot in stored), views[0])
    strides = [walk.strides for _, walk in group.walks]
    axes = pointwise_axes(shape, broadcast_strides(leading.layout, shape), strides)
    axes, tiled = _inner_loops(group, axes)
    kernel = Tracing(group, axes, calls, starts, stored, tiled=tiled)
    kernel.all_calls()
    if not axes:
        # A single element still takes one loop.
        return kernel.single_element()
    return kernel.nest((False,) * len(axes), extents_of(axes, shape))


def trace_epilogue(
    group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
) -> Nest:
    """A pointwise group over the loops that it was given."""
    kernel = Tracing(group, group.axes, calls, starts, stored)
    kernel.all_calls()
    return kernel.nest((False,) * len(group.axes), extents_of(group.axes, group.shape))


def _inner_loops(group: Group, axes: Axes) -> tuple[Axes, bool]:
    """The loops in order, and whether the last two are walked in tiles.

    Where operands disagree on the contiguous loop, the two in question stand last; a short one
    (the channels of an image) goes outside, and what is contiguous along it is walked in strides.
    """
    if len(axes) < 2:
        return axes, False
    extents = extents_of(axes, group.shape)
    votes = [0] * len(extents)
    shorter: int | None = None
    for slot, walk in group.walks:
        strides = [walk.strides[axis[-1]] for axis in axes]
        if slot == IOTA_SLOT or strides[-1] in (0, 1) or 1 not in strides:
            continue
        loop = strides.index(1)
        if min(extents[loop], extents[-1]) >= _TILED_EXTENT:
            votes[loop] += walk.dtype.itemsize
        elif extents[loop] >= _LONG_EXTENT:
            shorter = loop
    inside = votes.index(max(votes)) if any(votes) else shorter
    if inside is None:
        return axes, False
    others = (*axes[:inside], *axes[inside + 1 : -1])
    if any(votes):
        return (*others, axes[inside], axes[-1]), True
    return (*others, axes[-1], axes[inside]), False
