"""Values in and out: Python numbers and lists, numpy arrays, DLPack.

numpy shares memory both ways.  While somebody holds such an array its storage is *exported*: the
bytes may change behind our back, so every operator that touches it runs at once.
"""

from __future__ import annotations

import ctypes
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flambeau.core import dtype as types
from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, is_dense
from flambeau.core.scalar import default_dtype
from flambeau.engine.storage import Storage
from flambeau.engine.watch import host_action
from flambeau.graph import grad_mode
from flambeau.tensor import Tensor

_FORMATS = {
    types.bool_: "?", types.uint8: "B", types.int8: "b", types.int16: "h", types.int32: "i",
    types.int64: "q", types.float16: "e", types.float32: "f", types.float64: "d",
    types.complex64: "2f", types.complex128: "2d", types.bfloat16: "H",
}  # fmt: skip
_UNPACKERS = {d: struct.Struct("=" + code).unpack for d, code in _FORMATS.items()}

# Those that ctypes has a type for are read with less ado.
_READERS: dict[dtype, Callable[[int], Any]] = {
    types.bool_: ctypes.c_bool.from_address, types.uint8: ctypes.c_uint8.from_address,
    types.int8: ctypes.c_int8.from_address, types.int16: ctypes.c_int16.from_address,
    types.int32: ctypes.c_int32.from_address, types.int64: ctypes.c_int64.from_address,
    types.float32: ctypes.c_float.from_address, types.float64: ctypes.c_double.from_address,
}  # fmt: skip


# -- one number ------------------------------------------------------------------------------------


def item(tensor: Tensor) -> Any:
    """The value of a one-element tensor as a Python number."""
    layout = tensor._layout
    if layout.numel != 1:
        raise RuntimeError(f"a Tensor with {layout.numel} elements cannot be converted to Scalar")
    dtype = layout.dtype
    address = tensor._storage.ready() + layout.offset * dtype.itemsize
    reader = _READERS.get(dtype)
    if reader is not None:
        return reader(address).value
    values = _UNPACKERS[dtype](ctypes.string_at(address, dtype.itemsize))
    if dtype is types.bfloat16:
        return struct.unpack("f", struct.pack("I", values[0] << 16))[0]
    return complex(*values) if dtype.is_complex else values[0]


# -- numpy -----------------------------------------------------------------------------------------


class _Export:
    """What numpy holds on to: keeps the storage alive and counted as seen from outside."""

    __slots__ = ("__array_interface__", "storage")

    def __init__(self, tensor: Tensor) -> None:
        layout, storage = tensor._layout, tensor._storage
        itemsize = layout.dtype.itemsize
        self.storage = storage
        address = storage.ready() + layout.offset * itemsize
        self.__array_interface__ = {
            "version": 3,
            "typestr": layout.dtype.numpy.str,
            "shape": tuple(layout.shape),
            "strides": tuple(s * itemsize for s in layout.strides),
            "data": (address, False),
        }
        storage.exports += 1

    def __del__(self) -> None:
        self.storage.exports -= 1


def shared_array(tensor: Tensor) -> np.ndarray:
    """A numpy array over the tensor's memory (bfloat16 as uint16 bits)."""
    if tensor._layout.numel == 0:
        return np.empty(tensor.shape, tensor.dtype.numpy)
    return np.asarray(_Export(tensor))


def to_numpy(tensor: Tensor, *, force: bool = False) -> np.ndarray:
    """``Tensor.numpy``: shares memory."""
    if force:
        return shared_array(Tensor._from_storage(tensor._storage, tensor._layout))
    if tensor.device.type == "meta":
        raise TypeError(
            "can't convert meta device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )
    if tensor.requires_grad and grad_mode.enabled:
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    if tensor.dtype is types.bfloat16:
        raise TypeError("Got unsupported ScalarType BFloat16")
    return shared_array(tensor)


def from_numpy(array: Any) -> Tensor:
    """A tensor that shares the array's memory.

    Raises TypeError for what is not an array or has a type without counterpart, ValueError for
    negative strides.
    """
    if not isinstance(array, np.ndarray):
        title = type(array).__name__
        title = f"numpy.{title}" if isinstance(array, np.generic) else title
        raise TypeError(f"expected np.ndarray (got {title})")
    found = _kind_of(array)
    if not array.flags.writeable:
        warnings.warn(
            "The given NumPy array is not writable, and PyTorch does not support non-writable "
            "tensors. This means writing to this tensor will result in undefined behavior. You may "
            "want to copy the array to protect its data or make it writable before converting it "
            "to a tensor. This type of warning will be suppressed for the rest of this program.",
            UserWarning,
            stacklevel=2,
        )
    strides = tuple(s // array.itemsize for s in array.strides)
    layout = Layout.of(array.shape, found, CPU, strides)
    # Whoever holds the array that owns the memory sees it, through whichever view.
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    storage = Storage.from_owner(owner, array.ctypes.data, layout.nbytes)
    if owner.base is not None:
        # The memory is not numpy's: its owner may look at any time.
        storage.exports += 1
    return Tensor._from_storage(storage, layout)


def _kind_of(array: np.ndarray) -> dtype:
    """The array's type here; PyTorch's errors for arrays that no tensor can show."""
    if not array.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion "
            "between byte orders is currently not supported."
        )
    found = types.FROM_NUMPY.get(array.dtype)
    if found is None or array.dtype == np.uint16:
        raise TypeError(
            f"can't convert np.ndarray of type {_numpy_name(array.dtype)}. The only supported "
            "types "
            "are: float64, float32, float16, complex64, complex128, int64, int32, int16, int8, "
            "uint64, uint32, uint16, uint8, and bool."
        )
    if any(s < 0 for s in array.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array  with array.copy().) "
        )
    if any(s % array.itemsize for s in array.strides):
        raise ValueError(
            "given numpy array strides not a multiple of the element byte size. Copy the numpy "
            "array to reallocate the memory."
        )
    return found


def _numpy_name(kind: np.dtype) -> str:
    return f"numpy.{kind.type.__name__}"


# -- Python data -----------------------------------------------------------------------------------


@host_action
def tensor_from_data(data: Any, dtype: dtype | None = None, device: device | None = None) -> Tensor:
    """A new tensor with a copy of ``data``: numbers, nested sequences, arrays, tensors.

    Raises ValueError for ragged sequences, TypeError or RuntimeError for foreign types.
    """
    if isinstance(data, Tensor):
        source = Tensor._from_storage(data._storage, data._layout)
        if device is not None and device.type == "meta":
            return source.to(device, dtype or data.dtype)  # type: ignore[attr-defined,no-any-return]
        return source.to(dtype or data.dtype, copy=True)  # type: ignore[attr-defined,no-any-return]
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        return tensor_from_array(array, dtype or _kind_of(array), device)
    if hasattr(data, "__array__"):
        return tensor_from_data(np.asarray(data), dtype, device)
    kind, shape = _inspect(data)
    array = _numbers(data, kind).reshape(shape)
    if (dtype or kind).category == "integer":
        _check_overflow(array, dtype or kind)
    return tensor_from_array(array, dtype or kind, device)


def tensor_from_array(array: np.ndarray, kind: dtype, device: device | None = None) -> Tensor:
    """A new tensor with the array's values converted; its strides are kept where they are dense."""
    layout = Layout.of(array.shape, kind, device or CPU)
    if not array.flags.c_contiguous:
        strides = tuple(s // array.itemsize for s in array.strides)
        strided = (
            Layout.of(array.shape, kind, device or CPU, strides) if min(strides) >= 0 else layout
        )
        layout = strided if is_dense(strided) else layout
    storage = Storage(layout.numel * kind.itemsize, layout.device)
    tensor = Tensor._from_storage(storage, layout)
    if layout.numel and layout.device.type != "meta":
        buffer = (ctypes.c_char * storage.nbytes).from_address(storage.ready())
        strides = tuple(s * kind.itemsize for s in layout.strides)
        target = np.ndarray(array.shape, kind.numpy, buffer, 0, strides)
        if kind is types.bfloat16:
            target[...] = _bfloat16_bits(array)
        elif array.dtype.kind == "f" and kind.category == "integer":
            with np.errstate(invalid="ignore"):
                target[...] = array.astype(np.int64)
        else:
            with np.errstate(over="ignore"):
                target[...] = array
    return tensor


def _bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """Round to nearest even, NaN kept."""
    single = np.asarray(array, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(single), 0x7FC0, rounded).astype(np.uint16)


_WIDEST = {"bool": np.bool_, "integer": np.int64, "floating": np.float64, "complex": np.complex128}


def _numbers(data: Any, kind: dtype) -> np.ndarray:
    """The numbers in nested sequences, in the widest type of their category."""
    if not isinstance(data, (list, tuple)) or not _is_plain(data):
        data = _plain(data, kind)
    try:
        return np.array(data, dtype=_WIDEST[kind.category])
    except OverflowError:
        raise ValueError("Overflow when unpacking long long") from None


def _is_plain(data: Sequence[Any]) -> bool:
    return set(map(type, data)) <= {int, float, bool}


def _plain(data: Any, kind: dtype) -> Any:
    """Nested lists of Python numbers: tensors inside count as numbers."""
    if isinstance(data, Tensor):
        if data.numel() == 1:
            return item(data)
        if kind.category == "floating":
            raise ValueError("only one element tensors can be converted to Python scalars")
        raise TypeError("only integer tensors of a single element can be converted to an index")
    if isinstance(data, np.ndarray):
        return data.tolist()
    if isinstance(data, Sequence):
        return data if _is_plain(data) else [_plain(d, kind) for d in data]
    return data


def _check_overflow(array: np.ndarray, kind: dtype) -> None:
    """PyTorch's error for numbers that an integer type does not hold; unsigned ones wrap."""
    if not array.size or kind is types.int64 and array.dtype == np.int64:
        return
    limits = np.iinfo(kind.numpy)
    lowest = limits.min if limits.min else -limits.max
    if array.min() < lowest or array.max() > limits.max:
        raise RuntimeError(f"value cannot be converted to type {kind.name} without overflow")


def _inspect(data: Any) -> tuple[dtype, tuple[int, ...]]:
    """Type and shape of nested sequences; PyTorch's errors for ragged and foreign ones."""
    if isinstance(data, Tensor):
        return data.dtype, ()
    if isinstance(data, (np.ndarray, np.generic)):
        return _kind_of(np.asarray(data)), np.shape(data)
    if isinstance(data, bool):
        return types.bool_, ()
    if isinstance(data, int):
        return types.int64, ()
    if isinstance(data, float):
        return default_dtype(), ()
    if isinstance(data, complex):
        return default_dtype().to_complex(), ()
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if not isinstance(data, Sequence):
        raise RuntimeError(f"Could not infer dtype of {type(data).__name__}")
    if not len(data):
        return default_dtype(), (0,)
    return _inspect_sequence(data)


def _inspect_sequence(data: Sequence[Any]) -> tuple[dtype, tuple[int, ...]]:
    classes = set(map(type, data))
    if classes <= {int, float, bool}:
        if float in classes:
            return default_dtype(), (len(data),)
        return (types.int64 if int in classes else types.bool_), (len(data),)
    if isinstance(data[0], str):
        raise ValueError("too many dimensions 'str'")
    kind, inner = _inspect(data[0])
    if isinstance(data[0], np.ndarray):
        _warn_of_arrays()
    for entry in data:
        entry_kind, shape = _inspect(entry)
        if shape != inner:
            _raise_ragged(entry, kind, inner, shape)
        if entry_kind is not kind:
            kind = types.promote_types(kind, entry_kind)
    return kind, (len(data), *inner)


def _warn_of_arrays() -> None:
    warnings.warn(
        "Creating a tensor from a list of numpy.ndarrays is extremely slow. Please consider "
        "converting the list to a single numpy.ndarray with numpy.array() before converting to a "
        "tensor.",
        UserWarning,
        stacklevel=6,
    )


def _raise_ragged(
    entry: Any, kind: dtype, expected: tuple[int, ...], found: tuple[int, ...]
) -> None:
    if not found:
        raise TypeError("not a sequence")
    if not expected:
        title = type(entry).__name__
        if kind.category == "floating":
            raise TypeError(f"must be real number, not {title}")
        raise TypeError(f"'{title}' object cannot be interpreted as an integer")
    dim = next((d for d, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
    raise ValueError(
        f"expected sequence of length {expected[dim]} at dim {dim + 1} (got {found[dim]})"
    )


def to_list(tensor: Tensor) -> Any:
    """``Tensor.tolist``: nested lists of Python numbers."""
    source = Tensor._from_storage(tensor._storage, tensor._layout)
    array = shared_array(source)
    if tensor.dtype is types.bfloat16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.tolist()


# -- DLPack ----------------------------------------------------------------------------------------


def to_dlpack(tensor: Tensor, **options: Any) -> Any:
    """``Tensor.__dlpack__``: a capsule over the tensor's memory; the storage is exported meanwhile.

    Source: the array API standard's data interchange protocol, through numpy's implementation.
    """
    if tensor.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    options.pop("stream", None)
    return to_numpy(tensor).__dlpack__(**options)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor that shares the memory of any object with ``__dlpack__``."""
    if isinstance(ext_tensor, Tensor):
        return Tensor._from_storage(ext_tensor._storage, ext_tensor._layout)
    if not hasattr(ext_tensor, "__dlpack__"):
        ext_tensor = _Capsule(ext_tensor)
    array = np.from_dlpack(ext_tensor)
    if copy:
        array = array.copy()
    return from_numpy(array)


class _Capsule:
    """A bare capsule as an object with the protocol's methods."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0
