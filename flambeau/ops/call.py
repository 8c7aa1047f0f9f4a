"""THE path of every operator: recording a call on the tape and a node in the autograd graph.

This is the hot path: the unary and binary forms are written out flat, because the general one costs
two to three times as much (measured: 0.5 against 1.3 microseconds for ``a + b``).
`tests/ops/test_call.py` checks them against the general one.

Every form goes the same way: announce that this thread records, bind the operands to slots, find
the call of that key, give its results the next slots, move the cursor, leave.  In this order an
exception or an interrupt anywhere leaves a tape that is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core.layout import Layout
from flambeau.engine.call import Call
from flambeau.engine.storage import Storage
from flambeau.engine.storage_fields import StorageFields, new_storage
from flambeau.engine.tape import Tape, thread
from flambeau.engine.turns import IDLE, RECORDING
from flambeau.fields import NodeFields, new_node, new_tensor
from flambeau.fields import TensorFields as Fields
from flambeau.graph import Node, SavedResult, above, next_sequence
from flambeau.ops.derivative import UNNEEDED
from flambeau.tensor import UNTRACKED, Tensor

# Slot numbers of operands that are not tensors: absent, or a Python number passed at run time.
ABSENT = -2
# Tells the key of a call that writes into its first operand from one with a new result.
IN_PLACE = "in place"
_INT64_LIMIT = 1 << 63


def fresh(tape: Tape, layout: Layout) -> Fields:
    """A tensor whose contents the call just recorded will write: the next slot of the tape."""
    storage: StorageFields = new_storage(Storage)
    storage.nbytes = layout.nbytes
    storage.device = layout.device
    storage.block = None
    storage.tape = tape
    storage.slot = len(tape.slots)
    storage.version = 0
    storage.exports = 0
    tensor: Fields = new_tensor(Tensor)
    tensor._storage = storage
    tensor._layout = layout
    tensor._requires_grad = False
    tensor._grad = None
    tensor._grad_fn = None
    tensor._output_nr = 0
    tensor._base = None
    tensor._view_version = 0
    tensor._hooks = None
    tape.slots.append(storage)
    return tensor


# -- the general form --------------------------------------------------------------------------


def record(
    op: Any,
    operands: Sequence[Fields | type | None],
    static: tuple[Any, ...],
    numbers: Sequence[int | float] = (),
    destinations: Sequence[Fields] = (),
) -> tuple[Fields, ...]:
    """Records one call; returns its new tensors (none where it writes into ``destinations``).

    An operand is a tensor, None, or the type of a Python number that stands in a tensor's place and
    is among ``numbers``.  ``static`` is everything else that the call's meaning depends on.
    """
    tape = thread.tape
    tape.busy = RECORDING
    if tape.flushing:
        tape.wait_turn()
    slots = []
    layouts: list[Any] = []
    for operand in operands:
        if isinstance(operand, Fields):
            storage = operand._storage
            slots.append(storage.slot if storage.tape is tape else tape.bind(storage))
            layouts.append(operand._layout)
        else:
            slots.append(ABSENT)
            layouts.append(operand)
    if destinations:
        written = []
        for tensor in destinations:
            storage = tensor._storage
            slot = storage.slot if storage.tape is tape else tape.bind(storage)
            written.append((slot, tensor._layout))
        key = (op, len(tape.slots), tuple(slots), tuple(layouts), static, tuple(written))
    else:
        key = (op, len(tape.slots), tuple(slots), tuple(layouts), static, ())
    call = tape.cursor.next
    if call is None or call.key != key:
        call = _advance_general(tape, key)
    outputs = call.outputs
    results: tuple[Fields, ...]
    if len(outputs) == 1:
        results = (fresh(tape, outputs[0]),)
    else:
        results = tuple([fresh(tape, layout) for layout in outputs])
    tape.cursor = call
    if numbers:
        tape.scalars += numbers
    tape.busy = IDLE
    for tensor in destinations:
        if tensor._view_version != UNTRACKED:
            tensor._storage.version += 1
    tape.remaining -= 1
    if tape.remaining <= 0:
        tape.flush()
    return results


def record_seen_as(
    op: Any, operands: Sequence[Fields], layouts: tuple[Layout, ...], result_layout: Layout
) -> Fields:
    """Records one call over tensors seen with other layouts; its one result, seen with another.

    For composites that look at their operands through views which nobody else needs.
    """
    # Hot path: every linear layer outside of graphs.
    tape = thread.tape
    tape.busy = RECORDING
    if tape.flushing:
        tape.wait_turn()
    slots = []
    for operand in operands:
        storage = operand._storage
        slots.append(storage.slot if storage.tape is tape else tape.bind(storage))
    key = (op, len(tape.slots), tuple(slots), layouts, (), ())
    call = tape.cursor.next
    if call is None or call.key != key:
        call = _advance_general(tape, key)
    result = fresh(tape, call.outputs[0])
    result._layout = result_layout
    tape.cursor = call
    tape.busy = IDLE
    tape.remaining -= 1
    if tape.remaining <= 0:
        tape.flush()
    return result


def _advance_general(tape: Tape, key: tuple[Any, ...]) -> Call:
    op, first, slots, layouts, static, destinations = key
    return tape.advance(key, lambda: op.build((op, slots, layouts, static, destinations), first))


# -- the forms written out ---------------------------------------------------------------------
#
# Each is made once per operator, as the function that becomes a method of ``Tensor``.  Those of one
# and two tensors make their result without `fresh`: a call less is a tenth of their time.


def unary_form(op: Any) -> Callable[[Fields], Fields]:
    """Records ``op`` on one tensor, with no other argument."""

    def record_unary(a: Fields) -> Fields:
        tape = thread.tape
        tape.busy = RECORDING
        if tape.flushing:
            tape.wait_turn()
        storage = a._storage
        slot = storage.slot if storage.tape is tape else tape.bind(storage)
        layout = a._layout
        slots = tape.slots
        first = len(slots)
        call = tape.cursor.next
        if (
            call is None
            or call.op is not op
            or call.first != first
            or call.layout_a is not layout
            or call.layout_b is not None
            or call.slot_a != slot
        ):
            call = _advance(tape, op, first, slot, layout, ABSENT, None)
        layout = call.outputs[0]
        storage = new_storage(Storage)
        storage.nbytes = layout.nbytes
        storage.device = layout.device
        storage.block = None
        storage.tape = tape
        storage.slot = first
        storage.version = 0
        storage.exports = 0
        result: Fields = new_tensor(Tensor)
        result._storage = storage
        result._layout = layout
        result._requires_grad = False
        result._grad = None
        result._grad_fn = None
        result._output_nr = 0
        result._base = None
        result._view_version = 0
        result._hooks = None
        slots.append(storage)
        tape.cursor = call
        tape.busy = IDLE
        if tape.grad_enabled and (a._requires_grad if a._base is None else a.requires_grad):
            if op.differentiable:
                _attach_first(op, call, a, result)
        remaining = tape.remaining = tape.remaining - 1
        if remaining <= 0:
            tape.flush()
        return result

    return record_unary


def number_form(op: Any) -> Callable[[Fields, int | float], Fields]:
    """Records ``op`` on a tensor and a Python number (a float, or an int of 64 bits)."""

    def record_number(a: Fields, number: int | float) -> Fields:
        tape = thread.tape
        tape.busy = RECORDING
        if tape.flushing:
            tape.wait_turn()
        storage = a._storage
        slot = storage.slot if storage.tape is tape else tape.bind(storage)
        layout = a._layout
        kind = type(number)
        first = len(tape.slots)
        call = tape.cursor.next
        if (
            call is None
            or call.op is not op
            or call.first != first
            or call.layout_a is not layout
            or call.layout_b is not kind
            or call.slot_a != slot
        ):
            call = _advance(tape, op, first, slot, layout, ABSENT, kind)
        result = fresh(tape, call.outputs[0])
        tape.cursor = call
        tape.scalars.append(number)
        tape.busy = IDLE
        if tape.grad_enabled and (a._requires_grad if a._base is None else a.requires_grad):
            if op.differentiable:
                attach(op, (a, number), (result,), None)
        remaining = tape.remaining = tape.remaining - 1
        if remaining <= 0:
            tape.flush()
        return result

    return record_number


def binary_form(op: Any, otherwise: Callable[[Fields, Any], Any]) -> Callable[[Fields, Any], Any]:
    """Records ``op`` on two tensors, or on a tensor and a Python number.

    ``otherwise(a, b)`` is asked where ``b`` is neither.
    """
    record_number = number_form(op)

    def record_binary(a: Fields, b: Any) -> Any:
        kind = type(b)
        if kind is not Tensor:
            if kind is float or (kind is int and -_INT64_LIMIT <= b < _INT64_LIMIT):
                return record_number(a, b)
            if not isinstance(b, Fields):
                return otherwise(a, b)
        tape = thread.tape
        tape.busy = RECORDING
        if tape.flushing:
            tape.wait_turn()
        storage = a._storage
        slot_a = storage.slot if storage.tape is tape else tape.bind(storage)
        storage = b._storage
        slot_b = storage.slot if storage.tape is tape else tape.bind(storage)
        layout = a._layout
        layout_b = b._layout
        slots = tape.slots
        first = len(slots)
        call = tape.cursor.next
        if (
            call is None
            or call.op is not op
            or call.first != first
            or call.layout_a is not layout
            or call.layout_b is not layout_b
            or call.slot_a != slot_a
            or call.slot_b != slot_b
        ):
            call = _advance(tape, op, first, slot_a, layout, slot_b, layout_b)
        layout = call.outputs[0]
        storage = new_storage(Storage)
        storage.nbytes = layout.nbytes
        storage.device = layout.device
        storage.block = None
        storage.tape = tape
        storage.slot = first
        storage.version = 0
        storage.exports = 0
        result: Fields = new_tensor(Tensor)
        result._storage = storage
        result._layout = layout
        result._requires_grad = False
        result._grad = None
        result._grad_fn = None
        result._output_nr = 0
        result._base = None
        result._view_version = 0
        result._hooks = None
        slots.append(storage)
        tape.cursor = call
        tape.busy = IDLE
        if tape.grad_enabled:
            needs_a = a._requires_grad if a._base is None else a.requires_grad
            needs_b = b._requires_grad if b._base is None else b.requires_grad
            if (needs_a or needs_b) and op.differentiable:
                _attach_pair(op, call, a, needs_a, b, needs_b, result)
        remaining = tape.remaining = tape.remaining - 1
        if remaining <= 0:
            tape.flush()
        return result

    return record_binary


def _advance(
    tape: Tape, op: Any, first: int, slot_a: int, layout_a: Layout, slot_b: int, layout_b: Any
) -> Call:
    """The call of the written-out forms that the cursor did not expect."""
    key = (op, first, slot_a, layout_a, slot_b, layout_b)

    def build() -> Call:
        if layout_b is None:
            static = op.static_of(layout_a)
            call: Call = op.build((op, (slot_a,), (layout_a,), static, ()), first)
            call.layouts = (layout_a,)
        else:
            static = op.default_static
            operands = (slot_a, slot_b), (layout_a, layout_b)
            call = op.build((op, *operands, static, ()), first)
            call.layouts = (layout_a, layout_b if isinstance(layout_b, Layout) else None)
        call.op, call.first = op, first
        call.slot_a, call.layout_a = slot_a, layout_a
        call.slot_b, call.layout_b = slot_b, layout_b
        return call

    return tape.advance(key, build)


def record_inplace(op: Any, a: Fields, b: Fields | int | float) -> Fields:
    """Writes the result into ``a``; neither operand takes part in a graph."""
    tape = thread.tape
    tape.busy = RECORDING
    if tape.flushing:
        tape.wait_turn()
    storage = a._storage
    slot = storage.slot if storage.tape is tape else tape.bind(storage)
    if isinstance(b, Fields):
        storage = b._storage
        slot_b = storage.slot if storage.tape is tape else tape.bind(storage)
        key: Any = (op, len(tape.slots), slot, a._layout, slot_b, b._layout, IN_PLACE)
    else:
        key = (op, len(tape.slots), slot, a._layout, ABSENT, b.__class__, IN_PLACE)
    call = tape.cursor.next
    if call is None or call.key != key:
        call = _advance_inplace(tape, key, a, b)
    tape.cursor = call
    if call.scalars:
        number: Any = b
        tape.scalars.append(number)
    tape.busy = IDLE
    if a._view_version != UNTRACKED:
        a._storage.version += 1
    tape.remaining -= 1
    if tape.remaining <= 0:
        tape.flush()
    return a


def _advance_inplace(tape: Tape, key: tuple[Any, ...], a: Fields, b: Any) -> Call:
    op, first, slot_a, layout_a, slot_b, layout_b, _ = key
    general = (op, (slot_a, slot_b), (layout_a, layout_b), op.default_static, ((slot_a, layout_a),))

    def build() -> Call:
        op.check_destination(a, (a, b))
        return op.build(general, first)

    return tape.advance(key, build)


# -- the graph ---------------------------------------------------------------------------------


def needs_graph(tensors: Sequence[Any]) -> bool:
    """Whether an operator on these is to be recorded for backward."""
    if not thread.tape.grad_enabled:
        return False
    for t in tensors:
        if isinstance(t, Fields) and t.requires_grad:
            return True
    return False


def attach(
    op: Any,
    inputs: Sequence[Any],
    results: Sequence[Fields],
    arguments: dict[str, Any] | None,
) -> NodeFields:
    """Makes the node of a call and hangs it on its results.

    ``inputs`` are the operands (None where absent, a number where one stands for a tensor),
    ``arguments`` the other arguments that the derivative asks for.
    """
    node = make_node(op, inputs, results, arguments)
    for k, result in enumerate(results):
        if result._layout.dtype.is_differentiable:
            result._grad_fn = node
            result._requires_grad = True
            result._output_nr = k
    return node


def make_node(
    op: Any,
    inputs: Sequence[Any],
    results: Sequence[Fields],
    arguments: dict[str, Any] | None,
) -> NodeFields:
    """The node of a call on ``inputs`` that gave ``results``; hangs on nothing yet."""
    targets: list[Any] = []
    layouts: list[Any] = []
    numbers: list[int] | None = None
    for t in inputs:
        if not isinstance(t, Fields):
            targets.append(None)
            layouts.append(None)
            continue
        layouts.append(t._layout)
        if t._base is None:
            targets.append((t._grad_fn or t) if t._requires_grad else None)
        else:
            targets.append((t.grad_fn or t) if t.requires_grad else None)
        if t._output_nr:
            numbers = numbers or [0] * len(inputs)
            numbers[len(targets) - 1] = t._output_nr
    rule = op.derivative_rule
    saved: Sequence[Any] = ()
    versions: Sequence[int] = ()
    if rule is not None and rule.saves:
        saved, versions = _save(rule, inputs, results, targets)
    output_layouts = [r._layout for r in results]
    return Node(op, targets, numbers, layouts, output_layouts, saved, versions, arguments)


def _attach_first(op: Any, call: Call, a: Fields, result: Fields) -> None:
    """`attach` for one operand, which requires a gradient."""
    target = (a._grad_fn if a._base is None else a.grad_fn) or a
    number = a._output_nr
    rule = op.derivative_rule
    saved: Sequence[Any] = ()
    versions: Sequence[int] = ()
    if rule is not None and rule.saves:
        saved, versions = _save(rule, (a,), (result,), (target,))
    node = _fresh_node(op, call, (target,), [number] if number else None, saved, versions)
    if call.outputs[0].dtype.is_differentiable:
        result._grad_fn = node
        result._requires_grad = True


def _attach_pair(
    op: Any,
    call: Call,
    a: Fields,
    needs_a: bool,
    b: Fields,
    needs_b: bool,
    result: Fields,
) -> None:
    """`attach` for two operands, of which one at least requires a gradient."""
    target_a = target_b = None
    if needs_a:
        target_a = (a._grad_fn if a._base is None else a.grad_fn) or a
    if needs_b:
        target_b = (b._grad_fn if b._base is None else b.grad_fn) or b
    number_a, number_b = a._output_nr, b._output_nr
    rule = op.derivative_rule
    saved: Sequence[Any] = ()
    versions: Sequence[int] = ()
    if rule is not None and rule.saves:
        if rule.keeps_the_other:
            saved = (a if needs_b else UNNEEDED, b if needs_a else UNNEEDED)
            versions = (
                a._storage.version if needs_b else -1,
                b._storage.version if needs_a else -1,
            )
        else:
            saved, versions = _save(rule, (a, b), (result,), (target_a, target_b))
    # `_fresh_node`, written out.
    node: NodeFields = new_node(Node)
    node.operator = op
    node.targets = (target_a, target_b)
    node.numbers = [number_a, number_b] if number_a or number_b else None
    node.layouts = call.layouts
    node.output_layouts = call.outputs
    node.saved = saved
    node.versions = versions
    node.arguments = None
    node.needs = None if rule is None else rule.known_needs.get(needs_a + 2 * needs_b)
    node.sequence = next_sequence()
    node.pre_hooks = None
    node.post_hooks = None
    node.metadata = None
    if call.outputs[0].dtype.is_differentiable:
        result._grad_fn = node
        result._requires_grad = True


def _fresh_node(
    op: Any,
    call: Call,
    targets: Sequence[Any],
    numbers: Sequence[int] | None,
    saved: Sequence[Any],
    versions: Sequence[int],
) -> NodeFields:
    """``Node(...)`` with the layouts that the call knows, without the cost of a constructor."""
    node: NodeFields = new_node(Node)
    node.operator = op
    node.targets = targets
    node.numbers = numbers
    node.layouts = call.layouts
    node.output_layouts = call.outputs
    node.saved = saved
    node.versions = versions
    node.arguments = None
    node.needs = None
    node.sequence = next_sequence()
    node.pre_hooks = None
    node.post_hooks = None
    node.metadata = None
    return node


def _save(
    rule: Any, inputs: Sequence[Any], results: Sequence[Fields], targets: Sequence[Any]
) -> tuple[list[Any], list[int]]:
    """What the derivative needs, and the versions of it."""
    saved: list[Any] = []
    versions: list[int] = []
    for k, condition in rule.saved_when:
        value = inputs[k]
        if not isinstance(value, Fields):
            saved.append(value)
            versions.append(-1)
        elif condition is None or _any_wanted(targets, condition):
            saved.append(value)
            versions.append(value._storage.version)
        else:
            saved.append(UNNEEDED)
            versions.append(-1)
    for k in rule.saved_results:
        saved.append(SavedResult(results[k]._storage, results[k]._layout, k))
    return saved, versions


def _any_wanted(targets: Sequence[Any], positions: Sequence[int]) -> bool:
    for k in positions:
        if targets[k] is not None:
            return True
    return False


# -- in-place ----------------------------------------------------------------------------------


def check_inplace(tensor: Fields, inputs: Sequence[Any]) -> bool:
    """Whether the write is to be recorded; PyTorch's errors for writes that autograd forbids."""
    if not thread.tape.grad_enabled:
        return False
    if tensor.requires_grad:
        base = tensor._base
        if base is not None:
            _check_view(tensor, base)
        if tensor.is_leaf:
            raise RuntimeError(
                "a leaf Variable that requires grad is being used in an in-place operation."
            )
    elif tensor._view_version == -1:
        _check_unrecorded_view(tensor)
    return needs_graph(inputs)


def _check_view(tensor: Fields, base: Fields) -> None:
    if base.is_leaf:
        raise RuntimeError(
            "a view of a leaf Variable that requires grad is being used in an in-place operation."
        )
    node = tensor._grad_fn
    if node is not None and getattr(node.operator, "several_views", False):
        raise RuntimeError(
            f"Output {tensor._output_nr} of {node.name().split('Backward')[0]} is a view and is "
            "being modified inplace. This view is the output of a function that returns multiple "
            "views. Such functions do not allow the output views to be modified inplace. You "
            "should replace the inplace operation by an out-of-place one."
        )


def _check_unrecorded_view(tensor: Fields) -> None:
    base = tensor._base
    if base is not None and base.requires_grad:
        raise RuntimeError(
            "A view was created in no_grad mode and is being modified inplace with grad mode "
            "enabled. Given that this use case is ambiguous and error-prone, it is forbidden. You "
            "can clarify your code by moving both the view and the inplace either both inside the "
            "no_grad block (if you don't want the inplace to be tracked) or both outside (if you "
            "want the inplace to be tracked)."
        )


def rebase(tensor: Fields, node: NodeFields) -> None:
    """Makes ``node`` the history of a tensor that was written in place.

    For a view the base's history changes too: everything outside the view flows through unchanged,
    the part inside comes from ``node`` (PyTorch's ``CopySlices``).
    """
    base = tensor._base
    if base is None or tensor._view_version < 0:
        tensor._grad_fn = node
        tensor._requires_grad = True
        tensor._output_nr = 0
        if tensor._hooks is not None:
            tensor._follow_write()
        return
    base._grad_fn = above.copy_slices(base, tensor._layout, node)
    base._requires_grad = True
    base._output_nr = 0
    tensor._requires_grad = True
    tensor._view_version = -2  # any other number than the storage's version: stale
    if tensor._hooks is not None:
        tensor._follow_write()
