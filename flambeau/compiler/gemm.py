"""Matrix products: from the shape and strides of one product to the native calls that compute it.

``plan_gemm`` chooses a way by shape, strides and type alone, never by the number of threads, so a
result is the same on any number of them.  Every size and stride is an argument of the kernels: one
module per element type and target serves all products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.compiler.builder import module
from flambeau.compiler.epilogue import EPILOGUE_POINTERS, NO_EPILOGUE, Grid
from flambeau.compiler.gemm_amx import AMX_FUNCTIONS, amx_functions, has_tiles
from flambeau.compiler.gemm_amx_plan import amx_steps
from flambeau.compiler.gemm_micro import TileShape, micro_kernels, tile_shape
from flambeau.compiler.gemm_operands import (
    COPY_WORK,
    TASK_WORK,
    APanels,
    BPanels,
    RowPanels,
    Span,
    StepWriter,
    divide_up,
)
from flambeau.compiler.gemm_pack import PACK, PACK_ROWS, pack_functions
from flambeau.compiler.gemm_problem import GemmPlan, GemmProblem, Simplified, simplify
from flambeau.compiler.gemm_tile import (
    MULTIPLY,
    MULTIPLY_WORDS,
    NO_BIAS,
    SCRATCH_BYTES,
    SMALL,
    SMALL_WORDS,
    tile_functions,
)
from flambeau.compiler.gemm_vector import (
    DOT_COLUMNS,
    DOT_TILES,
    DOTS,
    ROWS,
    VECTOR_WORDS,
    WIDE_ROWS,
    strip_columns,
    vector_functions,
    wide_strip_columns,
)
from flambeau.compiler.kernel_step import KernelStep, Word
from flambeau.compiler.target import Target

STORED_AS = {
    "float32": "float", "float64": "double", "bfloat16": "bfloat", "float16": "half",
    "int8": "i8", "uint8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
}  # fmt: skip

# Multiplications up to which a product is not worth several steps.
SMALL_WORK = 1 << 18

# Up to so many rows, inner products of at least so many terms are formed without packing B.
ROWS_FOR_DOTS = 16
SHORTEST_DOTS = 64

# A batch this long keeps all threads busy with whole products, up to the size given.
LONG_BATCH = 8
SMALL_WORK_IN_BATCH = 1 << 21

# Length of a block of k: a panel of B (and one of A beside it) then fits the nearest cache.
BLOCK = 384

# Bytes of packed panels for one span of k, beyond which the work is done span by span.
SPAN_BYTES = 1 << 20

# Sizes from which on packing pays for itself (measured on a Xeon with AVX-512): rows that use a B
# with dense rows, fewer where each row is on another page; columns that use an A with dense rows,
# and an A with dense columns, each of which is another page.
ROWS_TO_PACK_B = 640
ROWS_TO_PACK_FAR_B = 192
COLUMNS_TO_PACK_A = 1024
COLUMNS_TO_PACK_STRIDED_A = 256
PAGE_BYTES = 4096

# Up to so many rows, a task has all of them, and packs its panels of B itself.
ROWS_OF_ONE_TASK = 256

# Panels of columns of a task from which on it packs its own rows of A.
COLUMNS_TO_PACK_IN_TASKS = 16

# The panels of A and of B of a task at most; and the tasks that a large product should have.
ROW_PANELS_PER_TASK = 4
COLUMN_PANELS_PER_TASK = 32
TASKS_WANTED = 16


FUNCTIONS = (PACK, PACK_ROWS, MULTIPLY, SMALL, ROWS, WIDE_ROWS, DOTS, DOT_TILES)


def functions_for(tile: TileShape, target: Target) -> tuple[str, ...]:
    """The kernels of a module: half precision is always packed, so it has no ``gemm_small``."""
    functions = tuple(name for name in FUNCTIONS if name != SMALL or not tile.converts)
    return functions + (AMX_FUNCTIONS if has_tiles(tile.stored, target) else ())


def gemm_module(stored: str, target: Target) -> str:
    """The LLVM IR of all kernels for one element type."""
    tile = tile_shape(stored, target)
    tiles = amx_functions(tile) if has_tiles(stored, target) else []
    parts = [
        *micro_kernels(tile),
        *pack_functions(tile),
        *tile_functions(tile),
        *vector_functions(tile),
        *tiles,
    ]
    return module([text for text, _ in parts], [builder for _, builder in parts])


def plan_gemm(problem: GemmProblem, target: Target) -> GemmPlan:
    """The steps that compute ``problem`` on ``target``; an empty C needs none."""
    if not (problem.batch and problem.m and problem.n):
        return GemmPlan(0, ())
    return Planner(simplify(problem), target).plan()


@dataclass(frozen=True)
class Tasks:
    """How the tiles of C are divided: panels, panels per task, tasks, and the work of a task."""

    panels: RowPanels
    column_panels: int
    rows: int
    columns: int
    row_tasks: int
    column_tasks: int
    work: int


class Planner:
    """Plans one simplified problem."""

    def __init__(self, simplified: Simplified, target: Target) -> None:
        problem = simplified.problem
        stored = STORED_AS[problem.dtype]
        self.problem = problem
        self.bias_kind = simplified.bias_kind
        self.tile = tile_shape(stored, target)
        self.work = problem.m * problem.n * problem.k
        self.writer = StepWriter(
            problem,
            self.tile,
            {"a": "b", "b": "a"} if simplified.swapped else {},
            f"gemm {stored} {target.name}",
            lambda: gemm_module(stored, target),
            functions_for(self.tile, target),
        )
        self.has_tiles = has_tiles(stored, target)

    def plan(self) -> GemmPlan:
        steps = self.vector_steps() if self.problem.m == 1 else self.dot_tile_steps()
        if not steps and self.has_tiles:
            steps = amx_steps(self.writer, self.result_words())
        if not steps:
            steps = [self.small_step()] if self.is_small() else self.large_steps()
        problem = self.problem
        rows = (problem.batch, problem.c_batch), (problem.m, problem.c_row)
        grid = Grid("c", rows, (problem.n, problem.c_col))
        return GemmPlan(self.writer.workspace.size, tuple(steps), grid)

    def result_words(self, first: bool = True, last: bool = True) -> dict[str, Word]:
        """The words about C and its finishing, for the first and/or last span of k."""
        problem = self.problem
        finishes = last and self.bias_kind != NO_BIAS
        return {
            "c": self.writer.operand("c"),
            "c_batch": problem.c_batch,
            "c_row": problem.c_row,
            "c_col": problem.c_col,
            "m": problem.m,
            "n": problem.n,
            "accumulate": int(problem.accumulate or not first),
            "bias": self.writer.operand("bias") if finishes else 0,
            "bias_kind": self.bias_kind if finishes else NO_BIAS,
            **(EPILOGUE_POINTERS if last else NO_EPILOGUE),
        }

    # -- one row -------------------------------------------------------------------------------

    def vector_steps(self) -> list[KernelStep]:
        """By ``gemm_rows`` or ``gemm_dots``, or none where the strides of B suit neither."""
        problem = self.problem
        if problem.n > 1 and problem.b_col == 1:
            wide = wide_strip_columns(self.tile)
            if problem.n >= wide:
                return [self.vector_step(WIDE_ROWS, problem.b_row, wide)]
            return [self.vector_step(ROWS, problem.b_row, strip_columns(self.tile))]
        if problem.b_row != 1 or (problem.a_col != 1 and self.tile.converts):
            return []
        if problem.a_col == 1:
            return [self.vector_step(DOTS, problem.b_col, DOT_COLUMNS)]
        span = Span(0, problem.k, max(problem.k, 1))
        row = APanels(self.writer, True, problem.k)
        dense = row.words(span) | {"a_k": 1}
        return [*row.steps(span), self.vector_step(DOTS, problem.b_col, DOT_COLUMNS, dense)]

    def vector_step(
        self,
        function: str,
        b_stride: int,
        columns: int,
        a_words: Mapping[str, Word] | None = None,
    ) -> KernelStep:
        """``a_words`` say where A is, if not in A itself."""
        problem = self.problem
        tasks = divide_up(problem.n, columns)
        values = self.result_words() | {
            "a": self.writer.operand("a"),
            "a_batch": problem.a_batch,
            "a_row": problem.a_row,
            "a_k": problem.a_col,
            "b": self.writer.operand("b"),
            "b_batch": problem.b_batch,
            "b_stride": b_stride,
            "k": problem.k,
            "tasks_per_batch": tasks,
        }
        values |= a_words or {}
        work = max(COPY_WORK, problem.m) * problem.k * columns
        return self.writer.step(function, VECTOR_WORDS, values, tasks * problem.batch, work)

    # -- a few rows ----------------------------------------------------------------------------

    def dot_tile_steps(self) -> list[KernelStep]:
        """By ``gemm_dot_tiles``, for a few rows and long inner products of dense vectors."""
        problem = self.problem
        dense = problem.a_col == 1 and problem.b_row == 1
        few = problem.m <= ROWS_FOR_DOTS and problem.k >= SHORTEST_DOTS
        if not (dense and few):
            return []
        return [self.vector_step(DOT_TILES, problem.b_col, DOT_COLUMNS)]

    # -- many rows -----------------------------------------------------------------------------

    def is_small(self) -> bool:
        problem, tile = self.problem, self.tile
        limit = SMALL_WORK_IN_BATCH if problem.batch >= LONG_BATCH else SMALL_WORK
        fits = problem.k * tile.columns * tile.size <= SCRATCH_BYTES
        return self.work <= limit and fits and not tile.converts

    def small_step(self) -> KernelStep:
        problem = self.problem
        panels = RowPanels.split(problem.m, self.tile.rows)
        values = self.result_words() | {
            "a": self.writer.operand("a"),
            "a_batch": problem.a_batch,
            "a_row": problem.a_row,
            "a_k": problem.a_col,
            "b": self.writer.operand("b"),
            "b_batch": problem.b_batch,
            "b_k": problem.b_row,
            "b_col": problem.b_col,
            "k": problem.k,
            "height": panels.height,
            "tall_panels": panels.tall,
            "row_panels": panels.count,
        }
        return self.writer.step(SMALL, SMALL_WORDS, values, problem.batch, self.work)

    def large_steps(self) -> list[KernelStep]:
        """For each span of k: pack what must be packed, then multiply."""
        spans = self.spans()
        longest = spans[0].length
        tasks = self.tasks(longest)
        own_columns = self.packs_b_in_tasks()
        own_copies = tasks.column_tasks if tasks.columns >= COLUMNS_TO_PACK_IN_TASKS else 0
        a = APanels(self.writer, self.packs_a(), longest, own_copies)
        b = BPanels(self.writer, self.packs_b(), longest, own_columns)
        steps: list[KernelStep] = []
        for span in spans:
            words = self.result_words(first=span is spans[0], last=span is spans[-1])
            words |= a.words(span) | b.words(span)
            steps += [*a.steps(span), *b.steps(span), self.multiply_step(words, span, tasks)]
        return steps

    def packs_a(self) -> bool:
        problem, tile = self.problem, self.tile
        if tile.converts or problem.n >= COLUMNS_TO_PACK_A:
            return True
        if problem.a_col == 1:
            return False
        far = abs(problem.a_col) * tile.size >= PAGE_BYTES and problem.n > 2 * tile.columns
        return far or problem.n >= COLUMNS_TO_PACK_STRIDED_A

    def packs_b(self) -> bool:
        problem = self.problem
        far = abs(problem.b_row) * self.tile.size >= PAGE_BYTES
        rows = ROWS_TO_PACK_FAR_B if far else ROWS_TO_PACK_B
        return self.tile.converts or problem.b_col != 1 or problem.m >= rows

    def packs_b_in_tasks(self) -> bool:
        """Where each panel of B has one task only, which has all rows of C."""
        return self.packs_b() and self.problem.m <= ROWS_OF_ONE_TASK and not self.tile.converts

    def spans(self) -> list[Span]:
        """k in blocks of nearly equal length, several to a span as far as memory allows.

        Half precision has one block: its sums must not pass through C, which would round them.
        """
        problem = self.problem
        blocks = 1 if self.tile.converts else max(1, round(problem.k / BLOCK))
        block = max(1, divide_up(problem.k, blocks))
        rows = problem.m if self.packs_a() else 0
        columns = problem.n if self.packs_b() and not self.packs_b_in_tasks() else 0
        packed = problem.batch * (rows + columns) * block * self.tile.size
        length = block * max(1, SPAN_BYTES // max(1, packed))
        starts = range(0, max(problem.k, 1), length)
        return [Span(start, min(length, problem.k - start), block) for start in starts]

    def tasks(self, longest: int) -> Tasks:
        problem, tile = self.problem, self.tile
        panels = RowPanels.split(problem.m, tile.rows)
        column_panels = divide_up(problem.n, tile.columns)
        work = panels.height * tile.columns * longest
        rows, columns = self.task_panels(panels.count, column_panels, work)
        return Tasks(
            panels,
            column_panels,
            rows,
            columns,
            divide_up(panels.count, rows),
            divide_up(column_panels, columns),
            rows * columns * work,
        )

    def multiply_step(self, words: dict[str, Word], span: Span, tasks: Tasks) -> KernelStep:
        values = words | {
            "k": span.length,
            "block": span.block,
            "blocks": span.blocks,
            "height": tasks.panels.height,
            "tall_panels": tasks.panels.tall,
            "row_panels": tasks.panels.count,
            "column_panels": tasks.column_panels,
            "rows_per_task": tasks.rows,
            "columns_per_task": tasks.columns,
            "row_tasks": tasks.row_tasks,
            "column_tasks": tasks.column_tasks,
        }
        count = self.problem.batch * tasks.row_tasks * tasks.column_tasks
        return self.writer.step(MULTIPLY, MULTIPLY_WORDS, values, count, tasks.work)

    def task_panels(self, row_panels: int, column_panels: int, work: int) -> tuple[int, int]:
        """Panels of A and B per task: large for reuse, but enough tasks for several threads.

        ``work`` is that of one tile.
        """
        columns = min(column_panels, COLUMN_PANELS_PER_TASK)
        if self.packs_b_in_tasks():
            worthwhile = max(1, row_panels * column_panels * work // TASK_WORK)
            wanted = min(divide_up(TASKS_WANTED, self.problem.batch), worthwhile)
            return row_panels, min(columns, divide_up(column_panels, wanted))
        rows = min(row_panels, max(ROW_PANELS_PER_TASK, TASK_WORK // max(1, columns * work)))
        while rows * columns > 1 and rows * columns * work >= 2 * TASK_WORK:
            tasks = divide_up(row_panels, rows) * divide_up(column_panels, columns)
            if self.problem.batch * tasks >= TASKS_WANTED:
                break
            if columns >= rows:
                columns = divide_up(columns, 2)
            else:
                rows = divide_up(rows, 2)
        return rows, columns
