"""Kernels for pooling: maxima (with their places) and means over windows of planes.

Which rows a window covers comes from tables, so that padding, ceiling mode and adaptive windows are
all one case; columns are read in one of three ways (`READERS`).  Output columns are the lanes,
except in the ``window`` kernels, whose lanes are the columns of one wide window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flambeau.compiler.builder import (
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    module,
    vector,
)
from flambeau.compiler.correlation import advance, for_columns, split_number
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.gemm_pack import read_words
from flambeau.compiler.library_plan import KernelModule
from flambeau.compiler.weight_gradient import sum_of_lanes

# A task is a row of an output plane (in the window kernels, an element of it).  Its window covers
# ``row_count[row]`` input rows, ``row_step`` apart from ``row_first[row]`` on (tables of int64);
# likewise its columns (tables of int32).  Regular windows have column
# ``out column * stride - low + tap * column_step`` at each of ``taps`` taps, where it exists.
_WINDOW_WORDS = (
    "in_rows", "in_columns", "out_rows", "out_columns",
    "row_first", "row_count", "row_step", "column_first", "column_count", "column_step",
    "taps", "low",
)  # fmt: skip
MAX_WORDS = ("input", "output", "indices", *_WINDOW_WORDS)
# The sum is divided by row_divisor[row] * column_divisor[column].
MEAN_WORDS = ("input", "output", "row_divisor", "column_divisor", *_WINDOW_WORDS)

# output = input / (row_divisor[row] * column_divisor[column]); a task is a row.
DIVIDE_WORDS = ("input", "output", "rows", "columns", "row_divisor", "column_divisor")

# grad_input[plane] = 0, then += grad_output at each of the indices, in order; a task is a plane.
SCATTER_WORDS = ("grad_output", "indices", "grad_input", "in_plane", "out_plane")

MAX, MEAN, WINDOW = "max", "mean", "window"
DIVIDE, SCATTER = "divide", "scatter"

_POINTERS = frozenset(
    {"input", "output", "indices", "row_first", "row_count", "column_first", "column_count",
     "row_divisor", "column_divisor", "grad_output", "grad_input"}
)  # fmt: skip


@functools.cache
def pooling_module(tile: TileShape) -> KernelModule:
    """The kernels for one element type: shapes are arguments."""
    kinds = (*READERS, WINDOW)
    words: dict[str, Sequence[str]] = {f"{MAX}_{kind}": MAX_WORDS for kind in kinds}
    words.update({f"{MEAN}_{kind}": MEAN_WORDS for kind in kinds})
    words.update({DIVIDE: DIVIDE_WORDS, SCATTER: SCATTER_WORDS})
    key = f"pooling {tile.element} {tile.lanes}"
    return KernelModule(key, functools.partial(_source, tile), words)


def _source(tile: TileShape) -> str:
    parts = [
        _pool_rows(tile, kind, reader, reduction)
        for reduction in (Maximum, Mean)
        for kind, reader in READERS.items()
    ]
    parts += [_pool_windows(tile, reduction) for reduction in (Maximum, Mean)]
    parts += [_divide(tile), _scatter(tile)]
    return module([text for text, _ in parts], [builder for _, builder in parts])


@dataclass(frozen=True, slots=True)
class Columns:
    """What a reader found: values, their input columns (i32), and where there is a column at all.
    Values without a column are zero.
    """

    values: Var
    columns: Var
    exist: Var


@dataclass(frozen=True, slots=True)
class Context:
    """What the pieces of a kernel share."""

    builder: Builder
    tile: TileShape
    words: dict[str, Var]

    @property
    def index_type(self) -> str:
        return vector("i32", self.tile.lanes)

    def spread(self, number: Var) -> Var:
        """The i64 ``number`` as i32 in every lane."""
        builder = self.builder
        return builder.splat(builder.convert("trunc", number, "i32"), self.tile.lanes)

    def lane_columns(self, first: Var, step: int = 1) -> Var:
        """first, first + step, first + 2 * step … as i32."""
        numbers = self.builder.lane_numbers(self.tile.lanes)
        if step > 1:
            numbers = self.builder.mul(numbers, step)
        return self.builder.add(self.spread(first), numbers)

    def masked(self, pointer: Var, first: Var, mask: Var) -> Var:
        address = self.builder.gep(self.tile.element, pointer, first)
        return self.builder.masked_load(self.tile.vector, address, mask, self.tile.size)

    def table(self, name: str, column: Var) -> Var:
        """A vector of an int32 table (tables have a vector of zeros behind them)."""
        address = self.builder.gep("i32", self.words[name], column)
        return self.builder.load(self.index_type, address, 4)

    def row_entry(self, name: str, row: Var) -> Var:
        return self.builder.load(I64, self.builder.gep(I64, self.words[name], row), 8)


# -- reading columns -------------------------------------------------------------------------------


def _read_unit(context: Context, row: Var, column: Var, tap: Var) -> Columns:
    """Regular windows, stride 1: the columns are neighbours."""
    builder, words = context.builder, context.words
    shift = builder.sub(builder.mul(tap, words["column_step"]), words["low"])
    first = builder.add(column, shift)
    columns = context.lane_columns(first)
    exist = builder.compare("ult", columns, context.spread(words["in_columns"]))
    return Columns(context.masked(row, first, exist), columns, exist)


def _read_pairs(context: Context, row: Var, column: Var, tap: Var) -> Columns:
    """Regular windows, stride 2: every other column of two vectors."""
    builder, words, lanes = context.builder, context.words, context.tile.lanes
    shift = builder.sub(builder.mul(tap, words["column_step"]), words["low"])
    first = builder.add(builder.mul(column, 2), shift)
    limit = context.spread(words["in_columns"])
    halves = []
    for start in (first, builder.add(first, lanes)):
        exist = builder.compare("ult", context.lane_columns(start), limit)
        halves.append(context.masked(row, start, exist))
    values = builder.shuffle(halves[0], halves[1], range(0, 2 * lanes, 2))
    columns = context.lane_columns(first, 2)
    return Columns(values, columns, builder.compare("ult", columns, limit))


def _read_table(context: Context, row: Var, column: Var, tap: Var) -> Columns:
    """Any windows, by the tables of columns."""
    builder, words = context.builder, context.words
    steps = builder.mul(context.spread(tap), context.spread(words["column_step"]))
    columns = builder.add(context.table("column_first", column), steps)
    count = context.table("column_count", column)
    exist = builder.compare("slt", context.spread(tap), count)
    values = builder.gather(context.tile.vector, row, columns, exist, context.tile.size)
    return Columns(values, columns, exist)


Reader = Callable[[Context, Var, Var, Var], Columns]

READERS: dict[str, Reader] = {"unit": _read_unit, "pairs": _read_pairs, "table": _read_table}


# -- reductions ------------------------------------------------------------------------------------


class Reduction(Protocol):
    """What is done to the values of a window, lane by lane."""

    name: str
    words: Sequence[str]

    @staticmethod
    def start(context: Context, first_place: Var) -> list[Var]:
        """The state before the first value; ``first_place`` is where the windows begin."""

    @staticmethod
    def add(context: Context, state: list[Var], found: Columns, row_start: Var) -> list[Var]:
        """The state after the values of one tap, in a row that begins at place ``row_start``."""


class Maximum(Reduction):
    """The largest value and its place in the plane; NaN counts as largest, the last one stays."""

    name = MAX
    words = MAX_WORDS

    @staticmethod
    def start(context: Context, first_place: Var) -> list[Var]:
        return [context.builder.constant(float("-inf"), context.tile.vector), first_place]

    @staticmethod
    def add(context: Context, state: list[Var], found: Columns, row_start: Var) -> list[Var]:
        builder = context.builder
        best, place = state
        larger = builder.compare("ogt", found.values, best)
        unordered = builder.compare("uno", found.values, found.values)
        wins = builder.and_(builder.or_(larger, unordered), found.exist)
        here = builder.add(context.spread(row_start), found.columns)
        return [builder.select(wins, found.values, best), builder.select(wins, here, place)]


class Mean(Reduction):
    """The sum; the kernels divide it."""

    name = MEAN
    words = MEAN_WORDS

    @staticmethod
    def start(context: Context, first_place: Var) -> list[Var]:
        return [context.builder.zero(context.tile.vector)]

    @staticmethod
    def add(context: Context, state: list[Var], found: Columns, row_start: Var) -> list[Var]:
        return [context.builder.add(state[0], found.values)]


# -- lanes are output columns ----------------------------------------------------------------------


def _pool_rows(
    tile: TileShape, kind: str, reader: Reader, reduction: type[Reduction]
) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, reduction.words, _POINTERS)
    context = Context(builder, tile, words)
    plane_size = builder.mul(words["in_rows"], words["in_columns"])

    def pool_row(task: Var, _: list[Var]) -> None:
        row, plane = split_number(builder, task, words["out_rows"])
        source = advance(builder, tile, words["input"], plane, plane_size)
        first_row, row_count = (
            context.row_entry("row_first", row),
            context.row_entry("row_count", row),
        )

        def pool_columns(column: Var) -> None:
            place = builder.mul(first_row, words["in_columns"])
            place = builder.add(context.spread(place), context.table("column_first", column))

            def add_row(number: Var, state: list[Var]) -> list[Var]:
                in_row = builder.add(first_row, builder.mul(number, words["row_step"]))
                row_start = builder.mul(in_row, words["in_columns"])
                start = builder.gep(tile.element, source, row_start)

                def add_tap(tap: Var, state: list[Var]) -> list[Var]:
                    found = reader(context, start, column, tap)
                    return reduction.add(context, state, found, row_start)

                return builder.loop(0, words["taps"], 1, state, add_tap)[1]

            state = reduction.start(context, place)
            state = builder.loop(0, row_count, 1, state, add_row)[1]
            _store_columns(context, reduction, state, task, row, column)

        for_columns(builder, tile, words["out_columns"], pool_columns)

    builder.loop(BEGIN, END, 1, [], pool_row)
    return builder.function(f"{reduction.name}_{kind}", KERNEL_PARAMETERS), builder


def _store_columns(
    context: Context,
    reduction: type[Reduction],
    state: list[Var],
    task: Var,
    row: Var,
    column: Var,
) -> None:
    """Stores the results of a vector of output columns; ``task`` counts the rows of all planes."""
    builder, tile, words = context.builder, context.tile, context.words
    mask = builder.mask(builder.sub(words["out_columns"], column), tile.lanes)
    at = builder.add(builder.mul(task, words["out_columns"]), column)
    result = state[0]
    if reduction is Mean:
        divisor = _divisor(context, row, column, mask)
        result = builder.div(result, divisor)
    else:
        places = builder.convert("sext", state[1], I64)
        builder.masked_store(places, builder.gep(I64, words["indices"], at), mask, 8)
    address = builder.gep(tile.element, words["output"], at)
    builder.masked_store(result, address, mask, tile.size)


def _divisor(context: Context, row: Var, column: Var, mask: Var) -> Var:
    builder, tile, words = context.builder, context.tile, context.words
    address = builder.gep(tile.element, words["row_divisor"], row)
    by_row = builder.splat(builder.load(tile.element, address, tile.size), tile.lanes)
    return builder.mul(by_row, context.masked(words["column_divisor"], column, mask))


def _divide(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, DIVIDE_WORDS, _POINTERS)
    context = Context(builder, tile, words)

    def divide_row(task: Var, _: list[Var]) -> None:
        row, _plane = split_number(builder, task, words["rows"])
        source = advance(builder, tile, words["input"], task, words["columns"])
        target = advance(builder, tile, words["output"], task, words["columns"])

        def divide_columns(column: Var) -> None:
            mask = builder.mask(builder.sub(words["columns"], column), tile.lanes)
            value = context.masked(source, column, mask)
            value = builder.div(value, _divisor(context, row, column, mask))
            builder.masked_store(value, builder.gep(tile.element, target, column), mask, tile.size)

        for_columns(builder, tile, words["columns"], divide_columns)

    builder.loop(BEGIN, END, 1, [], divide_row)
    return builder.function(DIVIDE, KERNEL_PARAMETERS), builder


# -- lanes are the columns of a window -------------------------------------------------------------


def _pool_windows(tile: TileShape, reduction: type[Reduction]) -> tuple[str, Builder]:
    """Windows with a column step of 1."""
    builder = Builder()
    best = builder.emit(PTR, f"alloca {tile.vector}, align 64")
    places = builder.emit(PTR, f"alloca {vector('i32', tile.lanes)}, align 64")
    words = read_words(builder, reduction.words, _POINTERS)
    context = Context(builder, tile, words)
    plane_size = builder.mul(words["in_rows"], words["in_columns"])

    def pool_window(task: Var, _: list[Var]) -> None:
        column, rest = split_number(builder, task, words["out_columns"])
        row, plane = split_number(builder, rest, words["out_rows"])
        source = advance(builder, tile, words["input"], plane, plane_size)
        first_row, row_count = (
            context.row_entry("row_first", row),
            context.row_entry("row_count", row),
        )
        first_column = _column_entry(context, "column_first", column)
        columns = _column_entry(context, "column_count", column)
        first_place = builder.add(builder.mul(first_row, words["in_columns"]), first_column)

        def add_row(number: Var, state: list[Var]) -> list[Var]:
            in_row = builder.add(first_row, builder.mul(number, words["row_step"]))
            row_start = builder.mul(in_row, words["in_columns"])
            row_start = builder.add(row_start, first_column)
            start = builder.gep(tile.element, source, row_start)

            def add_vector(offset: Var, state: list[Var]) -> list[Var]:
                exist = builder.mask(builder.sub(columns, offset), tile.lanes)
                values = context.masked(start, offset, exist)
                found = Columns(values, context.lane_columns(offset), exist)
                return reduction.add(context, state, found, row_start)

            stop = builder.add(columns, tile.lanes - 1)
            return builder.loop(0, stop, tile.lanes, state, add_vector)[1]

        state = reduction.start(context, context.spread(first_place))
        state = builder.loop(0, row_count, 1, state, add_row)[1]
        if reduction is Mean:
            result = _mean_of_lanes(context, state[0], row, column)
        else:
            builder.store(state[0], best, 64)
            builder.store(state[1], places, 64)
            result, place = _best_lane(context, best, places)
            place = builder.convert("sext", place, I64)
            builder.store(place, builder.gep(I64, words["indices"], task), 8)
        builder.store(result, builder.gep(tile.element, words["output"], task), tile.size)

    builder.loop(BEGIN, END, 1, [], pool_window)
    return builder.function(f"{reduction.name}_{WINDOW}", KERNEL_PARAMETERS), builder


def _column_entry(context: Context, name: str, column: Var) -> Var:
    builder = context.builder
    value = builder.load("i32", builder.gep("i32", context.words[name], column), 4)
    return builder.convert("sext", value, I64)


def _mean_of_lanes(context: Context, sums: Var, row: Var, column: Var) -> Var:
    builder, tile, words = context.builder, context.tile, context.words
    divisors = []
    for name, index in (("row_divisor", row), ("column_divisor", column)):
        address = builder.gep(tile.element, words[name], index)
        divisors.append(builder.load(tile.element, address, tile.size))
    return builder.div(sum_of_lanes(builder, sums), builder.mul(divisors[0], divisors[1]))


def _best_lane(context: Context, best: Var, places: Var) -> tuple[Var, Var]:
    """The maximum of the lanes as if they had been visited in the order of their places: the first
    of equal values, the last NaN.
    """
    builder, tile = context.builder, context.tile

    def lane(number: Var) -> list[Var]:
        value = builder.load(tile.element, builder.gep(tile.element, best, number), tile.size)
        return [value, builder.load("i32", builder.gep("i32", places, number), 4)]

    def compare_lane(number: Var, state: list[Var]) -> list[Var]:
        (value, place), (top, top_place) = lane(number), state
        earlier = builder.compare("slt", place, top_place)
        later = builder.compare("sgt", place, top_place)
        is_nan, top_is_nan = builder.compare("uno", value, value), builder.compare("uno", top, top)
        equal = builder.and_(builder.compare("oeq", value, top), earlier)
        larger = builder.or_(builder.compare("ogt", value, top), equal)
        wins = builder.select(top_is_nan, builder.and_(is_nan, later), builder.or_(is_nan, larger))
        return [builder.select(wins, value, top), builder.select(wins, place, top_place)]

    _, (value, place) = builder.loop(1, tile.lanes, 1, lane(builder.constant(0)), compare_lane)
    return value, place


# -- the gradient of maxima ------------------------------------------------------------------------


def _scatter(tile: TileShape) -> tuple[str, Builder]:
    builder = Builder()
    words = read_words(builder, SCATTER_WORDS, _POINTERS)

    def scatter_plane(plane: Var, _: list[Var]) -> None:
        target = advance(builder, tile, words["grad_input"], plane, words["in_plane"])
        first = builder.mul(plane, words["out_plane"])
        grads = builder.gep(tile.element, words["grad_output"], first)
        indices = builder.gep(I64, words["indices"], first)
        zero = builder.zero(tile.vector)

        def clear(place: Var) -> None:
            mask = builder.mask(builder.sub(words["in_plane"], place), tile.lanes)
            builder.masked_store(zero, builder.gep(tile.element, target, place), mask, tile.size)

        for_columns(builder, tile, words["in_plane"], clear)

        def add_one(number: Var, _: list[Var]) -> None:
            index = builder.load(I64, builder.gep(I64, indices, number), 8)
            address = builder.gep(tile.element, target, index)
            grad = builder.load(tile.element, builder.gep(tile.element, grads, number), tile.size)
            total = builder.add(builder.load(tile.element, address, tile.size), grad)
            builder.store(total, address, tile.size)

        builder.loop(0, words["out_plane"], 1, [], add_one)

    builder.loop(BEGIN, END, 1, [], scatter_plane)
    return builder.function(SCATTER, KERNEL_PARAMETERS), builder
