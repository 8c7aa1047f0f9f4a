"""Linear maps under PyTorch's path."""

from flambeau.nn.linear import (
    Bilinear,
    Identity,
    Linear,
    NonDynamicallyQuantizableLinear,
)

__all__ = [
    "Bilinear",
    "Identity",
    "Linear",
    "NonDynamicallyQuantizableLinear",
]
