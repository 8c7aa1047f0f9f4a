"""The fields of tensors and of graph nodes, apart from the classes that users see.

Those have what Python alone can give: attributes that users add, subclasses, names made at run
time.  The fields lie in base classes without any of that, which the accelerator can compile
(docs/accelerator.md); recording reads and writes nothing else.
"""

from __future__ import annotations

from typing import Any

from flambeau.core.layout import Layout
from flambeau.engine.storage_fields import StorageFields


class TensorFields:
    """See `flambeau.tensor.Tensor`."""

    __slots__ = (
        "_base", "_grad", "_grad_fn", "_hooks", "_layout", "_output_nr", "_requires_grad",
        "_storage", "_view_version",
    )  # fmt: skip
    _storage: StorageFields
    _layout: Layout
    _requires_grad: bool
    _grad: Any
    _grad_fn: Any
    _output_nr: int
    _base: Any
    _view_version: int
    _hooks: Any


class NodeFields:
    """See `flambeau.graph.Node`."""

    __slots__ = (
        "arguments", "layouts", "metadata", "needs", "numbers", "operator", "output_layouts",
        "post_hooks", "pre_hooks", "saved", "sequence", "targets", "versions",
    )  # fmt: skip
    operator: Any
    targets: Any
    numbers: Any
    layouts: Any
    output_layouts: Any
    saved: Any
    versions: Any
    arguments: Any
    needs: Any
    sequence: int
    pre_hooks: Any
    post_hooks: Any
    metadata: Any


# Objects without values, for code that then sets every field: a constructor costs twice as much.
new_tensor: Any = TensorFields.__new__
new_node: Any = NodeFields.__new__
