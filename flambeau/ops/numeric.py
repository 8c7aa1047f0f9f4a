"""Parts and neighbours of floating numbers; what complex numbers' functions are for real ones."""

from __future__ import annotations

import math as python_math

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.compiler.kernel import Value
from flambeau.compiler.math_exponential import format_of
from flambeau.core import dtype as types
from flambeau.ops import return_types
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, pointwise
from flambeau.ops.exponential import exp2
from flambeau.ops.pointwise import ALL_FORMS, mul, zeros_like_grad
from flambeau.ops.power import pow
from flambeau.ops.sample_tables import unary_samples
from flambeau.tensor import Tensor

# -- parts ---------------------------------------------------------------------------------------


def _split(x: Value) -> tuple[Value, Value]:
    """``x = mantissa * 2**exponent`` with ``0.5 <= abs(mantissa) < 1``."""
    form = format_of(x)
    tiny = k.absolute(x) < form.smallest_normal
    grown = k.where(tiny, x * 2.0**form.mantissa, x)
    bits = grown.bitcast(form.integer)
    field = (bits >> form.mantissa) & (2 * form.bias + 1)
    exponent = field - (form.bias - 1)
    exponent = k.where(tiny, exponent - form.mantissa, exponent)
    kept = bits & ~((2 * form.bias + 1) << form.mantissa)
    mantissa = (kept | ((form.bias - 1) << form.mantissa)).bitcast(form.floating)
    usual = (x != 0.0) & (k.absolute(x) < k.INFINITY)
    return k.where(usual, mantissa, x), k.where(usual, exponent, 0)


@pointwise("_mantissa(Tensor self) -> Tensor", variants="")
def _mantissa(self):
    return _split(self)[0]


_mantissa.node_name = "FrexpBackward0"


@_mantissa.derivative
def _mantissa_backward(grad, self):
    exponent = _exponent(self)
    return {"self": grad * exp2(to_dtype(-exponent, self.dtype))}


@pointwise(
    "_exponent(Tensor self) -> Tensor",
    promote=lambda common: (common, types.int32),
    variants="",
    differentiable=False,
)
def _exponent(self):
    return _split(self)[1].cast(types.int32)


@composite("frexp(Tensor self) -> (Tensor mantissa, Tensor exponent)", variants="function method")
def frexp(self):
    """Returns mantissas within ``[0.5, 1)`` and exponents: ``self = mantissa * 2**exponent``."""
    if not self.is_floating_point():
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    return return_types.frexp((_mantissa(self), _exponent(self)))


@frexp.samples
def frexp_samples(make):
    yield (make(3, 5, low=-90, high=90),)
    yield (make(values=[0.0, 1.0, -0.25, 1e-40, 3e38]),)
    yield (make(4, dtype="float64", low=-90, high=90),)
    yield (make(0),)
    yield (make(3, dtype="int64"),)


@composite("ldexp(Tensor self, Tensor other) -> Tensor", variants=ALL_FORMS)
def ldexp(self, other):
    """Returns ``self * 2**other``."""
    return mul(self, pow(2.0, other))


@ldexp.derivative
def ldexp_backward(grad, other, result):
    return {"self": grad * pow(2.0, other), "other": grad * result * python_math.log(2)}


@ldexp.samples
def ldexp_samples(make):
    yield make(3, 5), make(3, 5, dtype="int64", low=0, high=5)
    yield make(3, 1), make(5, dtype="int32", low=0, high=5)
    yield make(3, dtype="int64"), make(3, dtype="int64", low=0, high=5)
    yield make(3, dtype="float64"), make(3)


@pointwise("nextafter(Tensor self, Tensor other) -> Tensor", variants=ALL_FORMS)
def nextafter(self, other):
    """Returns the neighbour of ``self`` in the direction of ``other``."""
    form = format_of(self)
    bits = self.bitcast(form.integer)
    # Bits of positive numbers grow with them, those of negative numbers with their magnitude.
    away = (self > 0.0) ^ (other < self)
    step = k.where(away, bits.like(1), -1)
    moved = (bits + step).bitcast(form.floating)
    least = k.copysign(self.like(1).cast(form.integer).bitcast(form.floating), other)
    moved = k.where(self == 0.0, least, moved)
    moved = k.where(self == other, other, moved)
    return k.where((self != self) | (other != other), k.NAN, moved)


nextafter.node_name = "torch::autograd::NotImplemented"


# -- whole numbers -------------------------------------------------------------------------------


def _check_integers(kernel):
    def check(common, arguments):
        if common.is_floating_point or common is types.bool_:
            raise NotImplementedError(f"\"{kernel}\" not implemented for '{common.title}'")

    return check


@pointwise(
    "gcd(Tensor self, Tensor other) -> Tensor",
    check=_check_integers("gcd_cpu"),
    variants=ALL_FORMS,
    differentiable=False,
)
def gcd(self, other):
    """Returns the greatest common divisor."""
    return math.gcd(self, other)


@pointwise(
    "lcm(Tensor self, Tensor other) -> Tensor",
    check=_check_integers("lcm_cpu"),
    variants=ALL_FORMS,
    differentiable=False,
)
def lcm(self, other):
    """Returns the least common multiple."""
    return k.absolute(self / math.gcd(self, other) * other)


def _whole_samples(make):
    yield make(50, dtype="int64", low=-60, high=60), make(50, dtype="int64", low=-60, high=60)
    yield make(9, dtype="int32", low=0, high=60), make(9, dtype="int8", low=0, high=60)
    yield make(3, 1, dtype="uint8", low=0, high=60), make(5, dtype="uint8", low=0, high=60)
    yield (
        make(values=[0, 0, 7, 2971215073], dtype="int64"),
        make(values=[0, 5, 0, 4807526976], dtype="int64"),
    )
    yield make(3), make(3)


gcd.samples(_whole_samples)
lcm.samples(_whole_samples)


# -- powers in float64 ---------------------------------------------------------------------------


@composite("float_power(Operand self, Operand exponent) -> Tensor", variants="function method out")
def float_power(self, exponent):
    """Returns ``self`` to the power ``exponent``, computed in float64."""
    if isinstance(self, Tensor):
        self = to_dtype(self, types.float64)
    if isinstance(exponent, Tensor):
        exponent = to_dtype(exponent, types.float64)
    return pow(
        self if isinstance(self, Tensor) else float(self),
        exponent if isinstance(exponent, Tensor) else float(exponent),
    )


@float_power.samples
def float_power_samples(make):
    yield make(3, 5, low=0.5), 2
    yield make(3, dtype="int64", low=1, high=5), make(3, low=0.5)
    yield 2, make(3)


# -- real numbers as complex ones ----------------------------------------------------------------


@pointwise("angle(Tensor self) -> Tensor", promote="float", variants="function method out")
def angle(self):
    """Returns 0 for positive numbers, pi for negative ones."""
    return k.where(self != self, self, k.where(self < 0.0, self.like(python_math.pi), 0.0))


@angle.derivative
def angle_backward(grad):
    return {"self": zeros_like_grad(grad)}


@angle.samples
def angle_samples(make):
    yield from unary_samples()(make)
    yield (make(values=[float("nan"), -0.0, 0.0]),)


def _identity(name: str):
    def body(self):
        return self

    body.__doc__ = "Returns ``self``: it is real."
    return composite(f"{name}(Tensor self) -> Tensor", variants="function method")(body)


conj_physical = _identity("conj_physical")
resolve_conj = _identity("resolve_conj")
resolve_neg = _identity("resolve_neg")


@composite("imag(Tensor self) -> Tensor", variants="function method")
def imag(self):
    """Raises RuntimeError: only complex tensors have imaginary parts."""
    raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")


@composite("isreal(Tensor self) -> Tensor", variants="function method", differentiable=False)
def isreal(self):
    """Returns True everywhere: no element has an imaginary part."""
    return self == self if not self.is_floating_point() else (self == self) | True


@composite("is_conj(Tensor self) -> bool", variants="function method", differentiable=False)
def is_conj(self):
    """Returns whether the tensor is a lazy conjugate; never."""
    return False


@composite("is_neg(Tensor self) -> bool", variants="function method", differentiable=False)
def is_neg(self):
    """Returns whether the tensor is a lazy negation; never."""
    return False


for _operator in (conj_physical, resolve_conj, resolve_neg, isreal):
    _operator.samples(unary_samples())
