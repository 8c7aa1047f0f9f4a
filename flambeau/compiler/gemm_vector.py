"""Products with one row, or a few: limited by the memory that B takes, not by arithmetic.

``gemm_rows`` serves a B whose rows are contiguous: it keeps a strip of y in registers and walks
down the rows.  ``gemm_dots`` serves a B whose columns are contiguous: four inner products at once.
The planner turns products with one column, and inner products, into these.
"""

from __future__ import annotations

from flambeau.compiler.builder import (
    BEGIN,
    END,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    lanes,
    vector,
)
from flambeau.compiler.epilogue import run_epilogue
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import divide, dot, load_widened, read_words
from flambeau.compiler.gemm_tile import (
    FINISH,
    FINISH_WORDS,
    POINTER_WORDS,
    move_bias,
)

ROWS, WIDE_ROWS, DOTS, DOT_TILES = "gemm_rows", "gemm_wide_rows", "gemm_dots", "gemm_dot_tiles"

VECTOR_WORDS = (
    "a", "a_batch", "a_row", "a_k", "b", "b_batch", "b_stride",
    "c", "c_batch", "c_row", "c_col", "m", "n", "k",
    "tasks_per_batch", *FINISH_WORDS,
)  # fmt: skip

# Strips of ``gemm_rows`` in vectors, widest first; a task does at most one of the widest.
STRIPS = (8, 4, 2, 1)

# A task of ``gemm_wide_rows`` in vectors, and the rows of B that it reads together.
WIDE_STRIP = 32
WIDE_ROWS_TOGETHER = 4

# Columns of a task of ``gemm_dots``: whole vectors, which is how they are finished.
DOT_COLUMNS = 16

# Inner products of one row that are formed together, and the sums in registers that hide the
# latency of fma: with fewer, k is cut into two chains.
DOTS_TOGETHER = 4
SUMS_AT_ONCE = 8


def dot_rows(tile: TileShape) -> int:
    """Rows of a task of ``gemm_dot_tiles``."""
    return 4 if tile.registers == 32 else 2


def strip_columns(tile: TileShape) -> int:
    """Columns of a task of ``gemm_rows``."""
    return STRIPS[0] * tile.lanes


def wide_strip_columns(tile: TileShape) -> int:
    """Columns of a task of ``gemm_wide_rows``."""
    return WIDE_STRIP * tile.lanes


class VectorKernel:
    """What both kernels have in common: the task's batch entry, and finishing a piece of y."""

    name: str
    buffer_elements: int

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()

    def function(self) -> str:
        builder, tile = self.builder, self.tile
        buffer_type = f"[{self.buffer_elements} x {tile.element}]"
        self.buffer = builder.emit(PTR, f"alloca {buffer_type}, align 64")
        self.words = read_words(builder, VECTOR_WORDS, POINTER_WORDS)
        builder.loop(BEGIN, END, 1, [], self.enter)
        return builder.function(self.name, KERNEL_PARAMETERS)

    def enter(self, number: Var, _: list[Var]) -> None:
        builder, words = self.builder, self.words
        batch, index = divide(builder, number, words["tasks_per_batch"])
        self.first_row = builder.mul(batch, words["m"])
        self.start = {
            name: builder.gep(
                self.tile.stored, words[name], builder.mul(batch, words[f"{name}_batch"])
            )
            for name in ("a", "b", "c")
        }
        self.task(index)

    def task(self, index: Var) -> None:
        raise AssertionError("each kernel defines its task")

    def finish(self, column: Var, columns: Var, row: Var, rows: Var, buffer_row: int) -> None:
        """The buffer holds ``rows`` x ``columns`` of C, from ``row`` and ``column`` on."""
        builder, tile, words = self.builder, self.tile, self.words
        offset = dot(builder, (row, words["c_row"]), (column, words["c_col"]))
        place = {
            "source": self.buffer,
            "source_row": builder.constant(buffer_row),
            "c": builder.gep(tile.stored, self.start["c"], offset),
            "rows": rows,
            "columns": columns,
            "bias": move_bias(builder, tile, words, column),
        }
        FINISH.call(builder, words | place)
        first = builder.add(self.first_row, row)
        run_epilogue(
            builder,
            words,
            (first, builder.add(first, rows)),
            (column, builder.add(column, columns)),
        )


class RowsKernel(VectorKernel):
    """``gemm_rows``: ``b_stride`` is the stride between the rows of B."""

    name = ROWS

    def __init__(self, tile: TileShape) -> None:
        super().__init__(tile)
        self.buffer_elements = strip_columns(tile)

    def task(self, index: Var) -> None:
        builder, tile = self.builder, self.tile
        first = builder.mul(index, strip_columns(tile))
        columns = builder.min(builder.sub(self.words["n"], first), strip_columns(tile))
        b = builder.gep(tile.stored, self.start["b"], first)
        done = builder.constant(0)
        for strip in STRIPS:
            done = self.strips(b, done, columns, strip)
        self.rest(b, done, columns)
        self.finish(first, columns, builder.constant(0), builder.constant(1), 0)

    def strips(self, b: Var, done: Var, columns: Var, vectors: int) -> Var:
        width = vectors * self.tile.lanes

        def strip(at: Var, _: list[Var]) -> None:
            self.sum_rows(b, at, vectors, None)

        following, _ = self.builder.loop(done, columns, width, [], strip)
        return following

    def rest(self, b: Var, done: Var, columns: Var) -> None:
        builder, tile = self.builder, self.tile
        if tile.masked:
            mask = builder.mask(builder.sub(columns, done), tile.lanes)
            some = builder.compare("slt", done, columns)
            builder.if_(some, lambda: self.sum_rows(b, done, 1, mask))
        else:

            def single(at: Var, _: list[Var]) -> None:
                self.sum_rows(b, at, 0, None)

            builder.loop(done, columns, 1, [], single)

    def sum_rows(self, b: Var, at: Var, vectors: int, mask: Var | None) -> None:
        """Columns ``at ..`` of y into the buffer; no ``vectors`` means a single element."""
        builder, tile, words = self.builder, self.tile, self.words
        width = tile.lanes if vectors else 1
        type_ = vector(tile.element, width)

        def row(_: Var, state: list[Var]) -> list[Var]:
            x, b, *sums = state
            spread = builder.splat(load_widened(builder, tile, x, 1), width)
            for i in range(len(sums)):
                address = builder.gep(tile.stored, b, i * width)
                loaded = load_widened(builder, tile, address, width, mask)
                sums[i] = multiply_add(builder, tile, spread, loaded, sums[i])
            x = builder.gep(tile.stored, x, words["a_k"])
            return [x, builder.gep(tile.stored, b, words["b_stride"]), *sums]

        zeros = [builder.zero(type_)] * max(vectors, 1)
        initial = [self.start["a"], builder.gep(tile.stored, b, at), *zeros]
        _, (_, _, *sums) = builder.loop(0, words["k"], 1, initial, row)
        for i, value in enumerate(sums):
            target = builder.gep(tile.element, self.buffer, builder.add(at, i * width))
            builder.store(value, target, tile.size)


class WideRowsKernel(RowsKernel):
    """``gemm_wide_rows``: as ``gemm_rows``, but with y in the nearest cache.

    It reads long pieces of a few rows of B at a time, which the processor foresees; every element
    of y is summed in the same order.
    """

    name = WIDE_ROWS

    def __init__(self, tile: TileShape) -> None:
        super().__init__(tile)
        self.buffer_elements = wide_strip_columns(tile)

    def task(self, index: Var) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        first = builder.mul(index, wide_strip_columns(tile))
        columns = builder.min(builder.sub(words["n"], first), wide_strip_columns(tile))
        b = builder.gep(tile.stored, self.start["b"], first)

        def clear(at: Var, _: list[Var]) -> None:
            target = builder.gep(tile.element, self.buffer, at)
            builder.store(builder.zero(tile.vector), target, tile.size)

        done, _ = builder.loop(0, columns, tile.lanes, [], clear)
        state = [self.start["a"], b]
        rest_k: Var | int = 0
        for rows in (WIDE_ROWS_TOGETHER, 1):

            def some_rows(_: Var, state: list[Var], rows: int = rows) -> list[Var]:
                return self.add_rows(state, done, rows)

            rest_k, state = builder.loop(rest_k, words["k"], rows, state, some_rows)
        self.rest(b, done, columns)
        self.finish(first, columns, builder.constant(0), builder.constant(1), 0)

    def add_rows(self, state: list[Var], columns: Var, rows: int) -> list[Var]:
        """Adds some rows of B, times elements of x, to y; ``state`` are the addresses of both."""
        builder, tile, words = self.builder, self.tile, self.words
        x, b = state
        factors, starts = [], []
        for _ in range(rows):
            factors.append(builder.splat(load_widened(builder, tile, x, 1), tile.lanes))
            starts.append(b)
            x = builder.gep(tile.stored, x, words["a_k"])
            b = builder.gep(tile.stored, b, words["b_stride"])

        def vectors(at: Var, _: list[Var]) -> None:
            target = builder.gep(tile.element, self.buffer, at)
            total = builder.load(tile.vector, target, tile.size)
            for factor, start in zip(factors, starts, strict=True):
                address = builder.gep(tile.stored, start, at)
                value = load_widened(builder, tile, address, tile.lanes)
                total = multiply_add(builder, tile, factor, value, total)
            builder.store(total, target, tile.size)

        builder.loop(0, columns, tile.lanes, [], vectors)
        return [x, b]


class DotsKernel(VectorKernel):
    """``gemm_dots``: ``b_stride`` is the stride between the columns of B; ``a_k`` is 1.

    With more than one row it is ``gemm_dot_tiles``, for products of a few rows: then packing B
    would take longer than multiplying.
    """

    def __init__(self, tile: TileShape, rows: int) -> None:
        super().__init__(tile)
        self.name = DOTS if rows == 1 else DOT_TILES
        self.rows = rows
        self.buffer_elements = rows * DOT_COLUMNS

    def task(self, index: Var) -> None:
        """All rows, so that the columns come from memory once."""
        builder, words = self.builder, self.words
        first = builder.mul(index, DOT_COLUMNS)
        columns = builder.min(builder.sub(words["n"], first), DOT_COLUMNS)

        def rows(row: Var, _: list[Var]) -> None:
            end = builder.add(columns, DOTS_TOGETHER - 1)
            builder.loop(0, end, DOTS_TOGETHER, [], lambda at, _: self.some_dots(row, first, at))
            rows = builder.min(builder.sub(words["m"], row), self.rows)
            self.finish(first, columns, row, rows, DOT_COLUMNS)

        builder.loop(0, builder.add(words["m"], self.rows - 1), self.rows, [], rows)

    def some_dots(self, row: Var, first: Var, at: Var) -> None:
        """Past the last row or column, the last one is computed again: all in the same order."""
        builder, words, tile = self.builder, self.words, self.tile
        column = builder.add(first, at)
        rows = self.vectors_from("a", row, self.rows, words["m"], words["a_row"])
        columns = self.vectors_from("b", column, DOTS_TOGETHER, words["n"], words["b_stride"])
        target = builder.gep(tile.element, self.buffer, at)
        element = 0
        for values in self.inner_products(rows, columns):
            for piece in pieces(builder, values, DOTS_TOGETHER):
                place = element // DOTS_TOGETHER * DOT_COLUMNS + element % DOTS_TOGETHER
                builder.store(piece, builder.gep(tile.element, target, place), tile.size)
                element += lanes(piece.type)

    def vectors_from(self, name: str, first: Var, count: int, limit: Var, stride: Var) -> list[Var]:
        builder = self.builder
        last = builder.sub(limit, 1)
        starts = []
        for i in range(count):
            number = builder.min(builder.add(first, i), last)
            offset = builder.mul(number, stride)
            starts.append(builder.gep(self.tile.stored, self.start[name], offset))
        return starts

    def inner_products(self, rows: list[Var], columns: list[Var]) -> list[Var]:
        """All pairs' products, row by row, as vectors that follow each other."""
        builder, tile = self.builder, self.tile
        k = self.words["k"]
        pairs = len(rows) * len(columns)

        def add_products(at: Var, sums: list[Var], width: int, mask: Var | None) -> list[Var]:
            def load(start: Var) -> Var:
                address = builder.gep(tile.stored, start, at)
                return load_widened(builder, tile, address, width, mask)

            b = [load(column) for column in columns]
            updated = []
            for i, row in enumerate(rows):
                a = load(row)
                for j, value in enumerate(b):
                    total = sums[i * len(columns) + j]
                    updated.append(multiply_add(builder, tile, a, value, total))
            return updated

        def chains(at: Var, sums: list[Var]) -> list[Var]:
            first = add_products(at, sums[:pairs], tile.lanes, None)
            place = builder.add(at, tile.lanes)
            return first + add_products(place, sums[pairs:], tile.lanes, None)

        def chain(at: Var, sums: list[Var]) -> list[Var]:
            return add_products(at, sums, tile.lanes, None)

        zero = builder.zero(tile.vector)
        at: Var | int = 0
        sums = [zero] * pairs
        if 2 * pairs <= SUMS_AT_ONCE:
            at, both = builder.loop(0, k, 2 * tile.lanes, [zero] * (2 * pairs), chains)
            sums = [builder.add(both[i], both[pairs + i]) for i in range(pairs)]
        at, sums = builder.loop(at, k, tile.lanes, sums, chain)
        if tile.masked:
            mask = builder.mask(builder.sub(k, at), tile.lanes)
            return sum_lanes(builder, add_products(at, sums, tile.lanes, mask))
        scalars = [
            builder.extract(part, i)
            for part in sum_lanes(builder, sums)
            for i in range(lanes(part.type))
        ]
        _, scalars = builder.loop(
            at, k, 1, scalars, lambda at, sums: add_products(at, sums, 1, None)
        )
        return scalars


def sum_lanes(builder: Builder, values: list[Var]) -> list[Var]:
    """The sum of the lanes of each value, in order, packed into vectors.

    Vectors longer than there are values are folded first; then pairs of vectors are merged, each
    into the halves of one, until every lane holds the sum of one value.
    """
    while lanes(values[0].type) > len(values):
        values = [fold(builder, value) for value in values]
    width = lanes(values[0].type)
    sums = []
    for start in range(0, len(values), width):
        group = values[start : start + width]
        block = width // 2
        while block:
            group = [
                merge(builder, group[i], group[i + len(group) // 2], block)
                for i in range(len(group) // 2)
            ]
            block //= 2
        sums += group
    return sums


def pieces(builder: Builder, value: Var, most: int) -> list[Var]:
    """The lanes of a value in vectors of at most ``most``."""
    count = lanes(value.type)
    if count <= most:
        return [value]
    starts = range(0, count, most)
    return [builder.shuffle(value, value, range(start, start + most)) for start in starts]


def fold(builder: Builder, value: Var) -> Var:
    """The upper half added to the lower half."""
    half = lanes(value.type) // 2
    if half == 1:
        return builder.add(builder.extract(value, 0), builder.extract(value, 1))
    lower, upper = range(half), range(half, 2 * half)
    return builder.add(builder.shuffle(value, value, lower), builder.shuffle(value, value, upper))


def merge(builder: Builder, a: Var, b: Var, block: int) -> Var:
    """Sums of lanes ``block`` apart: those of ``a`` where bit ``block`` is clear, else of ``b``."""
    width = lanes(a.type)
    near = [i if not i & block else width + i - block for i in range(width)]
    far = [i + block if not i & block else width + i for i in range(width)]
    return builder.add(builder.shuffle(a, b, near), builder.shuffle(a, b, far))


def vector_functions(tile: TileShape) -> list[tuple[str, Builder]]:
    kernels = [
        RowsKernel(tile),
        WideRowsKernel(tile),
        DotsKernel(tile, 1),
        DotsKernel(tile, dot_rows(tile)),
    ]
    return [(kernel.function(), kernel.builder) for kernel in kernels]
