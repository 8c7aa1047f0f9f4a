"""What a captured function returned, as a template that replays fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.capture.graph_template import GraphTemplate
from flambeau.capture.recorder import Recorder
from flambeau.capture.recording import Part, is_plain
from flambeau.engine.segment import Environment, NotRepeatable
from flambeau.graph import Node
from flambeau.ops.view_form import view_of
from flambeau.tensor import UNTRACKED, Tensor


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay while its results are put together."""

    environment: Environment
    inputs: Sequence[Tensor]
    node: Node | None


@dataclass(frozen=True, slots=True)
class Constant:
    value: Any

    def make(self, replay: Replay) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Input:
    """An input tensor itself."""

    number: int

    def make(self, replay: Replay) -> Any:
        return replay.inputs[self.number]


@dataclass(frozen=True, slots=True)
class GradOf:
    """The gradient of a tensor, or of an input."""

    target: Any

    def make(self, replay: Replay) -> Any:
        target = self.target
        return (replay.inputs[target] if isinstance(target, int) else target)._grad


@dataclass(frozen=True, slots=True)
class ViewOf:
    """A view of a tensor or an input."""

    target: Any
    layout: Any

    def make(self, replay: Replay) -> Any:
        target = self.target
        return view_of(replay.inputs[target] if isinstance(target, int) else target, self.layout)


class Fresh:
    """A new tensor; ``number`` is its place among the outputs of the graph, or -1."""

    __slots__ = ("layout", "number", "position")

    def __init__(self, part: Part, number: int) -> None:
        self.position = part.position
        self.layout = part.layout
        self.number = number

    def make(self, replay: Replay) -> Tensor:
        tensor = Tensor._from_storage(replay.environment[self.position], self.layout)
        if self.number >= 0:
            tensor._requires_grad = True
            tensor._grad_fn = replay.node
            tensor._output_nr = self.number
        return tensor


class Collection:
    """A list, tuple, named tuple or dictionary, made anew by each replay."""

    __slots__ = ("build", "items")

    def __init__(self, build: Any, items: Sequence[Any]) -> None:
        self.build = build
        self.items = tuple(items)

    def make(self, replay: Replay) -> Any:
        return self.build([item.make(replay) for item in self.items])


class Outputs:
    """The template of a result, with the graph behind it."""

    def __init__(self, recorder: Recorder, constants: dict[int, Any], result: Any) -> None:
        self._recorder = recorder
        self._constants = constants
        self._followed: list[Tensor] = []
        self._seen: dict[int, Any] = {}
        self._storages: dict[int, bool] = {}
        self.positions: set[int] = set()
        self.whole = self._describe(result)
        self.graph: GraphTemplate | None = None
        if self._followed:
            self.graph = GraphTemplate(self._followed, recorder, self._leave)
            self.positions |= set(self.graph.positions)
            self._connect(self.graph)
        del self._recorder, self._constants, self._followed, self._storages, self._seen

    def make(self, environment: Environment, inputs: Sequence[Tensor]) -> Any:
        """The result of a replay."""
        graph = self.graph
        if graph is None:
            return self.whole.make(Replay(environment, inputs, None))
        targets, numbers = self._targets, self._numbers
        if self._input_edges:
            targets = targets.copy()
            for edge, number in self._input_edges:
                tensor = inputs[number]
                targets[edge] = tensor.grad_fn or tensor
                if tensor._output_nr:
                    numbers = (numbers or [0] * len(targets)).copy()
                    numbers[edge] = tensor._output_nr
        node = graph.make_node(environment, targets, numbers)
        whole = self.whole
        if whole.__class__ is Fresh:
            # The usual result: one tensor.
            tensor = Tensor._from_storage(environment[whole.position], whole.layout)
            tensor._requires_grad = True
            tensor._grad_fn = node
            return tensor
        return whole.make(Replay(environment, inputs, node))

    # -- describing -----------------------------------------------------------------------------

    def _describe(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        kind = type(value)
        if id(value) in self._constants:
            return Constant(value)
        if kind is list:
            return Collection(list, map(self._describe, value))
        if kind is dict:
            names = list(value)
            for name in names:
                if not is_plain(name):
                    raise NotRepeatable("returns a dictionary whose keys are not plain")
            return Collection(
                lambda items: dict(zip(names, items, strict=True)),
                map(self._describe, value.values()),
            )
        if kind is tuple:
            return Collection(tuple, map(self._describe, value))
        if isinstance(value, tuple) and hasattr(kind, "_make"):
            return Collection(kind._make, map(self._describe, value))
        if is_plain(value):
            return Constant(value)
        if isinstance(value, tuple) and kind.__module__.startswith(("torch", "flambeau")):
            return Collection(kind, map(self._describe, value))
        raise NotRepeatable(f"returns a {kind.__name__}")

    def _tensor(self, tensor: Tensor) -> Any:
        known = self._seen.get(id(tensor))
        if known is not None:
            if isinstance(known, Fresh):
                raise NotRepeatable("returns the same new tensor twice")
            return known
        found = self._seen[id(tensor)] = self._new_tensor(tensor)
        return found

    def _new_tensor(self, tensor: Tensor) -> Any:
        recorder = self._recorder
        for target, owner in recorder.targets():
            if tensor is owner:
                return Input(target) if isinstance(target, int) else Constant(owner)
        for target, owner in recorder.targets():
            if tensor is owner._grad:
                return GradOf(target)
        if type(tensor) is not Tensor or tensor.__dict__ or tensor._grad is not None:
            raise NotRepeatable("returns a tensor with attributes of its own")
        if tensor._hooks is not None:
            raise NotRepeatable("returns a tensor with hooks")
        part = recorder.part(tensor)
        follows = tensor.requires_grad
        base = tensor._base
        outside = tensor._storage in recorder.outside_storages()
        if outside or tensor._view_version == UNTRACKED:
            return self._alias(tensor, part, base, follows)
        if follows and tensor.grad_fn is None:
            raise NotRepeatable("returns a new leaf that requires gradients")
        shared = self._storages.setdefault(part.position, follows)
        if part.position in self.positions and (shared or follows):
            raise NotRepeatable("returns several views of one new tensor")
        self.positions.add(part.position)
        if not follows:
            return Fresh(part, -1)
        self._followed.append(tensor)
        return Fresh(part, len(self._followed) - 1)

    def _alias(self, tensor: Tensor, part: Part, base: Tensor | None, follows: bool) -> Any:
        if base is None or follows or tensor._view_version == UNTRACKED:
            raise NotRepeatable("returns another tensor over the memory of an existing one")
        for target, owner in self._recorder.targets():
            if owner is base or owner._base is base:
                return ViewOf(target, tensor._layout)
        raise NotRepeatable("returns a view of a tensor that it was not given")

    # -- edges ----------------------------------------------------------------------------------

    def _leave(self, target: Any, number: int) -> Any:
        """Which of the known tensors an edge leads to: the number of an input, or the tensor."""
        for name, tensor in self._recorder.targets():
            if tensor is target:
                return name if isinstance(name, int) else tensor
            if isinstance(target, Node) and tensor._output_nr == number:
                if tensor._requires_grad and tensor.grad_fn is target:
                    return name if isinstance(name, int) else tensor
        raise NotRepeatable("uses results of operations that were done before")

    def _connect(self, graph: GraphTemplate) -> None:
        self._targets: list[Any] = []
        self._input_edges: list[tuple[int, int]] = []
        numbers = []
        for edge, leaf in enumerate(graph.leaves):
            if isinstance(leaf, int):
                self._input_edges.append((edge, leaf))
                self._targets.append(None)
                numbers.append(0)
            else:
                self._targets.append(leaf.grad_fn or leaf)
                numbers.append(leaf._output_nr)
        self._numbers = numbers if any(numbers) else None
