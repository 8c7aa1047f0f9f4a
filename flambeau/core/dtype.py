"""Element types: ``torch.dtype``, its instances, and the promotion rules between them."""

from __future__ import annotations

import numpy as np

_CATEGORY_RANK = {"bool": 0, "integer": 1, "floating": 2, "complex": 3}


class dtype:
    """The type of a tensor's elements.  Instances are singletons, compared by identity.

    Attributes: ``name`` (``"float32"``), ``itemsize`` in bytes, ``category`` (``bool``,
    ``integer``, ``floating`` or ``complex``), ``llvm`` (how memory holds it) and ``numpy``
    (bfloat16, which numpy lacks, is seen there as ``uint16`` bits).  ``is_differentiable``:
    floating or complex.
    """

    __slots__ = (
        "__weakref__",
        "category",
        "is_complex",
        "is_differentiable",
        "is_floating_point",
        "is_signed",
        "itemsize",
        "llvm",
        "name",
        "numpy",
        "title",
    )

    def __init__(
        self,
        name: str,
        itemsize: int,
        category: str,
        llvm: str,
        title: str,
        numpy: str | None = None,
    ) -> None:
        self.name = name
        self.itemsize = itemsize
        self.category = category
        self.llvm = llvm
        self.title = title
        self.numpy = np.dtype(numpy or name)
        self.is_signed = category != "bool" and not name.startswith("uint")
        self.is_floating_point = category == "floating"
        self.is_complex = category == "complex"
        self.is_differentiable = self.is_floating_point or self.is_complex

    def to_real(self) -> dtype:
        """The real type that a complex type is made of; other types give themselves."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    def to_complex(self) -> dtype:
        return {"float64": complex128, "complex128": complex128}.get(self.name, complex64)

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"

    def __copy__(self) -> dtype:
        return self

    def __deepcopy__(self, memo: object) -> dtype:
        return self


bool_ = dtype("bool", 1, "bool", "i8", "Bool")
uint8 = dtype("uint8", 1, "integer", "i8", "Byte")
int8 = dtype("int8", 1, "integer", "i8", "Char")
int16 = dtype("int16", 2, "integer", "i16", "Short")
int32 = dtype("int32", 4, "integer", "i32", "Int")
int64 = dtype("int64", 8, "integer", "i64", "Long")
float16 = dtype("float16", 2, "floating", "half", "Half")
bfloat16 = dtype("bfloat16", 2, "floating", "i16", "BFloat16", "uint16")
float32 = dtype("float32", 4, "floating", "float", "Float")
float64 = dtype("float64", 8, "floating", "double", "Double")
complex64 = dtype("complex64", 8, "complex", "<2 x float>", "ComplexFloat")
complex128 = dtype("complex128", 16, "complex", "<2 x double>", "ComplexDouble")

ALL = (
    bool_,
    uint8,
    int8,
    int16,
    int32,
    int64,
    float16,
    bfloat16,
    float32,
    float64,
    complex64,
    complex128,
)
BY_NAME = {d.name: d for d in ALL}
# bfloat16 shares numpy's uint16, so it is left out of the way back.
FROM_NUMPY = {d.numpy: d for d in ALL if d is not bfloat16}


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest type that holds both kinds of values, by PyTorch's promotion lattice.

    Source: https://pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
    """
    result = _promotions.get((type1, type2))
    if result is None:
        raise TypeError(
            "promote_types(): argument 'type1' (position 1) must be torch.dtype, not "
            f"{type(type1).__name__}"
        )
    return result


def _promote(a: dtype, b: dtype) -> dtype:
    if a is b:
        return a
    low, high = sorted((a, b), key=lambda d: (_CATEGORY_RANK[d.category], d.itemsize))
    if low.category == high.category == "integer":
        if uint8 in (a, b) and int8 in (a, b):
            return int16
        return high
    if low.category == high.category == "floating":
        return float32 if high.itemsize == 2 else high
    if high.category == "complex" and low.category == "floating":
        return complex128 if float64 in (low, high) else high
    return high


_promotions = {(a, b): _promote(a, b) for a in ALL for b in ALL}


class finfo:
    """Limits of a floating-point type: ``bits eps max min tiny smallest_normal resolution
    dtype``.
    """

    def __init__(self, type: dtype | None = None) -> None:
        type = float32 if type is None else type.to_real()
        if not type.is_floating_point:
            raise TypeError(
                "torch.finfo() requires a floating point input type. Use torch.iinfo to handle "
                f"'{type}'"
            )
        self.dtype = type.name
        self.bits = type.itemsize * 8
        if type is bfloat16:
            self.eps, self.max, self.tiny = 2.0**-7, 3.3895313892515355e38, 2.0**-126
            self.resolution = 0.01
        else:
            info = np.finfo(type.numpy)
            self.eps, self.max, self.tiny = float(info.eps), float(info.max), float(info.tiny)
            self.resolution = float(info.resolution)
        self.min = -self.max
        self.smallest_normal = self.tiny

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.tiny:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer type: ``bits max min dtype``."""

    def __init__(self, type: dtype) -> None:
        if type.category != "integer":
            raise TypeError(
                f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'"
            )
        self.dtype = type.name
        self.bits = type.itemsize * 8
        self.min = -(1 << (self.bits - 1)) if type.is_signed else 0
        self.max = (1 << (self.bits - 1)) - 1 if type.is_signed else (1 << self.bits) - 1

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
