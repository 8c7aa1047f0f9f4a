"""``torch.utils.dlpack``: sharing memory with other libraries."""

from __future__ import annotations

from typing import Any

from flambeau.interchange import from_dlpack
from flambeau.interchange import to_dlpack as _to_dlpack
from flambeau.tensor import Tensor


def to_dlpack(tensor: Tensor) -> Any:
    """Returns a capsule over the tensor's memory."""
    return _to_dlpack(tensor)


__all__ = ["from_dlpack", "to_dlpack"]
