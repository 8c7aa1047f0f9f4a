"""What a matrix product is: sizes, strides and finishing, and the rewriting to equivalent ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flambeau.compiler.epilogue import Grid
from flambeau.compiler.gemm_tile import (
    BIAS_PER_COLUMN,
    NO_BIAS,
    ONE_BIAS,
)
from flambeau.compiler.kernel_step import KernelStep


@dataclass(frozen=True)
class GemmProblem:
    """C = A @ B + bias for ``batch`` products of (m, k) by (k, n).

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
    accumulate: bool = False


@dataclass(frozen=True)
class GemmPlan:
    """Steps to run in order, on operands named ``a``, ``b``, ``c``, ``bias`` and the workspace."""

    workspace: int
    steps: tuple[KernelStep, ...]
    grid: Grid | None = None

    def __str__(self) -> str:
        lines = [f"workspace {self.workspace} bytes", *map(str, self.steps)]
        return "\n".join(lines)


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
