"""How a product of bfloat16 is cut into tiles, panels and tasks for AMX (see gemm_amx.py)."""

from __future__ import annotations

from collections.abc import Mapping

from flambeau.compiler.gemm_amx import (
    AMX,
    AMX_PACK_A,
    AMX_PACK_B,
    AMX_PACK_WORDS,
    AMX_WORDS,
    BLOCK_EDGE,
    DEPTH,
    EDGE,
    MOST_ROW_BLOCKS,
    TILE_ELEMENTS,
)
from flambeau.compiler.gemm_operands import COPY_WORK, TASK_WORK, StepWriter, divide_up
from flambeau.compiler.kernel_step import KernelStep, Word

# How many times as fast as the other products those on AMX are, for the sizes of tasks.
SPEED = 8

# Bytes of A that stay in a cache while the panels of B pass by.
CACHE_BYTES = 1 << 19

# Steps of 32 k whose panel of B fits the nearest cache.
STEPS_AT_ONCE = 16

# The tasks that a large product should have.
TASKS_WANTED = 16

# Rows of A further apart than this, each on a page of its own, are packed if they are read often.
PAGE_BYTES = 4096

# The steps of an operand, and the words about where it lies then.
Packed = tuple[list[KernelStep], dict[str, Word]]


def amx_steps(writer: StepWriter, result: Mapping[str, Word]) -> list[KernelStep]:
    """Packs what must be packed, then multiplies; ``result`` are the words about C."""
    problem = writer.problem
    steps = divide_up(problem.k, DEPTH)
    pack_a, a = _rows(writer, steps)
    pack_b, b = _pack(writer, "b", AMX_PACK_B, steps)
    row_blocks = divide_up(problem.m, BLOCK_EDGE)
    column_blocks = divide_up(problem.n, BLOCK_EDGE)
    work = max(1, BLOCK_EDGE**2 * problem.k // SPEED)
    rows = _rows_per_task(row_blocks, steps)
    row_tasks = divide_up(row_blocks, rows)
    wanted = divide_up(TASKS_WANTED, row_tasks * problem.batch)
    worthwhile = max(1, row_blocks * column_blocks * work // TASK_WORK // row_tasks)
    columns = divide_up(column_blocks, min(column_blocks, wanted, worthwhile))
    column_tasks = divide_up(column_blocks, columns)
    at_once = max(1, divide_up(steps, max(1, round(steps / STEPS_AT_ONCE))))
    values: dict[str, Word] = {
        **result,
        **a,
        **b,
        "b_block": 2 * steps * TILE_ELEMENTS,
        "steps": steps,
        "steps_at_once": at_once,
        "parts": max(1, divide_up(steps, at_once)),
        "row_blocks": row_blocks,
        "column_blocks": column_blocks,
        "rows_per_task": rows,
        "columns_per_task": columns,
        "row_tasks": row_tasks,
        "column_tasks": column_tasks,
    }
    tasks = problem.batch * row_tasks * column_tasks
    return [*pack_a, *pack_b, writer.step(AMX, AMX_WORDS, values, tasks, rows * columns * work)]


def _rows_per_task(row_blocks: int, steps: int) -> int:
    nbytes = 2 * BLOCK_EDGE * DEPTH * max(1, steps)
    most = min(MOST_ROW_BLOCKS, max(1, CACHE_BYTES // nbytes))
    return divide_up(row_blocks, divide_up(row_blocks, most))


def _rows(writer: StepWriter, steps: int) -> Packed:
    """A itself, where its k is dense and fills whole tiles; else packed."""
    problem = writer.problem
    near = 2 * abs(problem.a_row) < PAGE_BYTES or problem.n <= 4 * BLOCK_EDGE
    if problem.a_col == 1 and problem.k % DEPTH == 0 and near:
        return [], {
            "a": writer.operand("a"),
            "a_batch": problem.a_batch,
            "a_block": BLOCK_EDGE * problem.a_row,
            "a_panel": EDGE * problem.a_row,
            "a_step": DEPTH,
            "a_stride": 2 * problem.a_row,
            "a_raw": 1,
        }
    packing, words = _pack(writer, "a", AMX_PACK_A, steps)
    words |= {
        "a_block": 2 * steps * TILE_ELEMENTS,
        "a_panel": TILE_ELEMENTS,
        "a_step": 2 * TILE_ELEMENTS,
        "a_stride": 2 * DEPTH,
        "a_raw": 0,
    }
    return packing, words


def _pack(writer: StepWriter, name: str, function: str, steps: int) -> Packed:
    problem = writer.problem
    batch_stride, stride_x, stride_k, extent = {
        "a": (problem.a_batch, problem.a_row, problem.a_col, problem.m),
        "b": (problem.b_batch, problem.b_col, problem.b_row, problem.n),
    }[name]
    panels = 2 * divide_up(extent, BLOCK_EDGE)
    by_steps = stride_x == 1 and stride_k != 1
    batches = problem.batch if batch_stride else 1
    elements = panels * steps * TILE_ELEMENTS
    target = writer.workspace.take(2 * batches * elements)
    values: dict[str, Word] = {
        "source": writer.operand(name),
        "source_batch": batch_stride,
        "stride_k": stride_k,
        "stride_x": stride_x,
        "extent": extent,
        "k": problem.k,
        "steps": steps,
        "panels": panels,
        "target": target,
        "by_steps": int(by_steps),
    }
    work = COPY_WORK * (panels if by_steps else steps) * TILE_ELEMENTS // EDGE
    tasks = batches * (steps if by_steps else panels)
    step = writer.step(function, AMX_PACK_WORDS, values, tasks, work)
    return [step], {name: target, f"{name}_batch": elements if batch_stride else 0}
