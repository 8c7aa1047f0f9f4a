"""How views are taken: without a detour where a layout remembers what its views come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.core.layout import Layout
from flambeau.engine.tape import thread
from flambeau.fields import TensorFields as Fields
from flambeau.fields import new_tensor
from flambeau.tensor import UNTRACKED, Tensor

# Views that one layout remembers; a program that takes more goes by ever new numbers.
_MAX_REMEMBERED = 4096


def remember(layout: Layout, key: Any, value: Any) -> None:
    """Keeps what was found out about a layout, in its ``views``."""
    if len(layout.views) > _MAX_REMEMBERED:
        layout.views.clear()
    layout.views[key] = value


def view_of(tensor: Fields, layout: Layout) -> Fields:
    """A tensor over the same storage that autograd knows as a view."""
    # Hot path.
    storage = tensor._storage
    base = tensor._base
    result: Fields = new_tensor(Tensor)
    result._storage = storage
    result._layout = layout
    result._requires_grad = False
    result._grad = None
    result._grad_fn = None
    result._output_nr = 0
    result._base = tensor if base is None else base
    if tensor._view_version == UNTRACKED:
        result._view_version = UNTRACKED
    else:
        result._view_version = storage.version if thread.tape.grad_enabled else -1
    result._hooks = None
    return result


def view_form(op: Any) -> Callable[..., Fields]:
    """The method of a view operator: remembers what the raw arguments of a call came to."""

    def view(tensor: Fields, *args: Any, **kwargs: Any) -> Fields:
        if kwargs:
            return op.call_method((tensor, *args), kwargs)
        layout = tensor._layout
        key = (args, op)
        try:
            found: Any = layout.views.get(key)
        except TypeError:  # a list is not hashable
            return op.record(op.schema.bind((tensor, *args), kwargs, method=True))
        if found is None:
            values = op.schema.bind((tensor, *args), kwargs, method=True)
            found = op.layout_of(layout, values), values[1:]
            if not any(isinstance(value, Fields) for value in args):
                remember(layout, key, found)
        return op.make(tensor, found[0], found[1])

    return view


def alias_form(op: Any) -> Callable[..., Any]:
    """The method of an operator made of others whose result may be a view, such as ``reshape``.

    Outside of graphs a view's layout is remembered, and how it is arrived at does not matter.
    """

    def alias(tensor: Fields, *args: Any, **kwargs: Any) -> Any:
        if kwargs or tensor._requires_grad or tensor._base is not None:
            if kwargs or (thread.tape.grad_enabled and tensor.requires_grad):
                return op.call_method((tensor, *args), kwargs)
        layout = tensor._layout
        key = (args, op)
        try:
            found: Any = layout.views.get(key)
        except TypeError:
            return op.call_method((tensor, *args), kwargs)
        if found is not None:
            return view_of(tensor, found)
        result = op.call_method((tensor, *args), kwargs)
        if result._storage is tensor._storage and result is not tensor:
            if not any(isinstance(value, Fields) for value in args):
                remember(layout, key, result._layout)
        return result

    return alias
