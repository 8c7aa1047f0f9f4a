"""The functions that files call to make tensors, and the storages they are made from.

They keep PyTorch's signatures, because the file holds the arguments. Sizes, strides and offsets
come from the file and may be anything: a tensor is made only if it lies within its storage.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.core import dtype as dtypes
from flambeau.core.device import META, device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, Size, reach
from flambeau.core.memory_format import layout, sparse_coo, sparse_csr, strided
from flambeau.engine.storage import Storage
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

_LARGEST = (1 << 63) - 1


@dataclass(frozen=True)
class StorageType:
    """A name like ``torch.FloatStorage``, which in files stands for an element type."""

    name: str
    dtype: dtype
    module: str = "torch"


@dataclass(frozen=True)
class TypedStorage:
    """A storage together with the type of its elements: what a file calls a storage."""

    storage: Storage
    dtype: dtype

    def __reduce__(self) -> tuple[Any, ...]:
        """For plain pickles, which have no place of their own for storages."""
        return typed_storage_from_bytes, (bytes(self.storage.memory()), self.dtype)


def typed_storage_from_bytes(data: bytes, dtype: dtype) -> TypedStorage:
    """A new storage with these bytes."""
    storage = Storage(len(data))
    if data:
        storage.memory()[:] = data
    return TypedStorage(storage, dtype)


storage_types = (
    *(StorageType(f"{found.title}Storage", found) for found in dtypes.ALL),
    StorageType("UntypedStorage", dtypes.uint8, "torch.storage"),
)
storage_type_of = {found.dtype: found for found in storage_types[:-1]}


# --------------------------------------------------------------------------- tensors


def rebuild_tensor(
    storage: TypedStorage, storage_offset: int, size: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """A view of `storage`; RuntimeError if it would reach outside."""
    if not isinstance(storage, TypedStorage):
        raise RuntimeError(f"a tensor needs a storage, but the file has {type(storage).__name__}")
    memory = storage.storage
    found = _checked_layout(storage_offset, size, stride, storage.dtype, memory.device)
    if found.nbytes > memory.nbytes:
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset "
            f"{storage_offset}, and itemsize {storage.dtype.itemsize} requiring a storage size of "
            f"{found.nbytes} are out of bounds for storage of size {memory.nbytes}"
        )
    return Tensor._from_storage(memory, found)


def rebuild_tensor_v2(
    storage: TypedStorage,
    storage_offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
    backward_hooks: object,
    metadata: dict[str, bool] | None = None,
) -> Tensor:
    """What the current format calls for a tensor."""
    tensor = rebuild_tensor(storage, storage_offset, size, stride)
    if metadata:
        tensor = _with_pending_signs(tensor, metadata)
    return _requiring_grad(tensor, requires_grad)


def rebuild_tensor_v3(
    storage: TypedStorage,
    storage_offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
    backward_hooks: object,
    dtype: dtype,
    metadata: dict[str, bool] | None = None,
) -> Tensor:
    """What files call for element types that have no storage name of their own."""
    typed = TypedStorage(storage.storage, _checked_dtype(dtype))
    arguments = (typed, storage_offset, size, stride, requires_grad, backward_hooks, metadata)
    return rebuild_tensor_v2(*arguments)


def rebuild_meta_tensor_no_storage(
    dtype: dtype, size: Sequence[int], stride: Sequence[int], requires_grad: bool
) -> Tensor:
    """A tensor on the meta device, which has no bytes in the file."""
    found = _checked_layout(0, size, stride, _checked_dtype(dtype), META)
    tensor = Tensor._from_storage(Storage(found.nbytes, META), found)
    return _requiring_grad(tensor, requires_grad)


def rebuild_parameter(data: Tensor, requires_grad: bool, backward_hooks: object) -> Parameter:
    """What files call for a parameter."""
    return Parameter(data, requires_grad=bool(requires_grad))


def rebuild_parameter_with_state(
    data: Tensor, requires_grad: bool, backward_hooks: object, state: object
) -> Parameter:
    """A parameter with attributes of the user's."""
    parameter = rebuild_parameter(data, requires_grad, backward_hooks)
    _set_attributes(parameter, state)
    return parameter


def rebuild_from_type_v2(
    func: Callable[..., Tensor], new_type: type, args: tuple[Any, ...], state: object
) -> Tensor:
    """A tensor with attributes of the user's, or of a class derived from Tensor."""
    if not isinstance(new_type, type) or not issubclass(new_type, Tensor):
        raise RuntimeError(f"{new_type} is not a class of tensors")
    tensor = func(*args)
    if type(tensor) is not new_type:
        tensor = Tensor._make_subclass(new_type, tensor, tensor.requires_grad)
    set_state = getattr(new_type, "__setstate__", None)
    if set_state not in (None, getattr(Tensor, "__setstate__", None)):
        set_state(tensor, state)
    elif state is not None:
        _set_attributes(tensor, state)
    return tensor


def _checked_layout(
    offset: int, size: Sequence[int], stride: Sequence[int], dtype: dtype, device: device
) -> Layout:
    """The layout, once its numbers are known to be sizes, strides and an offset."""
    if not isinstance(size, list | tuple) or not isinstance(stride, list | tuple):
        raise RuntimeError("the file describes a tensor without sizes and strides")
    numbers = [offset, *size, *stride]
    if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
        raise RuntimeError(
            f"the file describes an impossible tensor: sizes {list(size)}, strides {list(stride)}, "
            f"storage offset {offset}"
        )
    if len(size) != len(stride):
        raise RuntimeError(
            f"mismatch in length of strides and shape: sizes {list(size)}, strides {list(stride)}"
        )
    last = reach(size, stride, offset) * dtype.itemsize
    if max(last, math.prod(size) * dtype.itemsize) > _LARGEST:
        raise RuntimeError(f"Storage size calculation overflowed with sizes={list(size)}")
    return Layout.of(tuple(size), dtype, device, tuple(stride), offset)


def _checked_dtype(found: object) -> dtype:
    if not isinstance(found, dtype):
        raise RuntimeError(f"the file names {found!r} where an element type belongs")
    return found


def _requiring_grad(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


def _with_pending_signs(tensor: Tensor, metadata: dict[str, bool]) -> Tensor:
    """Carries out a conjugation or negation that PyTorch had put off when it wrote the file."""
    if metadata.get("conj"):
        tensor = tensor.conj()
    if metadata.get("neg"):
        tensor = tensor.neg()
    return tensor


def _set_attributes(tensor: Tensor, state: object) -> None:
    """Sets attributes in the instance's dictionary only: its slots are memory addresses."""
    attributes = state[0] if isinstance(state, tuple) and len(state) == 2 else state
    if attributes is None:
        return
    if not isinstance(attributes, dict):
        raise RuntimeError(f"a tensor's attributes must be a dict, got {type(attributes).__name__}")
    for name, value in attributes.items():
        if type(name) is not str or name.startswith("__"):
            raise RuntimeError(f"a tensor cannot have the attribute {name!r}")
        tensor.__dict__[name] = value


# --------------------------------------------------------------------------- the way back


def reduce_tensor(tensor: Tensor) -> tuple[Any, tuple[Any, ...]]:
    """The function of this module, and its arguments, that make `tensor` again."""
    function, arguments = _reduce_plain(tensor)
    state = dict(getattr(tensor, "__dict__", ())) or None
    kind = type(tensor)
    if kind is Parameter:
        return _reduce_parameter(tensor, state)
    if kind is Tensor and state is None:
        return function, arguments
    return rebuild_from_type_v2, (function, kind, arguments, state)


def _reduce_plain(tensor: Tensor) -> tuple[Any, tuple[Any, ...]]:
    placed: Layout = tensor._layout
    shape = tuple(placed.shape)
    # Interned layouts share these tuples; new ones keep the pickle's memo as PyTorch writes it.
    strides = (*placed.strides,)
    if placed.device.type == "meta":
        arguments = (placed.dtype, shape, strides, tensor.requires_grad)
        return rebuild_meta_tensor_no_storage, arguments
    typed = TypedStorage(tensor._storage, placed.dtype)
    arguments = (typed, placed.offset, shape, strides, tensor.requires_grad, OrderedDict())
    return rebuild_tensor_v2, arguments


def _reduce_parameter(
    parameter: Parameter, state: dict[str, Any] | None
) -> tuple[Any, tuple[Any, ...]]:
    plain = Tensor._from_storage(parameter._storage, parameter._layout)
    if state is None:
        return rebuild_parameter, (plain, parameter.requires_grad, OrderedDict())
    arguments = (plain, parameter.requires_grad, OrderedDict(), state)
    return rebuild_parameter_with_state, arguments


def _reduce_ex(tensor: Tensor, protocol: Any) -> tuple[Any, tuple[Any, ...]]:
    """``Tensor.__reduce_ex__``: how plain pickle, copy and multiprocessing take a tensor apart."""
    return reduce_tensor(tensor)


# Here, because `Tensor` lies far below the functions that its pickle names.
Tensor.__reduce_ex__ = _reduce_ex  # type: ignore[method-assign, assignment]


def rebuild_layout(name: str) -> layout:
    """The arrangement of memory that is called ``torch.strided`` or the like."""
    found = _layouts.get(name)
    if found is None:
        raise RuntimeError(f"the file names an unknown memory layout {name!r}")
    return found


_layouts = {str(found): found for found in (strided, sparse_coo, sparse_csr)}


# --------------------------------------------------------------------------- names in files

fixed_globals: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): rebuild_meta_tensor_no_storage,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter_with_state,
    ("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type_v2,
    ("torch.serialization", "_get_layout"): rebuild_layout,
    ("torch.nn.parameter", "Parameter"): Parameter,
    ("torch", "Tensor"): Tensor,
    ("torch", "Size"): Size,
    ("torch", "device"): device,
}
