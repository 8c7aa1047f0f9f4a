"""Gradients of attention: weights are computed again from the scores and their logarithmic sums.

A task is a part of the queries that share one head of keys and values.  It walks over units of
queries and, within one, over blocks of keys; the gradients of keys and values gather in memory of
the part's own, which a second kernel adds up in a fixed order.
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
)
from flambeau.compiler.builder import ARGS, BEGIN, END, I64, KERNEL_PARAMETERS, PTR, Builder, Var
from flambeau.compiler.gemm_micro import TileShape, multiply_add
from flambeau.compiler.gemm_pack import divide, dot, store_narrowed
from flambeau.compiler.target import Target

BACKWARD, SUM_PARTS = "attention_backward", "attention_sum_parts"

# Panels of queries that a unit has: the longer its sums over queries, the less often do the
# gradients of keys and values pass through the registers.
PANELS = 2

# ``dk_sum`` and ``dv_sum`` are where a part's gradients gather, rows of whole vectors; they are
# the results themselves where there is one part.
BACKWARD_WORDS = (
    *operand_words("q", FULL), *operand_words("k", FULL), *operand_words("v", FULL),
    *operand_words("out", FULL), *operand_words("grad", FULL), "lse", *MASK_WORDS,
    *operand_words("dq", DENSE),
    *operand_words("dk_sum", (*DENSE, "_part")), *operand_words("dv_sum", (*DENSE, "_part")),
    "masked", "causal", "scale", "shared_heads", "group", "queries", "keys", "dim", "value_dim",
    "blocks", "units", "parts",
)  # fmt: skip

# ``target = source[0] + source[1] + …``, rounded once; a task is one batch entry and head.
SUM_WORDS = (
    "source", "source_part", "source_task", "source_row", "parts",
    "target", "target_batch", "target_head", "target_row", "heads", "rows", "columns",
)  # fmt: skip


class BackwardKernel(AttentionKernel):
    words_read = BACKWARD_WORDS
    pointers = frozenset({"q", "k", "v", "out", "grad", "lse", "mask", "dq", "dk_sum", "dv_sum"})

    def __init__(self, stored: str, target: Target) -> None:
        super().__init__(stored, target)
        self.width = PANELS * self.tile.columns
        self.block = max(self.tile.rows, self.block // PANELS // self.tile.rows * self.tile.rows)

    def function(self) -> str:
        builder = self.builder
        self.read_words()
        self.allocate()
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(BACKWARD, KERNEL_PARAMETERS)

    def allocate(self) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        dim, value_dim = words["dim"], words["value_dim"]

        def rows(columns: Var, count: int) -> Var:
            return self.scratch(builder.mul(builder.add(columns, tile.columns), count))

        self.queries, self.grads = rows(dim, self.width), rows(value_dim, self.width)
        self.outs = rows(value_dim, tile.columns)
        self.query_panels, self.grad_panels = rows(dim, self.width), rows(value_dim, self.width)
        self.query_sums = rows(dim, self.width)
        self.scores = self.scratch(self.block * self.width)
        self.slopes = self.scratch(self.block * self.width)
        self.mask_panel = self.scratch(self.block * tile.columns)
        self.turned = self.scratch(self.width * tile.lanes)
        self.levels, self.means = self.scratch(self.width), self.scratch(self.width)
        self.wide: dict[str, Var | None] = dict.fromkeys(("q", "k", "v", "out", "grad"))
        if self.memory.converts:
            self.wide["q"], self.wide["grad"] = rows(dim, self.width), rows(value_dim, self.width)
            self.wide["out"] = rows(value_dim, self.width)
            self.wide["k"], self.wide["v"] = rows(dim, self.block), rows(value_dim, self.block)

    # -- a task --------------------------------------------------------------------------------

    def task(self, number: Var, _: list[Var]) -> None:
        builder, words = self.builder, self.words
        entry, part = divide(builder, number, words["parts"])
        self.batch, self.shared_head = divide(builder, entry, words["shared_heads"])
        self.gathered = {}
        for name in ("dk_sum", "dv_sum"):
            start = self.place(name, self.batch, self.shared_head)
            self.gathered[name] = self.at(start, (part, words[f"{name}_part"]))
        self.clear("dk_sum", words["dim"])
        self.clear("dv_sum", words["value_dim"])
        units, parts = words["units"], words["parts"]
        first = builder.div(builder.mul(part, units), parts)
        end = builder.div(builder.mul(builder.add(part, 1), units), parts)
        builder.loop(first, end, 1, [], self.unit)

    def clear(self, name: str, columns: Var) -> None:
        builder, tile = self.builder, self.tile
        whole = builder.add(columns, tile.lanes - 1)

        def row(number: Var, _: list[Var]) -> None:
            start = self.at(self.gathered[name], (number, self.words[f"{name}_row"]))

            def one(at: Var, _: list[Var]) -> None:
                self.store(builder.zero(tile.vector), builder.gep(tile.element, start, at))

            builder.loop(0, whole, tile.lanes, [], one)

        builder.loop(0, self.words["keys"], 1, [], row)

    def unit(self, number: Var, _: list[Var]) -> None:
        """Up to ``width`` queries of one head, against all keys that they see."""
        builder, words = self.builder, self.words
        member, block = divide(builder, number, words["blocks"])
        self.head = builder.add(builder.mul(self.shared_head, words["group"]), member)
        self.first = builder.mul(block, self.width)
        self.valid = builder.min(builder.sub(words["queries"], self.first), self.width)
        self.load_unit()
        seen = builder.min(words["keys"], builder.add(self.first, self.valid))
        self.last_key = builder.select(self.is_causal, seen, words["keys"])
        blocks = builder.div(builder.add(self.last_key, self.block - 1), self.block)
        builder.loop(0, blocks, 1, [], self.key_block)
        self.store_transposed(
            self.query_sums, self.width, self.place("dq", self.batch, self.head, self.first),
            words["dq_row"], self.valid, words["dim"], None, self.turned,
        )  # fmt: skip

    # -- queries of a unit ---------------------------------------------------------------------

    def load_unit(self) -> None:
        builder, tile, words = self.builder, self.tile, self.words
        rows = {}
        for name in ("q", "grad", "out"):
            columns = words["dim" if name == "q" else "value_dim"]
            source = self.place(name, self.batch, self.head, self.first)
            row, col = words[f"{name}_row"], words[f"{name}_col"]
            rows[name] = self.widened(source, row, col, self.valid, columns, self.wide[name])
        log2_e = builder.constant(LOG2_E, tile.element)
        factor = builder.mul(self.scale, log2_e)

        def panel(index: Var, queries: Var) -> None:
            dim, value_dim = words["dim"], words["value_dim"]
            size = tile.columns

            def turn(name: str, columns: Var, target: Var) -> None:
                source, row, col = rows[name]
                source = self.at(source, (builder.mul(index, size), row))
                self.pack(source, row, col, queries, columns, target)

            target = self.at(self.queries, (builder.mul(index, size), dim))
            turn("q", dim, target)
            self.multiply_rows(target, dim, factor)
            grads = self.at(self.grads, (builder.mul(index, size), value_dim))
            turn("grad", value_dim, grads)
            turn("out", value_dim, self.outs)
            self.load_levels(index, queries, grads)

        self.each_panel(panel)
        self.query_rows = self.column_panels(*rows["q"], words["dim"], self.query_panels)
        self.grad_rows = self.column_panels(*rows["grad"], words["value_dim"], self.grad_panels)

    def each_panel(self, body: Callable[[Var, Var], None]) -> None:
        """``body(index, queries)`` for the unit's panels of queries."""
        builder, tile = self.builder, self.tile
        count = builder.div(builder.add(self.valid, tile.columns - 1), tile.columns)

        def panel(index: Var, _: list[Var]) -> None:
            rest = builder.sub(self.valid, builder.mul(index, tile.columns))
            body(index, builder.min(rest, tile.columns))

        builder.loop(0, count, 1, [], panel)

    def load_levels(self, index: Var, queries: Var, grads: Var) -> None:
        """Of each query: the logarithm of its sum, and the mean slope ``grad . out``."""
        builder, tile, words = self.builder, self.tile, self.words

        def add(column: Var, sums: list[Var]) -> list[Var]:
            found = []
            for i, total in enumerate(sums):
                a = self.load(self.vector_at(self.at(grads, (column, tile.columns)), i))
                b = self.load(self.vector_at(self.at(self.outs, (column, tile.columns)), i))
                found.append(multiply_add(builder, tile, a, b, total))
            return found

        zeros = [builder.zero(tile.vector)] * tile.vectors
        _, sums = builder.loop(0, words["value_dim"], 1, zeros, add)
        start = builder.mul(index, tile.columns)
        for i, total in enumerate(sums):
            self.store(total, self.vector_at(self.at(self.means, (start, 1)), i))
        heads = builder.mul(words["shared_heads"], words["group"])
        row = builder.add(builder.mul(self.batch, heads), self.head)
        place = dot(builder, (row, words["queries"]), (builder.constant(1), self.first))
        source = builder.gep(tile.element, words["lse"], builder.add(place, start))

        def copy(at: Var, _: list[Var]) -> None:
            value = builder.load(tile.element, builder.gep(tile.element, source, at), tile.size)
            target = self.at(self.levels, (builder.add(start, at), 1))
            builder.store(value, target, tile.size)

        builder.loop(0, queries, 1, [], copy)

    def column_panels(
        self, source: Var, row: Var, col: Var, columns: Var, buffer: Var
    ) -> tuple[Var, Var, Var]:
        """Rows as the right operand of products: address, stride of panels and of rows.

        In place where columns are dense and fill whole vectors.
        """
        builder, tile = self.builder, self.tile
        whole = builder.compare("eq", builder.rem(columns, tile.lanes), 0)
        in_place = builder.and_(whole, builder.compare("eq", col, 1))
        size = builder.constant(tile.columns)

        def packed() -> list[Var]:
            def panel(index: Var, _: list[Var]) -> None:
                start = builder.mul(index, tile.columns)
                valid = builder.min(builder.sub(columns, start), tile.columns)
                target = self.at(buffer, (start, self.width))
                self.pack(self.at(source, (start, col)), col, row, valid, self.valid, target)

            count = builder.div(builder.add(columns, tile.columns - 1), tile.columns)
            builder.loop(0, count, 1, [], panel)
            return [buffer, builder.constant(tile.columns * self.width), size]

        found = builder.if_else(in_place, lambda: [source, size, row], packed)
        return found[0], found[1], found[2]

    # -- a block of keys -----------------------------------------------------------------------

    def key_block(self, number: Var, _: list[Var]) -> None:
        builder, words = self.builder, self.words
        first = builder.mul(number, self.block)
        rows = builder.min(builder.sub(self.last_key, first), self.block)
        found = {}
        for name, columns in (("k", words["dim"]), ("v", words["value_dim"])):
            source = self.place(name, self.batch, self.shared_head, first)
            row, col = words[f"{name}_row"], words[f"{name}_col"]
            found[name] = self.widened(source, row, col, rows, columns, self.wide[name])
        keys, key_row, key_col = found["k"]

        def panel(index: Var, queries: Var) -> None:
            self.panel_scores(index, queries, first, rows, found)

        self.each_panel(panel)
        self.gather("dv_sum", self.scores, self.grad_rows, words["value_dim"], first, rows)
        self.gather("dk_sum", self.slopes, self.query_rows, words["dim"], first, rows)
        again = builder.convert("zext", builder.compare("sgt", number, 0), "i64")

        def query_sums(index: Var, _: Var) -> None:
            start = builder.mul(index, self.tile.columns)
            self.product(
                a=keys, a_row=key_col, a_k=key_row, rows=words["dim"],
                b=self.at(self.slopes, (start, 1)), b_k=self.width, k=rows,
                c=self.at(self.query_sums, (start, 1)), c_row=self.width, accumulate=again,
                vectors=self.tile.vectors,
            )  # fmt: skip

        self.each_panel(query_sums)

    def panel_scores(
        self,
        index: Var,
        queries: Var,
        first: Var,
        rows: Var,
        found: dict[str, tuple[Var, Var, Var]],
    ) -> None:
        """The weights of one panel, and the gradients of its scores."""
        builder, tile, words = self.builder, self.tile, self.words
        start = builder.mul(index, tile.columns)
        scores, slopes = (self.at(base, (start, 1)) for base in (self.scores, self.slopes))
        for name, columns, right, result in (
            ("k", words["dim"], self.queries, scores),
            ("v", words["value_dim"], self.grads, slopes),
        ):
            source, row, col = found[name]
            self.product(
                a=source, a_row=row, a_k=col, rows=rows, b=self.at(right, (start, columns)),
                b_k=tile.columns, k=columns, c=result, c_row=self.width, accumulate=0,
                vectors=tile.vectors,
            )  # fmt: skip
        query = builder.add(self.first, start)
        place = self.place("mask", self.batch, self.head, query)
        mask = self.at(place, (first, words["mask_col"]))
        self.add_mask(scores, self.width, mask, queries, rows, self.mask_panel)
        self.hide_later(scores, self.width, query, first, rows)
        self.slopes_of(scores, slopes, start, rows)

    def slopes_of(self, scores: Var, slopes: Var, start: Var, rows: Var) -> None:
        """Scores to weights; slopes of weights to slopes of scores, times the scale."""
        builder, tile = self.builder, self.tile
        scale = builder.splat(self.scale, tile.lanes)

        def vectors(base: Var) -> list[Var]:
            address = self.at(base, (start, 1))
            return [self.load(self.vector_at(address, i)) for i in range(tile.vectors)]

        levels, means = vectors(self.levels), vectors(self.means)

        def row(number: Var, _: list[Var]) -> None:
            for i in range(tile.vectors):
                score = self.vector_at(self.at(scores, (number, self.width)), i)
                slope = self.vector_at(self.at(slopes, (number, self.width)), i)
                weight = exp2(builder, tile, builder.sub(self.load(score), levels[i]))
                self.store(weight, score)
                excess = builder.sub(self.load(slope), means[i])
                self.store(builder.mul(builder.mul(weight, scale), excess), slope)

        builder.loop(0, rows, 1, [], row)

    def gather(
        self,
        name: str,
        left: Var,
        right: tuple[Var, Var, Var],
        columns: Var,
        first: Var,
        rows: Var,
    ) -> None:
        """Adds ``left @ right``, summed over the unit's queries, to the gradients of a block."""
        builder, tile = self.builder, self.tile
        source, panel_stride, row_stride = right
        stride = self.words[f"{name}_row"]
        target = self.at(self.gathered[name], (first, stride))

        def panel(index: Var, _: list[Var]) -> None:
            start = builder.mul(index, tile.columns)
            rest = builder.min(builder.sub(columns, start), tile.columns)
            self.product(
                a=left, a_row=self.width, a_k=1, rows=rows,
                b=self.at(source, (index, panel_stride)), b_k=row_stride, k=self.valid,
                c=self.at(target, (start, 1)), c_row=stride,
                accumulate=1, vectors=builder.div(builder.add(rest, tile.lanes - 1), tile.lanes),
            )  # fmt: skip

        count = builder.div(builder.add(columns, tile.columns - 1), tile.columns)
        builder.loop(0, count, 1, [], panel)


def unit_queries(tile: TileShape) -> int:
    """Queries of a unit."""
    return PANELS * tile.columns


def sum_parts_function(memory: TileShape, tile: TileShape) -> tuple[str, Builder]:
    """``attention_sum_parts``; words as in `SUM_WORDS`, strides in elements."""
    builder = Builder()
    words = {
        name: builder.argument(ARGS, index, PTR if name in ("source", "target") else I64)
        for index, name in enumerate(SUM_WORDS)
    }

    def task(number: Var, _: list[Var]) -> None:
        batch, head = divide(builder, number, words["heads"])
        source = builder.gep(
            tile.element, words["source"], builder.mul(number, words["source_task"])
        )
        place = dot(builder, (batch, words["target_batch"]), (head, words["target_head"]))
        target = builder.gep(memory.stored, words["target"], place)

        def row(index: Var, _: list[Var]) -> None:
            start = builder.gep(tile.element, source, builder.mul(index, words["source_row"]))
            goal = builder.gep(memory.stored, target, builder.mul(index, words["target_row"]))

            def piece(at: Var, mask: Var | None, width: int) -> None:
                type_ = tile.vector if width > 1 else tile.element

                def add(part: Var, sums: list[Var]) -> list[Var]:
                    offset = builder.add(builder.mul(part, words["source_part"]), at)
                    address = builder.gep(tile.element, start, offset)
                    return [builder.add(sums[0], builder.load(type_, address, tile.size))]

                _, (total,) = builder.loop(0, words["parts"], 1, [builder.zero(type_)], add)
                address = builder.gep(memory.stored, goal, at)
                store_narrowed(builder, memory, total, address, mask)

            rest, _ = builder.loop(
                0, words["columns"], tile.lanes, [], lambda at, _: piece(at, None, tile.lanes)
            )
            builder.loop(rest, words["columns"], 1, [], lambda at, _: piece(at, None, 1))

        builder.loop(0, words["rows"], 1, [], row)

    builder.loop(BEGIN, END, 1, [], task)
    return builder.function(SUM_PARTS, KERNEL_PARAMETERS), builder
