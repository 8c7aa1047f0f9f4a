"""The allocator of ``FLAMBEAU_DEBUG_ALLOC=1``: every misuse of memory is reported where it happens.

Each block has a mapping of its own between two pages that nobody may touch, its end as close to the
second as the alignment allows::

    | guard page | red zone ... | block, filled with ones | red zone < 64 | guard page |

Reading or writing a guard page faults at once, and the report names the step that did it.  Writes
into a red zone are found when the step ends (`check`) or the block is freed.  Fresh memory is
NaN in every floating type and -1 in integers, so a result that was left out is seen.  Freed blocks
become guard pages too and their addresses are not used again for a long time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable

from flambeau.backend.allocator import (
    ALIGNMENT,
    AllocatorStatistics,
    Block,
    CachingAllocator,
    mapped,
    unmap,
)

_PAGE = 4096
_FRESH = 0xFF
_RED = 0xA5
_QUARANTINE = 2000

_libc = ctypes.CDLL(None, use_errno=True)
_protect = _libc.mprotect
_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_advise = _libc.madvise
_advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_NO_ACCESS, _READ_AND_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
_FORGET_CONTENTS = 4


class CheckedBlock(Block):
    """A block between guard pages; ``mapping`` is where its first guard page starts."""

    __slots__ = ("_allocator", "mapping", "maker", "pages")

    def __init__(
        self, allocator: DebugAllocator, mapping: int, pages: int, nbytes: int, maker: str
    ) -> None:
        self._allocator = allocator
        self.mapping = mapping
        self.pages = pages
        self.nbytes = nbytes
        self.maker = maker
        self.address = self.end - -(-nbytes // ALIGNMENT) * ALIGNMENT

    def __del__(self) -> None:
        self._allocator.release(self)

    @property
    def capacity(self) -> int:
        return self.nbytes

    @property
    def end(self) -> int:
        """Where the second guard page starts."""
        return self.mapping + (1 + self.pages) * _PAGE

    def damage(self) -> str:
        """What was written outside the block; empty if nothing was."""
        start = self.mapping + _PAGE
        before = ctypes.string_at(start, self.address - start)
        if before.strip(_RED_BYTE):
            last = len(before.rstrip(_RED_BYTE))
            return f"up to byte {last - len(before) - 1}"
        past = self.address + self.nbytes
        after = ctypes.string_at(past, self.end - past)
        if after.strip(_RED_BYTE):
            return f"from byte {self.nbytes + len(after) - len(after.lstrip(_RED_BYTE))}"
        return ""

    def describe(self) -> str:
        return f"a block of {self.nbytes} bytes at {self.address:#x} allocated {self.maker}"


_RED_BYTE = bytes([_RED])


class DebugAllocator(CachingAllocator):
    """Hands out `CheckedBlock`s; keeps nothing for reuse.

    ``report_faults`` takes over the process's handlers of bad addresses.
    """

    def __init__(self, report_faults: bool = True) -> None:
        super().__init__(cache_limit=0)
        self.activity = "outside of any step"
        """What runs now, for reports."""
        self._living: dict[int, tuple[int, int, str]] = {}
        self._freed: deque[tuple[int, int, int, str]] = deque()
        self._current = 0
        self._largest = 0
        if report_faults:
            _report_faults(self)

    def allocate(self, nbytes: int) -> Block:
        """As the caching allocator; a mapping of its own for every block."""
        pages = max(1, -(-nbytes // _PAGE))
        mapping = mapped((pages + 2) * _PAGE, _NO_ACCESS)
        if not mapping:
            self.empty_cache()
            mapping = mapped((pages + 2) * _PAGE, _NO_ACCESS)
        if not mapping or _protect(mapping + _PAGE, pages * _PAGE, _READ_AND_WRITE):
            raise self.out_of_memory(nbytes)
        block = CheckedBlock(self, mapping, pages, nbytes, self.activity)
        ctypes.memset(mapping + _PAGE, _RED, pages * _PAGE)
        ctypes.memset(block.address, _FRESH, nbytes)
        self._living[mapping] = (pages, nbytes, self.activity)
        self._system_allocations += 1
        self._current += nbytes
        self._largest = max(self._largest, self._current)
        return block

    def release(self, block: CheckedBlock) -> None:
        """The end of a block's life: its pages become guards."""
        damage = block.damage()
        if damage:
            print(_overrun(block, damage, f"found when it was freed {self.activity}"), flush=True,
                  file=sys.stderr)  # fmt: skip
            os.abort()
        size = block.pages * _PAGE
        _advise(block.mapping + _PAGE, size, _FORGET_CONTENTS)
        _protect(block.mapping + _PAGE, size, _NO_ACCESS)
        self._living.pop(block.mapping, None)
        self._current -= block.nbytes
        self._freed.append((block.mapping, block.pages, block.nbytes, block.maker))
        while len(self._freed) > _QUARANTINE:
            mapping, pages, _, _ = self._freed.popleft()
            unmap(mapping, (pages + 2) * _PAGE)

    def check(self, blocks: Iterable[Block | None]) -> None:
        """Raises RuntimeError if anything was written just outside one of the blocks."""
        for block in blocks:
            damage = block.damage() if isinstance(block, CheckedBlock) else ""
            if damage:
                assert isinstance(block, CheckedBlock)
                text = _overrun(block, damage, f"found after {self.activity}")
                self._repair(block)
                raise RuntimeError(text)

    def _repair(self, block: CheckedBlock) -> None:
        """Red zones as they were, so that one mistake is reported once."""
        start, past = block.mapping + _PAGE, block.address + block.nbytes
        ctypes.memset(start, _RED, block.address - start)
        ctypes.memset(past, _RED, block.end - past)

    def place(self, address: int) -> str:
        """Where an address lies relative to the blocks, for the report of a fault."""
        known = [(m, p, n, a, "") for m, (p, n, a) in self._living.items()]
        known += [(m, p, n, a, "freed ") for m, p, n, a in self._freed]
        for mapping, pages, nbytes, maker, freed in known:
            if mapping <= address < mapping + (pages + 2) * _PAGE:
                start = mapping + (1 + pages) * _PAGE - -(-nbytes // ALIGNMENT) * ALIGNMENT
                return (
                    f"byte {address - start} of a {freed}block of {nbytes} bytes allocated {maker}"
                )
        return "no block of flambeau's"

    def empty_cache(self) -> None:
        while self._freed:
            mapping, pages, _, _ = self._freed.popleft()
            unmap(mapping, (pages + 2) * _PAGE)

    def reset_peaks(self) -> None:
        self._largest = self._current

    def trim(self) -> None:
        """Nothing is kept for reuse."""

    def statistics(self) -> AllocatorStatistics:
        return AllocatorStatistics(
            current=self._current,
            cached=0,
            reserved=self._current,
            peak=self._largest,
            peak_current=self._largest,
            system_allocations=self._system_allocations,
        )


def _overrun(block: CheckedBlock, damage: str, when: str) -> str:
    return (
        f"FLAMBEAU_DEBUG_ALLOC: something wrote outside {block.describe()}, {damage}; {when}. "
        "This is a bug in flambeau; please report it with this text."
    )


# -- faults --------------------------------------------------------------------------------------


class _SignalAction(ctypes.Structure):
    """The C library's ``struct sigaction`` on Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_WITH_INFORMATION = 4
_ADDRESS_OFFSET = 16
_handlers: list[object] = []


def _report_faults(allocator: DebugAllocator) -> None:
    """From now on a segmentation fault says which step touched which block, then ends the process.

    Kernels run without the interpreter's lock, so the handler may be Python.
    """
    if sys.platform != "linux":
        return

    def report(number: int, information: int, _: int) -> None:
        address = ctypes.c_uint64.from_address(information + _ADDRESS_OFFSET).value
        text = (
            f"FLAMBEAU_DEBUG_ALLOC: {signal.Signals(number).name} {allocator.activity} at "
            f"{address:#x}, {allocator.place(address)}. This is a bug in flambeau; please report "
            "it with this text."
        )
        print(text, file=sys.stderr, flush=True)
        os.abort()

    handler = _Handler(report)
    action = _SignalAction(ctypes.cast(handler, ctypes.c_void_p), flags=_WITH_INFORMATION)
    _handlers.append((handler, action))
    for number in (signal.SIGSEGV, signal.SIGBUS):
        _libc.sigaction(int(number), ctypes.byref(action), None)
