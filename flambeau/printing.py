"""What a tensor looks like when it is printed: PyTorch's text, character for character.

The work is done on numpy values: `_fetch` copies the shown elements, `NumberFormat` decides
on one notation for all of them, `_array_text` lays them out in nested brackets, and the suffixes
(device, size, dtype, grad_fn …) follow. The options are one immutable record that is replaced as a
whole, so a thread that prints while another changes the options never sees half a change.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flambeau.core.config import config
from flambeau.core.dtype import BY_NAME, dtype
from flambeau.tensor import Tensor


@dataclass(frozen=True)
class PrintOptions:
    """How tensors are printed; the meaning of each field is `set_printoptions`'."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


profiles = {
    "default": PrintOptions(),
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}


class _PrintState:
    """The options in force, shared by all threads."""

    def __init__(self) -> None:
        self.options = PrintOptions()
        self.lock = threading.Lock()


_state = _PrintState()


def get_printoptions() -> dict[str, Any]:
    """Returns the options in force as keyword arguments for `set_printoptions`."""
    return dict(vars(_state.options))


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed; what is not given stays as it is.

    Args:
        precision: digits after the decimal point (default 4)
        threshold: number of elements above which a tensor is summarised (default 1000)
        edgeitems: elements shown at each end of each dimension in a summary (default 3)
        linewidth: characters per line (default 80)
        profile: ``"default"``, ``"short"`` or ``"full"``, applied before the other arguments
        sci_mode: scientific notation always (True), never (False) or when it fits (None, default)
    """
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with _state.lock:
        start = _state.options if profile is None else profiles.get(profile, _state.options)
        _state.options = replace(start, sci_mode=sci_mode, **changes)


@contextlib.contextmanager
def printoptions(**changes: Any) -> Iterator[None]:
    """Sets print options as `set_printoptions` does, for the length of a ``with`` block."""
    before = _state.options
    set_printoptions(**changes)
    try:
        yield
    finally:
        _state.options = before


# --------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class NumberFormat:
    """One notation for all shown elements of a tensor, so that its columns line up.

    `point` ends whole numbers of a floating dtype with the point that tells them from integers.
    """

    pattern: str
    point: bool
    width: int

    def text(self, value: Any) -> str:
        """The padded text of one element."""
        text = self.pattern.format(value)
        if self.point and math.isfinite(value):
            text += "."
        return text.rjust(self.width)


def _number_format(values: np.ndarray, options: PrintOptions) -> NumberFormat:
    """Chooses the notation for `values`, which are real."""
    if values.dtype.kind != "f":
        width = max((len(str(value)) for value in values.ravel().tolist()), default=1)
        return NumberFormat("{}", point=False, width=width)
    # Zeros, infinities and NaN have no say in the notation, nor in the width.
    shown = values[np.isfinite(values) & (values != 0)]
    if shown.size == 0:
        return NumberFormat("{:.0f}", point=True, width=1)
    scientific = _is_scientific(shown, options)
    point = not scientific and bool((shown == np.ceil(shown)).all())
    letter = "e" if scientific else "f"
    pattern = "{:.0f}" if point else f"{{:.{options.precision}{letter}}}"
    width = max(len(pattern.format(value)) for value in shown.tolist())
    return NumberFormat(pattern, point, width + point)


def _is_scientific(shown: np.ndarray, options: PrintOptions) -> bool:
    """Whether finite non-zero values spread too far for fixed notation."""
    if options.sci_mode is not None:
        return options.sci_mode
    magnitudes = np.abs(shown.astype(np.float64))
    smallest = magnitudes.min()
    largest = magnitudes.max()
    with np.errstate(over="ignore"):
        spread = largest / smallest
    return bool(spread > 1000.0 or largest > 1.0e8 or smallest < 1.0e-4)


@dataclass(frozen=True)
class ElementFormat:
    """Formats the elements of one tensor: real ones, or complex ones by their two parts."""

    real: NumberFormat
    imaginary: NumberFormat | None

    @property
    def width(self) -> int:
        """Columns one element takes, without its separator."""
        if self.imaginary is None:
            return self.real.width
        return self.real.width + self.imaginary.width + 1

    def text(self, value: Any) -> str:
        """The text of one element, given as a Python number."""
        if self.imaginary is None:
            return self.real.text(value)
        imaginary = (self.imaginary.text(value.imag) + "j").lstrip()
        sign = "" if imaginary[0] in "+-" else "+"
        return self.real.text(value.real) + sign + imaginary


def _element_format(values: np.ndarray, options: PrintOptions) -> ElementFormat:
    if values.dtype.kind != "c":
        return ElementFormat(_number_format(values, options), None)
    return ElementFormat(_number_format(values.real, options), _number_format(values.imag, options))


# --------------------------------------------------------------------------- layout of the text


@dataclass(frozen=True)
class _Page:
    """How the elements of one tensor are set: their format, the options, which dims are cut."""

    element: ElementFormat
    options: PrintOptions
    cut: tuple[bool, ...]
    summarized: bool

    def text(self, values: np.ndarray, indent: int) -> str:
        """The bracketed text of `values`, continued lines starting at column `indent` + 1."""
        if values.ndim == 0:
            return self.element.text(values.item())
        if values.ndim == 1:
            return self._vector_text(values, indent)
        parts = [self.text(part, indent + 1) for part in values]
        parts = self._with_ellipsis(parts, values.ndim, "...")
        separator = "," + "\n" * (values.ndim - 1) + " " * (indent + 1)
        return "[" + separator.join(parts) + "]"

    def _vector_text(self, values: np.ndarray, indent: int) -> str:
        per_line = max(1, (self.options.linewidth - indent) // (self.element.width + 2))
        words = [self.element.text(value) for value in values.tolist()]
        words = self._with_ellipsis(words, 1, " ...")
        if self.summarized and not self.options.edgeitems:
            words = ["..."]
        lines = [
            ", ".join(words[start : start + per_line]) for start in range(0, len(words), per_line)
        ]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"

    def _with_ellipsis(self, parts: list[str], ndim: int, ellipsis: str) -> list[str]:
        """`parts` of the dimension `ndim` from the right, with the sign of a cut in its middle."""
        if not self.cut[-ndim]:
            return parts
        edge = self.options.edgeitems
        return [*parts[:edge], ellipsis, *parts[edge:]]


def _tensor_text(tensor: Tensor, options: PrintOptions, indent: int) -> str:
    """The values of a non-empty tensor, in brackets."""
    shape = tensor.shape
    summarized = math.prod(shape) > options.threshold
    edge = options.edgeitems
    cut = tuple(summarized and size > 2 * edge for size in shape)
    shown = [_shown_indices(size, is_cut, edge) for size, is_cut in zip(shape, cut)]
    values = _as_printed(_fetch(tensor, shown), tensor.dtype)
    page = _Page(_element_format(values, options), options, cut, summarized)
    return page.text(values, indent)


def _shown_indices(size: int, is_cut: bool, edge: int) -> list[int]:
    if not is_cut:
        return list(range(size))
    return [*range(edge), *range(size - edge, size)]


def _fetch(tensor: Tensor, shown: list[list[int]]) -> np.ndarray:
    """A copy of the elements at these indices of each dimension, as numpy holds their dtype."""
    layout = tensor._layout
    itemsize = layout.dtype.itemsize
    strides = [stride * itemsize for stride in layout.strides]
    memory = tensor._storage.memory()
    offset = layout.offset * itemsize
    everything = np.ndarray(layout.shape, layout.dtype.numpy, memory, offset, strides)
    return np.array(everything[np.ix_(*shown)])


def _as_printed(values: np.ndarray, dtype: dtype) -> np.ndarray:
    """Values in the type whose text PyTorch prints: halves as float32, bfloat16 from its bits."""
    if dtype.name == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype.name == "float16":
        return values.astype(np.float32)
    return values


# --------------------------------------------------------------------------- the whole text


def tensor_repr(
    tensor: Tensor,
    *,
    tensor_contents: str | None = None,
    default_dtype: dtype | None = None,
) -> str:
    """Returns PyTorch's text of a tensor, as ``repr(tensor)`` shows it.

    `tensor_contents` replaces the values, and `default_dtype` is the dtype that needs no mention
    (the one in force if None). For a `Parameter` this is the part that follows its own line,
    "Parameter containing:".
    """
    options = _state.options
    if default_dtype is None:
        default_dtype = BY_NAME[config.default_dtype]
    prefix = _type_name(tensor) + "("
    contents = tensor_contents
    if contents is None:
        contents = _contents(tensor, options, len(prefix))
    suffixes = [
        *_device_suffix(tensor),
        *_size_and_dtype_suffixes(tensor, options, default_dtype),
        *_gradient_suffix(tensor),
    ]
    return _with_suffixes(prefix + contents, suffixes, len(prefix), options.linewidth)


def _type_name(tensor: Tensor) -> str:
    name = type(tensor).__name__
    return "tensor" if name in ("Tensor", "Parameter") else name


def _contents(tensor: Tensor, options: PrintOptions, indent: int) -> str:
    if tensor.device.type == "meta":
        return "..."
    if 0 in tensor.shape:
        return "[]"
    return _tensor_text(tensor, options, indent)


def _device_suffix(tensor: Tensor) -> list[str]:
    if tensor.device.type == "cpu":
        return []
    return [f"device='{tensor.device}'"]


def _size_and_dtype_suffixes(
    tensor: Tensor, options: PrintOptions, default_dtype: dtype
) -> list[str]:
    """The size and dtype of a tensor, where its values do not tell them."""
    size = f"size={tuple(tensor.shape)}"
    type_name = f"dtype={tensor.dtype}"
    is_default = tensor.dtype is default_dtype
    if tensor.device.type == "meta":
        return [size] if is_default else [size, type_name]
    if 0 in tensor.shape:
        sizes = [] if len(tensor.shape) == 1 else [size]
        return sizes if is_default else [*sizes, type_name]
    sizes = [] if options.edgeitems else [size]
    default_complex = "complex128" if default_dtype.name == "float64" else "complex64"
    is_evident = is_default or tensor.dtype.name in ("int64", "bool", default_complex)
    return sizes if is_evident else [*sizes, type_name]


def _gradient_suffix(tensor: Tensor) -> list[str]:
    try:
        grad_fn = tensor.grad_fn
    except RuntimeError:
        # A view whose base was written in a way that forbids its gradient still prints.
        return ["grad_fn=<Invalid>"]
    if grad_fn is not None:
        return [f"grad_fn=<{_node_name(grad_fn)}>"]
    return ["requires_grad=True"] if tensor.requires_grad else []


def _node_name(grad_fn: Any) -> str:
    """The node's name as PyTorch prints it; nodes of operators carry it, others are classes."""
    name = getattr(grad_fn, "name", None)
    if callable(name):
        return str(name()).rsplit("::", 1)[-1]
    return type(grad_fn).__name__


def _with_suffixes(text: str, suffixes: list[str], indent: int, linewidth: int) -> str:
    """Appends the suffixes, each on the last line if it fits there, and the closing bracket."""
    parts = [text]
    column = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if column + len(suffix) + 2 > linewidth:
            parts.append(",\n" + " " * indent + suffix)
            column = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            column += len(suffix) + 2
    return "".join(parts) + ")"
