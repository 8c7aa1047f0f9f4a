"""Pointwise arithmetic: sums, products, quotients, signs, and choices between values."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.engine.watch import host_check
from flambeau.interchange import shared_array
from flambeau.ops.creation import filled, like_layout
from flambeau.ops.declare import (
    PROMOTIONS,
    PointwiseOperator,
    common_dtype,
    composite,
    pointwise,
)
from flambeau.ops.sample_tables import binary_samples, unary_samples
from flambeau.tensor import Tensor

ALL_FORMS = "function method inplace out"


def zeros_like_grad(grad):
    """The gradient of a function whose derivative is zero."""
    return filled(like_layout(grad), 0)


def operand_dtype(value):
    """The type of an argument as a check sees it: a layout's, or bool for a Python bool."""
    if isinstance(value, Layout):
        return value.dtype
    return types.bool_ if value is bool or isinstance(value, bool) else None


def unless_bool(kernel):
    """A check that raises PyTorch's error for bool, which names its kernel."""

    def check(common, arguments):
        if common is types.bool_:
            raise NotImplementedError(f"\"{kernel}\" not implemented for 'Bool'")

    return check


def _overload_name(node, number, tensor):
    """The node's name where PyTorch has overloads for a number and a tensor as second operand."""
    return number if node.layouts[1] is None else tensor


# -- sums and products ---------------------------------------------------------------------------


def scaled(x, factor):
    """``factor * x``; no instruction for the factor 1 that most calls have."""
    return x if isinstance(factor, int) and factor == 1 else x * factor


def check_alpha(common, arguments):
    alpha = arguments[2]
    kind = alpha if isinstance(alpha, type) else type(alpha)
    if kind is bool and common is not types.bool_:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")
    if kind is float and not common.is_floating_point:
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )


@pointwise(
    "add(Tensor self, Operand other, *, Scalar alpha=1) -> Tensor",
    check=check_alpha,
    variants=ALL_FORMS,
    dunder="add",
)
def add(self, other, alpha):
    """Returns ``self + alpha * other``."""
    return self + scaled(other, alpha)


@add.derivative
def add_backward(grad, alpha):
    return {"self": grad, "other": grad if alpha == 1 else grad * alpha}


@add.samples
def add_samples(make):
    yield from binary_samples()(make)
    yield make(3), make(3), {"alpha": 2.5}
    yield make(3, dtype="int64"), make(3, dtype="int64"), {"alpha": 3}
    yield make(3, dtype="int64"), make(3, dtype="int64"), {"alpha": 0.5}


def check_subtraction(common, arguments):
    first, second = operand_dtype(arguments[0]), operand_dtype(arguments[1])
    if first is types.bool_ and second is types.bool_:
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. "
            "Use the `^` or `logical_xor()` operator instead."
        )
    if first is types.bool_ or second is types.bool_:
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying "
            "to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    check_alpha(common, arguments)


@pointwise(
    "sub(Tensor self, Operand other, *, Scalar alpha=1) -> Tensor",
    check=check_subtraction,
    variants=ALL_FORMS,
    dunder="sub",
    aliases="subtract",
)
def sub(self, other, alpha):
    """Returns ``self - alpha * other``."""
    return self - scaled(other, alpha)


@sub.derivative
def sub_backward(grad, alpha, needs):
    if "other" not in needs:
        return {"self": grad}
    return {"self": grad, "other": -grad if alpha == 1 else grad * -alpha}


@sub.samples
def sub_samples(make):
    yield from binary_samples()(make)
    yield make(3), make(3), {"alpha": 2.5}
    yield make(3), make(3, dtype="bool")
    yield make(3, dtype="bool"), 1


class _ReverseSubtraction(PointwiseOperator):
    """Of two tensors the difference is that of ``sub``."""

    def record(self, values, out=None, inplace=False):
        subtrahend, minuend, alpha = values
        if isinstance(minuend, Tensor):
            return sub.record([minuend, subtrahend, alpha], out)
        return super().record(values, out, inplace)


@pointwise(
    "rsub(Tensor self, Operand other, *, Scalar alpha=1) -> Tensor",
    _ReverseSubtraction,
    check=check_subtraction,
    variants="function",
    dunder="rsub",
)
def rsub(self, other, alpha):
    """Returns ``other - alpha * self``."""
    return other - scaled(self, alpha)


rsub.node_name = "RsubBackward1"


@rsub.derivative
def rsub_backward(grad, alpha):
    return {"self": -grad if alpha == 1 else grad * -alpha, "other": grad}


rsub.samples(binary_samples())


@pointwise(
    "mul(Tensor self, Operand other) -> Tensor",
    variants=ALL_FORMS,
    dunder="mul",
    aliases="multiply",
)
def mul(self, other):
    """Returns ``self * other``."""
    return self * other


@mul.derivative
def mul_backward(grad, self, other, needs):
    gradients = {}
    if "self" in needs:
        gradients["self"] = grad * other
    if "other" in needs:
        gradients["other"] = grad * self
    return gradients


mul.saved_for(self="other", other="self")


mul.samples(binary_samples())


# -- quotients -----------------------------------------------------------------------------------


def common_of(*operands):
    """The type that operands, tensors or numbers, are promoted to."""
    return common_dtype([o._layout if isinstance(o, Tensor) else type(o) for o in operands])


@host_check
def refuse_zero_divisor(dividend, divisor):
    """PyTorch's error for whole numbers divided by zero; looks at the divisor's values."""
    if common_of(dividend, divisor).category != "integer":
        return
    if isinstance(divisor, Tensor):
        has_zero = divisor.numel() and not shared_array(divisor).all()
    else:
        has_zero = divisor == 0
    if has_zero:
        raise RuntimeError("ZeroDivisionError")


class _WholeDivision(PointwiseOperator):
    """Division that stays among whole numbers where its operands are."""

    short_path = False

    def split(self, values):
        refuse_zero_divisor(*values)
        return super().split(values)


class _Division(PointwiseOperator):
    """Without a rounding mode integers divide as floats."""

    def split(self, values):
        dividend, divisor, mode = values
        if mode is not None:
            refuse_zero_divisor(dividend, divisor)
        return super().split(values)

    def _types(self, layouts, static):
        mode = static[0]
        if mode not in (None, "trunc", "floor"):
            raise RuntimeError(
                "div expected rounding_mode to be one of None, 'trunc', or 'floor' "
                f"but found '{mode}'"
            )
        self.promote = PROMOTIONS["float" if mode is None else "common"]
        return super()._types(layouts, static)


@pointwise(
    "div(Tensor self, Operand other, *, str? rounding_mode=None) -> Tensor",
    _Division,
    variants=ALL_FORMS,
    dunder="truediv",
    aliases="divide",
)
def div(self, other, rounding_mode):
    """Returns ``self / other``, rounded by ``rounding_mode``: None, "trunc" or "floor"."""
    if rounding_mode == "floor":
        return math.floor_divide(self, other)
    quotient = self / other
    return k.trunc(quotient) if rounding_mode and quotient.dtype.is_floating_point else quotient


def _division_name(node):
    rounded = node.arguments is not None and node.arguments["rounding_mode"] is not None
    return "DivBackward2" if rounded else "DivBackward0"


div.node_name = _division_name


@div.derivative
def div_backward(grad, self, other, rounding_mode, needs):
    if rounding_mode is not None:
        return {"self": zeros_like_grad(grad), "other": zeros_like_grad(grad)}
    gradients = {"self": grad / other}
    if "other" in needs:
        gradients["other"] = -gradients["self"] * (self / other)
    return gradients


div.saved_for(self="other")


@div.samples
def div_samples(make):
    yield from binary_samples(low=0.5, high=3)(make)
    yield make(6), make(6, low=0.5), {"rounding_mode": "trunc"}
    yield make(6), make(6, low=0.5), {"rounding_mode": "floor"}
    yield make(6, dtype="int64", low=-9, high=9), 2, {"rounding_mode": "floor"}
    yield make(6, dtype="int64", low=-9, high=9), 2, {"rounding_mode": "trunc"}
    yield make(3), 2, {"rounding_mode": "up"}
    yield make(values=[0.0, 1.0, -1.0]), 0


@composite("true_divide(Tensor self, Operand other) -> Tensor", variants=ALL_FORMS)
def true_divide(self, other):
    """Returns ``self / other``."""
    return div(self, other)


true_divide.samples(binary_samples(low=0.5))


@composite("_rtruediv(Tensor self, Operand other) -> Tensor", variants="", dunder="rtruediv")
def rtruediv(self, other):
    """Returns ``other / self``."""
    return reciprocal(self) * other


@pointwise("reciprocal(Tensor self) -> Tensor", promote="float", variants=ALL_FORMS)
def reciprocal(self):
    """Returns ``1 / self``."""
    return 1 / self


@reciprocal.derivative
def reciprocal_backward(grad, result):
    return {"self": -grad * (result * result)}


reciprocal.samples(unary_samples(0.5, 3))


@pointwise(
    "remainder(Operand self, Operand other) -> Tensor",
    _WholeDivision,
    check=unless_bool("remainder_cpu"),
    variants=ALL_FORMS,
    dunder="mod",
)
def remainder(self, other):
    """Returns Python's ``self % other``: the result has the sign of ``other``."""
    return math.remainder(self, other)


@remainder.derivative
def remainder_backward(grad, self, other, needs):
    gradients = {"self": grad}
    if "other" in needs:
        gradients["other"] = -grad * div(self, other, rounding_mode="floor")
    return gradients


remainder.node_name = lambda node: _overload_name(node, "RemainderBackward0", "RemainderBackward1")
remainder.samples(binary_samples(low=0.5, high=3, numbers=(2, -0.7)))


@composite("_rmod(Tensor self, Operand other) -> Tensor", variants="", dunder="rmod")
def rmod(self, other):
    """Returns ``other % self``."""
    return remainder(other, self)


@pointwise(
    "fmod(Tensor self, Operand other) -> Tensor",
    _WholeDivision,
    check=unless_bool("fmod_cpu"),
    variants=ALL_FORMS,
)
def fmod(self, other):
    """Returns C's remainder: the result has the sign of ``self``."""
    return math.fmod(self, other)


@fmod.derivative
def fmod_backward(grad, self, other, needs):
    gradients = {"self": grad}
    if "other" in needs:
        gradients["other"] = -grad * div(self, other, rounding_mode="trunc")
    return gradients


fmod.node_name = lambda node: _overload_name(node, "FmodBackward0", "FmodBackward1")
fmod.samples(binary_samples(low=0.5, high=3, numbers=(2, -0.7)))


@pointwise(
    "floor_divide(Operand self, Operand other) -> Tensor",
    _WholeDivision,
    variants=ALL_FORMS,
    dunder="floordiv",
)
def floor_divide(self, other):
    """Returns ``self / other`` rounded down."""
    return math.floor_divide(self, other)


# PyTorch has no derivative either: the graph says so when it is asked for one.
floor_divide.node_name = "torch::autograd::NotImplemented"


@floor_divide.samples
def floor_divide_samples(make):
    yield make(9, dtype="int64", low=-9, high=9), make(9, dtype="int32", low=1, high=5)
    yield make(9, dtype="int64", low=-9, high=9), -2
    yield make(9, dtype="uint8", low=0, high=9), make(9, dtype="int8", low=1, high=5)
    yield make(3, 1, dtype="int64", low=-9, high=9), make(5, dtype="int64", low=1, high=5)
    yield make(0, dtype="int64"), 2


@composite("_rfloordiv(Tensor self, Operand other) -> Tensor", variants="", dunder="rfloordiv")
def rfloordiv(self, other):
    """Returns ``other // self``."""
    return floor_divide(other, self)


# -- signs ---------------------------------------------------------------------------------------


def check_negation(common, arguments):
    if common is types.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
            "invert a mask, use the `~` or `logical_not()` operator instead."
        )


@pointwise(
    "neg(Tensor self) -> Tensor",
    check=check_negation,
    variants=ALL_FORMS,
    dunder="neg",
    aliases="negative",
)
def neg(self):
    """Returns ``-self``."""
    return -self


@neg.derivative
def neg_backward(grad):
    return {"self": -grad}


neg.samples(unary_samples())


@composite("positive(Tensor self) -> Tensor", variants="function method", dunder="pos")
def positive(self):
    """Returns ``self``."""
    if self.dtype is types.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return self


@pointwise(
    "abs(Tensor self) -> Tensor",
    check=unless_bool("abs_cpu"),
    variants=ALL_FORMS,
    dunder="abs",
    aliases="absolute",
)
def abs(self):
    """Returns the absolute value."""
    return k.absolute(self)


@abs.derivative
def abs_backward(grad, self):
    return {"self": grad * sign(self)}


abs.samples(unary_samples())


def _sign(self):
    if self.dtype is types.bool_:
        return self
    below = k.where(self < 0, self.like(-1), 0) if self.dtype.is_signed else self.like(0)
    return k.where(self > 0, 1, below)


@pointwise("sign(Tensor self) -> Tensor", variants=ALL_FORMS)
def sign(self):
    """Returns -1, 0 or 1."""
    return _sign(self)


@sign.derivative
def sign_backward(grad):
    return {"self": zeros_like_grad(grad)}


sign.samples(unary_samples())


@pointwise("sgn(Tensor self) -> Tensor", variants=ALL_FORMS)
def sgn(self):
    """Returns -1, 0 or 1: for real numbers the same as ``sign``."""
    return _sign(self)


sgn.derivative(lambda grad: {"self": zeros_like_grad(grad)})
sgn.samples(unary_samples())


# -- choices -------------------------------------------------------------------------------------


class _Where(PointwiseOperator):
    """The condition takes no part in promotion; it must be bool.  Alone it is asked for indices."""

    def record(self, values, out=None, inplace=False):
        condition, first, second = values
        if first is None and second is None:
            return condition.nonzero(as_tuple=True)
        return super().record(values, out, inplace)

    def _types(self, layouts, static):
        kind = layouts[0].dtype
        if kind is not types.bool_ and kind is not types.uint8:
            raise RuntimeError(
                "where expected condition to be a boolean tensor, "
                f"but got a tensor with dtype {kind.title}"
            )
        return super()._types(layouts, static)


@pointwise(
    "where(Tensor condition, Operand? self=None, Operand? other=None) -> Tensor",
    _Where,
    untouched="condition",
    variants="function out",
)
def where(condition, self, other):
    """Returns ``self`` where ``condition`` holds, else ``other``."""
    return k.where(condition.cast(types.bool_), self, other)


@where.derivative
def where_backward(grad, condition, needs):
    gradients = {}
    if "self" in needs:
        gradients["self"] = where(condition, grad, 0)
    if "other" in needs:
        gradients["other"] = where(condition, 0, grad)
    return gradients


@where.samples
def where_samples(make):
    yield make(3, 5, dtype="bool"), make(3, 5), make(3, 5)
    yield make(3, 1, dtype="bool"), make(5), make()
    yield make(3, dtype="bool"), make(3), 2
    yield make(3, dtype="bool"), 0.5, make(3, dtype="int64")
    yield make(3, dtype="bool"), 1, 0
    yield make(3, dtype="bool"), 1.0, 0.0
    yield make(4, 3, dtype="bool", transposed=True), make(3, 4, dtype="float64"), make(3, 4)
    yield make(0, dtype="bool"), make(0), make(1)
    yield make(3), make(3), make(3)


@composite(
    "where.method(Tensor self, Tensor condition, Operand other) -> Tensor", variants="method"
)
def where_method(self, condition, other):
    """Returns ``self`` where ``condition`` holds, else ``other``."""
    return where(condition, self, other)


@pointwise("maximum(Tensor self, Tensor other) -> Tensor", variants="function method out")
def maximum(self, other):
    """Returns the larger of each pair; NaN if either is NaN."""
    return self | other if self.dtype is types.bool_ else k.maximum(self, other)


@maximum.derivative
def maximum_backward(grad, self, other):
    shared = where(self == other, grad / 2, grad)
    return {"self": where(self < other, 0, shared), "other": where(self > other, 0, shared)}


maximum.samples(binary_samples(numbers=()))


@pointwise("minimum(Tensor self, Tensor other) -> Tensor", variants="function method out")
def minimum(self, other):
    """Returns the smaller of each pair; NaN if either is NaN."""
    return self & other if self.dtype is types.bool_ else k.minimum(self, other)


@minimum.derivative
def minimum_backward(grad, self, other):
    shared = where(self == other, grad / 2, grad)
    return {"self": where(self > other, 0, shared), "other": where(self < other, 0, shared)}


minimum.samples(binary_samples(numbers=()))


@pointwise("fmax(Tensor self, Tensor other) -> Tensor", variants="function method out")
def fmax(self, other):
    """Returns the larger of each pair; a NaN gives way to a number."""
    return (
        self | other
        if self.dtype is types.bool_
        else k.where((self > other) | (other != other), self, other)
    )


@fmax.derivative
def fmax_backward(grad, self, other):
    first = (self >= other) | (other != other)
    return {"self": where(first, grad, 0), "other": where(first, 0, grad)}


@fmax.samples
def fmax_samples(make):
    yield from binary_samples(numbers=())(make)
    nan = float("nan")
    yield make(values=[1.0, nan, nan]), make(values=[nan, 1.0, nan])


@pointwise("fmin(Tensor self, Tensor other) -> Tensor", variants="function method out")
def fmin(self, other):
    """Returns the smaller of each pair; a NaN gives way to a number."""
    return (
        self & other
        if self.dtype is types.bool_
        else k.where((self < other) | (other != other), self, other)
    )


@fmin.derivative
def fmin_backward(grad, self, other):
    first = (self <= other) | (other != other)
    return {"self": where(first, grad, 0), "other": where(first, 0, grad)}


fmin.samples(fmax_samples)
