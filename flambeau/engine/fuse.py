"""Fusion: a list of calls becomes a shorter list of groups, each of which runs as one kernel.

Every call names what it reads and writes, so the only rule is the one every instruction queue
knows: a call may move up to the latest group that it has a hazard with, and may join that very
group if the hazard is *aligned*: both touch the same elements of the storage in the same iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flambeau.core.layout import Layout, broadcast_strides, certainly_disjoint
from flambeau.engine.call import Call, Library, Lowered, Reduction, View

# Beyond this a kernel runs out of registers, and its compile time grows.
_MAX_CALLS = 96
_MAX_OPERANDS = 28


# Loops, outermost first: the dimensions that each of them walks.
Axes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Access:
    """One use of a slot by a group; ``elementwise`` if iteration ``i`` touches element ``i``
    only.
    """

    group: int
    layout: Layout
    writes: bool
    elementwise: bool


@dataclass
class Group:
    """Calls that share their loops.

    ``primary``, ``dims`` and ``axes`` (the loops' dimensions) are set for a reduction.  A library
    call may have an ``epilogue`` (see `flambeau.engine.epilogue`), whose ``axes`` are set too.
    """

    shape: tuple[int, ...]
    calls: list[int] = field(default_factory=list)
    reads: dict[View, None] = field(default_factory=dict)
    writes: dict[View, None] = field(default_factory=dict)
    library: bool = False
    primary: Layout | None = None
    dims: tuple[int, ...] = ()
    axes: Axes = ()
    lowered: Lowered | None = None
    epilogue: Group | None = None
    stands_in: View | None = None
    """What the library call writes instead of its own result, which nobody else sees"""

    def parts(self) -> tuple[Group, ...]:
        """The group's own work and its epilogue."""
        return (self,) if self.epilogue is None else (self, self.epilogue)

    def views(self) -> list[View]:
        """Distinct operands that walk with the loops."""
        return [v for v in {**self.reads, **self.writes} if not v.indexed]


def loop_shape(call: Call) -> tuple[int, ...]:
    """The shape that the call's elementwise work ranges over."""
    if isinstance(call.work, Reduction):
        return call.reads[0].layout.shape
    return call.writes[0].layout.shape


def fuse(calls: Sequence[Call], wanted: Sequence[bool]) -> list[Group]:
    """Groups in an order of execution; ``wanted[k]`` says whether call ``k`` must run at all."""
    groups: list[Group] = []
    accesses: dict[int, list[Access]] = {}
    for k, call in enumerate(calls):
        if wanted[k]:
            at = _place(call, groups, accesses)
            _join(k, call, at, groups, accesses)
    return groups


def _place(call: Call, groups: list[Group], accesses: dict[int, list[Access]]) -> int:
    """The index of the group that the call joins; ``len(groups)`` for a new one."""
    earliest = 0
    library = isinstance(call.work, Library)
    shape = () if library else loop_shape(call)
    for view, writes in _uses(call):
        for access in accesses.get(view.slot, ()):
            if access.group < earliest or not (writes or access.writes):
                continue
            if certainly_disjoint(view.layout, access.layout):
                continue
            aligned = (
                not library
                and access.elementwise
                and view.layout is access.layout
                and not view.indexed
                and view.layout.shape == shape
                and not (writes and isinstance(call.work, Reduction))
            )
            earliest = max(earliest, access.group + (0 if aligned else 1))
    if library:
        return len(groups)
    for at in range(earliest, len(groups)):
        if _compatible(call, groups[at], shape):
            return at
    return len(groups)


def _uses(call: Call) -> list[tuple[View, bool]]:
    return [(v, False) for v in call.reads if v.slot >= 0] + [(v, True) for v in call.writes]


def _compatible(call: Call, group: Group, shape: tuple[int, ...]) -> bool:
    if group.library or group.shape != shape or len(group.calls) >= _MAX_CALLS:
        return False
    mine = [v for v in (*call.reads, *call.writes) if not v.indexed]
    if len({*group.views(), *mine}) > _MAX_OPERANDS:
        return False
    if isinstance(call.work, Reduction):
        primary, dims = call.reads[0].layout, call.work.dims
        axes = call_axes(call)
        if group.primary is not None:
            return group.primary is primary and group.dims == dims and group.axes == axes
        return _all_mergeable(group.views(), shape, axes)
    if group.primary is not None:
        return _all_mergeable(mine, shape, group.axes)
    return True


def _all_mergeable(views: Sequence[View], shape: Sequence[int], axes: Axes) -> bool:
    return all(
        merged_strides(broadcast_strides(v.layout, shape), shape, axes) is not None for v in views
    )


def _join(
    k: int, call: Call, at: int, groups: list[Group], accesses: dict[int, list[Access]]
) -> None:
    library = isinstance(call.work, Library)
    if at == len(groups):
        groups.append(Group(() if library else loop_shape(call), library=library))
    group = groups[at]
    group.calls.append(k)
    if isinstance(call.work, Reduction):
        group.primary, group.dims = call.reads[0].layout, call.work.dims
        group.axes = call_axes(call)
    for view, writes in _uses(call):
        elementwise = not (library or view.indexed) and view.layout.shape == group.shape
        if writes and isinstance(call.work, Reduction):
            elementwise = False
        accesses.setdefault(view.slot, []).append(Access(at, view.layout, writes, elementwise))
    group.reads.update(dict.fromkeys(call.reads))
    group.writes.update(dict.fromkeys(call.writes))


# -- loops -------------------------------------------------------------------------------------


def merged_strides(
    strides: Sequence[int], shape: Sequence[int], axes: Axes
) -> tuple[int, ...] | None:
    """One stride per group of dimensions, if each group can be walked as a single loop."""
    result = []
    for dims in axes:
        for outer, inner in zip(dims, dims[1:], strict=False):
            if strides[outer] != strides[inner] * shape[inner]:
                return None
        # An empty group is a loop that was made up; nothing moves along it.
        result.append(strides[dims[-1]] if dims else 0)
    return tuple(result)


def pointwise_axes(
    shape: Sequence[int], leading: Sequence[int], others: Sequence[Sequence[int]]
) -> Axes:
    """Loops over ``shape``, outermost first, in the order of the strides ``leading``."""
    order = [d for d, n in enumerate(shape) if n != 1]
    order.sort(key=lambda d: -leading[d])
    axes: list[tuple[int, ...]] = []
    for d in order:
        if axes and all(
            merged_strides(s, shape, (axes[-1][-1:] + (d,),)) is not None
            for s in (leading, *others)
        ):
            axes[-1] += (d,)
        else:
            axes.append((d,))
    return tuple(axes)


def call_axes(call: Call) -> Axes:
    """The loops of a reduction, which its operands determine."""
    assert isinstance(call.work, Reduction)
    primary, dims = call.reads[0].layout, call.work.dims
    others = [broadcast_strides(v.layout, primary.shape) for v in call.reads[1:] if not v.indexed]
    others += [result_strides(v.layout, primary.shape, dims) for v in call.writes]
    return reduction_axes(primary, dims, others)


def result_strides(layout: Layout, shape: Sequence[int], dims: tuple[int, ...]) -> tuple[int, ...]:
    """A reduction's result along the dimensions of what is reduced: 0 along ``dims``."""
    if layout.ndim == len(shape):
        return tuple(0 if d in dims else s for d, s in enumerate(layout.strides))
    left = iter(layout.strides)
    return tuple(0 if d in dims else next(left) for d in range(len(shape)))


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
        if same_kind and all(s[axes[-1][-1]] == s[d] * shape[d] for s in (strides, *others)):
            axes[-1] += (d,)
        else:
            axes.append((d,))
    kept = [a for a in axes if a[0] not in dims]
    reduced = [a for a in axes if a[0] in dims]
    if axes and reduced and axes[-1][0] not in dims:
        return (*kept[:-1], *reduced, kept[-1])
    return (*kept, *reduced)
