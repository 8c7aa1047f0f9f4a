"""Scaled dot product attention: from the shape and strides of one problem to native calls.

Which kernel runs, and how work is cut into tasks and parts, follows from the problem alone, never
from the number of threads.  Sizes and strides are arguments of the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flambeau.compiler.attention_backward import (
    BACKWARD,
    BACKWARD_WORDS,
    SUM_PARTS,
    SUM_WORDS,
    BackwardKernel,
    sum_parts_function,
    unit_queries,
)
from flambeau.compiler.attention_block import (
    DENSE,
    FULL,
    element_tile,
    operand_words,
    product_function,
)
from flambeau.compiler.attention_few import (
    CHUNK,
    FEW,
    FEW_WORDS,
    JOIN,
    JOIN_WORDS,
    FewKernel,
    JoinKernel,
)
from flambeau.compiler.attention_forward import FORWARD, FORWARD_WORDS, ForwardKernel
from flambeau.compiler.attention_tiles import (
    PACK_VALUES,
    TILED,
    TILED_WORDS,
    WIDTH,
    TiledForwardKernel,
    runs_on_tiles,
)
from flambeau.compiler.builder import module
from flambeau.compiler.gemm import STORED_AS
from flambeau.compiler.gemm_amx import AMX_PACK_WORDS, DEPTH, EDGE, TilePacker
from flambeau.compiler.gemm_micro import TileShape, micro_kernels
from flambeau.compiler.gemm_operands import COPY_WORK, TASK_WORK
from flambeau.compiler.gemm_pack import PanelPacker
from flambeau.compiler.kernel_step import KernelStep, Pointer, Word
from flambeau.compiler.library_plan import KernelModule, LibraryPlan, PlanWriter, ceil_div, offset
from flambeau.compiler.target import Target
from flambeau.core.dtype import dtype

# Columns of a query, key or value that the kernels' scratch memory is good for.
MOST_COLUMNS = 1024

# Queries that share keys up to which lanes run along columns: a panel would be almost empty.
FEW_QUERIES = 6

# Keys and values of a head up to this size stay in the second cache; beyond, so many panels of
# queries at most share a pass over them.
CACHED_BYTES = 1 << 20
MOST_PANELS = 4

# How many times as fast as the other forward kernel that on AMX is, for the sizes of tasks.
TILES_SPEED = 4

# The tasks that a pass should have where that can be arranged.
TASKS_WANTED = 16

Strides = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """``softmax(scale * query @ key^T + mask) @ value`` over (batch, head, row, column).

    ``strides`` are in elements, by operand: ``q k v mask`` and the results, whose columns are
    dense.  ``group`` query heads in a row share a head of keys and values.  No size is 0.
    """

    dtype: dtype
    batch: int
    heads: int
    group: int
    queries: int
    keys: int
    dim: int
    value_dim: int
    scale: float
    causal: bool
    masked: bool
    strides: Mapping[str, Strides]

    @property
    def stored(self) -> str:
        """The LLVM type of the operands in memory."""
        return STORED_AS[self.dtype.name]

    def words(self, *names: str) -> dict[str, Word]:
        """Address and strides of operands; a missing one is never read."""
        found: dict[str, Word] = {}
        for name in names:
            strides = self.strides.get(name)
            found[name] = 0 if strides is None else Pointer(name)
            found |= zip(operand_words(name, FULL[1:]), strides or (0, 0, 0, 0), strict=True)
        return found

    def result_words(self, name: str) -> dict[str, Word]:
        """As `words`, less the stride of columns."""
        found = self.words(name)
        del found[f"{name}_col"]
        return found

    def common_words(self) -> dict[str, Word]:
        return self.words("q", "k", "v", "mask") | {
            "masked": int(self.masked),
            "causal": int(self.causal),
            "scale": float(self.scale),
            "group": self.group,
            "queries": self.queries,
            "keys": self.keys,
            "dim": self.dim,
            "value_dim": self.value_dim,
        }


def _grain(work: int) -> int:
    return max(1, TASK_WORK // max(1, work))


def _products(tile: TileShape) -> list:
    packer = PanelPacker(tile)
    return [
        *micro_kernels(tile),
        (packer.function(), packer.builder),
        product_function(tile),
    ]


def forward_module(stored: str, target: Target) -> KernelModule:
    def source() -> str:
        kernel = ForwardKernel(stored, target)
        parts = [*_products(kernel.tile), (kernel.function(), kernel.builder)]
        return module([text for text, _ in parts], [builder for _, builder in parts])

    return KernelModule(
        f"attention forward {stored} {target.name}", source, {FORWARD: FORWARD_WORDS}
    )


def few_module(stored: str, target: Target) -> KernelModule:
    def source() -> str:
        kernels = FewKernel(stored, target), JoinKernel(stored, target)
        functions = [kernel.function() for kernel in kernels]
        return module(functions, [kernel.builder for kernel in kernels])

    functions = {FEW: FEW_WORDS, JOIN: JOIN_WORDS}
    return KernelModule(f"attention few {stored} {target.name}", source, functions)


def plan_attention(problem: AttentionProblem, target: Target) -> LibraryPlan:
    """``out`` and ``lse`` from ``q k v mask``: operand names."""
    tile = element_tile(problem.stored, target)
    whole = problem.dim % tile.lanes == 0 and problem.value_dim % tile.lanes == 0
    dense = problem.strides["k"][3] == problem.strides["v"][3] == 1
    if problem.group * problem.queries <= FEW_QUERIES and whole and dense:
        return _plan_few(problem, target, tile)
    even = problem.dim % WIDTH == 0 and problem.value_dim % WIDTH == 0
    dense = problem.strides["q"][3] == problem.strides["k"][3] == 1
    if runs_on_tiles(problem.stored, target) and even and dense:
        return _plan_tiles(problem, target, tile)
    return _plan_panels(problem, target, tile)


def _plan_few(problem: AttentionProblem, target: Target, tile: TileShape) -> LibraryPlan:
    writer = PlanWriter()
    rows = problem.batch * problem.heads * problem.queries
    chunks = ceil_div(problem.keys, CHUNK)
    columns = problem.value_dim + tile.lanes
    partial = writer.reserve(rows * chunks * columns * tile.size) if chunks > 1 else 0
    words = problem.common_words() | problem.result_words("out")
    words |= {"lse": Pointer("lse"), "heads": problem.heads, "chunks": chunks, "partial": partial}
    work = COPY_WORK * min(problem.keys, CHUNK) * (problem.dim + problem.value_dim)
    kernels = few_module(problem.stored, target)
    writer.add(kernels.step(FEW, words, rows * chunks, _grain(work)))
    if chunks > 1:
        joined = {name: words[name] for name in JOIN_WORDS}
        work = COPY_WORK * chunks * problem.value_dim
        writer.add(kernels.step(JOIN, joined, rows, _grain(work)))
    return writer.finish()


def _panels(problem: AttentionProblem, tile: TileShape) -> int:
    """Panels of queries that a task takes through the keys together.

    One, if a head's keys and values stay in the cache between tasks.
    """
    columns = problem.dim + problem.value_dim
    if problem.keys * columns * tile.size <= CACHED_BYTES:
        return 1
    panels = ceil_div(problem.queries, tile.columns)
    together = problem.batch * problem.heads * panels // TASKS_WANTED
    return max(1, min(MOST_PANELS, panels, together))


def tiles_module(stored: str, target: Target) -> KernelModule:
    def source() -> str:
        kernel = TiledForwardKernel(stored, target)
        mask_packer = PanelPacker(kernel.tile)
        packer = TilePacker(PACK_VALUES, pairs=False)
        parts = [
            (mask_packer.function(), mask_packer.builder),
            (packer.function(), packer.builder),
            (kernel.function(), kernel.builder),
        ]
        return module([text for text, _ in parts], [builder for _, builder in parts])

    functions = {TILED: TILED_WORDS, PACK_VALUES: AMX_PACK_WORDS}
    return KernelModule(f"attention tiles {stored} {target.name}", source, functions)


def _plan_tiles(problem: AttentionProblem, target: Target, tile: TileShape) -> LibraryPlan:
    """Values are packed first, a batch entry at a time."""
    writer = PlanWriter()
    kernels = tiles_module(problem.stored, target)
    heads = problem.heads // problem.group
    steps = ceil_div(problem.keys, DEPTH)
    entry = steps * DEPTH * problem.value_dim * heads * 2
    tiles = writer.reserve(problem.batch * entry)
    batch_stride, head_stride, row, column = problem.strides["v"]
    for batch in range(problem.batch):
        values: dict[str, Word] = {
            "source": Pointer("v", 2 * batch * batch_stride),
            "source_batch": head_stride,
            "stride_k": row,
            "stride_x": column,
            "extent": problem.value_dim,
            "k": problem.keys,
            "steps": steps,
            "panels": problem.value_dim // EDGE,
            "target": offset(tiles, batch * entry),
            "by_steps": 1,
        }
        work = COPY_WORK * DEPTH * problem.value_dim
        writer.add(kernels.step(PACK_VALUES, values, heads * steps, _grain(work)))
    words, tasks, work = _panel_words(problem, tile)
    words |= {"tiles": tiles, "key_steps": steps}
    writer.add(kernels.step(TILED, words, tasks, _grain(work // TILES_SPEED)))
    return writer.finish()


def _plan_panels(problem: AttentionProblem, target: Target, tile: TileShape) -> LibraryPlan:
    writer = PlanWriter()
    words, tasks, work = _panel_words(problem, tile)
    kernels = forward_module(problem.stored, target)
    writer.add(kernels.step(FORWARD, words, tasks, _grain(work)))
    return writer.finish()


def _panel_words(problem: AttentionProblem, tile: TileShape) -> tuple[dict[str, Word], int, int]:
    """The words of a kernel that goes by panels of queries, its tasks, and the work of one."""
    panels = _panels(problem, tile)
    blocks = ceil_div(problem.queries, panels * tile.columns)
    words = problem.common_words() | problem.result_words("out")
    words |= {"lse": Pointer("lse"), "heads": problem.heads}
    words |= {"panels": panels, "query_blocks": blocks}
    work = (
        min(problem.queries, panels * tile.columns)
        * problem.keys
        * (problem.dim + problem.value_dim)
    )
    return words, problem.batch * problem.heads * blocks, work


def backward_module(stored: str, target: Target) -> KernelModule:
    def source() -> str:
        kernel = BackwardKernel(stored, target)
        parts = [
            *_products(kernel.tile),
            (kernel.function(), kernel.builder),
            sum_parts_function(kernel.memory, kernel.tile),
        ]
        return module([text for text, _ in parts], [builder for _, builder in parts])

    functions = {BACKWARD: BACKWARD_WORDS, SUM_PARTS: SUM_WORDS}
    return KernelModule(f"attention backward {stored} {target.name}", source, functions)


def plan_attention_backward(problem: AttentionProblem, target: Target) -> LibraryPlan:
    """``dq dk dv`` from ``q k v mask out lse grad``: operand names."""
    return _BackwardPlanner(problem, target).plan()


class _BackwardPlanner:
    def __init__(self, problem: AttentionProblem, target: Target) -> None:
        self.problem = problem
        self.tile = element_tile(problem.stored, target)
        self.kernels = backward_module(problem.stored, target)
        self.writer = PlanWriter()
        self.shared_heads = problem.heads // problem.group
        self.blocks = ceil_div(problem.queries, unit_queries(self.tile))
        self.units = problem.group * self.blocks
        self.tasks = problem.batch * self.shared_heads
        self.parts = min(self.units, ceil_div(TASKS_WANTED, self.tasks))

    def plan(self) -> LibraryPlan:
        problem = self.problem
        words = problem.common_words() | problem.words("out", "grad") | problem.result_words("dq")
        sums: dict[str, Word] = {}
        steps: list[KernelStep] = []
        for name, columns in (("dk", problem.dim), ("dv", problem.value_dim)):
            found, more = self.gathered(name, columns)
            sums |= found
            steps += more
        words |= sums | {
            "lse": Pointer("lse"),
            "shared_heads": self.shared_heads,
            "blocks": self.blocks,
            "units": self.units,
            "parts": self.parts,
        }
        self.writer.add(self.kernels.step(BACKWARD, words, self.tasks * self.parts))
        for step in steps:
            self.writer.add(step)
        return self.writer.finish()

    def gathered(self, name: str, columns: int) -> tuple[dict[str, Word], list[KernelStep]]:
        """Where the parts' gradients of keys or values gather, and the step that adds them up."""
        problem, tile = self.problem, self.tile
        batch, head, row, _ = problem.strides[name]
        half = problem.stored != tile.element
        if self.parts == 1 and not half and columns % tile.lanes == 0:
            return _words(f"{name}_sum", Pointer(name), (batch, head, row, 0)), []
        length = ceil_div(columns, tile.lanes) * tile.lanes
        entry = problem.keys * length
        part = self.tasks * entry
        buffer = self.writer.reserve(self.parts * part * tile.size)
        found = _words(f"{name}_sum", buffer, (self.shared_heads * entry, entry, length, part))
        step: dict[str, Word] = {
            "source": buffer,
            "source_part": part,
            "source_task": entry,
            "source_row": length,
            "parts": self.parts,
            "target": Pointer(name),
            "target_batch": batch,
            "target_head": head,
            "target_row": row,
            "heads": self.shared_heads,
            "rows": problem.keys,
            "columns": columns,
        }
        work = COPY_WORK * self.parts * problem.keys * columns
        return found, [self.kernels.step(SUM_PARTS, step, self.tasks, _grain(work))]


def _words(name: str, pointer: Pointer, strides: Strides) -> dict[str, Word]:
    names = operand_words(name, (*DENSE, "_part"))
    return dict(zip(names, (pointer, *strides), strict=True))
