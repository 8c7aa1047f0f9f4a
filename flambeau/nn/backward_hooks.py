"""Backward hooks of a module: identity nodes around its inputs and outputs catch the gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.function import Function
from flambeau.graph import is_grad_enabled
from flambeau.nn.hook_registry import Hook
from flambeau.tensor import Tensor


class BackwardHookFunction(Function):
    """Identity over several tensors: one node that sees all their gradients at once."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads


class BackwardHook:
    """The backward hooks of one call of a module.

    ``setup_input_hook`` and ``setup_output_hook`` route the tensors through identity nodes.
    In backward the output node comes first: it runs the pre-hooks and keeps the gradients;
    the input node then has both sides and runs the hooks.
    """

    def __init__(self, module: Any, user_hooks: Sequence[Hook], user_pre_hooks: Sequence[Hook]):
        self.module = module
        self.user_hooks = user_hooks
        self.user_pre_hooks = user_pre_hooks
        self.grad_outputs: tuple[Any, ...] | None = None
        self.n_inputs = -1
        self.n_outputs = -1
        self.input_tensors_index: list[int] | None = None
        self.output_tensors_index: list[int] | None = None

    def setup_input_hook(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns ``args`` with its tensors behind the input node."""
        routed, self.input_tensors_index = _route(args, self._at_inputs)
        self.n_inputs = len(args)
        return routed

    def setup_output_hook(self, result: Any) -> Any:
        """Returns ``result`` with its tensors behind the output node."""
        outputs = result if isinstance(result, tuple) else (result,)
        routed, self.output_tensors_index = _route(outputs, self._at_outputs)
        self.n_outputs = len(outputs)
        return routed if isinstance(result, tuple) else routed[0]

    def _at_outputs(self, _: Any, grad_output: Sequence[Any]) -> tuple[Any, ...]:
        grads = _spread(self.output_tensors_index, grad_output, self.n_outputs)
        for hook in self.user_pre_hooks:
            replaced = hook(self.module, grads)
            if replaced is None:
                continue
            if len(replaced) != len(grads):
                raise RuntimeError(
                    "Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(replaced)}, but expected {len(grads)}"
                )
            grads = replaced
        self.grad_outputs = grads
        if self.input_tensors_index is None:
            self._run_without_inputs(grads)
        return tuple(grads[i] for i in self.output_tensors_index)

    def _run_without_inputs(self, grad_outputs: tuple[Any, ...]) -> None:
        """No input requires a gradient, so no input node will come: run the hooks now."""
        self.grad_outputs = None
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module "
            "outputs since no inputs require gradients. See "
            "https://docs.pytorch.org/docs/main/generated/torch.nn.Module.html"
            "#torch.nn.Module.register_full_backward_hook for more details.",
            stacklevel=5,
        )
        for hook in self.user_hooks:
            replaced = hook(self.module, (None,) * self.n_inputs, grad_outputs)
            none_at_all = isinstance(replaced, tuple) and all(grad is None for grad in replaced)
            if replaced is not None and not none_at_all:
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always "
                    "return None or None for all gradients."
                )

    def _at_inputs(self, grad_input: Sequence[Any], _: Any) -> tuple[Any, ...] | None:
        if self.grad_outputs is None:
            # The gradient reached the inputs without passing the outputs (double backward).
            return None
        grads = _spread(self.input_tensors_index, grad_input, self.n_inputs)
        for hook in self.user_hooks:
            replaced = hook(self.module, grads, self.grad_outputs)
            if replaced is None:
                continue
            if len(replaced) != len(grads):
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(replaced)}, but expected {len(grads)}"
                )
            grads = replaced
        self.grad_outputs = None
        return tuple(grads[i] for i in self.input_tensors_index)


def _spread(indices: Sequence[int], values: Sequence[Any], size: int) -> tuple[Any, ...]:
    """Places ``values`` at ``indices`` of a tuple of ``size``, None elsewhere."""
    placed: list[Any] = [None] * size
    for index, value in zip(indices, values):
        placed[index] = value
    return tuple(placed)


def _route(
    values: tuple[Any, ...], hook: Callable[..., Any]
) -> tuple[tuple[Any, ...], list[int] | None]:
    """Puts the tensors among ``values`` behind one identity node that calls ``hook``.

    Returns the values and the positions of the tensors; None where nothing needs a gradient.
    """
    indices = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    tensors = [values[i] for i in indices]
    if not (is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return values, None
    behind = BackwardHookFunction.apply(*tensors)
    node = next(tensor.grad_fn for tensor in behind if tensor.grad_fn is not None)
    node.register_hook(hook)
    routed = list(values)
    for index, tensor in zip(indices, behind):
        routed[index] = tensor
    if type(values) is tuple:
        return tuple(routed), indices
    return type(values)(*routed), indices


def warn_of_partial_gradients(args: Any, result: Any, grad_fn: Any) -> None:
    """Warns where an old-style backward hook cannot see all gradients of a module's call."""
    reason = _partial_reason(args, result, grad_fn)
    if reason is not None:
        warnings.warn(reason, FutureWarning, stacklevel=5)


_FULL_HOOK_ADVICE = "Please use register_full_backward_hook to get the documented behavior."


def _partial_reason(args: Any, result: Any, grad_fn: Any) -> str | None:
    outputs = _as_tensors(result)
    if outputs is None:
        return (
            "Using non-full backward hooks on a Module that does not return a "
            "single Tensor or a tuple of Tensors is deprecated and will be removed "
            "in future versions. This hook will be missing some of the grad_output. "
        ) + _FULL_HOOK_ADVICE
    inputs = _as_tensors(args)
    if inputs is None:
        return (
            "Using non-full backward hooks on a Module that does not take as input a "
            "single Tensor or a tuple of Tensors is deprecated and will be removed "
            "in future versions. This hook will be missing some of the grad_input. "
        ) + _FULL_HOOK_ADVICE
    output_nodes = {tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None}
    if len(output_nodes) > 1:
        return (
            "Using a non-full backward hook when outputs are generated by different autograd "
            "Nodes is deprecated and will be removed in future versions. This hook will be "
            "missing some grad_output. "
        ) + _FULL_HOOK_ADVICE
    if grad_fn not in output_nodes:
        return (
            "Using a non-full backward hook when outputs are nested in python data structure "
            "is deprecated and will be removed in future versions. This hook will be missing "
            "some grad_output."
        )
    input_nodes = {tensor.grad_fn for tensor in inputs if tensor.grad_fn is not None}
    if input_nodes != {edge[0] for edge in grad_fn.next_functions}:
        return (
            "Using a non-full backward hook when the forward contains multiple autograd Nodes "
            "is deprecated and will be removed in future versions. This hook will be missing "
            "some grad_input. "
        ) + _FULL_HOOK_ADVICE
    return None


def _as_tensors(value: Any) -> tuple[Tensor, ...] | None:
    """``value`` as a tuple of tensors, None where it holds anything else."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, tuple) and all(isinstance(item, Tensor) for item in value):
        return value
    return None
