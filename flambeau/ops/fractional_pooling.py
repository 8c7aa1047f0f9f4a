"""Max pooling over windows at random places, and the way back from maxima to their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core import dtype as types
from flambeau.ops.combination import masked_fill
from flambeau.ops.conversion import to_dtype
from flambeau.ops.creation import arange, zeros
from flambeau.ops.declare import composite
from flambeau.ops.extreme import argmax
from flambeau.ops.indexing import gather, scatter
from flambeau.ops.random import rand
from flambeau.ops.view import contiguous, reshape, select, slice_, squeeze, unsqueeze
from flambeau.tensor import Tensor, wrap_dim

_AXES = ("time", "height", "width")


def _starts(samples: Tensor, size: int, out: int, window: int) -> Tensor:
    """Where the windows of an axis begin: ``[N, C, out]`` from one number per image and channel.

    Steps of ``alpha`` from a random start, rounded down; the last window ends with the axis.
    """
    last = size - window
    if out == 1:
        return arange(last, last + 1) + to_dtype(unsqueeze(samples, 2) * 0, types.int64)
    # In the input's own precision: rounding down depends on it.
    alpha = zeros((), dtype=samples.dtype) + float(last) / float(out - 1)
    start = unsqueeze(samples, 2)
    steps = (arange(out) + start) * alpha
    places = to_dtype(steps, types.int64) - to_dtype(start * alpha, types.int64)
    is_last = arange(out) == out - 1
    return masked_fill(places, is_last, last)


def _check(
    name: str, dims: int, input: Tensor, kernel: Sequence[int], size: Sequence[int], samples: Tensor
) -> None:
    label = name if dims == 2 else f"{name}_out"
    if input.ndim not in (dims + 1, dims + 2):
        wrap_dim(-dims - 1, input.ndim)
        raise RuntimeError(
            f"{label}(): Expected {dims + 1}D or {dims + 2}D tensor, but got: {list(input.shape)}"
        )
    axes = _AXES[-dims:]
    for axis, k, out, have in zip(axes, kernel, size, input.shape[-dims:], strict=True):
        if out + k - 1 > have:
            raise RuntimeError(
                f"{label}(): pool {axis} {k} too large relative to input {axis} {have}"
            )
    if samples.dtype is not input.dtype:
        raise RuntimeError("Expect _random_samples to have the same dtype as input")
    if samples.shape[0] < (input.shape[0] if input.ndim == dims + 2 else 1):
        raise RuntimeError("Expect _random_samples.size(0) no less then input batch size.")
    if samples.shape[1] != input.shape[-dims - 1]:
        raise RuntimeError("Expect _random_samples.size(1) equals to input channel size.")
    if samples.shape[2] != dims:
        raise RuntimeError(
            f"Expect _random_samples.size(2) equals to {dims}; got {samples.shape[2]}."
        )


def _fractional(
    name: str, dims: int, input: Tensor, kernel: Sequence[int], size: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    kernel = tuple(kernel) * dims if len(kernel) == 1 else tuple(kernel)
    size = tuple(size) * dims if len(size) == 1 else tuple(size)
    _check(name, dims, input, kernel, size, samples)
    batched = input.ndim == dims + 2
    source = contiguous(input if batched else unsqueeze(input, 0))
    batch, channels, *sizes = source.shape
    samples = slice_(samples, 0, 0, batch, 1)
    # The samples of a plane name the columns first, those of a volume the planes.
    order = reversed(range(dims)) if dims == 2 else range(dims)
    place: Any = None
    for axis, number in enumerate(order):
        starts = _starts(select(samples, 2, number), sizes[axis], size[axis], kernel[axis])
        shape = [batch, channels, *(1,) * (2 * dims)]
        shape[2 + axis] = size[axis]
        offsets = [1] * (2 + 2 * dims)
        offsets[2 + dims + axis] = kernel[axis]
        here = reshape(starts, tuple(shape)) + reshape(arange(kernel[axis]), tuple(offsets))
        place = here if place is None else place * sizes[axis] + here
    window, outs = 1, 1
    for k, out in zip(kernel, size, strict=True):
        window, outs = window * k, outs * out
    flat = reshape(source, (batch, channels, -1))
    place = reshape(contiguous(place), (batch, channels, outs * window))
    values = reshape(gather(flat, 2, place), (batch, channels, outs, window))
    best = argmax(values, 3, True)
    result = squeeze(gather(values, 3, best), (3,))
    found = squeeze(gather(reshape(place, (batch, channels, outs, window)), 3, best), (3,))
    shape = (batch, channels, *size) if batched else (channels, *size)
    return reshape(result, shape), reshape(found, shape)


@composite(
    "fractional_max_pool2d(Tensor self, int[2] kernel_size, int[2] output_size, Tensor "
    "random_samples) -> (Tensor, Tensor)",
    variants="",
)
def fractional_max_pool2d(self, kernel_size, output_size, random_samples):
    """The greatest elements of windows at random places, and where they are in their plane."""
    return _fractional("fractional_max_pool2d", 2, self, kernel_size, output_size, random_samples)


@composite(
    "fractional_max_pool3d(Tensor self, int[3] kernel_size, int[3] output_size, Tensor "
    "random_samples) -> (Tensor, Tensor)",
    variants="",
)
def fractional_max_pool3d(self, kernel_size, output_size, random_samples):
    """The greatest elements of windows at random places, and where they are in their volume."""
    return _fractional("fractional_max_pool3d", 3, self, kernel_size, output_size, random_samples)


def draw_samples(input: Tensor, dims: int) -> Tensor:
    """A number in [0, 1) for each image, channel and dimension."""
    batch = 1 if input.ndim == dims + 1 else input.shape[0]
    channels = input.shape[wrap_dim(-dims - 1, input.ndim)]
    return rand((batch, channels, dims), dtype=input.dtype)


# -- the way back ----------------------------------------------------------------------------------


def _unpool(dims: int, input: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    _check_unpool(dims, input, indices, size)
    leading = tuple(input.shape[:-dims])
    count = 1
    for n in size:
        count *= n
    places = reshape(indices, (*leading, -1))
    wrong = places[(places < 0) | (places >= count)]
    if wrong.numel():
        volume = "x".join(map(str, size))
        raise RuntimeError(
            f"Found an invalid max index: {wrong[0].item()} (output volumes are of size {volume})"
        )
    values = reshape(contiguous(input), (*leading, -1))
    blank = zeros((*leading, count), dtype=input.dtype)
    return reshape(scatter(blank, len(leading), places, values), (*leading, *size))


def _check_unpool(dims: int, input: Tensor, indices: Tensor, size: Sequence[int]) -> None:
    text = "elements in indices should be type int64"
    if indices.dtype is not types.int64:
        raise RuntimeError(text if dims == 3 else f"{text} but got: {indices.dtype.title}")
    if len(size) != dims:
        raise RuntimeError(
            f"There should be exactly {'three' if dims == 3 else 'two'} elements "
            f"({'depth, ' if dims == 3 else ''}height, width) in output_size, but got {len(size)} "
            "elements."
        )
    if input.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Input to max_unpooling{dims}d should be a {dims + 1}d or {dims + 2}d Tensor, but got "
            f"a tensor with {input.ndim} dimensions."
        )
    if input.shape != indices.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor "
            f"({list(input.shape)}) but got indices tensor with shape: {list(indices.shape)}"
        )
    for d in range(1, input.ndim):
        if not input.shape[d]:
            raise RuntimeError(
                f"max_unpooling{dims}d_forward_out_cpu(): Expected input to have non-zero size for "
                f"non-batch dimensions, but got {list(input.shape)} with dimension {d} being empty."
            )


@composite("max_unpool2d(Tensor self, Tensor indices, int[2] output_size) -> Tensor", variants="")
def max_unpool2d(self, indices, output_size):
    """Zeros of ``output_size`` with the elements at their ``indices``."""
    return _unpool(2, self, indices, output_size)


@composite(
    "max_unpool3d(Tensor self, Tensor indices, int[3] output_size, int[3] stride, int[3] padding) "
    "-> Tensor",
    variants="",
)
def max_unpool3d(self, indices, output_size, stride, padding):
    """Zeros of ``output_size`` with the elements at their ``indices``."""
    if len(stride) != 3:
        raise RuntimeError(
            "There should be exactly three elements (depth, height, width) in stride, but got: "
            f"{len(stride)} elements."
        )
    if any(s <= 0 for s in stride):
        raise RuntimeError(f"strides should be greater than zero, but got stride: {list(stride)}")
    return _unpool(3, self, indices, output_size)


@fractional_max_pool2d.samples
def fractional_max_pool2d_samples(make):
    yield make(2, 3, 7, 8), 2, (3, 4), make(2, 3, 2, low=0, high=1)
    yield make(3, 7, 8), (2, 3), (1, 3), make(1, 3, 2, low=0, high=1)
    yield make(2, 3, 6, 7), 2, (6, 6), make(2, 3, 2, low=0, high=1)


@fractional_max_pool3d.samples
def fractional_max_pool3d_samples(make):
    yield make(2, 2, 5, 6, 7), 2, (2, 3, 4), make(2, 2, 3, low=0, high=1)
    yield make(2, 2, 5, 6, 7), 2, (5, 3, 4), make(2, 2, 3, low=0, high=1)
