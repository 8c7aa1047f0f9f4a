"""``backward()``: walking the graph from outputs to leaves.

Nodes run in order of readiness, among ready ones the one recorded last first, as in PyTorch.  A
node's derivative is tensor code; what it computes is recorded on the tape like everything else, so
a gradient that nobody asks for is never computed.
"""

from __future__ import annotations

import heapq
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.autograd.anomaly import check_results
from flambeau.core.layout import Layout, is_dense
from flambeau.engine.storage import Storage
from flambeau.engine.tape import thread
from flambeau.engine.watch import keep_lasting, watch
from flambeau.graph import Node, above, grad_mode
from flambeau.ops import view
from flambeau.ops.creation import filled, ones_like
from flambeau.ops.declare import copy, copy_
from flambeau.ops.pointwise import add
from flambeau.ops.reduction import sum_to_shape
from flambeau.tensor import Tensor


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Adds the gradients of ``tensors`` to the leaves' ``grad``.

    ``grad_tensors`` are the vectors of the vector-Jacobian product, one per tensor; None for a
    scalar means 1.  With ``inputs`` only those leaves get gradients.
    """
    outputs = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
    seeds = _seeds(outputs, grad_tensors)
    wanted: list[Tensor] | None = None
    if inputs is not None:
        wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not wanted:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    keep = create_graph if retain_graph is None else retain_graph
    if create_graph:
        _warn_of_cycle()
    _Walk(outputs, seeds, keep, create_graph, wanted, accumulate=True).run()


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, which need not be leaves.

    Raises RuntimeError where an input was not used and ``allow_unused`` is false.
    """
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    seeds = _seeds(outputs, grad_outputs)
    for tensor in inputs:
        if not tensor.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    keep = create_graph if retain_graph is None else retain_graph
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False."
        )
    walk = _Walk(outputs, seeds, keep, create_graph, list(inputs), accumulate=False)
    walk.run()
    found = [walk.captured.get(id(tensor)) for tensor in inputs]
    if materialize_grads:
        return tuple(
            filled(t._layout.contiguous(), 0) if g is None else g
            for t, g in zip(inputs, found, strict=True)
        )
    unused = [position for position, gradient in enumerate(found) if gradient is None]
    if unused and not allow_unused:
        raise RuntimeError(
            f"The differentiated Tensor at index {unused[0]} appears to not have been used in the "
            "graph. Set allow_unused=True if this is the desired behavior."
        )
    return tuple(found)


def gradients_at(
    ends: Sequence[Tensor], outputs: Sequence[Tensor], seeds: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients that arrive at these leaves, which nobody accumulates; frees the graph."""
    walk = _Walk(outputs, seeds, False, False, None, accumulate=False)
    walk.run()
    return [walk.captured.get(id(end)) for end in ends]


def _warn_of_cycle() -> None:
    warnings.warn(
        "Using backward() with create_graph=True will create a reference cycle between the "
        "parameter and its gradient which can cause a memory leak. We recommend using "
        "autograd.grad when creating the graph to avoid this. If you have to use this function, "
        "make sure to reset the .grad fields of your parameters to None after use to break the "
        "cycle and avoid the leak.",
        UserWarning,
        stacklevel=4,
    )


def _seeds(outputs: Sequence[Tensor], given: Any) -> list[Tensor]:
    if given is None or isinstance(given, Tensor):
        given = (given,) * len(outputs) if given is None else (given,)
    if len(given) != len(outputs):
        if len(given) < len(outputs):
            raise RuntimeError(f"got {len(outputs)} tensors and {len(given)} gradients")
        given = given[: len(outputs)]
    seeds = []
    for k, (output, seed) in enumerate(zip(outputs, given, strict=True)):
        if not output.requires_grad:
            raise RuntimeError(
                f"element {k} of tensors does not require grad and does not have a grad_fn"
            )
        if seed is None:
            if output.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            seed = ones_like(output)
        elif seed.shape != output.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{k}] has a shape of {seed.shape} and output[{k}] "
                f"has a shape of {output.shape}."
            )
        seeds.append(seed if seed._requires_grad else alias(seed))
    return seeds


class _Walk:
    """One backward pass."""

    def __init__(
        self,
        outputs: Sequence[Tensor],
        seeds: Sequence[Tensor],
        keep_graph: bool,
        create_graph: bool,
        wanted: list[Tensor] | None,
        accumulate: bool,
    ) -> None:
        self.keep_graph = keep_graph
        self.create_graph = create_graph
        self.accumulate = accumulate
        self.checks_nan = grad_mode.checks_nan
        self.wanted = wanted
        self.captured: dict[int, Tensor] = {}
        self.captures: dict[tuple[Node, int], Tensor] = {}
        if wanted is not None:
            for t in wanted:
                function = t.grad_fn
                if function is not None:
                    self.captures[function, t._output_nr] = t
        # Gradients that wait: per node and output, and per leaf.
        self.waiting: dict[Node, list[Tensor | None]] = {}
        self.leaf_grads: dict[Tensor, Tensor] = {}
        self.roots: list[tuple[Any, int, Tensor]] = []
        for output, seed in zip(outputs, seeds, strict=True):
            self.roots.append((output.grad_fn or output, output._output_nr, seed))
        roots = [root for root, _, _ in self.roots]
        # Where gradients go at all; None: everywhere.
        self.needed = None if wanted is None else _leading_to(wanted, roots)
        self.pending = _count_edges(roots, self.needed)
        # Nodes that have all their gradients: a heap, and the one that is before all in it.
        self.ready: list[tuple[int, Node]] = []
        self.following: Node | None = None

    def run(self) -> None:
        if watch.capture is not None:
            watch.capture.enter_graph(self.pending)
        tape = thread.tape
        previous = tape.grad_enabled
        tape.grad_enabled = self.create_graph
        try:
            for root, number, seed in self.roots:
                self._deliver(root, number, seed)
            for root in dict.fromkeys(root for root, _, _ in self.roots):
                if not self.pending[root] and (self.needed is None or root in self.needed):
                    self._complete(root)
            self._run_ready()
        finally:
            tape.grad_enabled = previous

    def _run_ready(self) -> None:
        # Hot path: once per node of the graph.
        ready, keep_graph = self.ready, self.keep_graph
        waiting, pending = self.waiting, self.pending
        selective = bool(self.captures) or self.checks_nan or self.needed is not None
        while True:
            node = self.following
            if node is not None:
                self.following = None
            elif ready:
                node = heapq.heappop(ready)[1]
            else:
                return
            if selective or node.metadata or node.pre_hooks or node.post_hooks:
                self._run_node(node)
                continue
            grads = waiting.pop(node, None)
            if grads is None or (grads[0] is None and not _any_given(grads)):
                results: Sequence[Any] = [None] * len(node.targets)
            else:
                results = node.operator.backward(node, grads)
            if not keep_graph:
                node.saved = None
            # A leaf takes a gradient over when nobody else refers to it: these need not any more.
            grads = None
            if node.numbers is not None:
                self._hand_on(node, results)
                continue
            # `_hand_on` for the first outputs of nodes, in a walk that leaves nothing out.
            layouts = node.layouts
            k = -1
            for target in node.targets:
                k += 1
                if target is None:
                    continue
                gradient = results[k]
                if gradient is not None:
                    if gradient._layout is not layouts[k]:
                        gradient = fit_gradient(gradient, layouts[k])
                    if type(target) is not Node or target in waiting:
                        self._deliver(target, 0, gradient)
                    elif len(target.output_layouts) == 1:
                        waiting[target] = [gradient]
                    else:
                        self._deliver(target, 0, gradient)
                    gradient = None
                left = pending[target] = pending[target] - 1
                if not left:
                    self._complete(target)

    def _deliver(self, target: Any, number: int, gradient: Tensor) -> None:
        """Adds a gradient to what the target has."""
        if isinstance(target, Node):
            slots = self.waiting.get(target)
            if slots is None:
                slots = self.waiting[target] = [None] * len(target.output_layouts)
            have = slots[number]
            slots[number] = gradient if have is None else add(have, gradient)
            return
        have = self.leaf_grads.get(target)
        self.leaf_grads[target] = gradient if have is None else add(have, gradient)

    def _complete(self, target: Any) -> None:
        """The target has all its gradients."""
        if type(target) is not Node and not isinstance(target, Node):
            self._finish_leaf(target)
            return
        following = self.following
        if following is None:
            ready = self.ready
            if not ready or -ready[0][0] < target.sequence:
                self.following = target
            else:
                heapq.heappush(ready, (-target.sequence, target))
        elif following.sequence < target.sequence:
            heapq.heappush(self.ready, (-following.sequence, following))
            self.following = target
        else:
            heapq.heappush(self.ready, (-target.sequence, target))

    def _run_node(self, node: Node) -> None:
        """A node with hooks, or in a walk that captures, checks or leaves out something."""
        grads = self.waiting.pop(node, None)
        results: Sequence[Any]
        if grads is None:
            grads = [None] * len(node.output_layouts)
        if node.metadata:
            grads = self._call_tensor_hooks(node, grads)
        if self.captures:
            self._capture(node, grads)
        if node.pre_hooks:
            grads = _call_pre_hooks(node, grads)
        if _any_given(grads) and self._hands_on(node):
            results = node.operator.backward(node, grads)
            if self.checks_nan:
                check_results(node.name(), results)
        else:
            results = [None] * len(node.targets)
        if node.post_hooks:
            results = self._call_post_hooks(node, results, grads)
        if not self.keep_graph:
            node.saved = None
        # As above.
        del grads
        self._hand_on(node, results)

    def _hands_on(self, node: Node) -> bool:
        """Whether anything that was asked for lies behind the node."""
        return self.needed is None or not self.needed.isdisjoint(node.targets)

    def _hand_on(self, node: Node, results: Sequence[Any]) -> None:
        """Delivers a node's results to where they go."""
        numbers, layouts, pending = node.numbers, node.layouts, self.pending
        needed = self.needed
        k = -1
        for target in node.targets:
            k += 1
            if target is None or (needed is not None and target not in needed):
                continue
            gradient = results[k]
            if gradient is not None:
                if gradient._layout is not layouts[k]:
                    gradient = fit_gradient(gradient, layouts[k])
                self._deliver(target, 0 if numbers is None else numbers[k], gradient)
            left = pending[target] = pending[target] - 1
            if not left:
                self._complete(target)

    def _call_tensor_hooks(self, node: Node, grads: list[Any]) -> list[Any]:
        if "tensors" not in node.metadata:
            return grads
        for number, (hooks, reference) in node.metadata["tensors"].items():
            gradient = grads[number]
            if gradient is None:
                continue
            for hook in tuple(hooks.gradient.values()):
                gradient = _call_hook(hook, gradient)
            grads[number] = gradient
            tensor = reference()
            if hooks.retains_grad and tensor is not None:
                have = tensor._grad
                tensor._grad = alias(gradient) if have is None else add(have, gradient)
        return grads

    def _capture(self, node: Node, grads: Sequence[Any]) -> None:
        """``grad()`` with respect to tensors that are not leaves."""
        for number, gradient in enumerate(grads):
            tensor = self.captures.get((node, number))
            if tensor is None or gradient is None:
                continue
            self.captured[id(tensor)] = gradient
            if self.accumulate:
                accumulate(tensor, gradient, self.create_graph)

    def _call_post_hooks(
        self, node: Node, results: Sequence[Any], grads: Sequence[Any]
    ) -> Sequence[Any]:
        results = [None if t is None else r for t, r in zip(node.targets, results, strict=False)]
        for hook in tuple(node.post_hooks.values()):
            replaced = hook(tuple(results), tuple(grads))
            if replaced is not None:
                results = replaced if isinstance(replaced, tuple) else (replaced,)
        return results

    def _finish_leaf(self, leaf: Tensor) -> None:
        gradient = self.leaf_grads.pop(leaf, None)
        if gradient is None:
            return
        hooks = leaf._hooks
        if hooks is not None:
            for hook in tuple(hooks.gradient.values()):
                gradient = _call_hook(hook, gradient)
        if not self.accumulate:
            self.captured[id(leaf)] = gradient
            return
        if hooks is None:
            accumulate(leaf, gradient, self.create_graph)
            return
        for before in tuple(hooks.before.values()):
            replaced = before((gradient,))
            if replaced is not None:
                gradient = replaced[0] if isinstance(replaced, tuple) else replaced
        accumulate(leaf, gradient, self.create_graph)
        for after in tuple(hooks.accumulated.values()):
            after(leaf)
        for behind in tuple(hooks.after.values()):
            behind((), (gradient,))


def _leading_to(wanted: Sequence[Tensor], roots: Sequence[Any]) -> set[Any]:
    """The nodes and leaves through which gradients reach the wanted tensors."""
    needed: set[Any] = {t.grad_fn or t for t in wanted}
    nodes = {root for root in roots if isinstance(root, Node)}
    stack = list(nodes)
    while stack:
        for target in stack.pop().targets:
            if isinstance(target, Node) and target not in nodes:
                nodes.add(target)
                stack.append(target)
    # What a node's gradients go to was always made before it.
    for node in sorted(nodes, key=lambda n: n.sequence):
        if not needed.isdisjoint(node.targets):
            needed.add(node)
    return needed


def _count_edges(roots: Sequence[Any], needed: set[Any] | None) -> dict[Any, int]:
    """How many gradients each node and each leaf still waits for."""
    pending: dict[Any, int] = dict.fromkeys(roots, 0)
    stack = [root for root in pending if isinstance(root, Node)]
    while stack:
        for target in stack.pop().targets:
            if target is None or (needed is not None and target not in needed):
                continue
            known = pending.get(target)
            if known is not None:
                pending[target] = known + 1
                continue
            pending[target] = 1
            if type(target) is Node or isinstance(target, Node):
                stack.append(target)
    return pending


def _any_given(grads: Sequence[Any]) -> bool:
    for gradient in grads:
        if gradient is not None:
            return True
    return False


def _call_pre_hooks(node: Node, grads: Sequence[Any]) -> list[Any]:
    for hook in tuple(node.pre_hooks.values()):
        replaced = hook(tuple(grads))
        if replaced is not None:
            grads = replaced if isinstance(replaced, tuple) else (replaced,)
    return list(grads)


def accumulate(leaf: Tensor, gradient: Tensor, create_graph: bool) -> None:
    """``leaf.grad += gradient``; a first gradient that nobody else holds is taken as it is."""
    have = leaf._grad
    if have is None:
        if not create_graph:
            gradient = _own(gradient, leaf._layout)
        leaf._grad = gradient
    elif create_graph:
        leaf._grad = add(have, gradient)
    else:
        add.record([have, gradient, 1], None, inplace=True)


def _own(gradient: Tensor, layout: Layout) -> Tensor:
    """A gradient laid out as the leaf is, in memory of its own.

    One whose storage nobody else refers to is taken; references are counted as in PyTorch.
    """
    storage, mine = gradient._storage, gradient._layout
    unshared = 3 + (storage.tape is not None)  # this name, the tensor, the argument; the tape
    base = gradient._base
    if base is not None and sys.getrefcount(base) <= 3:  # this name, the view, the argument
        unshared += 1
    if mine.strides == layout.strides and mine.offset == 0 and gradient._grad_fn is None:
        if sys.getrefcount(storage) <= unshared:
            return Tensor._from_storage(storage, mine)
    if mine.strides == layout.strides or not is_dense(layout):
        return copy(gradient)
    wanted = Layout.of(layout.shape, mine.dtype, mine.device, layout.strides)
    fresh = Tensor._from_storage(Storage(wanted.nbytes, wanted.device), wanted)
    return copy_(fresh, gradient)


def alias(tensor: Tensor) -> Tensor:
    """Another tensor object over the same memory, so that its owner's claim can be counted."""
    return Tensor._from_storage(tensor._storage, tensor._layout)


def _call_hook(hook: Any, gradient: Tensor) -> Tensor:
    returned = hook(gradient)
    if returned is None:
        return gradient
    if not isinstance(returned, Tensor):
        raise TypeError(f"expected Variable, but hook returned '{type(returned).__name__}'")
    if returned.shape != gradient.shape:
        name = getattr(hook, "__name__", type(hook).__name__)
        raise RuntimeError(f"hook '{name}' has changed the size of value")
    return returned


def fit_gradient(gradient: Tensor, layout: Layout | None) -> Tensor:
    """The gradient in its input's shape and type: broadcast dimensions are summed."""
    mine = gradient._layout
    if layout is None:
        return gradient
    if mine.shape != layout.shape:
        gradient = sum_to_shape(gradient, layout.shape)
    if mine.dtype is not layout.dtype:
        gradient = gradient.to(layout.dtype)  # type: ignore[attr-defined]
    return gradient


def _stand_in(layout: Layout) -> Tensor:
    """In the place of an input that only unwanted gradients depend on; never computed with."""
    zero = filled(Layout.of((), layout.dtype), 0)
    keep_lasting(zero._storage)
    return view.expand(zero, tuple(layout.shape))


def tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
    **old: Any,
) -> None:
    """``Tensor.backward``."""
    if "retain_variables" in old:
        warnings.warn("retain_variables is now retain_graph", FutureWarning, stacklevel=2)
        retain_graph = old.pop("retain_variables")
    if old:
        raise TypeError(f"Tensor.backward() got an unexpected keyword argument '{next(iter(old))}'")
    backward((self,), gradient, retain_graph, create_graph, inputs)


def graph_gradients(
    function: Callable[..., Sequence[Tensor]],
    inputs: dict[str, Tensor | None],
    grads: Sequence[Tensor | None],
) -> dict[str, Tensor | None]:
    """Gradients of ``function(**inputs)`` by the inputs' names, as graph; see `graph.Above`."""
    # Aliases, so that the walk ends here and meets no hooks of the tensors themselves.
    own = {name: None if t is None else view.view_as_is(t) for name, t in inputs.items()}
    wanted = {name: t for name, t in own.items() if t is not None and t.requires_grad}
    outputs = [
        (output, gradient)
        for output, gradient in zip(function(**own), grads, strict=False)
        if gradient is not None
    ]
    found = grad(
        [output for output, _ in outputs],
        list(wanted.values()),
        [gradient for _, gradient in outputs],
        create_graph=True,
        allow_unused=True,
    )
    return dict(zip(wanted, found, strict=True))


above.zeros = lambda layout: filled(layout.contiguous(), 0)
above.stand_in = _stand_in
above.gradients = graph_gradients
