"""Packing for the matrix product: strips of A and B laid out in the order of the micro kernels.

A *panel* is a few rows of A, or columns of B, over one block of k, stored as ``[k][width]``.  Both
operands go through the same code: "x" below is the row of A or the column of B.  Whatever the
strides, the micro kernel then reads one dense stream, and half precision arrives as float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from flambeau.compiler import emit
from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    vector,
)
from flambeau.compiler.gemm_micro import Procedure, TileShape
from flambeau.core import dtype as types

HALF_PRECISION = {"half": types.float16, "bfloat": types.bfloat16}

PACK, PACK_ROWS = "gemm_pack", "gemm_pack_rows"

# k is packed in blocks of ``block`` (the last may be shorter), each block panel by panel: a panel
# lies at ``k0 * padded_extent + start * length of the block`` for the block that starts at k0.
# Panel p begins at row ``p * height - max(0, p - tall_panels)``: the first ``tall_panels`` panels
# have ``height`` rows, the others one less.  ``width`` 0 means a panel as wide as its rows (A);
# otherwise panels have that width, the last one with columns that nobody reads (B).
PACK_WORDS = (
    "source", "source_batch", "stride_k", "stride_x", "extent", "k", "block", "blocks",
    "target", "target_batch", "padded_extent", "height", "tall_panels", "panels", "width",
)  # fmt: skip

# Rows of k that a task of ``gemm_pack_rows`` packs.
ROWS_AT_ONCE = 16

PACK_PANEL = Procedure(
    "gemm_pack_panel",
    "ptr %source, i64 %stride_k, i64 %stride_x, i64 %valid, ptr %target, i64 %width, i64 %k",
)


def read_words(builder: Builder, words: Sequence[str], pointers: Collection[str]) -> dict[str, Var]:
    """The argument block's words by name; those in ``pointers`` are addresses."""
    return {
        name: builder.argument(ARGS, index, PTR if name in pointers else I64)
        for index, name in enumerate(words)
    }


# How far ahead of its loads packing asks for memory: each row is another page, which the processor
# does not foresee.
ROWS_AHEAD = 16
BLOCKS_AHEAD = 4


def divide(builder: Builder, number: Var, divisor: Var) -> tuple[Var, Var]:
    """Quotient and remainder of numbers that are not negative."""
    quotient = builder.div(number, divisor)
    return quotient, builder.sub(number, builder.mul(quotient, divisor))


def dot(builder: Builder, *products: tuple[Var, Var]) -> Var:
    """The sum of products: an offset from indices and strides."""
    total = builder.mul(*products[0])
    for pair in products[1:]:
        total = builder.add(total, builder.mul(*pair))
    return total


def panel_start(builder: Builder, panel: Var, height: Var, tall_panels: Var) -> Var:
    """The first row of a panel (see `PACK_WORDS`)."""
    shorter = builder.max(builder.sub(panel, tall_panels), 0)
    return builder.sub(builder.mul(panel, height), shorter)


def panel_extent(builder: Builder, panel: Var, words: Mapping[str, Var]) -> tuple[Var, Var]:
    """A panel's first row and its height, from the words ``height`` and ``tall_panels``."""
    height, tall_panels = words["height"], words["tall_panels"]
    start = panel_start(builder, panel, height, tall_panels)
    following = panel_start(builder, builder.add(panel, 1), height, tall_panels)
    return start, builder.sub(following, start)


def memory_type(tile: TileShape) -> str:
    """The LLVM type that loads and stores move; only some processors know bfloat16."""
    return "i16" if tile.stored == "bfloat" else tile.stored


def load_widened(
    builder: Builder, tile: TileShape, pointer: Var, width: int, mask: Var | None = None
) -> Var:
    """``width`` stored elements, converted to the type that the product computes in."""
    type_ = vector(memory_type(tile), width)
    align = tile.stored_size
    if mask is None:
        value = builder.load(type_, pointer, align)
    else:
        value = builder.masked_load(type_, pointer, mask, align)
    return emit.from_memory(builder, value, HALF_PRECISION[tile.stored]) if tile.converts else value


def store_narrowed(
    builder: Builder, tile: TileShape, value: Var, pointer: Var, mask: Var | None = None
) -> None:
    """Stores computed elements, rounded to the type that memory holds."""
    if tile.narrows:
        value = builder.convert("bitcast", builder.convert("fptrunc", value, tile.stored), "i16")
    elif tile.converts:
        dtype = HALF_PRECISION[tile.stored]
        rounded = emit.convert(builder, value, types.float32, dtype)
        value = emit.to_memory(builder, rounded, dtype)
    if mask is None:
        builder.store(value, pointer, tile.stored_size)
    else:
        builder.masked_store(value, pointer, mask, tile.stored_size)


def transpose(builder: Builder, rows: Sequence[Var]) -> list[Var]:
    """The transpose of a square of vectors, by exchanging blocks of half the size each round."""
    count = len(rows)
    values = list(rows)
    block = count // 2
    while block:
        low = [i if not i & block else count + i - block for i in range(count)]
        high = [i + block if not i & block else count + i for i in range(count)]
        for i in range(count):
            if not i & block:
                a, b = values[i], values[i + block]
                values[i] = builder.shuffle(a, b, low)
                values[i + block] = builder.shuffle(a, b, high)
        block //= 2
    return values


def choose(
    builder: Builder, conditions: Sequence[Var], bodies: Sequence[Callable[[], object]]
) -> None:
    """Runs the body of the first condition that holds, or the last body."""

    def run(index: int) -> list[Var]:
        if index == len(conditions):
            bodies[index]()
        else:
            builder.if_else(conditions[index], lambda: body(index), lambda: run(index + 1))
        return []

    def body(index: int) -> list[Var]:
        bodies[index]()
        return []

    run(0)


class PanelPacker:
    """Writes the function that packs one panel; one object per function."""

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()
        values = PACK_PANEL.values()
        self.source, self.target = values["source"], values["target"]
        self.stride_k, self.stride_x = values["stride_k"], values["stride_x"]
        self.valid, self.width, self.k = values["valid"], values["width"], values["k"]

    def function(self) -> str:
        builder, tile = self.builder, self.tile
        unit_x = builder.compare("eq", self.stride_x, 1)
        whole = builder.compare("eq", self.valid, tile.columns)
        choose(builder, [builder.and_(unit_x, whole)], [self.copy_whole_rows, self.strips])
        return PACK_PANEL.define(builder)

    def copy_whole_rows(self) -> None:
        """A full panel of B whose columns are contiguous, all of a row at a time."""
        builder, tile = self.builder, self.tile
        zero = builder.constant(0)
        self.each_row(zero, list(range(0, tile.columns, tile.lanes)), None, None)

    def strips(self) -> None:
        """One strip of ``lanes`` columns after the other, by the way that its strides allow."""
        builder, lanes = self.builder, self.tile.lanes

        def strip(x: Var, _: list[Var]) -> None:
            unit_x = builder.compare("eq", self.stride_x, 1)
            unit_k = builder.compare("eq", self.stride_k, 1)
            writable = builder.compare("sle", builder.add(x, lanes), self.width)
            readable = builder.compare("sle", builder.add(x, lanes), self.valid)
            if self.tile.masked:
                by_row, by_block = unit_x, unit_k
            else:
                by_row = builder.and_(unit_x, readable)
                by_block = builder.and_(unit_k, writable)
            ways = [
                lambda: self.copy_rows(x, readable),
                lambda: self.copy_blocks(x),
                lambda: self.copy_elements(x, builder.constant(0)),
            ]
            choose(builder, [by_row, by_block], ways)

        builder.loop(0, builder.add(self.width, lanes - 1), lanes, [], strip)

    def source_at(self, x: Var, k: Var | int) -> Var:
        builder = self.builder
        offset = builder.add(builder.mul(x, self.stride_x), builder.mul(self.stride_k, k))
        return builder.gep(self.tile.stored, self.source, offset)

    def target_at(self, x: Var, k: Var | int) -> Var:
        builder = self.builder
        return builder.gep(
            self.tile.element, self.target, builder.add(x, builder.mul(self.width, k))
        )

    def copy_rows(self, x: Var, readable: Var) -> None:
        """x is contiguous: one vector per k."""
        builder, tile = self.builder, self.tile
        if not tile.masked:
            self.each_row(x, [0], None, None)
            return
        read = builder.mask(builder.sub(self.valid, x), tile.lanes)
        write = builder.mask(builder.sub(self.width, x), tile.lanes)
        ways = [
            lambda: self.each_row(x, [0], None, None),
            lambda: self.each_row(x, [0], read, write),
        ]
        choose(builder, [readable], ways)

    def each_row(self, x: Var, columns: Sequence[int], read: Var | None, write: Var | None) -> None:
        """Copies the vectors at ``x + columns`` of every row."""
        builder, tile = self.builder, self.tile
        ahead = builder.mul(self.stride_k, ROWS_AHEAD)

        def row(_: Var, state: list[Var]) -> list[Var]:
            source, target = state
            later = builder.gep(tile.stored, source, ahead)
            for column in columns:
                builder.prefetch(builder.gep(tile.stored, later, column))
                address = builder.gep(tile.stored, source, column)
                value = load_widened(builder, tile, address, tile.lanes, read)
                address = builder.gep(tile.element, target, column)
                if write is None:
                    builder.store(value, address, tile.size)
                else:
                    builder.masked_store(value, address, write, tile.size)
            return [
                builder.gep(tile.stored, source, self.stride_k),
                builder.gep(tile.element, target, self.width),
            ]

        builder.loop(0, self.k, 1, [self.source_at(x, 0), self.target_at(x, 0)], row)

    def copy_blocks(self, x: Var) -> None:
        """k is contiguous: squares of lanes x lanes, transposed in registers.

        Columns past the last valid one repeat it, so nothing outside of the operand is read.
        """
        builder, tile = self.builder, self.tile
        last = builder.sub(self.valid, 1)
        starts = [
            self.source_at(builder.min(builder.add(x, i), last), 0) for i in range(tile.lanes)
        ]
        write = builder.mask(builder.sub(self.width, x), tile.lanes)

        def block(k: Var, _: list[Var]) -> None:
            rows = []
            for start in starts:
                address = builder.gep(tile.stored, start, k)
                builder.prefetch(builder.gep(tile.stored, address, BLOCKS_AHEAD * tile.lanes))
                rows.append(load_widened(builder, tile, address, tile.lanes))
            target = self.target_at(x, k)
            for column in transpose(builder, rows):
                if tile.masked:
                    builder.masked_store(column, target, write, tile.size)
                else:
                    builder.store(column, target, tile.size)
                target = builder.gep(tile.element, target, self.width)

        rest, _ = builder.loop(0, self.k, tile.lanes, [], block)
        self.copy_elements(x, rest)

    def copy_elements(self, x: Var, first_k: Var) -> None:
        """Any strides, from ``first_k`` on: the valid elements of the strip one by one."""
        builder, tile = self.builder, self.tile
        end = builder.min(builder.add(x, tile.lanes), self.valid)

        def row(k: Var, _: list[Var]) -> None:
            def element(_: Var, state: list[Var]) -> list[Var]:
                source, target = state
                builder.store(load_widened(builder, tile, source, 1), target, tile.size)
                return [
                    builder.gep(tile.stored, source, self.stride_x),
                    builder.gep(tile.element, target, 1),
                ]

            builder.loop(x, end, 1, [self.source_at(x, k), self.target_at(x, k)], element)

        builder.loop(first_k, self.k, 1, [], row)


def pack_kernel(tile: TileShape) -> tuple[str, Builder]:
    """``gemm_pack``: one task packs one panel of one block of k of one batch entry."""
    builder = Builder()
    words = read_words(builder, PACK_WORDS, ("source", "target"))
    fixed = builder.compare("ne", words["width"], 0)

    def task(number: Var, _: list[Var]) -> None:
        row, panel = divide(builder, number, words["panels"])
        batch, block = divide(builder, row, words["blocks"])
        first_k = builder.mul(block, words["block"])
        k = builder.min(builder.sub(words["k"], first_k), words["block"])
        start, height = panel_extent(builder, panel, words)
        valid = builder.min(height, builder.sub(words["extent"], start))
        source = dot(
            builder,
            (batch, words["source_batch"]),
            (first_k, words["stride_k"]),
            (start, words["stride_x"]),
        )
        target = dot(
            builder,
            (batch, words["target_batch"]),
            (first_k, words["padded_extent"]),
            (start, k),
        )
        PACK_PANEL.call(
            builder,
            {
                "source": builder.gep(tile.stored, words["source"], source),
                "stride_k": words["stride_k"],
                "stride_x": words["stride_x"],
                "valid": valid,
                "target": builder.gep(tile.element, words["target"], target),
                "width": builder.select(fixed, words["width"], valid),
                "k": k,
            },
        )

    builder.loop(BEGIN, END, 1, [], task)
    return builder.function(PACK, KERNEL_PARAMETERS), builder


class RowPacker:
    """Writes ``gemm_pack_rows``: as ``gemm_pack``, of a B whose rows are dense.

    It reads whole rows, which the processor foresees, and deals them out to the panels; a task is
    `ROWS_AT_ONCE` rows of one block.  The last panel, if it is not full, goes its own way.
    """

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()

    def function(self) -> str:
        builder = self.builder
        self.words = read_words(builder, PACK_WORDS, ("source", "target"))
        rounded = builder.add(self.words["block"], ROWS_AT_ONCE - 1)
        self.chunks = builder.div(rounded, builder.constant(ROWS_AT_ONCE))
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(PACK_ROWS, KERNEL_PARAMETERS)

    def task(self, number: Var, _: list[Var]) -> None:
        builder, words, tile = self.builder, self.words, self.tile
        rest, chunk = divide(builder, number, self.chunks)
        batch, block = divide(builder, rest, words["blocks"])
        first_k = builder.mul(block, words["block"])
        length = builder.min(builder.sub(words["k"], first_k), words["block"])
        start = builder.mul(chunk, ROWS_AT_ONCE)
        rows = builder.min(builder.sub(length, start), ROWS_AT_ONCE)
        k = builder.add(first_k, start)
        offset = dot(builder, (batch, words["source_batch"]), (k, words["stride_k"]))
        source = builder.gep(tile.stored, words["source"], offset)
        offset = dot(
            builder,
            (batch, words["target_batch"]),
            (first_k, words["padded_extent"]),
            (start, words["width"]),
        )
        target = builder.gep(tile.element, words["target"], offset)
        panel_elements = builder.mul(length, words["width"])
        full = builder.div(words["extent"], builder.constant(tile.columns))

        def row(_: Var, state: list[Var]) -> list[Var]:
            self.deal(state[0], state[1], full, panel_elements)
            return [
                builder.gep(tile.stored, state[0], words["stride_k"]),
                builder.gep(tile.element, state[1], words["width"]),
            ]

        builder.loop(0, rows, 1, [source, target], row)
        done = builder.mul(full, tile.columns)
        last = {
            "source": builder.gep(tile.stored, source, done),
            "stride_k": words["stride_k"],
            "stride_x": builder.constant(1),
            "valid": builder.sub(words["extent"], done),
            "target": builder.gep(tile.element, target, builder.mul(full, panel_elements)),
            "width": words["width"],
            "k": rows,
        }
        builder.if_(
            builder.compare("slt", done, words["extent"]),
            lambda: PACK_PANEL.call(builder, last),
        )

    def deal(self, source: Var, target: Var, full: Var, panel_elements: Var) -> None:
        """One row to the full panels."""
        builder, tile = self.builder, self.tile

        def panel(_: Var, state: list[Var]) -> list[Var]:
            for column in range(0, tile.columns, tile.lanes):
                address = builder.gep(tile.stored, state[0], column)
                value = load_widened(builder, tile, address, tile.lanes)
                builder.store(value, builder.gep(tile.element, state[1], column), tile.size)
            return [
                builder.gep(tile.stored, state[0], tile.columns),
                builder.gep(tile.element, state[1], panel_elements),
            ]

        builder.loop(0, full, 1, [source, target], panel)


def pack_functions(tile: TileShape) -> list[tuple[str, Builder]]:
    packer, row_packer = PanelPacker(tile), RowPacker(tile)
    return [
        (packer.function(), packer.builder),
        pack_kernel(tile),
        (row_packer.function(), row_packer.builder),
    ]
