"""``torch.backends.cudnn``: not there; the switches that programs set are remembered."""

from __future__ import annotations

enabled = True
benchmark = False
benchmark_limit: int | None = None
deterministic = False
allow_tf32 = True


def is_available() -> bool:
    return False


def version() -> int | None:
    """cuDNN's version: there is none."""
    return None
