"""Fusion: a list of calls becomes a shorter list of groups, each of which runs as one kernel.

Every call names what it reads and writes, so the first rule is the one every instruction queue
knows: a call may move up to the latest group that it has a hazard with, and may join that very
group if the hazard is *aligned*: both touch the same element of the storage in the same iteration.

A group ranges over a shape.  What may join it, besides, is decided by `_fit`:

* pointwise work over that shape;
* a reduction of that shape.  It fixes the dimensions that the group reduces and the reduced loops,
  so another one joins only if it has the same: the order of its additions never depends on its
  company;
* pointwise work over the shape of the reduction's results, which runs once per result.

A group that reduces rows may also add up columns, if there is no more to it than loops over rows
and over columns: then every stage passes by the elements that another kernel would read again.

What reads reduced values per element needs a second walk over the elements.  *Staged* groups have
one (see `compiler/levels.py`): those whose rows one task reduces, so that a row is still in the
cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flambeau.core.layout import Layout, certainly_disjoint
from flambeau.engine.call import Call, Library, Lowered, Reduction, View
from flambeau.engine.loops import (
    Axes,
    Walk,
    call_axes,
    cut_axes,
    is_row,
    is_split,
    kept_shapes,
    loop_shape,
    reduced_part,
    suits_bands,
    walk_of_view,
)

# Beyond this a kernel runs out of registers, and its compile time grows.
_MAX_CALLS = 96
_MAX_OPERANDS = 28


@dataclass(frozen=True)
class Access:
    """One use of a slot by a group.

    ``walk`` is None for whatever does not follow the loops.  ``once`` are the reduced dimensions if
    it happens once per result of a reduction, None if it happens per element.
    """

    group: int
    layout: Layout
    writes: bool
    walk: Walk | None
    once: tuple[int, ...] | None


@dataclass
class Group:
    """Calls that share their loops over ``shape``.

    ``axes`` are the loops of a group that ``reduces`` ``dims``; those of pointwise ones are found
    later.  A library call may have an ``epilogue`` (see `flambeau.engine.epilogue`), whose ``axes``
    are set too.
    """

    shape: tuple[int, ...]
    calls: list[int] = field(default_factory=list)
    reads: dict[View, None] = field(default_factory=dict)
    writes: dict[View, None] = field(default_factory=dict)
    walks: dict[tuple[int, Walk], None] = field(default_factory=dict)
    library: bool = False
    reduces: bool = False
    dims: tuple[int, ...] = ()
    axes: Axes = ()
    split: bool = False
    banded: bool = False
    """Whether a group that reduces rows also adds up columns"""
    only_sums: bool = True
    """Whether it holds nothing but sums and work per element"""
    lowered: Lowered | None = None
    epilogue: Group | None = None
    stands_in: View | None = None
    """What the library call writes instead of its own result, which nobody else sees"""

    @property
    def staged(self) -> bool:
        """Whether reduced values can be read per element."""
        return self.reduces and not self.split and is_row(self.axes, self.dims)

    def adds_columns(self, call: Call) -> bool:
        """Whether a reduction of this group adds up columns while the group reduces rows."""
        return isinstance(call.work, Reduction) and call.work.dims != self.dims

    def parts(self) -> tuple[Group, ...]:
        """The group's own work and its epilogue."""
        return (self,) if self.epilogue is None else (self, self.epilogue)

    def become(self, fit: Fit) -> None:
        """Takes over what a reduction that joins asks for."""
        self.banded = self.banded or (self.reduces and self.dims != fit.dims)
        self.reduces, self.dims = True, fit.dims
        self.axes, self.split = fit.axes, fit.split

    def takes(self, call: Call) -> bool:
        """Whether the call's own loops are part of the group's."""
        if loop_shape(call) == self.shape:
            return True
        return not isinstance(call.work, Reduction) and self.once(call) is not None

    def once(self, call: Call) -> tuple[int, ...] | None:
        """The reduced dimensions of the results once for each of which the call runs; None where it
        runs per element.
        """
        own = loop_shape(call)
        if self.reduces and own != self.shape:
            if own in kept_shapes(self.shape, self.dims):
                return self.dims
            if self.banded and own in kept_shapes(self.shape, self.column_dims):
                return self.column_dims
        return None

    @property
    def column_dims(self) -> tuple[int, ...]:
        """What sums of columns reduce in a banded group."""
        return tuple(sorted(self.axes[0]))

    def walk(self, view: View, call: Call) -> Walk | None:
        """Where the operand of a call of this group is in each iteration."""
        if view.indexed:
            return None
        return walk_of_view(view, call, self.shape, self.once(call) or self.dims)


@dataclass(frozen=True)
class Fit:
    """What a group becomes when a call joins it; no axes for pointwise work alone."""

    dims: tuple[int, ...] = ()
    axes: Axes = ()
    split: bool = False


def fuse(calls: Sequence[Call], wanted: Sequence[bool]) -> list[Group]:
    """Groups in an order of execution; ``wanted[k]`` says whether call ``k`` must run at all."""
    groups: list[Group] = []
    accesses: dict[int, list[Access]] = {}
    for k, call in enumerate(calls):
        if not wanted[k]:
            continue
        at, fit = _place(call, groups, accesses)
        if at == len(groups):
            groups.append(_new_group(call))
        elif fit is not None and fit.axes:
            groups[at].become(fit)
        _join(k, call, at, groups[at], accesses)
    return groups


def _place(
    call: Call, groups: list[Group], accesses: dict[int, list[Access]]
) -> tuple[int, Fit | None]:
    """The index of the group that the call joins and what that becomes; ``len(groups)`` for a new
    one.
    """
    earliest = 0
    for view, writes in _uses(call):
        for access in accesses.get(view.slot, ()):
            if access.group < earliest or not (writes or access.writes):
                continue
            if certainly_disjoint(view.layout, access.layout):
                continue
            aligned = _is_aligned(call, view, writes, access, groups[access.group])
            earliest = max(earliest, access.group + (0 if aligned else 1))
    if not isinstance(call.work, Library):
        for at in range(earliest, len(groups)):
            fit = _fit(call, groups[at])
            if fit is not None:
                return at, fit
    return len(groups), None


def _uses(call: Call) -> list[tuple[View, bool]]:
    return [(v, False) for v in call.reads if v.slot >= 0] + [(v, True) for v in call.writes]


def _is_aligned(call: Call, view: View, writes: bool, access: Access, group: Group) -> bool:
    """Whether the call may share the loops of an access that it must come after."""
    if isinstance(call.work, Library) or group.library or access.walk is None or view.indexed:
        return False
    if not group.takes(call) or (writes and isinstance(call.work, Reduction)):
        return False
    once = group.once(call)
    if access.once is not None and access.once != once:
        # A result that is read per element.
        if once is not None or access.once != group.dims or not group.staged:
            return False
    return group.walk(view, call) == access.walk


def _fit(call: Call, group: Group) -> Fit | None:
    """What the group becomes with the call, or None where that cannot be."""
    if group.library or len(group.calls) >= _MAX_CALLS:
        return None
    if not group.takes(call):
        return None
    if isinstance(call.work, Reduction):
        return _fit_reduction(call, call.work, group)
    walks = _walks(call, group)
    if len(group.walks.keys() | walks) > _MAX_OPERANDS:
        return None
    if not group.reduces:
        return Fit()
    axes = cut_axes(group.axes, group.dims, group.shape, [w for _, w in walks])
    if axes is None or (group.banded and axes != group.axes):
        return None
    return Fit(group.dims, axes, group.split)


def _fit_reduction(call: Call, work: Reduction, group: Group) -> Fit | None:
    own = _reduction_fit(call, work)
    walks = {**group.walks, **_walks(call, Group(group.shape, dims=own.dims))}
    if len(walks) > _MAX_OPERANDS:
        return None
    axes = own.axes
    if group.reduces and group.dims != own.dims:
        return _fit_columns(own, work, group, [w for _, w in walks])
    if group.reduces:
        same = (
            group.split == own.split
            and reduced_part(group.axes, group.dims) == reduced_part(axes, own.dims)
            and is_row(group.axes, group.dims) == is_row(axes, own.dims)
        )
        if not same:
            return None
        axes = group.axes
    cut = cut_axes(axes, own.dims, group.shape, [w for _, w in walks])
    if cut is None or (group.banded and cut != group.axes):
        return None
    return Fit(own.dims, cut, own.split)


def _fit_columns(own: Fit, work: Reduction, group: Group, walks: Sequence[Walk]) -> Fit | None:
    """What becomes of a group that reduces rows with a sum of columns, or the other way round."""
    rows, columns = Fit(group.dims, group.axes, group.split), own
    if not is_row(rows.axes, rows.dims):
        rows, columns = own, rows
        if not group.only_sums:
            return None
    elif set(work.combine) != {"sum"}:
        return None
    fits = (
        not rows.split
        and len(rows.axes) == 2
        and is_row(rows.axes, rows.dims)
        and not is_row(columns.axes, columns.dims)
        and reduced_part(columns.axes, columns.dims) == rows.axes[:1]
        and cut_axes(rows.axes, rows.dims, group.shape, walks) == rows.axes
        and suits_bands(rows.axes, group.shape)
    )
    return Fit(rows.dims, rows.axes) if fits else None


def _reduction_fit(call: Call, work: Reduction) -> Fit:
    """What a reduction alone asks of its group."""
    axes = call_axes(call)
    places = any(c.startswith("arg") for c in work.combine)
    split = not places and is_split(axes, work.dims, call.reads[0].layout.shape)
    return Fit(work.dims, axes, split)


def _walks(call: Call, group: Group) -> dict[tuple[int, Walk], None]:
    """The call's distinct operands that walk with the group's loops."""
    found: dict[tuple[int, Walk], None] = {}
    for view in (*call.reads, *call.writes):
        walk = group.walk(view, call)
        if walk is not None:
            found[view.slot, walk] = None
    return found


def _new_group(call: Call) -> Group:
    if isinstance(call.work, Library):
        return Group((), library=True)
    group = Group(loop_shape(call))
    if isinstance(call.work, Reduction):
        group.become(_reduction_fit(call, call.work))
    return group


def _join(k: int, call: Call, at: int, group: Group, accesses: dict[int, list[Access]]) -> None:
    group.calls.append(k)
    group.reads.update(dict.fromkeys(call.reads))
    group.writes.update(dict.fromkeys(call.writes))
    once = None
    if not group.library:
        group.walks.update(_walks(call, group))
        once = group.once(call)
    if isinstance(call.work, Reduction):
        group.banded = group.banded or group.adds_columns(call)
        group.only_sums = group.only_sums and set(call.work.combine) == {"sum"}
    elif once is not None:
        group.only_sums = False
    for view, writes in _uses(call):
        walk = None if group.library else group.walk(view, call)
        mine = call.work.dims if writes and isinstance(call.work, Reduction) else once
        accesses.setdefault(view.slot, []).append(Access(at, view.layout, writes, walk, mine))
