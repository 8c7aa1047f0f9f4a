"""Tracing: the bodies of a group's calls become kernels and what the kernels' operands are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from flambeau.compiler.kernel import (
    BROADCAST,
    INDEXED,
    IOTA,
    MEMORY,
    STRIDED,
    TRANSPOSED,
    UNIT,
    Kernel,
    Operand,
    Tracer,
    Value,
)
from flambeau.compiler.levels import ROW_BUFFER, ROW_BUFFER_STEP, held_values
from flambeau.compiler.schedule_reduction import LOOP_RUN
from flambeau.compiler.schedule_rows import ROW_CHUNK
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import broadcast_strides
from flambeau.engine.call import IOTA_SLOT, Call, Pointwise, Reduction, View
from flambeau.engine.fuse import Group
from flambeau.engine.loops import Axes, Walk, extents_of, is_reduced, is_row, pointwise_axes


@dataclass(frozen=True)
class Source:
    """An operand in a storage: its slot and the offset of its first element, in bytes."""

    slot: int
    byte_offset: int


@dataclass(frozen=True)
class Partial:
    """An operand in the workspace: one partial result per chunk and kept index."""

    byte_offset: int
    dtype: dtype


@dataclass(frozen=True)
class Nest:
    """A traced kernel with what its arguments are in this plan."""

    kernel: Kernel
    extents: tuple[int, ...]
    sources: tuple[Source | Partial, ...]
    strides: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]
    total_extent: int | None = None

    def with_slot(self, old: int, new: int) -> Nest:
        """The same on another storage in place of ``old``, in which the operands lie alike."""
        return replace(
            self,
            sources=tuple(
                replace(s, slot=new) if isinstance(s, Source) and s.slot == old else s
                for s in self.sources
            ),
        )

    def slots_read(self) -> set[int]:
        """Storages that the kernel loads from (what it wrote itself stays in registers)."""
        loaded = {i.attribute for i in self.kernel.instructions if i.operation in _LOADS}
        sources = [s for k, s in enumerate(self.sources) if k in loaded]
        return {s.slot for s in sources if isinstance(s, Source) and s.slot >= 0}


# Loops shorter than this are not worth transposing tiles of.
_TILED_EXTENT = 8

_LOADS = frozenset({"load", "gather"})


def trace(
    group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
) -> tuple[list[Nest], int]:
    """The kernels of a group, in order, and the bytes of workspace between them.

    ``starts[k]`` is where call ``k``'s numbers begin; ``stored`` are the slots that need memory.
    """
    if not group.reduces:
        return [_pointwise(group, calls, starts, stored)], 0
    if group.split:
        return _Split(group, group.axes, calls, starts, stored).nests()
    kernel = _Tracing(group, group.axes, calls, starts, stored)
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
    tile = _tiled_loop(group, axes)
    if tile is not None:
        axes = (*axes[:tile], *axes[tile + 1 : -1], axes[tile], axes[-1])
    kernel = _Tracing(group, axes, calls, starts, stored, tiled=tile is not None)
    kernel.all_calls()
    if not axes:
        # A single element still takes one loop.
        return kernel.single_element()
    return kernel.nest((False,) * len(axes), extents_of(axes, shape))


def trace_epilogue(
    group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
) -> Nest:
    """A pointwise group over the loops that it was given."""
    kernel = _Tracing(group, group.axes, calls, starts, stored)
    kernel.all_calls()
    return kernel.nest((False,) * len(group.axes), extents_of(group.axes, group.shape))


def _tiled_loop(group: Group, axes: Axes) -> int | None:
    """Where operands disagree on the contiguous loop: the loop to be walked in tiles with the
    innermost one.
    """
    if len(axes) < 2:
        return None
    extents = extents_of(axes, group.shape)
    votes = [0] * len(extents)
    for slot, walk in group.walks:
        strides = [walk.strides[axis[-1]] for axis in axes]
        if slot == IOTA_SLOT or strides[-1] in (0, 1) or 1 not in strides:
            continue
        loop = strides.index(1)
        if min(extents[loop], extents[-1]) >= _TILED_EXTENT:
            votes[loop] += walk.dtype.itemsize
    return votes.index(max(votes)) if any(votes) else None


@dataclass
class _Result:
    """The latest value of something that calls wrote."""

    slot: int
    walk: Walk
    once: bool
    value: Value


class _Tracing:
    """One kernel under construction."""

    def __init__(
        self, group: Group, axes: Axes, calls: Sequence[Call], starts: Sequence[int],
        stored: frozenset[int], tiled: bool = False,
    ) -> None:  # fmt: skip
        self.group = group
        self.axes = axes
        self.tiled = tiled
        self.calls = calls
        self.starts = starts
        self.stored = stored
        self.tracer = Tracer()
        self.sources: list[Source | Partial] = []
        self.strides: list[tuple[int, ...]] = []
        self.numbers: list[int] = []
        self._operands: dict[Any, int] = {}
        self._loaded: dict[tuple[int, Walk], Value] = {}
        self._results: dict[tuple[int, Walk], _Result] = {}

    # -- operands ------------------------------------------------------------------------------

    def loop_strides(self, walk: Walk) -> tuple[int, ...]:
        return tuple([walk.strides[axis[-1]] if axis else 0 for axis in self.axes])

    def operand(self, slot: int, kind: str, dtype: dtype, offset: int, walk: Walk | None) -> int:
        """The number of an operand, which is added where it is new."""
        key = slot, kind, dtype, offset, walk
        found = self._operands.get(key)
        if found is None:
            strides = (0,) * len(self.axes) if walk is None else self.loop_strides(walk)
            reduced = [is_reduced(a, self.group.dims) for a in self.axes]
            kept = any(reduced) and kind != INDEXED
            kept = kept and not any(s for s, r in zip(strides, reduced, strict=True) if r)
            inner = strides[-1] if strides else 0
            stride_class = {0: BROADCAST, 1: UNIT}.get(inner, STRIDED)
            if self.tiled and stride_class == STRIDED and kind == MEMORY and strides[-2] == 1:
                stride_class = TRANSPOSED
            found = self.add_operand(
                Operand(dtype, stride_class, kind, kept),
                Source(slot, offset * dtype.itemsize),
                strides,
            )
            self._operands[key] = found
        return found

    def add_operand(
        self, operand: Operand, source: Source | Partial, strides: tuple[int, ...]
    ) -> int:
        self.sources.append(source)
        self.strides.append(strides)
        return self.tracer.operand(operand)

    def input(self, view: View, call: Call) -> Any:
        """The value of a read; for an indexed one a function from offset to value."""
        walk = self.group.walk(view, call)
        if walk is None:
            operand = self.operand(view.slot, INDEXED, view.layout.dtype, view.layout.offset, None)
            return lambda offset: self.tracer.gather(operand, offset)
        key = view.slot, walk
        result = self._results.get(key)
        if result is not None:
            return result.value
        value = self._loaded.get(key)
        if value is None:
            kind = IOTA if view.slot == IOTA_SLOT else MEMORY
            operand = self.operand(view.slot, kind, walk.dtype, walk.offset, walk)
            value = self._loaded[key] = self.tracer.load(operand)
        return value

    def scalars(self, k: int) -> list[Value]:
        result = []
        for position, kind in enumerate(self.calls[k].scalars):
            self.numbers.append(self.starts[k] + position)
            result.append(self.tracer.scalar(types.float64 if kind is float else types.int64))
        return result

    # -- calls ---------------------------------------------------------------------------------

    def all_calls(self) -> None:
        """Traces the group's calls and stores what is wanted of their results."""
        for k in self.group.calls:
            self.call(k)
        self.store_results()

    def call(self, k: int) -> None:
        """Traces one call; later ones find its results in registers."""
        call = self.calls[k]
        if isinstance(call.work, Reduction):
            values = self.reduced_values(k)
            self.finish(k, self.combine(k, values))
            return
        assert isinstance(call.work, Pointwise)
        inputs = [self.input(v, call) for v in call.reads]
        self.define(call, call.work.body(inputs, self.scalars(k)), bool(self.group.runs_once(call)))

    def reduced_values(self, k: int) -> list[Value]:
        """What a reduction combines, per element."""
        call = self.calls[k]
        assert isinstance(call.work, Reduction)
        inputs = [self.input(v, call) for v in call.reads]
        return list(call.work.body(inputs, self.scalars(k)))

    def combine(self, k: int, values: list[Value]) -> list[Value]:
        work = self.calls[k].work
        assert isinstance(work, Reduction)
        reduced = []
        for kind in work.combine:
            taken = 2 if kind in ("argmax", "argmin") else 1
            reduced.append(self.tracer.reduce(kind, *values[:taken]))
            values = values[taken:]
        return reduced

    def finish(self, k: int, reduced: list[Value]) -> None:
        call = self.calls[k]
        assert isinstance(call.work, Reduction)
        self.define(call, call.work.finish(reduced, self.scalars(k)), True)

    def define(self, call: Call, values: Sequence[Value], once: bool) -> None:
        for view, value in zip(call.writes, values, strict=True):
            assert value.dtype is view.layout.dtype, f"{call.name}: {value.dtype} for {view}"
            walk = self.group.walk(view, call)
            assert walk is not None
            self._results[view.slot, walk] = _Result(view.slot, walk, once, value)

    def store_results(self) -> None:
        for result in self._results.values():
            if result.slot in self.stored:
                walk = result.walk
                operand = self.operand(result.slot, MEMORY, walk.dtype, walk.offset, walk)
                self.tracer.store(operand, result.value)

    # -- the finished kernel -------------------------------------------------------------------

    def nest(
        self, flags: tuple[bool, ...], extents: tuple[int, ...], total_extent: int | None = None
    ) -> Nest:
        kernel = self.tracer.finish(flags, split=total_extent is not None)
        if _fits_buffer(kernel, extents):
            kernel = replace(kernel, buffered=True)
        return Nest(
            kernel.interned(), extents, tuple(self.sources), tuple(self.strides),
            tuple(self.numbers), total_extent,
        )  # fmt: skip

    def single_element(self) -> Nest:
        """A kernel of one iteration: loops there are none, so one of extent 1 is made up."""
        self.tracer.operands = [
            o._replace(inner=UNIT if o.kind == MEMORY else BROADCAST) for o in self.tracer.operands
        ]
        self.strides = [(1,) if o.kind == MEMORY else (0,) for o in self.tracer.operands]
        return self.nest((False,), (1,))


def _fits_buffer(kernel: Kernel, extents: tuple[int, ...]) -> bool:
    """Whether values can be held between the stages of a kernel over rows of this length."""
    if not kernel.reduced[-1] or sum(kernel.reduced) != 1:
        return False
    row = -(-extents[-1] // ROW_BUFFER_STEP) * ROW_BUFFER_STEP
    if row * 4 > ROW_BUFFER:
        return False
    held = held_values(kernel)
    return bool(held) and row * sum(max(d.itemsize, 4) for d in held) <= ROW_BUFFER


class _Split:
    """Few long reductions: chunks of a fixed length first, then their partial results."""

    def __init__(
        self, group: Group, axes: Axes, calls: Sequence[Call], starts: Sequence[int],
        stored: frozenset[int],
    ) -> None:  # fmt: skip
        self.group = group
        self.axes = axes
        dims = group.dims
        self.flags = tuple(is_reduced(a, dims) for a in axes)
        self.extents = extents_of(axes, group.shape)
        self.last = max(k for k, reduced in enumerate(self.flags) if reduced)
        self.row = is_row(axes, dims)
        self.chunk = ROW_CHUNK if self.row else LOOP_RUN
        self.chunks = -(-self.extents[self.last] // self.chunk)
        self.kept = [k for k, reduced in enumerate(self.flags) if not reduced]
        self.kept_extents = tuple(self.extents[k] for k in self.kept)
        self.workspace = 0
        self.partials: dict[int, list[tuple[str, Partial]]] = {}
        self.calls, self.starts, self.stored = calls, starts, stored

    def _new(self, axes: Axes) -> _Tracing:
        return _Tracing(self.group, axes, self.calls, self.starts, self.stored)

    def nests(self) -> tuple[list[Nest], int]:
        return [self._reduce_chunks(), self._combine_chunks()], self.workspace

    def _reduce_chunks(self) -> Nest:
        """The first kernel: an outermost kept loop over chunks."""
        kernel = self._new(self.axes)
        for k in self.group.calls:
            if isinstance(self.calls[k].work, Reduction):
                self._store_partials(k, kernel)
            elif not self.group.runs_once(self.calls[k]):
                kernel.call(k)
        kernel.store_results()
        between = _contiguous((self.chunks, *self.kept_extents))
        strides: list[tuple[int, ...]] = []
        for source, own in zip(kernel.sources, kernel.strides, strict=True):
            if isinstance(source, Partial):
                left = iter(between[1:])
                spread = [0 if reduced else next(left) for reduced in self.flags]
                strides.append((between[0], *spread))
            else:
                strides.append((own[self.last] * self.chunk, *own))
        kernel.strides = strides
        extents = list(self.extents)
        extents[self.last] = self.chunk
        total = self.extents[self.last]
        return kernel.nest((False, *self.flags), (self.chunks, *extents), total)

    def _store_partials(self, k: int, kernel: _Tracing) -> None:
        work = self.calls[k].work
        assert isinstance(work, Reduction)
        values = kernel.reduced_values(k)
        found = self.partials[k] = []
        for kind, value in zip(work.combine, values, strict=True):
            partial = Partial(self.workspace, value.dtype)
            size = self.chunks * prod(self.kept_extents) * value.dtype.itemsize
            self.workspace += -(-size // 64) * 64
            found.append((kind, partial))
            inner = BROADCAST if self.row else UNIT
            operand = kernel.add_operand(Operand(value.dtype, inner, kept=True), partial, ())
            kernel.tracer.store(operand, kernel.tracer.reduce(kind, value))

    def _combine_chunks(self) -> Nest:
        """The second kernel reduces over chunks and does what runs once per result.

        It adds columns, each of them the partial results of one result.
        """
        kept_axes = [self.axes[k] for k in self.kept]
        *outer, inner = kept_axes or [()]
        *outer_extents, inner_extent = self.kept_extents or (1,)
        kernel = self._new((*outer, (), inner))
        between = _contiguous((self.chunks, *outer_extents, inner_extent))
        strides = (*between[1:-1], between[0], between[-1])
        for k in self.group.calls:
            if isinstance(self.calls[k].work, Reduction):
                kernel.finish(k, [self._load(kernel, *p, strides) for p in self.partials[k]])
            elif self.group.runs_once(self.calls[k]):
                kernel.call(k)
        kernel.store_results()
        if not self.kept:
            _walk_made_up_loop(kernel)
        flags = (*(False for _ in outer), True, False)
        return kernel.nest(flags, (*outer_extents, self.chunks, inner_extent))

    def _load(
        self, kernel: _Tracing, kind: str, partial: Partial, strides: tuple[int, ...]
    ) -> Value:
        operand = kernel.add_operand(Operand(partial.dtype, UNIT), partial, strides)
        return kernel.tracer.reduce(kind, kernel.tracer.load(operand))


def _walk_made_up_loop(kernel: _Tracing) -> None:
    """Gives every operand in memory a stride along an innermost loop of extent 1: vectors of
    neighbours are simpler than scattered ones.
    """
    for k, operand in enumerate(kernel.tracer.operands):
        if operand.kind == MEMORY:
            kernel.tracer.operands[k] = operand._replace(inner=UNIT)
            kernel.strides[k] = (*kernel.strides[k][:-1], 1)


def _contiguous(extents: Sequence[int]) -> tuple[int, ...]:
    strides = []
    step = 1
    for n in reversed(extents):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
