"""``torch.backends.mkl``: not used; matrix products are generated code."""

from __future__ import annotations


def is_available() -> bool:
    return False
