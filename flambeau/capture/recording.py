"""What one captured run did, ready to be done again: segments, host actions and effects, in order.

Storages and new tensors of a replay stand in its *environment*, a list; everything here names them
by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from flambeau.core.layout import Layout
from flambeau.engine.segment import Environment, NotRepeatable, Segment
from flambeau.engine.storage import Storage
from flambeau.engine.tape import thread
from flambeau.engine.turns import turns
from flambeau.engine.watch import checks
from flambeau.tensor import Tensor

# Values that a replay may hand on as they are: nobody can change them.
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range)
PLAIN_NAMES = ("dtype", "device", "Layout", "Size", "layout", "memory_format", "Generator")


def is_plain(value: Any) -> bool:
    """Whether the value means the same whenever it is handed on."""
    kind = type(value)
    if kind is FunctionType:
        return value.__module__.startswith("flambeau") and value.__closure__ is None
    if kind in PLAIN or isinstance(value, type):
        return True
    return kind.__module__.startswith("flambeau") and kind.__name__ in PLAIN_NAMES


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor over the environment's storage at ``position``."""

    position: int
    layout: Layout

    def make(self, environment: Environment) -> Tensor:
        return Tensor._from_storage(environment[self.position], self.layout)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """A list or tuple of templates."""

    kind: type
    items: tuple[Any, ...]


def template(value: Any, part: Callable[[Tensor], Any]) -> Any:
    """An argument with its tensors replaced by what ``part`` says of them."""
    if isinstance(value, Tensor):
        return part(value)
    if type(value) in (list, tuple):
        items = tuple(template(item, part) for item in value)
        if type(value) is tuple and all(map(_is_constant, items)):
            return value
        return Sequenced(type(value), items)
    if is_plain(value):
        return value
    raise NotRepeatable(f"hands a {type(value).__name__} to an operation")


def _is_constant(value: Any) -> bool:
    return not isinstance(value, Part | Sequenced)


def filled_in(value: Any, environment: Environment) -> Any:
    """The argument that a template stands for."""
    if isinstance(value, Part):
        return value.make(environment)
    if isinstance(value, Sequenced):
        return value.kind(filled_in(item, environment) for item in value.items)
    return value


class HostAction:
    """A routine to be called again; ``result`` is where the storage of its result goes, or -1."""

    __slots__ = ("args", "function", "is_check", "kwargs", "result")

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: int
    ) -> None:
        self.function = function
        self.args = tuple(args)
        self.kwargs = kwargs
        self.result = result
        self.is_check = result < 0 and function in checks

    def bind_constants(self, storages: Sequence[Storage | None]) -> None:
        """Makes those of its tensors that are the same in every replay."""
        self.args = tuple(_bound(value, storages) for value in self.args)
        self.kwargs = {name: _bound(value, storages) for name, value in self.kwargs.items()}

    def positions(self) -> set[int]:
        found: set[int] = set()
        _collect(self.args, found)
        _collect(tuple(self.kwargs.values()), found)
        return found

    def replay(self, environment: Environment, inputs: Sequence[Tensor] = ()) -> None:
        result = self.function(
            *[filled_in(value, environment) for value in self.args],
            **{name: filled_in(value, environment) for name, value in self.kwargs.items()},
        )
        if self.result >= 0:
            environment[self.result] = result._storage


def _bound(value: Any, storages: Sequence[Storage | None]) -> Any:
    if isinstance(value, Part):
        storage = storages[value.position]
        return value if storage is None else Tensor._from_storage(storage, value.layout)
    return value


def _collect(values: Sequence[Any], found: set[int]) -> None:
    for value in values:
        if isinstance(value, Part):
            found.add(value.position)
        elif isinstance(value, Sequenced):
            _collect(value.items, found)


class ObjectAction:
    """A method of an object that Python state belongs to: it runs as it is (``optimizer.step``)."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        self.function = function
        self.args = tuple(args)

    def positions(self) -> set[int]:
        return set()

    def replay(self, environment: Environment, inputs: Sequence[Tensor]) -> None:
        self.function(*self.args)


class Flush:
    """Here the run was made to compute what was pending."""

    __slots__ = ()

    def positions(self) -> set[int]:
        return set()

    def replay(self, environment: Environment, inputs: Sequence[Tensor]) -> None:
        thread.tape.flush()


class Effects:
    """Changes of tensors that no call shows: versions of storages, and ``grad``.

    ``grads`` pairs a tensor (or the number of an input) with a `Part`, a tensor or None.
    """

    __slots__ = ("grads", "versions")

    def __init__(
        self, versions: Sequence[tuple[int, int]], grads: Sequence[tuple[Tensor | int, Any]]
    ) -> None:
        self.versions = tuple(versions)
        self.grads = tuple(grads)

    def positions(self) -> set[int]:
        return {k for k, _ in self.versions} | {
            value.position for _, value in self.grads if isinstance(value, Part)
        }

    def replay(self, environment: Environment, inputs: Sequence[Tensor]) -> None:
        for k, increase in self.versions:
            environment[k].version += increase
        for target, value in self.grads:
            tensor = inputs[target] if isinstance(target, int) else target
            tensor._grad = value.make(environment) if isinstance(value, Part) else value


Event = Segment | HostAction | ObjectAction | Flush | Effects


class Recording:
    """A captured run from one place of the tape on.

    ``storages`` is the environment's first state: constants, and None where a replay fills in:
    ``inputs`` from its input tensors, ``grads`` from tensors' gradients, ``made`` with new memory.
    ``grad_layouts`` says for tensors whose gradients take part whether they have one.
    ``pending`` are the given storages, by position, on which work was pending.
    ``same`` lists inputs that must share a storage with another input or be over a constant one.
    """

    def __init__(
        self,
        storages: Sequence[Storage | None],
        inputs: Sequence[tuple[int, int]],
        grads: Sequence[tuple[int, Tensor | int]],
        made: Sequence[tuple[int, int, Any]],
        same: Sequence[tuple[int, int]],
        events: Sequence[Event],
        versions: Sequence[tuple[int, int]],
        grad_layouts: Sequence[tuple[Tensor | int, Layout | None]],
        pending: set[int],
    ) -> None:
        self.storages = list(storages)
        self.inputs = tuple(inputs)
        self.grads = tuple(grads)
        self.grad_layouts = tuple(grad_layouts)
        self.pending = pending
        self.made = tuple(made)
        self.same = tuple(same)
        self.events = _in_few(events)
        self.versions = tuple(versions)
        # Checks come first where possible; nothing has happened yet when they raise.
        count = 0
        while count < len(self.events) and _is_check(self.events[count]):
            count += 1
        self.checks: tuple[Any, ...] = self.events[:count]
        self.events = self.events[count:]
        for event in (*self.checks, *self.events):
            if isinstance(event, HostAction):
                event.bind_constants(self.storages)
        segments = [event for event in self.events if isinstance(event, Segment)]
        self.opening = segments[0] if segments else None
        self.calls = sum(segment.calls for segment in segments)
        acting = [event for event in self.events if isinstance(event, HostAction)]
        self.touched = set().union(*(event.positions() for event in acting)) if acting else set()
        self.outside = set().union(*(s.positions() for s in segments)) if segments else set()
        self.segments = len(segments)
        # Whether nothing happens before the first segment, which may find that it does not fit.
        self.opens = bool(self.events) and self.events[0] is self.opening
        # Nearly always a replay is one segment and nothing else.
        plain = not (self.made or self.grads or self.same or self.checks or self.versions)
        alone = plain and self.opens and len(self.events) == 1
        self.alone: Segment | None = self.opening if alone else None

    @property
    def acts(self) -> bool:
        """Whether routines of the host come between, which may run what is pending."""
        return not all(isinstance(event, Segment | Effects) for event in self.events)

    @property
    def starts_empty(self) -> bool:
        """Whether nothing was pending at the start."""
        return self.opening is None or self.opening.start.parent is None

    def grads_hold(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the same tensors have gradients, laid out alike."""
        for target, layout in self.grad_layouts:
            grad = (inputs[target] if isinstance(target, int) else target)._grad
            if layout is None:
                if grad is not None:
                    return False
            elif grad is None or grad._layout is not layout or grad._requires_grad:
                return False
        return True

    def replay(self, inputs: Sequence[Tensor]) -> Environment | None:
        """Does it again; None, with nothing done, where tape or inputs do not fit."""
        return self.replay_over([tensor._storage for tensor in inputs], inputs)

    def replay_over(
        self, storages: Sequence[Storage], inputs: Sequence[Tensor] = ()
    ) -> Environment | None:
        """The same over the inputs' storages; a recording without effects needs no more."""
        environment: Any = self.storages.copy()
        for k, number in self.inputs:
            environment[k] = storages[number]
        tape = thread.tape
        alone = self.alone
        if alone is not None:
            fits = self.calls < tape.remaining and alone.put(tape, environment)
            return environment if fits else None
        for k, nbytes, where in self.made:
            environment[k] = Storage(nbytes, where)
        for k, target in self.grads:
            owner = inputs[target] if isinstance(target, int) else target
            environment[k] = owner._grad._storage  # type: ignore[union-attr]
        for number, k in self.same:
            if storages[number] is not environment[k]:
                return None
        for check in self.checks:
            check.replay(environment)
        if turns.several and self.segments > 1:
            # Nobody else may run what is pending between two segments.
            with turns.run_lock:
                done = self._run(tape, environment, inputs)
        else:
            done = self._run(tape, environment, inputs)
        if not done:
            return None
        for k, version in self.versions:
            environment[k].version = version
        return environment

    def _run(self, tape: Any, environment: Environment, inputs: Sequence[Tensor]) -> bool:
        """Does the events; False, with nothing done, where the first segment does not fit."""
        opening = self.opening
        if self.calls >= tape.remaining and tape.slots:
            return False
        if (self.segments > 1 or self.touched) and not self._stays_together(environment):
            return False
        if not self.opens and opening is not None and not opening.fits(tape, environment):
            return False
        for event in self.events:
            if event.__class__ is Segment:
                if not event.put(tape, environment):  # type: ignore[union-attr]
                    if event is opening and self.opens:
                        return False
                    raise AssertionError(f"a replay lost its place before {event!r}")
            else:
                event.replay(environment, inputs)  # type: ignore[union-attr]
        return True

    def _stays_together(self, environment: Environment) -> bool:
        """Whether the tape is run between segments only where it was in the captured run."""
        for k in self.outside:
            storage = environment[k]
            if storage is not None and storage.is_exported():
                return False
        for k in self.touched:
            # A routine of the host runs what is pending on the memory that it needs.
            storage = environment[k]
            if storage is not None and (storage.tape is not None) is not (k in self.pending):
                return False
        return True

    def needed(self) -> set[int]:
        """The positions that events ask for."""
        found: set[int] = set()
        for event in (*self.checks, *self.events):
            found |= event.positions()
        return found

    def keep_only(self, needed: set[int]) -> None:
        """Lets go of fresh storages that neither events nor ``needed`` name."""
        needed = needed | self.needed()
        for event in self.events:
            if isinstance(event, Segment):
                event.keep_only(needed)
        self.versions = tuple((k, v) for k, v in self.versions if k in needed)


def _is_check(event: Event) -> bool:
    return isinstance(event, HostAction) and event.is_check


def _in_few(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events with checks moved before segments that do not concern them, and those joined.

    A check may come before a segment that makes nothing that it looks at and writes nothing that
    existed before: if it raises, nobody can tell the difference.
    """
    result: list[Event] = []
    for event in events:
        if _is_check(event):
            at = len(result)
            while at and _can_pass(result[at - 1], event):
                at -= 1
            result.insert(at, event)
        elif isinstance(event, Segment) and result and isinstance(result[-1], Segment):
            before = result[-1]
            if event.follows(before):
                result[-1] = before.joined(event)
            else:
                result.append(event)
        else:
            result.append(event)
    return tuple(result)


def _can_pass(before: Event, check: Event) -> bool:
    if isinstance(before, Flush):
        return True
    if not isinstance(before, Segment):
        return False
    fresh = {k for k, nbytes, _ in before.bindings if nbytes >= 0}
    if fresh & check.positions():
        return False
    first = before.first
    slots = [first + n for n, (_, nbytes, _) in enumerate(before.bindings) if nbytes >= 0]
    return before.written() <= set(slots)
