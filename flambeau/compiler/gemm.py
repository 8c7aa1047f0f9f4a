"""Matrix products: from the shape and strides of one product to the native calls that compute it.

``plan_gemm`` chooses a way by shape, strides and type alone, never by the number of threads, so a
result is the same on any number of them.  Every size and stride is an argument of the kernels: one
module per element type and target serves all products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flambeau.compiler.builder import module
from flambeau.compiler.gemm_micro import micro_kernels, tile_shape
from flambeau.compiler.gemm_pack import PACK, PACK_WORDS, pack_functions
from flambeau.compiler.gemm_tile import (
    BIAS_PER_COLUMN,
    COMMON_ACTIVATIONS,
    IDENTITY,
    MULTIPLY,
    MULTIPLY_WORDS,
    NO_BIAS,
    ONE_BIAS,
    SCRATCH_BYTES,
    SMALL,
    SMALL_WORDS,
    Activation,
    tile_functions,
)
from flambeau.compiler.gemm_vector import (
    DOTS,
    DOTS_TOGETHER,
    ROWS,
    VECTOR_WORDS,
    strip_columns,
    vector_functions,
)
from flambeau.compiler.kernel_step import WORKSPACE, KernelStep, Pointer, Word
from flambeau.compiler.target import Target

STORED_AS = {
    "float32": "float", "float64": "double", "bfloat16": "bfloat", "float16": "half",
    "int8": "i8", "uint8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
}  # fmt: skip

# Multiplications below which a thread is not worth waking, and a product not worth several steps.
TASK_WORK = 1 << 18
SMALL_WORK = 1 << 18

# A batch this long keeps all threads busy with whole products, up to the size given.
LONG_BATCH = 8
SMALL_WORK_IN_BATCH = 1 << 21

# Bytes of k in a panel: a panel of A (14 rows) then fits the L1 cache, one of B the L2 cache.
BLOCK_BYTES = 1536

# Rows of A from which on packing A and B pays for itself by the reuse of the packed panels.
ROWS_TO_PACK_B = 113
COLUMNS_TO_PACK_A = 257

# A block of tiles: panels of A that stay in the L2 cache, panels of B that pass by.
ROW_PANELS_PER_TASK = 8
COLUMN_PANELS_PER_TASK = 32
TASKS_WANTED = 16


@dataclass(frozen=True)
class GemmProblem:
    """C = activation(A @ B + bias) for ``batch`` products of (m, k) by (k, n).

    Strides are in elements and arbitrary (0 and negative too) in A and B; C must not overlap
    itself or an input.  ``bias`` is a dense vector over n.  ``accumulate`` adds to what C holds.
    """

    dtype: str
    batch: int
    m: int
    n: int
    k: int
    a_batch: int
    a_row: int
    a_col: int
    b_batch: int
    b_row: int
    b_col: int
    c_batch: int
    c_row: int
    c_col: int = 1
    bias: bool = False
    activation: Activation = IDENTITY
    accumulate: bool = False


@dataclass(frozen=True)
class GemmPlan:
    """Steps to run in order, on operands named ``a``, ``b``, ``c``, ``bias`` and the workspace."""

    workspace: int
    steps: tuple[KernelStep, ...]

    def __str__(self) -> str:
        lines = [f"workspace {self.workspace} bytes", *map(str, self.steps)]
        return "\n".join(lines)


FUNCTIONS = (PACK, MULTIPLY, SMALL, ROWS, DOTS)


def gemm_module(stored: str, target: Target, activations: Sequence[Activation]) -> str:
    """The LLVM IR of all kernels for one element type."""
    tile = tile_shape(stored, target)
    parts = [
        *micro_kernels(tile),
        *pack_functions(tile),
        *tile_functions(tile, activations),
        *vector_functions(tile),
    ]
    return module([text for text, _ in parts], [builder for _, builder in parts])


def plan_gemm(problem: GemmProblem, target: Target) -> GemmPlan:
    """The steps that compute ``problem`` on ``target``; an empty C needs none."""
    if not (problem.batch and problem.m and problem.n):
        return GemmPlan(0, ())
    return Planner(simplify(problem), target).plan()


@dataclass(frozen=True)
class Simplified:
    """An equivalent problem; ``swapped`` says that its ``a`` is the caller's ``b``."""

    problem: GemmProblem
    bias_kind: int
    swapped: bool


def simplify(problem: GemmProblem) -> Simplified:
    """The same product with as few rows, and these as long, as its strides allow.

    A batch that shares B is one tall product; one column is one row of the transposed product.
    """
    bias_kind = BIAS_PER_COLUMN if problem.bias else NO_BIAS
    if problem.batch == 1:
        problem = replace(problem, a_batch=0, b_batch=0, c_batch=0)
    elif problem.m == 1:
        problem = replace(problem, a_row=problem.a_batch, c_row=problem.c_batch)
    dense = (problem.a_batch, problem.c_batch) == (
        problem.m * problem.a_row,
        problem.m * problem.c_row,
    )
    if problem.batch > 1 and problem.b_batch == 0 and dense:
        m = problem.m * problem.batch
        problem = replace(problem, m=m, batch=1, a_batch=0, b_batch=0, c_batch=0)
    if problem.n == 1:
        bias_kind = ONE_BIAS if problem.bias else NO_BIAS
    column = problem.n == 1 and (problem.m > 1 or problem.b_row != 1)
    by_columns = problem.m > 1 and problem.c_row == 1 and problem.c_col != 1 and not problem.bias
    swapped = column or by_columns
    return Simplified(transposed(problem) if swapped else problem, bias_kind, swapped)


def transposed(problem: GemmProblem) -> GemmProblem:
    """C^T = B^T A^T."""
    return replace(
        problem,
        m=problem.n, n=problem.m,
        a_batch=problem.b_batch, a_row=problem.b_col, a_col=problem.b_row,
        b_batch=problem.a_batch, b_row=problem.a_col, b_col=problem.a_row,
        c_row=problem.c_col, c_col=problem.c_row,
    )  # fmt: skip


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


class Planner:
    """Plans one simplified problem."""

    def __init__(self, simplified: Simplified, target: Target) -> None:
        problem = simplified.problem
        self.problem = problem
        self.bias_kind = simplified.bias_kind
        self.names = {"a": "b", "b": "a"} if simplified.swapped else {}
        self.target = target
        self.stored = STORED_AS[problem.dtype]
        self.tile = tile_shape(self.stored, target)
        self.work = problem.m * problem.n * problem.k
        self.workspace = Workspace()
        if problem.activation in COMMON_ACTIVATIONS:
            self.activations = COMMON_ACTIVATIONS
        else:
            self.activations = (IDENTITY, problem.activation)

    def plan(self) -> GemmPlan:
        if self.problem.m == 1:
            steps = self.vector_steps() or self.matrix_steps()
        else:
            steps = self.matrix_steps()
        return GemmPlan(self.workspace.size, tuple(steps))

    # -- steps ---------------------------------------------------------------------------------

    def step(
        self, function: str, order: Sequence[str], values: Mapping[str, Word], tasks: int, work: int
    ) -> KernelStep:
        """A step whose tasks are ``work`` multiplications each."""
        stored, target, activations = self.stored, self.target, self.activations
        names = ",".join(activation.name for activation in activations)
        return KernelStep(
            module_key=f"gemm {stored} {target.name} {names}",
            source=lambda: gemm_module(stored, target, activations),
            function=function,
            words=tuple(values[name] for name in order),
            tasks=tasks,
            grain=max(1, min(tasks, TASK_WORK // max(1, work))),
            functions=FUNCTIONS,
        )

    def operand(self, name: str, elements: int = 0) -> Pointer:
        return Pointer(self.names.get(name, name), elements * self.tile.stored_size)

    def shared_words(self, first: bool = True, last: bool = True) -> dict[str, Word]:
        """The words about C and its finishing, for the first and/or last block of k."""
        problem = self.problem
        finishes = last and self.bias_kind != NO_BIAS
        return {
            "c": self.operand("c"),
            "c_batch": problem.c_batch,
            "c_row": problem.c_row,
            "c_col": problem.c_col,
            "n": problem.n,
            "accumulate": int(problem.accumulate or not first),
            "bias": self.operand("bias") if finishes else 0,
            "bias_kind": self.bias_kind if finishes else NO_BIAS,
            "activation": self.activations.index(problem.activation) if last else 0,
        }

    # -- one row -------------------------------------------------------------------------------

    def vector_steps(self) -> list[KernelStep]:
        """By ``gemm_rows`` or ``gemm_dots``, or none where the strides of B suit neither."""
        problem = self.problem
        if problem.n > 1 and problem.b_col == 1:
            return [self.vector_step(ROWS, problem.b_row, strip_columns(self.tile))]
        if problem.b_row != 1 or (problem.a_col != 1 and self.tile.converts):
            return []
        if problem.a_col == 1:
            return [self.vector_step(DOTS, problem.b_col, DOTS_TOGETHER)]
        row = APanels(self, True, problem.k)
        dense = row.words(0, problem.k) | {"a_k": 1}
        step = self.vector_step(DOTS, problem.b_col, DOTS_TOGETHER, dense)
        return [*row.steps(0, problem.k), step]

    def vector_step(
        self, function: str, b_stride: int, columns: int, a_words: Mapping[str, Word] | None = None
    ) -> KernelStep:
        """``a_words`` say where A is, if not in A itself."""
        problem = self.problem
        tasks = divide_up(problem.n, columns)
        values = (
            self.shared_words()
            | {
                "a": self.operand("a"),
                "a_batch": problem.a_batch,
                "a_k": problem.a_col,
                "b": self.operand("b"),
                "b_batch": problem.b_batch,
                "b_stride": b_stride,
                "k": problem.k,
                "tasks_per_batch": tasks,
            }
            | dict(a_words or {})
        )
        # Such products wait for memory: count each multiplication as several.
        work = 8 * problem.k * columns
        return self.step(function, VECTOR_WORDS, values, tasks * problem.batch, work)

    # -- many rows -----------------------------------------------------------------------------

    def matrix_steps(self) -> list[KernelStep]:
        return [self.small_step()] if self.is_small() else self.large_steps()

    def is_small(self) -> bool:
        problem, tile = self.problem, self.tile
        limit = SMALL_WORK_IN_BATCH if problem.batch >= LONG_BATCH else SMALL_WORK
        fits = problem.k * tile.columns * tile.size <= SCRATCH_BYTES
        return self.work <= limit and fits and not tile.converts

    def small_step(self) -> KernelStep:
        problem = self.problem
        panels = RowPanels.split(problem.m, self.tile.rows)
        values = self.shared_words() | {
            "a": self.operand("a"),
            "a_batch": problem.a_batch,
            "a_row": problem.a_row,
            "a_k": problem.a_col,
            "b": self.operand("b"),
            "b_batch": problem.b_batch,
            "b_k": problem.b_row,
            "b_col": problem.b_col,
            "k": problem.k,
            "height": panels.height,
            "tall_panels": panels.tall,
            "row_panels": panels.count,
        }
        return self.step(SMALL, SMALL_WORDS, values, problem.batch, self.work)

    def large_steps(self) -> list[KernelStep]:
        problem = self.problem
        packs_a, packs_b = self.packs_a(), self.packs_b()
        blocks = max(1, round(problem.k * self.tile.size / BLOCK_BYTES))
        if self.tile.converts:
            blocks = 1
        block = divide_up(problem.k, blocks)
        steps: list[KernelStep] = []
        a = APanels(self, packs_a, block)
        b = BPanels(self, packs_b, block)
        for start in range(0, max(problem.k, 1), max(block, 1)):
            k = min(block, problem.k - start)
            steps += a.steps(start, k)
            steps += b.steps(start, k)
            last = start + block >= problem.k
            shared = self.shared_words(first=start == 0, last=last)
            steps.append(self.multiply_step(a.words(start, k) | b.words(start, k) | shared, k))
        return steps

    def packs_a(self) -> bool:
        return self.tile.converts or self.problem.n >= COLUMNS_TO_PACK_A

    def packs_b(self) -> bool:
        problem = self.problem
        return self.tile.converts or problem.b_col != 1 or problem.m >= ROWS_TO_PACK_B

    def multiply_step(self, words: dict[str, Word], k: int) -> KernelStep:
        problem, tile = self.problem, self.tile
        panels = RowPanels.split(problem.m, tile.rows)
        column_panels = divide_up(problem.n, tile.columns)
        rows = min(panels.count, ROW_PANELS_PER_TASK)
        columns = min(column_panels, COLUMN_PANELS_PER_TASK)

        def tasks() -> int:
            return divide_up(panels.count, rows) * divide_up(column_panels, columns)

        def work() -> int:
            return rows * panels.height * columns * tile.columns * k

        while problem.batch * tasks() < TASKS_WANTED and work() >= 2 * TASK_WORK:
            if columns >= rows and columns > 1:
                columns = divide_up(columns, 2)
            elif rows > 1:
                rows = divide_up(rows, 2)
            else:
                break
        values = words | {
            "k": k,
            "height": panels.height,
            "tall_panels": panels.tall,
            "row_panels": panels.count,
            "column_panels": column_panels,
            "rows_per_task": rows,
            "columns_per_task": columns,
            "row_tasks": divide_up(panels.count, rows),
            "column_tasks": divide_up(column_panels, columns),
        }
        return self.step(MULTIPLY, MULTIPLY_WORDS, values, problem.batch * tasks(), work())


class APanels:
    """Where ``gemm_multiply`` finds the rows of A: packed, or in A itself."""

    def __init__(self, planner: Planner, packed: bool, block: int) -> None:
        self.planner = planner
        self.problem = planner.problem
        self.packed = packed
        self.batch_stride = self.problem.m * block if self.problem.a_batch else 0
        if packed:
            batches = self.problem.batch if self.problem.a_batch else 1
            nbytes = batches * self.problem.m * block * planner.tile.size
            self.panels = planner.workspace.take(nbytes)

    def steps(self, start: int, k: int) -> list[KernelStep]:
        if not (self.packed and k):
            return []
        problem, planner = self.problem, self.planner
        rows = RowPanels.split(problem.m, planner.tile.rows)
        values: dict[str, Word] = {
            "source": planner.operand("a", start * problem.a_col),
            "source_batch": problem.a_batch,
            "stride_k": problem.a_col,
            "stride_x": problem.a_row,
            "extent": problem.m,
            "k": k,
            "target": self.panels,
            "target_batch": self.batch_stride,
            "height": rows.height,
            "tall_panels": rows.tall,
            "panels": rows.count,
            "width": 0,
        }
        batches = problem.batch if problem.a_batch else 1
        return [planner.step(PACK, PACK_WORDS, values, rows.count * batches, 8 * k * rows.height)]

    def words(self, start: int, k: int) -> dict[str, Word]:
        problem = self.problem
        if self.packed:
            return {
                "a": self.panels,
                "a_batch": self.batch_stride,
                "a_panel": k,
                "a_row": 1,
                "a_k": 0,
                "a_packed": 1,
            }
        return {
            "a": self.planner.operand("a", start * problem.a_col),
            "a_batch": problem.a_batch,
            "a_panel": problem.a_row,
            "a_row": problem.a_row,
            "a_k": problem.a_col,
            "a_packed": 0,
        }


class BPanels:
    """Where ``gemm_multiply`` finds the columns of B: packed, in B itself, or both.

    In B itself a panel must consist of whole vectors; the last one is packed if it does not.
    """

    def __init__(self, planner: Planner, packed: bool, block: int) -> None:
        self.planner = planner
        self.problem = planner.problem
        self.width = planner.tile.columns
        n = self.problem.n
        if packed:
            self.first_packed = 0
        elif n % planner.tile.lanes:
            self.first_packed = n // self.width * self.width
        else:
            self.first_packed = n
        self.packed_panels = divide_up(n - self.first_packed, self.width)
        self.block = block
        if self.packed_panels:
            nbytes = self.batches * self.packed_panels * self.width * block * planner.tile.size
            self.panels = planner.workspace.take(nbytes)

    @property
    def batches(self) -> int:
        return self.problem.batch if self.problem.b_batch else 1

    @property
    def batch_stride(self) -> int:
        return self.packed_panels * self.width * self.block if self.problem.b_batch else 0

    def steps(self, start: int, k: int) -> list[KernelStep]:
        if not (self.packed_panels and k):
            return []
        problem, planner = self.problem, self.planner
        offset = start * problem.b_row + self.first_packed * problem.b_col
        values: dict[str, Word] = {
            "source": planner.operand("b", offset),
            "source_batch": problem.b_batch,
            "stride_k": problem.b_row,
            "stride_x": problem.b_col,
            "extent": problem.n - self.first_packed,
            "k": k,
            "target": self.panels,
            "target_batch": self.batch_stride,
            "height": self.width,
            "tall_panels": self.packed_panels,
            "panels": self.packed_panels,
            "width": self.width,
        }
        tasks = self.packed_panels * self.batches
        return [planner.step(PACK, PACK_WORDS, values, tasks, 8 * k * self.width)]

    def words(self, start: int, k: int) -> dict[str, Word]:
        problem, planner = self.problem, self.planner
        words: dict[str, Word] = {
            "b": planner.operand("b", start * problem.b_row),
            "b_batch": problem.b_batch,
            "b_panel": problem.b_col,
            "b_k": problem.b_row,
            "edge": 0,
            "edge_batch": 0,
            "edge_start": problem.n,
        }
        if self.first_packed == 0 and self.packed_panels:
            packed: dict[str, Word] = {
                "b": self.panels,
                "b_batch": self.batch_stride,
                "b_panel": k,
                "b_k": self.width,
            }
            return words | packed
        if self.packed_panels:
            edge: dict[str, Word] = {
                "edge": self.panels,
                "edge_batch": self.batch_stride,
                "edge_start": self.first_packed,
            }
            return words | edge
        return words
