"""Layer, group and RMS normalization under PyTorch's path."""

from flambeau.nn.normalization import (
    GroupNorm,
    LayerNorm,
    RMSNorm,
)

__all__ = [
    "GroupNorm",
    "LayerNorm",
    "RMSNorm",
]
