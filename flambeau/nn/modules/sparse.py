"""Embedding under PyTorch's path."""

from flambeau.nn.embedding import (
    Embedding,
    EmbeddingBag,
)

__all__ = [
    "Embedding",
    "EmbeddingBag",
]
