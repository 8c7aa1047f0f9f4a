"""Sliding blocks: the windows of an image as columns, and columns added up to an image."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.arrangement import unfold as windows_of
from flambeau.ops.declare import composite
from flambeau.ops.joining import constant_pad
from flambeau.ops.view import contiguous, permute, reshape, select, slice_, squeeze, unsqueeze
from flambeau.tensor import Tensor, wrap_dim

Pair = tuple[int, int]


def _pair(name: str, numbers: Sequence[int]) -> Pair:
    found = tuple(numbers) * 2 if len(numbers) == 1 else tuple(numbers)
    if len(found) != 2:
        raise RuntimeError(f"It is expected {name} equals to 2, but got size {len(found)}")
    return found[0], found[1]


def _check_window(kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> None:
    for what, name, numbers in (
        ("kernel size", "kernel", kernel),
        ("dilation", "dilation", dilation),
        ("padding", "pad", padding),
        ("stride", "stride", stride),
    ):
        least, words = (0, "non-negative") if name == "pad" else (1, "greater than zero")
        if min(numbers) < least:
            raise RuntimeError(
                f"{what} should be {words}, but got {name}_height: {numbers[0]} {name}_width: "
                f"{numbers[1]}"
            )


def _blocks(size: Pair, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Pair:
    rows, columns = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    )
    return rows, columns


def _check_type(name: str, tensor: Tensor) -> None:
    if tensor.dtype.category == "integer":
        raise NotImplementedError(f"\"{name}_out_cpu\" not implemented for '{tensor.dtype.title}'")


@composite(
    "im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> "
    "Tensor",
    variants="",
)
def im2col(self, kernel_size, dilation, padding, stride):
    """Returns the windows of ``(N, C, H, W)`` as columns: ``(N, C * kH * kW, windows)``."""
    kernel, dilation = _pair("kernel_size", kernel_size), _pair("dilation", dilation)
    padding, stride = _pair("padding", padding), _pair("stride", stride)
    _check_window(kernel, dilation, padding, stride)
    shape = tuple(self.shape)
    filled = all(shape[1:] if len(shape) == 4 else shape)
    if len(shape) < 3:
        wrap_dim(2, len(shape))
    if len(shape) not in (3, 4) or not filled:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(shape)}"
        )
    size = shape[-2], shape[-1]
    blocks = _blocks(size, kernel, dilation, padding, stride)
    if min(blocks) < 1:
        raise RuntimeError(
            f"Given input with spatial size {size}, kernel_size={kernel}, dilation={dilation}, "
            f"padding={padding}, calculated shape of the array of sliding blocks as {blocks}, but "
            "its components must be at least one."
        )
    _check_type("im2col", self)
    source = unsqueeze(self, 0) if len(shape) == 3 else self
    if any(padding):
        source = constant_pad(source, (padding[1], padding[1], padding[0], padding[0]), 0)
    for dim in range(2):
        # Dimension 4 + dim holds the window, every ``dilation``-th element of it.
        source = windows_of(source, 2 + dim, dilation[dim] * (kernel[dim] - 1) + 1, stride[dim])
        source = slice_(source, 4 + dim, 0, source.shape[4 + dim], dilation[dim])
    batch, channels = source.shape[:2]
    columns = contiguous(permute(source, (0, 1, 4, 5, 2, 3)))
    result = reshape(columns, (batch, channels * kernel[0] * kernel[1], blocks[0] * blocks[1]))
    return squeeze(result, (0,)) if len(shape) == 3 else result


@composite(
    "col2im(Tensor self, int[2] output_size, int[2] kernel_size, int[2] dilation, int[2] padding, "
    "int[2] stride) -> Tensor",
    variants="",
)
def col2im(self, output_size, kernel_size, dilation, padding, stride):
    """Returns columns as `im2col` makes them, added up: ``(N, C, *output_size)``."""
    size, kernel = _pair("output_size", output_size), _pair("kernel_size", kernel_size)
    dilation, padding = _pair("dilation", dilation), _pair("padding", padding)
    stride = _pair("stride", stride)
    _check_window(kernel, dilation, padding, stride)
    blocks = _blocks(size, kernel, dilation, padding, stride)
    _check_columns(tuple(self.shape), size, kernel, dilation, padding, stride, blocks)
    _check_type("col2im", self)
    batched = self.ndim == 3
    columns = self if batched else unsqueeze(self, 0)
    batch, channels = columns.shape[0], columns.shape[1] // (kernel[0] * kernel[1])
    source = reshape(columns, (batch, channels, *kernel, *blocks))
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    # Along the columns first, then along the rows.
    source = _add_up(source, 3, 4, padded[1], dilation[1], stride[1])
    source = _add_up(source, 2, 2, padded[0], dilation[0], stride[0])
    for dim in range(2):
        source = slice_(source, 2 + dim, padding[dim], padding[dim] + size[dim], 1)
    result = contiguous(source)
    return result if batched else squeeze(result, (0,))


def _add_up(source: Tensor, dim: int, at: int, size: int, dilation: int, stride: int) -> Tensor:
    """Adds element k of the windows (dimension ``dim``) of block b to place ``b * stride + k *
    dilation`` of a dimension of ``size``; it and the blocks are dimension ``at`` without ``dim``.
    """
    total = None
    for k in range(source.shape[dim]):
        part = select(source, dim, k)
        trailing = part.ndim - 1 - at
        if stride > 1:
            part = constant_pad(unsqueeze(part, at + 1), (0, 0) * trailing + (0, stride - 1), 0)
            shape = (*part.shape[:at], part.shape[at] * stride, *part.shape[at + 2 :])
            part = reshape(part, shape)
        before = k * dilation
        after = size - before - part.shape[at]
        part = constant_pad(part, (0, 0) * trailing + (before, after), 0)
        total = part if total is None else total + part
    assert total is not None
    return total


def _check_columns(
    shape: tuple[int, ...],
    size: Pair,
    kernel: Pair,
    dilation: Pair,
    padding: Pair,
    stride: Pair,
    blocks: Pair,
) -> None:
    filled = all(shape[1:] if len(shape) == 3 else shape)
    if len(shape) not in (2, 3) or not filled:
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and "
            f"non-zero dimensions for input, but got: {list(shape)}"
        )
    rows = shape[-2]
    if rows % (kernel[0] * kernel[1]):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={rows} and kernel_size={kernel}."
        )
    if shape[-1] != blocks[0] * blocks[1]:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={kernel}, dilation={dilation}, "
            f"padding={padding}, stride={stride}, expected size of input's dimension 2 to match "
            f"the calculated number of sliding blocks {blocks[0]} * {blocks[1]} = "
            f"{blocks[0] * blocks[1]}, but got input.size(2)={shape[-1]}."
        )


@im2col.samples
def im2col_samples(make):
    yield make(2, 3, 5, 6), 2, 1, 0, 1
    yield make(3, 5, 6), (2, 3), (2, 1), (1, 2), (1, 2)
    yield make(2, 3, 5, 6), 9, 1, 0, 1
    yield make(2, 3, 5, 6), 0, 1, 0, 1


@col2im.samples
def col2im_samples(make):
    yield make(2, 12, 30), (6, 7), 2, 1, 0, 1
    yield make(12, 12), (5, 6), (2, 3), (2, 1), (0, 1), (1, 2)
    yield make(2, 12, 31), (6, 7), 2, 1, 0, 1
