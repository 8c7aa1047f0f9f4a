"""View operators: another layout over the same storage; nothing is recorded on the tape.

What a view comes to depends on the layout it is taken of and on its arguments, so each layout
remembers the views that were taken of it; by the raw arguments, so that nothing is checked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.layout import Layout
from flambeau.engine.tape import thread
from flambeau.ops import call as path
from flambeau.ops.operator import Operator
from flambeau.ops.schema import Schema, parse
from flambeau.tensor import UNTRACKED, Tensor

# Views that one layout remembers; a program that takes more goes by ever new numbers.
_MAX_REMEMBERED = 4096
_new_object = object.__new__


class ViewOperator(Operator):
    """Another layout over the same storage; nothing is recorded on the tape."""

    def __init__(self, schema: Schema, body: Callable[..., Layout], **more: Any) -> None:
        super().__init__(schema, body, **more)

        self.form = view_form(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or not args or not isinstance(args[0], Tensor):
            return super().__call__(*args, **kwargs)
        return self.form(*args)

    def call_method(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs:
            return super().call_method(args, kwargs)
        return self.form(*args)

    def record(self, values: list[Any], out: Any = None, inplace: bool = False) -> Tensor:
        tensor: Tensor = values[0]
        layout = self.layout_of(tensor._layout, values)
        if inplace:
            return self._in_place(tensor, layout, values)
        return self.make(tensor, layout, values[1:])

    def layout_of(self, layout: Layout, values: Sequence[Any]) -> Layout:
        key = (self, *values[1:])
        found = layout.views.get(key)
        if found is None:
            found = self.body(layout, *values[1:])
            remember(layout, key, found)
        return found

    def make(self, tensor: Tensor, layout: Layout, arguments: Sequence[Any]) -> Tensor:
        """The view, with its place in the graph; ``arguments`` are all but the tensor."""
        result = view_of(tensor, layout)
        if tensor._requires_grad or tensor._base is not None:
            if thread.tape.grad_enabled and tensor.requires_grad:
                values = [tensor, *arguments]
                path.attach(self, (tensor,), (result,), self.derivative_arguments(values))
        return result

    def derivative_arguments(self, values: Sequence[Any]) -> dict[str, Any] | None:
        rule = self.derivative_rule
        if rule is None or not rule.arguments:
            return None
        names = [p.name for p in self.schema.parameters]
        return {name: values[names.index(name)] for name in rule.arguments}

    def _in_place(self, tensor: Tensor, layout: Layout, values: list[Any]) -> Tensor:
        """``t_()`` and its like: the tensor itself gets the new layout."""
        graph = path.check_inplace(tensor, [tensor])
        node = (
            path.make_node(self, (tensor,), (tensor,), self.derivative_arguments(values))
            if graph
            else None
        )
        tensor._layout = layout
        tensor._storage.version += 1
        tensor._view_version = tensor._storage.version
        if node is not None:
            node.output_layouts = [layout]
            tensor._grad_fn, tensor._output_nr = node, 0
        return tensor


def remember(layout: Layout, key: Any, value: Any) -> None:
    """Keeps what was found out about a layout, in its ``views``."""
    if len(layout.views) > _MAX_REMEMBERED:
        layout.views.clear()
    layout.views[key] = value


def view_of(tensor: Tensor, layout: Layout) -> Tensor:
    """A tensor over the same storage that autograd knows as a view."""
    # Hot path.
    storage = tensor._storage
    base = tensor._base
    result: Tensor = _new_object(Tensor)
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


def view_form(op: ViewOperator) -> Callable[..., Tensor]:
    """The method of a view operator: remembers what the raw arguments of a call came to."""

    def view(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs:
            return op.call_method((tensor, *args), kwargs)  # type: ignore[no-any-return]
        layout = tensor._layout
        key = (args, op)
        try:
            found: Any = layout.views.get(key)
        except TypeError:  # a list is not hashable
            return op.record(op.schema.bind((tensor, *args), kwargs, method=True))
        if found is None:
            values = op.schema.bind((tensor, *args), kwargs, method=True)
            found = op.layout_of(layout, values), values[1:]
            if not any(isinstance(value, Tensor) for value in args):
                remember(layout, key, found)
        return op.make(tensor, found[0], found[1])

    return view


def alias_form(op: Operator) -> Callable[..., Any]:
    """The method of an operator made of others whose result may be a view, such as ``reshape``.

    Outside of graphs a view's layout is remembered, and how it is arrived at does not matter.
    """

    def alias(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
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
            if not any(isinstance(value, Tensor) for value in args):
                remember(layout, key, result._layout)
        return result

    return alias


def view(
    schema: str, kind: type[ViewOperator] = ViewOperator, **options: Any
) -> Callable[[Callable[..., Layout]], ViewOperator]:
    """Declares a view operator over its rule from layout to layout."""
    return lambda body: kind(parse(schema), body, **options)
