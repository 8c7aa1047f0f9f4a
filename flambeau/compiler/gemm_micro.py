"""The innermost part of a matrix product: a tile of C that stays in registers.

A micro kernel adds ``A[rows, k] @ B[k, columns]`` to one tile of C.  Each element of the tile is
one chain ``c = fma(a, b, c)`` in the order of ``k``, so its value depends on nothing but its own
row of A and column of B: not on the tile's size, its neighbours, or the computing thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flambeau.compiler.builder import Builder, Var, is_float, vector
from flambeau.compiler.target import Target

ELEMENT_SIZES = {
    "half": 2, "bfloat": 2, "float": 4, "double": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8,
}  # fmt: skip

COMPUTED_AS = {"half": "float", "bfloat": "float"}

# Lanes beyond this buy nothing for 8 and 16 bit integers and make the transposing loads huge.
MOST_LANES = 16

# (rows, vectors) of the tile for 32 and for 16 vector registers; the rest holds a row of B and a
# broadcast element of A.  The tile must hide the latency of fma: 2 per cycle, 4 cycles each.
TILE_FOR_REGISTERS = {32: (14, 2), 16: (6, 2)}

# Rows of A are reached as base + {0 .. 4} * stride from one base per five rows, which keeps the
# address registers within the sixteen of x86-64.
ROWS_PER_BASE = 5

# How many rows of B ahead of its loads a micro kernel asks for memory: where B is not packed, each
# row is another page, which the processor does not foresee.
ROWS_AHEAD = 8


@dataclass(frozen=True, slots=True)
class TileShape:
    """The register tile of an element type on a target, and what its instructions can do.

    Operands are ``stored`` in memory and computed with as ``element``: half precision as float.
    ``narrows``: an instruction rounds to ``stored``.
    """

    stored: str
    element: str
    lanes: int
    rows: int
    vectors: int
    registers: int
    masked: bool
    fused: bool
    narrows: bool

    @property
    def size(self) -> int:
        """Bytes of an element in the computation, that is in a register or a packed panel."""
        return ELEMENT_SIZES[self.element]

    @property
    def stored_size(self) -> int:
        return ELEMENT_SIZES[self.stored]

    @property
    def converts(self) -> bool:
        return self.stored != self.element

    @property
    def columns(self) -> int:
        return self.lanes * self.vectors

    @property
    def vector(self) -> str:
        return vector(self.element, self.lanes)


def tile_shape(stored: str, target: Target) -> TileShape:
    """The tile for an LLVM type; where vectors are shorter than 128 bits, LLVM splits them."""
    element = COMPUTED_AS.get(stored, stored)
    features = target.features
    wide = target.vector_bits == 512
    neon = "neon" in features
    registers = 32 if wide or neon else 16
    rows, vectors = TILE_FOR_REGISTERS[registers]
    lanes = min(max(target.vector_bits, 128) // (8 * ELEMENT_SIZES[element]), MOST_LANES)
    return TileShape(
        stored=stored,
        element=element,
        lanes=lanes,
        rows=rows,
        vectors=vectors,
        registers=registers,
        masked=wide or target.vector_bits == 256,
        fused=is_float(element) and (wide or neon or "fma" in features),
        narrows=stored == "bfloat" and "avx512bf16" in features,
    )


def multiply_add(builder: Builder, tile: TileShape, a: Var, b: Var, c: Var) -> Var:
    """``a * b + c``, rounded once where the target can."""
    if tile.fused:
        return builder.fma(a, b, c)
    return builder.add(builder.mul(a, b), c)


def opaque(builder: Builder, value: Var) -> Var:
    """The same value, with its origin hidden from LLVM.

    Knowing that addresses lie one stride apart, the loop pass makes a chain of dependent additions
    of them, which costs more than the multiplications.
    """
    return builder.emit(value.type, f'call {value.type} asm "", "=r,0"({value})')


@dataclass(frozen=True, slots=True)
class Procedure:
    """A function that a module's kernels call: its name and parameters, as LLVM writes them."""

    name: str
    parameters: str

    def values(self) -> dict[str, Var]:
        """The parameters by name, as the body sees them."""
        pairs = [parameter.split(" %") for parameter in self.parameters.split(", ")]
        return {name: Var(type_, f"%{name}") for type_, name in pairs}

    def call(self, builder: Builder, arguments: Mapping[str, Var]) -> None:
        text = ", ".join(str(arguments[name]) for name in self.values())
        builder.do(f"call void @{self.name}({text})")

    def define(self, builder: Builder) -> str:
        return builder.function(self.name, self.parameters, internal=True)


def micro_procedure(height: int, vectors: int) -> Procedure:
    """The micro kernel for a tile of ``height`` rows of ``vectors``; strides in elements."""
    return Procedure(
        f"gemm_micro_{height}x{vectors}",
        "ptr %a, i64 %a_row, i64 %a_k, ptr %b, i64 %b_k, i64 %k, ptr %c, i64 %c_row, "
        "i64 %accumulate",
    )


class MicroKernel:
    """Writes one micro kernel: C (=, or += if ``accumulate``) A @ B."""

    def __init__(self, tile: TileShape, height: int, vectors: int) -> None:
        self.tile, self.height, self.vectors = tile, height, vectors
        self.builder = Builder()
        self.procedure = micro_procedure(height, vectors)
        self.parameters = self.procedure.values()

    def function(self) -> str:
        builder, tile = self.builder, self.tile
        a_row = self.parameters["a_row"]
        self.row_steps = [
            opaque(builder, builder.mul(a_row, row))
            for row in range(min(self.height, ROWS_PER_BASE))
        ]
        self.b_ahead = builder.mul(self.parameters["b_k"], ROWS_AHEAD)
        bases = [
            opaque(builder, builder.gep(tile.element, self.parameters["a"], offset))
            for offset in (builder.mul(a_row, row) for row in range(0, self.height, ROWS_PER_BASE))
        ]
        self.prefetch_result()
        zeros = [builder.zero(tile.vector)] * (self.height * self.vectors)
        initial = [self.parameters["b"], *bases, *zeros]
        _, state = builder.loop(0, self.parameters["k"], 1, initial, self.add_products)
        accumulate = builder.compare("ne", self.parameters["accumulate"], 0)
        sums = state[1 + len(bases) :]
        builder.if_else(accumulate, lambda: self.store(sums, True), lambda: self.store(sums, False))
        return self.procedure.define(builder)

    def prefetch_result(self) -> None:
        """Asks for the tile of C while it is computed: its rows lie on as many pages."""
        builder, tile = self.builder, self.tile
        row = self.parameters["c"]
        for _ in range(self.height):
            for i in range(self.vectors):
                builder.prefetch(builder.gep(tile.element, row, i * tile.lanes), write=True)
            row = builder.gep(tile.element, row, self.parameters["c_row"])

    def add_products(self, _: Var, state: list[Var]) -> list[Var]:
        """One k: a column of A times a row of B."""
        builder, tile = self.builder, self.tile
        base_count = -(-self.height // ROWS_PER_BASE)
        b, bases, sums = state[0], state[1 : 1 + base_count], state[1 + base_count :]
        b_k = self.parameters["b_k"]
        ahead = builder.gep(tile.element, b, self.b_ahead)
        row_of_b = []
        for i in range(self.vectors):
            builder.prefetch(builder.gep(tile.element, ahead, i * tile.lanes))
            address = builder.gep(tile.element, b, i * tile.lanes)
            row_of_b.append(builder.load(tile.vector, address, tile.size))
        updated = []
        for row in range(self.height):
            base, step = bases[row // ROWS_PER_BASE], self.row_steps[row % ROWS_PER_BASE]
            scalar = builder.load(tile.element, builder.gep(tile.element, base, step), tile.size)
            spread = builder.splat(scalar, tile.lanes)
            for i in range(self.vectors):
                chain = sums[row * self.vectors + i]
                updated.append(multiply_add(builder, tile, spread, row_of_b[i], chain))
        a_k = self.parameters["a_k"]
        moved = [builder.gep(tile.element, base, a_k) for base in bases]
        return [builder.gep(tile.element, b, b_k), *moved, *updated]

    def store(self, sums: list[Var], accumulate: bool) -> list[Var]:
        builder, tile = self.builder, self.tile
        row = self.parameters["c"]
        for i in range(0, len(sums), self.vectors):
            for j in range(self.vectors):
                address = builder.gep(tile.element, row, j * tile.lanes)
                value = sums[i + j]
                if accumulate:
                    value = builder.add(builder.load(tile.vector, address, tile.size), value)
                builder.store(value, address, tile.size)
            row = builder.gep(tile.element, row, self.parameters["c_row"])
        return []


def micro_kernels(tile: TileShape) -> list[tuple[str, Builder]]:
    """Every height and width up to the tile's: the last tiles of a matrix are smaller."""
    kernels = [
        MicroKernel(tile, height, vectors)
        for height in range(1, tile.rows + 1)
        for vectors in range(1, tile.vectors + 1)
    ]
    return [(kernel.function(), kernel.builder) for kernel in kernels]


def call_micro_kernel(
    builder: Builder, tile: TileShape, height: Var, vectors: Var, arguments: Mapping[str, Var]
) -> None:
    """Calls the micro kernel of a height and width known at run time."""

    def call(procedure: Procedure) -> Callable[[], None]:
        return lambda: procedure.call(builder, arguments)

    cases = {
        h * tile.vectors + v: call(micro_procedure(h, v))
        for h in range(1, tile.rows + 1)
        for v in range(1, tile.vectors + 1)
    }
    builder.switch(builder.add(builder.mul(height, tile.vectors), vectors), cases)
