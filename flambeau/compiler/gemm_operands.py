"""Where the tiles of a product find their rows of A and columns of B: packed, or in place.

Both operands are described by the words of ``gemm_multiply`` that they fill and by the packing
steps that must run before.  A *span* of k is what one round of packing and multiplying covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.gemm_pack import PACK, PACK_ROWS, PACK_WORDS, ROWS_AT_ONCE
from flambeau.compiler.gemm_problem import GemmProblem
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer, Word

# Multiplications below which a task is not worth waking a thread for.
TASK_WORK = 1 << 18

# Packing waits for memory: an element that is copied counts as so many multiplications.
COPY_WORK = 8


def divide_up(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class RowPanels:
    """``m`` rows in panels of ``height`` and, after the first ``tall``, one row less."""

    count: int
    height: int
    tall: int

    @staticmethod
    def split(m: int, most: int) -> RowPanels:
        count = divide_up(m, most)
        height = divide_up(m, count)
        return RowPanels(count, height, count - (count * height - m))


class Workspace:
    """Hands out aligned pieces of the workspace."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, nbytes: int) -> Pointer:
        pointer = Pointer(WORKSPACE, self.size)
        self.size += divide_up(nbytes, 64) * 64
        return pointer


@dataclass(frozen=True)
class Span:
    """``length`` of k from ``start`` on, in blocks of ``block``."""

    start: int
    length: int
    block: int

    @property
    def blocks(self) -> int:
        return max(1, divide_up(self.length, self.block))


class StepWriter:
    """Makes steps of one module for one problem; knows which operand is the caller's which."""

    def __init__(
        self,
        problem: GemmProblem,
        tile: TileShape,
        names: Mapping[str, str],
        module_key: str,
        source: Callable[[], str],
        functions: tuple[str, ...],
    ) -> None:
        self.problem = problem
        self.tile = tile
        self.workspace = Workspace()
        self._names = names
        self._module_key = module_key
        self._source = source
        self._functions = functions

    def step(
        self, function: str, order: Sequence[str], values: Mapping[str, Word], tasks: int, work: int
    ) -> KernelStep:
        """A step whose tasks are ``work`` multiplications each."""
        return KernelStep(
            module_key=self._module_key,
            source=self._source,
            function=function,
            words=tuple(values[name] for name in order),
            tasks=tasks,
            grain=max(1, min(tasks, TASK_WORK // max(1, work))),
            functions=self._functions,
        )

    def operand(self, name: str, elements: int = 0) -> Pointer:
        return Pointer(self._names.get(name, name), elements * self.tile.stored_size)


class APanels:
    """The rows of A: in A itself; packed by a step before; or packed by the tasks that use them.

    ``column_tasks`` is into how many ranges of columns the tasks divide C, if they pack: each has
    its own copy then, still in the cache when it is read.  Otherwise it is 0.
    """

    def __init__(
        self, writer: StepWriter, packed: bool, longest: int, column_tasks: int = 0
    ) -> None:
        """``longest`` is the length of the longest span."""
        self.writer = writer
        self.problem = problem = writer.problem
        self.packed = packed
        self.column_tasks = column_tasks if packed else 0
        self.rows = RowPanels.split(problem.m, writer.tile.rows)
        self.copy = problem.m * longest
        shared = not (problem.a_batch or self.column_tasks)
        self.batches = 1 if shared else problem.batch
        self.batch_stride = 0 if shared else self.copy * max(1, self.column_tasks)
        if packed:
            elements = self.copy * max(1, self.column_tasks) * self.batches
            self.panels = writer.workspace.take(elements * writer.tile.size)

    def steps(self, span: Span) -> list[KernelStep]:
        if not (self.packed and span.length) or self.column_tasks:
            return []
        problem, rows = self.problem, self.rows
        values: dict[str, Word] = {
            "source": self.writer.operand("a", span.start * problem.a_col),
            "source_batch": problem.a_batch,
            "stride_k": problem.a_col,
            "stride_x": problem.a_row,
            "extent": problem.m,
            "k": span.length,
            "block": span.block,
            "blocks": span.blocks,
            "target": self.panels,
            "target_batch": self.batch_stride,
            "padded_extent": problem.m,
            "height": rows.height,
            "tall_panels": rows.tall,
            "panels": rows.count,
            "width": 0,
        }
        tasks = rows.count * span.blocks * self.batches
        work = COPY_WORK * span.block * rows.height
        return [self.writer.step(PACK, PACK_WORDS, values, tasks, work)]

    def words(self, span: Span) -> dict[str, Word]:
        problem = self.problem
        raw = self.writer.operand("a", span.start * problem.a_col)
        words: dict[str, Word] = {
            "raw_a": raw,
            "raw_a_batch": problem.a_batch,
            "raw_a_row": problem.a_row,
            "raw_a_k": problem.a_col,
            "packs_a": int(self.column_tasks > 0),
            "a_copy": self.copy if self.column_tasks else 0,
        }
        if self.packed:
            return words | {
                "a": self.panels,
                "a_batch": self.batch_stride,
                "a_block": problem.m,
                "a_panel": 0,
                "a_row": 1,
                "a_k": 0,
                "a_packed": 1,
            }
        return words | {
            "a": raw,
            "a_batch": problem.a_batch,
            "a_block": problem.a_col,
            "a_panel": problem.a_row,
            "a_row": problem.a_row,
            "a_k": problem.a_col,
            "a_packed": 0,
        }


class BPanels:
    """The columns of B.

    In B itself a panel must consist of whole vectors; the last one is packed if it does not.
    """

    def __init__(
        self, writer: StepWriter, packed: bool, longest: int, in_tasks: bool = False
    ) -> None:
        """``longest`` is the length of the longest span; ``in_tasks``: the tasks pack."""
        self.writer = writer
        self.problem = writer.problem
        self.packed = packed and not in_tasks
        self.in_tasks = in_tasks
        self.width = writer.tile.columns
        n = self.problem.n
        if in_tasks:
            self.first_packed = n
        elif packed:
            self.first_packed = 0
        elif n % writer.tile.lanes:
            self.first_packed = n // self.width * self.width
        else:
            self.first_packed = n
        self.count = divide_up(n - self.first_packed, self.width)
        self.batches = self.problem.batch if self.problem.b_batch else 1
        elements = self.count * self.width * longest
        self.batch_stride = elements if self.problem.b_batch else 0
        if self.count:
            self.panels = writer.workspace.take(self.batches * elements * writer.tile.size)

    def steps(self, span: Span) -> list[KernelStep]:
        if not (self.count and span.length):
            return []
        problem = self.problem
        offset = span.start * problem.b_row + self.first_packed * problem.b_col
        values: dict[str, Word] = {
            "source": self.writer.operand("b", offset),
            "source_batch": problem.b_batch,
            "stride_k": problem.b_row,
            "stride_x": problem.b_col,
            "extent": problem.n - self.first_packed,
            "k": span.length,
            "block": span.block,
            "blocks": span.blocks,
            "target": self.panels,
            "target_batch": self.batch_stride,
            "padded_extent": self.count * self.width,
            "height": self.width,
            "tall_panels": self.count,
            "panels": self.count,
            "width": self.width,
        }
        if problem.b_col == 1 and self.count > 1:
            tasks = divide_up(span.block, ROWS_AT_ONCE) * span.blocks * self.batches
            work = COPY_WORK * ROWS_AT_ONCE * self.count * self.width
            return [self.writer.step(PACK_ROWS, PACK_WORDS, values, tasks, work)]
        tasks = self.count * span.blocks * self.batches
        work = COPY_WORK * span.block * self.width
        return [self.writer.step(PACK, PACK_WORDS, values, tasks, work)]

    def words(self, span: Span) -> dict[str, Word]:
        problem = self.problem
        source: dict[str, Word] = {
            "packs_b": int(self.in_tasks),
            "raw_b": self.writer.operand("b", span.start * problem.b_row),
            "raw_b_batch": problem.b_batch,
            "raw_b_col": problem.b_col,
            "raw_b_k": problem.b_row,
        }
        place = self.packed_words() if self.packed else self.raw_words(span)
        return source | self.edge_words() | place

    def raw_words(self, span: Span) -> dict[str, Word]:
        problem = self.problem
        return {
            "b": self.writer.operand("b", span.start * problem.b_row),
            "b_batch": problem.b_batch,
            "b_block": problem.b_row,
            "b_panel": problem.b_col,
            "b_k": problem.b_row,
            "b_packed": 0,
        }

    def packed_words(self) -> dict[str, Word]:
        return {
            "b": self.panels,
            "b_batch": self.batch_stride,
            "b_block": self.count * self.width,
            "b_panel": 0,
            "b_k": self.width,
            "b_packed": 1,
        }

    def edge_words(self) -> dict[str, Word]:
        if self.packed or not self.count:
            return {"edge": 0, "edge_batch": 0, "edge_start": self.problem.n}
        return {
            "edge": self.panels,
            "edge_batch": self.batch_stride,
            "edge_start": self.first_packed,
        }
