"""Data loading, and what programs around training need."""

from flambeau.utils import dlpack

__all__ = ["dlpack"]
