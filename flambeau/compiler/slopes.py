"""How the values of a kernel change from one element of the innermost loop to the next."""

from __future__ import annotations

from flambeau.compiler.kernel import BROADCAST, IOTA, MEMORY, REVERSED, UNIT, Kernel
from flambeau.core import dtype as types

_LINEAR = frozenset({"add", "sub"})


def inner_slopes(kernel: Kernel) -> list[int | None]:
    """Per instruction 0 where its value stays the same, 1 or -1 for a number that rises or falls
    by one, else None.

    A computed offset of slope 1 or -1 addresses neighbours, so a vector of them is one load.
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
        elif i.dtype is types.int64 and i.operation in _LINEAR and None not in given:
            sign = -1 if i.operation == "sub" else 1
            slopes.append(_small((given[0] or 0) + sign * (given[1] or 0)))
        else:
            slopes.append(None)
    return slopes


def _of_operand(kernel: Kernel, k: int, given: list[int | None]) -> int | None:
    operand = kernel.operands[k]
    if operand.kind == IOTA:
        return {BROADCAST: 0, UNIT: 1, REVERSED: -1}.get(operand.inner)
    if operand.kind == MEMORY:
        return 0 if operand.inner == BROADCAST else None
    return 0 if given == [0] else None


def _small(slope: int) -> int | None:
    return slope if abs(slope) <= 1 else None
