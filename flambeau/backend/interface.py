"""What a device offers to the engine, and the layout of the records that both sides read.

A plan in memory is a block of 8-byte words, so that running it is one native call:

==== ===================== =======================================================================
word `PlanWord`            meaning
==== ===================== =======================================================================
0    RELOCATION_COUNT      records at RELOCATIONS
1    RELOCATIONS           address of {destination address, table index, addend}: before the steps
                           run, ``*(int64*)destination = table[index] + addend``
2    STEP_COUNT            records at STEPS
3    STEPS                 address of {function, argument block, task count, grain}: the function
                           ``void f(ptr args, i64 begin, i64 end)`` covers ``[0, task count)`` in
                           ranges of at least ``grain`` tasks, on any threads, in any order
4    TABLE                 address of the storages' addresses
5    POOL                  `Backend.pool_address`
==== ===================== =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from flambeau.backend.allocator import AllocatorStatistics, Block


class PlanWord(IntEnum):
    """Positions in a plan's block."""

    RELOCATION_COUNT = 0
    RELOCATIONS = 1
    STEP_COUNT = 2
    STEPS = 3
    TABLE = 4
    POOL = 5


PLAN_WORDS = 6
RELOCATION_WORDS = 3
STEP_WORDS = 4


class Backend(Protocol):
    """One device.  Addresses are plain integers; every method may be called from any thread."""

    execute: Callable[[int], None]
    """Runs the plan whose block lies at the address; returns when its results are in memory."""

    allocate: Callable[[int], Block]
    """Memory of so many bytes, aligned to 64, not cleared; freed when the block is collected."""

    @property
    def pool_address(self) -> int:
        """What plans store in `PlanWord.POOL`; constant for the life of the process."""

    def copy(self, destination: int, source: int, nbytes: int) -> None: ...

    def fill(self, destination: int, byte: int, nbytes: int) -> None: ...

    def synchronize(self) -> None:
        """Returns when everything that was started is done."""

    def empty_cache(self) -> None:
        """Gives cached free memory back to the system."""

    def statistics(self) -> AllocatorStatistics: ...
