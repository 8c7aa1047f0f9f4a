"""The autograd graph of a captured function, as one node.

A replay makes a single node for all outputs (PyTorch's ``CompiledFunctionBackward``).  Its first
backward builds the nodes that eager recording would have made, walks them, and is itself captured;
later ones put that recording on the tape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.autograd.engine import gradients_at
from flambeau.capture.recorder import Recorder
from flambeau.capture.recording import Part, Recording, Sequenced, is_plain
from flambeau.core.dtype import float32
from flambeau.core.layout import Layout
from flambeau.engine.segment import Environment, NotRepeatable
from flambeau.engine.storage import Storage
from flambeau.engine.tape import thread
from flambeau.graph import Node, SavedResult, grad_mode
from flambeau.ops.derivative import FREED, UNNEEDED
from flambeau.tensor import Tensor

# Backward recordings of one graph: they differ in where the tape stands and what has gradients.
MAX_RECORDINGS = 8


# Stands for the memory of tensors that only carry gradients' places.
_NOWHERE = Storage(0)
_ANYWHERE = Tensor._from_storage(_NOWHERE, Layout.of((), float32))


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor that a node keeps: ``age`` is how often it was written since."""

    part: Part
    age: int


@dataclass(frozen=True, slots=True)
class NodeTemplate:
    """A node; its targets are numbers of nodes, or of edges out of the graph as ``-1 - number``."""

    operator: Any
    targets: tuple[int | None, ...]
    numbers: tuple[int, ...] | None
    layouts: tuple[Any, ...]
    output_layouts: tuple[Layout, ...]
    saved: tuple[Any, ...]
    arguments: Any


class GraphTemplate:
    """The graph behind ``outputs``.

    ``leave(target, number)`` says what a replay connects an edge out of the graph with; equal
    answers are one edge.  Raises `NotRepeatable` where a node keeps what cannot be made again.
    """

    def __init__(self, outputs: Sequence[Tensor], recorder: Recorder, leave: Any) -> None:
        self.edges: dict[Any, int] = {}
        self.edge_layouts: list[Layout] = []
        self._recorder = recorder
        self._leave = leave
        self._parts: dict[int, int] = {}
        nodes = _nodes_behind(outputs, recorder.first_sequence)
        self._numbers = {node: k for k, node in enumerate(nodes)}
        self.nodes = [self._described(node) for node in nodes]
        self.roots = [(self._numbers[_node_of(t)], t._output_nr) for t in outputs]
        self.layouts = [t._layout for t in outputs]
        # Positions of the saved storages in the environment, in the order of the node's `saved`.
        self.positions = tuple(self._parts)
        self.freed = any(node.saved is None for node in nodes)
        self.operator = ReplayedGraph(self)
        self.leaves = list(self.edges)
        del self._numbers, self._leave, self._recorder

    def _described(self, node: Node, inner: bool = False) -> NodeTemplate:
        """``inner`` nodes belong to another one, which hands their gradients on."""
        operator = node.operator
        if not type(operator).__module__.startswith("flambeau.ops"):
            raise NotRepeatable("uses an autograd function of its own where gradients are wanted")
        if node.pre_hooks or node.post_hooks or node.metadata:
            raise NotRepeatable("registers hooks on its intermediate results")
        numbers = node.numbers or [0] * len(node.targets)
        targets = tuple(
            (None if target is None else 0) if inner else self._target(target, number, layout)
            for target, number, layout in zip(node.targets, numbers, node.layouts, strict=True)
        )
        saved = tuple(
            self._saved(value, node.versions[k] if k < len(node.versions) else -1)
            for k, value in enumerate(node.saved or ())
        )
        arguments = node.arguments
        if arguments is not None:
            arguments = {name: self._argument(value) for name, value in arguments.items()}
        return NodeTemplate(
            operator,
            targets,
            None if node.numbers is None else tuple(node.numbers),
            tuple(node.layouts),
            tuple(node.output_layouts),
            saved,
            arguments,
        )

    def _target(self, target: Any, number: int, layout: Layout) -> int | None:
        if target is None:
            return None
        if target in self._numbers:
            return self._numbers[target]
        edge = self.edges.setdefault(self._leave(target, number), len(self.edges))
        if edge == len(self.edge_layouts):
            self.edge_layouts.append(layout)
        return -1 - edge

    def _saved(self, value: Any, version: int) -> Any:
        if isinstance(value, Tensor):
            storage = value._storage
            return Saved(self._part(self._recorder.part(value)), storage.version - version)
        if isinstance(value, SavedResult):
            tensor = Tensor._from_storage(value.storage, value.layout)
            age = value.storage.version - value.version
            return Saved(self._part(self._recorder.part(tensor)), age)
        if isinstance(value, Node):
            return self._described(value, inner=True)
        if value is UNNEEDED or is_plain(value):
            return value
        raise NotRepeatable(f"keeps a {type(value).__name__} for backward")

    def _part(self, part: Part) -> Part:
        """The same, by position among what the node saves."""
        return Part(self._parts.setdefault(part.position, len(self._parts)), part.layout)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._part(self._recorder.part(value))
        if type(value) in (list, tuple):
            return Sequenced(type(value), tuple(map(self._argument, value)))
        if is_plain(value):
            return value
        raise NotRepeatable(f"keeps a {type(value).__name__} for backward")

    # -- replays --------------------------------------------------------------------------------

    def make_node(self, environment: Environment, targets: list[Any], numbers: Any) -> Node:
        """The node of a replay; ``targets`` are the edges' ends, in order."""
        saved = [environment[k] for k in self.positions]
        versions = [storage.version for storage in saved]
        return Node(
            self.operator,
            targets,
            numbers,
            self.edge_layouts,
            self.layouts,
            None if self.freed else saved,
            versions,
            None,
        )

    def build(self, storages: Sequence[Storage], versions: Sequence[int]) -> _Built:
        """The nodes themselves, over these storages."""
        ends = [Tensor._from_storage(_NOWHERE, layout) for layout in self.edge_layouts]
        for end in ends:
            end._requires_grad = True
        nodes: list[Node] = []
        for template in self.nodes:
            saved, kept = _restored(template, storages, versions)
            targets = [
                None if t is None else (nodes[t] if t >= 0 else ends[-1 - t])
                for t in template.targets
            ]
            numbers = template.numbers
            if numbers is not None:
                numbers = [
                    0 if t is None or t < 0 else n
                    for t, n in zip(template.targets, numbers, strict=True)
                ]
            arguments = _arguments_of(template, storages)
            nodes.append(
                Node(
                    template.operator, targets, numbers, template.layouts,
                    template.output_layouts, saved, kept, arguments,
                )
            )  # fmt: skip
        return _Built(nodes, ends)


class _Built:
    __slots__ = ("ends", "nodes")

    def __init__(self, nodes: list[Node], ends: list[Tensor]) -> None:
        self.nodes = nodes
        self.ends = ends


def _node_of(tensor: Tensor) -> Node:
    node = tensor.grad_fn
    assert node is not None
    return node


def _nodes_behind(outputs: Sequence[Tensor], first_sequence: int) -> list[Node]:
    """The graph's nodes that the captured run made, earliest first."""
    found = {_node_of(t) for t in outputs}
    if any(node.sequence < first_sequence for node in found):
        raise NotRepeatable("returns a result of operations that were done before")
    stack = list(found)
    while stack:
        for target in stack.pop().targets:
            is_new = isinstance(target, Node) and target not in found
            if is_new and target.sequence > first_sequence:
                found.add(target)
                stack.append(target)
    return sorted(found, key=lambda node: node.sequence)


def _restored(
    template: NodeTemplate, storages: Sequence[Storage], versions: Sequence[int]
) -> tuple[list[Any], list[int]]:
    saved: list[Any] = []
    kept: list[int] = []
    for value in template.saved:
        if isinstance(value, Saved):
            position = value.part.position
            saved.append(Tensor._from_storage(storages[position], value.part.layout))
            kept.append(versions[position] - value.age)
        else:
            inner = isinstance(value, NodeTemplate)
            saved.append(_inner_node(value, storages, versions) if inner else value)
            kept.append(-1)
    return saved, kept


def _inner_node(
    template: NodeTemplate, storages: Sequence[Storage], versions: Sequence[int]
) -> Node:
    saved, kept = _restored(template, storages, versions)
    targets = [None if t is None else _ANYWHERE for t in template.targets]
    return Node(
        template.operator, targets, None, template.layouts, template.output_layouts, saved, kept,
        _arguments_of(template, storages),
    )  # fmt: skip


def _arguments_of(template: NodeTemplate, storages: Sequence[Storage]) -> Any:
    if template.arguments is None:
        return None
    return {name: _filled(value, storages) for name, value in template.arguments.items()}


def _filled(value: Any, storages: Sequence[Storage]) -> Any:
    if isinstance(value, Part):
        return Tensor._from_storage(storages[value.position], value.layout)
    if isinstance(value, Sequenced):
        return value.kind(_filled(item, storages) for item in value.items)
    return value


@dataclass(frozen=True, slots=True)
class BackwardRecording:
    """A captured backward: ``results`` are the edges' gradients."""

    recording: Recording
    results: tuple[Part | None, ...]


class ReplayedGraph:
    """The operator of a replay's one node."""

    name = "CompiledFunction"
    node_name = "CompiledFunctionBackward"
    several_views = False
    derivative_rule = None

    def __init__(self, template: GraphTemplate) -> None:
        self.template = template
        self.recordings: dict[tuple[Any, ...], BackwardRecording] = {}

    def backward(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the edges."""
        storages = node.saved
        if storages is None:
            raise RuntimeError(FREED)
        if grad_mode.enabled:
            raise RuntimeError(
                "torch.compile with aot_autograd does not currently support double backward"
            )
        given = [grad for grad in grads if grad is not None]
        key = (thread.tape.cursor, *[None if g is None else g._layout for g in grads])
        known = self.recordings.get(key)
        versions = node.versions
        if known is not None and [s.version for s in storages] == versions:
            environment = known.recording.replay_over(
                [*storages, *[grad._storage for grad in given]]
            )
            if environment is not None:
                return [None if r is None else r.make(environment) for r in known.results]
        return self._walk(storages, versions, grads, given, key)

    def _walk(
        self,
        storages: Sequence[Storage],
        versions: Sequence[int],
        grads: Sequence[Tensor | None],
        given: Sequence[Tensor],
        key: tuple[Any, ...],
    ) -> list[Tensor | None]:
        """Walks the graph itself, and captures that."""
        built = self.template.build(storages, versions)
        recorder = Recorder([*map(_Holder, storages), *given], (), own_graph=True)
        found: list[Tensor | None] = recorder.run(self._gradients, built, grads)
        if any(storage.version != then for storage, then in zip(storages, versions, strict=True)):
            return found
        recording = recorder.finish()
        if recording is not None:
            try:
                results = tuple(None if g is None else recorder.part(g) for g in found)
            except NotRepeatable:
                return found
            recording.keep_only({r.position for r in results if r is not None})
            while len(self.recordings) >= MAX_RECORDINGS:
                del self.recordings[next(iter(self.recordings))]
            self.recordings[key] = BackwardRecording(recording, results)
        return found

    def _gradients(self, built: _Built, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        outputs, seeds = [], []
        for (number, output_nr), layout, seed in zip(
            self.template.roots, self.template.layouts, grads, strict=True
        ):
            if seed is None:
                continue
            output = Tensor._from_storage(_NOWHERE, layout)
            output._grad_fn, output._output_nr = built.nodes[number], output_nr
            output._requires_grad = True
            outputs.append(output)
            seeds.append(seed)
        return gradients_at(built.ends, outputs, seeds)


class _Holder:
    """A storage as an input of a recorder, which looks at tensors."""

    __slots__ = ("_grad", "_storage")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._grad = None
