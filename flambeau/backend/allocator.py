"""The CPU's caching allocator: fresh pages are what costs, so freed memory is kept and reused.

Sizes are rounded up to classes; each class has a list of free addresses.  Taking from a list and
putting back are single list operations, which are atomic, so the usual path needs no lock and may
run in ``__del__`` at any moment.  Small classes are cut from slabs; large blocks are mapped one by
one, on huge pages.  An idle large block also serves requests down to half its size, and goes back
to the system when too much lies idle or the machine runs short of memory.

The largest amount alive at once is measured from the first time that somebody asks for it
(`CpuBackend.watch_peak`): the usual path counts nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

ALIGNMENT = 64
SMALL_LIMIT = 1 << 20
"""Blocks up to this size are cut from slabs and never return to the system."""
_SLAB_SIZE = 4 << 20
_HUGE_PAGE = 2 << 20
_new_object = object.__new__


@dataclass(frozen=True, slots=True)
class AllocatorStatistics:
    """Bytes, by class sizes (so at least what was asked for)."""

    current: int
    """in blocks that are alive"""
    cached: int
    """in free blocks, ready for reuse"""
    reserved: int
    """taken from the system: current + cached + what is left of slabs"""
    peak: int
    """the largest ``reserved`` so far"""
    peak_current: int
    """the largest ``current`` that was seen; exact since `CpuBackend.watch_peak`"""
    system_allocations: int
    """requests that no free block could serve"""
    small: int = 0
    """the part of ``current`` that was cut from slabs"""
    failures: int = 0
    """requests that could not be served at all"""


class Block:
    """Memory at ``address``: ``nbytes`` were asked for; collected, it returns to its free list."""

    __slots__ = ("_free", "address", "nbytes")

    def __init__(self, address: int, nbytes: int, free: list[int]) -> None:
        self.address = address
        self.nbytes = nbytes
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.address)

    @property
    def capacity(self) -> int:
        """Bytes that may be used without another allocation."""
        return class_size(self.nbytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address:#x}, {self.nbytes} bytes)"


class LargeBlock(Block):
    """A block with its own mapping; freeing it may give idle memory back to the system."""

    __slots__ = ("_allocator",)

    def __init__(
        self, address: int, nbytes: int, free: list[int], allocator: CachingAllocator
    ) -> None:
        self.address = address
        self.nbytes = nbytes
        self._free = free
        self._allocator = allocator

    def __del__(self) -> None:
        self._free.append(self.address)
        self._allocator.trim()


class ExternalBlock(Block):
    """Memory that somebody else owns; the block keeps the owner alive and frees nothing."""

    __slots__ = ("owner",)

    def __init__(self, address: int, nbytes: int, owner: object) -> None:
        self.address = address
        self.nbytes = nbytes
        self.owner = owner

    def __del__(self) -> None:
        pass

    @property
    def capacity(self) -> int:
        return self.nbytes


def _small_classes() -> tuple[int, ...]:
    """64, 128 … 512 in steps of 64, then four sizes per doubling: at most a quarter is unused."""
    sizes = list(range(ALIGNMENT, 513, ALIGNMENT))
    while sizes[-1] < SMALL_LIMIT:
        base = sizes[-1]
        sizes += (base * 5 // 4, base * 3 // 2, base * 7 // 4, base * 2)
    return tuple(sizes)


_CLASSES = _small_classes()


def class_size(nbytes: int) -> int:
    """The bytes that a request of ``nbytes`` gets."""
    if nbytes <= SMALL_LIMIT:
        return _CLASSES[bisect_left(_CLASSES, nbytes)]
    # Large: eight sizes per doubling, whole huge pages from 16 MiB on.
    step = max(1 << (nbytes.bit_length() - 4), 4096)
    if nbytes >= 16 << 20:
        step = max(step, _HUGE_PAGE)
    return (nbytes + step - 1) // step * step


class CachingAllocator:
    """Hands out `Block`s; thread-safe."""

    def __init__(self, cache_limit: int | None = None) -> None:
        self._small: tuple[list[int], ...] = tuple([] for _ in _CLASSES)
        # The free list for each size in units of 64 bytes, so that none is searched for.
        self._by_line: list[list[int]] = [self._small[0]]
        for size, free in zip(_CLASSES, self._small, strict=True):
            self._by_line += [free] * (size // ALIGNMENT + 1 - len(self._by_line))
        self._large: dict[int, list[int]] = {}
        self._lock = threading.RLock()
        self._slab_at = 0
        self._slab_end = 0
        self._slabs = 0
        self._reserved = 0
        self._peak = 0
        self._peak_current = 0
        self._system_allocations = 0
        self._failures = 0
        self.cache_limit = cache_limit if cache_limit is not None else _default_cache_limit()
        """Bytes that idle large blocks may take before they return to the system."""

    def allocate(self, nbytes: int) -> Block:
        """A block of at least ``nbytes`` (0 is fine), aligned to 64; its contents are undefined.

        ``nbytes`` is not negative.  Raises RuntimeError in PyTorch's words when memory runs out.
        """
        try:
            # An IndexError is either a large request or an empty list: both leave the usual path.
            free = self._by_line[(nbytes + 63) >> 6]
            address = free.pop()
        except IndexError:
            return self._allocate_slowly(nbytes)
        # Not Block(...): a constructor that runs Python code doubles the cost.
        block: Block = _new_object(Block)
        block.address = address
        block.nbytes = nbytes
        block._free = free
        return block

    def _allocate_slowly(self, nbytes: int) -> Block:
        if nbytes <= SMALL_LIMIT:
            number = bisect_left(_CLASSES, nbytes)
            free = self._small[number]
            return Block(_pop(free) or self._cut(_CLASSES[number], free), nbytes, free)
        size = class_size(nbytes)
        free = self._large.get(size) or self._large.setdefault(size, [])
        address = _pop(free)
        if address:
            return LargeBlock(address, nbytes, free, self)
        for larger in self._fitting(size):
            address = _pop(larger)
            if address:
                return LargeBlock(address, nbytes, larger, self)
        self._make_room(size)
        return LargeBlock(self._map(size, nbytes), nbytes, free, self)

    def _fitting(self, size: int) -> list[list[int]]:
        """The lists of idle large blocks of that size up to twice as much, the smallest first."""
        sizes = sorted(
            s for s, free in tuple(self._large.items()) if free and size <= s <= 2 * size
        )
        return [self._large[s] for s in sizes]

    def _make_room(self, size: int) -> None:
        """Before ``size`` more bytes are mapped: idle blocks go if they take too much memory."""
        idle = self._idle()
        if not idle:
            return
        excess = idle + size - max(self.cache_limit, size)
        if available_memory() - size < self.cache_limit // 8:
            excess = max(excess, size)
        if excess > 0:
            self._release(excess)

    def _idle(self) -> int:
        return sum(size * len(free) for size, free in tuple(self._large.items()))

    def watched_allocate(self, nbytes: int) -> Block:
        """`allocate`, measuring how much is alive at once."""
        block = self.allocate(nbytes)
        self._note_current()
        return block

    def _note_current(self) -> None:
        self._peak_current = max(self._peak_current, self.statistics().current)

    def _cut(self, size: int, free: list[int]) -> int:
        """The next piece of the current slab; small sizes are cut several at a time."""
        with self._lock:
            self._system_allocations += 1
            count = min(32, max(1, 16384 // size))
            if self._slab_end - self._slab_at < size * count:
                # In this order a fork by another thread finds a usable state at any moment.
                self._slab_end = 0
                self._slab_at = self._map(_SLAB_SIZE, size)
                self._slabs += 1
                self._slab_end = self._slab_at + _SLAB_SIZE
            address = self._slab_at
            self._slab_at += size * count
        free.extend(address + k * size for k in range(count - 1, 0, -1))
        return address

    def _map(self, size: int, nbytes: int) -> int:
        with self._lock:
            self._system_allocations += 1
            address = map_memory(size)
            if not address:
                self.empty_cache()
                address = map_memory(size)
            if not address:
                self._failures += 1
                raise self.out_of_memory(nbytes)
            self._reserved += size
            self._peak = max(self._peak, self._reserved)
        return address

    @staticmethod
    def out_of_memory(nbytes: int) -> RuntimeError:
        return RuntimeError(
            f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {nbytes} "
            "bytes. Error code 12 (Cannot allocate memory)"
        )

    def trim(self) -> None:
        """Unmaps idle large blocks, the largest first, while they exceed `cache_limit`."""
        idle = self._idle()
        if idle > self.cache_limit:
            self._release(idle - self.cache_limit)

    def empty_cache(self) -> None:
        """Unmaps all idle large blocks (slabs of small ones stay)."""
        self._release(1 << 62)

    def _release(self, nbytes: int) -> None:
        # Whoever pops an address owns it.  This may run inside a collection that interrupted any
        # other method of this thread: the lock is reentrant.
        released = 0
        for size in sorted(self._large, reverse=True):
            free = self._large[size]
            while released < nbytes:
                address = _pop(free)
                if not address:
                    break
                unmap(address, size)
                released += size
        with self._lock:
            self._reserved -= released

    def after_fork(self) -> None:
        """In a forked child: the lock may have been held by a thread that does not exist here."""
        self._lock = threading.RLock()

    def reset_peaks(self) -> None:
        """The largest amounts so far become those of now."""
        self._peak = self._reserved
        self._peak_current = 0

    def statistics(self) -> AllocatorStatistics:
        cached = sum(size * len(f) for size, f in zip(_CLASSES, self._small, strict=True))
        idle = self._idle()
        left = self._slab_end - self._slab_at
        current = self._reserved - cached - idle - left
        return AllocatorStatistics(
            current=current,
            cached=cached + idle,
            reserved=self._reserved,
            peak=self._peak,
            peak_current=max(self._peak_current, current),
            system_allocations=self._system_allocations,
            small=self._slabs * _SLAB_SIZE - cached - left,
            failures=self._failures,
        )


def _pop(free: list[int]) -> int:
    """An address from the list, 0 when it is empty."""
    try:
        return free.pop()
    except IndexError:
        return 0


def _default_cache_limit() -> int:
    return installed_memory() // 4


def installed_memory() -> int:
    """Bytes that the machine has, or the container may use."""
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _control_group()[0])


def available_memory() -> int:
    """Bytes that the system can give without swapping, as far as it says so."""
    limit, used = _control_group()
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return min(int(line.split()[1]) * 1024, limit - used)
    except (OSError, ValueError):
        pass
    return limit - used


def _control_group() -> tuple[int, int]:
    """The container's limit and what it uses now; a huge limit where there is none."""
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text().strip()
        used = (_CONTROL_GROUP / "memory.current").read_text()
        return (1 << 62 if limit == "max" else int(limit)), int(used)
    except (OSError, ValueError):
        return 1 << 62, 0


_CONTROL_GROUP = Path("/sys/fs/cgroup")


_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
unmap = _libc.munmap
unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_advise = _libc.madvise
_advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value
_HUGE_PAGE_ADVICE = 14


def mapped(size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> int:
    """Fresh zeroed pages; 0 if there are none."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address: int | None = _mmap(None, size, protection, flags, -1, 0)
    return 0 if address is None or address == _FAILED else address


def map_memory(size: int) -> int:
    """Fresh zeroed memory, at a huge page's boundary if it fills one; 0 if there is none."""
    padding = _HUGE_PAGE if size >= _HUGE_PAGE else 0
    address = mapped(size + padding)
    if address and padding:
        start = (address + padding - 1) & -_HUGE_PAGE
        if start > address:
            unmap(address, start - address)
        if start + size < address + size + padding:
            unmap(start + size, address + padding - start)
        address = start
        _advise(address, size, _HUGE_PAGE_ADVICE)
    return address
