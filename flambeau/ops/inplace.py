"""PyTorch's functions that write into their first argument: ``torch.relu_(x)``."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.ops import (
    activation,
    clamp,
    combination,
    exponential,
    matmul,
    numeric,
    pointwise,
    power,
    rounding,
    special,
    trigonometry,
)
from flambeau.ops.operator import Operator
from flambeau.tensor import Tensor


def in_place(op: Operator) -> Callable[..., Tensor]:
    """The function over an operator's in-place form."""

    def function(input: Tensor, *args: object, **kwargs: object) -> Tensor:
        result: Tensor = op.call_inplace((input, *args), kwargs)
        return result

    function.__name__ = function.__qualname__ = f"{op.name}_"
    function.__doc__ = f"In-place version of :func:`{op.name}`."
    return function


abs_ = in_place(pointwise.abs)
acos_ = in_place(trigonometry.acos)
acosh_ = in_place(trigonometry.acosh)
addmv_ = in_place(matmul.addmv)
asin_ = in_place(trigonometry.asin)
asinh_ = in_place(trigonometry.asinh)
atan_ = in_place(trigonometry.atan)
atanh_ = in_place(trigonometry.atanh)
ceil_ = in_place(rounding.ceil)
celu_ = in_place(activation.celu)
clamp_ = in_place(clamp.clamp)
clamp_max_ = in_place(clamp.clamp_max)
clamp_min_ = in_place(clamp.clamp_min)
cos_ = in_place(trigonometry.cos)
cosh_ = in_place(trigonometry.cosh)
deg2rad_ = in_place(trigonometry.deg2rad)
erf_ = in_place(special.erf)
erfc_ = in_place(special.erfc)
exp2_ = in_place(exponential.exp2)
exp_ = in_place(exponential.exp)
expm1_ = in_place(exponential.expm1)
floor_ = in_place(rounding.floor)
frac_ = in_place(rounding.frac)
ldexp_ = in_place(numeric.ldexp)
log10_ = in_place(exponential.log10)
log1p_ = in_place(exponential.log1p)
log2_ = in_place(exponential.log2)
log_ = in_place(exponential.log)
logit_ = in_place(exponential.logit)
nan_to_num_ = in_place(combination.nan_to_num)
neg_ = in_place(pointwise.neg)
rad2deg_ = in_place(trigonometry.rad2deg)
reciprocal_ = in_place(pointwise.reciprocal)
relu_ = in_place(activation.relu)
round_ = in_place(rounding.round)
rrelu_ = in_place(activation.rrelu)
rsqrt_ = in_place(power.rsqrt)
selu_ = in_place(activation.selu)
sigmoid_ = in_place(exponential.sigmoid)
sin_ = in_place(trigonometry.sin)
sinc_ = in_place(special.sinc)
sinh_ = in_place(trigonometry.sinh)
sqrt_ = in_place(power.sqrt)
square_ = in_place(power.square)
tan_ = in_place(trigonometry.tan)
tanh_ = in_place(trigonometry.tanh)
threshold_ = in_place(activation.threshold)
trunc_ = in_place(rounding.trunc)
xlogy_ = in_place(exponential.xlogy)
arccos_ = acos_
arccosh_ = acosh_
arcsin_ = asin_
arcsinh_ = asinh_
arctan_ = atan_
arctanh_ = atanh_
clip_ = clamp_
fix_ = trunc_
negative_ = neg_


def detach_(input: Tensor) -> Tensor:
    """``input.detach_()``"""
    return input.detach_()


def fill_(input: Tensor, value: object) -> Tensor:
    """``input.fill_(value)``"""
    return input.fill_(value)


def zero_(input: Tensor) -> Tensor:
    """``input.zero_()``"""
    return input.zero_()
