"""What row and column reductions on any target share: accumulators, runs and chunks.

How many terms are added one after the other is bounded: they are added in runs, whose sums are
added in turn, so that rounding errors of long sums stay small.  The constants here are part of the
definition of a reduction's result: changing one changes the last bits of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flambeau.compiler import emit
from flambeau.compiler.builder import ARGS, I64, Builder, Var, vector
from flambeau.core import dtype as types

if TYPE_CHECKING:
    from flambeau.compiler.schedule import CpuSchedule

# Terms of one run along a loop outside the innermost one, and of one run of runs.
LOOP_RUN = 64

Body = Callable[[Var, Var, list[Var]], Sequence[Var]]


class Accumulators:
    """The values that some reductions of a kernel carry: one each, for argmax a pair (value,
    index).
    """

    def __init__(self, schedule: CpuSchedule, reductions: Sequence[int]) -> None:
        self.b = schedule.b
        self.kernel = schedule.kernel
        self.reductions = reductions

    def _combine_of(self, k: int) -> tuple[str, types.dtype]:
        i = self.kernel.instructions[k]
        assert isinstance(i.attribute, str)
        return i.attribute, self.kernel.instructions[i.arguments[0]].dtype

    def identities(self, width: int) -> list[Var]:
        """Starting accumulators."""
        result = []
        for k in self.reductions:
            kind, dtype = self._combine_of(k)
            type_ = emit.register_type(dtype, width)
            result.append(emit.identity(self.b, kind, dtype, type_))
            if kind in ("argmax", "argmin"):
                result.append(self.b.constant(types.iinfo(types.int64).max, vector(I64, width)))
        return result

    def inputs(self, known: dict[int, Var]) -> list[Var]:
        """What one vector of elements contributes, in the order of :meth:`identities`."""
        return [known[a] for k in self.reductions for a in self.kernel.instructions[k].arguments]

    def results(self, values: Sequence[Var]) -> dict[int, Var]:
        """The reductions' values by instruction."""
        found = {}
        at = 0
        for k in self.reductions:
            kind, _ = self._combine_of(k)
            pair = kind in ("argmax", "argmin")
            found[k] = values[at + 1 if pair else at]
            at += 2 if pair else 1
        return found

    def combine(self, x: Sequence[Var], y: Sequence[Var]) -> list[Var]:
        """One or several sets of accumulators, ``x`` before ``y``."""
        result: list[Var] = []
        at = 0
        while at < len(x):
            for k in self.reductions:
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

    def in_runs(
        self, length: Var, run: int, start: Sequence[Var], neutral: Sequence[Var], body: Body
    ) -> list[Var]:
        """``body(first, stop, accumulators)`` for runs of bounded length, each summed on its own.

        Rounding errors then grow with the length of a run and the number of runs, not with their
        product.
        """
        b = self.b

        def one_run(number: Var, carried: list[Var]) -> list[Var]:
            first = b.mul(number, run)
            part = body(first, b.min(b.add(first, run), length), list(neutral))
            return self.combine(carried, part)

        return b.loop(0, run_count(b, length, run), 1, start, one_run)[1]


class Reduction:
    """The loops of a reducing kernel."""

    def __init__(self, schedule: CpuSchedule) -> None:
        self.s = schedule
        self.b = schedule.b
        kernel = schedule.kernel
        self.kept = [k for k, reduced in enumerate(kernel.reduced) if not reduced]
        self.loops = [k for k, reduced in enumerate(kernel.reduced) if reduced]

    def length_of_last(self, indices: Sequence[Var]) -> Var:
        """The extent of the last reduced loop, which ends early in the last chunk of a split one.

        A split kernel's chunks are its first kept loop.
        """
        b, s = self.b, self.s
        length = s.extents[self.loops[-1]]
        if not s.kernel.split:
            return length
        total = b.argument(ARGS, s.map.total_extent)
        return b.min(b.sub(total, b.mul(indices[0], length)), length)


def run_count(b: Builder, length: Var, run: int) -> Var:
    """How many runs cover the length."""
    return b.emit(I64, f"udiv {b.add(length, run - 1)}, {run}")
