"""Convolutions under PyTorch's path."""

from flambeau.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    _ConvNd,
)
from flambeau.nn.transposed_convolution import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    _ConvTransposeNd,
)

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "_ConvNd",
    "_ConvTransposeNd",
]
