"""What the attention kernels share: tiles of scores with one query per lane, and their softmax.

Scores are computed transposed, ``K @ Q^T``: a row holds one key, a column (a lane of a vector) one
query.  The maxima and sums of a softmax then run down the columns, lane by lane; keys and values
are read in place, whatever their strides, as the left operand of the micro kernel; and the weights
come out as the right operand that the product with the values wants.  Only queries are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flambeau.compiler.builder import ARGS, I64, PTR, Builder, Var, element_type, vector
from flambeau.compiler.emit import emit_instruction
from flambeau.compiler.gemm_micro import (
    Procedure,
    TileShape,
    call_micro_kernel,
    multiply_add,
    tile_shape,
)
from flambeau.compiler.gemm_pack import (
    PACK_PANEL,
    dot,
    load_widened,
    panel_extent,
    store_narrowed,
    transpose,
)
from flambeau.compiler.kernel import Tracer, Value
from flambeau.compiler.math_tables import EXP2_32, EXP2_64
from flambeau.compiler.target import Target
from flambeau.core import dtype as types

LOG2_E = 1.4426950408889634

# Bytes of a block of scores for one panel of queries: with the panel and the sums beside it, it
# stays in the nearest cache.
BLOCK_BYTES = 14336

MASK_WORDS = ("mask", "mask_batch", "mask_head", "mask_row", "mask_col")

# An address and its strides in elements: batch, head, row (query or key), column.
FULL = ("", "_batch", "_head", "_row", "_col")
# A result: its columns are dense.
DENSE = FULL[:-1]

PRODUCT = Procedure(
    "attention_product",
    "ptr %a, i64 %a_row, i64 %a_k, i64 %rows, ptr %b, i64 %b_k, i64 %k, ptr %c, i64 %c_row, "
    "i64 %accumulate, i64 %vectors",
)


def operand_words(name: str, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name + part for part in parts)


def element_tile(stored: str, target: Target) -> TileShape:
    """The tile that attention on a stored type computes with: half types in float."""
    return tile_shape(tile_shape(stored, target).element, target)


def block_keys(tile: TileShape) -> int:
    """Keys of a block of scores: whole tiles of the micro kernel."""
    return max(1, BLOCK_BYTES // (tile.columns * tile.size * tile.rows)) * tile.rows


def product_function(tile: TileShape) -> tuple[str, Builder]:
    """``attention_product``: C (=, +=) A @ B for one panel of B, up to ``vectors`` wide."""
    builder = Builder()
    words = PRODUCT.values()
    rows = words["rows"]
    count = builder.div(builder.add(rows, tile.rows - 1), tile.rows)
    height = builder.div(builder.sub(builder.add(rows, count), 1), count)
    shorter = builder.sub(builder.mul(count, height), rows)
    split = {"height": height, "tall_panels": builder.sub(count, shorter)}

    def panel(number: Var, _: list[Var]) -> None:
        start, here = panel_extent(builder, number, split)
        places = {
            "a": builder.gep(tile.element, words["a"], builder.mul(start, words["a_row"])),
            "c": builder.gep(tile.element, words["c"], builder.mul(start, words["c_row"])),
        }
        call_micro_kernel(builder, tile, here, words["vectors"], words | places)

    builder.loop(0, count, 1, [], panel)
    return PRODUCT.define(builder), builder


def traced(builder: Builder, function: Callable[[Value], Value], x: Var) -> Var:
    """A function of kernel values, such as those of ``math.py``, applied to ``x``."""
    tracer = Tracer()
    dtype = types.float64 if element_type(x.type) == "double" else types.float32
    result = function(tracer.add("parameter", (), dtype, 0))
    width = int(x.type[1:].split(" x ")[0]) if x.type.startswith("<") else 1
    known: list[Var] = []
    for i in tracer.instructions:
        if i.operation == "parameter":
            known.append(x)
            continue
        sources = [tracer.instructions[a].dtype for a in i.arguments]
        known.append(emit_instruction(builder, i, [known[a] for a in i.arguments], sources, width))
    return known[result.index]


def exp2(builder: Builder, tile: TileShape, x: Var) -> Var:
    """``2**x`` for ``x`` of at most about 0; what would be subnormal is 0, NaN stays NaN."""
    short = tile.element == "float"
    mantissa, bias, integer = (23, 127, "i32") if short else (52, 1023, "i64")
    lowest = builder.constant(-bias, x.type)
    x = builder.select(builder.compare("ogt", lowest, x), lowest, x)
    # The sum's lowest bits are the nearest integer plus the bias: the exponent of the result.
    shifter = builder.constant(1.5 * 2.0**mantissa + bias, x.type)
    shifted = builder.add(x, shifter)
    rest = builder.sub(x, builder.sub(shifted, shifter))
    coefficients = EXP2_32 if short else EXP2_64
    value = builder.constant(coefficients[-1], x.type)
    for c in (*reversed(coefficients[:-1]), 1.0):
        value = multiply_add(builder, tile, value, rest, builder.constant(c, x.type))
    power = builder.shl(builder.convert("bitcast", shifted, integer), mantissa)
    return builder.mul(value, builder.convert("bitcast", power, tile.element))


class AttentionKernel:
    """A kernel function under construction: its argument words, scratch memory and loops.

    ``tile`` is what is computed with, ``memory`` the tile of the stored type.
    """

    words_read: tuple[str, ...]
    pointers: frozenset[str]

    def __init__(self, stored: str, target: Target) -> None:
        self.memory = tile_shape(stored, target)
        self.tile = element_tile(stored, target)
        self.block = block_keys(self.tile)
        self.builder = Builder()

    # -- arguments and scratch -----------------------------------------------------------------

    def read_words(self) -> None:
        builder = self.builder
        self.words: dict[str, Var] = {}
        for index, name in enumerate(self.words_read):
            type_ = PTR if name in self.pointers else "double" if name == "scale" else I64
            self.words[name] = builder.argument(ARGS, index, type_)
        scale = self.words["scale"]
        if self.tile.element == "float":
            scale = builder.convert("fptrunc", scale, "float")
        self.scale = scale
        self.is_causal = builder.compare("ne", self.words["causal"], 0)
        self.has_mask = builder.compare("ne", self.words["masked"], 0)

    def scratch(self, elements: Var | int) -> Var:
        """Memory of the call's own, for so many elements."""
        builder = self.builder
        count = elements if isinstance(elements, Var) else builder.constant(elements)
        return builder.emit(PTR, f"alloca {self.tile.element}, {count}, align 64")

    def place(self, name: str, batch: Var, head: Var, row: Var | None = None) -> Var:
        """The address of an operand's row (or first row) for one batch entry and head."""
        builder, words = self.builder, self.words
        offset = dot(builder, (batch, words[f"{name}_batch"]), (head, words[f"{name}_head"]))
        if row is not None:
            offset = builder.add(offset, builder.mul(row, words[f"{name}_row"]))
        in_element = name in ("mask", "dk_sum", "dv_sum")
        element = self.tile.element if in_element else self.memory.stored
        return builder.gep(element, words[name], offset)

    def at(self, base: Var, *indices: tuple[Var, Var | int]) -> Var:
        """``base`` moved by indices times strides, in elements computed with."""
        builder = self.builder
        offset = builder.constant(0)
        for index, stride in indices:
            offset = builder.add(offset, builder.mul(index, stride))
        return builder.gep(self.tile.element, base, offset)

    def load(self, pointer: Var) -> Var:
        return self.builder.load(self.tile.vector, pointer, self.tile.size)

    def store(self, value: Var, pointer: Var) -> None:
        self.builder.store(value, pointer, self.tile.size)

    def vector_at(self, base: Var, index: int) -> Var:
        return self.builder.gep(self.tile.element, base, index * self.tile.lanes)

    # -- pieces of kernels ---------------------------------------------------------------------

    def product(self, **arguments: Var | int) -> None:
        """C (=, +=) A @ B; see `PRODUCT`."""
        values = {
            name: value if isinstance(value, Var) else self.builder.constant(value)
            for name, value in arguments.items()
        }
        PRODUCT.call(self.builder, values)

    def pack(
        self, source: Var, row: Var, col: Var, rows: Var, columns: Var | int, target: Var
    ) -> None:
        """Up to a panel's width of rows, transposed: ``target[column][row]``."""
        builder = self.builder
        arguments = {
            "source": source,
            "stride_k": col,
            "stride_x": row,
            "valid": rows,
            "target": target,
            "width": builder.constant(self.tile.columns),
            "k": columns if isinstance(columns, Var) else builder.constant(columns),
        }
        PACK_PANEL.call(builder, arguments)

    def widened(
        self, source: Var, row: Var, col: Var, rows: Var, columns: Var, buffer: Var | None
    ) -> tuple[Var, Var, Var]:
        """Rows of an operand as computed with: in place, or half types in a dense buffer.

        Returns the address and the strides of rows and columns.
        """
        if buffer is None:
            return source, row, col
        builder, memory = self.builder, self.memory
        unit = builder.compare("eq", col, 1)
        whole_end = builder.select(unit, columns, 0)

        def one_row(number: Var, _: list[Var]) -> None:
            start = builder.gep(memory.stored, source, builder.mul(number, row))
            target = self.at(buffer, (number, columns))

            def whole(at: Var, _: list[Var]) -> None:
                value = load_widened(
                    builder, memory, builder.gep(memory.stored, start, at), memory.lanes
                )
                self.store(value, builder.gep(self.tile.element, target, at))

            def single(at: Var, _: list[Var]) -> None:
                address = builder.gep(memory.stored, start, builder.mul(at, col))
                value = load_widened(builder, memory, address, 1)
                self.store(value, builder.gep(self.tile.element, target, at))

            rest, _ = builder.loop(0, whole_end, memory.lanes, [], whole)
            builder.loop(rest, columns, 1, [], single)

        builder.loop(0, rows, 1, [], one_row)
        return buffer, columns, builder.constant(1)

    def multiply_rows(self, base: Var, rows: Var, factor: Var) -> None:
        """Multiplies a panel ``[rows][columns]`` by a number."""
        builder, tile = self.builder, self.tile
        spread = builder.splat(factor, tile.lanes)

        def one(at: Var, _: list[Var]) -> None:
            address = builder.gep(tile.element, base, at)
            self.store(builder.mul(self.load(address), spread), address)

        builder.loop(0, builder.mul(rows, tile.columns), tile.lanes, [], one)

    def add_mask(
        self, scores: Var, width: int, mask: Var, queries: Var, rows: Var, panel: Var
    ) -> None:
        """Adds the mask of a block, whose address is given, to the scores of one panel."""
        builder, tile, words = self.builder, self.tile, self.words

        def add() -> None:
            self.pack(mask, words["mask_row"], words["mask_col"], queries, rows, panel)

            def row(number: Var, _: list[Var]) -> None:
                target = self.at(scores, (number, width))
                source = self.at(panel, (number, tile.columns))
                for i in range(tile.vectors):
                    place = self.vector_at(target, i)
                    extra = self.to_base_2(self.load(self.vector_at(source, i)))
                    self.store(builder.add(self.load(place), extra), place)

            builder.loop(0, rows, 1, [], row)

        builder.if_(self.has_mask, add)

    def to_base_2(self, mask: Var) -> Var:
        """The mask times log2(e), where only minus infinity becomes minus infinity.

        Programs hide places by the lowest finite number; a query that sees only such places still
        has weights.
        """
        builder = self.builder
        limits = types.finfo(types.float32 if self.tile.element == "float" else types.float64)
        lowest = builder.constant(limits.min, mask.type)
        nothing = builder.constant(float("-inf"), mask.type)
        scaled = builder.mul(mask, builder.constant(LOG2_E, mask.type))
        limited = builder.select(builder.compare("ogt", lowest, scaled), lowest, scaled)
        return builder.select(builder.compare("oeq", mask, nothing), nothing, limited)

    def hide_later(self, scores: Var, width: int, query: Var, key: Var, rows: Var) -> None:
        """Causal attention: minus infinity where a key comes after the query of its lane.

        ``query`` and ``key`` are those of the first column and row of the scores.
        """
        builder, tile = self.builder, self.tile
        last = builder.sub(builder.add(key, rows), 1)
        crosses = builder.and_(self.is_causal, builder.compare("sgt", last, query))

        def hide() -> None:
            # Rows of keys up to the first query hide nothing.
            first = builder.max(builder.add(builder.sub(query, key), 1), 0)

            def row(number: Var, _: list[Var]) -> None:
                target = self.at(scores, (number, width))
                earliest = builder.sub(builder.add(key, number), query)
                narrow = builder.splat(builder.convert("trunc", earliest, "i32"), tile.lanes)
                nothing = builder.constant(float("-inf"), tile.vector)
                for i in range(tile.vectors):
                    lane = builder.add(builder.lane_numbers(tile.lanes), i * tile.lanes)
                    seen = builder.compare("sge", lane, narrow)
                    place = self.vector_at(target, i)
                    self.store(builder.select(seen, self.load(place), nothing), place)

            builder.loop(first, rows, 1, [], row)

        builder.if_(crosses, hide)

    def store_transposed(
        self,
        source: Var,
        width: int,
        target: Var,
        target_row: Var,
        valid: Var,
        columns: Var,
        factors: list[Var] | None,
        buffer: Var,
    ) -> None:
        """``target[query][column] = source[column][query]`` for the first ``valid`` queries.

        ``width`` is the row length of the source, whose lanes are multiplied by ``factors``; the
        buffer holds ``width`` vectors.
        """
        builder, tile, memory = self.builder, self.tile, self.memory

        def turn(column: Var) -> None:
            for i in range(width // tile.lanes):
                rows = []
                for j in range(tile.lanes):
                    row = builder.add(column, j)
                    value = self.load(self.vector_at(self.at(source, (row, width)), i))
                    rows.append(value if factors is None else builder.mul(value, factors[i]))
                for j, value in enumerate(transpose(builder, rows)):
                    self.store(value, self.vector_at(buffer, i * tile.lanes + j))

        def write(column: Var, lanes: int, mask: Var | None, shift: Var | int) -> None:
            def query(number: Var, _: list[Var]) -> None:
                value = builder.load(
                    vector(tile.element, lanes),
                    self.at(buffer, (number, tile.lanes), (builder.constant(1), shift)),
                    tile.size,
                )
                offset = builder.add(builder.mul(number, target_row), column)
                address = builder.gep(memory.stored, target, offset)
                store_narrowed(builder, memory, value, address, mask)

            builder.loop(0, valid, 1, [], query)

        def whole(column: Var, _: list[Var]) -> None:
            turn(column)
            write(column, tile.lanes, None, 0)

        rest, _ = builder.loop(0, columns, tile.lanes, [], whole)

        def last() -> None:
            turn(rest)
            if tile.masked:
                mask = builder.mask(builder.sub(columns, rest), tile.lanes)
                write(rest, tile.lanes, mask, 0)
                return
            builder.loop(
                rest, columns, 1, [], lambda at, _: write(at, 1, None, builder.sub(at, rest))
            )

        builder.if_(builder.compare("slt", rest, columns), last)
