"""Embedding under PyTorch's path."""

from flambeau.nn.embedding import (
    Embedding,
)

__all__ = [
    "Embedding",
]
