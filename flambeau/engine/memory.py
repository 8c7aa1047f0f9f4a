"""Memory plan: where results that nobody outside the plan sees lie in one arena."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Interval:
    """``name`` needs ``nbytes`` from step ``first`` to step ``last``, both included."""

    name: int
    nbytes: int
    first: int
    last: int


def plan_memory(intervals: Iterable[Interval]) -> tuple[dict[int, int], int]:
    """Offsets by name, and the size of the arena.

    Greedy by size, largest first, each at the lowest offset free during its whole life (Pisarchyk
    and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
    """
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, Interval]] = []
    total = 0
    for interval in sorted(intervals, key=lambda i: (-i.nbytes, i.first, i.name)):
        size = -(-max(interval.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        offset = _lowest_gap(interval, size, placed)
        offsets[interval.name] = offset
        placed.append((offset, offset + size, interval))
        total = max(total, offset + size)
    return offsets, total


def _lowest_gap(interval: Interval, size: int, placed: list[tuple[int, int, Interval]]) -> int:
    busy = sorted(
        (start, end)
        for start, end, other in placed
        if other.first <= interval.last and interval.first <= other.last
    )
    offset = 0
    for start, end in busy:
        if start - offset >= size:
            break
        offset = max(offset, end)
    return offset
