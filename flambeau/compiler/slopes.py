"""How the values of a kernel change from one element of the innermost loop to the next."""

from __future__ import annotations

from flambeau.compiler.kernel import BROADCAST, IOTA, MEMORY, UNIT, Kernel
from flambeau.core import dtype as types


def inner_slopes(kernel: Kernel) -> list[int | None]:
    """Per instruction 0 where its value stays the same, 1 for a number that rises by one, else
    None.

    A computed offset of slope 1 addresses neighbours, so a vector of them is one load.
    """
    slopes: list[int | None] = []
    for i in kernel.instructions:
        given = [slopes[a] for a in i.arguments]
        if i.operation in ("load", "gather"):
            assert isinstance(i.attribute, int)
            slopes.append(_of_operand(kernel, i.attribute, given))
        elif i.operation == "reduce":
            slopes.append(None)
        elif all(s == 0 for s in given):
            slopes.append(0)
        elif i.dtype is types.int64 and i.operation == "add" and None not in given:
            slopes.append(_small(sum(s for s in given if s is not None)))
        elif i.dtype is types.int64 and i.operation == "sub" and given == [1, 0]:
            slopes.append(1)
        else:
            slopes.append(None)
    return slopes


def _of_operand(kernel: Kernel, k: int, given: list[int | None]) -> int | None:
    operand = kernel.operands[k]
    if operand.kind == IOTA:
        return {BROADCAST: 0, UNIT: 1}.get(operand.inner)
    if operand.kind == MEMORY:
        return 0 if operand.inner == BROADCAST else None
    return 0 if given == [0] else None


def _small(slope: int) -> int | None:
    return slope if slope in (0, 1) else None
