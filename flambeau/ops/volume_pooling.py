"""Pooling over three dimensions: over planes first, then over the planes of a volume."""

from __future__ import annotations

from typing import Any

from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite
from flambeau.ops.indexing import gather
from flambeau.ops.pooling import Window, avg_pool, max_pool, problem_of
from flambeau.ops.pooling_checks import (
    check_adaptive,
    check_type,
    check_volume,
    check_volume_window,
    volume_numbers,
)
from flambeau.ops.view import contiguous, reshape
from flambeau.tensor import Tensor


def _window(
    name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, *rest: Any
) -> tuple[Window, Window]:
    """The windows over planes of (rows, columns), and over planes of (depth, positions)."""
    kernel = volume_numbers(name, "kernel_size", kernel_size)
    step = volume_numbers(name, "stride", stride) if stride not in (None, (), []) else kernel
    pad = volume_numbers(name, "padding", padding)
    spread = volume_numbers(name, "dilation", dilation)
    check_volume_window(name, kernel, step, pad, spread)
    ceil_mode, include = rest
    inner = (kernel[1:], step[1:], pad[1:], spread[1:], ceil_mode, include, None)
    outer = ((kernel[0], 1), (step[0], 1), (pad[0], 0), (spread[0], 1), ceil_mode, include, None)
    return inner, outer


def _check_input(name: str, input: Tensor, inner: Window, outer: Window) -> None:
    layout = input._layout
    kernel, padding = (outer[0][0], *inner[0]), (outer[2][0], *inner[2])
    out = (0, 0, 0)
    if layout.ndim in (4, 5):
        depth, rows, columns = layout.shape[-3:]
        flat = Layout.of((1, depth, 1), types.float32)
        plane = Layout.of((1, rows, columns), types.float32)
        out = (problem_of(flat, outer).out_size[0], *problem_of(plane, inner).out_size)
    check_volume(name, layout, kernel, out, padding)
    check_type(name, input.dtype)


def _planes(input: Tensor) -> Tensor:
    """The input as contiguous planes; integers as float64."""
    kind = input.dtype
    return contiguous(input if kind.is_floating_point else to_dtype(input, types.float64))


def _as_rows(planes: Tensor) -> Tensor:
    """``[…, D, H, W]`` as ``[…, D, H * W]``."""
    *leading, rows, columns = planes.shape
    return reshape(planes, (*leading, rows * columns))


def _max(input: Tensor, inner: Window, outer: Window) -> tuple[Tensor, Tensor]:
    """Among equals the first in the order depth, row, column wins, as in one pass."""
    source = _planes(input)
    within, places = max_pool(source, inner)
    values, found = max_pool(_as_rows(within), outer)
    positions = within.shape[-2] * within.shape[-1]
    flat_places = reshape(places, (*places.shape[:-3], places.shape[-3] * positions))
    flat_found = reshape(found, (*found.shape[:-2], found.shape[-2] * found.shape[-1]))
    place = gather(flat_places, flat_places.ndim - 1, flat_found)
    depth = flat_found // positions
    place = place + depth * (input.shape[-2] * input.shape[-1])
    shape = (*values.shape[:-1], *within.shape[-2:])
    return to_dtype(reshape(values, shape), input.dtype), reshape(place, shape)


def _mean(input: Tensor, inner: Window, outer: Window) -> Tensor:
    """The mean of means: what a window divides by is a product over its dimensions."""
    within = avg_pool(_planes(input), inner)
    result = avg_pool(_as_rows(within), outer)
    shape = (*result.shape[:-1], *within.shape[-2:])
    return to_dtype(reshape(result, shape), input.dtype)


@composite(
    "max_pool3d_with_indices(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, "
    "int[3] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
    variants="",
)
def max_pool3d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window, and its position in the volume."""
    windows = _window("max_pool3d", kernel_size, stride, padding, dilation, ceil_mode, True)
    _check_input("max_pool3d", self, *windows)
    return _max(self, *windows)


@composite(
    "max_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, "
    "int[3] dilation=1, bool ceil_mode=False) -> Tensor",
    variants="function",
)
def max_pool3d(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window of ``(N, C, D, H, W)``."""
    return max_pool3d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode)[0]


@composite(
    "avg_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, bool "
    "ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor",
    variants="",
)
def avg_pool3d(self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """The mean of each window of ``(N, C, D, H, W)``."""
    inner, outer = _window(
        "avg_pool3d", kernel_size, stride, padding, 1, ceil_mode, count_include_pad
    )
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    _check_input("avg_pool3d", self, inner, outer)
    if divisor_override is not None:
        inner, outer = (*inner[:-1], 1), (*outer[:-1], divisor_override)
    return _mean(self, inner, outer)


def _adaptive(name: str, input: Tensor, output_size: Any) -> tuple[Window, Window]:
    size = (output_size,) * 3 if isinstance(output_size, int) else tuple(output_size)
    check_adaptive(name, 3, input._layout, size)
    check_type(name, input.dtype)
    return (tuple(size[1:]),), ((size[0], size[1] * size[2]),)


@composite("adaptive_avg_pool3d(Tensor self, int[3] output_size) -> Tensor", variants="")
def adaptive_avg_pool3d(self, output_size):
    """The mean of windows chosen so that the output has the given size."""
    return _mean(self, *_adaptive("adaptive_avg_pool3d", self, output_size))


@composite("adaptive_max_pool3d(Tensor self, int[3] output_size) -> (Tensor, Tensor)", variants="")
def adaptive_max_pool3d(self, output_size):
    """The greatest elements of such windows, and where they are."""
    return _max(self, *_adaptive("adaptive_max_pool3d", self, output_size))


@max_pool3d.samples
def max_pool3d_samples(make):
    yield make(2, 3, 4, 6, 7), 2
    yield make(3, 5, 6, 7), (3, 2, 3), (2, 1, 2), (1, 0, 1), {"ceil_mode": True}
    yield make(1, 2, 7, 6, 7), 3, 1, 1, 2
    yield make(2, 3, 2, 2, 2), 3
    yield make(2, 3), 3


@avg_pool3d.samples
def avg_pool3d_samples(make):
    yield make(2, 3, 4, 6, 7), 2
    yield make(3, 5, 6, 7), 3, 2, 1, True, False
    yield make(3, 5, 6, 7), (3, 2, 3), 2, (1, 0, 1), True
    yield make(2, 3, 4, 6, 7), 2, {"divisor_override": 3}
    yield make(2, 3, 2, 2, 2), 3


@adaptive_avg_pool3d.samples
def adaptive_avg_pool3d_samples(make):
    yield make(2, 3, 4, 6, 7), (3, 2, 4)
    yield make(3, 4, 6, 7), 1


@adaptive_max_pool3d.samples
def adaptive_max_pool3d_samples(make):
    yield make(2, 3, 4, 6, 7), (3, 2, 4)
    yield make(3, 4, 6, 7), 1
