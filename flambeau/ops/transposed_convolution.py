"""Transposed convolutions: what a convolution's gradient of its input computes."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.convolution import convolution_input
from flambeau.ops.declare import composite
from flambeau.ops.joining import constant_pad
from flambeau.ops.view import contiguous, reshape, squeeze, unsqueeze
from flambeau.tensor import Tensor, types_name


def spread(numbers: Sequence[int], dims: int) -> tuple[int, ...]:
    """One number per dimension; a single one stands for all."""
    return tuple(numbers) * dims if len(numbers) == 1 else tuple(numbers)


def check_transposed(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> None:
    """PyTorch's errors for what does not fit together."""
    name = f"conv_transpose{dims}d"
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    if input.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
            f"input of size: {list(input.shape)}"
        )
    if bias is not None and bias.dtype is not input.dtype:
        raise RuntimeError(
            f"Input type ({types_name(input.dtype)}) and bias type ({types_name(bias.dtype)}) "
            "should be the same"
        )
    if input.dtype is not weight.dtype:
        raise RuntimeError(
            f"expected scalar type {input.dtype.title} but found {weight.dtype.title}"
        )
    if any(p < 0 for p in padding):
        raise RuntimeError("negative padding is not supported")
    if any(s <= 0 for s in stride):
        raise RuntimeError("non-positive stride is not supported")
    channels = input.shape[-dims - 1]
    if weight.shape[0] != channels:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(weight.shape)}, expected input"
            f"{list(input.shape)} to have {weight.shape[0]} channels, but got {channels} channels "
            "instead"
        )
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if extra >= s and extra >= d:
            given = (
                f"output_padding: {list(output_padding)} dilation: {list(dilation)} stride: "
                f"{list(stride)}"
            )
            if dims == 3:
                given = _by_axis(output_padding, stride, dilation)
            raise RuntimeError(
                f"output padding must be smaller than either stride or dilation, but got {given}"
            )


def _by_axis(output_padding: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> str:
    named = {"output_padding": output_padding, "stride": stride, "dilation": dilation}
    return " ".join(
        f"{name}_{axis}: {number}"
        for name, numbers in named.items()
        for axis, number in zip(("depth", "height", "width"), numbers)
    )


def _transposed(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Tensor:
    stride, padding = spread(stride, dims), spread(padding, dims)
    output_padding, dilation = spread(output_padding, dims), spread(dilation, dims)
    check_transposed(dims, input, weight, bias, stride, padding, output_padding, groups, dilation)
    batched = input.ndim == dims + 2
    if not batched:
        input = unsqueeze(input, 0)
    if dims == 1:
        input, weight = unsqueeze(input, 2), unsqueeze(weight, 2)
        stride, padding = (1, *stride), (0, *padding)
        output_padding, dilation = (0, *output_padding), (1, *dilation)
    # Output padding shortens the padding at the end; what is left of it stays zero.
    end = tuple(max(p - extra, 0) for p, extra in zip(padding, output_padding, strict=True))
    blank = tuple(max(extra - p, 0) for p, extra in zip(padding, output_padding, strict=True))
    sizes = tuple(
        (n - 1) * s - low - high + d * (k - 1) + 1
        for n, k, s, low, high, d in zip(
            input.shape[2:], weight.shape[2:], stride, padding, end, dilation, strict=True
        )
    )
    shape = (input.shape[0], weight.shape[1] * groups, *sizes)
    around = (padding[0], end[0], padding[1], end[1])
    result = convolution_input(
        contiguous(input), contiguous(weight), shape, stride, around, dilation, groups
    )
    if any(blank):
        result = constant_pad(result, (0, blank[1], 0, blank[0]), 0)
    if bias is not None:
        result = result + reshape(bias, (-1, 1, 1))
    if dims == 1:
        result = squeeze(result, (2,))
    return result if batched else squeeze(result, (0,))


@composite(
    "conv_transpose1d(Tensor input, Tensor weight, Tensor? bias=None, int[1] stride=1, "
    "int[1] padding=0, int[1] output_padding=0, int groups=1, int[1] dilation=1) -> Tensor",
    variants="function",
)
def conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation):
    """Returns the transposed convolution ``(N, C, L), (C, O/groups, k) -> (N, O, L')``."""
    return _transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@composite(
    "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, "
    "int[2] padding=0, int[2] output_padding=0, int groups=1, int[2] dilation=1) -> Tensor",
    variants="function",
)
def conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation):
    """Returns the transposed convolution ``(N, C, H, W), (C, O/groups, kH, kW)``."""
    return _transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@conv_transpose2d.samples
def conv_transpose2d_samples(make):
    yield make(2, 3, 4, 5), make(3, 4, 3, 3), make(4)
    yield make(2, 3, 4, 5), make(3, 4, 3, 2), None, 2, 1, {"output_padding": 1}
    yield make(1, 4, 3, 3), make(4, 2, 2, 2), make(4), {"groups": 2, "dilation": 2}
    yield make(3, 4, 5), make(3, 2, 1, 1)
    yield make(2, 4, 4), make(2, 2, 4, 5), make(4), (3, 2), (1, 2), (2, 3), 2, (4, 4)
    yield make(1, 3, 4, 5), make(2, 4, 3, 3)


@conv_transpose1d.samples
def conv_transpose1d_samples(make):
    yield make(2, 3, 5), make(3, 4, 3), make(4)
    yield make(2, 3, 5), make(3, 4, 3), None, 2, 1, 1
