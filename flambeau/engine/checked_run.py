"""Running a plan under ``FLAMBEAU_DEBUG_ALLOC=1``: step by step, every access checked.

Instead of one arena each dead result and each workspace has a guarded block of its own, which
exists from the first step that touches it to the last one and is a guard page afterwards.  So a
result read after its place was given away faults, as does every access outside of it; what was
written just outside is found when the step ends.  See `flambeau.backend.debug_allocator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flambeau.backend.allocator import Block
from flambeau.backend.debug_allocator import DebugAllocator
from flambeau.engine.lower import Step
from flambeau.engine.memory import Interval


@dataclass(frozen=True)
class NativeStep:
    """What the executor needs for one step alone: the address of its block."""

    header: np.ndarray

    @property
    def address(self) -> int:
        return int(self.header.ctypes.data)


class CheckedRun:
    """The checked way to run one plan."""

    def __init__(
        self, steps: Sequence[Step], native: Sequence[NativeStep],
        intervals: Sequence[Interval], positions: dict[int, int], table: np.ndarray,
    ) -> None:  # fmt: skip
        """``positions`` says where in the table each interval's address stands."""
        self.steps = steps
        self.native = native
        self.intervals = intervals
        self.positions = positions
        self.table = table

    def run(
        self, allocator: DebugAllocator, execute: Callable[[int], None], outside: Sequence[Block]
    ) -> None:
        """Runs the steps; the table holds everything but the intervals' addresses.

        Raises RuntimeError after the step that wrote outside of its memory.
        """
        before = allocator.activity
        living: dict[int, Block] = {}
        try:
            for k, (step, native) in enumerate(zip(self.steps, self.native, strict=True)):
                allocator.activity = f"in step {k} of {len(self.steps)}, {step!r}"
                for interval in self.intervals:
                    if interval.first == k:
                        block = living[interval.name] = allocator.allocate(interval.nbytes)
                        self.table[self.positions[interval.name]] = block.address
                execute(native.address)
                allocator.check((*outside, *living.values()))
                for interval in self.intervals:
                    if interval.last == k:
                        del living[interval.name]
        finally:
            allocator.activity = before
