"""Comparisons, tests of numbers, logic and bits.  None of them is differentiable."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.ops.declare import composite, pointwise
from flambeau.ops.pointwise import ALL_FORMS
from flambeau.ops.sample_tables import binary_samples, unary_samples


def _comparison(name: str, dunder: str, alias: str):
    return pointwise(
        f"{name}(Tensor self, Operand other) -> Tensor",
        promote="compare",
        variants=ALL_FORMS,
        dunder=dunder,
        aliases=alias,
        differentiable=False,
    )


@_comparison("eq", "eq", "")
def eq(self, other):
    """Returns whether ``self == other``."""
    return self == other


@_comparison("ne", "ne", "not_equal")
def ne(self, other):
    """Returns whether ``self != other``."""
    return self != other


@_comparison("lt", "lt", "less")
def lt(self, other):
    """Returns whether ``self < other``."""
    return self < other


@_comparison("le", "le", "less_equal")
def le(self, other):
    """Returns whether ``self <= other``."""
    return self <= other


@_comparison("gt", "gt", "greater")
def gt(self, other):
    """Returns whether ``self > other``."""
    return self > other


@_comparison("ge", "ge", "greater_equal")
def ge(self, other):
    """Returns whether ``self >= other``."""
    return self >= other


for _operator in (eq, ne, lt, le, gt, ge):
    _operator.samples(binary_samples(-1, 1))


# -- tests of numbers ----------------------------------------------------------------------------


def _test(name: str):
    return pointwise(f"{name}(Tensor self) -> Tensor", promote="compare", differentiable=False)


@_test("isnan")
def isnan(self):
    """Returns whether each element is NaN."""
    return self != self


@_test("isinf")
def isinf(self):
    """Returns whether each element is infinite, of either sign."""
    if not self.dtype.is_floating_point:
        return self != self
    return k.absolute(self) == k.INFINITY


@_test("isfinite")
def isfinite(self):
    """Returns whether each element is neither infinite nor NaN."""
    if not self.dtype.is_floating_point:
        return self == self
    return k.absolute(self) < k.INFINITY


@_test("isposinf")
def isposinf(self):
    """Returns whether each element is positive infinity."""
    return self == k.INFINITY if self.dtype.is_floating_point else self != self


@_test("isneginf")
def isneginf(self):
    """Returns whether each element is negative infinity."""
    return self == -k.INFINITY if self.dtype.is_floating_point else self != self


@_test("signbit")
def signbit(self):
    """Returns whether each element's sign bit is set: also for -0.0."""
    if not self.dtype.is_floating_point:
        return self < 0 if self.dtype.is_signed else self != self
    return k.copysign(self.like(1.0), self) < 0.0


def _special_samples(make):
    nan, inf = float("nan"), float("inf")
    for kind in ("float32", "float64", "bfloat16"):
        yield (make(values=[inf, -inf, 0.0, -0.0, 1.5, -2.0], dtype=kind),)
    yield (make(values=[nan, 1.0]),)
    yield (make(4, 3, transposed=True),)
    yield (make(5, dtype="int64"),)
    yield (make(5, dtype="bool"),)
    yield (make(0),)
    yield (make(),)


for _operator in (isnan, isinf, isfinite, isposinf, isneginf, signbit):
    _operator.samples(_special_samples)


# -- logic ---------------------------------------------------------------------------------------


def _logical(name: str):
    return pointwise(
        f"{name}(Tensor self, Tensor other) -> Tensor",
        promote="logical",
        variants=ALL_FORMS,
        differentiable=False,
    )


@_logical("logical_and")
def logical_and(self, other):
    """Returns whether both are nonzero."""
    return self & other


@_logical("logical_or")
def logical_or(self, other):
    """Returns whether either is nonzero."""
    return self | other


@_logical("logical_xor")
def logical_xor(self, other):
    """Returns whether exactly one is nonzero."""
    return self ^ other


@pointwise(
    "logical_not(Tensor self) -> Tensor",
    promote="logical",
    variants=ALL_FORMS,
    differentiable=False,
)
def logical_not(self):
    """Returns whether each element is zero."""
    return ~self


for _operator in (logical_and, logical_or, logical_xor):
    _operator.samples(binary_samples(-1, 1, numbers=()))
logical_not.samples(unary_samples())


# -- bits ----------------------------------------------------------------------------------------


def _check_integers(name: str):
    def check(common, arguments):
        if common.is_floating_point:
            raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{common.title}'")

    return check


def _bitwise(name: str, dunder: str, kernel: str = ""):
    return pointwise(
        f"{name}(Operand self, Operand other) -> Tensor",
        check=_check_integers(kernel or name),
        variants=ALL_FORMS,
        dunder=dunder,
        differentiable=False,
    )


@_bitwise("bitwise_and", "and")
def bitwise_and(self, other):
    """Returns the bits set in both."""
    return self & other


@_bitwise("bitwise_or", "or")
def bitwise_or(self, other):
    """Returns the bits set in either."""
    return self | other


@_bitwise("bitwise_xor", "xor")
def bitwise_xor(self, other):
    """Returns the bits set in exactly one."""
    return self ^ other


@pointwise(
    "bitwise_not(Tensor self) -> Tensor",
    check=_check_integers("bitwise_not"),
    variants=ALL_FORMS,
    dunder="invert",
    differentiable=False,
)
def bitwise_not(self):
    """Returns every bit inverted."""
    return ~self


def _shift_in_range(self, other):
    bits = 8 * self.dtype.itemsize
    return (other >= 0) & (other < bits)


@_bitwise("bitwise_left_shift", "lshift", "lshift")
def bitwise_left_shift(self, other):
    """Returns ``self << other``; 0 where the shift is out of range."""
    inside = _shift_in_range(self, other)
    return k.where(inside, self << k.where(inside, other, 0), 0)


@_bitwise("bitwise_right_shift", "rshift", "rshift")
def bitwise_right_shift(self, other):
    """Returns ``self >> other``, filled up with the sign; a shift out of range leaves only that."""
    inside = _shift_in_range(self, other)
    return self >> k.where(inside, other, 8 * self.dtype.itemsize - 1)


def _integer_samples(make):
    yield make(3, 5, dtype="int64", low=-20, high=20), make(3, 5, dtype="int64", low=0, high=9)
    yield make(3, 1, dtype="int32", low=-20, high=20), make(5, dtype="int8", low=0, high=9)
    yield make(5, dtype="uint8", low=0, high=200), 3
    yield make(5, dtype="int64", low=-20, high=20), 2
    yield make(dtype="int64", low=-20, high=20), make(3, dtype="int32", low=0, high=5)
    yield make(5, dtype="uint8", low=0, high=200), make(5, dtype="uint8", low=0, high=12)
    yield make(0, dtype="int64"), 1
    yield make(4, 3, dtype="int64", transposed=True), make(3, 4, dtype="int64", low=0, high=5)
    yield make(3), make(3)


for _operator in (bitwise_and, bitwise_or, bitwise_xor):
    _operator.samples(_integer_samples)
bitwise_left_shift.samples(_integer_samples)
bitwise_right_shift.samples(_integer_samples)


@bitwise_and.samples
def bitwise_and_samples(make):
    yield from _integer_samples(make)
    yield make(5, dtype="bool"), make(5, dtype="bool")
    yield make(5, dtype="bool"), True


@bitwise_not.samples
def bitwise_not_samples(make):
    yield (make(5, dtype="int64", low=-20, high=20),)
    yield (make(5, dtype="uint8", low=0, high=200),)
    yield (make(4, 3, dtype="bool", transposed=True),)
    yield (make(0, dtype="int64"),)
    yield (make(3),)


@composite("_rlshift(Tensor self, Operand other) -> Tensor", variants="", dunder="rlshift")
def rlshift(self, other):
    """Returns ``other << self``."""
    return bitwise_left_shift(other, self)


@composite("_rrshift(Tensor self, Operand other) -> Tensor", variants="", dunder="rrshift")
def rrshift(self, other):
    """Returns ``other >> self``."""
    return bitwise_right_shift(other, self)
