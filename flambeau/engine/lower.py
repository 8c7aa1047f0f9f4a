"""Lowering: a group of calls becomes native steps over slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from flambeau.compiler import schedule
from flambeau.compiler.epilogue import EPILOGUE, EPILOGUE_ARGUMENTS, RECTANGLE, rectangle_source
from flambeau.compiler.kernel import IOTA, Kernel
from flambeau.compiler.kernel_step import WORKSPACE, Pointer
from flambeau.compiler.target import Target
from flambeau.engine.call import Call, Library
from flambeau.engine.fuse import Group
from flambeau.engine.nest import Nest, Partial
from flambeau.engine.trace import trace, trace_epilogue

# Elements that are worth a thread's while: below this the hand-over costs more than it saves.
_GRAIN = 16384

# Instructions that use an operand's address.
_TOUCHES = frozenset({"load", "gather", "store", "accumulate"})


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
    name = "+".join(_names([calls[k].name for k in group.calls]))
    nests, workspace = trace(group, calls, starts, stored)
    native = tuple(_native(nest, target) for nest in nests)
    writes = {v.slot for v in group.writes if v.slot in stored}
    reads = {slot for nest in nests for slot in nest.slots_read()}
    kernels = tuple(nest.kernel for nest in nests)
    return Step(name, native, frozenset(reads), frozenset(writes), workspace, b"", kernels)


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
        nest = trace_epilogue(group.epilogue, calls, starts, stored)
    if group.stands_in is not None:
        assert nest is not None and lowered.grid is not None
        operands = operands | {lowered.grid.operand: group.stands_in}
        nest = nest.with_slot(call.writes[0].slot, group.stands_in.slot)
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


def _native_epilogue(nest: Nest, target: Target) -> NativeCall:
    kernel = nest.kernel
    key = f"{RECTANGLE}\n{kernel.module_key}"
    names = (RECTANGLE,)
    return NativeCall(
        key, lambda: rectangle_source(kernel, target), RECTANGLE, names, _words(nest), 0, 1
    )


def _words(nest: Nest) -> tuple[Word, ...]:
    """The argument block of a nest's kernel."""
    kernel = nest.kernel
    arguments = schedule.ArgumentMap(kernel)
    words: list[Word] = []
    touched = {i.attribute for i in kernel.instructions if i.operation in _TOUCHES}
    for k, source in enumerate(nest.sources):
        if isinstance(source, Partial):
            words.append(Scratch(source.byte_offset))
        elif kernel.operands[k].kind == IOTA or k not in touched:
            # No address: a body may leave an operand alone, whose slot then needs no memory.
            words.append(0)
        else:
            words.append(Address(source.slot, source.byte_offset))
    words += nest.extents
    for strides in nest.strides:
        words += strides
    words += [Number(k) for k in nest.numbers]
    if nest.total_extent is not None:
        words.append(nest.total_extent)
    assert len(words) == arguments.words
    return tuple(words)


def _native(nest: Nest, target: Target) -> NativeCall:
    kernel = nest.kernel
    tasks = schedule.task_count(kernel, nest.extents)
    total = prod(nest.extents)
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
