"""Signatures: what of a call's arguments a captured run depends on, as a key.

Two calls with equal keys differ only in the contents and the memory of their tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.capture.recording import is_plain
from flambeau.core.config import config
from flambeau.graph import grad_mode
from flambeau.nn.hook_registry import hook_state
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

_NUMBERS = (int, bool, str, bytes, type(None))


def modes() -> tuple[Any, ...]:
    """The switches that trusted code reads."""
    return (
        grad_mode.enabled,
        grad_mode.inference,
        grad_mode.checks_nan,
        config.default_dtype,
        config.window,
        hook_state.installed,
    )


class Plain:
    """The usual arguments: tensors of certain layouts, leaves and nobody's views, in order.

    Comparing with it takes a third of the time that a signature takes.
    """

    __slots__ = ("_layouts", "_modes", "_requires_grad", "count")

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.count = len(inputs)
        self._layouts = [t._layout for t in inputs]
        self._requires_grad = [t._requires_grad for t in inputs]
        self._modes = modes()

    @staticmethod
    def of(args: Sequence[Any], kwargs: dict[str, Any]) -> Plain | None:
        """What describes these arguments; None where they are not that plain."""
        if kwargs or not all(map(_is_plain_tensor, args)) or len(set(map(id, args))) != len(args):
            return None
        return Plain(args)

    def matches(self, args: Sequence[Any]) -> bool:
        """Whether a call with these arguments has the same signature."""
        if modes() != self._modes:
            return False
        for tensor, layout, requires_grad in zip(args, self._layouts, self._requires_grad):
            kind = tensor.__class__
            if (
                (kind is not Tensor and kind is not Parameter)
                or tensor._layout is not layout
                or tensor._requires_grad is not requires_grad
                or tensor._grad_fn is not None
                or tensor._base is not None
                or tensor._hooks is not None
                or tensor._view_version < 0
            ):
                return False
        return True


def _is_plain_tensor(value: Any) -> bool:
    if value.__class__ is not Tensor and value.__class__ is not Parameter:
        return False
    alone = value._base is None and value._hooks is None and value._grad_fn is None
    return alone and value._view_version >= 0


class Signature:
    """The key of one call, its ``inputs`` (tensors) and its other ``objects``, both in order."""

    __slots__ = ("inputs", "key", "objects")

    def __init__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.inputs: list[Tensor] = []
        self.objects: list[Any] = []
        parts: list[Any] = list(modes())
        for value in args:
            kind = value.__class__
            if kind is Tensor or kind is Parameter:
                self._tensor(value, parts)
            else:
                self._describe(value, parts)
        if kwargs:
            for name, value in kwargs.items():
                parts.append(name)
                self._describe(value, parts)
        inputs = self.inputs
        if len(inputs) > 1 and len(set(map(id, inputs))) != len(inputs):
            first = {id(t): k for k, t in reversed(list(enumerate(inputs)))}
            parts.append(tuple([first[id(t)] for t in inputs]))
        self.key = tuple(parts)

    def _tensor(self, tensor: Tensor, parts: list[Any]) -> None:
        self.inputs.append(tensor)
        parts.append(tensor._layout)
        if tensor._base is None and tensor._hooks is None and tensor._view_version >= 0:
            if not tensor._requires_grad:
                parts.append(0)
                return
            parts.append(1 if tensor._grad_fn is None else 2)
            return
        parts.append(
            (
                tensor.requires_grad,
                tensor.grad_fn is None,
                tensor._base is None,
                min(tensor._view_version, 0),
                id(tensor._hooks) if tensor._hooks is not None else 0,
            )
        )
        if tensor._hooks is not None:
            self.objects.append(tensor._hooks)

    def _describe(self, value: Any, parts: list[Any]) -> None:
        kind = value.__class__
        if kind is Tensor or kind is Parameter:
            self._tensor(value, parts)
        elif kind in _NUMBERS:
            parts.append(kind)
            parts.append(value)
        elif kind is float:
            parts.append(value.hex())
        elif kind is list or kind is tuple:
            parts += (kind, len(value))
            for item in value:
                self._describe(item, parts)
        elif kind is dict:
            parts += (kind, len(value))
            for name, item in value.items():
                self._describe(name, parts)
                self._describe(item, parts)
        elif is_plain(value) and kind is not slice and not isinstance(value, type):
            parts.append(value)
        else:
            # Another object: this very one, whose state is explored.
            parts.append(id(value))
            self.objects.append(value)
