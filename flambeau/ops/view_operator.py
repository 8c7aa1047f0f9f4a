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
from flambeau.ops.view_form import remember, view_form, view_of
from flambeau.tensor import Tensor


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


def view(
    schema: str, kind: type[ViewOperator] = ViewOperator, **options: Any
) -> Callable[[Callable[..., Layout]], ViewOperator]:
    """Declares a view operator over its rule from layout to layout."""
    return lambda body: kind(parse(schema), body, **options)
