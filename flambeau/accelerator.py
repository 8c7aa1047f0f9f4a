"""``torch.accelerator``: answers as PyTorch does on a machine without one."""

from __future__ import annotations

from typing import Any

from flambeau.core.device import device


def is_available() -> bool:
    """Whether there is a device beside the CPU: not yet."""
    return False


def device_count() -> int:
    return 0


def current_accelerator(check_available: bool = False) -> device | None:
    return None


def _unavailable() -> RuntimeError:
    return RuntimeError("Cannot access accelerator device when none is available.")


def current_device_index() -> int:
    raise _unavailable()


def set_device_index(device: Any) -> None:
    raise _unavailable()


def synchronize(device: Any = None) -> None:
    raise _unavailable()


def memory_stats(device_index: Any = None, /) -> dict[str, Any]:
    """The CPU's own memory is counted by ``torch.cpu.memory_stats``."""
    raise _unavailable()


def memory_allocated(device_index: Any = None, /) -> int:
    raise _unavailable()


def max_memory_allocated(device_index: Any = None, /) -> int:
    raise _unavailable()


def memory_reserved(device_index: Any = None, /) -> int:
    raise _unavailable()


def max_memory_reserved(device_index: Any = None, /) -> int:
    raise _unavailable()


def reset_peak_memory_stats(device_index: Any = None, /) -> None:
    raise _unavailable()


def reset_accumulated_memory_stats(device_index: Any = None, /) -> None:
    raise _unavailable()


def empty_cache() -> None:
    raise _unavailable()
