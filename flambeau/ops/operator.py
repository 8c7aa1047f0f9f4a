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
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.graph import above
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
        self.derivative_rule = Derivative(self, rule)
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
        return above.run_derivative(node, grads)

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


class Derivative:
    """A derivative rule and where each of its parameters comes from.

    ``grad`` (or ``grad0``, ``grad1`` …) are the outputs' gradients, ``result`` (``result0`` …) the
    outputs, ``needs`` the set of input names whose gradient is wanted, ``layouts`` those of all
    inputs, ``self_layout`` the layout of
    the input ``self`` (its contents are not kept); any other name is an argument of the operator.
    """

    def __init__(self, operator: Operator, rule: Callable[..., dict[str, Any]]) -> None:
        self.rule = rule
        names = [p.name for p in operator.schema.parameters]
        self.parameters = tuple(inspect.signature(rule).parameters)
        self.tensor_names = tuple(names[k] for k in operator.tensor_positions)
        self.saved_inputs = tuple(
            k for k, name in enumerate(self.tensor_names) if name in self.parameters
        )
        # Saved inputs, and the inputs whose gradients each is for; None: always kept.
        self.saved_when: tuple[tuple[int, tuple[int, ...] | None], ...] = tuple(
            (k, None) for k in self.saved_inputs
        )
        # Both of two operands are saved, each for the other's gradient: a product.
        self.keeps_the_other = False
        self.saved_results = tuple(
            int(name[6:] or 0) for name in self.parameters if name.startswith("result")
        )
        self.arguments = tuple(
            name for name in self.parameters if name in names and name not in self.tensor_names
        )
        self.saves = bool(self.saved_inputs or self.saved_results)
        self.recipe = tuple(self._source(name, names) for name in self.parameters)
        self.list_name = next(
            (p.name for p in operator.schema.parameters if p.kind == "Tensor[]"), None
        )

    def _source(self, name: str, names: Sequence[str]) -> tuple[str, Any]:
        """Where the value of a parameter comes from: a kind, and an index or a name."""
        if name in self.tensor_names:
            return "saved", self.saved_inputs.index(self.tensor_names.index(name))
        if name in names:
            return "argument", name
        if name in ("needs", "layouts"):
            return name, None
        stem, digits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
        if stem in ("grad", "given"):
            return stem, int(digits or 0)
        if stem == "result":
            results = self.saved_results.index(int(digits or 0))
            return "saved", len(self.saved_inputs) + results
        stem = name.removesuffix("_layout")
        assert stem in self.tensor_names, f"unknown parameter {name} of a derivative"
        return "layout", self.tensor_names.index(stem)

    def set_conditions(self, inputs: dict[str, str]) -> None:
        names = self.tensor_names
        self.saved_when = tuple(
            (k, tuple(names.index(n) for n in inputs[names[k]].split()))
            if names[k] in inputs
            else (k, None)
            for k in self.saved_inputs
        )
        self.keeps_the_other = (
            self.saved_when == ((0, (1,)), (1, (0,))) and len(names) == 2 and not self.saved_results
        )

    def keeps(self, position: int, targets: Sequence[Any]) -> bool:
        """Whether the input at ``position`` is saved, given where gradients are wanted."""
        condition = dict(self.saved_when)[position]
        return condition is None or any(targets[k] is not None for k in condition)


class _Unneeded:
    """Stands for an input that was not saved because no wanted gradient depends on it."""

    def __repr__(self) -> str:
        return "<not saved>"


UNNEEDED = _Unneeded()


def node_name(name: str) -> str:
    """``log_softmax`` gives ``LogSoftmaxBackward0``; ``_name`` keeps no underscore."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Backward0"
