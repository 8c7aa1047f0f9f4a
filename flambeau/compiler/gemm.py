"""Matrix products: from the shape and strides of one product to the native calls that compute it.

``plan_gemm`` chooses a way by shape, strides and type alone, never by the number of threads, so a
result is the same on any number of them.  Every size and stride is an argument of the kernels: one
module per element type and target serves all products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flambeau.compiler.builder import module
from flambeau.compiler.gemm_micro import TileShape, micro_kernels, tile_shape
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
