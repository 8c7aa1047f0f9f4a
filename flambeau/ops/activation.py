"""Activation functions."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.core import dtype as types
from flambeau.ops.declare import pointwise
from flambeau.ops.pointwise import unary_samples, where

INPLACE_FORMS = "function method inplace"


def _check_relu(common, arguments):
    if common is types.bool_:
        raise RuntimeError("Boolean inputs not supported for relu")


@pointwise("relu(Tensor self) -> Tensor", check=_check_relu, variants=INPLACE_FORMS)
def relu(self):
    """Returns ``max(self, 0)``."""
    return k.where((self > 0) | (self != self), self, 0)


@relu.derivative
def relu_backward(grad, result):
    return {"self": where(result <= 0, 0, grad)}


relu.samples(unary_samples())
