"""A kernel under construction, and the finished one with what its arguments are in a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flambeau.compiler.kernel import (
    BROADCAST,
    INDEXED,
    IOTA,
    MEMORY,
    REVERSED,
    STRIDED,
    TRANSPOSED,
    UNIT,
    Kernel,
    Operand,
    Tracer,
    Value,
)
from flambeau.compiler.levels import ROW_BUFFER, ROW_BUFFER_STEP, held_values
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.engine.call import IOTA_SLOT, Call, Pointwise, Reduction, View
from flambeau.engine.fuse import Group
from flambeau.engine.loops import Axes, Walk, is_reduced

_LOADS = frozenset({"load", "gather"})


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


@dataclass
class _Result:
    """The latest value of something that calls wrote."""

    slot: int
    walk: Walk
    value: Value


class Tracing:
    """One kernel under construction."""

    def __init__(
        self, group: Group, axes: Axes, calls: Sequence[Call], starts: Sequence[int],
        stored: frozenset[int], dims: tuple[int, ...] = (), tiled: bool = False,
    ) -> None:  # fmt: skip
        """``dims`` are the dimensions that the kernel reduces."""
        self.group = group
        self.axes = axes
        self.dims = dims
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
            kept = kind != INDEXED and not self.tiled and self._stands_still(strides)
            inner = strides[-1] if strides else 0
            stride_class = {0: BROADCAST, 1: UNIT}.get(inner, STRIDED)
            if self.tiled and stride_class == STRIDED and kind == MEMORY and strides[-2] == 1:
                stride_class = TRANSPOSED
            if kind == IOTA and inner == -1:
                stride_class = REVERSED
            found = self.add_operand(
                Operand(dtype, stride_class, kind, kept),
                Source(slot, offset * dtype.itemsize),
                strides,
            )
            self._operands[key] = found
        return found

    def _stands_still(self, strides: tuple[int, ...]) -> bool:
        """Whether the reduced loops (the innermost one where there are none) do not move it."""
        moving = [is_reduced(a, self.dims) for a in self.axes]
        if not any(moving):
            return not strides or strides[-1] == 0
        return not any(s for s, moves in zip(strides, moving, strict=True) if moves)

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
        self.define(call, call.work.body(inputs, self.scalars(k)))

    def reduced_values(self, k: int) -> list[Value]:
        """What a reduction combines, per element."""
        call = self.calls[k]
        assert isinstance(call.work, Reduction)
        inputs = [self.input(v, call) for v in call.reads]
        return list(call.work.body(inputs, self.scalars(k)))

    def combines(self, k: int) -> tuple[str, ...]:
        work = self.calls[k].work
        assert isinstance(work, Reduction)
        return work.combine

    def combine(self, k: int, values: list[Value]) -> list[Value]:
        reduced = []
        for kind in self.combines(k):
            taken = 2 if kind in ("argmax", "argmin") else 1
            reduced.append(self.tracer.reduce(kind, *values[:taken]))
            values = values[taken:]
        return reduced

    def finish(self, k: int, reduced: list[Value]) -> None:
        call = self.calls[k]
        assert isinstance(call.work, Reduction)
        self.define(call, call.work.finish(reduced, self.scalars(k)))

    def define(self, call: Call, values: Sequence[Value]) -> None:
        for view, value in zip(call.writes, values, strict=True):
            assert value.dtype is view.layout.dtype, f"{call.name}: {value.dtype} for {view}"
            walk = self.group.walk(view, call)
            assert walk is not None
            self._results[view.slot, walk] = _Result(view.slot, walk, value)

    def store_results(self) -> None:
        for result in self._results.values():
            if result.slot in self.stored:
                walk = result.walk
                operand = self.operand(result.slot, MEMORY, walk.dtype, walk.offset, walk)
                self.tracer.store(operand, result.value)

    # -- the finished kernel -------------------------------------------------------------------

    def nest(
        self, flags: tuple[bool, ...], extents: tuple[int, ...], total_extent: int | None = None,
        banded: bool = False,
    ) -> Nest:  # fmt: skip
        cut = total_extent is not None
        kernel = self.tracer.finish(flags, split=cut and not banded, banded=banded)
        if _fits_buffer(kernel, extents):
            kernel = replace(kernel, buffered=True)
        return Nest(
            kernel.interned(), extents, tuple(self.sources), tuple(self.strides),
            tuple(self.numbers), total_extent,
        )  # fmt: skip

    def single_element(self) -> Nest:
        """A kernel of one iteration: loops there are none, so one of extent 1 is made up."""
        self.tracer.operands = [
            o._replace(inner=UNIT if o.kind == MEMORY else BROADCAST, kept=False)
            for o in self.tracer.operands
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
