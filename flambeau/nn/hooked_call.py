"""The call of a module that has hooks. Calls without hooks never come here."""

from __future__ import annotations

import warnings
from typing import Any

from flambeau.nn.backward_hooks import BackwardHook, warn_of_partial_gradients
from flambeau.nn.hook_registry import Hook, ModuleHook, global_hooks
from flambeau.tensor import Tensor


class HookedCall:
    """One call: what hooks may replace (arguments, result) and which of them have run."""

    __slots__ = ("module", "args", "kwargs", "result", "ran_always_called")

    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module = module
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.ran_always_called: set[int] = set()

    def run(self) -> Any:
        """Pre-hooks, forward, hooks; hooks with ``always_call`` run even if those raise."""
        try:
            return self._run()
        except Exception:
            self._run_always_called()
            raise

    def _run(self) -> Any:
        module = self.module
        full, non_full = _backward_hooks(module)
        pre = [*global_hooks.backward_pre.values(), *module._backward_pre_hooks.values()]
        self._run_forward_pre_hooks()
        backward = None
        if full or pre:
            backward = BackwardHook(module, full, pre)
            self.args = backward.setup_input_hook(self.args)
        self.result = module.forward(*self.args, **self.kwargs)
        self._run_forward_hooks()
        if backward is not None:
            self._check_result_for_backward()
            self.result = backward.setup_output_hook(self.result)
        if non_full:
            self._attach_to_grad_fn(non_full)
        return self.result

    def _run_forward_pre_hooks(self) -> None:
        module = self.module
        for hook in list(global_hooks.forward_pre.values()):
            self._replace_args(hook(module, self.args))
        for key, hook in list(module._forward_pre_hooks.items()):
            if key in module._forward_pre_hooks_with_kwargs:
                self._replace_args_and_kwargs(hook(module, self.args, self.kwargs))
            else:
                self._replace_args(hook(module, self.args))

    def _replace_args(self, replaced: Any) -> None:
        if replaced is not None:
            self.args = replaced if isinstance(replaced, tuple) else (replaced,)

    def _replace_args_and_kwargs(self, replaced: Any) -> None:
        if replaced is None:
            return
        if not isinstance(replaced, tuple) or len(replaced) != 2:
            raise RuntimeError(
                "forward pre-hook must return None or a tuple "
                f"of (new_args, new_kwargs), but got {replaced}."
            )
        self.args, self.kwargs = replaced

    def _run_forward_hooks(self) -> None:
        for key, hook in list(global_hooks.forward.items()):
            if key in global_hooks.forward_always_called:
                self.ran_always_called.add(key)
            self._run_forward_hook(hook, key in global_hooks.forward_with_kwargs)
        for key, hook in list(self.module._forward_hooks.items()):
            if key in self.module._forward_hooks_always_called:
                self.ran_always_called.add(key)
            self._run_forward_hook(hook, key in self.module._forward_hooks_with_kwargs)

    def _run_forward_hook(self, hook: Hook, with_kwargs: bool) -> None:
        if with_kwargs:
            replaced = hook(self.module, self.args, self.kwargs, self.result)
        else:
            replaced = hook(self.module, self.args, self.result)
        if replaced is not None:
            self.result = replaced

    def _check_result_for_backward(self) -> None:
        if not isinstance(self.result, (Tensor, tuple)):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple "
                f"of Tensors but received {type(self.result)}",
                stacklevel=5,
            )

    def _attach_to_grad_fn(self, hooks: list[Hook]) -> None:
        """Old-style backward hooks sit on the node of the first tensor of the result."""
        grad_fn = _first_tensor(self.result).grad_fn
        if grad_fn is None:
            return
        for hook in hooks:
            grad_fn.register_hook(ModuleHook(hook, self.module))
        warn_of_partial_gradients(self.args, self.result, grad_fn)

    def _run_always_called(self) -> None:
        """After an error: the ``always_call`` hooks that have not run; theirs are warnings."""
        module = self.module
        for key in global_hooks.forward_always_called:
            hook = global_hooks.forward.get(key)
            if hook is not None and key not in self.ran_always_called:
                with_kwargs = key in global_hooks.forward_with_kwargs
                self._run_after_error(hook, with_kwargs, "global module forward hook")
        for key in module._forward_hooks_always_called:
            hook = module._forward_hooks.get(key)
            if hook is not None and key not in self.ran_always_called:
                with_kwargs = key in module._forward_hooks_with_kwargs
                self._run_after_error(hook, with_kwargs, "module forward hook")

    def _run_after_error(self, hook: Hook, with_kwargs: bool, kind: str) -> None:
        try:
            self._run_forward_hook(hook, with_kwargs)
        except Exception as error:
            warnings.warn(
                f"{kind} with ``always_call=True`` raised an exception "
                f"that was silenced as another error was raised in forward: {error}",
                stacklevel=5,
            )


def _backward_hooks(module: Any) -> tuple[list[Hook], list[Hook]]:
    """The full and the old-style backward hooks of ``module``, global ones first."""
    by_kind: dict[bool, list[Hook]] = {True: [], False: []}
    if global_hooks.backward:
        by_kind[bool(global_hooks.is_full_backward)] += global_hooks.backward.values()
    if module._backward_hooks:
        by_kind[bool(module._is_full_backward_hook)] += module._backward_hooks.values()
    return by_kind[True], by_kind[False]


def _first_tensor(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        if isinstance(value, dict):
            value = next(item for item in value.values() if isinstance(item, Tensor))
        else:
            value = value[0]
    return value
