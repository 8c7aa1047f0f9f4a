"""Pooling over windows of one and two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.compiler.pooling import (
    AdaptivePoolingProblem,
    PoolingProblem,
    plan_avg_pool,
    plan_avg_pool_backward,
    plan_max_pool,
    plan_max_pool_backward,
)
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.conversion import to_dtype
from flambeau.ops.convolution import lowered
from flambeau.ops.declare import composite, kernel_operator
from flambeau.ops.indexing import gather
from flambeau.ops.pooling_checks import (
    check_adaptive,
    check_input,
    check_type,
    check_window,
    pair,
)
from flambeau.ops.view import contiguous, reshape, squeeze, unsqueeze
from flambeau.tensor import Tensor

# A window: kernel, stride, padding, dilation (two numbers each), ceil_mode, count_include_pad,
# divisor_override.  An adaptive one: the output size alone.
Window = tuple[Any, ...]


def problem_of(layout: Layout, window: Window) -> PoolingProblem | AdaptivePoolingProblem:
    planes = 1
    for n in layout.shape[:-2]:
        planes *= n
    size = (layout.shape[-2], layout.shape[-1])
    if len(window) == 1:
        return AdaptivePoolingProblem(layout.dtype, planes, size, window[0])
    kernel, stride, padding, dilation, ceil_mode, include, divisor = window
    return PoolingProblem(
        layout.dtype, planes, size, kernel, stride, padding, dilation, ceil_mode, include, divisor
    )


def _out_layout(layout: Layout, window: Window, dtype: types.dtype | None = None) -> Layout:
    shape = (*layout.shape[:-2], *problem_of(layout, window).out_size)
    return Layout.of(shape, dtype or layout.dtype, layout.device)


@kernel_operator(
    "_max_pool(Tensor self, any window) -> (Tensor values, Tensor indices)", variants=""
)
def max_pool(self, window):
    return _out_layout(self, window), _out_layout(self, window, types.int64)


max_pool.node_name = "MaxPool2DWithIndicesBackward0"


@max_pool.lower
def max_pool_lower(call, target, self, window):
    operands = {"input": call.reads[0], "output": call.writes[0], "indices": call.writes[1]}
    return lowered(plan_max_pool(problem_of(self, window), target), operands)


@max_pool.derivative
def max_pool_derivative(grad0, self_layout, result1, window):
    return {"self": max_pool_backward(contiguous(grad0), result1, tuple(self_layout.shape), window)}


@kernel_operator(
    "_max_pool_backward(Tensor grad_output, Tensor indices, int[] shape, any window) -> Tensor",
    variants="",
)
def max_pool_backward(grad_output, indices, shape, window):
    return Layout.of(shape, grad_output.dtype, grad_output.device)


@max_pool_backward.lower
def max_pool_backward_lower(call, target, grad_output, indices, shape, window):
    operands = {
        "grad_output": call.reads[0],
        "indices": call.reads[1],
        "grad_input": call.writes[0],
    }
    return lowered(
        plan_max_pool_backward(problem_of(call.writes[0].layout, window), target), operands
    )


@max_pool_backward.derivative
def max_pool_backward_backward(grad, indices, shape):
    flat = reshape(contiguous(grad), (*shape[:-2], shape[-2] * shape[-1]))
    places = reshape(indices, (*shape[:-2], indices.shape[-2] * indices.shape[-1]))
    return {"grad_output": reshape(gather(flat, flat.ndim - 1, places), tuple(indices.shape))}


@kernel_operator("_avg_pool(Tensor self, any window) -> Tensor", variants="")
def avg_pool(self, window):
    return _out_layout(self, window)


avg_pool.node_name = "AvgPool2DBackward0"


@avg_pool.lower
def avg_pool_lower(call, target, self, window):
    operands = {"input": call.reads[0], "output": call.writes[0]}
    return lowered(plan_avg_pool(problem_of(self, window), target), operands)


@avg_pool.derivative
def avg_pool_derivative(grad, self_layout, window):
    return {"self": avg_pool_backward(contiguous(grad), tuple(self_layout.shape), window)}


@kernel_operator(
    "_avg_pool_backward(Tensor grad_output, int[] shape, any window) -> Tensor", variants=""
)
def avg_pool_backward(grad_output, shape, window):
    return Layout.of(shape, grad_output.dtype, grad_output.device)


@avg_pool_backward.lower
def avg_pool_backward_lower(call, target, grad_output, shape, window):
    operands = {"grad_output": call.reads[0], "grad_input": call.writes[0]}
    return lowered(
        plan_avg_pool_backward(problem_of(call.writes[0].layout, window), target), operands
    )


@avg_pool_backward.derivative
def avg_pool_backward_backward(grad, window):
    return {"grad_output": avg_pool(contiguous(grad), window)}


# -- PyTorch's names -------------------------------------------------------------------------------


def _window(
    name: str,
    dims: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    include: bool = True,
    divisor: int | None = None,
) -> Window:
    kernel = pair(name, "kernel_size", kernel_size, dims)
    step = kernel
    if stride is not None and stride not in ((), []):
        step = pair(name, "stride", stride, dims)
    pad, spread = pair(name, "padding", padding, dims), pair(name, "dilation", dilation, dims)
    check_window(name, kernel, step, pad, spread, divisor)
    if dims == 1:
        kernel, step, pad, spread = (1, *kernel), (1, *step), (0, *pad), (1, *spread)
    return kernel, step, pad, spread, ceil_mode, include, divisor


def _lifted(name: str, dims: int, input: Tensor, window: Window) -> Tensor:
    """The input as planes of two dimensions; PyTorch's errors for what does not fit."""
    check_input(name, dims, input._layout)
    check_type(name, input.dtype)
    lifted = contiguous(unsqueeze(input, input.ndim - 1) if dims == 1 else input)
    out = problem_of(lifted._layout, window).out_size
    if any(n <= 0 for n in out):
        if name == "max_pool1d":
            raise RuntimeError(f"max_pool1d() Invalid computed output size: {out[1]}")
        planes, (height, width) = input.shape[-dims - 1], lifted.shape[-2:]
        raise RuntimeError(
            f"Given input size: ({planes}x{height}x{width}). Calculated output size: "
            f"({planes}x{out[0]}x{out[1]}). Output size is too small"
        )
    return lifted


def _lowered_back(result: Tensor, dims: int) -> Tensor:
    return squeeze(result, (result.ndim - 2,)) if dims == 1 else result


def _max(name: str, dims: int, input: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    window = _window(name, dims, *arguments)
    values, indices = max_pool(_computed(_lifted(name, dims, input, window)), window)
    return _lowered_back(to_dtype(values, input.dtype), dims), _lowered_back(indices, dims)


def _computed(input: Tensor) -> Tensor:
    """The kernels know floating types only; integers beyond 2**53 are rounded."""
    return input if input.dtype.is_floating_point else to_dtype(input, types.float64)


@composite(
    "max_pool2d_with_indices(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, "
    "int[2] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
    variants="",
)
def max_pool2d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window, and its position in the plane."""
    return _max("max_pool2d", 2, self, kernel_size, stride, padding, dilation, ceil_mode)


@composite(
    "max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, "
    "int[2] dilation=1, bool ceil_mode=False) -> Tensor",
    variants="function",
)
def max_pool2d(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window of ``(N, C, H, W)``."""
    return _max("max_pool2d", 2, self, kernel_size, stride, padding, dilation, ceil_mode)[0]


@composite(
    "max_pool1d_with_indices(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, "
    "int[1] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
    variants="function",
)
def max_pool1d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window, and its position."""
    name = "max_pool1d_with_indices"
    return _max(name, 1, self, kernel_size, stride, padding, dilation, ceil_mode)


@composite(
    "max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, "
    "int[1] dilation=1, bool ceil_mode=False) -> Tensor",
    variants="function",
)
def max_pool1d(self, kernel_size, stride, padding, dilation, ceil_mode):
    """The greatest element of each window of ``(N, C, L)``."""
    return _max("max_pool1d", 1, self, kernel_size, stride, padding, dilation, ceil_mode)[0]


def _mean(dims: int, input: Tensor, kernel: Any, stride: Any, padding: Any, *rest: Any) -> Tensor:
    name = f"avg_pool{dims}d"
    window = _window(name, dims, kernel, stride, padding, 1, *rest)
    result = avg_pool(_computed(_lifted(name, dims, input, window)), window)
    return _lowered_back(to_dtype(result, input.dtype), dims)


@composite(
    "avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool "
    "ceil_mode=False, "
    "bool count_include_pad=True, int? divisor_override=None) -> Tensor",
    variants="",
)
def avg_pool2d(self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """The mean of each window of ``(N, C, H, W)``."""
    return _mean(
        2, self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@composite(
    "avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, bool "
    "ceil_mode=False, "
    "bool count_include_pad=True) -> Tensor",
    variants="function",
)
def avg_pool1d(self, kernel_size, stride, padding, ceil_mode, count_include_pad):
    """The mean of each window of ``(N, C, L)``."""
    return _mean(1, self, kernel_size, stride, padding, ceil_mode, count_include_pad)


def _adaptive(
    name: str, dims: int, input: Tensor, output_size: Sequence[int]
) -> tuple[Tensor, Window]:
    size = (output_size,) * dims if isinstance(output_size, int) else tuple(output_size)
    check_adaptive(name, dims, input._layout, size)
    check_type(name, input.dtype)
    lifted = contiguous(unsqueeze(input, input.ndim - 1) if dims == 1 else input)
    return lifted, ((size if dims == 2 else (1, *size)),)


def _declare_adaptive(dims: int, variants: str) -> tuple[Any, Any]:
    size = f"int[{dims}] output_size"

    def mean(self: Tensor, output_size: Any) -> Tensor:
        lifted, window = _adaptive(f"adaptive_avg_pool{dims}d", dims, self, output_size)
        return _lowered_back(avg_pool(lifted, window), dims)

    def greatest(self: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
        lifted, window = _adaptive(f"adaptive_max_pool{dims}d", dims, self, output_size)
        values, indices = max_pool(lifted, window)
        return _lowered_back(values, dims), _lowered_back(indices, dims)

    mean.__doc__ = "The mean of windows chosen so that the output has the given size."
    greatest.__doc__ = "The greatest elements of such windows, and where they are."
    average = f"adaptive_avg_pool{dims}d(Tensor self, {size}) -> Tensor"
    extreme = f"adaptive_max_pool{dims}d(Tensor self, {size}) -> (Tensor, Tensor)"
    return (
        composite(average, variants=variants)(mean),
        composite(extreme, variants=variants)(greatest),
    )


adaptive_avg_pool1d, adaptive_max_pool1d = _declare_adaptive(1, "function")
# Those over planes are in torch.nn.functional only.
adaptive_avg_pool2d, adaptive_max_pool2d = _declare_adaptive(2, "")


@max_pool2d.samples
def max_pool2d_samples(make):
    yield make(2, 3, 6, 7), 2
    yield make(2, 3, 6, 7), (3, 2), {"stride": (2, 1), "padding": 1}
    yield make(2, 3, 7, 7), 2, {"ceil_mode": True}
    yield make(3, 6, 7), 3, {"dilation": 2}
    yield make(2, 3, 6, 7, dtype="bfloat16"), 2
    yield make(2, 3, 2, 2), 3
    yield make(2, 3, 6, 7), 2, {"padding": 2}


@avg_pool2d.samples
def avg_pool2d_samples(make):
    yield make(2, 3, 6, 7), 2
    yield make(2, 3, 6, 7), 3, {"stride": 2, "padding": 1}
    yield make(2, 3, 6, 7), 3, {"padding": 1, "count_include_pad": False, "ceil_mode": True}
    yield make(2, 3, 6, 7), 2, {"divisor_override": 3}
    yield make(2, 3, 6, 7, dtype="float16"), (2, 3)


@adaptive_avg_pool2d.samples
def adaptive_avg_pool2d_samples(make):
    yield make(2, 3, 6, 7), (3, 2)
    yield make(2, 3, 6, 7), 1
    yield make(3, 6, 7), (4, 5)


@adaptive_max_pool2d.samples
def adaptive_max_pool2d_samples(make):
    yield make(2, 3, 6, 7), (3, 2)
    yield make(3, 6, 7), (4, 5)


@avg_pool1d.samples
def avg_pool1d_samples(make):
    yield make(2, 3, 7), 2
    yield make(3, 7), 3, {"stride": 1, "padding": 1}


@max_pool1d.samples
def max_pool1d_samples(make):
    yield make(2, 3, 7), 2
    yield make(3, 7), 3, {"stride": 1, "padding": 1}


@adaptive_avg_pool1d.samples
def adaptive_avg_pool1d_samples(make):
    yield make(2, 3, 7), 3
