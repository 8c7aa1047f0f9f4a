"""Process-wide settings of the ``torch`` namespace: default type, threads, printing's sources."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from flambeau.core import dtype as types
from flambeau.core.config import config
from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.core.scalar import result_type as _result_type
from flambeau.core.scalar import scalar_dtype
from flambeau.engine.runtime import backend
from flambeau.engine.turns import turns
from flambeau.ops.declare import can_cast as _can_cast
from flambeau.tensor import Tensor


def get_default_dtype() -> dtype:
    """The type of tensors made from Python floats."""
    found: dtype = types.BY_NAME[config.default_dtype]
    return found


def set_default_dtype(d: dtype) -> None:
    """Sets the type of tensors made from Python floats."""
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    config.default_dtype = d.name
    # Calls recorded before, by any thread, may have been typed by the former default.
    for tape in turns.tapes():
        tape.forget()


def set_default_tensor_type(t: Any) -> None:
    """``torch.set_default_tensor_type(torch.DoubleTensor)``, the old spelling."""
    title = (t if isinstance(t, str) else t.__name__).rpartition(".")[2].removesuffix("Tensor")
    set_default_dtype(next(d for d in types.ALL if d.title == title))


def get_default_device() -> device:
    return CPU


def set_default_device(where: Any) -> None:
    """The CPU is the only device to choose."""
    if where is not None and device(where).type != "cpu":
        raise AssertionError("Torch not compiled with CUDA enabled")


def set_num_threads(int: int) -> None:
    """Sets how many threads kernels use.  Results do not depend on it."""
    if not isinstance(int, Integral) or int <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    backend.set_num_threads(int)


def get_num_threads() -> int:
    return backend.get_num_threads()


_interop_threads = 1


def set_num_interop_threads(int: int) -> None:
    """Accepted; plans run one after the other."""
    global _interop_threads
    _interop_threads = int


def get_num_interop_threads() -> int:
    return _interop_threads


def result_type(tensor1: Any, tensor2: Any) -> dtype:
    """The type that an operation on both gives."""
    operands = (tensor1, tensor2)
    tensors = [o for o in operands if isinstance(o, Tensor)]
    numbers = [type(o) for o in operands if not isinstance(o, Tensor)]
    return _result_type(
        [t.dtype for t in tensors if t.ndim],
        [t.dtype for t in tensors if not t.ndim],
        [scalar_dtype(kind, get_default_dtype()) for kind in numbers],
    )


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether promotion rules allow the conversion."""
    return _can_cast(from_, to)


def is_tensor(obj: Any) -> bool:
    return isinstance(obj, Tensor)


def is_storage(obj: Any) -> bool:
    return type(obj).__name__.endswith("Storage")


def is_floating_point(input: Tensor) -> bool:
    return input.is_floating_point()


def is_complex(input: Tensor) -> bool:
    return input.is_complex()


def is_signed(input: Tensor) -> bool:
    return input.is_signed()


def get_device(input: Tensor) -> int:
    """The index of the CUDA device; -1 on the CPU."""
    return input.get_device()


def is_nonzero(input: Tensor) -> bool:
    if input.numel() != 1:
        raise RuntimeError(
            "Boolean value of Tensor with "
            + ("no values" if not input.numel() else "more than one value")
            + " is ambiguous"
        )
    return bool(input)


def numel(input: Tensor) -> int:
    return input.numel()


_deterministic = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Remembered only: every algorithm here is deterministic."""
    global _deterministic
    _deterministic = mode


def are_deterministic_algorithms_enabled() -> bool:
    return _deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    return False


_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Remembered only: products are always computed in full precision."""
    global _precision
    _precision = precision


def get_float32_matmul_precision() -> str:
    return _precision
