"""Epilogues: pointwise work on the results of a library kernel while they are in the cache.

A library kernel (product, convolution …) sees its result as a grid: *rows*, numbered from 0 on, of
equally many *columns*.  When a task has finished a rectangle of the grid it calls the epilogue,
which runs a pointwise kernel over just that rectangle.  The pointwise kernel loads the results
from memory like any other operand, so its values are those of a run after the library kernel.

How a library kernel takes part:

* its argument block has the words `EPILOGUE_WORDS`, given as ``EPILOGUE_POINTERS`` in the step that
  finishes results and as 0 in every other step; the engine puts in addresses, or 0 for no epilogue;
* that step's tasks call `run_epilogue` for rectangles that together cover every result once, each
  after the last store to its elements, and never read the results afterwards;
* the operator's lowering hands on its `Grid` (`flambeau.engine.call.Lowered.grid`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.compiler import builder as ir
from flambeau.compiler.builder import BEGIN, END, PTR, Builder, Var
from flambeau.compiler.kernel import Kernel
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.schedule import CpuSchedule
from flambeau.compiler.target import Target

# The address of the epilogue's function, 0 for none, and of its argument block.
EPILOGUE, EPILOGUE_ARGUMENTS = "epilogue", "epilogue_arguments"
EPILOGUE_WORDS = (EPILOGUE, EPILOGUE_ARGUMENTS)
EPILOGUE_POINTERS: Mapping[str, Word] = {name: Pointer(name) for name in EPILOGUE_WORDS}
NO_EPILOGUE: Mapping[str, Word] = dict.fromkeys(EPILOGUE_WORDS, 0)

# The function of an epilogue's module: the elements [column_begin, column_end) of the rows
# [begin, end) of a pointwise kernel whose last loop runs over the columns.
RECTANGLE = "rectangle"
_PARAMETERS = "ptr %args, i64 %begin, i64 %end, i64 %column_begin, i64 %column_end"


@dataclass(frozen=True)
class Grid:
    """A library call's result as an epilogue sees it.

    ``rows`` are loops as (extent, stride in elements), outermost first, whose joint index is the
    number of a row; ``columns`` is the loop within a row.  Together they reach every element of
    ``operand`` once, from its first one on.
    """

    operand: str
    rows: tuple[tuple[int, int], ...]
    columns: tuple[int, int]


def run_epilogue(
    builder: Builder,
    words: Mapping[str, Var],
    rows: tuple[Var, Var],
    columns: tuple[Var, Var],
) -> None:
    """Runs the epilogue, if there is one, over the half-open ranges ``rows`` and ``columns``.

    ``words`` has the words `EPILOGUE_WORDS`, both read as i64.
    """

    def call() -> None:
        function = builder.emit(PTR, f"inttoptr {words[EPILOGUE]} to ptr")
        arguments = builder.emit(PTR, f"inttoptr {words[EPILOGUE_ARGUMENTS]} to ptr")
        limits = ", ".join(str(limit) for limit in (*rows, *columns))
        builder.do(f"call void {function.name}({arguments}, {limits})")

    builder.if_(builder.compare("ne", words[EPILOGUE], 0), call)


class _RectangleSchedule(CpuSchedule):
    """Writes the function of a pointwise kernel that runs over a rectangle of it."""

    def source(self) -> str:
        outer = range(self.kernel.rank - 1)
        columns = Var(ir.I64, "%column_begin"), Var(ir.I64, "%column_end")

        def row(number: Var, _: list[Var]) -> None:
            indices = self.decode(number, outer) if outer else []
            self.inner_loop(self.offsets(outer, indices), *columns)

        self.b.loop(BEGIN, END, 1, [], row)
        return ir.module([self.b.function(RECTANGLE, _PARAMETERS)], [self.b])


def rectangle_source(kernel: Kernel, target: Target) -> str:
    """The IR text of a pointwise kernel as an epilogue; its one function is `RECTANGLE`."""
    return _RectangleSchedule(kernel, target).source()
