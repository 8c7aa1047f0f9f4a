"""``torch.testing``: ``assert_close``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.core.dtype import dtype
from flambeau.interchange import shared_array
from flambeau.ops.closeness import isclose
from flambeau.settings import result_type
from flambeau.tensor import Tensor
from flambeau.tensor_creation import as_tensor

_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raises AssertionError where ``|actual - expected| > atol + rtol * |expected|``.

    Takes tensors, numbers, and sequences and mappings of them; each type has its own tolerances.
    """
    if (rtol is None) != (atol is None):
        missing = "atol" if atol is None else "rtol"
        raise ValueError(
            f"Both 'rtol' and 'atol' must be either specified or omitted, but got no {missing}."
        )
    comparison = _Comparison(rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses)
    found = comparison.difference(actual, expected, "")
    if found is not None:
        raise AssertionError(msg(found) if callable(msg) else found if msg is None else msg)


class _Comparison:
    """What two nested values are compared by."""

    def __init__(
        self,
        rtol: float | None,
        atol: float | None,
        equal_nan: bool,
        check_dtype: bool,
        check_stride: bool,
        allow_subclasses: bool,
    ) -> None:
        self.rtol, self.atol = rtol, atol
        self.equal_nan = equal_nan
        self.check_dtype, self.check_stride = check_dtype, check_stride
        self.allow_subclasses = allow_subclasses

    def difference(self, actual: Any, expected: Any, place: str) -> str | None:
        """The message for the first difference; None where there is none."""
        if isinstance(actual, Mapping) and isinstance(expected, Mapping):
            return self._mappings(actual, expected, place)
        if _is_sequence(actual) and _is_sequence(expected):
            return self._sequences(actual, expected, place)
        if isinstance(actual, Tensor) or isinstance(expected, Tensor):
            found = self._tensors(actual, expected)
        else:
            found = self._numbers(actual, expected)
        if found is None or not place:
            return found
        return f"{found}\n\nThe failure occurred for item {place}"

    def _mappings(self, actual: Any, expected: Any, place: str) -> str | None:
        missing = sorted(set(expected) - set(actual), key=str)
        extra = sorted(set(actual) - set(expected), key=str)
        if missing or extra:
            return (
                "The keys of the mappings do not match:\n"
                f"Missing keys in the actual mapping: {missing}\n"
                f"Additional keys in the actual mapping: {extra}"
            )
        pairs = ((key, actual[key], expected[key]) for key in actual)
        return next(
            filter(None, (self.difference(a, e, f"{place}[{k!r}]") for k, a, e in pairs)), None
        )

    def _sequences(self, actual: Any, expected: Any, place: str) -> str | None:
        if len(actual) != len(expected):
            return f"The length of the sequences mismatch: {len(actual)} != {len(expected)}"
        pairs = enumerate(zip(actual, expected, strict=True))
        return next(
            filter(None, (self.difference(a, e, f"{place}[{k}]") for k, (a, e) in pairs)), None
        )

    def _tolerances(self, *kinds: dtype) -> tuple[float, float]:
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        found = [_TOLERANCES.get(kind.name, (0.0, 0.0)) for kind in kinds]
        return max(f[0] for f in found), max(f[1] for f in found)

    def _numbers(self, actual: Any, expected: Any) -> str | None:
        if not _is_number(actual) or not _is_number(expected):
            return (
                None if actual == expected else f"Objects do not match: {actual!r} != {expected!r}"
            )
        if self.check_dtype and type(actual) is not type(expected):
            return f"The (d)types do not match: {type(actual)} != {type(expected)}."
        kinds = (as_tensor(actual, as_double(actual)), as_tensor(expected, as_double(expected)))
        return _scalars(
            actual, expected, *self._tolerances(kinds[0].dtype, kinds[1].dtype), self.equal_nan
        )

    def _tensors(self, actual: Any, expected: Any) -> str | None:
        if not isinstance(actual, Tensor) or not isinstance(expected, Tensor):
            actual, expected = as_tensor(actual), as_tensor(expected)
        for name in ("shape", "device", "dtype", "stride"):
            if name == "dtype" and not self.check_dtype:
                continue
            if name == "stride" and not self.check_stride:
                continue
            mine, theirs = getattr(actual, name), getattr(expected, name)
            if name == "stride":
                mine, theirs = mine(), theirs()
            if mine != theirs:
                return f"The values for attribute '{name}' do not match: {mine} != {theirs}."
        rtol, atol = self._tolerances(actual.dtype, expected.dtype)
        if actual.dtype is not expected.dtype:
            common = result_type(actual, expected)
            actual, expected = actual.to(common), expected.to(common)
        close = isclose(actual, expected, rtol, atol, self.equal_nan)
        if bool(close.all()):
            return None
        if not actual.ndim:
            return _scalars(actual.item(), expected.item(), rtol, atol, self.equal_nan)
        return _mismatch(actual, expected, close, rtol, atol)


def as_double(value: Any) -> dtype | None:
    """Python floats are compared as float64."""
    return result_type(as_tensor(np.float64(0)), 0) if isinstance(value, float) else None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex | np.number)


def _scalars(actual: Any, expected: Any, rtol: float, atol: float, equal_nan: bool) -> str | None:
    error = abs(actual - expected)
    both_nan = equal_nan and actual != actual and expected != expected
    if (
        actual == expected
        or both_nan
        or (math.isfinite(error) and error <= atol + rtol * abs(expected))
    ):
        return None
    exact = rtol == 0 and atol == 0
    relative = error / abs(expected) if expected else math.inf
    allowed = ("", "") if exact else (f" (up to {atol} allowed)", f" (up to {rtol} allowed)")
    return (
        f"Scalars are not {'equal' if exact else 'close'}!\n\n"
        f"Expected {expected} but got {actual}.\n"
        f"Absolute difference: {error}{allowed[0]}\n"
        f"Relative difference: {relative}{allowed[1]}"
    )


def _mismatch(actual: Tensor, expected: Tensor, close: Tensor, rtol: float, atol: float) -> str:
    """PyTorch's report: how many elements differ, and where most."""
    mine, theirs = (_values(t) for t in (actual, expected))
    wrong = ~_values(close)
    count, total = int(wrong.sum()), wrong.size
    with np.errstate(all="ignore"):
        absolute = np.where(wrong, np.abs(mine - theirs), 0)
        relative = np.where(wrong, absolute / np.abs(theirs), 0)
    exact = rtol == 0 and atol == 0
    lines = [
        f"Tensor-likes are not {'equal' if exact else 'close'}!\n",
        f"Mismatched elements: {count} / {total} ({count / total:.1%})",
    ]
    for name, errors, allowed in (("absolute", absolute, atol), ("relative", relative, rtol)):
        index = tuple(int(k) for k in np.unravel_index(np.argmax(errors), errors.shape))
        limit = "" if exact else f" (up to {allowed} allowed)"
        lines.append(f"Greatest {name} difference: {errors[index].item()} at index {index}{limit}")
    return "\n".join(lines)


def _values(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype.category == "bool":
        return shared_array(tensor).copy()
    if tensor.dtype.category == "integer":
        return shared_array(tensor).astype(np.int64)
    return shared_array(tensor.float() if tensor.dtype.itemsize < 4 else tensor)


__all__ = ["assert_close"]
