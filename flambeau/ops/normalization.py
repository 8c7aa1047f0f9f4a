"""Softmax and the normalisations over batch, layer and group."""

from __future__ import annotations

import math as numbers
from collections.abc import Sequence

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout
from flambeau.graph import grad_mode
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, copy, operation_dtype
from flambeau.ops.fused import FusedPointwise, FusedReduction, computed_like_first
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import contiguous, reshape
from flambeau.tensor import Tensor, wrap_dim

# -- softmax -------------------------------------------------------------------------------------

MAXIMUM = FusedReduction("amax", "max", lambda x: x, results=computed_like_first)
EXP_SUM = FusedReduction(
    "exp_sum", "sum", lambda x, top: math.exp(x - top), results=computed_like_first
)
LOG_EXP_SUM = FusedReduction(
    "log_exp_sum", "sum", lambda x, top: math.exp(x - top), math.log, results=computed_like_first
)
_SOFTMAX = FusedPointwise(
    "softmax", lambda x, top, total: math.exp(x - top) * (1.0 / total), contiguous=True
)
_LOG_SOFTMAX = FusedPointwise(
    "log_softmax", lambda x, top, log_total: x - top - log_total, contiguous=True
)
_GRADIENT_SUM = FusedReduction("sum", "sum", lambda grad: grad, results=computed_like_first)
_GRADIENT_DOT = FusedReduction(
    "dot", "sum", lambda result, grad: grad * result, results=computed_like_first
)
_SOFTMAX_BACKWARD = FusedPointwise(
    "softmax_backward", lambda grad, result, dot: (grad - dot) * result, contiguous=True
)
_LOG_SOFTMAX_BACKWARD = FusedPointwise(
    "log_softmax_backward",
    lambda grad, result, total: grad - math.exp(result) * total,
    contiguous=True,
)


def softmax_input(name: str, tensor: Tensor, dim: int, dtype: dtype | None):
    """The input in the type asked for, and the dimensions to reduce; PyTorch's errors."""
    dim = wrap_dim(dim, tensor.ndim)
    if dtype is not None and dtype is not tensor.dtype:
        tensor = to_dtype(tensor, dtype)
    if not tensor.dtype.is_floating_point:
        where = "lastdim_kernel_impl" if dim == max(tensor.ndim - 1, 0) else "kernel_impl"
        raise NotImplementedError(f"\"{name}_{where}\" not implemented for '{tensor.dtype.title}'")
    return tensor, (dim,) if tensor.ndim else ()


def reduction_dims(tensor: Tensor, dim: int) -> tuple[int, ...]:
    return (dim % tensor.ndim,) if tensor.ndim else ()


@composite(
    "softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor",
    variants="function method out",
)
def softmax(self, dim, dtype):
    """Returns ``exp(self)`` divided by its sum along ``dim``."""
    self, dims = softmax_input("softmax", self, dim, dtype)
    (top,) = MAXIMUM((self,), dims, True)
    (total,) = EXP_SUM((self, top), dims, True)
    return _SOFTMAX((self, top, total))[0]


@softmax.derivative
def softmax_backward(grad, result, dim):
    dims = reduction_dims(result, dim)
    if grad_mode.enabled:
        return {"self": (grad - sum_(grad * result, dims, True)) * result}
    (dot,) = _GRADIENT_DOT((result, grad), dims, True)
    return {"self": _SOFTMAX_BACKWARD((grad, result, dot))[0]}


@composite(
    "log_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor",
    variants="function method out",
)
def log_softmax(self, dim, dtype):
    """Returns ``log(softmax(self, dim))``, computed without its loss of digits."""
    self, dims = softmax_input("log_softmax", self, dim, dtype)
    (top,) = MAXIMUM((self,), dims, True)
    (log_total,) = LOG_EXP_SUM((self, top), dims, True)
    return _LOG_SOFTMAX((self, top, log_total))[0]


@log_softmax.derivative
def log_softmax_backward(grad, result, dim):
    dims = reduction_dims(result, dim)
    if grad_mode.enabled:
        return {"self": grad - result.exp() * sum_(grad, dims, True)}
    (total,) = _GRADIENT_SUM((grad,), dims, True)
    return {"self": _LOG_SOFTMAX_BACKWARD((grad, result, total))[0]}


@softmax.samples
def softmax_samples(make):
    yield make(3, 5), 1
    yield make(2, 3, 4), 0
    yield make(2, 40, 7), -2
    yield make(), 0
    yield make(0, 4), 0
    yield make(3, 5), 1, {"dtype": types.float64}


@log_softmax.samples
def log_softmax_samples(make):
    yield from softmax_samples(make)


# -- what the normalisations share ---------------------------------------------------------------


def _two_computed(layouts: Sequence[Layout], static: tuple) -> tuple[dtype, ...]:
    return computed_like_first(layouts, static) * 2


MEAN = FusedReduction(
    "mean", "sum", lambda x, n: x, lambda total, n: total / n, results=computed_like_first
)


def _square_of_difference(x, mean, n, eps):
    return (x - mean) * (x - mean)


def _variance_and_inverse(total, n, eps):
    variance = total / n
    return variance, 1.0 / k.sqrt(variance + eps)


# The variance without correction, and one over the root of it plus epsilon.
_VARIANCE = FusedReduction(
    "variance", "sum", _square_of_difference, _variance_and_inverse, results=_two_computed
)


def _normalize_body(x, mean, inverse, weight, bias):
    result = (x - mean) * inverse
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


_NORMALIZE = FusedPointwise("normalize", _normalize_body)
_NORMALIZE_CONTIGUOUS = FusedPointwise("normalize", _normalize_body, contiguous=True)


def _sums_body(x, grad, mean, inverse, weight):
    """What the input's gradient needs summed over the dimensions of the mean."""
    if weight is not None:
        grad = grad * weight
    return grad, grad * ((x - mean) * inverse)


_SUMS = FusedReduction("normalize_sums", "sum sum", _sums_body, results=_two_computed)


def _input_gradient_body(grad, x, mean, inverse, weight, total, dot, n):
    if weight is not None:
        grad = grad * weight
    return (grad - total / n - (x - mean) * inverse * (dot / n)) * inverse


def _channel_gradient_body(grad, x, mean, inverse, weight, total, dot, n):
    """As above where the weight is constant over what was summed."""
    result = _input_gradient_body(grad, x, mean, inverse, None, total, dot, n)
    return result if weight is None else result * weight


_INPUT_GRADIENT = FusedPointwise("normalize_backward", _input_gradient_body)
_CHANNEL_GRADIENT = FusedPointwise("normalize_backward", _channel_gradient_body)
_FIXED_GRADIENT = FusedPointwise(
    "normalize_backward",
    lambda grad, inverse, weight: grad * inverse if weight is None else grad * inverse * weight,
)


def _statistics(x: Tensor, dims: tuple[int, ...], keepdim: bool, eps: float):
    """Mean, variance and inverse deviation over ``dims``; the mean as used, with its dimensions."""
    n = float(numbers.prod(x.shape[d] for d in dims))
    (mean,) = MEAN((x,), dims, keepdim, (n,))
    spread = mean if keepdim else _along(mean, x.ndim, 1)
    variance, inverse = _VARIANCE((x, spread), dims, keepdim, (n, float(eps)))
    return mean, variance, inverse


def _along(tensor: Tensor | None, ndim: int, dim: int) -> Tensor | None:
    """A vector seen along ``dim`` of ``ndim`` dimensions, outside any graph."""
    if tensor is None:
        return None
    layout = tensor._layout
    key = "along", ndim, dim
    found = layout.views.get(key)
    if found is None:
        shape, strides = [1] * ndim, [0] * ndim
        shape[dim], strides[dim] = layout.shape[0], layout.strides[0]
        found = layout.views[key] = layout.view(shape, strides, layout.offset)
    return Tensor._from_storage(tensor._storage, found)


def _reshaped(tensor: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    return None if tensor is None else reshape(tensor, shape)


def _plain_gradients(grad, x, weight, dims, eps):
    """Gradients by input and of weight and bias before their sums, as graph for a second backward.

    ``weight`` broadcasts to ``x``; ``dims`` are what was averaged over.
    """
    n = numbers.prod(x.shape[d] for d in dims)
    centred = x - sum_(x, dims, True) / n
    inverse = (sum_(centred * centred, dims, True) / n + eps).rsqrt()
    normal = centred * inverse
    weighted = grad if weight is None else grad * weight
    total, dot = sum_(weighted, dims, True), sum_(weighted * normal, dims, True)
    return (weighted - total / n - normal * (dot / n)) * inverse, grad * normal


# -- batch norm ----------------------------------------------------------------------------------


def _moved(running, value, momentum, factor):
    return running * (1.0 - momentum) + value * factor * momentum


_MOVE = FusedPointwise("move_running", _moved)


def _move_running(running: Tensor | None, value: Tensor, momentum: float, factor: float) -> None:
    """Updates a running statistic in place; autograd does not count it as a change (as PyTorch)."""
    if running is None:
        return
    _MOVE((running, value), (float(momentum), factor), destinations=(running,))
    running._storage.version -= 1


@composite(
    "native_batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, "
    "Tensor? running_var, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
    variants="function",
)
def native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps):
    """Normalises channels (dimension 1); also returns the mean and one over the deviation used."""
    _check_channels(input, weight, bias, running_mean, running_var, training)
    ndim = input.ndim
    dims = (0, *range(2, ndim))
    if training:
        mean, variance, inverse = _statistics(input, dims, False, eps)
        if not input.numel():
            running_mean = running_var = None
        n = input.numel() // max(input.shape[1], 1)
        _move_running(running_mean, mean, momentum, 1.0)
        _move_running(running_var, variance, momentum, n / (n - 1) if n > 1 else float("nan"))
    else:
        mean, inverse = running_mean, _inverse_deviation(running_var, eps)
    operands = [_along(t, ndim, 1) for t in (mean, inverse, weight, bias)]
    (result,) = _NORMALIZE((input, *operands))
    if not training:
        empty = Tensor._from_storage(
            type(input._storage)(0, input.device), Layout.of((0,), mean.dtype, input.device)
        )
        return result, empty, empty
    return result, mean, inverse


native_batch_norm.node_name = "NativeBatchNormBackward0"

_INVERSE = FusedPointwise(
    "inverse_deviation",
    lambda variance, eps: 1.0 / k.sqrt(variance + eps),
    results=computed_like_first,
)


def _inverse_deviation(variance: Tensor, eps: float) -> Tensor:
    return _INVERSE((variance,), (float(eps),))[0]


def _check_channels(input, weight, bias, running_mean, running_var, training) -> None:
    if input.ndim < 2:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [-{max(input.ndim, 1)}, "
            f"{max(input.ndim, 1) - 1}], but got 1)"
        )
    channels = input.shape[1]
    named = {
        "running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias,
    }  # fmt: skip
    for name, tensor in named.items():
        if tensor is None and name.startswith("running") and not training:
            raise RuntimeError(f"{name} must be defined in evaluation mode")
        if tensor is not None and tensor.numel() != channels:
            raise RuntimeError(f"{name} should contain {channels} elements not {tensor.numel()}")
    if not input.dtype.is_floating_point:
        raise NotImplementedError(f"\"batch_norm\" not implemented for '{input.dtype.title}'")


@native_batch_norm.derivative
def native_batch_norm_backward(
    grad0, input, weight, running_mean, running_var, result1, result2, training, eps
):
    grad, ndim = grad0, input.ndim
    dims = (0, *range(2, ndim))
    if grad is None:
        return {}
    if grad_mode.enabled:
        return _batch_norm_plain(grad, input, weight, running_mean, running_var, training, eps)
    mean, inverse = result1, result2
    if not training:
        mean, inverse = running_mean, _inverse_deviation(running_var, eps)
    mean, inverse, scale = (_along(t, ndim, 1) for t in (mean, inverse, weight))
    total, dot = _SUMS((input, grad, mean, inverse, None), dims)
    if training:
        sums = _along(total, ndim, 1), _along(dot, ndim, 1)
        n = float(input.numel() // max(input.shape[1], 1))
        (result,) = _CHANNEL_GRADIENT((grad, input, mean, inverse, scale, *sums), (n,))
    else:
        (result,) = _FIXED_GRADIENT((grad, inverse, scale))
    return {"input": result, "weight": dot, "bias": total}


def _batch_norm_plain(grad, input, weight, running_mean, running_var, training, eps):
    ndim = input.ndim
    dims = (0, *range(2, ndim))
    channel = [1] * ndim
    channel[1] = -1
    scale = _reshaped(weight, channel)
    if training:
        result, products = _plain_gradients(grad, input, scale, dims, eps)
    else:
        inverse = reshape((running_var + eps).rsqrt(), channel)
        products = grad * ((input - reshape(running_mean, channel)) * inverse)
        result = grad * inverse if scale is None else grad * inverse * scale
    return {"input": result, "weight": sum_(products, dims), "bias": sum_(grad, dims)}


@composite(
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, "
    "Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor",
    variants="function",
)
def batch_norm(
    input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled
):
    """Normalises each channel (dimension 1) over all others.

    In training by the mean and variance of ``input``, towards which ``momentum`` moves the running
    ones; otherwise by those.
    """
    if input.ndim == 1 and not input.numel():
        return copy(input)
    values = [input, weight, bias, running_mean, running_var, training, momentum, eps]
    return native_batch_norm.record(values)[0]


# -- layer norm ----------------------------------------------------------------------------------


def _check_normalized(name: str, input, normalized_shape, weight, bias) -> tuple[int, ...]:
    """The dimensions to normalise; PyTorch's errors."""
    if not normalized_shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            "element, but got normalized_shape = []"
        )
    for label, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != normalized_shape:
            raise RuntimeError(
                f"Expected {label} to be of same shape as normalized_shape, but got {label} of "
                f"shape {list(tensor.shape)} and normalized_shape = {list(normalized_shape)}"
            )
    count = len(normalized_shape)
    if input.ndim < count or input.shape[input.ndim - count :] != normalized_shape:
        expected = ", ".join(map(str, normalized_shape))
        raise RuntimeError(
            f"Given normalized_shape={list(normalized_shape)}, expected input with shape "
            f"[*, {expected}], but got input of size{list(input.shape)}"
        )
    if not input.dtype.is_floating_point:
        raise NotImplementedError(f"\"{name}\" not implemented for '{input.dtype.title}'")
    return tuple(range(input.ndim - count, input.ndim))


@composite(
    "native_layer_norm(Tensor input, int[] normalized_shape, Tensor? weight, Tensor? bias, "
    "float eps) -> (Tensor, Tensor, Tensor)",
    variants="function",
)
def native_layer_norm(input, normalized_shape, weight, bias, eps):
    """Normalises the last dimensions; also returns the mean and one over the deviation."""
    dims = _check_normalized("LayerNormKernelImpl", input, normalized_shape, weight, bias)
    mean, _, inverse = _statistics(input, dims, True, eps)
    return _NORMALIZE_CONTIGUOUS((input, mean, inverse, weight, bias))[0], mean, inverse


@native_layer_norm.derivative
def native_layer_norm_backward(
    grad0, input, normalized_shape, weight, result1, result2, eps, needs
):
    grad, ndim = grad0, input.ndim
    if grad is None:
        return {}
    dims = tuple(range(ndim - len(normalized_shape), ndim))
    lead = tuple(range(dims[0]))
    if grad_mode.enabled:
        result, products = _plain_gradients(grad, input, weight, dims, eps)
        return {"input": result, **_parameter_gradients(grad, products, lead)}
    found = {}
    if "input" in needs:
        total, dot = _SUMS((input, grad, result1, result2, weight), dims, True)
        n = float(numbers.prod(normalized_shape))
        operands = (grad, input, result1, result2, weight, total, dot)
        found["input"] = _INPUT_GRADIENT(operands, (n,))[0]
    if "weight" in needs or "bias" in needs:
        total, dot = _SUMS((input, grad, result1, result2, None), lead)
        found |= {"weight": dot, "bias": total}
    return found


def _parameter_gradients(grad, products, lead):
    """Gradients of weight and bias; over no dimension at all nothing is summed."""
    if not lead:
        return {"weight": products, "bias": grad}
    return {"weight": sum_(products, lead), "bias": sum_(grad, lead)}


@composite(
    "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, "
    "float eps=1e-05, bool cudnn_enable=True) -> Tensor",
    variants="function",
)
def layer_norm(input, normalized_shape, weight, bias, eps, cudnn_enable):
    """Normalises the last dimensions to mean 0 and variance 1, then scales and shifts."""
    return native_layer_norm.record([input, normalized_shape, weight, bias, eps])[0]


@layer_norm.samples
def layer_norm_samples(make):
    yield make(3, 5), (5,)
    yield make(2, 3, 4), (3, 4), make(3, 4), make(3, 4)
    yield make(2, 3, 4), (4,), make(4), None, 1e-3
    yield make(7), (7,), make(7), make(7)


# -- group norm ----------------------------------------------------------------------------------


@composite(
    "native_group_norm(Tensor input, Tensor? weight, Tensor? bias, int N, int C, int HxW, "
    "int group, float eps) -> (Tensor, Tensor, Tensor)",
    variants="function",
)
def native_group_norm(input, weight, bias, N, C, HxW, group, eps):
    """Normalises groups of channels; also returns mean and inverse deviation, ``(N, group)``."""
    grouped = reshape(input, (N, group, C // group, HxW))
    mean, _, inverse = _statistics(grouped, (2, 3), True, eps)
    scale, shift = (_reshaped(t, (1, group, C // group, 1)) for t in (weight, bias))
    (result,) = _NORMALIZE_CONTIGUOUS((grouped, mean, inverse, scale, shift))
    result = Tensor._from_storage(result._storage, input._layout.contiguous())
    return result, reshape(mean, (N, group)), reshape(inverse, (N, group))


@native_group_norm.derivative
def native_group_norm_backward(
    grad0,
    input,
    weight,
    result1,
    result2,
    N,
    C,
    HxW,
    group,
    eps,
    needs,
):
    if grad0 is None:
        return {}
    shape = (N, group, C // group, HxW)
    grad, grouped = reshape(grad0, shape), reshape(input, shape)
    scale = _reshaped(weight, (1, group, C // group, 1))
    if grad_mode.enabled:
        result, products = _plain_gradients(grad, grouped, scale, (2, 3), eps)
        weight_gradient, bias_gradient = sum_(products, (0, 3)), sum_(grad, (0, 3))
    else:
        mean, inverse = (reshape(t, (N, group, 1, 1)) for t in (result1, result2))
        total, dot = _SUMS((grouped, grad, mean, inverse, scale), (2, 3), True)
        operands = (grad, grouped, mean, inverse, scale, total, dot)
        (result,) = _INPUT_GRADIENT(operands, (float(C // group * HxW),))
        bias_gradient = weight_gradient = None
        if "weight" in needs or "bias" in needs:
            bias_gradient, weight_gradient = _SUMS((grouped, grad, mean, inverse, None), (0, 3))
    return {
        "input": reshape(result, input.shape),
        "weight": _reshaped(weight_gradient, (C,)),
        "bias": _reshaped(bias_gradient, (C,)),
    }


@composite(
    "group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, "
    "float eps=1e-05, bool cudnn_enabled=True) -> Tensor",
    variants="function",
)
def group_norm(input, num_groups, weight, bias, eps, cudnn_enabled):
    """Normalises each group of channels of ``(N, C, *)``, then scales and shifts each channel."""
    _check_groups(input, num_groups, weight, bias)
    if not input.dtype.is_floating_point:
        title = input.dtype.title
        raise NotImplementedError(f"\"GroupNormKernelImpl\" not implemented for '{title}'")
    n, channels = input.shape[:2]
    area = numbers.prod(input.shape[2:])
    values = [contiguous(input), weight, bias, n, channels, area, num_groups, eps]
    return native_group_norm.record(values)[0]


def _check_groups(input, num_groups, weight, bias) -> None:
    if num_groups <= 0:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if input.ndim < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.ndim}"
        )
    channels = input.shape[1]
    if channels % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(input.shape)} and num_groups={num_groups}"
        )
    for label, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.ndim != 1 or tensor.numel() != channels):
            raise RuntimeError(
                f"Expected {label} to be a vector of size equal to the number of channels in "
                f"input, but got {label} of shape {list(tensor.shape)} and input of shape "
                f"{list(input.shape)}"
            )


@group_norm.samples
def group_norm_samples(make):
    yield make(2, 4), 2
    yield make(2, 6, 3, 3), 3, make(6), make(6)
    yield make(3, 4, 5), 1, make(4), None, 1e-3


# -- root mean square ----------------------------------------------------------------------------

_INVERSE_ROOT = FusedReduction(
    "inverse_root_mean_square",
    "sum",
    lambda x, n, eps: x * x,
    lambda total, n, eps: 1.0 / k.sqrt(total / n + eps),
    results=computed_like_first,
)
_SCALE = FusedPointwise(
    "rms_norm", lambda x, inverse, w: x * inverse if w is None else x * inverse * w, contiguous=True
)
_RMS_DOT = FusedReduction(
    "rms_norm_dot", "sum", lambda x, g, w: g * x if w is None else g * w * x,
    results=computed_like_first,
)  # fmt: skip
_RMS_WEIGHT = FusedReduction("rms_norm_weight", "sum", lambda x, g, inverse: g * (x * inverse))


def _rms_gradient(grad, x, inverse, weight, dot, n):
    if weight is not None:
        grad = grad * weight
    return (grad - x * (inverse * inverse * dot / n)) * inverse


_RMS_GRADIENT = FusedPointwise("rms_norm_backward", _rms_gradient)


@composite(
    "_rms_norm(Tensor input, int[] normalized_shape, Tensor? weight, float eps) "
    "-> (Tensor, Tensor)",
    variants="",
)
def _rms_norm(input, normalized_shape, weight, eps):
    dims = _check_normalized("rms_norm", input, normalized_shape, weight, None)
    n = float(numbers.prod(normalized_shape))
    (inverse,) = _INVERSE_ROOT((input,), dims, True, (n, float(eps)))
    return _SCALE((input, inverse, weight))[0], inverse


# PyTorch's is made of others, of which the product is the last.
_rms_norm.node_name = "MulBackward0"


@_rms_norm.derivative
def _rms_norm_backward(grad0, input, normalized_shape, weight, result1, eps, needs):
    grad, ndim = grad0, input.ndim
    n = float(numbers.prod(normalized_shape))
    dims = tuple(range(ndim - len(normalized_shape), ndim))
    lead = tuple(range(dims[0]))
    if grad_mode.enabled:
        inverse = (sum_(input * input, dims, True) / n + eps).rsqrt()
        weighted = grad if weight is None else grad * weight
        dot = sum_(weighted * input, dims, True)
        result = (weighted - input * (inverse * inverse * dot / n)) * inverse
        products = grad * (input * inverse)
        return {"input": result, "weight": sum_(products, lead) if lead else products}
    (dot,) = _RMS_DOT((input, grad, weight), dims, True)
    found = {"input": _RMS_GRADIENT((grad, input, result1, weight, dot), (n,))[0]}
    if "weight" in needs:
        found["weight"] = _RMS_WEIGHT((input, grad, result1), lead)[0]
    return found


@composite(
    "rms_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, float? eps=None) "
    "-> Tensor",
    variants="function",
)
def rms_norm(input, normalized_shape, weight, eps):
    """Divides by the root of the mean square over the last dimensions, then scales."""
    if eps is None:
        eps = types.finfo(operation_dtype(input.dtype)).eps
    return _rms_norm.record([input, normalized_shape, weight, eps])[0]


@rms_norm.samples
def rms_norm_samples(make):
    yield make(3, 5), (5,)
    yield make(2, 3, 4), (3, 4), make(3, 4), 1e-3


@batch_norm.samples
def batch_norm_samples(make):
    yield make(4, 3), make(3), make(3), None, None, True, 0.1, 1e-5, False
    yield make(2, 3, 4, 5), make(3), make(3), None, None, True, 0.1, 1e-5, False
