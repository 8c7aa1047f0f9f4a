"""Tensors that a module owns: parameters (trained) and buffers (kept, not trained)."""

from __future__ import annotations

from typing import Any

from flambeau.ops.creation import empty
from flambeau.tensor import Tensor


class ParameterMeta(type(Tensor)):
    """Lets a tensor of another class count as a Parameter when it carries ``_is_param``."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        if cls is not Parameter or not isinstance(instance, Tensor):
            return False
        return bool(getattr(instance, "_is_param", False))


class Parameter(Tensor, metaclass=ParameterMeta):
    """A leaf tensor that registers itself when assigned as an attribute of a Module.

    ``Parameter(data)`` shares memory with ``data``, leaves its graph, and requires a gradient
    unless ``requires_grad=False``; grad mode has no say in it. Pickling is serialization's.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = empty(0)
        if type(data) is Tensor or type(data) is Parameter:
            return Tensor._make_subclass(cls, data, requires_grad)
        marked = data.detach().requires_grad_(requires_grad)
        if type(marked) is not type(data):
            raise RuntimeError(
                f"Creating a Parameter from an instance of type {type(data).__name__} requires "
                "that detach() returns an instance of the same type, but return type "
                f"{type(marked).__name__} was found instead. To use the type as a Parameter, "
                "please correct the detach() semantics defined by its __torch_dispatch__() "
                "implementation."
            )
        marked._is_param = True
        return marked

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.data.clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        return "Parameter containing:\n" + super().__repr__()


class BufferMeta(type(Tensor)):
    """Answers ``isinstance(x, Buffer)``: a buffer is a tensor that carries ``_is_buffer``."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        if cls is not Buffer or not isinstance(instance, Tensor):
            return False
        return bool(getattr(instance, "_is_buffer", False))


class Buffer(Tensor, metaclass=BufferMeta):
    """``Buffer(data, persistent=True)``: a tensor that registers itself as a module's buffer."""

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Tensor:
        if data is None:
            data = empty(0)
        marked = data.detach().requires_grad_(data.requires_grad)
        marked.persistent = persistent
        marked._is_buffer = True
        return marked
