"""``attention_tiles``: `attention_forward` for bfloat16 on AMX (see gemm_amx.py for the tiles).

Keys serve as tiles of A where they lie; queries are packed as tiles of B once per panel; weights
become tiles of B as they are rounded.  Values are packed as tiles of A, transposed, by a step of
their own, since all panels read them.
"""

from __future__ import annotations

from flambeau.compiler.attention_block import LOG2_E
from flambeau.compiler.attention_forward import FORWARD_WORDS, ForwardKernel
from flambeau.compiler.builder import KERNEL_PARAMETERS, Var
from flambeau.compiler.gemm_amx import (
    A_TILES,
    AMX_PACK_A,
    B_TILES,
    DEPTH,
    EDGE,
    ROW_VECTOR,
    SUMS,
    TILE_ELEMENTS,
    TilePacker,
    has_tiles,
    tile_configuration,
    tile_instruction,
)
from flambeau.compiler.gemm_pack import dot
from flambeau.compiler.target import Target

TILED, PACK_VALUES = "attention_tiles", AMX_PACK_A

# ``tiles`` are the values of each (batch, shared head), as `gemm_amx.TilePacker` lays out panels of
# ``key_steps`` steps of 32 keys.
TILED_WORDS = (*FORWARD_WORDS, "tiles", "key_steps")

# Keys of a block: sums pass through memory between blocks, so it should be long.
BLOCK = 256

# Queries of a panel, keys and columns of values that four tiles of sums hold.
WIDTH = 2 * EDGE


def runs_on_tiles(stored: str, target: Target) -> bool:
    return has_tiles(stored, target) and "avx512bf16" in target.features


class TiledForwardKernel(ForwardKernel):
    """Columns of queries and keys are dense; both counts of columns are multiples of 32."""

    words_read = TILED_WORDS
    pointers = ForwardKernel.pointers | {"tiles"}

    def __init__(self, stored: str, target: Target) -> None:
        super().__init__(stored, target)
        assert self.tile.columns == WIDTH
        self.block = BLOCK

    def function(self) -> str:
        builder = self.builder
        configuration = tile_configuration(builder)
        tile_instruction(builder, "ldtilecfg", ("ptr", configuration.name))
        self.tasks()
        tile_instruction(builder, "tilerelease")
        return builder.function(TILED, KERNEL_PARAMETERS)

    def allocate(self) -> None:
        super().allocate()
        self.wide = dict.fromkeys("qkv")
        # In both, elements are bfloat16.
        self.weights = self.scratch(BLOCK * WIDTH // 2)
        self.last_keys = self.scratch(self.builder.mul(self.words["dim"], WIDTH // 2))

    def half_at(self, base: Var, offset: Var | int) -> Var:
        return self.builder.gep("i16", base, offset)

    def amx(self, name: str, *arguments: tuple[str, object]) -> None:
        tile_instruction(self.builder, name, *arguments)

    # -- operands ------------------------------------------------------------------------------

    def load_queries(self) -> None:
        """Tiles of B: of each step of 32 columns, the first and the second sixteen queries."""
        builder, words = self.builder, self.words
        source = self.place("q", self.batch, self.head, self.first)
        packer = TilePacker("", pairs=True)
        packer.builder, packer.words = builder, {"stride_x": words["q_row"]}
        depth = builder.constant(DEPTH)

        def step(column: Var, _: list[Var]) -> None:
            for half in range(2):
                valid = builder.sub(self.valid, half * EDGE)
                # Where there are no such queries, the first sixteen serve: nobody looks.
                none = builder.compare("sle", valid, 0)
                valid = builder.min(builder.select(none, self.valid, valid), EDGE)
                skipped = builder.select(none, 0, builder.mul(words["q_row"], half * EDGE))
                start = self.half_at(source, builder.add(skipped, column))
                place = builder.add(builder.mul(column, WIDTH), half * TILE_ELEMENTS)
                for i, row in enumerate(packer.rows_of_k(start, depth, valid)):
                    target = self.half_at(self.queries, builder.add(place, i * DEPTH))
                    builder.store(row, target, 64)

        builder.loop(0, words["dim"], DEPTH, [], step)

    def keys_at(self, first: Var, source: Var, row: Var) -> tuple[Var, Var]:
        """32 keys from ``first`` on, and the elements between their rows.

        Those past the last one are zeros in memory of the task's own.
        """
        builder, words = self.builder, self.words
        count = builder.sub(words["keys"], first)
        dim = words["dim"]

        def copied() -> list[Var]:
            def one_row(number: Var, _: list[Var]) -> None:
                exists = builder.compare("slt", number, count)
                start = self.half_at(source, builder.mul(builder.select(exists, number, 0), row))
                target = self.half_at(self.last_keys, builder.mul(number, dim))

                def piece(at: Var, _: list[Var]) -> None:
                    value = builder.load(ROW_VECTOR, self.half_at(start, at), 2)
                    value = builder.select(exists, value, builder.zero(ROW_VECTOR))
                    builder.store(value, self.half_at(target, at), 2)

                builder.loop(0, dim, DEPTH, [], piece)

            builder.loop(0, WIDTH, 1, [], one_row)
            return [self.last_keys, dim]

        whole = builder.compare("sge", count, WIDTH)
        found = builder.if_else(whole, lambda: [source, row], copied)
        return found[0], found[1]

    # -- a block of keys -----------------------------------------------------------------------

    def attend(
        self,
        keys: tuple[Var, Var, Var],
        values: tuple[Var, Var, Var],
        first: Var,
        rows: Var,
        again: Var,
    ) -> None:
        builder, words = self.builder, self.words
        groups = builder.div(builder.add(rows, WIDTH - 1), WIDTH)
        padded = builder.mul(groups, WIDTH)
        source, row, _ = keys

        def scores(number: Var, _: list[Var]) -> None:
            skipped = builder.mul(number, WIDTH)
            start = self.half_at(source, builder.mul(skipped, row))
            address, stride = self.keys_at(builder.add(first, skipped), start, row)
            self.score_group(address, stride, self.at(self.scores, (skipped, WIDTH)))

        builder.loop(0, groups, 1, [], scores)
        log2_e = builder.constant(LOG2_E, self.tile.element)
        self.multiply_rows(self.scores, rows, builder.mul(self.scale, log2_e))
        place = self.place("mask", self.batch, self.head, self.first)
        mask = self.at(place, (first, words["mask_col"]))
        self.add_mask(self.scores, WIDTH, mask, self.valid, rows, self.mask_panel)
        self.hide_later(self.scores, WIDTH, self.first, first, rows)
        self.hide_rest(rows, padded)
        maxima, sums, factors = self.softmax(padded)
        self.keep_levels(maxima, sums)
        self.rescale(factors, builder.select(again, words["value_dim"], 0))
        self.round_weights(padded)
        self.add_values(first, groups, again)

    def score_group(self, keys: Var, stride: Var, target: Var) -> None:
        """The scores of 32 keys and a panel of queries."""
        builder = self.builder
        nbytes = builder.mul(stride, 2)
        second = builder.mul(stride, EDGE)
        for number in SUMS:
            self.amx("tilezero", ("i8", number))

        def step(column: Var, _: list[Var]) -> None:
            queries = self.half_at(self.queries, builder.mul(column, WIDTH))
            start = self.half_at(keys, column)
            self.load_tiles(start, self.half_at(start, second), nbytes, queries)
            self.multiply_tiles()

        builder.loop(0, self.words["dim"], DEPTH, [], step)
        self.each_sum("tilestored64", target)

    def load_tiles(self, upper: Var, lower: Var, nbytes: Var, right: Var) -> None:
        """Two tiles of A, rows ``nbytes`` apart, and two of B that lie together."""
        for number, address in zip(A_TILES, (upper, lower), strict=True):
            self.amx("tileloadd64", ("i8", number), ("ptr", address.name), ("i64", nbytes.name))
        for i, number in enumerate(B_TILES):
            address = self.half_at(right, i * TILE_ELEMENTS)
            self.amx("tileloadd64", ("i8", number), ("ptr", address.name), ("i64", 2 * DEPTH))

    def multiply_tiles(self) -> None:
        for number in SUMS:
            a, b = A_TILES[number // 2], B_TILES[number % 2]
            self.amx("tdpbf16ps", ("i8", number), ("i8", a), ("i8", b))

    def each_sum(self, instruction: str, corner: Var) -> None:
        """Loads or stores the four tiles of sums: 32 rows of a panel."""
        for number in SUMS:
            place = number // 2 * EDGE * WIDTH + number % 2 * EDGE
            address = self.builder.gep("float", corner, place)
            self.amx(instruction, ("i8", number), ("ptr", address.name), ("i64", 4 * WIDTH))

    def hide_rest(self, rows: Var, padded: Var) -> None:
        """Nobody sees keys that are there only to fill tiles."""
        builder, tile = self.builder, self.tile
        nothing = builder.constant(float("-inf"), tile.vector)

        def row(number: Var, _: list[Var]) -> None:
            target = self.at(self.scores, (number, WIDTH))
            for i in range(tile.vectors):
                self.store(nothing, self.vector_at(target, i))

        builder.loop(rows, padded, 1, [], row)

    def round_weights(self, rows: Var) -> None:
        """Weights as tiles of B: of each step of 32 keys, both halves of the queries."""
        builder, tile = self.builder, self.tile
        together = [i // 2 + EDGE * (i % 2) for i in range(DEPTH)]

        def pair(number: Var, _: list[Var]) -> None:
            step = builder.div(number, DEPTH)
            row = builder.div(builder.sub(number, builder.mul(step, DEPTH)), 2)
            steps = (step, builder.constant(2 * TILE_ELEMENTS)), (row, builder.constant(DEPTH))
            target = self.half_at(self.weights, dot(builder, *steps))
            for i in range(tile.vectors):
                low, high = (
                    self.load(self.vector_at(self.at(self.scores, (key, WIDTH)), i))
                    for key in (number, builder.add(number, 1))
                )
                rounded = builder.intrinsic(
                    "llvm.x86.avx512bf16.cvtne2ps2bf16.512", "<32 x bfloat>", high, low
                )
                halves = builder.emit(ROW_VECTOR, f"bitcast {rounded} to {ROW_VECTOR}")
                mixed = builder.shuffle(halves, halves, together)
                builder.store(mixed, self.half_at(target, i * TILE_ELEMENTS), 64)

        builder.loop(0, rows, 2, [], pair)

    def add_values(self, first: Var, groups: Var, again: Var) -> None:
        """Adds the values of a block, by weight, to the sums."""
        builder, words = self.builder, self.words
        shared_heads = builder.div(words["heads"], words["group"])
        entry = builder.add(builder.mul(self.batch, shared_heads), self.shared_head)
        panel = builder.mul(words["key_steps"], 2 * TILE_ELEMENTS)
        panels = builder.div(words["value_dim"], WIDTH)
        first_step = builder.mul(builder.div(first, DEPTH), 2 * TILE_ELEMENTS)

        def columns(number: Var, _: list[Var]) -> None:
            corner = self.at(self.sums, (builder.mul(number, WIDTH), WIDTH))

            def clear() -> list[Var]:
                for total in SUMS:
                    self.amx("tilezero", ("i8", total))
                return []

            def resume() -> list[Var]:
                self.each_sum("tileloadd64", corner)
                return []

            builder.if_else(again, resume, clear)
            place = dot(builder, (builder.add(builder.mul(entry, panels), number), panel))
            start = self.half_at(words["tiles"], builder.add(place, first_step))

            def step(at: Var, _: list[Var]) -> None:
                offset = builder.mul(at, 2 * TILE_ELEMENTS)
                upper = self.half_at(start, offset)
                lower = self.half_at(upper, TILE_ELEMENTS)
                nbytes = builder.constant(2 * DEPTH)
                self.load_tiles(upper, lower, nbytes, self.half_at(self.weights, offset))
                self.multiply_tiles()

            builder.loop(0, groups, 1, [], step)
            self.each_sum("tilestored64", corner)

        builder.loop(0, panels, 1, [], columns)
