"""Square tiles of memory transposed in registers: rows in, columns out.

The network works on 128-bit lanes first, by unpacking (one instruction of every vector set), then
exchanges whole lanes between registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.compiler.builder import Builder, Var, lanes

_LANE_BYTES = 16


def transpose(b: Builder, rows: Sequence[Var], itemsize: int) -> list[Var]:
    """As many vectors as each has elements (a power of two), transposed."""
    width = len(rows)
    assert width == lanes(rows[0].type), "a tile is square"
    lane = min(width, max(1, _LANE_BYTES // itemsize))
    vectors: list[Var] = []
    for first in range(0, width, lane):
        vectors += _within_lanes(b, rows[first : first + lane], width)
    return _across_lanes(b, vectors, lane)


def _within_lanes(b: Builder, rows: Sequence[Var], width: int) -> list[Var]:
    """Each lane of ``len(rows)`` vectors transposed by itself."""
    lane = len(rows)
    half = lane // 2
    low = [n for at in range(0, width, lane) for k in range(half) for n in (at + k, width + at + k)]
    high = [n + half for n in low]
    vectors = list(rows)
    for _ in range(lane.bit_length() - 1):
        pairs = [(vectors[k], vectors[k + half]) for k in range(half)]
        vectors = [b.shuffle(x, y, mask) for x, y in pairs for mask in (low, high)]
    return vectors


def _across_lanes(b: Builder, vectors: list[Var], lane: int) -> list[Var]:
    """Vector ``g * lane + c`` holds columns ``c, lane + c …`` of row group ``g``."""
    width = len(vectors)
    count = width // lane
    distance = count // 2
    while distance:
        low = _exchange(range(count), distance, lane, width, upper=False)
        high = _exchange(range(count), distance, lane, width, upper=True)
        for group in range(count):
            if group & distance:
                continue
            for c in range(lane):
                at, other = group * lane + c, (group + distance) * lane + c
                x, y = vectors[at], vectors[other]
                vectors[at], vectors[other] = b.shuffle(x, y, low), b.shuffle(x, y, high)
        distance //= 2
    return vectors


def _exchange(
    groups: Sequence[int], distance: int, lane: int, width: int, *, upper: bool
) -> list[int]:
    """A shuffle of whole lanes: those below ``distance`` from the one vector, the rest from the
    other.
    """
    mask: list[int] = []
    for g in groups:
        source = (g | distance) if upper else (g & ~distance)
        start = source * lane + (width if g & distance else 0)
        mask += range(start, start + lane)
    return mask
