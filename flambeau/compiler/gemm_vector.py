"""Products with one row: ``y = x @ B``, limited by the memory that B takes, not by arithmetic.

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
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import load_widened, read_words
from flambeau.compiler.gemm_tile import (
    FINISH,
    FINISH_WORDS,
    POINTER_WORDS,
    move_bias,
)

ROWS, DOTS = "gemm_rows", "gemm_dots"

VECTOR_WORDS = (
    "a", "a_batch", "a_k", "b", "b_batch", "b_stride", "c", "c_batch", "c_col", "n", "k",
    "tasks_per_batch", *FINISH_WORDS,
)  # fmt: skip

# Strips of ``gemm_rows`` in vectors, widest first; a task does at most one of the widest.
STRIPS = (8, 4, 2, 1)

# Inner products that ``gemm_dots`` forms together, and the vectors of k that each has in flight.
DOTS_TOGETHER = 4
DOT_CHAINS = 2


def strip_columns(tile: TileShape) -> int:
    """Columns of a task of ``gemm_rows``."""
    return STRIPS[0] * tile.lanes


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
        batch = builder.div(number, words["tasks_per_batch"])
        index = builder.sub(number, builder.mul(batch, words["tasks_per_batch"]))
        self.start = {
            name: builder.gep(
                self.tile.stored, words[name], builder.mul(batch, words[f"{name}_batch"])
            )
            for name in ("a", "b", "c")
        }
        self.task(index)

    def task(self, index: Var) -> None:
        raise AssertionError("each kernel defines its task")

    def finish(self, column: Var, columns: Var) -> None:
        """The buffer's first ``columns`` elements are y from ``column`` on."""
        builder, tile, words = self.builder, self.tile, self.words
        offset = builder.mul(column, words["c_col"])
        FINISH.call(
            builder,
            words
            | {
                "source": self.buffer,
                "source_row": builder.constant(0),
                "c": builder.gep(tile.stored, self.start["c"], offset),
                "c_row": builder.constant(0),
                "rows": builder.constant(1),
                "columns": columns,
                "bias": move_bias(builder, tile, words, column),
            },
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
        done: Var | int = 0
        for strip in STRIPS:
            done = self.strips(b, done, columns, strip)
        self.rest(b, done, columns)
        self.finish(first, columns)

    def strips(self, b: Var, done: Var | int, columns: Var, vectors: int) -> Var:
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


class DotsKernel(VectorKernel):
    """``gemm_dots``: ``b_stride`` is the stride between the columns of B; ``a_k`` is 1."""

    name = DOTS
    buffer_elements = DOTS_TOGETHER

    def __init__(self, tile: TileShape) -> None:
        super().__init__(tile)
        self.buffer_elements = max(DOTS_TOGETHER, tile.lanes)

    def task(self, index: Var) -> None:
        """Past the last column, the last one is computed again: every column in the same order."""
        builder, tile, words = self.builder, self.tile, self.words
        first = builder.mul(index, DOTS_TOGETHER)
        last = builder.sub(words["n"], 1)
        columns = []
        for i in range(DOTS_TOGETHER):
            column = builder.min(builder.add(first, i), last)
            offset = builder.mul(column, words["b_stride"])
            columns.append(builder.gep(tile.stored, self.start["b"], offset))
        for i, value in enumerate(self.inner_products(columns)):
            builder.store(value, builder.gep(tile.element, self.buffer, i), tile.size)
        rest = builder.sub(words["n"], first)
        self.finish(first, builder.min(rest, DOTS_TOGETHER))

    def inner_products(self, columns: list[Var]) -> list[Var]:
        builder, tile, words = self.builder, self.tile, self.words
        k = words["k"]
        zero = builder.zero(tile.vector)

        def add_products(at: Var, sums: list[Var], width: int, mask: Var | None) -> list[Var]:
            def load(start: Var) -> Var:
                address = builder.gep(tile.stored, start, at)
                return load_widened(builder, tile, address, width, mask)

            x = load(self.start["a"])
            return [
                multiply_add(builder, tile, x, load(column), total)
                for column, total in zip(columns, sums, strict=True)
            ]

        def chains(at: Var, sums: list[Var]) -> list[Var]:
            updated = []
            for chain in range(DOT_CHAINS):
                part = sums[chain * len(columns) : (chain + 1) * len(columns)]
                place = builder.add(at, chain * tile.lanes)
                updated += add_products(place, part, tile.lanes, None)
            return updated

        zeros = [zero] * (DOT_CHAINS * len(columns))
        at, sums = builder.loop(0, k, DOT_CHAINS * tile.lanes, zeros, chains)
        together = [builder.add(sums[i], sums[i + len(columns)]) for i in range(len(columns))]
        at, together = builder.loop(
            at, k, tile.lanes, together, lambda at, sums: add_products(at, sums, tile.lanes, None)
        )
        if tile.masked:
            mask = builder.mask(builder.sub(k, at), tile.lanes)
            together = add_products(at, together, tile.lanes, mask)
            return [sum_lanes(builder, total) for total in together]
        scalars = [sum_lanes(builder, total) for total in together]
        _, scalars = builder.loop(
            at, k, 1, scalars, lambda at, sums: add_products(at, sums, 1, None)
        )
        return scalars


def sum_lanes(builder: Builder, value: Var) -> Var:
    """The sum of all lanes, by adding the upper half to the lower half until one is left."""
    while lanes(value.type) > 2:
        half = lanes(value.type) // 2
        upper = builder.shuffle(value, value, range(half, 2 * half))
        value = builder.add(builder.shuffle(value, value, range(half)), upper)
    return builder.add(builder.extract(value, 0), builder.extract(value, 1))


def vector_functions(tile: TileShape) -> list[tuple[str, Builder]]:
    kernels = [RowsKernel(tile), DotsKernel(tile)]
    return [(kernel.function(), kernel.builder) for kernel in kernels]
