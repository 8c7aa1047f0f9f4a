"""Changing type and device: ``to`` and its short forms; ``clone``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core import dtype as types
from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.memory_format import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    preserve_format,
)
from flambeau.ops.creation import cuda_error, empty_tensor
from flambeau.ops.declare import PointwiseOperator, copy, copy_, parse
from flambeau.ops.view import contiguous, contiguous_copy, in_channels_last
from flambeau.tensor import Tensor


class _ToCopy(PointwiseOperator):
    """A copy in another type."""

    def _types(self, layouts: Sequence[Any], static: Sequence[Any]) -> tuple[dtype, dtype]:
        if static[0].is_complex:
            raise NotImplementedError(f"\"copy_\" not implemented for '{static[0].title}'")
        return layouts[0].dtype, static[0]


to_copy = _ToCopy(
    parse("_to_copy(Tensor self, *, ScalarType? dtype=None) -> Tensor"),
    lambda self, dtype: self,
    variants="",
)
to_copy.node_name = "ToCopyBackward0"


@to_copy.derivative
def to_copy_backward(grad):
    # The engine converts a gradient to its input's type.
    return {"self": grad}


def to_dtype(tensor: Tensor, kind: dtype, force_copy: bool = False) -> Tensor:
    """The tensor itself if it has that type already, else a copy that has."""
    if tensor.dtype is kind:
        return clone(tensor) if force_copy else tensor
    return to_copy(tensor, dtype=kind)


def clone(self: Tensor, *, memory_format: Any = None) -> Tensor:
    """Returns a copy with memory of its own; differentiable."""
    if memory_format is contiguous_format:
        return contiguous_copy(self)
    if memory_format is channels_last or memory_format is channels_last_3d:
        return in_channels_last(self, memory_format, force_copy=True)
    return _clone(self)


_clone = PointwiseOperator(parse("clone(Tensor self) -> Tensor"), lambda self: self, variants="")


@_clone.derivative
def clone_backward(grad):
    return {"self": grad}


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Returns the tensor converted: ``to(dtype)``, ``to(device)``, ``to(device, dtype)``,
    ``to(other)``.

    ``copy=True`` copies even where nothing changes; ``non_blocking`` and ``memory_format`` are
    accepted.
    """
    force = bool(kwargs.pop("copy", False))
    kind, where = kwargs.pop("dtype", None), kwargs.pop("device", None)
    other = kwargs.pop("other", None)
    kwargs.pop("non_blocking", None)
    memory_format = kwargs.pop("memory_format", None)
    if kwargs:
        raise TypeError(
            f"to() received an invalid combination of arguments - got {next(iter(kwargs))}"
        )
    flags = [a for a in args if isinstance(a, bool)]
    if len(flags) > 1:
        force = flags[1]
    for argument in args:
        if isinstance(argument, Tensor):
            other = argument
        elif isinstance(argument, dtype):
            kind = argument
        elif isinstance(argument, (str, device)) or type(argument) is int:
            where = argument
        elif argument is not None and not isinstance(argument, bool):
            raise TypeError(
                "to() received an invalid combination of arguments - got "
                f"({', '.join(type(a).__name__ for a in args)}), but expected one of:\n"
                " * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = "
                "False, "
                "bool copy = False, *, torch.memory_format memory_format = None)\n"
                " * (torch.dtype dtype, bool non_blocking = False, bool copy = False, *, "
                "torch.memory_format memory_format = None)\n"
                " * (Tensor tensor, bool non_blocking = False, bool copy = False, *, "
                "torch.memory_format memory_format = None)\n"
            )
    if other is not None:
        kind, where = other.dtype, other.device
    return _formatted(_moved(self, kind, where, force), memory_format)


def _formatted(tensor: Tensor, memory_format: Any) -> Tensor:
    """The tensor in a memory format that somebody asked for."""
    if memory_format is None or memory_format is preserve_format:
        return tensor
    return contiguous(tensor, memory_format=memory_format)


def _moved(tensor: Tensor, kind: dtype | None, where: Any, force: bool) -> Tensor:
    if where is not None:
        target = device(where)
        if target.type == "cuda":
            raise cuda_error()
        if target.type == "meta" and tensor.device.type != "meta":
            return empty_tensor(tensor.shape, kind or tensor.dtype, target)
    if kind is not None and kind is not tensor.dtype:
        return to_dtype(tensor, kind)
    return clone(tensor) if force else tensor


def _short(kind: dtype) -> Callable[..., Tensor]:
    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        return _formatted(to_dtype(self, kind), memory_format)

    convert.__doc__ = f"``self.to({kind})``."
    return convert


SHORT_FORMS = {
    "float": types.float32,
    "double": types.float64,
    "half": types.float16,
    "bfloat16": types.bfloat16,
    "int": types.int32,
    "long": types.int64,
    "short": types.int16,
    "char": types.int8,
    "byte": types.uint8,
    "bool": types.bool_,
    "cfloat": types.complex64,
    "cdouble": types.complex128,
}
SHORT_METHODS = {name: _short(kind) for name, kind in SHORT_FORMS.items()}


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """Returns the tensor in the type of ``other``."""
    return to_dtype(self, other.dtype)


def tensor_type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """``Tensor.type``: the type's old name without argument, else the tensor converted."""
    if dtype is None:
        return f"torch.{self.dtype.title}Tensor"
    if isinstance(dtype, str):
        title = dtype.removeprefix("torch.").removeprefix("cuda.").removesuffix("Tensor")
        found = next((d for d in types.ALL if d.title == title), None)
        if found is None:
            raise ValueError(f"invalid type: '{dtype}'")
        dtype = found
    return to_dtype(self, getattr(dtype, "dtype", dtype))


def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """Returns the tensor in the processor's memory: itself, here."""
    return self


def cuda(
    self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> Tensor:
    """Returns a copy on a CUDA device; PyTorch's error where there is none."""
    raise cuda_error()


__all__ = ["SHORT_METHODS", "clone", "copy", "copy_", "to"]
