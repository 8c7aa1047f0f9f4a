"""``attention_forward``: softmax(Q K^T) V for a few panels of queries per task, in blocks of keys.

Each block rescales what was summed before to the new maximum (Milakov and Gimelshein 2018; Dao and
others 2022), so the scores never leave the nearest cache.  Exponents are to base 2, with the
conversion in the scale of the queries.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.attention_block import (
    DENSE,
    FULL,
    LOG2_E,
    MASK_WORDS,
    AttentionKernel,
    exp2,
    operand_words,
    traced,
)
from flambeau.compiler.builder import BEGIN, END, KERNEL_PARAMETERS, Var
from flambeau.compiler.gemm_pack import divide
from flambeau.compiler.math import log2

FORWARD = "attention_forward"

# A task has up to ``panels`` panels of queries; there are ``query_blocks`` tasks per head.
# ``lse`` is the base 2 logarithm of the sum of exponentials per (batch, head, query), dense, as
# what is computed with; infinity for a query that sees nothing.
FORWARD_WORDS = (
    *operand_words("q", FULL), *operand_words("k", FULL), *operand_words("v", FULL),
    *operand_words("out", DENSE), "lse", *MASK_WORDS, "masked", "causal", "scale",
    "heads", "group", "queries", "keys", "dim", "value_dim", "panels", "query_blocks",
)  # fmt: skip


class ForwardKernel(AttentionKernel):
    words_read = FORWARD_WORDS
    pointers = frozenset({"q", "k", "v", "out", "lse", "mask"})

    def function(self) -> str:
        self.tasks()
        return self.builder.function(FORWARD, KERNEL_PARAMETERS)

    def tasks(self) -> None:
        self.read_words()
        self.allocate()
        self.builder.loop(BEGIN, END, 1, [], self.task)

    def allocate(self) -> None:
        builder, tile = self.builder, self.tile
        dim, value_dim = self.words["dim"], self.words["value_dim"]
        width = builder.mul(self.words["panels"], tile.columns)
        self.all_queries = self.scratch(builder.mul(dim, width))
        self.all_sums = self.scratch(builder.mul(builder.add(value_dim, tile.lanes), width))
        self.all_levels = self.scratch(builder.mul(width, 2))
        self.scores = self.scratch(self.block * tile.columns)
        self.mask_panel = self.scratch(self.block * tile.columns)
        self.turned = self.scratch(tile.columns * tile.lanes)
        self.wide: dict[str, Var | None] = dict.fromkeys("qkv")
        if self.memory.converts:
            self.wide["q"] = self.scratch(builder.mul(dim, tile.columns))
            self.wide["k"] = self.scratch(builder.mul(dim, self.block))
            self.wide["v"] = self.scratch(builder.mul(value_dim, self.block))

    def task(self, number: Var, carried: list[Var]) -> None:
        """Up to ``panels`` panels of queries, one after the other for each block of keys."""
        builder, words = self.builder, self.words
        self.row_index, group = divide(builder, number, words["query_blocks"])
        self.batch, self.head = divide(builder, self.row_index, words["heads"])
        self.shared_head = builder.div(self.head, words["group"])
        self.first_panel = builder.mul(group, words["panels"])
        all_panels = self.panels_of(words["queries"])
        count = builder.min(builder.sub(all_panels, self.first_panel), words["panels"])
        self.each_panel(count, self.start)
        last = self.last_key
        blocks = builder.div(builder.add(last, self.block - 1), self.block)
        builder.loop(0, blocks, 1, [], lambda block, _: self.key_block(block, count))
        self.each_panel(count, self.finish)

    def panels_of(self, queries: Var) -> Var:
        columns = self.tile.columns
        return self.builder.div(self.builder.add(queries, columns - 1), columns)

    @property
    def last_key(self) -> Var:
        """The number of keys that the task's last query sees."""
        builder, words = self.builder, self.words
        end = builder.mul(
            builder.add(self.first_panel, words["panels"]), builder.constant(self.tile.columns)
        )
        seen = builder.min(words["keys"], builder.min(end, words["queries"]))
        return builder.select(self.is_causal, seen, words["keys"])

    def each_panel(self, count: Var, body: Callable[[], None]) -> None:
        builder, tile, words = self.builder, self.tile, self.words

        def panel(index: Var, _: list[Var]) -> None:
            self.first = builder.mul(builder.add(self.first_panel, index), tile.columns)
            self.valid = builder.min(builder.sub(words["queries"], self.first), tile.columns)
            self.vectors = builder.div(builder.add(self.valid, tile.lanes - 1), tile.lanes)
            start = builder.mul(index, tile.columns)
            self.queries = self.at(self.all_queries, (start, words["dim"]))
            extent = builder.add(words["value_dim"], tile.lanes)
            self.sums = self.at(self.all_sums, (start, extent))
            self.levels = self.at(self.all_levels, (start, 2))
            body()

        builder.loop(0, count, 1, [], panel)

    def start(self) -> None:
        """The queries of a panel, and that nothing was seen yet: no maximum, a sum of 0."""
        self.load_queries()
        lowest = self.builder.constant(float("-inf"), self.tile.vector)
        zero = self.builder.zero(self.tile.vector)
        self.keep_levels([lowest] * self.tile.vectors, [zero] * self.tile.vectors)

    def keep_levels(self, maxima: list[Var], sums: list[Var]) -> None:
        for i, value in enumerate((*maxima, *sums)):
            self.store(value, self.vector_at(self.levels, i))

    def kept_levels(self) -> tuple[list[Var], list[Var]]:
        count = self.tile.vectors
        found = [self.load(self.vector_at(self.levels, i)) for i in range(2 * count)]
        return found[:count], found[count:]

    def load_queries(self) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        source = self.place("q", self.batch, self.head, self.first)
        row, col, dim = words["q_row"], words["q_col"], words["dim"]
        source, row, col = self.widened(source, row, col, self.valid, dim, self.wide["q"])
        self.pack(source, row, col, self.valid, dim, self.queries)
        log2_e = builder.constant(LOG2_E, tile.element)
        self.multiply_rows(self.queries, dim, builder.mul(self.scale, log2_e))

    def rows_of(self, name: str, first: Var, rows: Var, columns: Var) -> tuple[Var, Var, Var]:
        """A block of keys or values: address, row and column strides."""
        words = self.words
        source = self.place(name, self.batch, self.shared_head, first)
        row, col = words[f"{name}_row"], words[f"{name}_col"]
        return self.widened(source, row, col, rows, columns, self.wide[name])

    def key_block(self, number: Var, count: Var) -> None:
        builder, words = self.builder, self.words
        first = builder.mul(number, self.block)
        rows = builder.min(builder.sub(self.last_key, first), self.block)
        keys = self.rows_of("k", first, rows, words["dim"])
        values = self.rows_of("v", first, rows, words["value_dim"])
        again = builder.compare("sgt", number, 0)

        def panel() -> None:
            end = builder.add(self.first, self.valid)
            seen = builder.select(self.is_causal, builder.sub(end, first), rows)
            some = builder.compare("sgt", seen, 0)
            here = builder.min(seen, rows)
            builder.if_(some, lambda: self.attend(keys, values, first, here, again))

        self.each_panel(count, panel)

    def attend(
        self,
        keys: tuple[Var, Var, Var],
        values: tuple[Var, Var, Var],
        first: Var,
        rows: Var,
        again: Var,
    ) -> None:
        """A panel of queries against a block of keys; ``again`` unless it is the first block."""
        builder, words, columns = self.builder, self.words, self.tile.columns
        source, row, col = keys
        self.product(
            a=source, a_row=row, a_k=col, rows=rows, b=self.queries, b_k=columns,
            k=words["dim"], c=self.scores, c_row=columns, accumulate=0, vectors=self.vectors,
        )  # fmt: skip
        place = self.place("mask", self.batch, self.head, self.first)
        mask = self.at(place, (first, words["mask_col"]))
        self.add_mask(self.scores, columns, mask, self.valid, rows, self.mask_panel)
        self.hide_later(self.scores, columns, self.first, first, rows)
        maxima, sums, factors = self.softmax(rows)
        self.keep_levels(maxima, sums)
        self.rescale(factors, builder.select(again, words["value_dim"], 0))
        source, row, col = values
        self.product(
            a=source, a_row=col, a_k=row, rows=words["value_dim"], b=self.scores,
            b_k=columns, k=rows, c=self.sums, c_row=columns,
            accumulate=builder.convert("zext", again, "i64"), vectors=self.vectors,
        )  # fmt: skip

    def softmax(self, rows: Var) -> tuple[list[Var], list[Var], list[Var]]:
        """Scores to weights, relative to the maximum so far.

        Returns the new maxima and sums, and the factors that bring older sums to that scale.
        """
        builder, tile = self.builder, self.tile
        old, sums = self.kept_levels()

        def row_address(number: Var, i: int) -> Var:
            return self.vector_at(self.at(self.scores, (number, tile.columns)), i)

        def larger(number: Var, values: list[Var]) -> list[Var]:
            found = []
            for i, value in enumerate(values):
                score = self.load(row_address(number, i))
                found.append(builder.select(builder.compare("ogt", score, value), score, value))
            return found

        _, maxima = builder.loop(0, rows, 1, old, larger)
        lowest = builder.constant(float("-inf"), tile.vector)
        # Where nothing was seen yet, any finite number does: all weights are 0.
        bases = [
            builder.select(builder.compare("oeq", m, lowest), builder.zero(tile.vector), m)
            for m in maxima
        ]
        factors = [
            exp2(builder, tile, builder.sub(m, base)) for m, base in zip(old, bases, strict=True)
        ]

        def weigh(number: Var, totals: list[Var]) -> list[Var]:
            found = []
            for i, total in enumerate(totals):
                address = row_address(number, i)
                weight = exp2(builder, tile, builder.sub(self.load(address), bases[i]))
                self.store(weight, address)
                found.append(builder.add(total, weight))
            return found

        scaled = [builder.mul(total, factor) for total, factor in zip(sums, factors, strict=True)]
        _, sums = builder.loop(0, rows, 1, scaled, weigh)
        return maxima, sums, factors

    def rescale(self, factors: list[Var], rows: Var) -> None:
        """Multiplies the sums of values so far, lane by lane."""
        builder, tile = self.builder, self.tile

        def row(number: Var, _: list[Var]) -> None:
            start = self.at(self.sums, (number, tile.columns))
            for i, factor in enumerate(factors):
                place = self.vector_at(start, i)
                self.store(builder.mul(self.load(place), factor), place)

        builder.loop(0, rows, 1, [], row)

    def finish(self) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        maxima, sums = self.kept_levels()
        zero, one = builder.zero(tile.vector), builder.constant(1.0, tile.vector)
        endless = builder.constant(float("inf"), tile.vector)
        inverses = []
        start = builder.add(builder.mul(self.row_index, words["queries"]), self.first)
        for i, (maximum, total) in enumerate(zip(maxima, sums, strict=True)):
            blind = builder.compare("oeq", total, zero)
            inverses.append(builder.select(blind, zero, builder.div(one, total)))
            level = builder.add(maximum, traced(builder, log2, total))
            self.store_levels(
                builder.select(blind, endless, level),
                builder.add(start, i * tile.lanes),
                builder.sub(self.valid, i * tile.lanes),
            )
        self.store_transposed(
            self.sums, tile.columns, self.place("out", self.batch, self.head, self.first),
            words["out_row"], self.valid, words["value_dim"], inverses, self.turned,
        )  # fmt: skip

    def store_levels(self, values: Var, start: Var, valid: Var) -> None:
        """The first ``valid`` lanes into ``lse``."""
        builder, tile = self.builder, self.tile
        address = builder.gep(tile.element, self.words["lse"], start)
        if tile.masked:
            mask = builder.mask(valid, tile.lanes)
            builder.masked_store(values, address, mask, tile.size)
            return
        self.store(values, self.turned)

        def single(at: Var, _: list[Var]) -> None:
            value = builder.load(
                tile.element, builder.gep(tile.element, self.turned, at), tile.size
            )
            builder.store(value, builder.gep(tile.element, address, at), tile.size)

        builder.loop(0, builder.min(valid, tile.lanes), 1, [], single)
