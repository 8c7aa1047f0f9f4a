"""The graph that backward walks: nodes and edges, saved tensors, and whether to record at all.

Data only.  Nodes are made eagerly while operators are recorded (`ops/call.py`) and walked by
`autograd/engine.py`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flambeau.core.layout import Layout
from flambeau.engine.storage import Storage
from flambeau.engine.tape import thread
from flambeau.fields import NodeFields

if TYPE_CHECKING:
    from flambeau.tensor import Tensor


class _GradMode(threading.local):
    """This thread's switches: ``enabled`` records graphs, ``inference`` is inference mode,
    ``checks_nan`` makes backward look for NaN.
    """

    inference = False
    checks_nan = False

    @property
    def enabled(self) -> bool:
        return thread.tape.grad_enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        thread.tape.grad_enabled = value


grad_mode = _GradMode()


def _not_loaded(*arguments: Any) -> Any:
    raise AssertionError("the layers above the graph are not loaded")


class Above:
    """What nodes need from layers above this one, which put it here when they are loaded.

    ``zeros(layout)`` stands for the gradient of an output that has none, ``stand_in(layout)`` for
    an input that was not saved (autograd/engine.py);
    ``gradients(function, inputs, grads)`` are the gradients of ``function(**inputs)``, by name and
    as graph: the second derivative of an operator whose first is code of its own
    (autograd/engine.py); ``copy_slices(base, layout, node)`` joins a written view's history into
    its base's (ops/view.py).
    """

    zeros: Callable[..., Any] = staticmethod(_not_loaded)
    stand_in: Callable[..., Any] = staticmethod(_not_loaded)
    gradients: Callable[..., Any] = staticmethod(_not_loaded)
    copy_slices: Callable[..., Any] = staticmethod(_not_loaded)


above = Above()


class SavedResult:
    """An operator's own result, saved for its backward without keeping a cycle of references."""

    __slots__ = ("layout", "output_nr", "storage", "version")

    def __init__(self, storage: Storage, layout: Layout, output_nr: int) -> None:
        self.storage = storage
        self.layout = layout
        self.output_nr = output_nr
        self.version = storage.version


# Later nodes have greater numbers; backward runs those first.
next_sequence = itertools.count(1).__next__


class Node(NodeFields):
    """One ``grad_fn``: how to get the inputs' gradients from the outputs'.

    ``targets`` are where the gradients go, one per tensor input: the input's own node, the leaf
    tensor itself, or None; ``numbers`` says which output of the target node is meant (None: all 0).
    ``layouts`` and ``output_layouts`` describe inputs and outputs, ``saved`` what the derivative
    needs (None once freed), ``versions`` the storages' versions at that time, ``arguments`` the
    operator's other arguments by name.  ``needs`` are the names of the inputs that have a target,
    where they were at hand (else None).
    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        operator: Any,
        targets: Sequence[Any],
        numbers: Sequence[int] | None,
        layouts: Sequence[Layout],
        output_layouts: Sequence[Layout],
        saved: Sequence[Any] | None,
        versions: Sequence[int],
        arguments: Any,
    ) -> None:
        self.operator = operator
        self.targets = targets
        self.numbers = numbers
        self.layouts = layouts
        self.output_layouts = output_layouts
        self.saved = saved
        self.versions = versions
        self.arguments = arguments
        self.needs: frozenset[str] | None = None
        self.sequence = next_sequence()
        self.pre_hooks: Any = None
        self.post_hooks: Any = None
        self.metadata: Any = None

    def name(self) -> str:
        """PyTorch's name of the node, such as ``AddBackward0``."""
        name: Any = self.operator.node_name
        if not isinstance(name, str):
            return str(name(self))
        with_dim: str | None = getattr(self.operator, "dim_node_name", None)
        if with_dim is not None and self.arguments and self.arguments["dim"] is not None:
            return with_dim
        return name

    def named(self) -> Node:
        """The node itself, of a class that is called as PyTorch's: ``type(node).__name__``."""
        if self.__class__ is Node:
            self.__class__ = _class_named(self.name().rpartition("::")[2])
        return self

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that the gradients go to; a leaf shows as its ``AccumulateGrad``."""
        numbers = self.numbers or (0,) * len(self.targets)
        return tuple(
            (as_node(target), number) for target, number in zip(self.targets, numbers, strict=True)
        )

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(grad_inputs, grad_outputs)`` after the node ran; it may replace the
        former.
        """
        if self.post_hooks is None:
            self.post_hooks = {}
        return RemovableHandle(self.post_hooks, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(grad_outputs)`` before the node runs; it may replace them."""
        if self.pre_hooks is None:
            self.pre_hooks = {}
        return RemovableHandle(self.pre_hooks, hook)

    def __repr__(self) -> str:
        return f"<{self.name()} object at 0x{id(self):x}>"


@functools.cache
def _class_named(name: str) -> type[Node]:
    return type(name, (Node,), {"__slots__": ()})


class AccumulateGrad:
    """The end of a path through the graph: adds to a leaf's ``grad``.

    Its hooks belong to the leaf, which outlives it.
    """

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable
        self.next_functions: tuple[()] = ()

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(grad_inputs, grad_outputs)`` after the leaf's ``grad`` was updated."""
        return RemovableHandle(self.variable._own_hooks().after, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(grad_outputs)`` before the leaf's ``grad`` is updated."""
        return RemovableHandle(self.variable._own_hooks().before, hook)

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at 0x{id(self):x}>"


def as_node(target: Any) -> Any:
    """What a user sees of an edge's target."""
    if target is None:
        return None
    return target.named() if isinstance(target, Node) else target._accumulate_node()


class RemovableHandle:
    """What registering a hook returns; ``remove()`` takes the hook away again."""

    _next_id = 0

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        RemovableHandle._next_id += 1
        self.id = RemovableHandle._next_id
        self._hooks: dict[int, Any] | None = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        if self._hooks is not None:
            self._hooks.pop(self.id, None)
            self._hooks = None

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


# -- grad mode: context managers that also decorate ---------------------------------------------


class _Mode:
    """A context manager over ``grad_mode``; as a decorator it wraps each call (or generator
    step).
    """

    def __enter__(self) -> None:
        raise AssertionError("subclasses define entering")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raise AssertionError("subclasses define leaving")

    def clone(self) -> _Mode:
        return type(self)()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isclass(function):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You "
                "should only decorate functions or methods. To preserve the current behavior of "
                "class decoration, you can directly decorate the `__init__` method and nothing "
                "else.",
                FutureWarning,
                stacklevel=2,
            )
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return function(*args, **kwargs)

        return wrapper

    def _wrap_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume: Callable[[], Any] = functools.partial(generator.send, None)
            while True:
                try:
                    with self.clone():
                        value = resume()
                except StopIteration as stop:
                    return stop.value
                try:
                    sent = yield value
                except GeneratorExit:
                    with self.clone():
                        generator.close()
                    raise
                except BaseException as error:  # handed into the generator
                    resume = functools.partial(generator.throw, error)
                else:
                    resume = functools.partial(generator.send, sent)

        return wrapper


class no_grad(_Mode):
    """Within it nothing is recorded for backward; results have ``requires_grad=False``."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        mode = object.__new__(cls)
        return mode if function is None else _Mode.__call__(mode, function)

    def __enter__(self) -> None:
        tape = thread.tape
        self.previous = tape.grad_enabled
        tape.grad_enabled = False

    def __exit__(self, *exception: object) -> None:
        thread.tape.grad_enabled = self.previous


class enable_grad(_Mode):
    """Records for backward again inside a ``no_grad`` block."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        mode = object.__new__(cls)
        return mode if function is None else _Mode.__call__(mode, function)

    def __enter__(self) -> None:
        tape = thread.tape
        self.previous = tape.grad_enabled
        tape.grad_enabled = True

    def __exit__(self, *exception: object) -> None:
        thread.tape.grad_enabled = self.previous


class set_grad_enabled(_Mode):
    """Sets recording at once; as a context manager it is undone at the end of the block."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.previous = grad_mode.enabled
        grad_mode.enabled = bool(mode)

    def clone(self) -> _Mode:
        return type(self)(self.mode)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        grad_mode.enabled = self.previous
        return super().__call__(function)

    def __enter__(self) -> None:
        grad_mode.enabled = bool(self.mode)

    def __exit__(self, *exception: object) -> None:
        grad_mode.enabled = self.previous

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.mode})"


class inference_mode(_Mode):
    """Like ``no_grad``, and its results may never take part in recording."""

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        self = object.__new__(cls)
        self.mode = mode if isinstance(mode, bool) else True
        return self if isinstance(mode, bool) else _Mode.__call__(self, mode)

    def __init__(self, mode: bool | Callable[..., Any] = True) -> None:
        self.previous = (True, False)

    def clone(self) -> _Mode:
        return type(self)(self.mode)

    def __enter__(self) -> None:
        self.previous = grad_mode.enabled, grad_mode.inference
        if self.mode:
            grad_mode.enabled, grad_mode.inference = False, True
        else:
            grad_mode.inference = False

    def __exit__(self, *exception: object) -> None:
        grad_mode.enabled, grad_mode.inference = self.previous


def is_grad_enabled() -> bool:
    """Whether operators record for backward in this thread now."""
    return grad_mode.enabled


def is_inference_mode_enabled() -> bool:
    return grad_mode.inference
