"""``torch.cpu``: the one device, and what its memory is used for.

PyTorch counts the memory of accelerators only; here the CPU has a caching allocator too, and the
functions that ``torch.cuda`` has for it stand here under the same names.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from flambeau.backend.allocator import AllocatorStatistics, available_memory, installed_memory
from flambeau.engine import flush
from flambeau.engine.runtime import backend


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def device_count() -> int:
    return 1


def current_device() -> str:
    return "cpu"


def set_device(device: Any) -> None:
    """There is one CPU; nothing to choose."""


def synchronize(device: Any = None) -> None:
    """Completes everything that this thread has recorded."""
    flush.synchronize()


# -- memory ----------------------------------------------------------------------------------------


def empty_cache() -> None:
    """Gives idle large blocks back to the system."""
    flush.synchronize()
    backend.empty_cache()


def memory_allocated(device: Any = None) -> int:
    """Bytes that living tensors take (rounded up to the allocator's sizes)."""
    return _statistics().current


def max_memory_allocated(device: Any = None) -> int:
    """The largest `memory_allocated` since `reset_peak_memory_stats`.

    Exact from the first call of any of these functions on; before that nothing is measured.
    """
    return _statistics().peak_current


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the system: living blocks, and idle ones kept for reuse."""
    return _statistics().reserved


def max_memory_reserved(device: Any = None) -> int:
    return _statistics().peak


def reset_peak_memory_stats(device: Any = None) -> None:
    """The peaks start again from what is in use now."""
    flush.synchronize()
    backend.watch_peak()
    backend.allocator.reset_peaks()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and installed memory of the machine (of the container, where it has a limit)."""
    return available_memory(), installed_memory()


def memory_stats(device: Any = None) -> OrderedDict[str, int]:
    """What the allocator counts, under the names that ``torch.cuda.memory_stats`` uses."""
    now = _statistics()
    return OrderedDict(sorted({
        "active_bytes.all.current": now.current,
        "active_bytes.all.peak": now.peak_current,
        "allocated_bytes.all.current": now.current,
        "allocated_bytes.all.peak": now.peak_current,
        "allocated_bytes.large_pool.current": now.current - now.small,
        "allocated_bytes.small_pool.current": now.small,
        "inactive_split_bytes.all.current": now.cached,
        "num_ooms": now.failures,
        "reserved_bytes.all.current": now.reserved,
        "reserved_bytes.all.peak": now.peak,
        "segment.all.allocated": now.system_allocations,
    }.items()))  # fmt: skip


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The same as a table to be read."""
    now = _statistics()
    rows = [
        ("Allocated memory", now.current, now.peak_current),
        ("  from large pool", now.current - now.small, None),
        ("  from small pool", now.small, None),
        ("Reserved memory", now.reserved, now.peak),
        ("Idle, kept for reuse", now.cached, None),
    ]
    lines = [f"{'Metric':<24}{'Current':>14}{'Peak':>14}"]
    for name, current, peak in rows:
        lines.append(f"{name:<24}{_megabytes(current):>14}{_megabytes(peak):>14}")
    lines.append(f"Requests that no idle block could serve: {now.system_allocations}")
    return "\n".join(lines)


def _statistics() -> AllocatorStatistics:
    """After what is pending: its results are counted, its intermediate ones are gone."""
    flush.synchronize()
    backend.watch_peak()
    return backend.statistics()


def _megabytes(nbytes: int | None) -> str:
    return "" if nbytes is None else f"{nbytes / 2**20:.2f} MiB"
