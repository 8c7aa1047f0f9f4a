"""Recurrent layers over time: LSTM, GRU and the plain RNN, each one operator with one grad node.

A layer's products with its input are one matrix product made outside (`linear` over all steps), so
these operators get ``gates``: rows of all steps below each other, the steps in order of time, with
``sizes[t]`` rows in step ``t``.  Within a layer a step is one product with the previous hidden
state and one pointwise kernel that does the rest and writes its results in place.  The backward
pass collects the gradients of all gates in one matrix, so the gradient of the recurrent weight is a
single product over all steps instead of a sum over them.

Formulas: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the forget gates of Gers
et al., 2000; Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, in
cuDNN's variant (the reset gate after the product).  Sizes may fall with time, as in a
`PackedSequence`: sequences that are over leave from the end of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from flambeau.compiler import kernel, math
from flambeau.graph import above, grad_mode
from flambeau.ops.activation import relu, sigmoid
from flambeau.ops.combination import where
from flambeau.ops.creation import empty_tensor
from flambeau.ops.declare import composite
from flambeau.ops.fused import FusedPointwise
from flambeau.ops.joining import cat
from flambeau.ops.matmul import linear, mm
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.trigonometry import tanh
from flambeau.ops.view import transpose
from flambeau.tensor import Tensor

Columns = Sequence[Any]


# -- one step of each kind: over kernel values, and over tensors for second derivatives ------------


@dataclass(frozen=True)
class Functions:
    """What steps are written with."""

    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    # relu's derivative times a gradient: (gradient, result).
    relu_gradient: Callable[[Any, Any], Any]


VALUES = Functions(
    math.sigmoid,
    math.tanh,
    lambda x: kernel.maximum(x, 0.0),
    lambda grad, result: kernel.where(result > 0.0, grad, 0.0),
)
TENSORS = Functions(
    sigmoid,
    tanh,
    relu,
    lambda grad, result: where(result > 0, grad, 0.0),
)


def _lstm(f: Functions, x: Columns, h: Columns, cell: Any) -> tuple[Any, ...]:
    """The activated gates, the new cell and hidden states."""
    admit, keep = f.sigmoid(x[0] + h[0]), f.sigmoid(x[1] + h[1])
    value, show = f.tanh(x[2] + h[2]), f.sigmoid(x[3] + h[3])
    cell = keep * cell + admit * value
    return admit, keep, value, show, cell, show * f.tanh(cell)


def _lstm_gradients(
    f: Functions, kept: Columns, before: Any, after: Any, grad: Any, carried: Any
) -> tuple[Any, ...]:
    """Gradients of the gates, then of the cell before; ``carried`` is that of the cell after."""
    admit, keep, value, show = kept
    bent = f.tanh(after)
    through = grad * show * (1.0 - bent * bent)
    if carried is not None:
        through = through + carried
    return (
        through * value * admit * (1.0 - admit),
        through * before * keep * (1.0 - keep),
        through * admit * (1.0 - value * value),
        grad * bent * show * (1.0 - show),
        through * keep,
    )


def _gru(f: Functions, x: Columns, h: Columns, hidden: Any) -> tuple[Any, ...]:
    """The activated gates, what the reset gate multiplied, and the new hidden state."""
    reset, update = f.sigmoid(x[0] + h[0]), f.sigmoid(x[1] + h[1])
    value = f.tanh(x[2] + reset * h[2])
    return reset, update, value, h[2], value + update * (hidden - value)


def _gru_gradients(
    f: Functions, kept: Columns, before: Any, after: Any, grad: Any, carried: Any
) -> tuple[Any, ...]:
    """Gradients of the input's gates, of the hidden state's, and of that state directly.

    ``carried`` is a part of the gradient of the new hidden state.
    """
    reset, update, value, product = kept
    if carried is not None:
        grad = grad + carried
    to_value = grad * (1.0 - update) * (1.0 - value * value)
    to_update = grad * (before - value) * update * (1.0 - update)
    to_reset = to_value * product * reset * (1.0 - reset)
    return (
        to_reset, to_update, to_value,
        to_reset, to_update, to_value * reset,
        grad * update,
    )  # fmt: skip


def _tanh_step(f: Functions, x: Columns, h: Columns, state: Any) -> tuple[Any, ...]:
    return (f.tanh(x[0] + h[0]),)


def _tanh_gradients(
    f: Functions, kept: Columns, before: Any, after: Any, grad: Any, carried: Any
) -> tuple[Any, ...]:
    return (grad * (1.0 - after * after),)


def _relu_step(f: Functions, x: Columns, h: Columns, state: Any) -> tuple[Any, ...]:
    return (f.relu(x[0] + h[0]),)


def _relu_gradients(
    f: Functions, kept: Columns, before: Any, after: Any, grad: Any, carried: Any
) -> tuple[Any, ...]:
    return (f.relu_gradient(grad, after),)


class Recurrence:
    """One kind of layer.

    ``gates`` and ``kept`` count columns of hidden size: of the gates, and of what the backward pass
    reads again.  ``has_cell``: the state is a pair.  ``split``: the gates of the input and of the
    hidden state have different gradients.  ``direct``: some gradient reaches the state before
    without passing through the product.
    """

    def __init__(
        self,
        name: str,
        step: Callable[..., tuple[Any, ...]],
        gradients: Callable[..., tuple[Any, ...]],
        gates: int,
        kept: int = 0,
        has_cell: bool = False,
        split: bool = False,
    ) -> None:
        self.step, self.gradients = step, gradients
        self.gates, self.kept = gates, kept
        self.has_cell, self.split = has_cell, split
        self.direct = has_cell or split

        def forward(*operands: Any) -> tuple[Any, ...]:
            x, h, state = operands[:gates], operands[gates : 2 * gates], operands[2 * gates]
            return step(VALUES, x, h, state)

        def forward_only(*operands: Any) -> tuple[Any, ...]:
            return forward(*operands)[kept:]

        def backward(*operands: Any) -> tuple[Any, ...]:
            before, after, given, through, carried = operands[kept:]
            grad = given if through is None else through if given is None else given + through
            return gradients(VALUES, operands[:kept], before, after, grad, carried)

        self.forward_kernel = FusedPointwise(f"{name}_step", forward)
        self.forward_only_kernel = FusedPointwise(f"{name}_step", forward_only)
        self.backward_kernel = FusedPointwise(f"{name}_step_backward", backward)


LSTM = Recurrence("lstm", _lstm, _lstm_gradients, gates=4, kept=4, has_cell=True)
GRU = Recurrence("gru", _gru, _gru_gradients, gates=3, kept=4, split=True)
RNN_TANH = Recurrence("rnn_tanh", _tanh_step, _tanh_gradients, gates=1)
RNN_RELU = Recurrence("rnn_relu", _relu_step, _relu_gradients, gates=1)


# -- views of matrices whose rows are the steps ----------------------------------------------------


def _rows(matrix: Tensor, first: int, count: int) -> Tensor:
    """Rows of a matrix, outside any graph."""
    layout = matrix._layout
    key = "rows", first, count
    found = layout.views.get(key)
    if found is None:
        offset = layout.offset + first * layout.strides[0]
        found = layout.view((count, layout.shape[1]), layout.strides, offset)
        layout.views[key] = found
    return Tensor._from_storage(matrix._storage, found)


def _blocks(matrix: Tensor, count: int) -> list[Tensor]:
    """The matrix cut into ``count`` blocks of columns, outside any graph."""
    layout = matrix._layout
    key = "blocks", count
    found = layout.views.get(key)
    if found is None:
        rows, width = layout.shape[0], layout.shape[1] // max(count, 1)
        step = width * layout.strides[1]
        found = tuple(
            layout.view((rows, width), layout.strides, layout.offset + k * step)
            for k in range(count)
        )
        layout.views[key] = found
    return [Tensor._from_storage(matrix._storage, part) for part in found]


def _timetable(sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """First row and number of rows of every step, in the order in which the layer takes them."""
    steps = list(zip(accumulate(sizes, initial=0), sizes, strict=False))
    return steps[::-1] if reverse else steps


def _state_for(state: Tensor, start: Tensor, count: int) -> Tensor:
    """The state of the ``count`` sequences in a step; those that begin there have ``start``."""
    have = state.shape[0]
    if have == count:
        return state
    if have > count:
        return _rows(state, 0, count)
    return cat((state, _rows(start, have, count - have)), 0)


# -- forward and backward over all steps -----------------------------------------------------------


def _run(
    kind: Recurrence,
    gates: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    sizes: Sequence[int],
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden states of all steps, the cells if any, and what the backward pass reads again.

    With a single step the state it begins with may have a width of its own.
    """
    rows, width = gates.shape[0], gates.shape[1] // kind.gates
    nothing = (0, width)
    output = empty_tensor((rows, width), gates.dtype)
    cells = empty_tensor((rows, width) if kind.has_cell else nothing, gates.dtype)
    kept = empty_tensor((rows, kind.kept * width) if keep else nothing, gates.dtype)
    transposed = transpose(weight, 0, 1)
    step_kernel = kind.forward_kernel if keep else kind.forward_only_kernel
    state, carried = hidden, cell
    for first, count in _timetable(sizes, reverse):
        state = _state_for(state, hidden, count)
        product = mm(state, transposed) if bias is None else linear(state, weight, bias)
        operands = _blocks(_rows(gates, first, count), kind.gates)
        operands += _blocks(product, kind.gates)
        if cell is not None and carried is not None:
            operands.append(_state_for(carried, cell, count))
        else:
            operands.append(state)
        written = _blocks(_rows(kept, first, count), kind.kept) if keep and kind.kept else []
        if kind.has_cell:
            carried = _rows(cells, first, count)
            written.append(carried)
        state = _rows(output, first, count)
        written.append(state)
        step_kernel(operands, destinations=written)
    return output, cells, kept


def _states_before(
    states: Tensor, start: Tensor, sizes: Sequence[int], reverse: bool
) -> tuple[list[Tensor], Tensor]:
    """The state that each step began with, in the layer's order; and in rows ordered by time."""
    before = []
    state = start
    for first, count in _timetable(sizes, reverse):
        before.append(_state_for(state, start, count))
        state = _rows(states, first, count)
    return before, cat(before[::-1] if reverse else before, 0)


def _run_backward(
    kind: Recurrence,
    grad_output: Tensor | None,
    grad_cells: Tensor | None,
    output: Tensor,
    cells: Tensor | None,
    kept: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    sizes: Sequence[int],
    reverse: bool,
) -> dict[str, Any]:
    rows, width = output.shape
    to_gates = empty_tensor((rows, kind.gates * width), output.dtype)
    to_product = empty_tensor(to_gates.shape, output.dtype) if kind.split else to_gates
    before, all_before = _states_before(output, hidden, sizes, reverse)
    cells_before = before
    if cell is not None and cells is not None:
        cells_before, _ = _states_before(cells, cell, sizes, reverse)
    through: Tensor | None = None
    carried: Tensor | None = None
    # Gradients of the states with which sequences began that are not in the step taken next.
    to_hidden, to_cell = [], []
    steps = _timetable(sizes, reverse)
    for k in range(len(steps) - 1, -1, -1):
        first, count = steps[k]
        given = None if grad_output is None else _rows(grad_output, first, count)
        if through is not None and through.shape[0] < count:
            through = _widened(through, given, count)
            given = None
        if given is None and through is None:
            given = _zeros_like(_rows(output, first, count))
        if carried is not None and carried.shape[0] < count:
            carried = _widened(carried, None, count)
        if grad_cells is not None:
            more = _rows(grad_cells, first, count)
            carried = more if carried is None else carried + more
        operands: list[Tensor | None] = list(_blocks(_rows(kept, first, count), kind.kept))
        after = _rows(output if cells is None else cells, first, count)
        operands += [cells_before[k], after, given, through, carried]
        written = _blocks(_rows(to_gates, first, count), kind.gates)
        if kind.split:
            written += _blocks(_rows(to_product, first, count), kind.gates)
        if kind.direct:
            carried = empty_tensor((count, width), output.dtype)
            written.append(carried)
        kind.backward_kernel(operands, destinations=written)
        through = mm(_rows(to_product, first, count), weight)
        following = steps[k - 1][1] if k else 0
        if k and following < count:
            to_hidden.append(_rows(_joined(kind, through, carried), following, count - following))
            through = _rows(through, 0, following)
            if carried is not None:
                to_cell.append(_rows(carried, following, count - following))
                carried = _rows(carried, 0, following)
    assert through is not None
    to_hidden.append(_joined(kind, through, carried))
    if carried is not None:
        to_cell.append(carried)
    batch = hidden.shape[0]
    gradients = {
        "gates": to_gates,
        "hidden": _padded(to_hidden, batch),
        "weight": mm(transpose(to_product, 0, 1), all_before),
    }
    if bias is not None:
        gradients["bias"] = sum_(to_product, (0,))
    if cell is not None:
        gradients["cell"] = _padded(to_cell, batch)
    return gradients


def _joined(kind: Recurrence, through: Tensor, direct: Tensor | None) -> Tensor:
    """The gradient of a hidden state: through the product, and directly where there is such."""
    return through if kind.has_cell or direct is None else through + direct


def _widened(gradient: Tensor, given: Tensor | None, count: int) -> Tensor:
    """A gradient of the first rows as one of ``count`` rows, with what was ``given`` for all."""
    have = gradient.shape[0]
    if given is None:
        more = _zeros_like(_rows(gradient, 0, 1)).expand(count - have, -1)
        return cat((gradient, more), 0)
    return cat((gradient + _rows(given, 0, have), _rows(given, have, count - have)), 0)


def _padded(parts: list[Tensor], count: int) -> Tensor:
    """Parts, found from the last row to the first, as one; zeros for sequences never begun."""
    parts = parts[::-1]
    missing = count - sum(part.shape[0] for part in parts)
    if missing:
        parts.append(_zeros_like(_rows(parts[0], 0, 1)).expand(missing, -1))
    return parts[0] if len(parts) == 1 else cat(parts, 0)


def _zeros_like(tensor: Tensor) -> Tensor:
    return tensor * 0.0


# -- the same as graph, for gradients of gradients -------------------------------------------------


def _plain_run(
    kind: Recurrence,
    sizes: Sequence[int],
    reverse: bool,
    gates: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, ...]:
    """What `_run` computes, hidden states and cells, in tensor code that autograd follows."""
    state, carried = hidden, cell
    outputs: list[tuple[Any, ...]] = []
    for first, count in _timetable(sizes, reverse):
        state = _plain_state(state, hidden, count)
        before = state if cell is None else _plain_state(carried, cell, count)
        x = gates[first : first + count].chunk(kind.gates, 1)
        h = linear(state, weight, bias).chunk(kind.gates, 1)
        outcome = kind.step(TENSORS, x, h, before)[kind.kept :]
        carried, state = outcome[0], outcome[-1]
        outputs.append(outcome[::-1])
    in_time = outputs[::-1] if reverse else outputs
    return tuple(cat(parts, 0) for parts in zip(*in_time, strict=True))


def _plain_state(state: Any, start: Tensor, count: int) -> Tensor:
    have = state.shape[0]
    if have < count:
        return cat((state, start[have:count]), 0)
    return state if have == count else state[:count]


def _gradients(kind: Recurrence, grads: Sequence[Any], results: Sequence[Any], **given: Any):
    if all(grad is None for grad in grads):
        return {}
    if grad_mode.enabled:
        sizes, reverse = given.pop("sizes"), given.pop("reverse")
        return above.gradients(
            lambda **inputs: _plain_run(kind, sizes, reverse, **inputs), given, grads
        )
    del given["gates"]
    return _run_backward(kind, *grads, *results, **given)


# -- the operators ---------------------------------------------------------------------------------


@composite(
    "_lstm_layer(Tensor gates, Tensor hidden, Tensor cell, Tensor weight, int[] sizes, "
    "bool reverse, bool keep) -> (Tensor, Tensor, Tensor)",
    variants="",
)
def lstm_layer(gates, hidden, cell, weight, sizes, reverse, keep):
    """Returns hidden states and cells of all steps, ``(rows, H)``, and what backward needs."""
    return _run(LSTM, gates, hidden, cell, weight, None, sizes, reverse, keep)


@lstm_layer.derivative
def lstm_layer_backward(
    given0, given1, gates, hidden, cell, weight, result0, result1, result2, sizes, reverse
):
    return _gradients(
        LSTM, (given0, given1), (result0, result1, result2), gates=gates, hidden=hidden, cell=cell,
        weight=weight, bias=None, sizes=sizes, reverse=reverse,
    )  # fmt: skip


@composite(
    "_gru_layer(Tensor gates, Tensor hidden, Tensor weight, Tensor? bias, int[] sizes, "
    "bool reverse, bool keep) -> (Tensor, Tensor)",
    variants="",
)
def gru_layer(gates, hidden, weight, bias, sizes, reverse, keep):
    """Returns the hidden states of all steps, ``(rows, H)``, and what backward needs."""
    output, _, kept = _run(GRU, gates, hidden, None, weight, bias, sizes, reverse, keep)
    return output, kept


@gru_layer.derivative
def gru_layer_backward(given0, gates, hidden, weight, bias, result0, result1, sizes, reverse):
    return _gradients(
        GRU, (given0, None), (result0, None, result1), gates=gates, hidden=hidden, cell=None,
        weight=weight, bias=bias, sizes=sizes, reverse=reverse,
    )  # fmt: skip


@composite(
    "_rnn_layer(Tensor gates, Tensor hidden, Tensor weight, int[] sizes, bool reverse, "
    "bool rectified) -> Tensor",
    variants="",
)
def rnn_layer(gates, hidden, weight, sizes, reverse, rectified):
    """Returns the hidden states of all steps, ``(rows, H)``."""
    kind = RNN_RELU if rectified else RNN_TANH
    return _run(kind, gates, hidden, None, weight, None, sizes, reverse, False)[0]


@rnn_layer.derivative
def rnn_layer_backward(given0, gates, hidden, weight, result, sizes, reverse, rectified):
    kind = RNN_RELU if rectified else RNN_TANH
    return _gradients(
        kind, (given0, None), (result, None, result), gates=gates, hidden=hidden, cell=None,
        weight=weight, bias=None, sizes=sizes, reverse=reverse,
    )  # fmt: skip
