"""Row kernels on a CPU: the innermost loop is reduced, and one task is one result.

The stages of `levels.py` follow one another within the task, so a row stays in the cache from the
first to the last.  A sum is made of chunks of `ROW_CHUNK` elements of the innermost loop, each
summed by several vector accumulators (in runs of `ROW_RUN` vectors) that a fixed tree combines;
chunks are added in order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from flambeau.compiler import emit
from flambeau.compiler.builder import ARGS, BEGIN, END, I64, PTR, Var, vector
from flambeau.compiler.kernel import UNIT
from flambeau.compiler.levels import ROW_BUFFER, ROW_BUFFER_STEP, Stage
from flambeau.compiler.schedule_reduction import LOOP_RUN, Accumulators, Reduction, run_count

ROW_ACCUMULATORS = 4
ROW_RUN = 128
ROW_CHUNK = 16384
# Chunks that one kernel may add; more are added by a second kernel, in runs.
MAX_CHUNKS = LOOP_RUN

# A position in the innermost loop, its mask (None where all lanes count), accumulators.
Element = Callable[[Var, Var | None, list[Var]], Sequence[Var]]


class RowReduction(Reduction):
    """One task is one row: every stage over its elements, and what comes between them."""

    def emit(self) -> None:
        s, b = self.s, self.b
        buffer = None
        if s.levels.held:
            buffer = b.emit(PTR, f"alloca [{ROW_BUFFER} x i8], align 64")

        def row(indices: Sequence[Var]) -> None:
            _Row(self, s.offsets(self.kept, indices), self.length_of_last(indices), buffer).emit()

        def task(number: Var, _: list[Var]) -> None:
            if s.kernel.banded:
                self._band(s.decode(number, self.kept[:-1]), row)
            else:
                row(s.decode(number, self.kept) if self.kept else [])

        b.loop(BEGIN, END, 1, [], task)

    def _band(self, outer: Sequence[Var], row: Callable[[Sequence[Var]], None]) -> None:
        """The rows of one band, in order."""
        s, b = self.s, self.b
        size = s.extents[self.kept[-1]]
        left = b.sub(b.argument(ARGS, s.map.total_extent), b.mul(outer[0], size))

        self._clear_accumulated(outer)

        def one(index: Var, _: list[Var]) -> None:
            row([*outer, index])

        b.loop(0, b.min(left, size), 1, [], one)

    def _clear_accumulated(self, outer: Sequence[Var]) -> None:
        """Sets what the band adds up to zero."""
        s = self.s
        offsets = s.offsets(self.kept[:-1], outer)
        for i in s.kernel.instructions:
            if i.operation == "accumulate":
                assert isinstance(i.attribute, int)
                zero = emit.identity(self.b, "sum", i.dtype, emit.register_type(i.dtype, s.width))
                store = functools.partial(s.store, i.attribute, zero, offsets[i.attribute])
                s.vectors(
                    self.b.constant(0), s.extents[-1], functools.partial(store, width=s.width)
                )


class _Row:
    """The code for one row."""

    def __init__(
        self, reduction: RowReduction, offsets: Sequence[Var], length: Var, buffer: Var | None
    ) -> None:
        self.s, self.b = reduction.s, reduction.b
        self.loops, self.kept = reduction.loops, reduction.kept
        self.offsets = offsets
        self.length = length
        self.values = self.s.uniform_values(1)
        stages = self.s.levels.stages
        self.asks_ahead = _asks_ahead(stages)
        used = [self.s.kernel.instructions[k] for stage in stages for k in stage.instructions]
        self.loads = {i.attribute for i in used if i.operation == "load"}
        self.stores = {i.attribute for i in used if i.operation == "store"}
        self.splats: dict[int, Var] = {}
        self.buffers: dict[int, Var] = {}
        if buffer is not None:
            self._share_out(buffer)

    def _share_out(self, buffer: Var) -> None:
        b = self.b
        step = ROW_BUFFER_STEP
        rounded = b.mul(run_count(b, self.length, step), step)
        used = b.constant(0)
        for k in self.s.levels.held:
            element = self._held_type(k)
            self.buffers[k] = b.gep("i8", buffer, used)
            used = b.add(used, b.mul(rounded, 8 if element == "double" else 4))

    def _held_type(self, k: int) -> str:
        return emit.REGISTER[self.s.kernel.instructions[k].dtype]

    def emit(self) -> None:
        levels = self.s.levels
        self._per_row(levels.rows[0])
        for stage, rows in zip(levels.stages, levels.rows[1:], strict=True):
            if stage.reductions:
                self._reduce(stage)
            elif stage.instructions:
                self._walk(stage)
            self._per_row(rows)

    def _per_row(self, instructions: Sequence[int]) -> None:
        self.s.perform(instructions, self.values, self.offsets, Var(I64, "0"), None, 1)

    # -- one vector of elements ----------------------------------------------------------------

    def _splat_rows(self, stage: Stage) -> None:
        """Values of the row that the stage's elements use, in every lane."""
        used = {a for k in stage.instructions for a in self.s.kernel.instructions[k].arguments}
        used.update(a for k in stage.reductions for a in self.s.kernel.instructions[k].arguments)
        per_row = {k for rows in self.s.levels.rows for k in rows}
        per_row.update(k for earlier in self.s.levels.stages for k in earlier.reductions)
        for k in sorted(used & per_row):
            self.splats[k] = self.b.splat(self.values[k], self.s.width)

    def _elements(
        self, stage: Stage, offsets: Sequence[Var], index: Var, mask: Var | None
    ) -> dict[int, Var]:
        s, b, width = self.s, self.b, self.s.width
        known = {**s.uniform_values(width), **self.splats}
        used = {a for k in stage.instructions for a in s.kernel.instructions[k].arguments}
        for k in s.levels.held:
            if k in used and k not in stage.instructions:
                element = self._held_type(k)
                address = b.gep(element, self.buffers[k], index)
                known[k] = b.load(vector(element, width), address, 4)
        if stage is self.asks_ahead:
            self._prefetch(index)
        s.perform(stage.instructions, known, offsets, index, mask, width)
        for k in stage.holds:
            # Lanes past the end of the row are written too: the buffer is rounded up.
            b.store(known[k], b.gep(self._held_type(k), self.buffers[k], index), 4)
        return known

    def _prefetch(self, index: Var) -> None:
        """Asks for the next row: otherwise memory would rest while later stages compute."""
        s, b = self.s, self.b
        if not self.kept or len(self.loops) != 1:
            return
        for k, operand in enumerate(s.kernel.operands):
            if k in self.loads | self.stores and operand.inner == UNIT:
                ahead = b.add(b.add(self.offsets[k], s.strides[k][self.kept[-1]]), index)
                address = b.gep(operand.dtype.llvm, s.pointers[k], ahead)
                b.prefetch(address, write=k in self.stores)

    # -- stages --------------------------------------------------------------------------------

    def _walk(self, stage: Stage) -> None:
        """A stage that reduces nothing."""
        self._splat_rows(stage)
        self._nested_walk(stage, self.loops[:-1], self.offsets)

    def _nested_walk(self, stage: Stage, loops: Sequence[int], offsets: Sequence[Var]) -> None:
        b = self.b
        if loops:

            def body(index: Var, _: list[Var]) -> None:
                self._nested_walk(stage, loops[1:], self.s.advance(offsets, loops[0], index))

            b.loop(0, self.s.extents[loops[0]], 1, [], body)
            return

        self.s.vectors(
            self.b.constant(0),
            self.length,
            lambda index, mask: self._elements(stage, offsets, index, mask),
        )

    def _reduce(self, stage: Stage) -> None:
        """A stage that ends with reduced values."""
        b = self.b
        accumulators = Accumulators(self.s, stage.reductions)
        self._splat_rows(stage)

        def chunk(number: Var, totals: list[Var]) -> list[Var]:
            first = b.mul(number, ROW_CHUNK)
            stop = b.min(b.add(first, ROW_CHUNK), self.length)
            walk = _Chunk(self, stage, accumulators, first, stop)
            return accumulators.combine(totals, walk.total())

        chunks = run_count(b, self.length, ROW_CHUNK)
        _, totals = b.loop(0, chunks, 1, accumulators.identities(1), chunk)
        self.values.update(accumulators.results(totals))


def _asks_ahead(stages: Sequence[Stage]) -> Stage | None:
    """The stage in which memory would rest most: the last one, but for a much longer one."""
    if len(stages) == 1:
        return None
    longest = max(stages[1:], key=lambda stage: len(stage.instructions))
    last = stages[-1]
    return longest if len(longest.instructions) > 2 * len(last.instructions) else last


class _Chunk:
    """The sum of the elements between ``first`` and ``stop`` of the innermost loop."""

    def __init__(
        self, row: _Row, stage: Stage, accumulators: Accumulators, first: Var, stop: Var
    ) -> None:
        self.row, self.s, self.b = row, row.s, row.b
        self.stage = stage
        self.accumulators = accumulators
        self.first, self.stop = first, stop
        self.each = len(accumulators.identities(1))

    def total(self) -> list[Var]:
        neutral = self.accumulators.identities(self.s.width) * ROW_ACCUMULATORS
        return self._collapse(self._nest(self.row.loops[:-1], self.row.offsets, neutral))

    def _nest(
        self, loops: Sequence[int], offsets: Sequence[Var], start: Sequence[Var]
    ) -> list[Var]:
        s, b, accumulators = self.s, self.b, self.accumulators
        neutral = accumulators.identities(s.width) * ROW_ACCUMULATORS
        if not loops:

            def run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
                return self._run(
                    offsets, b.add(first, self.first), b.add(stop, self.first), carried
                )

            return accumulators.in_runs(
                b.sub(self.stop, self.first), ROW_RUN * s.width, start, neutral, run
            )

        def body(index: Var, carried: list[Var]) -> list[Var]:
            return self._nest(loops[1:], s.advance(offsets, loops[0], index), carried)

        def outer_run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
            return b.loop(first, stop, 1, carried, body)[1]

        return accumulators.in_runs(s.extents[loops[0]], LOOP_RUN, start, neutral, outer_run)

    def _run(
        self, offsets: Sequence[Var], first: Var, stop: Var, start: Sequence[Var]
    ) -> list[Var]:
        b, width, each = self.b, self.s.width, self.each
        accumulators = self.accumulators

        def body(index: Var, carried: list[Var]) -> list[Var]:
            updated: list[Var] = []
            for u in range(ROW_ACCUMULATORS):
                known = self.row._elements(self.stage, offsets, b.add(index, u * width), None)
                mine = carried[u * each : (u + 1) * each]
                updated += accumulators.combine(mine, accumulators.inputs(known))
            return updated

        index, carried = b.loop(first, stop, ROW_ACCUMULATORS * width, start, body)

        def tail(index: Var, carried: list[Var]) -> list[Var]:
            mask = b.mask(b.sub(stop, index), width)
            known = self.row._elements(self.stage, offsets, index, mask if width > 1 else None)
            values = accumulators.masked(accumulators.inputs(known), mask, width)
            return accumulators.combine(carried, values)

        _, rest = b.loop(index, b.add(stop, width - 1), width, carried[:each], tail)
        return rest + carried[each:]

    def _collapse(self, values: Sequence[Var]) -> list[Var]:
        each = self.each
        parts = [list(values[u * each : (u + 1) * each]) for u in range(ROW_ACCUMULATORS)]
        while len(parts) > 1:
            parts = [
                self.accumulators.combine(parts[k], parts[k + 1]) for k in range(0, len(parts), 2)
            ]
        return emit.horizontal(self.b, parts[0], self.accumulators.combine)
