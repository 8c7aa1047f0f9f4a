"""The base of every optimizer: parameter groups, state, checkpoints and hooks.

``Optimizer.__init_subclass__`` wraps the ``step`` of each subclass once, when the class is made.
The wrapper is the one place that runs step hooks, tells schedulers that a step has happened, and
flushes the tape, so an optimizer written by a user ends its step like the ones written here.
"""

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

from flambeau.engine.flush import flush
from flambeau.engine.watch import watch
from flambeau.graph import enable_grad
from flambeau.tensor import Tensor
from flambeau.utils.hooks import RemovableHandle

__all__ = [
    "Optimizer",
    "ParamsT",
    "StateDict",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
    "required",
]

StateDict = dict[str, Any]
ParamsT = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

FUSED_DEVICES = ["mps", "cuda", "xpu", "hpu", "cpu", "mtia", "privateuseone"]
CAPTURABLE_DEVICES = ["cuda", "xpu", "hpu", "privateuseone", "xla"]


class _RequiredParameter:
    """Marks a default that every parameter group must give itself."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()

_global_optimizer_pre_hooks: OrderedDict[int, Callable] = OrderedDict()
_global_optimizer_post_hooks: OrderedDict[int, Callable] = OrderedDict()


def register_optimizer_step_pre_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every optimizer."""
    return _register(_global_optimizer_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every optimizer."""
    return _register(_global_optimizer_post_hooks, hook)


def _register(hooks: OrderedDict, hook: Callable, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def type_name(value: object) -> str:
    """The name of the type of ``value`` as it stands in PyTorch's messages."""
    if isinstance(value, Tensor):
        return value.type()
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def to_scalar(value: Any) -> Any:
    """A one-element tensor as a 0-dimensional one; anything else as it is."""
    if isinstance(value, Tensor) and value.dim() != 0:
        return value.squeeze()
    return value


def host_number(value: Any) -> float:
    """A hyperparameter as the Python float that the kernel gets; a tensor is read."""
    return float(value)


def check_fused_parameter(param: Tensor) -> None:
    """Raise PyTorch's error when ``fused=True`` meets a parameter it cannot update."""
    if param.device.type in FUSED_DEVICES and param.is_floating_point():
        return
    raise RuntimeError(
        "`fused=True` requires all the params to be floating point Tensors of "
        f"supported devices: {FUSED_DEVICES} but {param.dtype} and {param.device.type}"
    )


class Optimizer:
    """Base class: holds ``param_groups`` and the per-parameter ``state``.

    A subclass passes its parameters and its default options to ``__init__`` and defines
    ``step``.  ``state_dict`` has PyTorch's format, so checkpoints go both ways.
    """

    # Class-level values serve subclasses that never call `Optimizer.__init__` (wrappers do that).
    _optimizer_step_pre_hooks: dict[int, Callable] = {}
    _optimizer_step_post_hooks: dict[int, Callable] = {}
    _in_step_hooks = False
    # None until a scheduler watches this optimizer; then whether `step` has been called since.
    _opt_called: bool | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if callable(step) and not hasattr(step, "hooked"):
            cls.step = Optimizer.profile_hook_step(step)

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {type_name(params)}"
            )
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        for name in (
            "_optimizer_step_pre_hooks",
            "_optimizer_step_post_hooks",
            "_optimizer_state_dict_pre_hooks",
            "_optimizer_state_dict_post_hooks",
            "_optimizer_load_state_dict_pre_hooks",
            "_optimizer_load_state_dict_post_hooks",
        ):
            self.__dict__.setdefault(name, OrderedDict())

    def __getstate__(self) -> dict[str, Any]:
        return {
            "defaults": self.defaults,
            "state": self.state,
            "param_groups": self.param_groups,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_hook_tables()
        self.defaults.setdefault("differentiable", False)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            lines.extend([""] if index else [])
            lines.append(f"Parameter Group {index}")
            lines.extend(f"    {key}: {group[key]}" for key in sorted(group) if key != "params")
        return "\n".join(lines) + "\n)"

    # Stepping

    @staticmethod
    def profile_hook_step(step: Callable) -> Callable:
        """``step`` with hooks before and after it, and a flush of the tape at its end."""

        @functools.wraps(step)
        def hooked_step(*args: Any, **kwargs: Any) -> Any:
            self = args[0]
            capture = watch.capture
            if capture is not None:
                # Rates, counters and hooks are Python's: replays of a captured function call it.
                return capture.act_on(self, hooked_step, args, kwargs)
            if self._opt_called is False:
                self._opt_called = True
            if self._has_step_hooks() and not self._in_step_hooks:
                result = self._step_with_hooks(step, args, kwargs)
            else:
                result = step(*args, **kwargs)
            flush()
            return result

        hooked_step.hooked = True
        hooked_step._wrapped_by_lr_sched = True
        return hooked_step

    def _has_step_hooks(self) -> bool:
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        )

    def _step_with_hooks(self, step: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        # A subclass's step that calls super().step() is one step: its hooks run once.
        self._in_step_hooks = True
        try:
            own_pre = self._optimizer_step_pre_hooks.values()
            for hook in list(chain(_global_optimizer_pre_hooks.values(), own_pre)):
                replaced = hook(self, args, kwargs)
                if replaced is None:
                    continue
                if not (isinstance(replaced, tuple) and len(replaced) == 2):
                    raise RuntimeError(
                        f"{step} must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {replaced}."
                    )
                args, kwargs = replaced
            result = step(*args, **kwargs)
            own_post = self._optimizer_step_post_hooks.values()
            for hook in list(chain(own_post, _global_optimizer_post_hooks.values())):
                hook(self, args, kwargs)
        finally:
            self._in_step_hooks = False
        return result

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; ``closure`` reevaluates the model and returns the loss."""
        raise NotImplementedError

    def _evaluate(self, closure: Callable[[], Any] | None) -> Any:
        """The loss that ``closure`` returns, computed with gradients enabled."""
        if closure is None:
            return None
        with enable_grad():
            return closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                grad = param._grad
                if grad is None:
                    continue
                if set_to_none:
                    param._grad = None
                    continue
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                grad.zero_()

    # Parameter groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: ``{"params": tensors, option: value, …}``, completed by the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        _split_names(param_group)
        for param in param_group["params"]:
            self._check_parameter(param)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization "
                    f"parameter {name}"
                )
            param_group.setdefault(name, default)
        self._check_group(param_group)
        self.param_groups.append(param_group)

    def _check_parameter(self, param: Any) -> None:
        if not isinstance(param, Tensor):
            raise TypeError(
                f"optimizer can only optimize Tensors, but one of the params is {type_name(param)}"
            )
        differentiable = self.defaults.get("differentiable", None)
        if not differentiable and not (param.is_leaf or param.retains_grad):
            raise ValueError("can't optimize a non-leaf Tensor")

    def _check_group(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"]
        if len(params) != len(set(params)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error; see github.com/pytorch/pytorch/issues/40967 for more "
                "information",
                stacklevel=4,
            )
        known = {param for group in self.param_groups for param in group["params"]}
        if not known.isdisjoint(params):
            raise ValueError("some parameters appear in more than one parameter group")
        named = "param_names" in param_group
        if self.param_groups and named != ("param_names" in self.param_groups[0]):
            text = "with names" if named else "without names"
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{text} to the optimizer"
            )

    # Checkpoints

    def state_dict(self) -> StateDict:
        """``{"state": {index: …}, "param_groups": […]}`` with parameters named by their index."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        numbers: dict[Tensor, int] = {}
        packed_groups = []
        position = 0
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            for param in group["params"]:
                numbers.setdefault(param, position)
                position += 1
            packed["params"] = [numbers[param] for param in group["params"]]
            packed_groups.append(packed)
        packed_state = {
            numbers[key] if isinstance(key, Tensor) else key: value
            for key, value in self.state.items()
        }
        result: StateDict = {"state": packed_state, "param_groups": packed_groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            replaced = hook(self, result)
            if replaced is not None:
                result = replaced
        return result

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take over what ``state_dict`` returned; tensors get each parameter's dtype and device."""
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            if replaced is not None:
                state_dict = replaced
        loaded_groups = deepcopy(state_dict["param_groups"])
        owners = self._match_parameters(loaded_groups)
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in owners:
                param, loaded_group = owners[key]
                state[param] = _adopt(param, value, None, loaded_group)
            else:
                state[key] = value
        for group, loaded in zip(self.param_groups, loaded_groups, strict=True):
            loaded["params"] = group["params"]
            if "param_names" in group:
                loaded.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": loaded_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _match_parameters(
        self, loaded_groups: list[dict[str, Any]]
    ) -> dict[Any, tuple[Tensor, dict[str, Any]]]:
        """From each saved number to the parameter it stands for and its saved group."""
        if len(self.param_groups) != len(loaded_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        owners = {}
        for group, loaded in zip(self.param_groups, loaded_groups, strict=True):
            if len(group["params"]) != len(loaded["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
            for param, number in zip(group["params"], loaded["params"], strict=True):
                owners[number] = (param, loaded)
        return owners

    # Hooks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may replace both."""
        return _register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return _register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` before ``state_dict``."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after ``state_dict``; it may return another."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; it may return another."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def _split_names(param_group: dict[str, Any]) -> None:
    """Settle ``params`` as a list of tensors, and ``param_names`` where names were given."""
    params = param_group["params"]
    if isinstance(params, Tensor):
        params = [params]
    elif isinstance(params, set):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering "
            "of tensors in sets will change between runs. Please use a list instead."
        )
    entries = list(params)
    names = [entry[0] for entry in entries if isinstance(entry, tuple)]
    if names and len(names) != len(entries):
        raise ValueError(
            "all optimizer params should be with/without names. Some param names are missing"
        )
    if names:
        param_group["params"] = [entry[1] for entry in entries]
        param_group["param_names"] = names
    else:
        param_group["params"] = entries


def _adopt(param: Tensor, value: Any, key: Any, loaded_group: dict[str, Any]) -> Any:
    """A loaded state value for ``param``: containers rebuilt, tensors cast and moved."""
    if isinstance(value, Tensor):
        if key == "step":
            # A step counter keeps its place unless the device itself is to count.
            if loaded_group.get("capturable") or loaded_group.get("fused"):
                return value.to(dtype=param.new_empty(0).float().dtype, device=param.device)
            return value
        if param.is_floating_point():
            return value.to(dtype=param.dtype, device=param.device)
        return value.to(device=param.device)
    if isinstance(value, dict):
        return {name: _adopt(param, item, name, loaded_group) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return type(value)(_adopt(param, item, None, loaded_group) for item in value)
    return value
