"""``torch.compile`` and the names around it in ``torch.compiler`` and ``torch._dynamo``."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from flambeau.capture.errors import InvalidBackend
from flambeau.capture.module import OptimizedModule
from flambeau.capture.stance import stance as current
from flambeau.engine.watch import watch
from flambeau.nn import module as nn_module
from flambeau.nn.hook_registry import hook_state
from flambeau.nn.module import Module

_BACKENDS = ("cudagraphs", "inductor", "openxla", "tvm")
_DEBUG_BACKENDS = ("aot_eager", "aot_eager_decomp_partition", "aot_ts", "eager", "eager_debug",
                   "eager_noexcept", "ts")  # fmt: skip
_MODES = ("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")

_compiled: weakref.WeakSet[Any] = weakref.WeakSet()


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """Returns ``model``, a function or a module, so that its calls are replayed where possible.

    The first call of a kind (shapes, types, numbers among the arguments) is watched, the second is
    captured, later ones are replayed: none of the function's Python code runs, its operations go
    on the tape at once.  A replay gives the same bits as the function itself.  It happens only
    while everything is unchanged that the code can read: the variables that it names, attributes,
    lists and dictionaries behind them, modules' parameters, buffers, modes and hooks, the default
    type and grad mode.  Random numbers are drawn anew, indices are checked, and
    ``optimizer.step()`` runs as it is.

    A function that reads a tensor's value (``item()``, ``if x > 0``, printing), changes variables,
    calls the clock, files, or other things that no guard can follow, is recorded at every call as
    if it were not compiled; the reason is printed once.  With ``fullgraph`` it is raised.

    ``backend``, ``mode``, ``options`` and ``dynamic`` are checked and change nothing: there is one
    engine, and it fuses without being asked.  Without ``model`` a decorator is returned.

    >>> import flambeau as torch
    >>> @torch.compile
    ... def scaled(x, k):
    ...     return torch.relu(x) * k
    >>> scaled(torch.ones(2), 3.0)
    tensor([3., 3.])
    """
    _check(backend, mode, options)
    if model is None:
        return functools.partial(
            compile,
            fullgraph=fullgraph,
            dynamic=dynamic,
            backend=backend,
            mode=mode,
            options=options,
            disable=disable,
        )
    if disable:
        return model
    if isinstance(model, OptimizedModule):
        model = model._orig_mod
    compile_callable = functools.partial(compiled, fullgraph=fullgraph)
    if isinstance(model, Module):
        return OptimizedModule(model, compile_callable)
    if inspect.isclass(model):
        return model
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    return compile_callable(model)


def compiled(function: Callable[..., Any], fullgraph: bool = False) -> Any:
    """The function, captured and replayed."""
    from flambeau.capture.function import CompiledFunction

    if isinstance(function, CompiledFunction):
        function = function.function
    made = CompiledFunction(function, fullgraph)
    functools.update_wrapper(made, function, updated=())
    _compiled.add(made)
    return made


def _check(backend: Any, mode: str | None, options: dict[str, Any] | None) -> None:
    if mode is not None and options is not None:
        raise RuntimeError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if isinstance(backend, str) and backend not in _BACKENDS + _DEBUG_BACKENDS:
        raise InvalidBackend(backend)
    if backend == "inductor" and mode is not None and mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES)}")


def list_backends(exclude_tags: tuple[str, ...] = ("debug", "experimental")) -> list[str]:
    """The names that ``backend`` accepts."""
    return sorted(_BACKENDS if exclude_tags else _BACKENDS + _DEBUG_BACKENDS)


def reset() -> None:
    """Forgets every captured call; functions that fell back are tried again."""
    for function in tuple(_compiled):
        function.reset()


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Keeps a function out of captures: a compiled function that calls it is recorded."""
    if fn is None:
        return functools.partial(disable, recursive=recursive, reason=reason)
    if isinstance(fn, Module):
        return OptimizedModule(fn, functools.partial(disable, reason=reason))
    if inspect.isclass(fn):
        return fn
    name = getattr(fn, "__qualname__", type(fn).__name__)

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        if watch.capture is not None:
            watch.capture.refuse(f"calls {name}, which torch.compiler.disable keeps out")
        return fn(*args, **kwargs)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    run._torchdynamo_orig_callable = fn  # type: ignore[attr-defined]
    return run


def graph_break(msg: str = "") -> None:
    """In PyTorch ends a graph here; a captured function with it is recorded."""
    if watch.capture is not None:
        watch.capture.refuse("calls graph_break()")


def is_compiling() -> bool:
    """False: captured code runs as it is, so no branch needs to differ."""
    return False


is_dynamo_compiling = is_compiling
is_exporting = is_compiling


def cudagraph_mark_step_begin() -> None:
    """Accepted: there are no CUDA graphs to tell apart."""


def unchanged(fn: Any) -> Any:
    """Accepted: functions need no permission to be captured."""
    return fn


allow_in_graph = assume_constant_result = disallow_in_graph = forbid_in_graph = unchanged
nested_compile_region = wrap_numpy = unchanged


def substitute_in_graph(original_fn: Any, **options: Any) -> Callable[[Any], Any]:
    """Accepted: the original function is captured as it is."""
    return unchanged


def forget_latest() -> None:
    """Makes every compiled function look at the stance in its next call."""
    for function in tuple(_compiled):
        function.latest = None


class set_stance:
    """``with set_stance("force_eager"):`` runs compiled functions as they are."""

    _STANCES = ("default", "fail_on_recompile", "eager_on_recompile", "eager_then_compile",
                "force_eager", "aot_eager_then_compile")  # fmt: skip

    def __init__(self, stance: str = "default", **options: Any) -> None:
        if stance not in self._STANCES:
            raise RuntimeError(f"invalid torch.compile stance '{stance}'")
        self.previous = current.forced_eager
        current.forced_eager = stance == "force_eager"
        forget_latest()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        current.forced_eager = self.previous
        forget_latest()


def mark_dynamic(t: Any, index: Any, *, hint_override: Any = None, **bounds: Any) -> None:
    """Accepted: every shape is captured on its own."""


def mark_static(t: Any, index: Any = None) -> None:
    """Accepted: every shape is captured on its own."""


maybe_mark_dynamic = mark_unbacked = mark_dynamic


def mark_static_address(t: Any, guard: bool = True) -> None:
    """Accepted: replays look up addresses."""


def compile_module(module: Module, *args: Any, **kwargs: Any) -> None:
    """``module.compile()``: from now on calling the module is calling its compiled form."""
    hook_state.installed = True
    if kwargs.pop("disable", False):
        return
    module.__dict__["_compiled_call_impl"] = compile(module._call_impl, *args, **kwargs)


nn_module.compiling.compile_module = compile_module
