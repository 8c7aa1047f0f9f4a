"""Derivatives: what a rule needs kept, and how its gradients are computed from that.

A rule is declared beside its operator (`operator.py`); ``ops/call.py`` saves for it and the
autograd engine runs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.layout import Layout
from flambeau.graph import Node, SavedResult, above
from flambeau.ops.schema import Schema
from flambeau.tensor import Tensor

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)


class Derivative:
    """A derivative rule and where each of its parameters comes from.

    ``grad`` (or ``grad0``, ``grad1`` …) are the outputs' gradients, ``result`` (``result0`` …) the
    outputs, ``needs`` the set of input names whose gradient is wanted, ``layouts`` those of all
    inputs, ``self_layout`` the layout of
    the input ``self`` (its contents are not kept); any other name is an argument of the operator.
    """

    def __init__(
        self, schema: Schema, defaults: dict[str, Any], rule: Callable[..., dict[str, Any]]
    ) -> None:
        self.rule = rule
        self.defaults = defaults
        names = [p.name for p in schema.parameters]
        self.parameters = tuple(inspect.signature(rule).parameters)
        self.tensor_names = tuple(p.name for p in schema.parameters if p.is_tensor)
        self.saved_inputs = tuple(
            k for k, name in enumerate(self.tensor_names) if name in self.parameters
        )
        # Saved inputs, and the inputs whose gradients each is for; None: always kept.
        self.saved_when: tuple[tuple[int, tuple[int, ...] | None], ...] = tuple(
            (k, None) for k in self.saved_inputs
        )
        # Both of two operands are saved, each for the other's gradient: a product.
        self.keeps_the_other = False
        self.saved_results = tuple(
            int(name[6:] or 0) for name in self.parameters if name.startswith("result")
        )
        self.arguments = tuple(
            name for name in self.parameters if name in names and name not in self.tensor_names
        )
        self.saves = bool(self.saved_inputs or self.saved_results)
        self.recipe = tuple(self._source(name, names) for name in self.parameters)
        self.list_name = next((p.name for p in schema.parameters if p.kind == "Tensor[]"), None)

        self.known_needs: dict[int, frozenset[str]] = {}

    def run(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The inputs' gradients of a node, one per tensor input."""
        # Hot path: once per node of the graph.
        saved = node.saved
        if saved is None and self.saves:
            raise RuntimeError(FREED)
        values: list[Any] = []
        for kind, which in self.recipe:
            if kind == "saved":
                assert saved is not None
                value = saved[which]
                if type(value) is Tensor:
                    if value._storage.version != node.versions[which]:
                        refuse_changed(value, node.versions[which], node)
                elif value is UNNEEDED:
                    layout = node.layouts[self.saved_inputs[which]]
                    value = layout.views.get(UNNEEDED)
                    if value is None:
                        value = layout.views[UNNEEDED] = above.stand_in(layout)
                elif type(value) is SavedResult:
                    value = unpack_result(value, node)
                elif isinstance(value, Tensor) and value._storage.version != node.versions[which]:
                    refuse_changed(value, node.versions[which], node)
                values.append(value)
            elif kind == "grad":
                gradient = grads[which]
                if gradient is None:
                    gradient = above.zeros(node.output_layouts[which])
                values.append(gradient)
            elif kind == "needs":
                values.append(node.needs or self.needs_of(node.targets))
            elif kind == "argument":
                arguments = node.arguments
                values.append(self.defaults[which] if arguments is None else arguments[which])
            elif kind == "layout":
                values.append(node.layouts[which])
            elif kind == "layouts":
                values.append(node.layouts)
            else:
                values.append(grads[which])
        found = self.rule(*values)
        if self.list_name is not None:
            return list(found[self.list_name])
        gradients = []
        for name in self.tensor_names:
            gradients.append(found.get(name))
        return gradients

    def needs_of(self, targets: Sequence[Any]) -> frozenset[str]:
        """The names of the inputs whose gradients go somewhere."""
        wanted = 0
        bit = 1
        for target in targets:
            if target is not None:
                wanted |= bit
            bit <<= 1
        found = self.known_needs.get(wanted)
        if found is None:
            names = enumerate(self.tensor_names)
            found = self.known_needs[wanted] = frozenset(
                name for k, name in names if wanted >> k & 1
            )
        return found

    def _source(self, name: str, names: Sequence[str]) -> tuple[str, Any]:
        """Where the value of a parameter comes from: a kind, and an index or a name."""
        if name in self.tensor_names:
            return "saved", self.saved_inputs.index(self.tensor_names.index(name))
        if name in names:
            return "argument", name
        if name in ("needs", "layouts"):
            return name, None
        stem, digits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
        if stem in ("grad", "given"):
            return stem, int(digits or 0)
        if stem == "result":
            results = self.saved_results.index(int(digits or 0))
            return "saved", len(self.saved_inputs) + results
        stem = name.removesuffix("_layout")
        assert stem in self.tensor_names, f"unknown parameter {name} of a derivative"
        return "layout", self.tensor_names.index(stem)

    def set_conditions(self, inputs: dict[str, str]) -> None:
        names = self.tensor_names
        self.saved_when = tuple(
            (k, tuple(names.index(n) for n in inputs[names[k]].split()))
            if names[k] in inputs
            else (k, None)
            for k in self.saved_inputs
        )
        self.keeps_the_other = (
            self.saved_when == ((0, (1,)), (1, (0,))) and len(names) == 2 and not self.saved_results
        )

    def keeps(self, position: int, targets: Sequence[Any]) -> bool:
        """Whether the input at ``position`` is saved, given where gradients are wanted."""
        condition = dict(self.saved_when)[position]
        return condition is None or any(targets[k] is not None for k in condition)


def unpack_result(saved: SavedResult, node: Node) -> Tensor:
    """A node's own result, unchanged since, with its place in the graph again."""
    if saved.storage.version != saved.version:
        check_version(saved.storage.version, saved.version, saved.layout, node, None)
    tensor = Tensor._from_storage(saved.storage, saved.layout)
    if saved.layout.dtype.is_differentiable:
        tensor._grad_fn = node
        tensor._output_nr = saved.output_nr
        tensor._requires_grad = True
    return tensor


def refuse_changed(tensor: Tensor, version: int, node: Node) -> None:
    """PyTorch's error where a saved input was written since it had that version."""
    check_version(tensor._storage.version, version, tensor._layout, node, tensor)


def check_version(now: int, then: int, layout: Layout, node: Node, tensor: Tensor | None) -> None:
    """PyTorch's error where a saved tensor was written in place since."""
    if now == then:
        return
    maker = node if tensor is None else tensor._grad_fn
    output = 0 if tensor is None else tensor._output_nr
    made_by = "" if maker is None else maker.name().split("Backward")[0]
    which = f", which is output {output} of {made_by}," if made_by else ""
    raise RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [torch.{layout.dtype.title}Tensor {list(layout.shape)}]{which} is at version "
        f"{now}; expected version {then} instead. Hint: enable anomaly detection to find the "
        "operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True, check_nan=False)."
    )


class _Unneeded:
    """Stands for an input that was not saved because no wanted gradient depends on it."""

    def __repr__(self) -> str:
        return "<not saved>"


UNNEEDED = _Unneeded()
