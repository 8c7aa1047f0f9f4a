"""Epilogues: pointwise groups that run inside of the library call whose result they read.

``y = relu(x @ w + b)`` is a product and a pointwise group.  Run one after the other, the result of
the product travels to memory and back; as the product's epilogue, the pointwise kernel takes it
from the cache, rectangle by rectangle (`flambeau.compiler.epilogue`).  Either way it loads the
same numbers and computes the same kernel, so the bits are the same.

Convolutions and products take part alike: whatever lowers to steps with a `Grid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flambeau.compiler.epilogue import Grid
from flambeau.compiler.target import Target
from flambeau.core.layout import Layout, is_dense
from flambeau.engine.call import IOTA_SLOT, Call, Library, Lowered, View
from flambeau.engine.fuse import Group
from flambeau.engine.loops import Axes, merges


def attach_epilogues(
    groups: Sequence[Group], calls: Sequence[Call], live: Sequence[int], target: Target
) -> list[Group]:
    """The groups, in an order of execution, with pointwise ones moved into library calls."""
    result = list(groups)
    at = 0
    while at < len(result):
        producer = _attach(result, at, calls, target)
        if producer is None:
            at += 1
            continue
        _choose_stand_in(result, producer, calls, live)
    return result


def _attach(groups: list[Group], at: int, calls: Sequence[Call], target: Target) -> Group | None:
    """Moves group ``at`` into the last library call that it can follow at once; that group."""
    consumer = groups[at]
    if consumer.library or consumer.reduces:
        return None
    read = {view.slot for view in consumer.reads}
    for k in range(at - 1, -1, -1):
        producer = groups[k]
        if not producer.library or producer.epilogue is not None:
            continue
        if not any(view.slot in read for view in producer.writes):
            continue
        lowered = _lowered(producer, calls, target)
        axes = _rectangle_axes(consumer, calls[producer.calls[0]], lowered)
        if axes is None or not _meets(groups, k, at):
            continue
        merged = replace(producer, lowered=lowered, epilogue=replace(consumer, axes=axes))
        if _independent(consumer, groups[k + 1 : at]):
            groups[k] = merged
            del groups[at]
        else:
            groups[at] = merged
            del groups[k]
        return merged
    return None


def _lowered(group: Group, calls: Sequence[Call], target: Target) -> Lowered:
    if group.lowered is None:
        work = calls[group.calls[0]].work
        assert isinstance(work, Library)
        group.lowered = work.lower(target)
    return group.lowered


# -- order --------------------------------------------------------------------------------------


def _slots(views: Sequence[View] | dict[View, None]) -> set[int]:
    return {view.slot for view in views if view.slot >= 0}


def _independent(group: Group, others: Sequence[Group]) -> bool:
    """Whether the group may run before or after the others."""
    reads, writes = _slots(group.reads), _slots(group.writes)
    for other in others:
        for part in other.parts():
            written = _slots(part.writes)
            if written & (reads | writes) or writes & _slots(part.reads):
                return False
    return True


def _meets(groups: Sequence[Group], producer: int, consumer: int) -> bool:
    """Whether one of the two can move to the other, past the groups between them."""
    between = groups[producer + 1 : consumer]
    return _independent(groups[consumer], between) or _independent(groups[producer], between)


# -- loops --------------------------------------------------------------------------------------


def _rectangle_axes(consumer: Group, call: Call, lowered: Lowered) -> Axes | None:
    """The consumer's loops over the rows, then over the columns, of the producer's grid.

    None where it does not walk that grid in step, or overwrites what the producer still reads.
    """
    if lowered.grid is None or _slots(consumer.writes) & _slots(call.reads):
        return None
    result = lowered.operands[lowered.grid.operand]
    uses = [v for v in (*consumer.reads, *consumer.writes) if v.slot == result.slot]
    if any(use.indexed or use.layout is not uses[0].layout for use in uses):
        return None
    layout = uses[0].layout
    if layout.shape != consumer.shape or layout.dtype is not result.layout.dtype:
        return None
    if layout.offset != result.layout.offset:
        return None
    loops = _grid_dims(layout, lowered.grid)
    return None if loops is None else _fitting_axes(consumer, *loops)


def _grid_dims(layout: Layout, grid: Grid) -> tuple[list[int], tuple[int, ...]] | None:
    """The dimensions that make up the grid's rows, outermost first, and those of its columns."""
    by_stride = {s: d for d, (n, s) in enumerate(zip(layout.shape, layout.strides)) if n != 1}
    rows: list[int] = []
    found: tuple[int, ...] = ()
    for extent, stride in (*grid.rows, grid.columns):
        dims: list[int] = []
        covered = 1
        while covered < extent:
            d = by_stride.pop(stride * covered, None)
            if d is None:
                return None
            dims.insert(0, d)
            covered *= layout.shape[d]
        if covered != extent:
            return None
        rows += found
        found = tuple(dims)
    return (rows, found) if found and not by_stride else None


def _fitting_axes(group: Group, rows: Sequence[int], columns: tuple[int, ...]) -> Axes | None:
    """One loop for the columns, if every operand allows it, and as few as possible for the rows."""
    strides = [walk.strides for _, walk in group.walks]

    def fits(dims: tuple[int, ...]) -> bool:
        neighbours = list(zip(dims, dims[1:], strict=False))
        return all(merges(s, group.shape, *pair) for s in strides for pair in neighbours)

    if not fits(columns) or _walks_across(group, columns):
        return None
    axes: list[tuple[int, ...]] = []
    for d in rows:
        if axes and fits((*axes[-1], d)):
            axes[-1] += (d,)
        else:
            axes.append((d,))
    return (*axes, columns)


def _walks_across(group: Group, columns: tuple[int, ...]) -> bool:
    """Whether an operand has gaps along the columns: transposing tiles serve it better."""
    steps = (walk.strides[columns[-1]] for slot, walk in group.walks if slot != IOTA_SLOT)
    return any(step not in (0, 1) for step in steps)


# -- memory -------------------------------------------------------------------------------------


def _choose_stand_in(
    groups: Sequence[Group], merged: Group, calls: Sequence[Call], live: Sequence[int]
) -> None:
    """Lets the producer write into a result of the epilogue where nobody sees its own result.

    That result must be new, and have each element where the epilogue finds the one that it is made
    of.
    """
    assert merged.epilogue is not None and merged.lowered is not None
    call = calls[merged.calls[0]]
    (own,) = call.writes
    others = [part for group in groups if group is not merged for part in group.parts()]
    seen = {slot for part in others for slot in _slots(part.reads) | _slots(part.writes)}
    if live[own.slot] or own.slot in seen or own.slot in _slots(merged.epilogue.writes):
        return
    found = next((v.layout for v in merged.epilogue.reads if v.slot == own.slot), None)
    if found is None or found.numel != own.layout.numel:
        return
    for k in merged.epilogue.calls:
        new = calls[k].writes[len(calls[k].writes) - len(calls[k].outputs) :]
        for view in new if calls[k].outputs else ():
            if (live[view.slot] or view.slot in seen) and _lies_as(view.layout, found):
                merged.stands_in = view
                return


def _lies_as(a: Layout, b: Layout) -> bool:
    """Whether each index means the same place in both, and the places are those of a new tensor."""
    if a.dtype is not b.dtype or a.offset != b.offset or a.shape != b.shape:
        return False
    same = all(s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n > 1)
    return same and is_dense(a)
