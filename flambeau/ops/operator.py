"""Operators: how one is declared, and everything that is derived from the declaration.

An operator is declared by a decorator that names its kind, over the one function that says what it
does; its derivative and its samples follow below it:

    @pointwise("sigmoid(Tensor self) -> Tensor", promote="float", variants="function method inplace
    out") def sigmoid(self):
        return math.sigmoid(self)

    @sigmoid.derivative
    def sigmoid_backward(grad, result):
        return {"self": grad * result * (1 - result)}

    @sigmoid.samples
    def sigmoid_samples(make):
        yield make(3, 5),

See README.md in this folder for the kinds and their contracts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flambeau.ops.derivative import Derivative
from flambeau.ops.schema import REQUIRED, Schema
from flambeau.tensor import Tensor

OPERATORS: dict[str, Operator] = {}


class Operator:
    """A declared operator; calling it is PyTorch's function of that name.

    ``record(values)`` takes bound arguments and returns the result; the kinds differ there.
    """

    def __init__(
        self,
        schema: Schema,
        body: Callable[..., Any],
        variants: str = "function method",
        dunder: str = "",
        aliases: str = "",
        differentiable: bool = True,
    ) -> None:
        self.schema = schema
        self.name = schema.name
        self.body = body
        self.variants = frozenset(variants.split())
        self.dunder = tuple(dunder.split())
        self.aliases = tuple(aliases.split())
        self.__name__ = self.__qualname__ = self.name
        self.__doc__ = body.__doc__
        self.__module__ = "torch"
        # What a call without further arguments, recorded by the short paths, stands for.
        self.defaults = {p.name: p.default for p in schema.parameters}
        self.differentiable = differentiable
        self.derivative_rule: Derivative | None = None
        self.sample_table: Callable[..., Any] | None = None
        self.node_name = node_name(self.name)
        # The node's name where the overload with ``dim`` has one of its own.
        self.dim_node_name: str | None = None
        self.tensor_positions = tuple(k for k, p in enumerate(schema.parameters) if p.is_tensor)
        # The path of calls with this many positional arguments and no others; see bindings.py.
        self.short: Callable[..., Any] | None = None
        self.short_arity = -1
        self.tensors_only = all(p.is_tensor for p in schema.parameters)
        self.takes_lists = any(p.kind == "Tensor[]" for p in schema.parameters)
        key = schema.text.split("(")[0]
        assert key not in OPERATORS, f"{key} is declared twice"
        OPERATORS[key] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == self.short_arity and not kwargs and isinstance(args[0], Tensor):
            assert self.short is not None
            return self.short(*args)
        if kwargs:
            out = kwargs.pop("out", None)
            return self.record(self.schema.bind(args, kwargs), out)
        return self.record(self.schema.bind(args, kwargs))

    def call_method(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As a method: the first argument is the tensor itself."""
        return self.record(self.schema.bind(args, kwargs, method=True))

    def call_inplace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As the method with a trailing underscore: the result goes into the first argument."""
        return self.record(self.schema.bind(args, kwargs, method=True), None, inplace=True)

    def record(self, values: list[Any], out: Any = None, inplace: bool = False) -> Any:
        raise AssertionError(f"{type(self).__name__} does not say how to record")

    def with_node_name(self, node_name: str) -> Any:
        """The same operator, whose nodes in the graph have another name."""
        form = object.__new__(type(self))
        form.__dict__.update(self.__dict__)
        form.node_name = node_name
        return form

    def derivative(self, rule: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """Declares the derivative; its parameters are what the graph keeps."""
        self.derivative_rule = Derivative(self.schema, self.defaults, rule)
        # In the method's place, which would only hand on.
        self.backward = self.derivative_rule.run  # type: ignore[method-assign]
        return rule

    def saved_for(operator, /, **inputs: str) -> None:
        """Says that an input is saved only for the gradients of others:
        ``mul.saved_for(self="other")``.

        Where none of those is wanted the input is not kept, so it may be freed, or written in
        place.
        """
        assert operator.derivative_rule is not None
        operator.derivative_rule.set_conditions(inputs)

    def samples(self, table: Callable[..., Any]) -> Callable[..., Any]:
        """Declares the sample table that the tests are derived from."""
        self.sample_table = table
        return table

    def backward(self, node: Any, grads: Any) -> Any:
        """The inputs' gradients; what the autograd engine calls on every node's operator."""
        rule = self.derivative_rule
        if rule is None:
            raise RuntimeError(f"derivative for aten::{self.name} is not implemented")
        return rule.run(node, grads)

    @property
    def __signature__(self) -> inspect.Signature:
        parameters = []
        for p in self.schema.parameters:
            kind = (
                inspect.Parameter.KEYWORD_ONLY
                if p.keyword_only
                else inspect.Parameter.POSITIONAL_OR_KEYWORD
            )
            default = (
                inspect.Parameter.empty if p.position == 0 or p.default is REQUIRED else p.default
            )
            name = "input" if p.name == "self" else p.name
            parameters.append(inspect.Parameter(name, kind, default=default))
        return inspect.Signature(parameters)

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<operator {self.schema.text}>"


def node_name(name: str) -> str:
    """``log_softmax`` gives ``LogSoftmaxBackward0``; ``_name`` keeps no underscore."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Backward0"
