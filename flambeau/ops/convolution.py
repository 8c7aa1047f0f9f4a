"""Convolutions over one and two dimensions."""

from __future__ import annotations

from flambeau.compiler.convolution import ConvolutionProblem, plan_convolution
from flambeau.compiler.convolution_backward import plan_backward_data, plan_backward_weight
from flambeau.core.layout import Layout
from flambeau.engine.call import Lowered
from flambeau.ops.declare import composite, kernel_operator
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import contiguous, squeeze, unsqueeze
from flambeau.tensor import types_name


def problem_of(
    input, weight, stride, padding, dilation, groups, has_bias=False
) -> ConvolutionProblem:
    """``padding`` is (rows, columns) or (top, bottom, left, right)."""
    low, high = (padding[::2], padding[1::2]) if len(padding) == 4 else (padding, padding)
    return ConvolutionProblem(
        weight.dtype, input.shape[0], input.shape[1], weight.shape[0],
        tuple(input.shape[2:]), tuple(weight.shape[2:]), tuple(stride), tuple(low), tuple(high),
        tuple(dilation), groups, has_bias,
    )  # fmt: skip


@kernel_operator(
    "_convolution(Tensor input, Tensor weight, Tensor? bias, int[2] stride, int[] padding, "
    "int[2] dilation, int groups) -> Tensor",
    variants="",
)
def convolution(input, weight, bias, stride, padding, dilation, groups):
    problem = problem_of(input, weight, stride, padding, dilation, groups)
    return Layout.of(
        (input.shape[0], weight.shape[0], *problem.out_size), input.dtype, input.device
    )


convolution.node_name = "ConvolutionBackward0"


@convolution.lower
def convolution_lower(call, target, input, weight, bias, stride, padding, dilation, groups):
    problem = problem_of(input, weight, stride, padding, dilation, groups, bias is not None)
    operands = dict(zip(("input", "weight", "bias"), call.reads, strict=False))
    return lowered(plan_convolution(problem, target), operands | {"output": call.writes[0]})


def lowered(plan, operands) -> Lowered:
    return Lowered(plan.steps, operands, plan.workspace_bytes, plan.constants)


@convolution.derivative
def convolution_derivative(
    grad, input, weight, bias_layout, stride, padding, dilation, groups, needs
):
    grad = contiguous(grad)
    arguments = (stride, padding, dilation, groups)
    found = {}
    # Guarded, unlike cheap formulas: under window 1 an unneeded one would be computed.
    if "input" in needs:
        found["input"] = convolution_input(grad, weight, tuple(input.shape), *arguments)
    if "weight" in needs:
        found["weight"] = convolution_weight(grad, input, tuple(weight.shape), *arguments)
    if "bias" in needs:
        found["bias"] = sum_(grad, (0, 2, 3))
    return found


convolution.saved_for(input="weight", weight="input")


@kernel_operator(
    "_convolution_input(Tensor grad_output, Tensor weight, int[] shape, int[2] stride, "
    "int[] padding, int[2] dilation, int groups) -> Tensor",
    variants="",
)
def convolution_input(grad_output, weight, shape, stride, padding, dilation, groups):
    """The gradient of a convolution's input."""
    return Layout.of(shape, grad_output.dtype, grad_output.device)


@convolution_input.lower
def convolution_input_lower(
    call, target, grad_output, weight, shape, stride, padding, dilation, groups
):
    layout = call.writes[0].layout
    problem = problem_of(layout, weight, stride, padding, dilation, groups)
    operands = {"grad_output": call.reads[0], "weight": call.reads[1], "grad_input": call.writes[0]}
    return lowered(plan_backward_data(problem, target), operands)


@convolution_input.derivative
def convolution_input_backward(grad, grad_output, weight, stride, padding, dilation, groups):
    arguments = (stride, padding, dilation, groups)
    grad = contiguous(grad)
    return {
        "grad_output": convolution(grad, weight, None, *arguments),
        "weight": convolution_weight(grad_output, grad, tuple(weight.shape), *arguments),
    }


@kernel_operator(
    "_convolution_weight(Tensor grad_output, Tensor input, int[] shape, int[2] stride, "
    "int[] padding, int[2] dilation, int groups) -> Tensor",
    variants="",
)
def convolution_weight(grad_output, input, shape, stride, padding, dilation, groups):
    """The gradient of a convolution's weight."""
    return Layout.of(shape, grad_output.dtype, grad_output.device)


@convolution_weight.lower
def convolution_weight_lower(
    call, target, grad_output, input, shape, stride, padding, dilation, groups
):
    layout = call.writes[0].layout
    problem = problem_of(input, layout, stride, padding, dilation, groups)
    operands = {"grad_output": call.reads[0], "input": call.reads[1], "grad_weight": call.writes[0]}
    return lowered(plan_backward_weight(problem, target), operands)


@convolution_weight.derivative
def convolution_weight_backward(grad, grad_output, input, stride, padding, dilation, groups):
    arguments = (stride, padding, dilation, groups)
    grad = contiguous(grad)
    return {
        "grad_output": convolution(input, grad, None, *arguments),
        "input": convolution_input(grad_output, grad, tuple(input.shape), *arguments),
    }


def check_convolution(dims, input, weight, bias, stride, padding, dilation, groups) -> None:
    """PyTorch's errors for shapes that do not fit together."""
    if weight.ndim < 3:
        raise RuntimeError("weight should have at least three dimensions")
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    if weight.ndim != dims + 2:
        raise RuntimeError(
            f"Expected {weight.ndim}-dimensional input for {weight.ndim}-dimensional weight "
            f"{list(weight.shape)}, but got {input.ndim}-dimensional input of size "
            f"{list(input.shape)} instead"
        )
    if input.ndim != weight.ndim:
        name = f"conv{dims}d"
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
    if any(s <= 0 for s in stride):
        raise RuntimeError("non-positive stride is not supported")
    if any(p < 0 for p in padding):
        raise RuntimeError("negative padding is not supported")
    if any(d <= 0 for d in dilation):
        raise RuntimeError("dilation should be greater than zero")
    if weight.shape[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {list(weight.shape)} instead"
        )
    if input.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input"
            f"{list(input.shape)} to have {weight.shape[1] * groups} channels, but got "
            f"{input.shape[1]} channels instead"
        )
    if weight.shape[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {list(weight.shape)} instead"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with "
            f"{weight.shape[0]} elements, but got bias of size {list(bias.shape)} instead"
        )
    padded = [n + 2 * p for n, p in zip(input.shape[2:], padding, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(n < k for n, k in zip(padded, reach, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel "
            f"size: ({' x '.join(map(str, reach))}). Kernel size can't be greater than actual "
            "input size"
        )


def same_padding(weight, stride, dilation) -> tuple[int, ...]:
    """(before, after) per dimension for ``padding="same"``; the odd one goes after."""
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    return tuple(n for total in totals for n in (total // 2, total - total // 2))


def full_padding(dims, input, weight, bias, stride, padding, dilation, groups) -> tuple[int, ...]:
    """(before, after) per dimension; PyTorch's errors for what does not fit together."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        full = same_padding(weight, stride, dilation) if padding == "same" else (0, 0) * dims
        check_convolution(dims, input, weight, bias, stride, full[1::2], dilation, groups)
        return full
    padding = (
        (padding,) * dims if isinstance(padding, int) else tuple(padding) * (dims // len(padding))
    )
    check_convolution(dims, input, weight, bias, stride, padding, dilation, groups)
    return tuple(n for p in padding for n in (p, p))


def _convolve(dims, input, weight, bias, stride, padding, dilation, groups):
    batched = input.ndim == weight.ndim
    if input.ndim == weight.ndim - 1:
        input = unsqueeze(input, 0)
    if weight.ndim != dims + 2:
        check_convolution(dims, input, weight, bias, stride, (), dilation, groups)
    full = full_padding(dims, input, weight, bias, stride, padding, dilation, groups)
    if dims == 1:
        input, weight = unsqueeze(input, 2), unsqueeze(weight, 2)
        stride, dilation, full = (1, *stride), (1, *dilation), (0, 0, *full)
    bias = None if bias is None else contiguous(bias)
    result = convolution(
        contiguous(input), contiguous(weight), bias, stride, full, dilation, groups
    )
    if dims == 1:
        result = squeeze(result, (2,))
    return result if batched else squeeze(result, (0,))


@composite(
    "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, any padding=0, "
    "int[2] dilation=1, int groups=1) -> Tensor",
    variants="function",
)
def conv2d(input, weight, bias, stride, padding, dilation, groups):
    """Returns the cross-correlation ``(N, C, H, W), (O, C/groups, kH, kW) -> (N, O, H', W')``."""
    return _convolve(2, input, weight, bias, _pair(stride, 2), padding, _pair(dilation, 2), groups)


@composite(
    "conv1d(Tensor input, Tensor weight, Tensor? bias=None, int[1] stride=1, any padding=0, "
    "int[1] dilation=1, int groups=1) -> Tensor",
    variants="function",
)
def conv1d(input, weight, bias, stride, padding, dilation, groups):
    """Returns the cross-correlation ``(N, C, L), (O, C/groups, k) -> (N, O, L')``."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def _pair(numbers, count: int) -> tuple[int, ...]:
    """A one-element list stands for all dimensions."""
    return tuple(numbers) * count if len(numbers) == 1 else tuple(numbers)


@conv2d.samples
def conv2d_samples(make):
    yield make(2, 3, 7, 8), make(4, 3, 3, 3), make(4)
    yield make(2, 3, 7, 8), make(4, 3, 3, 3), None, {"stride": 2, "padding": 1}
    yield make(1, 4, 6, 6), make(6, 2, 3, 2), make(6), {"groups": 2, "dilation": (1, 2)}
    yield make(1, 4, 6, 6), make(4, 1, 3, 3), make(4), {"groups": 4, "padding": (0, 2)}
    yield make(3, 5, 5), make(2, 3, 1, 1), make(2)
    yield make(1, 2, 5, 6), make(3, 2, 3, 2), make(3), {"padding": "same"}
    yield make(1, 2, 5, 5, dtype="float64"), make(3, 2, 2, 2, dtype="float64")
    yield make(1, 2, 5, 5, dtype="bfloat16"), make(3, 2, 2, 2, dtype="bfloat16")
    yield make(1, 2, 5, 5, dtype="float16"), make(3, 2, 2, 2, dtype="float16")
    yield make(1, 17, 6, 7), make(19, 17, 3, 3), make(19), {"padding": 1}
    yield make(1, 2, 5, 5), make(3, 3, 2, 2)
    yield make(1, 2, 2, 2), make(3, 2, 3, 3)
    yield make(2, 2), make(3, 2, 3, 3)


@conv1d.samples
def conv1d_samples(make):
    yield make(2, 3, 9), make(4, 3, 3), make(4)
    yield make(2, 3, 9), make(4, 3, 3), None, {"stride": 2, "padding": 1, "dilation": 2}
    yield make(2, 4, 9), make(4, 2, 2), make(4), {"groups": 2}
    yield make(3, 9), make(4, 3, 3)
