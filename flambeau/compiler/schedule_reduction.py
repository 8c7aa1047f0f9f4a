"""Reductions on a CPU: loops around accumulators, and how their results are combined.

A *row* reduction has its innermost loop reduced: several vector accumulators, combined by a fixed
tree.
A *column* reduction's is kept: one accumulator per column.  How many terms are added one after the
other is bounded in both (`Reduction.in_runs`), so that rounding errors of long sums stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flambeau.compiler import emit
from flambeau.compiler.builder import ARGS, BEGIN, END, I64, Var, vector
from flambeau.core import dtype as types

if TYPE_CHECKING:
    from flambeau.compiler.schedule import CpuSchedule

# Part of the definition of a reduction's result: changing one changes the last bits of sums.
ROW_ACCUMULATORS = 4
ROW_RUN = 2048
LOOP_RUN = 64
COLUMN_BLOCK = 64
SPLIT_LENGTH = 16384


class Reduction:
    """What row and column reductions share: accumulators, chunks and the work after the loops."""

    def __init__(self, schedule: CpuSchedule) -> None:
        self.s = schedule
        self.b = schedule.b
        kernel = schedule.kernel
        self.kept = [k for k, reduced in enumerate(kernel.reduced) if not reduced]
        self.loops = [k for k, reduced in enumerate(kernel.reduced) if reduced]

    def _combine_of(self, k: int) -> tuple[str, types.dtype]:
        i = self.s.kernel.instructions[k]
        assert isinstance(i.attribute, str)
        return i.attribute, self.s.kernel.instructions[i.arguments[0]].dtype

    def identities(self, width: int) -> list[Var]:
        """Starting accumulators: one value per reduction, a pair (value, index) for argmax."""
        result = []
        for k in self.s.levels.reductions:
            kind, dtype = self._combine_of(k)
            type_ = emit.register_type(dtype, width)
            result.append(emit.identity(self.b, kind, dtype, type_))
            if kind in ("argmax", "argmin"):
                result.append(self.b.constant(types.iinfo(types.int64).max, vector(I64, width)))
        return result

    def inputs(self, known: dict[int, Var]) -> list[Var]:
        """What one vector of elements contributes, in the order of :meth:`identities`."""
        result = []
        for k in self.s.levels.reductions:
            result += [known[a] for a in self.s.kernel.instructions[k].arguments]
        return result

    def combine(self, x: Sequence[Var], y: Sequence[Var]) -> list[Var]:
        result: list[Var] = []
        at = 0
        for k in self.s.levels.reductions:
            kind, dtype = self._combine_of(k)
            if kind in ("argmax", "argmin"):
                pair = (x[at], x[at + 1]), (y[at], y[at + 1])
                result += emit.combine_indexed(self.b, kind, dtype, *pair)
                at += 2
            else:
                result.append(emit.combine(self.b, kind, dtype, x[at], y[at]))
                at += 1
        return result

    def masked(self, values: Sequence[Var], mask: Var, width: int) -> list[Var]:
        """Lanes outside the mask contribute nothing."""
        neutral = self.identities(width)
        return [self.b.select(mask, v, n) for v, n in zip(values, neutral, strict=True)]

    def finish(
        self,
        accumulator: Sequence[Var],
        offsets: Sequence[Var],
        inner: Var,
        mask: Var | None,
        width: int,
    ) -> None:
        """Instructions after the reduction: casts, a fused epilogue, stores."""
        s = self.s
        known = s.uniform_values(width)
        at = 0
        for k in s.levels.reductions:
            kind, _ = self._combine_of(k)
            pair = kind in ("argmax", "argmin")
            known[k] = accumulator[at + 1 if pair else at]
            at += 2 if pair else 1
        for k in s.levels.outer:
            i = s.kernel.instructions[k]
            if i.operation == "store":
                assert isinstance(i.attribute, int)
                s.store(
                    i.attribute, known[i.arguments[0]], offsets[i.attribute], inner, mask, width
                )
            else:
                known[k] = s._instruction(i, known, width)

    def in_runs(
        self,
        length: Var,
        run: int,
        start: Sequence[Var],
        neutral: Sequence[Var],
        body: Callable[[Var, Var, list[Var]], Sequence[Var]],
    ) -> list[Var]:
        """``body(first, stop, accumulators)`` for runs of bounded length, each summed on its own.

        Rounding errors then grow with the length of a run and the number of runs, not with their
        product.
        """
        b = self.b

        def one_run(number: Var, carried: list[Var]) -> list[Var]:
            first = b.mul(number, run)
            part = body(first, b.min(b.add(first, run), length), list(neutral))
            return self.combine_sets(carried, part)

        count = b.emit(I64, f"udiv {b.add(length, run - 1)}, {run}")
        return b.loop(0, count, 1, start, one_run)[1]

    def combine_sets(self, x: Sequence[Var], y: Sequence[Var]) -> list[Var]:
        """`combine` of several sets of accumulators at once."""
        each = len(self.identities(1))
        result: list[Var] = []
        for at in range(0, len(x), each):
            result += self.combine(x[at : at + each], y[at : at + each])
        return result

    def clamp_chunk(self, chunk: Var) -> Var:
        """The extent of the last reduction loop within a chunk: shorter in the last one."""
        b, s = self.b, self.s
        length = s.extents[self.loops[-1]]
        total = b.argument(ARGS, s.map.total_extent)
        return b.min(b.sub(total, b.mul(chunk, length)), length)


class RowReduction(Reduction):
    """The innermost loop is reduced.  One task is one element of the result."""

    def emit(self) -> None:
        s, b = self.s, self.b

        def task(number: Var, _: list[Var]) -> None:
            indices = s.decode(number, self.kept) if self.kept else []
            offsets = s.offsets(self.kept, indices)
            length = s.extents[-1]
            if s.kernel.split:
                length = self.clamp_chunk(indices[-1])
            start = self.identities(s.width) * ROW_ACCUMULATORS
            accumulators = self._nest(self.loops[:-1], offsets, start, length)
            result = self._collapse(accumulators)
            self.finish(result, offsets, Var(I64, "0"), None, 1)

        b.loop(BEGIN, END, 1, [], task)

    def _nest(
        self, loops: Sequence[int], offsets: Sequence[Var], start: Sequence[Var], length: Var
    ) -> list[Var]:
        neutral = self.identities(self.s.width) * ROW_ACCUMULATORS
        if not loops:

            def run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
                return self._innermost(offsets, first, stop, carried)

            return self.in_runs(length, ROW_RUN, start, neutral, run)

        def body(index: Var, carried: list[Var]) -> list[Var]:
            inner = self.s.advance(offsets, loops[0], index)
            return self._nest(loops[1:], inner, carried, length)

        def outer_run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
            return self.b.loop(first, stop, 1, carried, body)[1]

        return self.in_runs(self.s.extents[loops[0]], LOOP_RUN, start, neutral, outer_run)

    def _innermost(
        self, offsets: Sequence[Var], first: Var, stop: Var, start: Sequence[Var]
    ) -> list[Var]:
        s, b, width = self.s, self.b, self.s.width
        each = len(start) // ROW_ACCUMULATORS

        def body(index: Var, carried: list[Var]) -> list[Var]:
            updated: list[Var] = []
            for u in range(ROW_ACCUMULATORS):
                known = s.elements(offsets, b.add(index, u * width), None, width)
                mine = carried[u * each : (u + 1) * each]
                updated += self.combine(mine, self.inputs(known))
            return updated

        index, accumulators = b.loop(first, stop, ROW_ACCUMULATORS * width, start, body)

        def tail(index: Var, carried: list[Var]) -> list[Var]:
            mask = b.mask(b.sub(stop, index), width)
            known = s.elements(offsets, index, mask if width > 1 else None, width)
            values = self.masked(self.inputs(known), mask, width)
            return self.combine(carried, values)

        _, rest = b.loop(index, b.add(stop, width - 1), width, accumulators[:each], tail)
        return rest + accumulators[each:]

    def _collapse(self, accumulators: Sequence[Var]) -> list[Var]:
        each = len(accumulators) // ROW_ACCUMULATORS
        parts = [list(accumulators[u * each : (u + 1) * each]) for u in range(ROW_ACCUMULATORS)]
        while len(parts) > 1:
            parts = [self.combine(parts[k], parts[k + 1]) for k in range(0, len(parts), 2)]
        return emit.horizontal(self.b, parts[0], self.combine)


class ColumnReduction(Reduction):
    """The innermost loop is kept.  One task is a block of columns of the result."""

    def emit(self) -> None:
        s, b = self.s, self.b
        outer = self.kept[:-1]
        columns = s.extents[-1]
        blocks = b.emit(I64, f"udiv {b.add(columns, COLUMN_BLOCK - 1)}, {COLUMN_BLOCK}")

        def task(number: Var, _: list[Var]) -> None:
            row = b.emit(I64, f"udiv {number}, {blocks.name}")
            first = b.mul(b.emit(I64, f"urem {number}, {blocks.name}"), COLUMN_BLOCK)
            indices = s.decode(row, outer) if outer else []
            offsets = s.offsets(outer, indices)
            length = s.extents[self.loops[-1]]
            if s.kernel.split:
                length = self.clamp_chunk(indices[-1])
            stop = b.min(b.add(first, COLUMN_BLOCK), columns)

            def strip(column: Var, _: list[Var]) -> None:
                self._strip(offsets, column, b.sub(columns, column), length)

            b.loop(first, b.add(stop, s.width - 1), s.width, [], strip)

        b.loop(BEGIN, END, 1, [], task)

    def _strip(self, offsets: Sequence[Var], column: Var, left: Var, length: Var) -> None:
        width = self.s.width
        mask = self.b.mask(left, width) if width > 1 else None
        start = self.identities(width)
        total = self._nest(self.loops, offsets, start, length, column, mask)
        self.finish(total, offsets, column, mask, width)

    def _nest(
        self,
        loops: Sequence[int],
        offsets: Sequence[Var],
        start: Sequence[Var],
        length: Var,
        column: Var,
        mask: Var | None,
    ) -> list[Var]:
        b, s = self.b, self.s
        neutral = self.identities(s.width)
        if len(loops) > 1:

            def body(index: Var, carried: list[Var]) -> list[Var]:
                inner = s.advance(offsets, loops[0], index)
                return self._nest(loops[1:], inner, carried, length, column, mask)

            def outer_run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
                return b.loop(first, stop, 1, carried, body)[1]

            return self.in_runs(s.extents[loops[0]], LOOP_RUN, start, neutral, outer_run)

        def element(index: Var, carried: list[Var]) -> list[Var]:
            inner = s.advance(offsets, loops[0], index)
            known = s.elements(inner, column, mask, s.width)
            return self.combine(carried, self.inputs(known))

        def run(first: Var, stop: Var, carried: list[Var]) -> list[Var]:
            return b.loop(first, stop, 1, carried, element)[1]

        return self.in_runs(length, LOOP_RUN, start, neutral, run)
