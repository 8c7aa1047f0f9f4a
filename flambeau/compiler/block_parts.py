"""Kernels that call other kernels of their module, their parts, for one block of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flambeau.compiler.builder import ARGS, I64, PTR, Builder, Var
from flambeau.compiler.gemm_micro import TileShape


def block_words(parts: Mapping[str, Sequence[str]], control: Sequence[str]) -> tuple[str, ...]:
    """The words of such a kernel: its parts', each as ``part.word``, and then its own."""
    return tuple(f"{part}.{word}" for part, words in parts.items() for word in words) + tuple(
        control
    )


class BlockParts:
    """Calls the parts with copies of their words, in which some are the block's own.

    ``shared`` are the words of the argument block by name.
    """

    def __init__(
        self,
        builder: Builder,
        tile: TileShape,
        parts: Mapping[str, Sequence[str]],
        control: Sequence[str],
    ) -> None:
        self.builder, self.tile, self.parts = builder, tile, parts
        self.words = block_words(parts, control)
        count = len(self.words) - len(control)
        self.local = builder.emit(PTR, f"alloca [{count} x i64], align 8")
        self.shared = {name: builder.argument(ARGS, index) for index, name in enumerate(self.words)}
        for index, name in enumerate(self.words[:count]):
            builder.store(self.shared[name], builder.gep(I64, self.local, index), 8)

    def set(self, name: str, value: Var) -> None:
        place = self.builder.gep(I64, self.local, self.words.index(name))
        self.builder.store(value, place, 8)

    def move(self, name: str, elements: Var) -> None:
        """Sets the address ``name`` to so many elements past the first block's."""
        builder = self.builder
        self.set(name, builder.add(self.shared[name], builder.mul(elements, self.tile.size)))

    def call(self, part: str, begin: Var | int, end: Var) -> None:
        """Runs the tasks ``begin .. end - 1`` of a part."""
        first = self.words.index(f"{part}.{self.parts[part][0]}")
        words = self.builder.gep(I64, self.local, first)
        start = begin if isinstance(begin, Var) else self.builder.constant(begin)
        self.builder.do(f"call void @{part}({words}, {start}, {end})")
