"""Lowering: a group of calls becomes native steps over slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flambeau.compiler import schedule
from flambeau.compiler.epilogue import EPILOGUE, EPILOGUE_ARGUMENTS, RECTANGLE, rectangle_source
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
from flambeau.compiler.kernel_step import WORKSPACE, Pointer
from flambeau.compiler.target import Target
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import broadcast_strides
from flambeau.engine.call import IOTA_SLOT, Call, Library, Pointwise, Reduction, View
from flambeau.engine.fuse import Group, merged_strides, pointwise_axes, result_strides

# Elements that are worth a thread's while: below this the hand-over costs more than it saves.
_GRAIN = 16384
_SPLIT_ROWS = 64
# Loops shorter than this are not worth transposing tiles of.
_TILED_EXTENT = 8


@dataclass(frozen=True)
class Address:
    """An argument word: the address of a slot's memory plus an offset in bytes."""

    slot: int
    byte_offset: int = 0

    def __str__(self) -> str:
        return f"%{self.slot}+{self.byte_offset}" if self.byte_offset else f"%{self.slot}"


@dataclass(frozen=True)
class Scratch:
    """An argument word: an address in the step's own workspace."""

    byte_offset: int = 0


@dataclass(frozen=True)
class Constant:
    """An argument word: an address in the step's constant bytes."""

    byte_offset: int = 0


@dataclass(frozen=True)
class Number:
    """An argument word: a run-time number from the tape."""

    index: int


@dataclass(frozen=True)
class EpiloguePart:
    """An argument word: the address of the epilogue's function, or of its argument block."""

    name: str


Word = Address | Scratch | Constant | Number | EpiloguePart | int | float


@dataclass(frozen=True)
class NativeCall:
    """``function(args, begin, end)`` over ``tasks`` tasks; see `KernelStep`.

    ``epilogue`` is what its `EpiloguePart`s mean; it is called by the function, not by the plan.
    """

    module_key: str
    source: Any
    function: str
    functions: tuple[str, ...]
    words: tuple[Word, ...]
    tasks: int
    grain: int
    epilogue: NativeCall | None = None


@dataclass(frozen=True)
class Step:
    """One group's native calls.  ``reads`` and ``writes`` are the slots that they touch."""

    name: str
    native: tuple[NativeCall, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    workspace: int = 0
    constants: bytes = b""
    kernels: tuple[Kernel, ...] = ()

    def __repr__(self) -> str:
        reads = " ".join(f"%{s}" for s in sorted(self.reads))
        writes = " ".join(f"%{s}" for s in sorted(self.writes))
        tasks = "+".join(str(n.tasks) for n in self.native)
        return f"{self.name:40s} reads {reads or '-'}  writes {writes or '-'}  tasks {tasks}"


def lower(
    group: Group,
    calls: Sequence[Call],
    starts: Sequence[int],
    stored: frozenset[int],
    target: Target,
) -> Step:
    """``starts[k]`` is where call ``k``'s numbers begin; ``stored`` are the slots that need
    memory.
    """
    if group.library:
        return _lower_library(group, calls, starts, stored, target)
    trace = _Trace(group, calls, starts, stored)
    name = "+".join(_names([calls[k].name for k in group.calls]))
    if group.primary is None:
        nests = [trace.pointwise()]
    else:
        nests = trace.reduction()
    native = tuple(_native(nest, target) for nest in nests)
    writes = {v.slot for v in group.writes if v.slot in stored}
    reads = {slot for nest in nests for slot in nest.slots_read()}
    kernels = tuple(nest.kernel for nest in nests)
    return Step(name, native, frozenset(reads), frozenset(writes), trace.workspace, b"", kernels)


def _names(names: list[str]) -> list[str]:
    """Repeated names once, with a count."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [name if n == 1 else f"{name}*{n}" for name, n in counts.items()]


def _lower_library(
    group: Group,
    calls: Sequence[Call],
    starts: Sequence[int],
    stored: frozenset[int],
    target: Target,
) -> Step:
    call = calls[group.calls[0]]
    assert isinstance(call.work, Library)
    lowered = group.lowered or call.work.lower(target)
    operands = lowered.operands
    nest = None
    if group.epilogue is not None:
        nest = _Trace(group.epilogue, calls, starts, stored).epilogue()
    if group.stands_in is not None:
        assert nest is not None and lowered.grid is not None
        operands = operands | {lowered.grid.operand: group.stands_in}
        nest = nest.with_view(call.writes[0], group.stands_in)
    epilogue = None if nest is None else _native_epilogue(nest, target)

    def word(w: Pointer | int | float) -> Word:
        if not isinstance(w, Pointer):
            return w
        if w.operand in (EPILOGUE, EPILOGUE_ARGUMENTS):
            return 0 if epilogue is None else EpiloguePart(w.operand)
        if w.operand == WORKSPACE:
            return Scratch(w.byte_offset)
        if w.operand == "constants":
            return Constant(w.byte_offset)
        view = operands[w.operand]
        return Address(view.slot, view.layout.offset * view.layout.dtype.itemsize + w.byte_offset)

    native = tuple(
        NativeCall(
            s.module_key, s.source, s.function, s.functions or (s.function,),
            tuple(word(w) for w in s.words), s.tasks, s.grain,
            epilogue if Pointer(EPILOGUE) in s.words else None,
        )
        for s in lowered.steps
    )  # fmt: skip
    reads = {v.slot for v in call.reads}
    writes = {v.slot for v in call.writes} & stored
    name = call.name
    kernels: tuple[Kernel, ...] = ()
    if nest is not None:
        assert group.epilogue is not None
        reads |= nest.slots_read()
        writes |= {v.slot for v in group.epilogue.writes} & stored
        name = "+".join([name, *_names([calls[k].name for k in group.epilogue.calls])])
        kernels = (nest.kernel,)
    return Step(
        name, native, frozenset(reads), frozenset(writes), lowered.workspace, lowered.constants,
        kernels,
    )  # fmt: skip


@dataclass(frozen=True)
class _Partial:
    """An operand in the workspace: one partial result per kept index and chunk."""

    byte_offset: int
    dtype: dtype


@dataclass(frozen=True)
class _Nest:
    """A traced kernel with what its arguments are in this plan."""

    kernel: Kernel
    extents: tuple[int, ...]
    views: tuple[View | _Partial, ...]
    strides: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]
    total_extent: int | None = None

    def with_view(self, old: View, new: View) -> _Nest:
        """The same with every operand in the storage of ``old`` being ``new``."""
        views = tuple(
            new if isinstance(view, View) and view.slot == old.slot else view for view in self.views
        )
        return replace(self, views=views)

    def slots_read(self) -> set[int]:
        """Storages that the kernel loads from (what it wrote itself stays in registers)."""
        loaded = {i.attribute for i in self.kernel.instructions if i.operation in _LOADS}
        views = [v for k, v in enumerate(self.views) if k in loaded]
        return {v.slot for v in views if isinstance(v, View) and v.slot >= 0}


_LOADS = frozenset({"load", "gather"})
_TOUCHES = _LOADS | {"store"}


class _Trace:
    """Traces the bodies of a group's calls into kernels."""

    def __init__(
        self, group: Group, calls: Sequence[Call], starts: Sequence[int], stored: frozenset[int]
    ) -> None:
        self.group = group
        self.calls = calls
        self.starts = starts
        self.stored = stored
        self.workspace = 0
        self._restart()

    def _restart(self) -> None:
        self.tracer = Tracer()
        self.views: list[View | _Partial] = []
        self.strides: list[tuple[int, ...]] = []
        self.operands: dict[Any, int] = {}
        self.values: dict[tuple[int, Any], Value] = {}
        self.numbers: list[int] = []
        self.tiled = False

    # -- pieces --------------------------------------------------------------------------------

    def _axes_strides(self, view: View) -> tuple[int, ...]:
        if view.indexed:
            return (0,) * len(self.axes)
        strides = broadcast_strides(view.layout, self.group.shape)
        merged = merged_strides(strides, self.group.shape, self.axes)
        assert merged is not None, "a view that does not fit the loops was fused"
        return merged

    def _operand(self, view: View, strides: tuple[int, ...]) -> int:
        key = (view, strides)
        found = self.operands.get(key)
        if found is None:
            kind = INDEXED if view.indexed else IOTA if view.slot == IOTA_SLOT else MEMORY
            inner = strides[-1] if strides else 0
            stride_class = {0: BROADCAST, 1: UNIT}.get(inner, STRIDED)
            if self.tiled and stride_class == STRIDED and kind == MEMORY and strides[-2] == 1:
                stride_class = TRANSPOSED
            found = self.tracer.operand(Operand(view.layout.dtype, stride_class, kind))
            self.operands[key] = found
            self.views.append(view)
            self.strides.append(strides)
        return found

    def _input(self, view: View) -> Any:
        if view.indexed:
            operand = self._operand(view, self._axes_strides(view))
            return lambda offset: self.tracer.gather(operand, offset)
        key = (view.slot, view.layout)
        value = self.values.get(key)
        if value is None:
            value = self.tracer.load(self._operand(view, self._axes_strides(view)))
            self.values[key] = value
        return value

    def _scalars(self, k: int) -> list[Value]:
        result = []
        for position, kind in enumerate(self.calls[k].scalars):
            self.numbers.append(self.starts[k] + position)
            result.append(self.tracer.scalar(types.float64 if kind is float else types.int64))
        return result

    def _elementwise(self, k: int) -> None:
        """Traces one pointwise call; later calls of the group read its results from registers."""
        call = self.calls[k]
        assert isinstance(call.work, Pointwise)
        inputs = [self._input(v) for v in call.reads]
        results = call.work.body(inputs, self._scalars(k))
        for view, value in zip(call.writes, results, strict=True):
            assert value.dtype is view.layout.dtype, f"{call.name}: {value.dtype} for {view}"
            self.values[view.slot, view.layout] = value
            self.pending[view] = value

    def _store_pending(self) -> None:
        for view, value in self.pending.items():
            if view.slot in self.stored:
                self.tracer.store(self._operand(view, self._axes_strides(view)), value)

    def _extents(self) -> tuple[int, ...]:
        shape = self.group.shape
        extents = []
        for dims in self.axes:
            n = 1
            for d in dims:
                n *= shape[d]
            extents.append(n)
        return tuple(extents)

    def _nest(self, reduced: tuple[bool, ...], extents: tuple[int, ...], **more: Any) -> _Nest:
        traced = self.tracer.finish(reduced, split=more.get("total_extent") is not None)
        kernel = traced.interned()
        return _Nest(
            kernel, extents, tuple(self.views), tuple(self.strides), tuple(self.numbers), **more
        )

    # -- pointwise -----------------------------------------------------------------------------

    def pointwise(self) -> _Nest:
        shape = self.group.shape
        self.pending: dict[View, Value] = {}
        views = self.group.views()
        leading = next((v for v in self.group.writes if v.slot in self.stored), views[0])
        strides = [broadcast_strides(v.layout, shape) for v in views]
        axes = pointwise_axes(shape, broadcast_strides(leading.layout, shape), strides)
        # A single element still takes one loop, over any dimension of size 1 or over none.
        self.axes: tuple[tuple[int, ...], ...] = axes
        self._tile()
        for k in self.group.calls:
            self._elementwise(k)
        self._store_pending()
        if not axes:
            return self._single_element()
        return self._nest((False,) * len(axes), self._extents())

    def _tile(self) -> None:
        """Where operands disagree on the contiguous loop: the two loops in question innermost."""
        if len(self.axes) < 2:
            return
        extents = self._extents()
        votes = [0] * len(extents)
        for view in self.group.views():
            strides = self._axes_strides(view)
            if view.slot == IOTA_SLOT or strides[-1] in (0, 1) or 1 not in strides:
                continue
            loop = strides.index(1)
            if min(extents[loop], extents[-1]) >= _TILED_EXTENT:
                votes[loop] += view.layout.dtype.itemsize
        if any(votes):
            loop = votes.index(max(votes))
            others = self.axes[:loop] + self.axes[loop + 1 : -1]
            self.axes = (*others, self.axes[loop], self.axes[-1])
            self.tiled = True

    def epilogue(self) -> _Nest:
        """As `pointwise`, over the axes of the group."""
        self.pending = {}
        self.axes = self.group.axes
        for k in self.group.calls:
            self._elementwise(k)
        self._store_pending()
        return self._nest((False,) * len(self.axes), self._extents())

    def _single_element(self) -> _Nest:
        """A kernel of one iteration: loops there are none, so one of extent 1 is made up."""
        kernel_operands = [o._replace(inner=UNIT) for o in self.tracer.operands]
        self.tracer.operands = [
            o._replace(inner=BROADCAST) if o.kind != MEMORY else o for o in kernel_operands
        ]
        self.strides = [(1,) if o.kind == MEMORY else (0,) for o in self.tracer.operands]
        return self._nest((False,), (1,))

    # -- reductions ----------------------------------------------------------------------------

    def reduction(self) -> list[_Nest]:
        primary, dims = self.group.primary, self.group.dims
        assert primary is not None
        self.pending = {}
        self.axes = self.group.axes
        flags = tuple(a[0] in dims for a in self.axes)
        extents = self._extents()
        if not any(flags):
            # Only dimensions of size 1 are reduced: a loop of one iteration stands for them.
            self.axes, flags, extents = (*self.axes, ()), (*flags, True), (*extents, 1)
        kept = _product(n for n, f in zip(extents, flags, strict=True) if not f)
        last = max(k for k, f in enumerate(flags) if f)
        combines = [c for k in self.group.calls for c in self._combines(k)]
        if (
            kept <= _SPLIT_ROWS
            and extents[last] >= 2 * schedule.SPLIT_LENGTH // max(1, kept if not flags[-1] else 1)
            and extents[last] >= 2048
            and not any(c.startswith("arg") for c in combines)
        ):
            return self._split(flags, extents, last)
        finishes = []
        for k in self.group.calls:
            if isinstance(self.calls[k].work, Reduction):
                values = self._reduced_values(k)
                finishes.append((k, self._combine(k, values)))
            else:
                self._elementwise(k)
        self._store_pending()
        for k, reduced in finishes:
            self._finish(k, reduced, dims)
        return [self._nest(flags, extents)]

    def _combines(self, k: int) -> tuple[str, ...]:
        work = self.calls[k].work
        return work.combine if isinstance(work, Reduction) else ()

    def _reduced_values(self, k: int) -> list[Value]:
        work = self.calls[k].work
        assert isinstance(work, Reduction)
        inputs = [self._input(v) for v in self.calls[k].reads]
        return list(work.body(inputs, self._scalars(k)))

    def _combine(self, k: int, values: list[Value]) -> list[Value]:
        reduced = []
        for kind in self._combines(k):
            taken = 2 if kind in ("argmax", "argmin") else 1
            reduced.append(self.tracer.reduce(kind, *values[:taken]))
            values = values[taken:]
        return reduced

    def _finish(self, k: int, reduced: list[Value], dims: tuple[int, ...]) -> None:
        call = self.calls[k]
        assert isinstance(call.work, Reduction)
        results = call.work.finish(reduced, self._finish_scalars(k))
        for view, value in zip(call.writes, results, strict=True):
            assert value.dtype is view.layout.dtype, f"{call.name}: {value.dtype} for {view}"
            if view.slot in self.stored:
                strides = self._kept_strides(view, dims)
                self.tracer.store(self._operand(view, strides), value)

    def _finish_scalars(self, k: int) -> list[Value]:
        return self._scalars(k)

    def _kept_strides(self, view: View, dims: tuple[int, ...]) -> tuple[int, ...]:
        """A result's strides over the loops: 0 along reduced ones."""
        full = result_strides(view.layout, self.group.shape, dims)
        merged = []
        for axis in self.axes:
            merged.append(0 if not axis or axis[0] in dims else full[axis[-1]])
        return tuple(merged)

    def _split(self, flags: tuple[bool, ...], extents: tuple[int, ...], last: int) -> list[_Nest]:
        """Few long reductions: chunks of a fixed length first, then their partial results."""
        chunk = _chunk_length(extents[last], flags[-1])
        chunks = -(-extents[last] // chunk)
        kept_loops = [k for k, f in enumerate(flags) if not f]
        at = len(kept_loops) if flags[-1] else len(kept_loops) - 1
        kept = [extents[k] for k in kept_loops]
        partial_extents = [*kept[:at], chunks, *kept[at:]]
        partials: list[tuple[int, str, _Partial]] = []
        for k in self.group.calls:
            if not isinstance(self.calls[k].work, Reduction):
                self._elementwise(k)
                continue
            values = self._reduced_values(k)
            for kind, value in zip(self._combines(k), values, strict=True):
                partial = _Partial(self.workspace, value.dtype)
                size = _product(partial_extents) * value.dtype.itemsize
                self.workspace += -(-size // 64) * 64
                partials.append((k, kind, partial))
                self._partial_store(partial, self.tracer.reduce(kind, value), flags)
        self._store_pending()
        first = self._chunked_nest(flags, extents, last, at, chunk, chunks, partial_extents)
        self._restart()
        second = self._combine_partials(flags, extents, partials, partial_extents, at)
        return [first, second]

    def _partial_store(self, partial: _Partial, value: Value, flags: tuple[bool, ...]) -> None:
        inner = BROADCAST if flags[-1] else UNIT
        operand = self.tracer.operand(Operand(partial.dtype, inner))
        self.views.append(partial)
        self.strides.append(())
        self.tracer.store(operand, value)

    def _chunked_nest(
        self, flags: tuple[bool, ...], extents: tuple[int, ...], last: int, at: int,
        chunk: int, chunks: int, partial_extents: list[int],
    ) -> _Nest:  # fmt: skip
        """The first kernel: a kept loop over chunks stands where the partial results have it."""
        kept_strides = _contiguous(partial_extents)
        new_strides = []
        for view, strides in zip(self.views, self.strides, strict=True):
            if isinstance(view, _Partial):
                left = iter(kept_strides[:at] + kept_strides[at + 1 :])
                spread = [0 if f else next(left) for f in flags]
                new_strides.append((*spread[:at], kept_strides[at], *spread[at:]))
            else:
                new_strides.append((*strides[:at], strides[last] * chunk, *strides[at:]))
        self.strides = new_strides
        new_flags = (*flags[:at], False, *flags[at:])
        limited = [*extents]
        limited[last] = chunk
        new_extents = (*limited[:at], chunks, *limited[at:])
        return self._nest(new_flags, new_extents, total_extent=extents[last])

    def _combine_partials(
        self, flags: tuple[bool, ...], extents: tuple[int, ...],
        partials: list[tuple[int, str, _Partial]], partial_extents: list[int], at: int,
    ) -> _Nest:  # fmt: skip
        """The second kernel reduces over chunks and finishes."""
        strides = _contiguous(partial_extents)
        kept_loops = [k for k, f in enumerate(flags) if not f]
        inner_kept = not flags[-1]
        reduced_flags = [False] * len(partial_extents)
        reduced_flags[at] = True
        reduced: dict[int, list[Value]] = {}
        for k, kind, partial in partials:
            stride_class = {1: UNIT, 0: BROADCAST}.get(strides[-1], STRIDED)
            operand = self.tracer.operand(Operand(partial.dtype, stride_class))
            self.views.append(partial)
            self.strides.append(strides)
            reduced.setdefault(k, []).append(self.tracer.reduce(kind, self.tracer.load(operand)))
        for k, values in reduced.items():
            call = self.calls[k]
            assert isinstance(call.work, Reduction)
            results = call.work.finish(values, self._finish_scalars(k))
            for view, value in zip(call.writes, results, strict=True):
                if view.slot in self.stored:
                    mine = self._kept_strides(view, self.group.dims)
                    spread = [mine[j] for j in kept_loops]
                    spread.insert(at, 0)
                    self.tracer.store(self._operand(view, tuple(spread)), value)
        assert inner_kept == (at != len(partial_extents) - 1)
        return self._nest(tuple(reduced_flags), tuple(partial_extents))


def _chunk_length(extent: int, row: bool) -> int:
    """A fixed length, so the number of chunks depends on the extent alone."""
    return schedule.SPLIT_LENGTH if row else 1024


def _product(numbers: Any) -> int:
    result = 1
    for n in numbers:
        result *= n
    return result


def _contiguous(extents: Sequence[int]) -> tuple[int, ...]:
    strides = []
    step = 1
    for n in reversed(extents):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _native_epilogue(nest: _Nest, target: Target) -> NativeCall:
    kernel = nest.kernel
    key = f"{RECTANGLE}\n{kernel.module_key}"
    names = (RECTANGLE,)
    return NativeCall(
        key, lambda: rectangle_source(kernel, target), RECTANGLE, names, _words(nest), 0, 1
    )


def _words(nest: _Nest) -> tuple[Word, ...]:
    """The argument block of a nest's kernel."""
    kernel = nest.kernel
    arguments = schedule.ArgumentMap(kernel)
    words: list[Word] = []
    touched = {i.attribute for i in kernel.instructions if i.operation in _TOUCHES}
    for k, view in enumerate(nest.views):
        if isinstance(view, _Partial):
            words.append(Scratch(view.byte_offset))
        elif kernel.operands[k].kind == IOTA or k not in touched:
            # No address: a body may leave an operand alone, whose slot then needs no memory.
            words.append(0)
        else:
            words.append(Address(view.slot, view.layout.offset * view.layout.dtype.itemsize))
    words += nest.extents
    for strides in nest.strides:
        words += strides
    words += [Number(k) for k in nest.numbers]
    if nest.total_extent is not None:
        words.append(nest.total_extent)
    assert len(words) == arguments.words
    return tuple(words)


def _native(nest: _Nest, target: Target) -> NativeCall:
    kernel = nest.kernel
    tasks = schedule.task_count(kernel, nest.extents)
    total = _product(nest.extents)
    grain = max(1, _GRAIN * tasks // max(total, 1))
    return NativeCall(
        kernel.module_key,
        lambda: schedule.source(kernel, target),
        schedule.FUNCTION,
        (schedule.FUNCTION,),
        _words(nest),
        tasks,
        grain,
    )
