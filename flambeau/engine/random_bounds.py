"""The bounds that random integers of each type really have, and how elements look in memory.

A floating type cannot hold every integer: PyTorch moves bounds that it cannot to ones that it can.
"""

from __future__ import annotations

import struct
import warnings

from flambeau.core import dtype as types
from flambeau.core.dtype import dtype

SIGNIFICAND = {types.float16: 11, types.bfloat16: 8, types.float32: 24, types.float64: 53}
_C_NAMES = {
    types.bool_: "bool", types.uint8: "unsigned char", types.int8: "signed char",
    types.int16: "short int", types.int32: "int", types.int64: "long int",
    types.float16: "c10::Half", types.bfloat16: "c10::BFloat16", types.float32: "float",
    types.float64: "double",
}  # fmt: skip
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

_FLOAT_FORMATS = {
    types.float16: "<e", types.bfloat16: "<f", types.float32: "<f", types.float64: "<d",
}  # fmt: skip


def element_bits(value: float, dtype: dtype) -> int:
    """What memory holds for ``value``, as an integer."""
    if dtype is types.bfloat16:
        [bits] = struct.unpack("<I", struct.pack("<f", value))
        return int(bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    if dtype.is_floating_point:
        return int.from_bytes(struct.pack(_FLOAT_FORMATS[dtype], value), "little")
    return int(value)


def random_bounds(dtype: dtype, low: int, high: int | None) -> tuple[int, int]:
    """The bounds that ``random_(low, high)`` really uses; RuntimeError in PyTorch's words.

    ``high`` None stands for the largest number of the type.  ``random_(-2**63, None)`` is not for
    this function but `fill_random_full`.
    """
    if high is not None and low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    if high is None:
        largest = _largest(dtype)
        if dtype.is_floating_point:
            low = _representable_low(low, dtype)
        if low > largest and dtype.is_floating_point:
            raise RuntimeError(
                "random_ expects 'from' casted to dtype to be less than or equal to 'to_inc' "
                f"casted to dtype, but got from={low} > to_inc={largest}"
            )
        high = largest + 1
    elif dtype.is_floating_point:
        _check_bounds(dtype, low, high - 1)
        low, high = _representable_low(low, dtype), _representable_high(high, dtype)
        if low >= high:
            raise RuntimeError(
                "random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, but "
                f"got from={low} >= to={high}"
            )
        return low, high
    _check_bounds(dtype, low, high - 1)
    return low, high


def _largest(dtype: dtype) -> int:
    if dtype.is_floating_point:
        return 1 << SIGNIFICAND[dtype]
    return 1 if dtype is types.bool_ else types.iinfo(dtype).max


def _check_bounds(dtype: dtype, low: int, last: int) -> None:
    for name, value in (("from", low), ("to - 1", last)):
        if dtype.is_floating_point:
            limit = _FLOAT_LIMITS[dtype]
            bits = SIGNIFICAND[dtype]
            if not -limit <= value <= limit:
                raise RuntimeError(f"{name} is out of bounds for {_C_NAMES[dtype]}")
            if not -(1 << bits) <= value <= 1 << bits:
                warnings.warn(
                    f"{name} is out of bounds [-(2^{bits}), 2^{bits}]. Due to precision "
                    f"limitations {_C_NAMES[dtype]} can support discrete uniform "
                    "distribution only within this range. This warning will become an error in "
                    "version 1.7 release, please fix the code in advance",
                    UserWarning,
                    stacklevel=4,
                )
        elif not _smallest(dtype) <= value <= _largest(dtype):
            raise RuntimeError(f"{name} is out of bounds for {_C_NAMES[dtype]}")


_FLOAT_LIMITS = {
    types.float16: 65504, types.bfloat16: 1 << 127, types.float32: 1 << 127,
    types.float64: 1 << 1023,
}  # fmt: skip


def _smallest(dtype: dtype) -> int:
    return 0 if dtype is types.bool_ else types.iinfo(dtype).min


def _rounded(value: int, dtype: dtype) -> int:
    """``value`` as the floating type holds it, back as an int64 (out of range: the smallest)."""
    if dtype is types.bfloat16:
        bits = struct.pack("<I", element_bits(float(value), dtype) << 16)
    else:
        bits = struct.pack(_FLOAT_FORMATS[dtype], value)
    [rounded] = struct.unpack(_FLOAT_FORMATS[dtype], bits)
    return int(rounded) if INT64_MIN <= rounded < -INT64_MIN else INT64_MIN


def _representable_low(low: int, dtype: dtype) -> int:
    after = _rounded(low + 1, dtype)
    if after >= low:
        return low
    return after + (1 << (abs(low + 1).bit_length() - SIGNIFICAND[dtype]))


def _representable_high(high: int, dtype: dtype) -> int:
    last = _rounded(high - 1, dtype)
    if last < high:
        return high
    return last - (1 << (abs(high - 1).bit_length() - SIGNIFICAND[dtype]))
