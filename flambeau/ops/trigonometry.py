"""Trigonometric and hyperbolic functions."""

from __future__ import annotations

from flambeau.compiler import math
from flambeau.ops.declare import pointwise
from flambeau.ops.pointwise import ALL_FORMS, unary_samples


def _float_function(name: str, aliases: str = ""):
    return pointwise(
        f"{name}(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS, aliases=aliases
    )


@_float_function("tanh")
def tanh(self):
    """Returns the hyperbolic tangent."""
    return math.tanh(self)


@tanh.derivative
def tanh_backward(grad, result):
    return {"self": grad * (1 - result * result)}


tanh.samples(unary_samples(-4, 4))
