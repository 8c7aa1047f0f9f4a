"""Convolutions under PyTorch's path."""

from flambeau.nn.convolution import (
    Conv1d,
    Conv2d,
    _ConvNd,
)

__all__ = [
    "Conv1d",
    "Conv2d",
    "_ConvNd",
]
