"""Limiting values to a range."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.core.layout import Layout
from flambeau.ops.declare import PointwiseOperator, pointwise
from flambeau.ops.pointwise import ALL_FORMS, unless_bool, where
from flambeau.tensor import Tensor


class _Clamp(PointwiseOperator):
    """At least one limit is given; both are tensors or both numbers."""

    def record(self, values, out=None, inplace=False):
        limits = [v for v in values[1:] if v is not None]
        if not limits:
            raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
        return super().record(values, out, inplace)


_check_numbers = unless_bool("clamp_scalar_cpu")


def check_not_bool(common, arguments):
    """Masks can be limited by masks only."""
    if not all(limit is None or isinstance(limit, Layout) for limit in arguments[1:]):
        _check_numbers(common, arguments)


@pointwise(
    "clamp(Tensor self, Operand? min=None, Operand? max=None) -> Tensor",
    _Clamp,
    check=check_not_bool,
    variants=ALL_FORMS,
    aliases="clip",
)
def clamp(self, min, max):
    """Returns ``min(max(self, min), max)``; either limit may be None."""
    if min is not None:
        self = k.maximum(self, min)
    return self if max is None else k.minimum(self, max)


def _overload_name(node, number, tensor):
    return number if all(layout is None for layout in node.layouts[1:]) else tensor


clamp.node_name = lambda node: _overload_name(node, "ClampBackward1", "ClampBackward0")


@clamp.derivative
def clamp_backward(grad, self, min, max, needs):
    inside = _inside(self, min, max)
    gradients = {"self": where(inside, grad, 0)}
    if "min" in needs:
        low = self < min if max is None else (self < min) & (min < max)
        gradients["min"] = where(low, grad, 0)
    if "max" in needs:
        high = self > max if min is None else (self > max) | (max < min)
        gradients["max"] = where(high, grad, 0)
    return gradients


def _inside(self: Tensor, low, high) -> Tensor:
    if low is None:
        return self <= high
    return self >= low if high is None else (self >= low) & (self <= high)


@clamp.samples
def clamp_samples(make):
    yield make(3, 5), -0.5, 0.5
    yield make(3, 5), -1
    yield make(3, 5), {"max": 1}
    yield make(3, 5), 0.5, -0.5
    yield make(3, 5), make(3, 5, low=-1, high=0), make(5, low=0, high=1)
    yield make(3, 5), make(5), {}
    yield make(5, dtype="int64", low=-9, high=9), -2, 3
    yield make(5, dtype="int64", low=-9, high=9), -2.5, 3
    yield make(), 0.0, 1.0
    yield make(0, 3), 0.0
    yield make(4, 3, transposed=True, dtype="float64"), -0.3, 0.3
    yield make(6, dtype="bfloat16"), -0.3, 0.3
    yield make(values=[float("nan"), 1.0]), -0.5, 0.5
    yield (make(3),)


@pointwise(
    "clamp_min(Tensor self, Operand min) -> Tensor", check=check_not_bool, variants=ALL_FORMS
)
def clamp_min(self, min):
    """Returns ``max(self, min)``."""
    return k.maximum(self, min)


clamp_min.node_name = lambda node: _overload_name(node, "ClampMinBackward0", "ClampMinBackward1")


@clamp_min.derivative
def clamp_min_backward(grad, self, min, needs):
    inside = self >= min
    gradients = {"self": where(inside, grad, 0)}
    if "min" in needs:
        gradients["min"] = where(inside, 0, grad)
    return gradients


@clamp_min.samples
def clamp_min_samples(make):
    yield make(3, 5), 0.5
    yield make(3, 5), make(5)
    yield make(5, dtype="int64", low=-9, high=9), 1


@pointwise(
    "clamp_max(Tensor self, Operand max) -> Tensor", check=check_not_bool, variants=ALL_FORMS
)
def clamp_max(self, max):
    """Returns ``min(self, max)``."""
    return k.minimum(self, max)


clamp_max.node_name = lambda node: _overload_name(node, "ClampMaxBackward0", "ClampMaxBackward1")


@clamp_max.derivative
def clamp_max_backward(grad, self, max, needs):
    inside = self <= max
    gradients = {"self": where(inside, grad, 0)}
    if "max" in needs:
        gradients["max"] = where(inside, 0, grad)
    return gradients


@clamp_max.samples
def clamp_max_samples(make):
    yield make(3, 5), 0.5
    yield make(3, 5), make(5)
    yield make(5, dtype="int64", low=-9, high=9), 1
