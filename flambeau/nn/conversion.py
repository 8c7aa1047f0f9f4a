"""Reading the arguments of ``Module.to``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flambeau.core.device import device as Device
from flambeau.core.dtype import dtype as DType
from flambeau.tensor import Tensor


@dataclass(frozen=True)
class Conversion:
    """What ``Module.to`` is asked to change; None leaves a property as it is."""

    device: Any = None
    dtype: Any = None
    non_blocking: bool = False
    memory_format: Any = None


_EXPECTED = (
    "to() received an invalid combination of arguments - got ({}), but expected one of:\n"
    " * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = False, "
    "bool copy = False, *, torch.memory_format memory_format = None)\n"
    " * (torch.dtype dtype, bool non_blocking = False, bool copy = False, *, "
    "torch.memory_format memory_format = None)\n"
    " * (Tensor tensor, bool non_blocking = False, bool copy = False, *, "
    "torch.memory_format memory_format = None)\n"
)


def parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Conversion:
    """Reads ``(device, dtype, non_blocking)``, ``(dtype, non_blocking)`` or ``(tensor, …)``."""
    values = dict(kwargs)
    if args and isinstance(args[0], DType):
        names = ("dtype", "non_blocking", "copy")
    elif args and isinstance(args[0], Tensor):
        names = ("tensor", "non_blocking", "copy")
    else:
        names = ("device", "dtype", "non_blocking", "copy")
    if len(args) > len(names):
        raise TypeError(_refusal(args, kwargs))
    for name, value in zip(names, args):
        if name in values:
            raise TypeError(_refusal(args, kwargs))
        values[name] = value
    other = values.pop("tensor", None)
    if other is None:
        other = values.pop("other", None)
    if other is not None:
        values.setdefault("device", other.device)
        values.setdefault("dtype", other.dtype)
    values.pop("copy", None)
    device = _as_device(values.pop("device", None), args, kwargs)
    dtype = values.pop("dtype", None)
    if dtype is not None and not isinstance(dtype, DType):
        raise TypeError(_refusal(args, kwargs))
    non_blocking = values.pop("non_blocking", False)
    memory_format = values.pop("memory_format", None)
    if values:
        raise TypeError(_refusal(args, kwargs))
    return Conversion(device, dtype, bool(non_blocking), memory_format)


def _as_device(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if value is None or isinstance(value, Device):
        return value
    if isinstance(value, str):
        return Device(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Device("cuda", value)
    raise TypeError(_refusal(args, kwargs))


def _refusal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = [type(value).__name__ for value in args]
    given += [f"{name}={type(value).__name__}" for name, value in kwargs.items()]
    return _EXPECTED.format(", ".join(given))
