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
from flambeau.compiler.levels import Stage
from flambeau.compiler.schedule import FUNCTION, CpuSchedule
from flambeau.compiler.schedule_columns import ColumnReduction
from flambeau.compiler.schedule_reduction import LOOP_RUN, Accumulators, Reduction
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
            instructions = [*self.levels.rows[0], *self.levels.stages[0].instructions]
            self.elements(instructions, self.offsets(loops[:-1], outer), inner, None, 1)

        self.tasks_of_threads(element)


class ThreadReduction(ColumnReduction):
    """One thread adds up one result."""

    s: GpuSchedule

    def emit(self) -> None:
        s = self.s
        self.collect()

        def result(task: Var) -> None:
            *outer, column = s.decode(task, self.kept)
            offsets = s.offsets(self.kept[:-1], outer)
            length = self.length_of_last(outer)
            total = self._total(
                self.loops, offsets, column, length, self.accumulators.identities(1)
            )
            self.finish(offsets, column, None, total)

        s.tasks_of_threads(result)

    def _total(
        self, loops: Sequence[int], offsets: Sequence[Var], column: Var, length: Var,
        start: Sequence[Var],
    ) -> list[Var]:  # fmt: skip
        b, s = self.b, self.s

        def body(index: Var, carried: list[Var]) -> list[Var]:
            inner = s.advance(offsets, loops[0], index)
            if len(loops) > 1:
                return self._total(loops[1:], inner, column, length, carried)
            known = s.elements(self.per_element, inner, column, None, 1)
            return self.accumulators.combine(carried, self.accumulators.inputs(known))

        def run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
            return b.loop(first, stop, 1, carried, body)[1]

        extent = s.extents[loops[0]] if len(loops) > 1 else length
        neutral = self.accumulators.identities(1)
        return self.accumulators.in_runs(extent, LOOP_RUN, start, neutral, run)


class BlockReduction(Reduction):
    """One block does one row: each stage over its elements, and what comes between them."""

    s: GpuSchedule

    def __init__(self, schedule: GpuSchedule, target: GpuTarget) -> None:
        super().__init__(schedule)
        self.target = target

    def emit(self) -> None:
        s, b = self.s, self.b
        thread = self.target.thread_index(b)
        stages = [(stage, Accumulators(s, stage.reductions)) for stage in s.levels.stages]
        widest = max((acc.identities(1) for _, acc in stages), key=len)
        shared = [self._shared(k) for k in range(len(widest))]

        def result(task: Var) -> None:
            indices = s.decode(task, self.kept) if self.kept else []
            offsets = s.offsets(self.kept, indices)
            length = self.length_of_last(indices)
            known = s.uniform_values(1)
            self._per_row(s.levels.rows[0], known, offsets, thread)
            for (stage, accumulators), rows in zip(stages, s.levels.rows[1:], strict=True):
                mine = self._share_of_thread(stage, accumulators, known, offsets, length, thread)
                if stage.reductions:
                    self._combine_threads(accumulators, shared, mine, thread)
                    total = self._read(accumulators, shared, Var(I64, "0"))
                    known.update(accumulators.results(total))
                    # The next one writes the shared memory again.
                    self.target.barrier(b)
                self._per_row(rows, known, offsets, thread)

        s.tasks_of_blocks(result)

    def _per_row(
        self, instructions: Sequence[int], known: dict[int, Var], offsets: Sequence[Var],
        thread: Var,
    ) -> None:  # fmt: skip
        """Every thread computes what the row needs; the first one stores it."""
        s, b = self.s, self.b
        stores = [k for k in instructions if s.kernel.instructions[k].operation == "store"]
        others = [k for k in instructions if k not in stores]
        s.perform(others, known, offsets, Var(I64, "0"), None, 1)
        if stores:

            def store() -> None:
                s.perform(stores, known, offsets, Var(I64, "0"), None, 1)

            b.if_(b.compare("eq", thread, 0), store)

    def _share_of_thread(
        self, stage: Stage, accumulators: Accumulators, values: dict[int, Var],
        offsets: Sequence[Var], length: Var, thread: Var,
    ) -> list[Var]:  # fmt: skip
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
            known = dict(values)
            s.perform(stage.instructions, known, at, inner, None, 1)
            return accumulators.combine(carried, accumulators.inputs(known))

        return b.loop(0, turns, 1, accumulators.identities(1), add)[1]

    def _combine_threads(
        self, accumulators: Accumulators, shared: Sequence[Var], mine: Sequence[Var], thread: Var
    ) -> None:
        """Halves the number of partial results until the first thread has the whole."""
        b = self.b
        self._write(shared, mine, thread)
        self.target.barrier(b)
        count = self.target.block_threads // 2
        while count:

            def step(count: int = count) -> None:
                other = self._read(accumulators, shared, b.add(thread, count))
                own = self._read(accumulators, shared, thread)
                self._write(shared, accumulators.combine(own, other), thread)

            b.if_(b.compare("slt", thread, count), step)
            self.target.barrier(b)
            count //= 2

    # -- shared memory -------------------------------------------------------------------------

    def _shared(self, number: int) -> Var:
        """Memory for one accumulator of each thread, of any type."""
        array = f"[{self.target.block_threads} x i64]"
        pointer, definition = self.target.shared(self.b, f"shared{number}", array)
        if definition:
            self.s.globals.append(definition + "\n")
        return pointer

    def _write(self, shared: Sequence[Var], values: Sequence[Var], at: Var) -> None:
        b = self.b
        for pointer, value in zip(shared, values, strict=False):
            memory = _in_memory(value.type)
            raw = value if memory == value.type else b.convert("zext", value, memory)
            b.store(raw, b.gep(memory, pointer, at), _bytes(memory))

    def _read(self, accumulators: Accumulators, shared: Sequence[Var], at: Var) -> list[Var]:
        b = self.b
        result = []
        for pointer, like in zip(shared, accumulators.identities(1), strict=False):
            memory = _in_memory(like.type)
            raw = b.load(memory, b.gep(memory, pointer, at), _bytes(memory))
            result.append(raw if memory == like.type else b.convert("trunc", raw, like.type))
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
