"""The transposition network, run over lists."""

from __future__ import annotations

from typing import Any

import pytest

from flambeau.compiler.transposition import transpose


class Row(list[Any]):
    """A vector as a list, with the type that the network asks for."""

    @property
    def type(self) -> str:
        return f"<{len(self)} x i8>" if len(self) > 1 else "i8"


class Shuffles:
    """Stands for the builder; counts instructions."""

    def __init__(self) -> None:
        self.count = 0

    def shuffle(self, a: Row, b: Row, mask: list[int]) -> Row:
        self.count += 1
        both = [*a, *b]
        return Row(both[n] for n in mask)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_transpose(width, itemsize):
    rows = [Row((r, c) for c in range(width)) for r in range(width)]
    shuffles = Shuffles()
    columns = transpose(shuffles, rows, itemsize)  # type: ignore[arg-type]
    assert columns == [[(r, c) for r in range(width)] for c in range(width)]
    assert shuffles.count == width * (width.bit_length() - 1)
