"""``torch.backends.openmp``: not used; the thread pool is generated code."""

from __future__ import annotations


def is_available() -> bool:
    return False
