"""Pooling over windows, and over windows that fit a wanted output size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.ops import pooling as operators
from flambeau.ops import volume_pooling as volumes
from flambeau.tensor import Tensor


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest element of each window of ``(N, C, L)``, and where it is."""
    stride = [] if stride is None else stride
    return operators.max_pool1d_with_indices(
        input, kernel_size, stride, padding, dilation, ceil_mode
    )


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest element of each window of ``(N, C, L)``."""
    stride = [] if stride is None else stride
    find = operators.max_pool1d_with_indices if return_indices else operators.max_pool1d
    return find(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest element of each window of ``(N, C, H, W)``, and where it is."""
    stride = [] if stride is None else stride
    return operators.max_pool2d_with_indices(
        input, kernel_size, stride, padding, dilation, ceil_mode
    )


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest element of each window of ``(N, C, H, W)``."""
    stride = [] if stride is None else stride
    find = operators.max_pool2d_with_indices if return_indices else operators.max_pool2d
    return find(input, kernel_size, stride, padding, dilation, ceil_mode)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Averages windows chosen so that the output is ``output_size``; None keeps a size."""
    return operators.adaptive_avg_pool2d(input, _complete(output_size, input.size()))


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool1d`, and where each greatest element is."""
    return operators.adaptive_max_pool1d(input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of windows chosen so that the output is ``output_size`` long."""
    values, indices = operators.adaptive_max_pool1d(input, output_size)
    return (values, indices) if return_indices else values


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool2d`, and where each greatest element is."""
    return operators.adaptive_max_pool2d(input, _complete(output_size, input.size()))


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of windows chosen so that the output is ``output_size``."""
    values, indices = adaptive_max_pool2d_with_indices(input, output_size)
    return (values, indices) if return_indices else values


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest element of each window of ``(N, C, D, H, W)``, and where it is."""
    stride = [] if stride is None else stride
    return volumes.max_pool3d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest element of each window of ``(N, C, D, H, W)``."""
    stride = [] if stride is None else stride
    find = volumes.max_pool3d_with_indices if return_indices else volumes.max_pool3d
    return find(input, kernel_size, stride, padding, dilation, ceil_mode)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Averages windows chosen so that the output is ``output_size``; None keeps a size."""
    return volumes.adaptive_avg_pool3d(input, _complete(output_size, input.size()))


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool3d`, and where each greatest element is."""
    return volumes.adaptive_max_pool3d(input, _complete(output_size, input.size()))


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of windows chosen so that the output is ``output_size``."""
    values, indices = adaptive_max_pool3d_with_indices(input, output_size)
    return (values, indices) if return_indices else values


def _complete(output_size: Any, input_size: Sequence[int]) -> Any:
    """``output_size`` with each None replaced by the input's size there."""
    if isinstance(output_size, int):
        return output_size
    if len(input_size) <= len(output_size):
        raise ValueError(f"Input dimension should be at least {len(output_size) + 1}")
    trailing = input_size[-len(output_size) :]
    return [have if want is None else want for want, have in zip(output_size, trailing)]
