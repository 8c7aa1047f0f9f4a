"""Linear maps under PyTorch's path."""

from flambeau.nn.linear import (
    Bilinear,
    Identity,
    Linear,
)

__all__ = [
    "Bilinear",
    "Identity",
    "Linear",
]
