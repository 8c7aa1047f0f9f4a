"""Generated pooling: maxima and means over windows of planes, adaptive ones too, and gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from flambeau.compiler.correlation_layout import GRAIN_MOVES
from flambeau.compiler.gemm_micro import TileShape, tile_shape
from flambeau.compiler.kernel_step import Pointer, Word
from flambeau.compiler.library_plan import LibraryPlan, PlanWriter, ceil_div
from flambeau.compiler.pooling_kernels import (
    DIVIDE,
    MAX,
    MEAN,
    SCATTER,
    WINDOW,
    pooling_module,
)
from flambeau.compiler.target import Target
from flambeau.compiler.widened import HALF_TYPES, widened
from flambeau.core.dtype import dtype, float32

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PoolingProblem:
    """Pooling of ``planes`` contiguous planes (batch times channels); pairs are (rows, columns).

    The caller has checked the geometry as PyTorch does (padding at most half the kernel …).
    ``count_include_pad`` and ``divisor_override`` are those of ``avg_pool2d``.
    """

    dtype: dtype
    planes: int
    in_size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    @property
    def out_size(self) -> Pair:
        return self._out(0), self._out(1)

    def in_single_precision(self) -> PoolingProblem:
        return replace(self, dtype=float32)

    def _out(self, axis: int) -> int:
        size, padding, stride = self.in_size[axis], self.padding[axis], self.stride[axis]
        room = size + 2 * padding - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        if not self.ceil_mode:
            return room // stride + 1
        count = ceil_div(room, stride) + 1
        # The last window must begin inside the input or the padding to its left.
        return count - 1 if (count - 1) * stride >= size + padding else count

    def windows(self, axis: int) -> Windows:
        size, padding = self.in_size[axis], self.padding[axis]
        kernel, dilation = self.kernel[axis], self.dilation[axis]
        start = np.arange(self._out(axis)) * self.stride[axis] - padding
        first = np.where(start < 0, start + -(start // dilation) * dilation, start)
        end = np.minimum(start + dilation * (kernel - 1) + 1, size)
        count = np.maximum(0, -(-(end - first) // dilation))
        extent = np.minimum(start + kernel, size + padding) - start
        return Windows(
            size, first, count, extent if self.count_include_pad else count, dilation, kernel,
            regular=(self.stride[axis], padding),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdaptivePoolingProblem:
    """Adaptive pooling of ``planes`` contiguous planes to ``out_size``."""

    dtype: dtype
    planes: int
    in_size: Pair
    out_size: Pair

    def in_single_precision(self) -> AdaptivePoolingProblem:
        return replace(self, dtype=float32)

    def windows(self, axis: int) -> Windows:
        size, out = self.in_size[axis], self.out_size[axis]
        numbers = np.arange(out)
        first = numbers * size // max(1, out)
        count = -(-(numbers + 1) * size // max(1, out)) - first
        taps = int(count.max(initial=0))
        regular = (taps, 0) if out and size % out == 0 else None
        return Windows(size, first, count, count, 1, taps, regular)


AnyPoolingProblem = PoolingProblem | AdaptivePoolingProblem


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one axis of ``size`` elements: window i covers ``count[i]`` elements, ``step``
    apart from ``first[i]`` on, of at most ``taps``.  A mean divides by ``divisor``.  ``regular`` is
    (stride, padding) where tap t of window i is ``i * stride - padding + t * step``.
    """

    size: int
    first: np.ndarray
    count: np.ndarray
    divisor: np.ndarray
    step: int
    taps: int
    regular: tuple[int, int] | None

    @property
    def is_everything(self) -> bool:
        """Whether there is one window, of all elements."""
        return self.step == 1 and len(self.first) == 1 and self.count[0] == self.size

    @property
    def is_one_element(self) -> bool:
        """Whether there is one element, in each of the windows."""
        return self.size == 1 and bool((self.count == 1).all())

    def transposed(self) -> Windows:
        """For each element, the windows that cover it (of step 1)."""
        elements = np.arange(self.size)
        # Windows begin and end in order, so those that cover an element are neighbours.
        first = np.searchsorted(self.first + self.count, elements, side="right")
        after = np.searchsorted(self.first, elements, side="right")
        count = np.maximum(0, after - first)
        regular = None
        if self.regular is not None and self.regular[0] == 1:
            regular = (1, self.taps - 1 - self.regular[1])
            taps = self.taps
        else:
            taps = int(count.max(initial=0))
        return Windows(len(self.first), first, count, np.ones_like(count), 1, taps, regular)


def _joined(rows: Windows, columns: Windows) -> tuple[Windows, Windows]:
    """The windows of planes seen as single rows, where there is one window, or one element."""
    if rows.is_everything and columns.is_everything:
        size = rows.size * columns.size
        first, count, taps = np.zeros(1), np.array([size]), size
    elif rows.is_one_element and columns.is_one_element:
        size, taps = 1, 1
        first = np.zeros(len(rows.first) * len(columns.first))
        count = np.ones_like(first)
    else:
        return rows, columns
    one = np.ones(1)
    return (
        Windows(1, one - 1, one, one, 1, 1, None),
        Windows(size, first, count, count, 1, taps, None),
    )


Planner = Callable[[AnyPoolingProblem, Target], LibraryPlan]


def _elements(problem: AnyPoolingProblem, name: str) -> int:
    rows, columns = problem.in_size if name.endswith("input") else problem.out_size
    return problem.planes * rows * columns


def _for_half_types(source: str, result: str) -> Callable[[Planner], Planner]:
    """The planner, also for operands ``source`` and ``result`` in half precision."""

    def decorate(planner: Planner) -> Planner:
        @functools.wraps(planner)
        def plan(problem: AnyPoolingProblem, target: Target) -> LibraryPlan:
            if problem.dtype not in HALF_TYPES:
                return planner(problem, target)
            single = planner(problem.in_single_precision(), target)
            inputs, outputs = ({name: _elements(problem, name)} for name in (source, result))
            return widened(single, problem.dtype, target, inputs, outputs)

        return plan

    return decorate


@_for_half_types("input", "output")
def plan_max_pool(problem: AnyPoolingProblem, target: Target) -> LibraryPlan:
    """``output`` and ``indices`` (int64, into the input plane) from ``input``: operand names."""
    writer, tile = PlanWriter(), tile_shape(problem.dtype.llvm, target)
    rows, columns = _joined(problem.windows(0), problem.windows(1))
    operands = {
        "input": Pointer("input"),
        "output": Pointer("output"),
        "indices": Pointer("indices"),
    }
    _add_pool(writer, tile, MAX, problem.planes, rows, columns, operands)
    return writer.finish()


@_for_half_types("grad_output", "grad_input")
def plan_max_pool_backward(problem: AnyPoolingProblem, target: Target) -> LibraryPlan:
    """``grad_input`` from ``grad_output`` and ``indices``; sums are in the order of the outputs."""
    writer, tile = PlanWriter(), tile_shape(problem.dtype.llvm, target)
    in_plane = problem.in_size[0] * problem.in_size[1]
    out_plane = problem.out_size[0] * problem.out_size[1]
    arguments: dict[str, Word] = {
        "grad_output": Pointer("grad_output"),
        "indices": Pointer("indices"),
        "grad_input": Pointer("grad_input"),
        "in_plane": in_plane,
        "out_plane": out_plane,
    }
    grain = GRAIN_MOVES // max(1, in_plane)
    tasks = problem.planes if in_plane else 0
    writer.add(pooling_module(tile).step(SCATTER, arguments, tasks, grain))
    return writer.finish()


@_for_half_types("input", "output")
def plan_avg_pool(problem: AnyPoolingProblem, target: Target) -> LibraryPlan:
    """``output`` from ``input`` (operand names)."""
    writer, tile = PlanWriter(), tile_shape(problem.dtype.llvm, target)
    rows, columns = problem.windows(0), problem.windows(1)
    by_row, by_column = _divisors(problem, rows, columns)
    rows, columns = _joined(rows, columns)
    operands = {
        "input": Pointer("input"),
        "output": Pointer("output"),
        "row_divisor": writer.constant(by_row),
        "column_divisor": writer.constant(by_column),
    }
    _add_pool(writer, tile, MEAN, problem.planes, rows, columns, operands)
    return writer.finish()


@_for_half_types("grad_output", "grad_input")
def plan_avg_pool_backward(problem: AnyPoolingProblem, target: Target) -> LibraryPlan:
    """``grad_input`` from ``grad_output``: divided once, then summed over the windows of each
    element, in order.
    """
    writer, tile = PlanWriter(), tile_shape(problem.dtype.llvm, target)
    rows, columns = problem.windows(0), problem.windows(1)
    by_row, by_column = _divisors(problem, rows, columns)
    out_rows, out_columns = problem.out_size
    divided = writer.reserve(problem.planes * out_rows * out_columns * tile.size)
    arguments: dict[str, Word] = {
        "input": Pointer("grad_output"),
        "output": divided,
        "rows": out_rows,
        "columns": out_columns,
        "row_divisor": writer.constant(by_row),
        "column_divisor": writer.constant(by_column),
    }
    grain = GRAIN_MOVES // max(1, out_columns)
    tasks = problem.planes * out_rows
    writer.add(pooling_module(tile).step(DIVIDE, arguments, tasks, grain))
    rows, columns = _joined(rows.transposed(), columns.transposed())
    operands = {
        "input": divided,
        "output": Pointer("grad_input"),
        "row_divisor": writer.constant(np.ones(len(rows.first), problem.dtype.numpy)),
        "column_divisor": writer.constant(np.ones(len(columns.first), problem.dtype.numpy)),
    }
    _add_pool(writer, tile, MEAN, problem.planes, rows, columns, operands)
    return writer.finish()


def _divisors(
    problem: AnyPoolingProblem, rows: Windows, columns: Windows
) -> tuple[np.ndarray, np.ndarray]:
    """Their product is what the mean of a window divides by."""
    by_row, by_column = rows.divisor, columns.divisor
    if isinstance(problem, PoolingProblem) and problem.divisor_override is not None:
        by_row = np.full_like(by_row, problem.divisor_override)
        by_column = np.ones_like(by_column)
    # The mean of an empty window is 0 / 1.
    by_row, by_column = (np.where(d == 0, 1, d) for d in (by_row, by_column))
    return by_row.astype(problem.dtype.numpy), by_column.astype(problem.dtype.numpy)


def _add_pool(
    writer: PlanWriter,
    tile: TileShape,
    reduction: str,
    planes: int,
    rows: Windows,
    columns: Windows,
    operands: Mapping[str, Word],
) -> None:
    out_rows, out_columns = len(rows.first), len(columns.first)
    kind = _choose_kind(tile, rows, columns)
    arguments = {
        **operands,
        "in_rows": rows.size,
        "in_columns": columns.size,
        "out_rows": out_rows,
        "out_columns": out_columns,
        "row_first": writer.constant(rows.first.astype(np.int64)),
        "row_count": writer.constant(rows.count.astype(np.int64)),
        "row_step": rows.step,
        "column_first": writer.constant(columns.first.astype(np.int32)),
        "column_count": writer.constant(columns.count.astype(np.int32)),
        "column_step": columns.step,
        "taps": columns.taps,
        "low": columns.regular[1] if columns.regular else 0,
    }
    tasks = planes * out_rows * (out_columns if kind == WINDOW else 1)
    work = rows.taps * columns.taps * (1 if kind == WINDOW else out_columns)
    step = pooling_module(tile).step(
        f"{reduction}_{kind}", arguments, tasks if out_columns else 0, GRAIN_MOVES // max(1, work)
    )
    writer.add(step)


# Cycles for a vector of one tap by the way that columns are read, and what a window costs besides
# its vectors where lanes are its columns (measured with AVX-512).
_TAP_CYCLES = {"unit": 5, "pairs": 7, "table": 22}
_WINDOW_CYCLES = 60


def _choose_kind(tile: TileShape, rows: Windows, columns: Windows) -> str:
    strides = {1: "unit", 2: "pairs"}
    kind = "table"
    if columns.regular is not None:
        kind = strides.get(columns.regular[0], "table")
    out_columns = len(columns.first)
    by_columns = ceil_div(out_columns, tile.lanes) * rows.taps * columns.taps * _TAP_CYCLES[kind]
    vectors = rows.taps * ceil_div(columns.taps, tile.lanes)
    by_windows = out_columns * (vectors * _TAP_CYCLES["unit"] + _WINDOW_CYCLES)
    return WINDOW if columns.step == 1 and by_windows < by_columns else kind
