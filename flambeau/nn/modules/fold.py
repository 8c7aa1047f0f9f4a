"""Sliding blocks under PyTorch's path."""

from flambeau.nn.unpooling import (
    Fold,
    Unfold,
)

__all__ = [
    "Fold",
    "Unfold",
]
