"""The old names of tensors by type: ``torch.FloatTensor`` and its like.

Each makes tensors of its type and answers ``isinstance``.
"""

from __future__ import annotations

from typing import Any

from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.interchange import tensor_from_data
from flambeau.ops.creation import empty_tensor
from flambeau.ops.view import detach
from flambeau.tensor import Tensor


class TensorType:
    """``FloatTensor(2, 3)`` is uninitialised, ``FloatTensor([1, 2])`` holds the data."""

    def __init__(self, name: str, dtype: dtype, is_cuda: bool = False) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = "torch.cuda" if is_cuda else "torch"
        self.dtype = dtype
        self.is_cuda = is_cuda
        self.is_sparse = False

    def __call__(self, *args: Any, device: Any = None) -> Tensor:
        if self.is_cuda:
            raise TypeError(
                f"type {self.__module__}.{self.__name__} not available. "
                "Torch not compiled with CUDA enabled."
            )
        if not args:
            return empty_tensor((0,), self.dtype)
        (first, *rest) = args
        if isinstance(first, Tensor):
            return self._alias(first)
        if isinstance(first, int) and all(isinstance(n, int) for n in rest):
            return empty_tensor((first, *rest), self.dtype)
        if type(first) is not tuple and isinstance(first, tuple):
            return empty_tensor(tuple(first), self.dtype)
        return tensor_from_data(first, self.dtype)

    def _alias(self, other: Tensor) -> Tensor:
        if other.dtype is not self.dtype:
            raise TypeError(f"expected {_options(self.dtype)} (got {_options(other.dtype)}")
        return detach(other)

    def __instancecheck__(self, instance: object) -> bool:
        return not self.is_cuda and isinstance(instance, Tensor) and instance.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class '{self.__module__}.{self.__name__}'>"


def _options(kind: dtype) -> str:
    names = {"float32": "float", "float64": "double", "int64": "long int", "int32": "int"}
    return (
        f"TensorOptions(dtype={names.get(kind.name, kind.name)}, device=cpu, layout=Strided, "
        "requires_grad=false (default), pinned_memory=false (default), memory_format=(nullopt))"
    )


BFloat16Tensor = TensorType("BFloat16Tensor", types.bfloat16)
BoolTensor = TensorType("BoolTensor", types.bool_)
ByteTensor = TensorType("ByteTensor", types.uint8)
CharTensor = TensorType("CharTensor", types.int8)
DoubleTensor = TensorType("DoubleTensor", types.float64)
FloatTensor = TensorType("FloatTensor", types.float32)
HalfTensor = TensorType("HalfTensor", types.float16)
IntTensor = TensorType("IntTensor", types.int32)
LongTensor = TensorType("LongTensor", types.int64)
ShortTensor = TensorType("ShortTensor", types.int16)
