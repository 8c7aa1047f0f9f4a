"""Kernels to loops: the GPU schedule, from the same kernels and argument blocks as the CPU's.

The kernel ``(args, begin, end)`` covers the tasks ``[begin, end)`` with any number of blocks of
`GpuTarget.block_threads` threads; each thread (or block) takes every so-manieth task.

* pointwise: a task is an element, one thread each, neighbours in the innermost loop;
* a *column* reduction (innermost loop kept): a task is a result, one thread each;
* a *row* reduction (innermost loop reduced): a task is a result, one block each, whose threads
  combine through shared memory in a fixed tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flambeau.compiler import builder as ir
from flambeau.compiler.builder import BEGIN, END, I64, Var, element_type
from flambeau.compiler.kernel import IOTA, Kernel
from flambeau.compiler.schedule import FUNCTION, CpuSchedule
from flambeau.compiler.schedule_reduction import ColumnReduction, Reduction
from flambeau.compiler.target import GpuTarget


class GpuSchedule(CpuSchedule):
    """Writes the function of one kernel for one GPU target: scalar code, one lane per thread."""

    def __init__(self, kernel: Kernel, target: GpuTarget) -> None:
        self.target = target
        self.globals: list[str] = []
        super().__init__(kernel, target)
        assert self.width == 1
        self.pointers = [
            p if o.kind == IOTA else target.device_pointer(self.b, p)
            for p, o in zip(self.pointers, kernel.operands, strict=True)
        ]

    def source(self) -> str:
        """The module's IR text."""
        if not any(self.kernel.reduced):
            self._pointwise()
        elif self.kernel.reduced[-1]:
            BlockReduction(self, self.target).emit()
        else:
            ThreadReduction(self).emit()
        function = self.b.function(
            FUNCTION, ir.KERNEL_PARAMETERS, convention=self.target.convention
        )
        return ir.module([*self.globals, function], [self.b])

    def every(self, first: Var, stop: Var, step: Var, body: Callable[[Var], None]) -> None:
        """``for (i = first; i < stop; i += step) body(i)``."""
        b = self.b
        missing = b.max(b.sub(b.add(stop, b.sub(step, 1)), first), 0)
        turns = b.emit(I64, f"udiv {missing}, {step.name}")

        def turn(number: Var, _: list[Var]) -> None:
            body(b.add(first, b.mul(number, step)))

        b.loop(0, turns, 1, [], turn)

    def tasks_of_threads(self, body: Callable[[Var], None]) -> None:
        """Hands every task to one thread."""
        b, threads = self.b, self.target.block_threads
        mine = b.add(b.mul(self.target.block_index(b), threads), self.target.thread_index(b))
        step = b.mul(self.target.block_count(b), threads)
        self.every(b.add(BEGIN, mine), END, step, body)

    def tasks_of_blocks(self, body: Callable[[Var], None]) -> None:
        """Hands every task to one block."""
        b = self.b
        first = b.add(BEGIN, self.target.block_index(b))
        self.every(first, END, self.target.block_count(b), body)

    def _pointwise(self) -> None:
        loops = range(self.kernel.rank)

        def element(task: Var) -> None:
            *outer, inner = self.decode(task, loops)
            self.elements(self.offsets(loops[:-1], outer), inner, None, 1)

        self.tasks_of_threads(element)


class ThreadReduction(ColumnReduction):
    """One thread adds up one result."""

    s: GpuSchedule

    def emit(self) -> None:
        s = self.s

        def result(task: Var) -> None:
            *outer, column = s.decode(task, self.kept)
            offsets = s.offsets(self.kept[:-1], outer)
            length = s.extents[self.loops[-1]]
            if s.kernel.split:
                length = self.clamp_chunk(outer[-1])
            start = self.identities(1)
            total = self._nest(self.loops, offsets, start, length, column, None)
            self.finish(total, offsets, column, None, 1)

        s.tasks_of_threads(result)


class BlockReduction(Reduction):
    """One block adds up one result."""

    s: GpuSchedule

    def __init__(self, schedule: GpuSchedule, target: GpuTarget) -> None:
        super().__init__(schedule)
        self.target = target
        self.types = [value.type for value in self.identities(1)]

    def emit(self) -> None:
        s, b = self.s, self.b
        thread = self.target.thread_index(b)
        shared = [self._shared(k, type_) for k, type_ in enumerate(self.types)]

        def result(task: Var) -> None:
            indices = s.decode(task, self.kept) if self.kept else []
            offsets = s.offsets(self.kept, indices)
            length = s.extents[-1]
            if s.kernel.split:
                length = self.clamp_chunk(indices[-1])
            mine = self._share_of_thread(offsets, length, thread)
            self._combine_threads(shared, mine, thread)

            def store() -> None:
                total = self._read(shared, Var(I64, "0"))
                self.finish(total, offsets, Var(I64, "0"), None, 1)

            b.if_(b.compare("eq", thread, 0), store)
            # The next task writes the shared memory again.
            self.target.barrier(b)

        s.tasks_of_blocks(result)

    def _share_of_thread(self, offsets: Sequence[Var], length: Var, thread: Var) -> list[Var]:
        """Every so-manieth element, counted over all reduced loops."""
        s, b, threads = self.s, self.b, self.target.block_threads
        total = length
        for loop in self.loops[:-1]:
            total = b.mul(total, s.extents[loop])
        turns = b.emit(I64, f"sdiv {b.add(b.sub(total, thread), threads - 1)}, {threads}")

        def add(number: Var, carried: list[Var]) -> list[Var]:
            position = b.add(b.mul(number, threads), thread)
            inner = b.emit(I64, f"urem {position}, {length.name}")
            rest = b.emit(I64, f"udiv {position}, {length.name}")
            at = offsets
            if len(self.loops) > 1:
                indices = s.decode(rest, self.loops[:-1])
                for loop, index in zip(self.loops[:-1], indices, strict=True):
                    at = s.advance(at, loop, index)
            known = s.elements(at, inner, None, 1)
            return self.combine(carried, self.inputs(known))

        return b.loop(0, turns, 1, self.identities(1), add)[1]

    def _combine_threads(self, shared: Sequence[Var], mine: Sequence[Var], thread: Var) -> None:
        """Halves the number of partial results until the first thread has the whole."""
        b = self.b
        self._write(shared, mine, thread)
        self.target.barrier(b)
        count = self.target.block_threads // 2
        while count:

            def step(count: int = count) -> None:
                other = self._read(shared, b.add(thread, count))
                self._write(shared, self.combine(self._read(shared, thread), other), thread)

            b.if_(b.compare("slt", thread, count), step)
            self.target.barrier(b)
            count //= 2

    # -- shared memory -------------------------------------------------------------------------

    def _shared(self, number: int, type_: str) -> Var:
        array = f"[{self.target.block_threads} x {_in_memory(type_)}]"
        pointer, definition = self.target.shared(self.b, f"shared{number}", array)
        if definition:
            self.s.globals.append(definition + "\n")
        return pointer

    def _write(self, shared: Sequence[Var], values: Sequence[Var], at: Var) -> None:
        b = self.b
        for pointer, value in zip(shared, values, strict=True):
            memory = _in_memory(value.type)
            raw = value if memory == value.type else b.convert("zext", value, memory)
            b.store(raw, b.gep(memory, pointer, at), _bytes(memory))

    def _read(self, shared: Sequence[Var], at: Var) -> list[Var]:
        b = self.b
        result = []
        for pointer, type_ in zip(shared, self.types, strict=True):
            memory = _in_memory(type_)
            raw = b.load(memory, b.gep(memory, pointer, at), _bytes(memory))
            result.append(raw if memory == type_ else b.convert("trunc", raw, type_))
        return result


def _in_memory(type_: str) -> str:
    return "i8" if type_ == "i1" else type_


def _bytes(type_: str) -> int:
    element = element_type(type_)
    return {"half": 2, "float": 4, "double": 8}.get(element) or int(element[1:]) // 8


def source(kernel: Kernel, target: GpuTarget) -> str:
    """The IR text of a kernel for a GPU; its one function is called `schedule.FUNCTION`."""
    return GpuSchedule(kernel, target).source()


def task_count(kernel: Kernel, extents: Sequence[int]) -> int:
    """Over how many tasks ``[begin, end)`` ranges for these loop extents."""
    result = 1
    for n, reduced in zip(extents, kernel.reduced, strict=True):
        result *= 1 if reduced else n
    return result


def tasks_per_block(kernel: Kernel, target: GpuTarget) -> int:
    """How many tasks one block takes in one turn."""
    return 1 if kernel.reduced[-1] else target.block_threads
