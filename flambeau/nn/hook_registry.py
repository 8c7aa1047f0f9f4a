"""Where hooks of modules are kept, and the hooks that hold for every module."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.utils.hooks import RemovableHandle

Hook = Callable[..., Any]


class HookState:
    """Whether any module of this process has ever had a hook that a call must look for."""

    __slots__ = ("installed",)

    def __init__(self) -> None:
        self.installed = False


# Read by every Module.__call__: one flag instead of eight dictionaries.
hook_state = HookState()


class HookDict(OrderedDict):
    """Hooks by handle id, in order of calling. The first entry anywhere raises the flag.

    Pickles as a plain OrderedDict, so that files stay readable elsewhere.
    """

    def __setitem__(self, key: int, hook: Hook) -> None:
        hook_state.installed = True
        super().__setitem__(key, hook)

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items())

    def __deepcopy__(self, memo: dict[int, Any]) -> HookDict:
        copied = HookDict()
        memo[id(self)] = copied
        for key, hook in self.items():
            copied[key] = copy.deepcopy(hook, memo)
        return copied


class ModuleHook:
    """A hook with its module bound in front, held weakly so that no cycle keeps it alive."""

    def __init__(self, hook: Hook, module: Any = None) -> None:
        self.hook = hook
        self.with_module = module is not None
        self.module = weakref.ref(module) if self.with_module else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.with_module:
            return self.hook(*args, **kwargs)
        module = self.module()
        if module is None:
            raise RuntimeError("You are trying to call the hook of a dead Module!")
        return self.hook(module, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = {"hook": self.hook, "with_module": self.with_module}
        if self.with_module:
            state["module"] = self.module()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.hook = state["hook"]
        self.with_module = state["with_module"]
        self.module = None
        if not self.with_module:
            return
        if state["module"] is None:
            raise RuntimeError("You are trying to revive the hook of a dead Module!")
        self.module = weakref.ref(state["module"])


class GlobalHooks:
    """The hooks that hold for every module of the process."""

    def __init__(self) -> None:
        self.forward = HookDict()
        self.forward_with_kwargs = OrderedDict()
        self.forward_always_called = OrderedDict()
        self.forward_pre = HookDict()
        self.backward = HookDict()
        self.backward_pre = HookDict()
        # None until a backward hook is registered, then the kind that all of them have.
        self.is_full_backward: bool | None = None
        self.buffer_registration = OrderedDict()
        self.module_registration = OrderedDict()
        self.parameter_registration = OrderedDict()

    def affect_calls(self) -> bool:
        """Whether a call of any module has a global hook to run."""
        return bool(self.forward or self.forward_pre or self.backward or self.backward_pre)


global_hooks = GlobalHooks()


def register(hooks: OrderedDict, hook: Hook, *marks: OrderedDict) -> RemovableHandle:
    """Adds ``hook`` to ``hooks`` and its id to each of ``marks``; returns the handle."""
    handle = RemovableHandle(hooks, extra_dict=list(marks))
    hooks[handle.id] = hook
    for mark in marks:
        mark[handle.id] = True
    return handle


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, buffer)`` runs at every ``register_buffer`` and may replace it."""
    return register(global_hooks.buffer_registration, hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, submodule)`` runs at every registration of a submodule."""
    return register(global_hooks.module_registration, hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, param)`` runs at every ``register_parameter`` and may replace it."""
    return register(global_hooks.parameter_registration, hook)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, args)`` runs before the forward of every module."""
    return register(global_hooks.forward_pre, hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """``hook(module, args, output)`` runs after the forward of every module."""
    marks = []
    if with_kwargs:
        marks.append(global_hooks.forward_with_kwargs)
    if always_call:
        marks.append(global_hooks.forward_always_called)
    return register(global_hooks.forward, hook, *marks)


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """The old, incomplete form of :func:`register_module_full_backward_hook`."""
    return _register_global_backward(hook, full=False)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, grad_input, grad_output)`` runs in the backward of every module."""
    return _register_global_backward(hook, full=True)


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, grad_output)`` runs before the backward of every module."""
    return register(global_hooks.backward_pre, hook)


def _register_global_backward(hook: Hook, full: bool) -> RemovableHandle:
    if global_hooks.is_full_backward is (not full):
        raise RuntimeError(
            "Cannot use both regular backward hooks and full backward hooks as a "
            "global Module hook. Please use only one of them."
        )
    global_hooks.is_full_backward = full
    return register(global_hooks.backward, hook)
