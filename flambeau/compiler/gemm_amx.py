"""Products of bfloat16 on AMX: tiles of 16 x 16 sums that live in registers of their own.

One instruction adds ``A[16, 32] @ B[32, 16]`` to a tile of float sums.  A tile of A is sixteen rows
of 32 k in memory order, so A itself serves where its k is dense; a tile of B is sixteen *pairs* of
k, each of sixteen columns, and is always packed.  Four tiles of sums at a time make up a *block* of
32 x 32.  k is cut into parts whose panel of B fits the nearest cache; between them the sums stay
float, and are rounded once.

Linux lets a process use the tiles after it has asked (`target.py`): without the permission the
target lacks the feature, and products go through float instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from flambeau.compiler.builder import (
    BEGIN,
    END,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    vector,
)
from flambeau.compiler.epilogue import run_epilogue
from flambeau.compiler.gemm_micro import TileShape
from flambeau.compiler.gemm_pack import (
    choose,
    divide,
    dot,
    read_words,
    store_narrowed,
    transpose,
)
from flambeau.compiler.gemm_tile import FINISH, FINISH_WORDS, POINTER_WORDS, move_bias
from flambeau.compiler.target import Target

AMX, AMX_PACK_A, AMX_PACK_B = "gemm_amx", "gemm_amx_pack_a", "gemm_amx_pack_b"

AMX_FUNCTIONS = (AMX, AMX_PACK_A, AMX_PACK_B)

# A tile: rows of A or columns of B, the k in it, and its elements in memory.
EDGE = 16
DEPTH = 32
TILE_ELEMENTS = EDGE * DEPTH
BLOCK_EDGE = 2 * EDGE

# A tile of A lies at ``a + batch * a_batch + (row / 16) * a_panel + (k / 32) * a_step``, its rows
# ``a_stride`` bytes apart; one of B likewise, packed, by its column.  ``a_raw``: in A itself, so
# rows past ``m`` must not be read.  A task is ``rows_per_task`` x ``columns_per_task`` blocks.
AMX_WORDS = (
    "a", "a_batch", "a_block", "a_panel", "a_step", "a_stride", "a_raw",
    "b", "b_batch", "b_block",
    "c", "c_batch", "c_row", "c_col", "m", "n", "steps", "steps_at_once", "parts",
    "row_blocks", "column_blocks", "rows_per_task", "columns_per_task",
    "row_tasks", "column_tasks", *FINISH_WORDS,
)  # fmt: skip

# "x" is a row of A or a column of B, as in gemm_pack.py.  A panel is ``steps`` tiles.  A task is a
# panel of a batch entry or, if ``by_steps``, one step of all its panels.
AMX_PACK_WORDS = (
    "source", "source_batch", "stride_k", "stride_x", "extent", "k", "steps", "panels", "target",
    "by_steps",
)  # fmt: skip

PAIR_VECTOR = vector("i32", EDGE)
HALF_VECTOR = vector("i16", EDGE)
ROW_VECTOR = vector("i16", DEPTH)


def has_tiles(stored: str, target: Target) -> bool:
    """Whether products of this element type run on AMX."""
    return stored == "bfloat" and {"amx-tile", "amx-bf16", "avx512bw"} <= target.features


def tile_instruction(builder: Builder, name: str, *arguments: tuple[str, object]) -> None:
    """An AMX instruction; tile registers are numbers of type i8."""
    types = ", ".join(type_ for type_, _ in arguments)
    values = ", ".join(f"{type_} {value}" for type_, value in arguments)
    builder.declarations.add(f"declare void @llvm.x86.{name}({types})")
    builder.do(f"call void @llvm.x86.{name}({values})")


def tile_configuration(builder: Builder) -> Var:
    """Eight tiles of sixteen rows of 64 bytes, in the form that the processor reads."""
    block = builder.emit(PTR, "alloca [64 x i8], align 64")
    builder.store(builder.zero("<64 x i8>"), block, 64)
    builder.store(Var("i8", "1"), block, 1)
    for number in range(8):
        builder.store(Var("i16", "64"), builder.gep("i8", block, 16 + 2 * number), 1)
        builder.store(Var("i8", str(EDGE)), builder.gep("i8", block, 48 + number), 1)
    return block


# -- packing -------------------------------------------------------------------------------------


class TilePacker:
    """Writes a kernel that packs panels of tiles; words as in `AMX_PACK_WORDS`."""

    def __init__(self, name: str, pairs: bool) -> None:
        """``pairs``: a tile is one row per pair of k (B), not one row per x (A)."""
        self.name = name
        self.pairs = pairs
        self.builder = Builder()

    def function(self) -> str:
        builder = self.builder
        self.scratch = builder.emit(PTR, f"alloca [{TILE_ELEMENTS} x i16], align 64")
        self.words = read_words(builder, AMX_PACK_WORDS, ("source", "target"))
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(self.name, KERNEL_PARAMETERS)

    def task(self, number: Var, _: list[Var]) -> None:
        """All tiles of one panel or, of operands that lie row by row, one tile of every panel."""
        builder, words = self.builder, self.words
        by_steps = builder.compare("ne", words["by_steps"], 0)
        per_batch = builder.select(by_steps, words["steps"], words["panels"])
        batch, index = divide(builder, number, per_batch)
        offset = builder.mul(batch, words["source_batch"])
        self.source = builder.gep("i16", words["source"], offset)
        pairs = builder.lshr(words["panels"], 1)
        self.pair_elements = builder.mul(words["steps"], 2 * TILE_ELEMENTS)
        offset = builder.mul(batch, builder.mul(pairs, self.pair_elements))
        self.target = builder.gep("i16", words["target"], offset)

        def each_panel() -> None:
            builder.loop(0, words["panels"], 1, [], lambda panel, _: self.tile(panel, index))

        def each_step() -> None:
            builder.loop(0, words["steps"], 1, [], lambda step, _: self.tile(index, step))

        choose(builder, [by_steps], [each_panel, each_step])

    def tile(self, panel: Var, step: Var) -> None:
        """Two panels lie together: their tiles take turns."""
        builder, words = self.builder, self.words
        x, k = builder.mul(panel, EDGE), builder.mul(step, DEPTH)
        valid_x = builder.min(builder.sub(words["extent"], x), EDGE)
        valid_k = builder.min(builder.sub(words["k"], k), DEPTH)
        place = dot(builder, (x, words["stride_x"]), (k, words["stride_k"]))
        first = builder.gep("i16", self.source, place)
        half = builder.add(builder.shl(step, 1), builder.and_(panel, 1))
        place = dot(
            builder,
            (builder.lshr(panel, 1), self.pair_elements),
            (half, builder.constant(TILE_ELEMENTS)),
        )
        target = builder.gep("i16", self.target, place)

        def way(rows: Callable[[Var, Var, Var], list[Var]]) -> Callable[[], None]:
            def write() -> None:
                for i, row in enumerate(rows(first, valid_k, valid_x)):
                    builder.store(row, builder.gep("i16", target, i * DEPTH), 64)

            return write

        unit_k = builder.compare("eq", words["stride_k"], 1)
        unit_x = builder.compare("eq", words["stride_x"], 1)
        ways = [way(self.rows_of_k), way(self.rows_of_x), way(self.elements)]
        choose(builder, [unit_k, unit_x], ways)

    def rows_of_k(self, first: Var, valid_k: Var, valid_x: Var) -> list[Var]:
        """k is contiguous: a vector per x, of sixteen pairs."""
        builder, stride_x = self.builder, self.words["stride_x"]
        last = builder.sub(valid_x, 1)
        starts = [
            builder.gep("i16", first, builder.mul(builder.min(Var("i64", str(i)), last), stride_x))
            for i in range(EDGE)
        ]
        inside = builder.mask(valid_k, DEPTH)

        def whole() -> list[Var]:
            return [builder.load(ROW_VECTOR, start, 2) for start in starts]

        def part() -> list[Var]:
            return [builder.masked_load(ROW_VECTOR, start, inside, 2) for start in starts]

        rows = builder.if_else(builder.compare("eq", valid_k, DEPTH), whole, part)
        vectors = [builder.emit(PAIR_VECTOR, f"bitcast {row} to {PAIR_VECTOR}") for row in rows]
        return transpose(builder, vectors) if self.pairs else vectors

    def rows_of_x(self, first: Var, valid_k: Var, valid_x: Var) -> list[Var]:
        """x is contiguous: a vector per pair of k, of sixteen x."""
        builder = self.builder
        inside = builder.mask(valid_x, EDGE)
        last = builder.sub(valid_k, 1)
        stride_k = self.words["stride_k"]
        full = builder.and_(
            builder.compare("eq", valid_k, DEPTH), builder.compare("eq", valid_x, EDGE)
        )

        def whole() -> list[Var]:
            starts = [builder.gep("i16", first, builder.mul(stride_k, i)) for i in range(DEPTH)]
            return [builder.load(HALF_VECTOR, start, 2) for start in starts]

        def part() -> list[Var]:
            rows = []
            for i in range(DEPTH):
                number = Var("i64", str(i))
                offset = builder.mul(builder.min(number, last), stride_k)
                row = builder.masked_load(HALF_VECTOR, builder.gep("i16", first, offset), inside, 2)
                exists = builder.compare("slt", number, valid_k)
                rows.append(builder.select(exists, row, builder.zero(HALF_VECTOR)))
            return rows

        rows = builder.if_else(full, whole, part)
        together = [i // 2 + EDGE * (i % 2) for i in range(DEPTH)]
        vectors = []
        for i in range(0, DEPTH, 2):
            row = builder.shuffle(rows[i], rows[i + 1], together)
            vectors.append(builder.emit(PAIR_VECTOR, f"bitcast {row} to {PAIR_VECTOR}"))
        return vectors if self.pairs else transpose(builder, vectors)

    def elements(self, first: Var, valid_k: Var, valid_x: Var) -> list[Var]:
        """Any strides: gathered one by one into rows of k."""
        builder, stride_x = self.builder, self.words["stride_x"]
        for i in range(EDGE):
            zero = builder.zero(PAIR_VECTOR)
            builder.store(zero, builder.gep("i16", self.scratch, i * DEPTH), 64)

        def each_x(x: Var, _: list[Var]) -> None:
            source = builder.gep("i16", first, builder.mul(x, stride_x))
            row = builder.gep("i16", self.scratch, builder.mul(x, DEPTH))

            def each_k(k: Var, _: list[Var]) -> None:
                address = builder.gep("i16", source, builder.mul(k, self.words["stride_k"]))
                value = builder.load("i16", address, 2)
                builder.store(value, builder.gep("i16", row, k), 2)

            builder.loop(0, valid_k, 1, [], each_k)

        builder.loop(0, valid_x, 1, [], each_x)
        rows = [builder.gep("i16", self.scratch, i * DEPTH) for i in range(EDGE)]
        vectors = [builder.load(PAIR_VECTOR, row, 64) for row in rows]
        return transpose(builder, vectors) if self.pairs else vectors


# -- multiplying ---------------------------------------------------------------------------------

# Tile registers: four of sums, row by row, then two of A and two of B.
SUMS = (0, 1, 2, 3)
A_TILES = (4, 5)
B_TILES = (6, 7)

# The most row blocks of a task, whose sums lie on the stack between two parts of k.
MOST_ROW_BLOCKS = 16


class TileKernel:
    """Writes ``gemm_amx``; words as in `AMX_WORDS`, a task is a rectangle of blocks."""

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()

    def function(self) -> str:
        builder = self.builder
        elements = MOST_ROW_BLOCKS * BLOCK_EDGE**2
        self.buffers = builder.emit(PTR, f"alloca [{elements} x float], align 64")
        self.pending = {
            name: builder.emit(PTR, f"alloca {type_}, align 8")
            for name, type_ in (("source", PTR), ("c", PTR), ("rows", "i64"))
        }
        self.set_pending(Var(PTR, "null"), Var(PTR, "null"), builder.constant(0))
        self.whole, self.partial = tile_configuration(builder), tile_configuration(builder)
        self.words = read_words(builder, AMX_WORDS, POINTER_WORDS)
        self.configure(self.whole)
        builder.loop(BEGIN, END, 1, [], self.task)
        self.call("tilerelease")
        return builder.function(AMX, KERNEL_PARAMETERS)

    def call(self, name: str, *arguments: tuple[str, object]) -> None:
        tile_instruction(self.builder, name, *arguments)

    def configure(self, configuration: Var) -> None:
        self.call("ldtilecfg", ("ptr", configuration.name))

    def set_rows(self, tiles: tuple[int, ...], rows: Var) -> None:
        """The rows of some tiles in the partial configuration."""
        builder = self.builder
        byte = builder.convert("trunc", rows, "i8")
        for number in tiles:
            builder.store(byte, builder.gep("i8", self.partial, 48 + number), 1)

    def task(self, number: Var, _: list[Var]) -> None:
        builder, words = self.builder, self.words
        rest, column_task = divide(builder, number, words["column_tasks"])
        batch, row_task = divide(builder, rest, words["row_tasks"])
        rows = self.range(row_task, words["rows_per_task"], words["row_blocks"])
        columns = self.range(column_task, words["columns_per_task"], words["column_blocks"])
        self.start = {
            name: builder.gep(element, words[name], builder.mul(batch, words[f"{name}_batch"]))
            for name, element in (("a", "i16"), ("b", "i16"), ("c", "i16"))
        }

        self.first_row_block = rows[0]

        def column_block(column: Var, _: list[Var]) -> None:
            def part(number: Var, _: list[Var]) -> None:
                self.first_step = builder.mul(number, words["steps_at_once"])
                end = builder.add(self.first_step, words["steps_at_once"])
                self.steps = builder.sub(builder.min(end, words["steps"]), self.first_step)
                self.is_first = builder.compare("eq", number, 0)
                self.is_last = builder.compare("sge", end, words["steps"])
                builder.loop(*rows, 1, [], lambda row, _: self.block(row, column))

            builder.loop(0, words["parts"], 1, [], part)

        builder.loop(*columns, 1, [], column_block)
        self.store_pending()
        first_row = builder.mul(batch, words["m"])
        row_limits = [builder.min(builder.mul(r, BLOCK_EDGE), words["m"]) for r in rows]
        column_limits = [builder.min(builder.mul(c, BLOCK_EDGE), words["n"]) for c in columns]
        run_epilogue(
            builder,
            words,
            (builder.add(first_row, row_limits[0]), builder.add(first_row, row_limits[1])),
            (column_limits[0], column_limits[1]),
        )

    def range(self, index: Var, size: Var, limit: Var) -> tuple[Var, Var]:
        builder = self.builder
        start = builder.mul(index, size)
        return start, builder.min(builder.add(start, size), limit)

    def block(self, row_block: Var, column_block: Var) -> None:
        """One block of C, over a part of k; the panel of B stays in the cache for the next."""
        builder, words = self.builder, self.words
        row, column = builder.mul(row_block, BLOCK_EDGE), builder.mul(column_block, BLOCK_EDGE)
        rows = builder.min(builder.sub(words["m"], row), BLOCK_EDGE)
        short = builder.compare("slt", rows, BLOCK_EDGE)
        special = builder.and_(short, builder.compare("ne", words["a_raw"], 0))
        second = builder.compare("sgt", rows, EDGE)

        def enter() -> None:
            upper = builder.min(rows, EDGE)
            lower = builder.select(second, builder.sub(rows, EDGE), upper)
            self.set_rows((0, 1, A_TILES[0]), upper)
            self.set_rows((2, 3, A_TILES[1]), lower)
            self.configure(self.partial)

        builder.if_(special, enter)
        number = builder.mul(builder.sub(row_block, self.first_row_block), BLOCK_EDGE**2)
        self.buffer = builder.gep("float", self.buffers, number)
        place = (row_block, words["a_block"]), (self.first_step, words["a_step"])
        a = builder.gep("i16", self.start["a"], dot(builder, *place))
        tiles = builder.constant(2 * TILE_ELEMENTS)
        place = (column_block, words["b_block"]), (self.first_step, tiles)
        b = builder.gep("i16", self.start["b"], dot(builder, *place))
        # Past the last row of A itself the first tile serves once more; nobody looks at the sums.
        reachable = builder.or_(second, builder.compare("eq", words["a_raw"], 0))
        self.sum_products(a, builder.select(reachable, words["a_panel"], 0), b)
        self.each_sum("tilestored64")
        builder.if_(special, lambda: self.configure(self.whole))
        builder.if_(self.is_last, lambda: self.finish(row, column, rows))

    def each_sum(self, instruction: str) -> None:
        """Loads or stores the four tiles of sums."""
        for number in SUMS:
            place = number // 2 * EDGE * BLOCK_EDGE + number % 2 * EDGE
            corner = self.builder.gep("float", self.buffer, place)
            self.call(instruction, ("i8", number), ("ptr", corner.name), ("i64", 4 * BLOCK_EDGE))

    def finish(self, row: Var, column: Var, rows: Var) -> None:
        """The sums of one block, rounded, to C."""
        builder, words = self.builder, self.words
        columns = builder.min(builder.sub(words["n"], column), BLOCK_EDGE)
        offset = dot(builder, (row, words["c_row"]), (column, words["c_col"]))
        c = builder.gep("i16", self.start["c"], offset)
        special = [
            builder.sub(columns, BLOCK_EDGE),
            builder.sub(words["c_col"], 1),
            *(words[name] for name in ("accumulate", "bias_kind")),
        ]
        plain = builder.compare("eq", functools.reduce(builder.or_, special), 0)

        def with_care() -> None:
            parameters = {
                "source": self.buffer,
                "source_row": builder.constant(BLOCK_EDGE),
                "c": c,
                "rows": rows,
                "columns": columns,
                "bias": move_bias(builder, self.tile, words, column),
            }
            FINISH.call(builder, words | parameters)

        choose(builder, [plain], [lambda: self.set_pending(self.buffer, c, rows), with_care])

    # Whole rows of sums are rounded to C while the next block is summed: the processor's tiles and
    # its vectors work side by side.  What is pending lies on the stack.

    def get_pending(self) -> tuple[Var, Var, Var]:
        """The address of the next row of sums, its place in C, and how many rows there are."""
        builder, pending = self.builder, self.pending
        return (
            builder.load(PTR, pending["source"], 8),
            builder.load(PTR, pending["c"], 8),
            builder.load("i64", pending["rows"], 8),
        )

    def set_pending(self, source: Var, c: Var, rows: Var) -> None:
        for name, value in (("source", source), ("c", c), ("rows", rows)):
            self.builder.store(value, self.pending[name], 8)

    def store_pending(self) -> None:
        """All rows that are still pending."""
        builder = self.builder
        source, c, rows = self.get_pending()
        builder.loop(0, rows, 1, [source, c], lambda _, state: self.store_row(*state))
        self.set_pending(source, c, builder.constant(0))

    def store_row(self, source: Var, c: Var) -> list[Var]:
        """One row of sums, rounded; the addresses of the next."""
        builder = self.builder
        sums = builder.load(vector("float", BLOCK_EDGE), source, 64)
        store_narrowed(builder, self.tile, sums, c)
        following = builder.gep("float", source, BLOCK_EDGE)
        return [following, builder.gep("i16", c, self.words["c_row"])]

    def sum_products(self, a: Var, a_panel: Var, b: Var) -> None:
        """Adds to the four tiles of sums."""
        builder, words = self.builder, self.words

        def clear() -> None:
            for number in SUMS:
                self.call("tilezero", ("i8", number))

        choose(builder, [self.is_first], [clear, lambda: self.each_sum("tileloadd64")])
        a_stride = words["a_stride"]

        def load(number: int, address: Var, stride: object) -> None:
            self.call("tileloadd64", ("i8", number), ("ptr", address.name), ("i64", stride))

        def multiply(total: int, a_tile: int, b_tile: int) -> None:
            self.call("tdpbf16ps", ("i8", total), ("i8", a_tile), ("i8", b_tile))

        def step(_: Var, state: list[Var]) -> list[Var]:
            a, b = state
            load(B_TILES[0], b, DEPTH * 2)
            load(A_TILES[0], a, a_stride.name)
            multiply(0, A_TILES[0], B_TILES[0])
            load(B_TILES[1], builder.gep("i16", b, TILE_ELEMENTS), DEPTH * 2)
            multiply(1, A_TILES[0], B_TILES[1])
            load(A_TILES[1], builder.gep("i16", a, a_panel), a_stride.name)
            multiply(2, A_TILES[1], B_TILES[0])
            multiply(3, A_TILES[1], B_TILES[1])
            return [
                builder.gep("i16", a, words["a_step"]),
                builder.gep("i16", b, 2 * TILE_ELEMENTS),
            ]

        source, c, rows = self.get_pending()

        def step_and_store(_: Var, state: list[Var]) -> list[Var]:
            following = self.store_row(*self.store_row(*state[2:]))
            return [*step(_, state[:2]), *following]

        busy = builder.min(self.steps, builder.lshr(rows, 1))
        _, state = builder.loop(0, busy, 1, [a, b, source, c], step_and_store)
        builder.loop(busy, self.steps, 1, state[:2], step)
        self.set_pending(state[2], state[3], builder.sub(rows, builder.shl(busy, 1)))
        self.store_pending()


def amx_functions(tile: TileShape) -> list[tuple[str, Builder]]:
    kernel = TileKernel(tile)
    packers = [TilePacker(AMX_PACK_A, pairs=False), TilePacker(AMX_PACK_B, pairs=True)]
    functions = [(packer.function(), packer.builder) for packer in packers]
    return [*functions, (kernel.function(), kernel.builder)]
