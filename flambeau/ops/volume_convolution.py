"""Convolutions over three dimensions: those over planes, of channels times the window's depth.

Output plane d of an image sees input planes ``d * stride + k * dilation - padding``, for each k of
the window's depth.  With those planes side by side as channels, ``[N * D', C * kD, H, W]``, a
volume's convolution is a plane's, and the weights need not move: ``[O, C / groups * kD, kH, kW]``.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.convolution import check_convolution, convolution, convolution_input, full_padding
from flambeau.ops.declare import composite
from flambeau.ops.joining import constant_pad, stack
from flambeau.ops.transposed_convolution import check_transposed, spread
from flambeau.ops.view import contiguous, permute, reshape, select, slice_, squeeze, unsqueeze
from flambeau.tensor import Tensor


def _gathered(input: Tensor, kernel: int, stride: int, dilation: int) -> Tensor:
    """``[N, C, D, H, W]`` as ``[N * D', C * kernel, H, W]``."""
    batch, channels, depth, rows, columns = input.shape
    planes = (depth - dilation * (kernel - 1) - 1) // stride + 1
    by_plane = permute(input, (0, 2, 1, 3, 4))
    taps = [
        slice_(by_plane, 1, k * dilation, k * dilation + (planes - 1) * stride + 1, stride)
        for k in range(kernel)
    ]
    joined = stack(taps, 3) if kernel > 1 else contiguous(taps[0])
    return reshape(joined, (batch * planes, channels * kernel, rows, columns))


def _scattered(
    planes: Tensor, stride: int, dilation: int, padding: int, output_depth: int
) -> Tensor:
    """``[N, D, O, kernel, H, W]`` added up, where `_gathered` reads: ``[N, O, D', H, W]``."""
    total = None
    for k in range(planes.shape[3]):
        part = permute(select(planes, 3, k), (0, 2, 1, 3, 4))
        if stride > 1:
            # Zeros between the planes.
            part = constant_pad(unsqueeze(part, 3), (0, 0, 0, 0, 0, stride - 1), 0)
            batch, channels, depth, _, rows, columns = part.shape
            part = reshape(part, (batch, channels, depth * stride, rows, columns))
        before = k * dilation - padding
        after = output_depth - before - part.shape[2]
        part = constant_pad(part, (0, 0, 0, 0, before, after), 0)
        total = part if total is None else total + part
    assert total is not None
    return total


@composite(
    "conv3d(Tensor input, Tensor weight, Tensor? bias=None, int[3] stride=1, any padding=0, "
    "int[3] dilation=1, int groups=1) -> Tensor",
    variants="function",
)
def conv3d(input, weight, bias, stride, padding, dilation, groups):
    """Returns the cross-correlation ``(N, C, D, H, W), (O, C/groups, kD, kH, kW)``."""
    stride, dilation = spread(stride, 3), spread(dilation, 3)
    batched = input.ndim == weight.ndim
    if input.ndim == weight.ndim - 1:
        input = unsqueeze(input, 0)
    if weight.ndim != 5:
        check_convolution(3, input, weight, bias, stride, (), dilation, groups)
    full = full_padding(3, input, weight, bias, stride, padding, dilation, groups)
    front, back, *around = full
    if front or back:
        input = constant_pad(input, (0, 0, 0, 0, front, back), 0)
    batch, filters, kernel = input.shape[0], weight.shape[0], weight.shape[2]
    taps = weight.shape[1] * kernel
    planes = _gathered(input, kernel, stride[0], dilation[0])
    flat = reshape(contiguous(weight), (filters, taps, *weight.shape[3:]))
    bias = None if bias is None else contiguous(bias)
    result = convolution(planes, flat, bias, stride[1:], tuple(around), dilation[1:], groups)
    depth = (input.shape[2] - dilation[0] * (kernel - 1) - 1) // stride[0] + 1
    result = reshape(result, (batch, depth, filters, *result.shape[2:]))
    result = contiguous(permute(result, (0, 2, 1, 3, 4)))
    return result if batched else squeeze(result, (0,))


@composite(
    "conv_transpose3d(Tensor input, Tensor weight, Tensor? bias=None, int[3] stride=1, "
    "int[3] padding=0, int[3] output_padding=0, int groups=1, int[3] dilation=1) -> Tensor",
    variants="function",
)
def conv_transpose3d(input, weight, bias, stride, padding, output_padding, groups, dilation):
    """Returns the transposed convolution ``(N, C, D, H, W), (C, O/groups, kD, kH, kW)``."""
    stride, padding = spread(stride, 3), spread(padding, 3)
    output_padding, dilation = spread(output_padding, 3), spread(dilation, 3)
    check_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
    batched = input.ndim == 5
    if not batched:
        input = unsqueeze(input, 0)
    batch, channels, depth, rows, columns = input.shape
    kernel = weight.shape[2]
    sizes = _transposed_size(
        input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    planes = reshape(
        contiguous(permute(input, (0, 2, 1, 3, 4))), (batch * depth, channels, rows, columns)
    )
    flat = reshape(contiguous(weight), (channels, weight.shape[1] * kernel, *weight.shape[3:]))
    # Planes of the whole result, from which the padding is cut: output padding may exceed it.
    low = padding[1:]
    whole = tuple(n + p for n, p in zip(sizes[1:], low, strict=True))
    reached = _transposed_size(
        (rows, columns), weight.shape[3:], stride[1:], (0, 0), (0, 0), dilation[1:]
    )
    filters = weight.shape[1] * groups
    shape = (batch * depth, filters * kernel, *reached)
    result = convolution_input(planes, flat, shape, stride[1:], (0, 0, 0, 0), dilation[1:], groups)
    result = reshape(result, (batch, depth, filters, kernel, *reached))
    result = _scattered(result, stride[0], dilation[0], padding[0], sizes[0])
    borders = [
        border
        for p, full, have in zip(reversed(low), reversed(whole), reversed(reached), strict=True)
        for border in (-p, full - have)
    ]
    if any(borders):
        result = constant_pad(result, tuple(borders), 0)
    if bias is not None:
        result = result + reshape(bias, (-1, 1, 1, 1))
    return result if batched else squeeze(result, (0,))


def _transposed_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    return tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for n, k, s, p, extra, d in zip(
            size, kernel, stride, padding, output_padding, dilation, strict=True
        )
    )


@conv3d.samples
def conv3d_samples(make):
    yield make(2, 3, 4, 5, 6), make(4, 3, 2, 3, 3), make(4)
    yield make(1, 4, 5, 5, 5), make(4, 2, 3, 2, 3), None, (2, 1, 2), (1, 0, 2), {"groups": 2}
    yield make(2, 5, 4, 6), make(3, 2, 2, 2, 2), make(3), {"dilation": (2, 1, 2)}
    yield make(1, 2, 4, 3, 3), make(2, 2, 3, 2, 1), None, {"padding": "same"}
    yield make(2, 2, 3, 3, 3), make(2, 2, 1, 1, 1), make(2), {"stride": 2}
    yield make(2, 2), make(3, 2, 3, 3, 3)
    yield make(1, 3, 4, 4, 4), make(3, 2, 3, 3, 3)
    yield make(1, 2, 4, 4, 4), make(3, 2, 6, 3, 3)


@conv_transpose3d.samples
def conv_transpose3d_samples(make):
    yield make(2, 3, 3, 2, 4), make(3, 2, 2, 3, 2), make(2)
    yield make(1, 4, 2, 3, 3), make(4, 1, 3, 2, 3), make(2), (2, 3, 2), (1, 0, 1), (1, 2, 0), 2
    yield make(2, 2, 3, 3), make(2, 2, 2, 2, 2), None, 1, 1, {"dilation": (2, 1, 2)}
    yield make(1, 3, 3, 3, 3), make(2, 2, 3, 3, 3)
    yield make(1, 3, 3, 3, 3), make(3, 2, 3, 3, 3), {"output_padding": 2}
