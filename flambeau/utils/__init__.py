"""Data loading, and what programs around training need."""

import importlib
from types import ModuleType

from flambeau.utils import dlpack

__all__ = ["data", "dlpack"]


def __getattr__(name: str) -> ModuleType:
    # Programs write torch.utils.data without importing it; few need it (0.03 s to load).
    if name == "data":
        return importlib.import_module("flambeau.utils.data")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
