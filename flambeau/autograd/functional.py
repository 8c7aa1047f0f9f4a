"""``torch.autograd.functional``: Jacobians, Hessians and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.engine import grad
from flambeau.graph import enable_grad
from flambeau.ops.creation import filled, ones_like
from flambeau.ops.joining import stack
from flambeau.ops.view import detach, expand, reshape, select, view_as_is
from flambeau.tensor import Tensor

Tensors = Tensor | tuple[Tensor, ...]


def _as_tuple(value: Any, what: str, function: str) -> tuple[Tensor, ...]:
    values = value if isinstance(value, tuple) else (value,)
    for k, entry in enumerate(values):
        if not isinstance(entry, Tensor):
            where = f"Value at index {k} of the {what}" if isinstance(value, tuple) else ""
            raise TypeError(
                f"The {what} given to {function} must be either a Tensor or a tuple of Tensors "
                f"but the given {where or what} has type {type(entry)}."
            )
    return values


def _fresh(inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """The inputs as starting points: views in the graph, or leaves of a graph of their own."""
    if create_graph:
        return tuple(view_as_is(t) for t in inputs)
    return tuple(detach(t).requires_grad_() for t in inputs)


def _finished(values: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    return tuple(values) if create_graph else tuple(detach(t) for t in values)


def _gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor | None],
    create_graph: bool,
    strict: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients, zeros where an output does not depend on an input."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    found: Sequence[Tensor | None] = (None,) * len(inputs)
    if pairs:
        found = grad(
            [o for o, _ in pairs], inputs, [v for _, v in pairs],
            retain_graph=True, create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
    if strict and any(g is None for g in found):
        raise RuntimeError("The output of the user-provided function is independent of an input.")
    return tuple(
        filled(t._layout.contiguous(), 0) if g is None else g
        for g, t in zip(found, inputs, strict=True)
    )


def _like(given: Any, tensors: Sequence[Tensor]) -> Any:
    return tuple(tensors) if isinstance(given, tuple) else tensors[0]


def vjp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The function's value, and the product of ``v`` with its Jacobian."""
    with enable_grad():
        starts = _fresh(_as_tuple(inputs, "inputs", "vjp"), create_graph)
        returned = func(*starts)
        outputs = _as_tuple(returned, "outputs of the user-provided function", "vjp")
        if v is None:
            if len(outputs) != 1 or outputs[0].numel() != 1:
                raise RuntimeError(
                    "The vector v can only be None if the user-provided function returns a single "
                    "Tensor with a single element."
                )
            v = ones_like(outputs[0])
        vectors = _as_tuple(v, "v", "vjp")
        found = _gradients(outputs, starts, vectors, create_graph, strict)
    value = _like(returned, _finished(outputs, create_graph))
    return value, _like(inputs, _finished(found, create_graph))


def _one(output: Tensor, position: int) -> Tensor:
    return select(reshape(output, (output.numel(),)), 0, position)


def jacobian(
    func: Callable[..., Any],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: for each output and input a tensor of shape ``output.shape + input.shape``."""
    with enable_grad():
        starts = _fresh(_as_tuple(inputs, "inputs", "jacobian"), create_graph)
        returned = func(*starts)
        outputs = _as_tuple(returned, "outputs of the user-provided function", "jacobian")
        rows = [_jacobian_of(o, starts, create_graph, strict) for o in outputs]
    finished = [_like(inputs, _finished(row, create_graph)) for row in rows]
    return tuple(finished) if isinstance(returned, tuple) else finished[0]


def _jacobian_of(
    output: Tensor, inputs: Sequence[Tensor], create_graph: bool, strict: bool
) -> list[Tensor]:
    shapes = [(*output.shape, *t.shape) for t in inputs]
    count = output.numel()
    if not count:
        zero = filled(output._layout.view((), (), 0), 0)
        return [expand(zero, shape) for shape in shapes]
    rows = [
        _gradients([_one(output, k)], inputs, [None], create_graph, strict) for k in range(count)
    ]
    return [reshape(stack([row[k] for row in rows], 0), shape) for k, shape in enumerate(shapes)]


def hessian(
    func: Callable[..., Any],
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a scalar function: a tensor per pair of inputs."""

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        value = func(*arguments)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise RuntimeError(
                "The Tensor returned by the function given to hessian should contain a single "
                "element"
            )
        return _gradients((value,), arguments, (ones_like(value),), True, strict)

    found = jacobian(gradient, _as_tuple(inputs, "inputs", "hessian"), create_graph)
    return found if isinstance(inputs, tuple) else found[0][0]


def vhp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The value of a scalar function, and the product of ``v`` with its Hessian."""
    with enable_grad():
        starts = _fresh(_as_tuple(inputs, "inputs", "vhp"), create_graph)
        value = func(*starts)
        first = _gradients((value,), starts, (ones_like(value),), True, strict)
        vectors = tuple(map(ones_like, starts)) if v is None else _as_tuple(v, "v", "vhp")
        found = _gradients(first, starts, vectors, create_graph, strict)
    finished = _like(inputs, _finished(found, create_graph))
    return _finished((value,), create_graph)[0], finished


# A Hessian is symmetric, so products from either side agree.
hvp = vhp

__all__ = ["hessian", "hvp", "jacobian", "vhp", "vjp"]
