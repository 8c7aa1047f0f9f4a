"""Stacks of recurrent layers and single cells: ``torch.lstm``, ``torch.gru_cell``, …"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from flambeau.graph import grad_mode
from flambeau.nn.functional.dropout import dropout as drop
from flambeau.ops.joining import cat, stack
from flambeau.ops.matmul import linear
from flambeau.ops.recurrence import gru_layer, lstm_layer, rnn_layer
from flambeau.tensor import Tensor

# Weights of one direction of a layer: input, hidden, their biases or None, projection or None.
Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
LSTM, GRU, RNN_TANH, RNN_RELU = "LSTM", "GRU", "RNN_TANH", "RNN_RELU"


# -- a layer in one direction ----------------------------------------------------------------------


def _direction(
    mode: str,
    rows: Tensor,
    sizes: tuple[int, ...],
    reverse: bool,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All hidden states as rows, the last hidden state and the last cell."""
    weight_input, weight, bias_input, bias, projection = weights
    if projection is not None:
        return _projected(rows, sizes, reverse, hidden, cell, weights)
    wanted = (rows, hidden, weight_input, weight, bias_input, bias, cell)
    keep = grad_mode.enabled and any(t is not None and t.requires_grad for t in wanted)
    if mode == GRU:
        gates = linear(rows, weight_input, bias_input)
        states, _ = gru_layer(gates, hidden, weight, bias, sizes, reverse, keep)
        return states, _last(states, sizes, reverse), None
    both = bias if bias_input is None or bias is None else bias_input + bias
    gates = linear(rows, weight_input, both)
    if mode == LSTM:
        states, cells, _ = lstm_layer(gates, hidden, cell, weight, sizes, reverse, keep)
        return states, _last(states, sizes, reverse), _last(cells, sizes, reverse)
    states = rnn_layer(gates, hidden, weight, sizes, reverse, mode == RNN_RELU)
    return states, _last(states, sizes, reverse), None


def _last(states: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """The state in which each sequence ended."""
    if reverse:
        return states[: sizes[0]]
    starts = list(accumulate(sizes, initial=0))
    if sizes[0] == sizes[-1]:
        return states[starts[-2] :]
    parts = []
    over = 0
    for k in range(len(sizes) - 1, -1, -1):
        if sizes[k] > over:
            parts.append(states[starts[k] + over : starts[k] + sizes[k]])
            over = sizes[k]
    return cat(parts, 0)


def _projected(
    rows: Tensor,
    sizes: tuple[int, ...],
    reverse: bool,
    hidden: Tensor,
    cell: Any,
    weights: Weights,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM whose hidden state is projected after each step (Sak et al., 2014)."""
    weight_input, weight, bias_input, bias, projection = weights
    both = bias if bias_input is None or bias is None else bias_input + bias
    gates = linear(rows, weight_input, both)
    starts = list(accumulate(sizes, initial=0))
    order = range(len(sizes) - 1, -1, -1) if reverse else range(len(sizes))
    state, carried = hidden, cell
    outputs, cells = [], []
    for k in order:
        count = sizes[k]
        if state.shape[0] < count:
            state = cat((state, hidden[state.shape[0] : count]), 0)
            carried = cat((carried, cell[carried.shape[0] : count]), 0)
        now = gates[starts[k] : starts[k + 1]]
        # One step; its state may be narrower than its cells.
        full, carried, _ = lstm_layer(
            now, state[:count], carried[:count], weight, (count,), False, grad_mode.enabled
        )
        state = linear(full, projection)
        outputs.append(state)
        cells.append(carried)
    if reverse:
        outputs, cells = outputs[::-1], cells[::-1]
    states, all_cells = cat(outputs, 0), cat(cells, 0)
    return states, _last(states, sizes, reverse), _last(all_cells, sizes, reverse)


# -- stacks of layers ------------------------------------------------------------------------------


def stacked(
    mode: str,
    rows: Tensor,
    sizes: tuple[int, ...],
    hidden: Tensor,
    cell: Tensor | None,
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Layers above each other over rows by time: the last layer's rows and all last states.

    ``hidden`` and ``cell`` are ``(layers * directions, batch, features)``; ``parameters`` are in
    the order of ``RNNBase._flat_weights``.
    """
    directions = 2 if bidirectional else 1
    each = len(parameters) // max(num_layers * directions, 1)
    last_hidden, last_cells = [], []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            weights = _weights(parameters[k * each : (k + 1) * each], has_biases)
            start = None if cell is None else cell[k]
            states, final, final_cell = _direction(
                mode, rows, sizes, direction == 1, hidden[k], start, weights
            )
            outputs.append(states)
            last_hidden.append(final)
            last_cells.append(final_cell)
        rows = outputs[0] if directions == 1 else cat(outputs, 1)
        if dropout and train and layer < num_layers - 1:
            rows = drop(rows, dropout, True)
    finals = None if cell is None else stack(last_cells, 0)
    return rows, stack(last_hidden, 0), finals


def _weights(group: Sequence[Tensor], has_biases: bool) -> Weights:
    bias_input, bias = group[2:4] if has_biases else (None, None)
    rest = group[4 if has_biases else 2 :]
    return group[0], group[1], bias_input, bias, rest[0] if rest else None


def _run(mode: str, args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both signatures: padded ``(input, hx, …, batch_first)``, packed ``(data, sizes, hx, …)``."""
    packed = isinstance(args[3], (list, tuple))
    if packed:
        data, batch_sizes, state, parameters, *options = args
        has_biases, num_layers, dropout, train, bidirectional = options
        sizes = tuple(batch_sizes.tolist())
        batch_first = False
    else:
        data, state, parameters, *options = args
        has_biases, num_layers, dropout, train, bidirectional, batch_first = options
        if batch_first:
            data = data.transpose(0, 1)
        sizes = (data.shape[1],) * data.shape[0]
    if not sizes:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    hidden, cell = state if mode == LSTM else (state, None)
    rows = data if packed else data.reshape(-1, data.shape[-1])
    if not packed and not rows.shape[0]:
        rows = rows.reshape(0, data.shape[-1])
    rows, last, last_cell = stacked(
        mode, rows, sizes, hidden, cell, parameters, has_biases, num_layers, dropout, train,
        bidirectional,
    )  # fmt: skip
    if not packed:
        rows = rows.reshape(data.shape[0], data.shape[1], rows.shape[1])
        if batch_first:
            rows = rows.transpose(0, 1)
    return rows, last, last_cell


def lstm(*args: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """``lstm(input, (h, c), params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first)`` or ``lstm(data, batch_sizes, (h, c), params, has_biases, num_layers, dropout,
    train, bidirectional)``: output, last hidden states, last cells.

    Shapes as in `torch.nn.LSTM`.  ``params`` lists each direction's weights of each layer.
    """
    return _run(LSTM, args)


def gru(*args: Any) -> tuple[Tensor, Tensor]:
    """As `lstm`, for gated recurrent units, with one state."""
    return _run(GRU, args)[:2]


def rnn_tanh(*args: Any) -> tuple[Tensor, Tensor]:
    """As `lstm`, for ``tanh(W x + U h + b)``, with one state."""
    return _run(RNN_TANH, args)[:2]


def rnn_relu(*args: Any) -> tuple[Tensor, Tensor]:
    """As `lstm`, for ``relu(W x + U h + b)``, with one state."""
    return _run(RNN_RELU, args)[:2]


# -- single cells ----------------------------------------------------------------------------------


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: ``(batch, in), 2 × (batch, H) -> 2 × (batch, H)``."""
    if len(hx) != 2:
        raise RuntimeError("lstm_cell expects two hidden states")
    for number, state in enumerate(hx):
        _check_cell(input, state, number, w_ih, w_hh)
    _, hidden, cell = _direction(
        LSTM, input, (input.shape[0],), False, hx[0], hx[1], (w_ih, w_hh, b_ih, b_hh, None)
    )
    assert cell is not None
    return hidden, cell


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a GRU: ``(batch, in), (batch, H) -> (batch, H)``."""
    return _cell(GRU, input, hx, (w_ih, w_hh, b_ih, b_hh, None))


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of ``tanh(W x + U h + b)``: ``(batch, in), (batch, H) -> (batch, H)``."""
    return _cell(RNN_TANH, input, hx, (w_ih, w_hh, b_ih, b_hh, None))


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of ``relu(W x + U h + b)``: ``(batch, in), (batch, H) -> (batch, H)``."""
    return _cell(RNN_RELU, input, hx, (w_ih, w_hh, b_ih, b_hh, None))


def _cell(mode: str, input: Tensor, hx: Tensor, weights: Weights) -> Tensor:
    _check_cell(input, hx, 0, weights[0], weights[1])
    return _direction(mode, input, (input.shape[0],), False, hx, None, weights)[1]


def _check_cell(input: Tensor, hx: Tensor, number: int, w_ih: Tensor, w_hh: Tensor) -> None:
    if input.shape[1] != w_ih.shape[1]:
        raise RuntimeError(
            f"input has inconsistent input_size: got {input.shape[1]} expected {w_ih.shape[1]}"
        )
    if hx.shape[1] != w_hh.shape[1]:
        raise RuntimeError(
            f"hidden{number} has inconsistent hidden_size: got {hx.shape[1]}, expected "
            f"{w_hh.shape[1]}"
        )
    if input.shape[0] != hx.shape[0]:
        raise RuntimeError(
            f"Input batch size {input.shape[0]} doesn't match hidden{number} batch size "
            f"{hx.shape[0]}"
        )
