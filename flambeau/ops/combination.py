"""Pointwise functions of several tensors, and writing where a mask holds."""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.core import dtype as types
from flambeau.ops.declare import PointwiseOperator, pointwise
from flambeau.ops.pointwise import ALL_FORMS, where, zeros_like_grad
from flambeau.ops.sample_tables import binary_samples
from flambeau.tensor import Tensor

_C_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
    "int64": "long int", "int32": "int", "int16": "short int", "int8": "signed char",
    "uint8": "unsigned char", "bool": "bool",
}  # fmt: skip


def c_name(kind) -> str:
    """The type as C++ spells it, which some messages of PyTorch do."""
    return _C_NAMES[kind.name]


class _Lerp(PointwiseOperator):
    """All tensors have one type."""

    def _types(self, layouts, static):
        start = layouts[0].dtype
        for name, layout in zip(("end", "weight"), layouts[1:], strict=True):
            if not isinstance(layout, type) and layout.dtype is not start:
                raise RuntimeError(
                    f"expected dtype {c_name(start)} for `{name}` "
                    f"but got dtype {c_name(layout.dtype)}"
                )
        if not start.is_floating_point:
            raise NotImplementedError(f"\"lerp_kernel_scalar\" not implemented for '{start.title}'")
        return start, start


@pointwise("lerp(Tensor self, Tensor end, Operand weight) -> Tensor", _Lerp, variants=ALL_FORMS)
def lerp(self, end, weight):
    """Returns ``self + weight * (end - self)``."""
    difference = end - self
    near = weight * difference + self
    far = end - difference * (1.0 - weight)
    return k.where(k.absolute(weight) < 0.5, near, far)


lerp.node_name = lambda node: "LerpBackward0" if node.layouts[2] is None else "LerpBackward1"


@lerp.derivative
def lerp_backward(grad, self, end, weight, needs):
    gradients = {"self": grad * (1 - weight), "end": grad * weight}
    if "weight" in needs:
        gradients["weight"] = grad * (end - self)
    return gradients


lerp.saved_for(self="weight", end="weight")


@lerp.samples
def lerp_samples(make):
    yield make(3, 5), make(3, 5), 0.3
    yield make(3, 5), make(5), 0.8
    yield make(3, 5), make(5), make(3, 1, low=0, high=1)
    yield make(4, 3, transposed=True), make(3, 4), 1
    yield make(3, dtype="float64"), make(3, dtype="float64"), 0.25
    yield make(0), make(0), 0.5
    yield make(3), make(3, dtype="float64"), 0.5
    yield make(3, dtype="int64"), make(3, dtype="int64"), 2


def _scaled(x, value):
    return x if isinstance(value, int) and value == 1 else x * value


@pointwise(
    "addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
    variants=ALL_FORMS,
)
def addcmul(self, tensor1, tensor2, value):
    """Returns ``self + value * tensor1 * tensor2``."""
    return self + _scaled(tensor1, value) * tensor2


@addcmul.derivative
def addcmul_backward(grad, tensor1, tensor2, value):
    scaled = grad if value == 1 else grad * value
    return {"self": grad, "tensor1": scaled * tensor2, "tensor2": scaled * tensor1}


addcmul.saved_for(tensor1="tensor2", tensor2="tensor1")


@addcmul.samples
def addcmul_samples(make):
    yield make(3, 5), make(3, 5), make(3, 5)
    yield make(3, 5), make(3, 1), make(5), {"value": 0.5}
    yield make(3, dtype="int64"), make(3, dtype="int64"), make(3, dtype="int64"), {"value": 2}
    yield make(3, dtype="float64"), make(3), make(3)
    yield make(0, 2), make(2), make(2)
    yield make(4, 3, transposed=True), make(3, 4), make(3, 4)


def _check_addcdiv(common, arguments):
    first, second = arguments[1].dtype, arguments[2].dtype
    if not first.is_floating_point and not second.is_floating_point:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future  release "
            "addcdiv will perform a true division of tensor1 and tensor2. The historic addcdiv "
            "behavior can be implemented as (input + value * torch.trunc(tensor1 / tensor2))"
            ".to(input.dtype) for integer inputs and as (input + value * tensor1 / tensor2) for "
            "float inputs. The future addcdiv behavior is just the latter implementation: (input + "
            "value * tensor1 / tensor2), for all dtypes."
        )


@pointwise(
    "addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
    check=_check_addcdiv,
    variants=ALL_FORMS,
)
def addcdiv(self, tensor1, tensor2, value):
    """Returns ``self + value * tensor1 / tensor2``."""
    return self + _scaled(tensor1, value) / tensor2


@addcdiv.derivative
def addcdiv_backward(grad, tensor1, tensor2, value):
    scaled = (grad if value == 1 else grad * value) / tensor2
    return {"self": grad, "tensor1": scaled, "tensor2": -scaled * (tensor1 / tensor2)}


addcdiv.saved_for(tensor1="tensor2")


@addcdiv.samples
def addcdiv_samples(make):
    yield make(3, 5), make(3, 5), make(3, 5, low=0.5)
    yield make(3, 5), make(3, 1), make(5, low=0.5), {"value": 0.5}
    yield make(3, dtype="int64"), make(3, dtype="int64"), make(3, dtype="int64", low=1)
    yield make(3, dtype="float64"), make(3), make(3, low=0.5)
    yield make(4, 3, transposed=True), make(3, 4), make(3, 4, low=0.5)


# -- masks ---------------------------------------------------------------------------------------


class _MaskedFill(PointwiseOperator):
    """The result has the type of ``self``, and in place its shape."""

    contiguous_result = True

    def record(self, values, out=None, inplace=False):
        tensor, mask, value = values
        if isinstance(value, Tensor) and value.ndim:
            raise RuntimeError(
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s)."
            )
        if mask.dtype is not types.bool_:
            raise RuntimeError(
                "masked_fill_ only supports boolean masks, but got mask with dtype "
                f"{c_name(mask.dtype)}"
            )
        return super().record(values, out, inplace)


@pointwise(
    "masked_fill(Tensor self, Tensor mask, Operand value) -> Tensor",
    _MaskedFill,
    untouched="mask value",
    variants="function method inplace",
)
def masked_fill(self, mask, value):
    """Returns ``value`` where ``mask`` holds, else ``self``."""
    return k.where(mask, value.cast(self.dtype), self)


masked_fill.node_name = lambda node: (
    "MaskedFillBackward0" if node.layouts[2] is None else "MaskedFillBackward1"
)


@masked_fill.derivative
def masked_fill_backward(grad, mask, needs):
    gradients = {"self": masked_fill(grad, mask, 0)}
    if "value" in needs:
        gradients["value"] = where(mask, grad, 0)
    return gradients


@masked_fill.samples
def masked_fill_samples(make):
    yield make(3, 5), make(3, 5, dtype="bool"), 0.5
    yield make(3, 5), make(5, dtype="bool"), float("-inf")
    yield make(3, 5), make(3, 5, dtype="bool"), make()
    yield make(5), make(3, 5, dtype="bool"), 1
    yield make(3, dtype="int64"), make(3, dtype="bool"), 2
    yield make(4, 3, transposed=True), make(3, 4, dtype="bool"), 1.0
    yield make(4, dtype="bfloat16"), make(4, dtype="bool"), 0.3
    yield make(0), make(0, dtype="bool"), 1
    yield make(3), make(3), 1.0
    yield make(3), make(3, dtype="bool"), make(3)


# -- signs and special values --------------------------------------------------------------------


@pointwise("copysign(Tensor self, Operand other) -> Tensor", promote="float", variants=ALL_FORMS)
def copysign(self, other):
    """Returns the magnitude of ``self`` with the sign of ``other``."""
    return k.copysign(self, other)


copysign.node_name = lambda node: (
    "CopysignBackward1" if node.layouts[1] is None else "CopysignBackward0"
)


@copysign.derivative
def copysign_backward(grad, self, result):
    slope = where(self == 0, 0.0, result / self)
    return {"self": grad * slope, "other": zeros_like_grad(grad)}


copysign.samples(binary_samples())


class _SameTypes(PointwiseOperator):
    """No promotion."""

    def _types(self, layouts, static):
        if layouts[0].dtype is not layouts[1].dtype:
            raise RuntimeError(
                f"{self.name} is not yet implemented for tensors with different dtypes."
            )
        return super()._types(layouts, static)


@pointwise(
    "heaviside(Tensor self, Tensor values) -> Tensor",
    _SameTypes,
    variants=ALL_FORMS,
    differentiable=False,
)
def heaviside(self, values):
    """Returns 0 below zero, 1 above, ``values`` at zero."""
    return k.where(self == 0, values, (self > 0).cast(self.dtype))


@heaviside.samples
def heaviside_samples(make):
    yield make(5, dtype="int64", low=-2, high=2), make(5, dtype="int64")
    yield make(3, 1, dtype="int32", low=-1, high=2), make(4, dtype="int32")
    yield make(3, dtype="int64"), make(3)


@pointwise(
    "nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor",
    variants=ALL_FORMS,
)
def nan_to_num(self, nan, posinf, neginf):
    """Returns ``self`` with NaN replaced by ``nan`` (0) and infinities by the type's extremes."""
    kind = self.dtype
    if not kind.is_floating_point:
        return self
    limits = types.finfo(kind)
    result = k.where(self != self, 0.0 if nan is None else nan, self)
    result = k.where(self == k.INFINITY, limits.max if posinf is None else posinf, result)
    return k.where(self == -k.INFINITY, limits.min if neginf is None else neginf, result)


@nan_to_num.derivative
def nan_to_num_backward(grad, self):
    infinite = (self != self) | (self == k.INFINITY) | (self == -k.INFINITY)
    return {"self": where(infinite, 0, grad)}


@nan_to_num.samples
def nan_to_num_samples(make):
    special = [float("nan"), float("inf"), -float("inf"), 1.5]
    yield (make(values=special),)
    yield make(values=special), 2.0, 10.0, -10.0
    yield (make(values=special, dtype="float64"),)
    yield (make(4, dtype="int64"),)
    yield (make(0),)
