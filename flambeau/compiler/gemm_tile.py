"""Matrix products tile by tile: choosing micro kernels, finishing tiles with their bias.

Two kernels share the code for one tile.  ``gemm_multiply`` works on panels that were packed before
(or on operands that need no packing); its tasks are blocks of tiles.  ``gemm_small`` packs what it
must into its own stack frame; its tasks are whole products of a batch.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.builder import (
    BEGIN,
    END,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
    is_float,
    vector,
)
from flambeau.compiler.epilogue import EPILOGUE_WORDS, run_epilogue
from flambeau.compiler.gemm_micro import Procedure, TileShape, call_micro_kernel
from flambeau.compiler.gemm_pack import (
    PACK_PANEL,
    choose,
    divide,
    dot,
    load_widened,
    panel_extent,
    panel_start,
    read_words,
    store_narrowed,
)

MULTIPLY, SMALL = "gemm_multiply", "gemm_small"

# What is done to a finished element of C, the same for all kernels.
FINISH_WORDS = ("accumulate", "bias", "bias_kind", *EPILOGUE_WORDS)
NO_BIAS, BIAS_PER_COLUMN, ONE_BIAS = 0, 1, 2

# A panel of A lies at ``a + batch * a_batch + k0 * a_block + row * a_panel`` for the block of k
# that starts at k0 (packed: the block's length for ``a_panel``); one of B likewise, by its column.
# Columns from ``edge_start`` on come from the packed panel ``edge``, for whole vectors of them
# cannot be read from B itself.  A task is ``rows_per_task`` x ``columns_per_task`` panels.  If
# ``packs_a``, the tasks pack their rows of A from ``raw_a`` just before they need them; those of
# other columns have panels of their own, ``a_copy`` elements further on.  If ``packs_b``, they pack
# each panel of B from ``raw_b`` on the stack, which pays if they are the only ones to use it.
MULTIPLY_WORDS = (
    "a", "a_batch", "a_block", "a_panel", "a_row", "a_k", "a_packed",
    "raw_a", "raw_a_batch", "raw_a_row", "raw_a_k", "packs_a", "a_copy",
    "b", "b_batch", "b_block", "b_panel", "b_k", "b_packed",
    "packs_b", "raw_b", "raw_b_batch", "raw_b_col", "raw_b_k",
    "edge", "edge_batch", "edge_start",
    "c", "c_batch", "c_row", "c_col", "m", "n", "k", "block", "blocks",
    "height", "tall_panels", "row_panels", "column_panels",
    "rows_per_task", "columns_per_task", "row_tasks", "column_tasks", *FINISH_WORDS,
)  # fmt: skip

SMALL_WORDS = (
    "a", "a_batch", "a_row", "a_k", "b", "b_batch", "b_k", "b_col",
    "c", "c_batch", "c_row", "c_col", "m", "n", "k",
    "height", "tall_panels", "row_panels", *FINISH_WORDS,
)  # fmt: skip

POINTER_WORDS = ("a", "b", "c", "edge", "bias", "raw_a", "raw_b")

# The longest block of k whose panel of B ``gemm_multiply`` can pack on the stack.
LONGEST_BLOCK = 576

# Stack that ``gemm_small`` packs a panel of B into: k * columns elements must fit.
SCRATCH_BYTES = 32768


def neutral(builder: Builder, type_: str) -> Var:
    """What changes nothing when added: -0.0, since 0.0 would turn -0.0 into 0.0."""
    return builder.constant(-0.0, type_) if is_float(type_) else builder.zero(type_)


FINISH = Procedure(
    "gemm_finish",
    "ptr %source, i64 %source_row, ptr %c, i64 %c_row, i64 %c_col, i64 %rows, i64 %columns, "
    "i64 %accumulate, ptr %bias, i64 %bias_kind",
)


class TileFinisher:
    """Writes ``gemm_finish``: C (=, +=) tile + bias for a tile in memory.

    The tile may lie in C itself (``accumulate`` is 0 then).  Columns are the outer loop, so a
    vector of the bias is loaded once.
    """

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()
        self.parameters = FINISH.values()

    def function(self) -> str:
        builder = self.builder
        self.adds = builder.compare("ne", self.parameters["accumulate"], 0)

        self.all_columns()
        return FINISH.define(builder)

    def all_columns(self) -> None:
        """Whole vectors, then the rest masked or one by one; C with gaps one by one altogether."""
        builder, lanes = self.builder, self.tile.lanes
        columns = self.parameters["columns"]
        dense = builder.compare("eq", self.parameters["c_col"], 1)
        vector_end = builder.select(dense, columns, 0)

        def whole(column: Var, _: list[Var]) -> None:
            self.all_rows(column, lanes, None)

        rest, _ = builder.loop(0, vector_end, lanes, [], whole)

        def scalar(column: Var, _: list[Var]) -> None:
            self.all_rows(column, 1, None)

        def masked() -> None:
            mask = builder.mask(builder.sub(columns, rest), lanes)
            some = builder.compare("slt", rest, columns)
            builder.if_(some, lambda: self.all_rows(rest, lanes, mask))

        def singly() -> None:
            builder.loop(rest, columns, 1, [], scalar)

        if self.tile.masked:
            choose(builder, [dense], [masked, singly])
        else:
            singly()

    def all_rows(self, column: Var, width: int, mask: Var | None) -> None:
        builder, tile = self.builder, self.tile
        type_ = vector(tile.element, width)
        bias = self.bias_at(column, width, mask)
        source = builder.gep(tile.element, self.parameters["source"], column)
        offset = builder.mul(column, self.parameters["c_col"])
        c = builder.gep(tile.stored, self.parameters["c"], offset)

        def row(_: Var, state: list[Var]) -> list[Var]:
            source, c = state
            # Never masked: a tile that does not fill its vectors lies in a buffer that does.
            value = builder.load(type_, source, tile.size)
            old = load_widened(builder, tile, c, width, mask)
            value = builder.add(builder.select(self.adds, old, neutral(builder, type_)), value)
            value = builder.add(value, bias)
            store_narrowed(builder, tile, value, c, mask)
            return [
                builder.gep(tile.element, source, self.parameters["source_row"]),
                builder.gep(tile.stored, c, self.parameters["c_row"]),
            ]

        builder.loop(0, self.parameters["rows"], 1, [source, c], row)

    def bias_at(self, column: Var, width: int, mask: Var | None) -> Var:
        builder, tile = self.builder, self.tile
        bias, kind = self.parameters["bias"], self.parameters["bias_kind"]

        def per_column() -> list[Var]:
            return [
                load_widened(builder, tile, builder.gep(tile.stored, bias, column), width, mask)
            ]

        def one() -> list[Var]:
            return [builder.splat(load_widened(builder, tile, bias, 1), width)]

        def some() -> list[Var]:
            return builder.if_else(builder.compare("eq", kind, BIAS_PER_COLUMN), per_column, one)

        def none() -> list[Var]:
            return [neutral(builder, vector(tile.element, width))]

        return builder.if_else(builder.compare("ne", kind, NO_BIAS), some, none)[0]


TILE = Procedure(
    "gemm_tile",
    "ptr %a, i64 %a_row, i64 %a_k, ptr %b, i64 %b_k, i64 %k, ptr %c, i64 %c_row, i64 %c_col, "
    "i64 %rows, i64 %columns, i64 %accumulate, ptr %bias, i64 %bias_kind",
)


def tile_function(tile: TileShape) -> tuple[str, Builder]:
    """``gemm_tile``: one tile of C, straight into C where it fills whole vectors there."""
    builder = Builder()
    parameters = TILE.values()
    columns, accumulate = parameters["columns"], parameters["accumulate"]
    buffer_type = f"[{tile.rows * tile.columns} x {tile.element}]"
    buffer = builder.emit(PTR, f"alloca {buffer_type}, align 64")
    vectors = builder.div(builder.add(columns, tile.lanes - 1), tile.lanes)
    whole = builder.compare("eq", builder.mul(vectors, tile.lanes), columns)
    dense = builder.compare("eq", parameters["c_col"], 1)
    zero = builder.constant(0)

    def multiply(**where: Var) -> None:
        call_micro_kernel(builder, tile, parameters["rows"], vectors, parameters | where)

    def finish(**where: Var) -> None:
        FINISH.call(builder, parameters | where)

    def in_place() -> None:
        multiply()
        builder.if_(
            builder.compare("ne", parameters["bias_kind"], 0),
            lambda: finish(source=parameters["c"], source_row=parameters["c_row"], accumulate=zero),
        )

    def through_buffer() -> None:
        width = builder.constant(tile.columns)
        multiply(c=buffer, c_row=width, accumulate=zero)
        finish(source=buffer, source_row=width, accumulate=accumulate)

    direct = builder.and_(whole, dense)
    if tile.converts:
        through_buffer()
    else:
        choose(builder, [direct], [in_place, through_buffer])
    return TILE.define(builder), builder


class MultiplyKernel:
    """Writes ``gemm_multiply``; words as in `MULTIPLY_WORDS`, a task is a block of tiles."""

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()

    def function(self) -> str:
        builder, tile = self.builder, self.tile
        panel_type = f"[{LONGEST_BLOCK * tile.columns} x {tile.element}]"
        self.panel = builder.emit(PTR, f"alloca {panel_type}, align 64")
        self.words = read_words(builder, MULTIPLY_WORDS, POINTER_WORDS)
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(MULTIPLY, KERNEL_PARAMETERS)

    def task(self, number: Var, _: list[Var]) -> None:
        """Blocks of k outside, so that the task's part of C stays in the cache."""
        builder, words = self.builder, self.words
        rest, self.column_block = divide(builder, number, words["column_tasks"])
        column_block = self.column_block
        self.batch, row_block = divide(builder, rest, words["row_tasks"])
        self.rows = self.range(row_block, words["rows_per_task"], words["row_panels"])
        columns = self.range(column_block, words["columns_per_task"], words["column_panels"])

        def block(index: Var, _: list[Var]) -> None:
            self.enter_block(index)
            builder.loop(*columns, 1, [], self.column_panel)

        builder.loop(0, words["blocks"], 1, [], block)
        first_row = builder.mul(self.batch, words["m"])
        rows = [
            panel_start(builder, panel, words["height"], words["tall_panels"])
            for panel in self.rows
        ]
        start, end = (builder.mul(panel, self.tile.columns) for panel in columns)
        run_epilogue(
            builder,
            words,
            (builder.add(first_row, rows[0]), builder.add(first_row, rows[1])),
            (start, builder.min(end, words["n"])),
        )

    def range(self, index: Var, size: Var, limit: Var) -> tuple[Var, Var]:
        builder = self.builder
        start = builder.mul(index, size)
        return start, builder.min(builder.add(start, size), limit)

    def enter_block(self, index: Var) -> None:
        """Sets the operands' addresses, and what is done to C, for one block of k."""
        builder, words = self.builder, self.words
        first_k = builder.mul(index, words["block"])
        k = builder.min(builder.sub(words["k"], first_k), words["block"])
        is_first = builder.compare("eq", index, 0)
        is_last = builder.compare("eq", builder.add(index, 1), words["blocks"])
        self.state = {
            "k": k,
            "accumulate": builder.select(is_first, words["accumulate"], 1),
            "bias_kind": builder.select(is_last, words["bias_kind"], NO_BIAS),
        }
        for name in ("a", "b"):
            packed = builder.compare("ne", words[f"{name}_packed"], 0)
            self.state[f"{name}_panel"] = builder.select(packed, k, words[f"{name}_panel"])
            offset = dot(
                builder,
                (self.batch, words[f"{name}_batch"]),
                (first_k, words[f"{name}_block"]),
            )
            self.state[name] = builder.gep(self.tile.element, words[name], offset)
        offset = builder.mul(self.column_block, words["a_copy"])
        self.state["a"] = builder.gep(self.tile.element, self.state["a"], offset)
        place = (self.batch, words["raw_b_batch"]), (first_k, words["raw_b_k"])
        self.state["raw_b"] = builder.gep(self.tile.stored, words["raw_b"], dot(builder, *place))
        packs = builder.compare("ne", words["packs_a"], 0)
        builder.if_(packs, lambda: self.pack_rows(first_k, k))
        width = builder.constant(self.tile.columns)
        offset = dot(builder, (self.batch, words["edge_batch"]), (first_k, width))
        self.state["edge"] = builder.gep(self.tile.element, words["edge"], offset)
        offset = builder.mul(self.batch, words["c_batch"])
        self.state["c"] = builder.gep(self.tile.stored, words["c"], offset)

    def pack_rows(self, first_k: Var, k: Var) -> None:
        """The task's rows of A over one block of k."""
        builder, words, tile = self.builder, self.words, self.tile
        place = (self.batch, words["raw_a_batch"]), (first_k, words["raw_a_k"])
        source = builder.gep(tile.stored, words["raw_a"], dot(builder, *place))

        def panel(number: Var, _: list[Var]) -> None:
            start, height = panel_extent(builder, number, words)
            place = builder.mul(start, words["raw_a_row"])
            arguments = {
                "source": builder.gep(tile.stored, source, place),
                "stride_k": words["raw_a_k"],
                "stride_x": words["raw_a_row"],
                "valid": height,
                "target": builder.gep(tile.element, self.state["a"], builder.mul(start, k)),
                "width": height,
                "k": k,
            }
            PACK_PANEL.call(builder, arguments)

        builder.loop(*self.rows, 1, [], panel)

    def pack_columns(self, column: Var, columns: Var) -> None:
        """One panel of B over one block of k."""
        builder, words, tile = self.builder, self.words, self.tile
        place = builder.mul(column, words["raw_b_col"])
        arguments = {
            "source": builder.gep(tile.stored, self.state["raw_b"], place),
            "stride_k": words["raw_b_k"],
            "stride_x": words["raw_b_col"],
            "valid": columns,
            "target": self.panel,
            "width": builder.constant(tile.columns),
            "k": self.state["k"],
        }
        PACK_PANEL.call(builder, arguments)

    def column_panel(self, panel: Var, _: list[Var]) -> None:
        """The tiles of one panel of B: it stays in the nearest cache meanwhile."""
        builder, words, tile, state = self.builder, self.words, self.tile, self.state
        column = builder.mul(panel, tile.columns)
        columns = builder.min(builder.sub(words["n"], column), tile.columns)
        packs = builder.compare("ne", words["packs_b"], 0)
        builder.if_(packs, lambda: self.pack_columns(column, columns))
        at_edge = builder.compare("sge", column, words["edge_start"])
        inner = builder.gep(tile.element, state["b"], builder.mul(column, state["b_panel"]))
        c = builder.gep(tile.stored, state["c"], builder.mul(column, words["c_col"]))
        tile_words = {
            "b": builder.select(packs, self.panel, builder.select(at_edge, state["edge"], inner)),
            "b_k": builder.select(
                builder.or_(packs, at_edge), builder.constant(tile.columns), words["b_k"]
            ),
            "c": c,
            "columns": columns,
            "bias": move_bias(builder, tile, words, column),
        }
        column_of_tiles(builder, tile, words | state | tile_words, self.rows)


def column_of_tiles(
    builder: Builder, tile: TileShape, words: dict[str, Var], panels: tuple[Var | int, Var]
) -> None:
    """The tiles of the row panels in a range, for one panel of B.

    ``words`` are those of `TILE`, with ``a`` and ``c`` at row 0, and ``a_panel`` and ``a_packed``.
    Tiles that need no finishing are left to the micro kernels alone: a short k has many of them.
    """
    columns = words["columns"]
    vectors = builder.div(builder.add(columns, tile.lanes - 1), tile.lanes)
    packed = builder.compare("ne", words["a_packed"], 0)

    def row_panel(call: Callable[[dict[str, Var]], None], panel: Var) -> None:
        start, height = panel_extent(builder, panel, words)
        a_offset = builder.mul(start, words["a_panel"])
        c_offset = builder.mul(start, words["c_row"])
        call(
            words
            | {
                "a": builder.gep(tile.element, words["a"], a_offset),
                "a_k": builder.select(packed, height, words["a_k"]),
                "c": builder.gep(tile.stored, words["c"], c_offset),
                "rows": height,
            }
        )

    def plain(panel: Var, _: list[Var]) -> None:
        row_panel(
            lambda words: call_micro_kernel(builder, tile, words["rows"], vectors, words), panel
        )

    def finished(panel: Var, _: list[Var]) -> None:
        row_panel(lambda words: TILE.call(builder, words), panel)

    if tile.converts:
        builder.loop(*panels, 1, [], finished)
        return
    ragged = builder.sub(builder.mul(vectors, tile.lanes), columns)
    spread = builder.sub(words["c_col"], 1)
    special = builder.or_(builder.or_(ragged, spread), words["bias_kind"])
    ways = [
        lambda: builder.loop(*panels, 1, [], plain),
        lambda: builder.loop(*panels, 1, [], finished),
    ]
    choose(builder, [builder.compare("eq", special, 0)], ways)


def move_bias(builder: Builder, tile: TileShape, words: dict[str, Var], column: Var) -> Var:
    """The bias of the columns from ``column`` on."""
    per_column = builder.compare("eq", words["bias_kind"], BIAS_PER_COLUMN)
    return builder.gep(tile.stored, words["bias"], builder.select(per_column, column, 0))


class SmallKernel:
    """Writes ``gemm_small``; words as in `SMALL_WORDS`, a task is one product of the batch."""

    def __init__(self, tile: TileShape) -> None:
        self.tile = tile
        self.builder = Builder()

    def function(self) -> str:
        builder, tile = self.builder, self.tile
        scratch_type = f"[{SCRATCH_BYTES // tile.size} x {tile.element}]"
        self.scratch = builder.emit(PTR, f"alloca {scratch_type}, align 64")
        self.words = read_words(builder, SMALL_WORDS, POINTER_WORDS)
        builder.loop(BEGIN, END, 1, [], self.task)
        return builder.function(SMALL, KERNEL_PARAMETERS)

    def task(self, batch: Var, _: list[Var]) -> None:
        builder, words, tile = self.builder, self.words, self.tile
        self.start = {
            name: builder.gep(tile.stored, words[name], builder.mul(batch, words[f"{name}_batch"]))
            for name in ("a", "b", "c")
        }
        end = builder.add(words["n"], tile.columns - 1)
        builder.loop(0, end, tile.columns, [], self.column_panel)
        first_row = builder.mul(batch, words["m"])
        rows = first_row, builder.add(first_row, words["m"])
        run_epilogue(builder, words, rows, (builder.constant(0), words["n"]))

    def column_panel(self, column: Var, _: list[Var]) -> None:
        builder, words, tile = self.builder, self.words, self.tile
        columns = builder.min(builder.sub(words["n"], column), tile.columns)
        b, b_k = self.readable_panel(column, columns)
        c_offset = builder.mul(column, words["c_col"])
        tile_words = self.start | {
            "b": b,
            "b_k": b_k,
            "c": builder.gep(tile.stored, self.start["c"], c_offset),
            "columns": columns,
            "a_panel": words["a_row"],
            "a_packed": builder.constant(0),
            "bias": move_bias(builder, tile, words, column),
        }
        column_of_tiles(builder, tile, words | tile_words, (0, words["row_panels"]))

    def readable_panel(self, column: Var, columns: Var) -> tuple[Var, Var]:
        """A panel of B (its address and stride along k) whose whole vectors may be read."""
        builder, words, tile = self.builder, self.words, self.tile
        source = builder.gep(tile.stored, self.start["b"], builder.mul(column, words["b_col"]))
        whole = builder.compare("eq", builder.rem(columns, tile.lanes), 0)
        dense = builder.compare("eq", words["b_col"], 1)
        width = builder.constant(tile.columns)

        def pack() -> list[Var]:
            arguments = {
                "source": source,
                "stride_k": words["b_k"],
                "stride_x": words["b_col"],
                "valid": columns,
                "target": self.scratch,
                "width": width,
                "k": words["k"],
            }
            PACK_PANEL.call(builder, arguments)
            return [self.scratch, width]

        b, b_k = builder.if_else(builder.and_(whole, dense), lambda: [source, words["b_k"]], pack)
        return b, b_k


def tile_functions(tile: TileShape) -> list[tuple[str, Builder]]:
    finisher = TileFinisher(tile)
    multiply = MultiplyKernel(tile)
    functions = [
        (finisher.function(), finisher.builder),
        tile_function(tile),
        (multiply.function(), multiply.builder),
    ]
    if not tile.converts:
        small = SmallKernel(tile)
        functions.append((small.function(), small.builder))
    return functions
