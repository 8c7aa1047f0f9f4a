"""The mathematical functions of kernels: everything that bodies of operators may call.

Written in the kernel language itself, so they run in vectors on any target, fuse with everything
else and give the same bits wherever they stand.
"""

from __future__ import annotations

from flambeau.compiler.math_exponential import (
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    log_of_sum,
    sigmoid,
    tanh,
)
from flambeau.compiler.math_power import integer_power, pow, power_by_squaring
from flambeau.compiler.math_remainder import floor_divide, fmod, gcd, remainder
from flambeau.compiler.math_special import digamma, erf, erfc, erfcx, erfinv, i0e, i1e, lgamma, zeta
from flambeau.compiler.math_trigonometric import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    sin,
    sinh,
    tan,
)

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cos",
    "cosh",
    "digamma",
    "erf",
    "erfc",
    "erfcx",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor_divide",
    "fmod",
    "gcd",
    "i0e",
    "i1e",
    "integer_power",
    "lgamma",
    "log",
    "log1p",
    "log_of_sum",
    "log2",
    "log10",
    "pow",
    "power_by_squaring",
    "remainder",
    "sigmoid",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "zeta",
]
