"""Rounding to whole numbers or decimals."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.ops.declare import PointwiseOperator, pointwise
from flambeau.ops.pointwise import ALL_FORMS, unless_bool, zeros_like_grad
from flambeau.ops.sample_tables import unary_samples


def _rounding(name: str, aliases: str = ""):
    return pointwise(
        f"{name}(Tensor self) -> Tensor",
        check=unless_bool(f"{name}_vml_cpu"),
        variants=ALL_FORMS,
        aliases=aliases,
    )


def _zero_gradient(grad):
    return {"self": zeros_like_grad(grad)}


@_rounding("floor")
def floor(self):
    """Returns the largest whole number that is not greater."""
    return k.floor(self) if self.dtype.is_floating_point else self


@_rounding("ceil")
def ceil(self):
    """Returns the smallest whole number that is not less."""
    return k.ceil(self) if self.dtype.is_floating_point else self


@_rounding("trunc", aliases="fix")
def trunc(self):
    """Returns the whole part."""
    return k.trunc(self) if self.dtype.is_floating_point else self


for _operator in (floor, ceil, trunc):
    _operator.derivative(_zero_gradient)
    _operator.samples(unary_samples(-5, 5))


def _check_frac(common, arguments):
    if not common.is_floating_point:
        raise NotImplementedError(f"\"frac_cpu\" not implemented for '{common.title}'")


@pointwise("frac(Tensor self) -> Tensor", check=_check_frac, variants=ALL_FORMS)
def frac(self):
    """Returns what `trunc` takes away."""
    return self - k.trunc(self)


@frac.derivative
def frac_backward(grad):
    return {"self": grad}


frac.samples(unary_samples(-5, 5))


class _Round(PointwiseOperator):
    """Whole numbers round to themselves, and not to decimals."""

    def _types(self, layouts, static):
        kind = layouts[0].dtype
        if static[0] and not kind.is_floating_point:
            raise NotImplementedError(f"\"round_cpu\" not implemented for '{kind.title}'")
        return super()._types(layouts, static)


@pointwise(
    "round(Tensor self, *, int decimals=0) -> Tensor",
    _Round,
    check=unless_bool("round_vml_cpu"),
    variants=ALL_FORMS,
)
def round(self, decimals):
    """Returns the nearest whole number, or number of so many decimals; ties go to the even one."""
    if not self.dtype.is_floating_point:
        return self
    if decimals == 0:
        return k.roundeven(self)
    power = float(10 ** abs(decimals))
    if decimals > 0:
        return k.roundeven(self * power) / power
    return k.roundeven(self / power) * power


round.node_name = lambda node: (
    "RoundBackward1" if node.arguments and node.arguments["decimals"] else "RoundBackward0"
)


@round.derivative
def round_backward(grad, decimals):
    return {"self": zeros_like_grad(grad)}


@round.samples
def round_samples(make):
    yield from unary_samples(-5, 5)(make)
    yield (make(values=[0.5, 1.5, 2.5, -0.5, -1.5]),)
    yield make(5, low=-50, high=50), {"decimals": 1}
    yield make(5, low=-50, high=50, dtype="float64"), {"decimals": -1}
    yield make(5, dtype="int64"), {"decimals": 1}
