"""The state of a module as a dictionary: written by ``state_dict``, read back with all checks."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flambeau.graph import no_grad
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

EXTRA_STATE_KEY_SUFFIX = "_extra_state"


class IncompatibleKeys(namedtuple("_IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` returns."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        keys = f"missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys}"
        return f"_IncompatibleKeys({keys})"

    __str__ = __repr__


@dataclass
class Findings:
    """What loading a state dictionary has found wrong so far."""

    missing_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)
    error_msgs: list[str] = field(default_factory=list)

    def messages(self, strict: bool) -> list[str]:
        """The lines of the error, most important first; none when the state fits."""
        lines = list(self.error_msgs)
        if strict and self.unexpected_keys:
            lines.insert(0, f"Unexpected key(s) in state_dict: {_quoted(self.unexpected_keys)}. ")
        if strict and self.missing_keys:
            lines.insert(0, f"Missing key(s) in state_dict: {_quoted(self.missing_keys)}. ")
        return lines


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def overrides(module: Any, method: str, base: type) -> bool:
    """Whether the class of ``module`` has a ``method`` of its own."""
    return getattr(type(module), method, None) is not getattr(base, method)


def own_state(module: Any) -> dict[str, Tensor]:
    """The parameters and persistent buffers of ``module`` itself, by name."""
    state = {name: value for name, value in module._parameters.items() if value is not None}
    for name, value in module._buffers.items():
        if value is not None and name not in module._non_persistent_buffers_set:
            state[name] = value
    return state


def save_state(module: Any, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """Writes the state of ``module`` and of all below it, running the hooks of each."""
    metadata = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = metadata
    for hook in module._state_dict_pre_hooks.values():
        hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            child.state_dict(destination=destination, prefix=below, keep_vars=keep_vars)
    for hook in module._state_dict_hooks.values():
        replaced = hook(module, destination, prefix, metadata)
        if replaced is None:
            continue
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("state_dict post-hook must return None")
        destination = replaced
    return destination


def load_state(module: Any, given: Mapping[str, Any], strict: bool, assign: bool) -> Any:
    """Loads ``given`` into ``module`` and all below it; raises once, naming every problem."""
    metadata = getattr(given, "_metadata", None)
    state_dict = OrderedDict(given)
    if metadata is not None:
        state_dict._metadata = metadata
    findings = Findings()
    _load_tree(module, state_dict, "", metadata or {}, assign, findings)
    messages = findings.messages(strict)
    if messages:
        raise RuntimeError(
            f"Error(s) in loading state_dict for {type(module).__name__}:\n\t"
            + "\n\t".join(messages)
        )
    return IncompatibleKeys(findings.missing_keys, findings.unexpected_keys)


def _load_tree(
    module: Any,
    state_dict: Any,
    prefix: str,
    metadata: Mapping[str, Any],
    assign: bool,
    findings: Findings,
) -> None:
    local_metadata = metadata.get(prefix[:-1], {})
    if assign:
        local_metadata["assign_to_params_buffers"] = True
    module._load_from_state_dict(
        state_dict,
        prefix,
        local_metadata,
        True,
        findings.missing_keys,
        findings.unexpected_keys,
        findings.error_msgs,
    )
    for name, child in module._modules.items():
        if child is not None:
            below = f"{prefix}{name}."
            part = {key: value for key, value in state_dict.items() if key.startswith(below)}
            _load_tree(child, part, below, metadata, assign, findings)
    incompatible = IncompatibleKeys(findings.missing_keys, findings.unexpected_keys)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, incompatible) is not None:
            raise AssertionError(
                "Hooks registered with ``register_load_state_dict_post_hook`` are not "
                "expected to return new values, if incompatible_keys need to be modified, "
                "it should be done inplace."
            )


def load_own(
    module: Any,
    state_dict: Any,
    prefix: str,
    assign: bool,
    missing_keys: list[str] | None,
    error_msgs: list[str],
) -> None:
    """Loads the entries of ``module`` itself. ``missing_keys`` is None where not wanted."""
    for name, current in own_state(module).items():
        key = prefix + name
        if key in state_dict:
            problem = _load_entry(module, name, current, key, state_dict[key], assign)
            if problem is not None:
                error_msgs.append(problem)
        elif missing_keys is not None:
            missing_keys.append(key)


def _load_entry(
    module: Any, name: str, current: Tensor, key: str, value: Any, assign: bool
) -> str | None:
    """Copies or assigns one entry; returns what is wrong with it, if anything."""
    if not isinstance(value, Tensor) and not hasattr(type(value), "__torch_function__"):
        return (
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
            f"object from checkpoint but received {type(value)}"
        )
    if len(current.shape) == 0 and tuple(value.shape) == (1,):
        # Files from before 0-dimensional tensors existed.
        value = value[0]
    if value.shape != current.shape:
        return (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {current.shape}."
        )
    if current.is_meta and not value.is_meta and not assign:
        warnings.warn(
            f"for {key}: copying from a non-meta parameter in the checkpoint to a meta "
            "parameter in the current model, which is a no-op. (Did you mean to "
            "pass `assign=True` to assign items in the state dictionary to their "
            "corresponding key in the module instead of copying them in place?)",
            stacklevel=6,
        )
    try:
        with no_grad():
            if assign:
                setattr(module, name, _assignable(value, current))
            else:
                current.copy_(value)
    except Exception as error:
        return (
            f'While copying the parameter named "{key}", '
            f"whose dimensions in the model are {current.size()} and "
            f"whose dimensions in the checkpoint are {value.size()}, "
            f"an exception occurred : {error.args}."
        )
    return None


def _assignable(value: Tensor, current: Tensor) -> Tensor:
    """``value`` as what ``current`` is: a parameter that keeps ``requires_grad``, or a buffer."""
    if not isinstance(current, Parameter):
        return value
    if isinstance(value, Parameter):
        return value.requires_grad_(current.requires_grad)
    return Parameter(value, requires_grad=current.requires_grad)


def unexpected_keys_of(module: Any, state_dict: Any, prefix: str) -> list[str]:
    """The keys below ``prefix`` that belong neither to ``module`` nor to a child of it."""
    known = own_state(module)
    extra_state_key = prefix + EXTRA_STATE_KEY_SUFFIX
    unexpected = []
    for key in state_dict:
        if not key.startswith(prefix) or key == extra_state_key:
            continue
        first, dot, _ = key[len(prefix) :].partition(".")
        if first not in (module._modules if dot else known):
            unexpected.append(key)
    return unexpected
