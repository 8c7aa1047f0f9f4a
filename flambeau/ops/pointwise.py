"""Pointwise arithmetic."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.ops.declare import pointwise


def scaled(x, factor):
    """``factor * x``; no instruction for the factor 1 that most calls have."""
    return x if isinstance(factor, int) and factor == 1 else x * factor


@pointwise(
    "add(Tensor self, Operand other, *, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
    dunder="add",
)
def add(self, other, alpha):
    """Returns ``self + alpha * other``."""
    return self + scaled(other, alpha)


@add.derivative
def add_backward(grad, alpha):
    return {"self": grad, "other": grad if alpha == 1 else grad * alpha}


@pointwise("mul(Tensor self, Operand other) -> Tensor", variants="function method inplace out", dunder="mul")
def mul(self, other):
    """Returns ``self * other``."""
    return self * other


@mul.derivative
def mul_backward(grad, self, other):
    return {"self": grad * other, "other": grad * self}


@pointwise("relu(Tensor self) -> Tensor", variants="function method inplace")
def relu(self):
    """Returns ``max(self, 0)``."""
    return k.where((self > 0) | (self != self), self, 0)
