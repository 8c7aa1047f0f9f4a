"""Column kernels on a CPU: the innermost loop is kept, and one task is a block of results.

Elements are read in the order in which they lie: row after row of the block, added to accumulators
that wait in the first-level cache.  Rows are added in runs of `LOOP_RUN`, runs in runs of runs, and
those in order; there is one set of accumulators for each of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flambeau.compiler.builder import BEGIN, END, I64, PTR, Var, element_type, lanes
from flambeau.compiler.levels import closure
from flambeau.compiler.schedule_reduction import LOOP_RUN, Accumulators, Reduction, run_count

# Results per task, whose accumulators fit the first-level cache.
COLUMN_BLOCK = 512
# Rows that one kernel adds; more are added by a second kernel.
MAX_ROWS = LOOP_RUN**3
# Rows whose values are added at once, where one takes few instructions.
_ROWS_AT_ONCE = 4
_FEW_INSTRUCTIONS = 12

# At a column (counted from the block's first), with its mask.
AtColumn = Callable[[Var, Var | None], None]


class ColumnReduction(Reduction):
    """One task is a block of columns, for one index of the outer kept loops."""

    def collect(self) -> None:
        """What runs per element and what per result.

        Nothing is kept from element to element but the accumulators: values per result are made
        again where they are needed.
        """
        kernel, levels = self.s.kernel, self.s.levels
        (stage,) = levels.stages
        reductions = stage.reductions
        self.accumulators = Accumulators(self.s, reductions)
        inputs = [a for k in reductions for a in kernel.instructions[k].arguments]
        self.per_element = closure(
            kernel, [*inputs, *self._stores(stage.instructions)], levels.uniform
        )
        ends = self._stores(k for rows in levels.rows for k in rows)
        self.per_result = closure(kernel, ends, [*levels.uniform, *reductions])

    def _stores(self, instructions: Iterable[int]) -> list[int]:
        return [k for k in instructions if self.s.kernel.instructions[k].operation == "store"]

    def emit(self) -> None:
        s, b = self.s, self.b
        self.collect()
        outer = self.kept[:-1]
        columns = s.extents[-1]
        blocks = run_count(b, columns, COLUMN_BLOCK)
        # For the results, for each loop outside the innermost reduced one, for its runs and rows.
        self.sets = [self._allocate() for _ in range(len(self.loops) + 2)]

        def task(number: Var, _: list[Var]) -> None:
            row = b.emit(I64, f"udiv {number}, {blocks.name}")
            self.first = b.mul(b.emit(I64, f"urem {number}, {blocks.name}"), COLUMN_BLOCK)
            indices = s.decode(row, outer) if outer else []
            offsets = s.offsets(outer, indices)
            self.length = self.length_of_last(indices)
            self.count = b.min(b.sub(columns, self.first), COLUMN_BLOCK)
            self._clear(0)
            self._nest(self.loops, offsets, 0)

            def finish(column: Var, mask: Var | None) -> None:
                self.finish(offsets, b.add(self.first, column), mask, self._read(0, column))

            self._every_column(finish)

        b.loop(BEGIN, END, 1, [], task)

    # -- accumulators ----------------------------------------------------------------------------

    def _allocate(self) -> list[Var]:
        """One set of accumulators of a whole block."""
        result = []
        for value in self.accumulators.identities(1):
            size = COLUMN_BLOCK * _bytes(value.type)
            result.append(self.b.emit(PTR, f"alloca [{size} x i8], align 64"))
        return result

    def _read(self, number: int, column: Var) -> list[Var]:
        b, result = self.b, []
        neutral = self.accumulators.identities(self.s.width)
        for buffer, like in zip(self.sets[number], neutral, strict=True):
            if element_type(like.type) == "i1":
                memory = like.type.replace("i1", "i8")
                raw = b.load(memory, b.gep("i8", buffer, column), 1)
                result.append(b.compare("ne", raw, 0))
            else:
                element = element_type(like.type)
                result.append(b.load(like.type, b.gep(element, buffer, column), _bytes(element)))
        return result

    def _write(self, number: int, column: Var, values: Sequence[Var]) -> None:
        """Lanes past the last column are written too: the block is a whole number of vectors."""
        b = self.b
        for buffer, value in zip(self.sets[number], values, strict=True):
            raw = b.convert("zext", value, "i8") if element_type(value.type) == "i1" else value
            element = element_type(raw.type)
            b.store(raw, b.gep(element, buffer, column), _bytes(element))

    def _clear(self, number: int) -> None:
        neutral = self.accumulators.identities(self.s.width)
        self._every_vector(lambda column: self._write(number, column, neutral))

    def _add(self, number: int, part: int) -> None:
        """Set ``number`` combined with the finished set ``part``."""

        def add(column: Var) -> None:
            values = self.accumulators.combine(self._read(number, column), self._read(part, column))
            self._write(number, column, values)

        self._every_vector(add)

    # -- loops -----------------------------------------------------------------------------------

    def _every_vector(self, body: Callable[[Var], None]) -> None:
        b, width = self.b, self.s.width
        stop = b.add(self.count, width - 1)
        b.loop(0, stop, width, [], lambda column, _: body(column))

    def _every_column(self, body: AtColumn) -> None:
        """The same with a mask for the last vector where it is not whole."""
        self.s.vectors(self.b.constant(0), self.count, body)

    def _in_runs(self, length: Var, number: int, body: Callable[[Var, Var], None]) -> None:
        """``body(first, stop)`` for runs of rows; it adds to the next set, which goes to this."""
        b = self.b

        def run(index: Var, _: list[Var]) -> None:
            first = b.mul(index, LOOP_RUN)
            self._clear(number + 1)
            body(first, b.min(b.add(first, LOOP_RUN), length))
            self._add(number, number + 1)

        b.loop(0, run_count(b, length, LOOP_RUN), 1, [], run)

    def _nest(self, loops: Sequence[int], offsets: Sequence[Var], number: int) -> None:
        """Adds everything under these loops to set ``number``."""
        b, s = self.b, self.s
        if len(loops) == 1:

            def runs(first: Var, stop: Var) -> None:
                def run(index: Var, _: list[Var]) -> None:
                    start = b.mul(index, LOOP_RUN)
                    self._clear(number + 2)
                    self._rows(offsets, start, b.min(b.add(start, LOOP_RUN), self.length))
                    self._add(number + 1, number + 2)

                b.loop(first, stop, 1, [], run)

            self._in_runs(run_count(b, self.length, LOOP_RUN), number, runs)
            return

        def some(first: Var, stop: Var) -> None:
            def body(index: Var, _: list[Var]) -> None:
                self._nest(loops[1:], s.advance(offsets, loops[0], index), number + 1)

            b.loop(first, stop, 1, [], body)

        self._in_runs(s.extents[loops[0]], number, some)

    def _rows(self, offsets: Sequence[Var], first: Var, stop: Var) -> None:
        """Adds the rows of one run to the last set."""
        b = self.b
        together = _ROWS_AT_ONCE if len(self.per_element) <= _FEW_INSTRUCTIONS else 1

        def rows(count: int) -> Callable[[Var, list[Var]], None]:
            def body(index: Var, _: list[Var]) -> None:
                starts = [
                    self.s.advance(offsets, self.loops[-1], b.add(index, r)) for r in range(count)
                ]
                self._every_column(lambda column, mask: self._add_rows(starts, column, mask))

            return body

        index, _ = b.loop(first, stop, together, [], rows(together))
        if together > 1:
            b.loop(index, stop, 1, [], rows(1))

    def _add_rows(self, starts: Sequence[Sequence[Var]], column: Var, mask: Var | None) -> None:
        last = len(self.sets) - 1
        values = self._read(last, column)
        position = self.b.add(self.first, column)
        for offsets in starts:
            known = self.s.elements(self.per_element, offsets, position, mask, self.s.width)
            values = self.accumulators.combine(values, self.accumulators.inputs(known))
        self._write(last, column, values)

    def finish(
        self, offsets: Sequence[Var], column: Var, mask: Var | None, totals: Sequence[Var]
    ) -> None:
        """What follows the reduction, for one vector of results (one on a GPU)."""
        width = lanes(totals[0].type)
        known = self.s.uniform_values(width)
        known.update(self.accumulators.results(totals))
        self.s.perform(self.per_result, known, offsets, column, mask, width)


def _bytes(element: str) -> int:
    assert lanes(element) == 1
    return {"float": 4, "double": 8, "i1": 1}.get(element) or int(element[1:]) // 8
