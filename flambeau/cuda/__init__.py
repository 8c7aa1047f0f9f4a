"""``torch.cuda``: answers as PyTorch does on a machine without a GPU."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """Whether CUDA devices can be used: not yet."""
    return False


def is_initialized() -> bool:
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def device_count() -> int:
    return 0


def _unavailable() -> AssertionError:
    return AssertionError("Torch not compiled with CUDA enabled")


def current_device() -> int:
    raise _unavailable()


def get_device_name(device: Any = None) -> str:
    raise _unavailable()


def get_device_capability(device: Any = None) -> tuple[int, int]:
    raise _unavailable()


def get_device_properties(device: Any = None) -> Any:
    raise _unavailable()


def synchronize(device: Any = None) -> None:
    raise _unavailable()


def set_device(device: Any) -> None:
    if isinstance(device, int) and device < 0:
        return
    raise _unavailable()


def empty_cache() -> None:
    """Nothing is cached where nothing is allocated."""


def memory_allocated(device: Any = None) -> int:
    return 0


def max_memory_allocated(device: Any = None) -> int:
    return 0


def memory_reserved(device: Any = None) -> int:
    return 0


def manual_seed(seed: int) -> None:
    """Remembered for devices that appear later in PyTorch; there are none here."""


def manual_seed_all(seed: int) -> None:
    """See :func:`manual_seed`."""


class device:
    """A context that would select a device."""

    def __init__(self, device: Any) -> None:
        self.idx = device

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None
