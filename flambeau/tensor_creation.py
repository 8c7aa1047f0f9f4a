"""``torch.tensor``, ``as_tensor`` and the other ways in from Python data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Size
from flambeau.interchange import from_numpy, tensor_from_data
from flambeau.ops.conversion import to
from flambeau.ops.creation import checked_dtype, empty_tensor, require_grad, target_device
from flambeau.tensor import Tensor

_Device = Any


def tensor(
    data: Any, *, dtype: dtype | None = None, device: _Device = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Returns a tensor with a copy of ``data``: a number, nested sequences, an array or a tensor.

    Raises ValueError for ragged sequences, TypeError or RuntimeError for foreign types.

    >>> import flambeau as torch
    >>> torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensor([[1., 2.],
            [3., 4.]])
    """
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use "
            "sourceTensor.detach().clone() or sourceTensor.detach().clone().requires_grad_(True), "
            "rather than torch.tensor(sourceTensor).",
            UserWarning,
            stacklevel=2,
        )
    made = tensor_from_data(data, checked_dtype("tensor", dtype), target_device(device))
    return require_grad(made) if requires_grad else made


def as_tensor(data: Any, dtype: dtype | None = None, device: _Device = None) -> Tensor:
    """Returns ``data`` as a tensor, sharing memory with an array or a tensor where type allows."""
    where = target_device(device)
    dtype = checked_dtype("as_tensor", dtype)
    if isinstance(data, Tensor):
        return to(data, dtype=dtype, device=None if device is None else where)
    if isinstance(data, np.ndarray):
        shared = from_numpy(data)
        return to(shared, dtype=dtype)
    return tensor_from_data(data, dtype, where)


def asarray(
    obj: Any, *, dtype: dtype | None = None, device: _Device = None, copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Returns ``obj`` as a tensor; ``copy`` says whether memory may be, or must not be, shared."""
    made = (
        tensor_from_data(obj, dtype, target_device(device))
        if copy
        else as_tensor(obj, dtype, device)
    )
    if copy is False and isinstance(obj, Tensor) and made is not obj:
        raise ValueError(
            f"can't alias tensor with dtype '{obj.dtype.title}' into dtype '{made.dtype.title}'."
        )
    return require_grad(made) if requires_grad else made


def frombuffer(
    buffer: Any, *, dtype: dtype, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """Returns a 1-d tensor over the memory of an object with Python's buffer protocol."""
    length, size = memoryview(buffer).nbytes, dtype.itemsize
    if not length or not count:
        raise ValueError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
            f"({length} bytes) minus 1"
        )
    if count < 0 and (length - offset) % size:
        raise ValueError(
            f"buffer length ({length - offset} bytes) after offset ({offset} bytes) must be a "
            f"multiple of element size ({size})"
        )
    if count > 0 and offset + count * size > length:
        raise ValueError(
            f"requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must "
            f"not be greater than actual buffer length ({length} bytes)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = from_numpy(np.frombuffer(buffer, dtype.numpy, count, offset))
    return require_grad(made) if requires_grad else made


def new_tensor(
    self: Tensor, data: Any, *, dtype: dtype | None = None, device: _Device = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``Tensor.new_tensor``: a copy of ``data`` in this tensor's type."""
    made = tensor_from_data(data, dtype or self.dtype, target_device(device))
    return require_grad(made) if requires_grad else made


def new(self: Tensor, *args: Any, device: _Device = None) -> Tensor:
    """``Tensor.new``, the old spelling: of sizes it is uninitialised, of data a copy."""
    if len(args) == 1 and not isinstance(args[0], int | Size):
        return tensor_from_data(args[0], self.dtype, target_device(device))
    sizes = args[0] if args and isinstance(args[0], Size) else args or (0,)
    return empty_tensor(tuple(sizes), self.dtype, target_device(device))


def pin_memory(self: Tensor, device: _Device = None) -> Tensor:
    """PyTorch's answer on a machine without accelerator."""
    raise RuntimeError("Cannot access accelerator device when none is available.")


def is_pinned(self: Tensor, device: _Device = None) -> bool:
    return False


METHODS: dict[str, Any] = {
    "is_pinned": is_pinned,
    "new": new,
    "new_tensor": new_tensor,
    "pin_memory": pin_memory,
}


__all__ = ["as_tensor", "asarray", "device", "frombuffer", "from_numpy", "tensor"]
