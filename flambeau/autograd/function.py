"""``torch.autograd.Function``: operators that users write, with their own backward."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.engine import alias
from flambeau.graph import Node, SavedResult, grad_mode, no_grad
from flambeau.ops import view
from flambeau.ops.call import check_inplace, rebase
from flambeau.ops.creation import filled
from flambeau.ops.derivative import FREED, check_version
from flambeau.tensor import Tensor


class FunctionCtx:
    """What ``forward`` leaves for ``backward``."""

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()
        self._saved: tuple[Any, ...] | None = ()
        self._saved_versions: tuple[int, ...] = ()
        self._node: Node | None = None
        self._dirty: tuple[Tensor, ...] = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._materialize = True
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors for ``backward``, checked there for in-place changes."""
        for position, value in enumerate(tensors):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {position} is of "
                    f"type {type(value).__name__}"
                )
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Accepted; there is no forward-mode differentiation."""

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs were changed in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which outputs take part in no graph."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """With False, missing output gradients arrive as None instead of zeros."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that :meth:`save_for_backward` kept."""
        if self._saved is None:
            raise RuntimeError(FREED)
        node = self._node
        result: list[Any] = []
        for value, version in zip(self._saved, self._saved_versions, strict=True):
            if isinstance(value, SavedResult):
                tensor = Tensor._from_storage(value.storage, value.layout)
                assert node is not None
                check_version(value.storage.version, version, value.layout, node, None)
                tensor._grad_fn, tensor._output_nr = node, value.output_nr
                tensor._requires_grad = True
                result.append(tensor)
            else:
                if value is not None and node is not None:
                    check_version(value._storage.version, version, value._layout, node, value)
                result.append(value)
        return tuple(result)

    saved_variables = saved_tensors


class _UserNode(Node):
    """A node whose further attributes are those of the function's context."""

    __slots__ = ("context",)
    context: FunctionCtx

    def __getattr__(self, name: str) -> Any:
        if name == "context":
            raise AttributeError(name)
        return getattr(self.context, name)

    def __repr__(self) -> str:
        kind = type(self)
        return f"<{kind.__module__}.{kind.__name__} object at 0x{id(self):x}>"


@functools.cache
def _node_class(function: type[Function]) -> type[_UserNode]:
    """The class of a function's nodes: ``SquareBackward`` for ``Square``."""
    described = {"__slots__": (), "__module__": "torch.autograd.function"}
    return type(f"{function.__name__}Backward", (_UserNode,), described)


class _UserOperator:
    """Stands for a user's function in its nodes."""

    def __init__(self, function: type[Function], ctx: FunctionCtx) -> None:
        self.name = function.__name__
        self.node_name = f"{function.__name__}Backward"
        self.function = function
        self.ctx = ctx

    def backward(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        ctx = self.ctx
        if node.saved is None:
            ctx._saved = None
        given = [
            filled(layout.contiguous(), 0) if g is None and ctx._materialize else g
            for g, layout in zip(grads, node.output_layouts, strict=True)
        ]
        returned = self._rule()(ctx, *given)
        results = returned if isinstance(returned, tuple) else (returned,)
        positions = node.arguments["positions"]
        count = node.arguments["inputs"]
        if len(results) > count and any(r is not None for r in results[count:]):
            raise RuntimeError(
                f"function {self.node_name} returned an incorrect number of gradients (expected "
                f"{count}, got {len(results)})"
            )
        if len(results) < count:
            raise RuntimeError(
                f"function {self.node_name} returned an incorrect number of gradients (expected "
                f"{count}, got {len(results)})"
            )
        wanted = [results[k] for k in positions]
        for k, gradient in enumerate(wanted):
            if gradient is not None and not isinstance(gradient, Tensor):
                raise RuntimeError(f"expected Variable or None (got {type(gradient).__name__})")
            self._check_shape(node, k, gradient)
        return [None if g is None else g if g._requires_grad else alias(g) for g in wanted]

    def _rule(self) -> Callable[..., Any]:
        function = self.function
        written = function.vjp is not Function.vjp
        if written and function.backward is not Function.backward:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You "
                "should only implement one of them."
            )
        return function.vjp if written else function.backward

    def _check_shape(self, node: Node, k: int, gradient: Tensor | None) -> None:
        layout = node.layouts[k]
        if gradient is None or layout is None or gradient.shape == layout.shape:
            return
        lead = gradient.ndim - layout.ndim
        fits = lead >= 0 and all(
            n in (1, m) for n, m in zip(layout.shape, gradient.shape[lead:], strict=True)
        )
        if not fits:
            raise RuntimeError(
                f"Function {self.node_name} returned an invalid gradient at index {k} - got "
                f"{list(gradient.shape)} but expected shape compatible with {list(layout.shape)}"
            )


class Function:
    """Base of user-defined differentiable functions.

    Define static methods ``forward(ctx, *inputs)`` (or ``forward(*inputs)`` with
    ``setup_context(ctx, inputs, output)``) and ``backward(ctx, *grad_outputs)``, and call
    ``MyFunction.apply(*inputs)``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all "
            "static, so you should invoke them on the class itself. Instantiating an autograd "
            "function will raise an error in a future version of PyTorch.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use "
            "new-style autograd function with static forward method. (Example: "
            "https://pytorch.org/docs/stable/autograd.html#torch.autograd.Function)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves what backward needs, where ``forward`` takes no context."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Returns one gradient per input of ``forward``."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @staticmethod
    def vjp(ctx: Any, *grad_outputs: Any) -> Any:
        """Another name for :meth:`backward`."""
        raise NotImplementedError("vjp is not implemented.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` and records the node."""
        ctx = FunctionCtx()
        tensors = [(k, a) for k, a in enumerate(args) if isinstance(a, Tensor)]
        graph = grad_mode.enabled and any(t.requires_grad for _, t in tensors)
        ctx.needs_input_grad = tuple(
            graph and isinstance(a, Tensor) and a.requires_grad for a in args
        )
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                output = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, output)
            else:
                output = cls.forward(ctx, *args, **kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        outputs = _own_outputs(outputs, [t for _, t in tensors], ctx)
        if graph:
            _attach(cls, ctx, tensors, outputs, len(args))
        return outputs if isinstance(output, tuple) else outputs[0]


def _own_outputs(
    outputs: tuple[Any, ...], inputs: list[Tensor], ctx: FunctionCtx
) -> tuple[Any, ...]:
    """Inputs that are returned as they are become views, so that each output is its own tensor."""
    dirty = {id(t) for t in ctx._dirty}
    given = {id(t) for t in inputs}
    return tuple(
        view.view_as_is(o) if id(o) in given and id(o) not in dirty else o for o in outputs
    )


def _attach(
    cls: type[Function],
    ctx: FunctionCtx,
    tensors: list[tuple[int, Tensor]],
    outputs: tuple[Any, ...],
    count: int,
) -> None:
    silent = {id(t) for t in ctx._non_differentiable}
    results = [o for o in outputs if isinstance(o, Tensor)]
    targets: list[Any] = []
    numbers = []
    for _, t in tensors:
        targets.append((t.grad_fn or t) if t.requires_grad else None)
        numbers.append(t._output_nr)
    node = _node_class(cls)(
        _UserOperator(cls, ctx),
        targets,
        numbers,
        [t._layout for _, t in tensors],
        [o._layout for o in results],
        (),
        (),
        {"positions": [k for k, _ in tensors], "inputs": count},
    )
    node.context = ctx
    ctx._node = node
    dirty = {id(t) for t in ctx._dirty}
    for number, result in enumerate(results):
        if id(result) in silent or result.dtype.category not in ("floating", "complex"):
            continue
        if id(result) in dirty:
            if result.requires_grad and result.is_leaf:
                raise RuntimeError(
                    "a leaf Variable that requires grad has been used in an in-place operation."
                )
            check_inplace(result, (result,))
            rebase(result, node)
            continue
        result._grad_fn, result._output_nr, result._requires_grad = node, number, True
        result._base = None
    positions = {id(r): k for k, r in enumerate(results)}
    ctx._saved = tuple(
        SavedResult(t._storage, t._layout, positions[id(t)]) if id(t) in positions else t
        for t in ctx._to_save
    )
    ctx._saved_versions = tuple(-1 if t is None else t._storage.version for t in ctx._to_save)
    ctx._to_save = ()


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a ``backward`` that cannot itself be differentiated."""

    @functools.wraps(function)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with no_grad():
            return function(ctx, *args)

    return wrapper


class InplaceFunction(Function):
    """PyTorch's old base of functions with an ``inplace`` flag."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace


def traceable(cls: type[Function]) -> type[Function]:
    """PyTorch's old marker; changes nothing."""
    warnings.warn("traceable is deprecated", FutureWarning, stacklevel=2)
    return cls
