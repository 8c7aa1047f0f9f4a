"""Recorder: listens to one thread while a function runs, and makes a `Recording` of the run.

It sees every storage that is made or touched (`engine/watch.py`), every flush (`engine/tape.py`'s
watchers) and the calls on the tape.  What it cannot repeat makes it give up, with a reason; the run
itself goes on undisturbed and its results are right in any case.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

from flambeau.capture.recording import (
    Effects,
    Event,
    Flush,
    HostAction,
    ObjectAction,
    Part,
    Recording,
    template,
)
from flambeau.engine.segment import NotRepeatable, Place, cut
from flambeau.engine.storage import Storage
from flambeau.engine.tape import Tape, thread, watchers
from flambeau.engine.watch import ever, lasting, watch
from flambeau.graph import Node, next_sequence
from flambeau.tensor import Tensor

PACKAGE = str(Path(__file__).resolve().parent.parent)


class Recorder:
    """``inputs`` are tensors that differ from run to run, ``constants`` those that do not;
    ``with_grads`` says that their ``grad`` takes part, ``own_graph`` that backward may be called on
    nodes that were made just before, for this run alone.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        constants: Sequence[Tensor],
        with_grads: bool = False,
        own_graph: bool = False,
    ) -> None:
        self.inputs = list(inputs)
        self.constants = list(constants)
        self.with_grads = with_grads
        self.own_graph = own_graph
        self.refusal: str | None = None
        self.events: list[Event] = []
        self.storages: list[Storage | None] = []
        self.input_slots: list[tuple[int, int]] = []
        self.grad_layouts: list[tuple[Tensor | int, Any]] = []
        self.grad_slots: list[tuple[int, Tensor | int]] = []
        self.same: list[tuple[int, int]] = []
        # By id; a weak reference tells a storage from a later one at the same address.
        self.positions: dict[int, tuple[Any, int]] = {}
        self.fresh: list[tuple[int, Any]] = []
        self.created: list[tuple[int, int, Any]] = []
        self.known_objects: set[int] = set()
        self._number_storages()

    def _number_storages(self) -> None:
        for tensor in self.constants:
            if self.position_of(tensor._storage) is None:
                self._add(tensor._storage, constant=True)
        for number, tensor in enumerate(self.inputs):
            known = self.position_of(tensor._storage)
            if known is None:
                self.input_slots.append((self._add(tensor._storage), number))
            else:
                self.same.append((number, known))
        if not self.with_grads:
            return
        for target, tensor in self.targets():
            grad = tensor._grad
            self.grad_layouts.append((target, None if grad is None else grad._layout))
            if grad is None:
                continue
            if self.position_of(grad._storage) is not None:
                self.refuse("works on gradients that share memory with other tensors")
                return
            self.grad_slots.append((self._add(grad._storage), target))

    def outside_storages(self) -> set[Storage]:
        """The memory of tensors that existed before."""
        return {tensor._storage for _, tensor in self.targets()}

    def targets(self) -> list[tuple[Tensor | int, Tensor]]:
        """Every tensor whose fields may change, with its name in a recording."""
        found: list[tuple[Tensor | int, Tensor]] = [(t, t) for t in self.constants]
        return found + list(enumerate(self.inputs))

    # -- positions ------------------------------------------------------------------------------

    def _add(self, storage: Storage, constant: bool = False) -> int:
        position = len(self.storages)
        self.storages.append(storage if constant else None)
        self.positions[id(storage)] = (weakref.ref(storage), position)
        return position

    def position_of(self, storage: Storage) -> int | None:
        found = self.positions.get(id(storage))
        if found is not None and found[0]() is storage:
            return found[1]
        if lasting.get(id(storage)) is storage:
            return self._add(storage, constant=True)
        return None

    def _add_result(self, storage: Storage) -> int:
        position = self._add(storage)
        self.fresh.append((position, weakref.ref(storage)))
        return position

    def part(self, tensor: Tensor) -> Part:
        """The tensor as a replay makes it."""
        position = self.position_of(tensor._storage)
        if position is None:
            raise NotRepeatable("uses a tensor that it does not reach through its own variables")
        return Part(position, tensor._layout)

    # -- listening ------------------------------------------------------------------------------

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the function and listens."""
        tape = self.tape = thread.tape
        if tape.slots and tape.cursor is tape.root:
            tape.flush()
        self.listening = True
        self.flushed_aside = False
        self.first_sequence = next_sequence()
        self.place = Place(tape)
        self._remember_tensors()
        self.pending = {
            position
            for reference, position in self.positions.values()
            if reference().tape is not None
        }
        watchers.append(self._flushing)
        ever.listened = True
        watch.capture = self
        try:
            return function(*args, **kwargs)
        finally:
            watch.capture = None
            watchers.remove(self._flushing)

    def refuse(self, reason: str) -> None:
        """Nothing will come of this recording."""
        if self.refusal is None:
            self.refusal = f"it {reason}{_users_line()}"

    def made(self, storage: Storage) -> None:
        """Memory was asked for outside of the tape; it has no contents yet."""
        position = self._add(storage)
        self.created.append((position, storage.nbytes, storage.device))
        self.fresh.append((position, weakref.ref(storage)))

    def touched(self) -> None:
        """Something reads or writes memory at once."""
        self.refuse("reads a value of a tensor (or its address)")

    def _flushing(self, tape: Tape, plan: Any) -> None:
        if tape is self.tape and not self.listening:
            self.flushed_aside = True
        if tape is not self.tape or not self.listening:
            return
        if get_ident() != tape.owner:
            self.refuse("works on tensors that another thread asks for")
        else:
            self.cut()
            self.place = Place(None)
            self.events.append(Flush())

    def cut(self) -> None:
        """Ends a segment here."""
        if self.refusal is not None:
            return
        try:
            segment = cut(self.tape, self.place, self.position_of, self._add_result)
        except NotRepeatable as reason:
            self.refuse(str(reason))
            return
        if segment is not None:
            self.events.append(segment)
        self.place = Place(self.tape)

    def act(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls a host action and keeps it."""
        self.cut()
        try:
            templates = [template(value, self.part) for value in args]
            named = {name: template(value, self.part) for name, value in kwargs.items()}
        except NotRepeatable as reason:
            self.refuse(str(reason))
        self.flushed_aside = False
        result = self._aside(function, args, kwargs)
        if self.flushed_aside:
            # It needed what was pending; a replay runs that before, whatever the call needs then.
            self.events.append(Flush())
            if self.tape.slots:
                self.refuse(f"calls {function.__name__}, which runs pending work and adds to it")
        if self.refusal is not None:
            return result
        position = -1
        if isinstance(result, Tensor):
            position = self._add_result(result._storage)
        elif result is not None:
            self.refuse("takes a value from memory")
            return result
        self.events.append(HostAction(function, templates, named, position))
        return result

    def act_on(
        self, owner: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a method of an object that keeps Python state; replays call it as well."""
        self.cut()
        self._note_effects()
        if kwargs or len(args) != 1 or id(owner) not in self.known_objects:
            self.refuse(
                f"calls {function.__qualname__} of an object that it made or with arguments"
            )
        result = self._aside(function, args, kwargs)
        self._remember_tensors()
        if result is not None:
            self.refuse(f"uses the result of {function.__qualname__}")
        self.events.append(ObjectAction(function, args))
        return result

    def _aside(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls without listening; the tape goes on from where the call leaves it."""
        profile = sys.getprofile()
        sys.setprofile(None)
        watch.capture, self.listening = None, False
        try:
            return function(*args, **kwargs)
        finally:
            watch.capture, self.listening = self, True
            self.place = Place(self.tape)
            sys.setprofile(profile)

    def enter_graph(self, reached: Any) -> None:
        """``backward()`` is about to visit these nodes and leaves."""
        if self.own_graph:
            return
        if not self.with_grads:
            self.refuse("calls backward() where gradients were not expected")
        for target in reached:
            if isinstance(target, Node) and target.sequence < self.first_sequence:
                self.refuse("calls backward() through operations that were done before")

    # -- tensors' fields ------------------------------------------------------------------------

    def _remember_tensors(self) -> None:
        self.histories = [_history(tensor) for _, tensor in self.targets()]
        self.versions = [tensor._storage.version for _, tensor in self.targets()]
        self.grads = [tensor._grad for _, tensor in self.targets()]
        self.grad_versions = [0 if g is None else g._storage.version for g in self.grads]

    def _note_effects(self) -> None:
        """What changed of tensors since they were remembered becomes an event."""
        if self.refusal is not None:
            return
        if self.histories != [_history(tensor) for _, tensor in self.targets()]:
            self.refuse("writes into a tensor that autograd follows")
            return
        versions: dict[int, int] = {}
        grads: list[tuple[Tensor | int, Any]] = []
        for (target, tensor), version, grad, grad_version in zip(
            self.targets(), self.versions, self.grads, self.grad_versions, strict=True
        ):
            position = self.position_of(tensor._storage)
            if position is None:
                self.refuse("exchanges the memory of a tensor")
                return
            if tensor._storage.version != version:
                versions[position] = tensor._storage.version - version
            if tensor._grad is not grad:
                grads.append((target, self._described_grad(tensor._grad)))
            elif grad is not None and self.with_grads and grad._storage.version != grad_version:
                position = self.position_of(grad._storage)
                if position is not None:
                    versions[position] = grad._storage.version - grad_version
        if grads and not self.with_grads:
            self.refuse("sets gradients")
        elif versions or grads:
            self.events.append(Effects(list(versions.items()), grads))

    def _described_grad(self, grad: Tensor | None) -> Any:
        if grad is None:
            return None
        if grad._requires_grad or grad._base is not None or type(grad) is not Tensor:
            self.refuse("makes gradients that autograd follows")
            return None
        if any(grad is tensor for _, tensor in self.targets()):
            self.refuse("makes a tensor another one's gradient")
            return None
        try:
            return self.part(grad)
        except NotRepeatable as reason:
            self.refuse(str(reason))
            return None

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> Recording | None:
        """The recording, whose `Recording.keep_only` is still to be called; None if refused."""
        self.cut()
        self._note_effects()
        if self.refusal is not None:
            return None
        versions = []
        for position, reference in self.fresh:
            storage = reference()
            if storage is not None and storage.version:
                versions.append((position, storage.version))
        return Recording(
            self.storages,
            self.input_slots,
            self.grad_slots,
            self.created,
            self.same,
            self.events,
            versions,
            self.grad_layouts,
            self.pending,
        )


def _history(tensor: Tensor) -> tuple[Any, ...]:
    """Tells whether autograd's knowledge of the tensor is the same."""
    base = getattr(tensor, "_base", None)
    return (
        getattr(tensor, "_grad_fn", None),
        getattr(tensor, "_view_version", 0) if base is not None else 0,
        None if base is None else base._grad_fn,
    )


def _users_line() -> str:
    """Where in the user's program this thread is, as `` (file:line)``."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return ""
    return f" ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
