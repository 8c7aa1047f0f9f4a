"""Attention of a few queries to many keys, as in decoding: a pass over memory, lanes along columns.

``attention_few`` attends for one query to one chunk of keys.  Where there are several chunks it
leaves what it found in memory, and ``attention_join`` puts the chunks of a query together, in their
order.  Queries that share keys are neighbours, so that a chunk is read from memory once.
"""

from __future__ import annotations

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
from flambeau.compiler.emit import horizontal
from flambeau.compiler.gemm_micro import multiply_add
from flambeau.compiler.gemm_pack import divide, load_widened, store_narrowed
from flambeau.compiler.gemm_vector import sum_lanes
from flambeau.compiler.math import log2

FEW, JOIN = "attention_few", "attention_join"

# Keys of a chunk: enough to be worth a task, and their scores stay in the nearest cache.
CHUNK = 512

# Columns of values that are summed together in registers, in vectors, and keys at a time: sums
# enough to hide the latency of fma.
STRIPS = (4, 1)
KEYS_TOGETHER = 2

_COMMON = (
    *operand_words("out", DENSE), "lse", "partial", "causal", "masked", "scale",
    "heads", "group", "queries", "keys", "value_dim", "chunks",
)  # fmt: skip
FEW_WORDS = (
    *operand_words("q", FULL), *operand_words("k", FULL), *operand_words("v", FULL),
    *MASK_WORDS, "dim", *_COMMON,
)  # fmt: skip
JOIN_WORDS = _COMMON


class _RowKernel(AttentionKernel):
    """What both kernels share: one query per row, and its results."""

    pointers = frozenset({"q", "k", "v", "out", "lse", "mask", "partial"})

    def enter_row(self, entry: Var, member: Var) -> None:
        """``entry`` counts shared heads of the batch, ``member`` the queries that share one."""
        builder, words = self.builder, self.words
        shared_heads = builder.div(words["heads"], words["group"])
        self.batch, self.shared_head = divide(builder, entry, shared_heads)
        head, self.query = divide(builder, member, words["queries"])
        self.head = builder.add(builder.mul(self.shared_head, words["group"]), head)
        row = builder.add(builder.mul(self.batch, words["heads"]), self.head)
        self.row = builder.add(builder.mul(row, words["queries"]), self.query)

    def partial(self, chunk: Var) -> Var:
        """Where a chunk's sums of values lie; its maximum and its sum follow them."""
        builder, words = self.builder, self.words
        number = builder.add(builder.mul(self.row, words["chunks"]), chunk)
        size = builder.add(words["value_dim"], self.tile.lanes)
        return self.at(words["partial"], (number, size))

    def scalar_at(self, base: Var, index: Var | int) -> Var:
        return self.builder.gep(self.tile.element, base, index)

    def load_scalar(self, pointer: Var) -> Var:
        return self.builder.load(self.tile.element, pointer, self.tile.size)

    def base_of(self, maximum: Var) -> Var:
        """What exponents are taken relative to: any number where nothing was seen."""
        builder = self.builder
        lowest = builder.constant(float("-inf"), maximum.type)
        unseen = builder.compare("oeq", maximum, lowest)
        return builder.select(unseen, builder.zero(maximum.type), maximum)

    def write(self, sums: Var, maximum: Var, total: Var) -> None:
        """The row of the result from the sums of values, and its ``lse``."""
        builder, tile, words = self.builder, self.tile, self.words
        blind = builder.compare("oeq", total, 0.0)
        inverse = builder.select(blind, 0.0, builder.div(1.0, total))
        spread = builder.splat(inverse, tile.lanes)
        out = self.place("out", self.batch, self.head, self.query)

        def columns(at: Var, _: list[Var]) -> None:
            value = builder.mul(self.load(self.scalar_at(sums, at)), spread)
            address = builder.gep(self.memory.stored, out, at)
            store_narrowed(builder, self.memory, value, address)

        builder.loop(0, words["value_dim"], tile.lanes, [], columns)
        level = builder.add(maximum, traced(builder, log2, total))
        level = builder.select(blind, float("inf"), level)
        builder.store(level, self.scalar_at(words["lse"], self.row), tile.size)


class FewKernel(_RowKernel):
    """Writes ``attention_few``.  Columns of keys and values are dense and fill whole vectors."""

    words_read = FEW_WORDS

    def function(self) -> str:
        builder = self.builder
        self.read_words()
        self.scaled = self.scratch(self.words["dim"])
        self.scores = self.scratch(CHUNK + self.tile.lanes)
        self.sums = self.scratch(self.words["value_dim"])
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(FEW, KERNEL_PARAMETERS)

    def task(self, number: Var, _: list[Var]) -> None:
        builder, words = self.builder, self.words
        members = builder.mul(words["group"], words["queries"])
        rest, member = divide(builder, number, members)
        entry, chunk = divide(builder, rest, words["chunks"])
        self.enter_row(entry, member)
        seen = builder.min(words["keys"], builder.add(self.query, 1))
        last = builder.select(self.is_causal, seen, words["keys"])
        self.first = builder.mul(chunk, CHUNK)
        # A chunk after all keys that the query sees has none.
        self.count = builder.max(builder.min(builder.sub(last, self.first), CHUNK), 0)
        self.scale_query()
        groups = builder.div(builder.add(self.count, self.tile.lanes - 1), self.tile.lanes)
        builder.loop(0, groups, 1, [], self.score_group)
        maximum, total = self.softmax(groups)
        single = builder.compare("eq", words["chunks"], 1)

        def whole() -> list[Var]:
            self.add_values(self.sums)
            self.write(self.sums, maximum, total)
            return []

        def part() -> list[Var]:
            target = self.partial(chunk)
            self.add_values(target)
            end = self.scalar_at(target, words["value_dim"])
            builder.store(maximum, end, self.tile.size)
            builder.store(total, self.scalar_at(end, 1), self.tile.size)
            return []

        builder.if_else(single, whole, part)

    def scale_query(self) -> None:
        builder, memory, words = self.builder, self.memory, self.words
        factor = builder.mul(self.scale, builder.constant(LOG2_E, self.tile.element))
        source = self.place("q", self.batch, self.head, self.query)

        def move(at: Var, width: int, stride: Var | int) -> None:
            address = builder.gep(memory.stored, source, builder.mul(at, stride))
            value = load_widened(builder, memory, address, width)
            value = builder.mul(value, builder.splat(factor, width))
            builder.store(value, self.scalar_at(self.scaled, at), self.tile.size)

        dense = builder.compare("eq", words["q_col"], 1)
        end = builder.select(dense, words["dim"], 0)
        rest, _ = builder.loop(
            0, end, self.tile.lanes, [], lambda at, _: move(at, self.tile.lanes, 1)
        )
        builder.loop(rest, words["dim"], 1, [], lambda at, _: move(at, 1, words["q_col"]))

    def score_group(self, number: Var, carried: list[Var]) -> None:
        """The scores of as many keys as a vector has lanes."""
        builder, tile, words = self.builder, self.tile, self.words
        first = builder.mul(number, tile.lanes)
        last = builder.sub(self.count, 1)
        starts = []
        for i in range(tile.lanes):
            # Past the last key it is taken again: nothing outside of the keys is read.
            key = builder.add(self.first, builder.min(builder.add(first, i), last))
            starts.append(self.place("k", self.batch, self.shared_head, key))

        def columns(at: Var, sums: list[Var]) -> list[Var]:
            query = self.load(self.scalar_at(self.scaled, at))
            found = []
            for start, total in zip(starts, sums, strict=True):
                address = builder.gep(self.memory.stored, start, at)
                key = load_widened(builder, self.memory, address, tile.lanes)
                found.append(multiply_add(builder, tile, key, query, total))
            return found

        zeros = [builder.zero(tile.vector)] * tile.lanes
        _, sums = builder.loop(0, words["dim"], tile.lanes, zeros, columns)
        (scores,) = sum_lanes(builder, sums)
        self.store(scores, self.scalar_at(self.scores, first))

    def softmax(self, groups: Var) -> tuple[Var, Var]:
        """Masked scores to weights; their maximum and sum."""
        builder, tile = self.builder, self.tile
        builder.if_(self.has_mask, self.mask_scores)
        lowest = builder.constant(float("-inf"), tile.vector)

        def place(number: Var) -> Var:
            return self.scalar_at(self.scores, builder.mul(number, tile.lanes))

        def larger(number: Var, values: list[Var]) -> list[Var]:
            rest = builder.sub(self.count, builder.mul(number, tile.lanes))
            address = place(number)
            score = builder.select(builder.mask(rest, tile.lanes), self.load(address), lowest)
            self.store(score, address)
            return [self.larger(values[0], score)]

        _, (maxima,) = builder.loop(0, groups, 1, [lowest], larger)
        (maximum,) = horizontal(builder, [maxima], lambda a, b: [self.larger(a[0], b[0])])
        base = builder.splat(self.base_of(maximum), tile.lanes)

        def weigh(number: Var, totals: list[Var]) -> list[Var]:
            address = place(number)
            weight = exp2(builder, tile, builder.sub(self.load(address), base))
            self.store(weight, address)
            return [builder.add(totals[0], weight)]

        _, (totals,) = builder.loop(0, groups, 1, [builder.zero(tile.vector)], weigh)
        (total,) = horizontal(builder, [totals], lambda a, b: [builder.add(a[0], b[0])])
        return maximum, total

    def larger(self, a: Var, b: Var) -> Var:
        return self.builder.select(self.builder.compare("ogt", b, a), b, a)

    def mask_scores(self) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        row = self.place("mask", self.batch, self.head, self.query)
        mask = self.at(row, (self.first, words["mask_col"]))

        def one(key: Var, _: list[Var]) -> None:
            extra = self.load_scalar(self.at(mask, (key, words["mask_col"])))
            place = self.scalar_at(self.scores, key)
            total = builder.add(self.load_scalar(place), self.to_base_2(extra))
            builder.store(total, place, tile.size)

        builder.loop(0, self.count, 1, [], one)

    def add_values(self, target: Var) -> None:
        """The values summed by weight."""
        values = self.place("v", self.batch, self.shared_head, self.first)
        at: Var | int = 0
        for vectors in STRIPS:

            def strip(column: Var, _: list[Var], vectors: int = vectors) -> None:
                self.strip(values, column, vectors, target)

            width = vectors * self.tile.lanes
            at, _ = self.builder.loop(at, self.words["value_dim"], width, [], strip)

    def strip(self, values: Var, column: Var, vectors: int, target: Var) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        start = builder.gep(self.memory.stored, values, column)

        def add(key: Var, sums: list[Var], count: int) -> list[Var]:
            found = list(sums)
            for i in range(count):
                number = builder.add(key, i)
                weight = self.load_scalar(self.scalar_at(self.scores, number))
                weight = builder.splat(weight, tile.lanes)
                row = builder.mul(number, words["v_row"])
                for j in range(vectors):
                    offset = builder.add(row, j * tile.lanes)
                    address = builder.gep(self.memory.stored, start, offset)
                    value = load_widened(builder, self.memory, address, tile.lanes)
                    k = i * vectors + j
                    found[k] = multiply_add(builder, tile, weight, value, found[k])
            return found

        zeros = [builder.zero(tile.vector)] * (vectors * KEYS_TOGETHER)
        rest, sums = builder.loop(
            0, self.count, KEYS_TOGETHER, zeros, lambda key, sums: add(key, sums, KEYS_TOGETHER)
        )
        _, sums = builder.loop(rest, self.count, 1, sums, lambda key, sums: add(key, sums, 1))
        for j in range(vectors):
            total = sums[j]
            for i in range(1, KEYS_TOGETHER):
                total = builder.add(total, sums[i * vectors + j])
            self.store(total, self.vector_at(self.scalar_at(target, column), j))


class JoinKernel(_RowKernel):
    """Writes ``attention_join``; a task is one query."""

    words_read = JOIN_WORDS

    def function(self) -> str:
        builder = self.builder
        self.read_words()
        self.sums = self.scratch(self.words["value_dim"])
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(JOIN, KERNEL_PARAMETERS)

    def task(self, number: Var, carried: list[Var]) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        entry, member = divide(builder, number, builder.mul(words["group"], words["queries"]))
        self.enter_row(entry, member)

        def levels(chunk: Var) -> tuple[Var, Var]:
            end = self.scalar_at(self.partial(chunk), words["value_dim"])
            return self.load_scalar(end), self.load_scalar(self.scalar_at(end, 1))

        def larger(chunk: Var, values: list[Var]) -> list[Var]:
            found, _ = levels(chunk)
            return [builder.select(builder.compare("ogt", found, values[0]), found, values[0])]

        lowest = builder.constant(float("-inf"), tile.element)
        _, (maximum,) = builder.loop(0, words["chunks"], 1, [lowest], larger)
        base = self.base_of(maximum)

        def factor(chunk: Var) -> Var:
            return exp2(builder, tile, builder.sub(levels(chunk)[0], base))

        def add(chunk: Var, totals: list[Var]) -> list[Var]:
            return [multiply_add(builder, tile, factor(chunk), levels(chunk)[1], totals[0])]

        _, (total,) = builder.loop(0, words["chunks"], 1, [builder.zero(tile.element)], add)

        def columns(at: Var, carried: list[Var]) -> None:
            def chunk_values(chunk: Var, sums: list[Var]) -> list[Var]:
                value = self.load(self.scalar_at(self.partial(chunk), at))
                spread = builder.splat(factor(chunk), tile.lanes)
                return [multiply_add(builder, tile, spread, value, sums[0])]

            zero = builder.zero(tile.vector)
            _, (sums,) = builder.loop(0, words["chunks"], 1, [zero], chunk_values)
            self.store(sums, self.scalar_at(self.sums, at))

        builder.loop(0, words["value_dim"], tile.lanes, [], columns)
        self.write(self.sums, maximum, total)
