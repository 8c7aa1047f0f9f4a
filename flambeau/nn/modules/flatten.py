"""Flatten and Unflatten under PyTorch's path."""

from flambeau.nn.linear import (
    Flatten,
    Unflatten,
)

__all__ = [
    "Flatten",
    "Unflatten",
]
