"""Recurrent networks and packed sequences: what PyTorch 2.13 did is recorded beside this.

Each case runs on a given ``torch`` and returns numbers; see tools/record_nn.py.
"""

import itertools
import warnings

ALL = {}

_STACKS = {
    "RNN": {}, "LSTM": {}, "GRU": {}, "RNN relu": {"nonlinearity": "relu"},
    "LSTM projected": {"proj_size": 2},
}  # fmt: skip
_OPTIONS = {
    "plain": {},
    "two layers, both ways, dropout": {"num_layers": 2, "bidirectional": True, "dropout": 0.4},
    "batch first, no bias": {"batch_first": True, "bias": False},
}
_INPUTS = ("padded", "with a state", "unbatched", "packed", "packed unsorted")
ALL |= {f"{s}; {o}; {i}": (s, o, i) for s, o, i in itertools.product(_STACKS, _OPTIONS, _INPUTS)}

_CELLS = ("RNNCell(4, 5)", "RNNCell(4, 5, nonlinearity='relu')", "LSTMCell(4, 5, bias=False)",
          "LSTMCell(4, 5)", "GRUCell(4, 5)")  # fmt: skip
ALL |= {f"{cell}; {hx}": (cell, hx) for cell in _CELLS for hx in ("state", "none", "unbatched")}

_ERRORS = (
    "nn.LSTM(3, 4)(torch.zeros(0, 2, 3))",
    "nn.LSTM(3, 4)(torch.zeros(2, 2, 4))",
    "nn.LSTM(3, 4)(torch.zeros(2))",
    "nn.RNN(3, 4)(torch.zeros(2))",
    "nn.GRU(3, 4)(torch.zeros(2))",
    "nn.LSTM(3, 4)(torch.zeros(2, 2, 3, dtype=torch.float64))",
    "nn.LSTM(3, 4)(torch.zeros(2, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)))",
    "nn.LSTM(3, 4)(torch.zeros(2, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))",
    "nn.LSTM(3, 4)(torch.zeros(2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))",
    "nn.LSTM(3, 4)(torch.zeros(2, 2, 3), (torch.zeros(1, 4), torch.zeros(1, 4)))",
    "nn.GRU(3, 4)(torch.zeros(2, 3), torch.zeros(1, 2, 4))",
    "nn.GRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 4))",
    "nn.GRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 3, 4))",
    "nn.GRUCell(3, 4)(torch.zeros(2, 2, 3))",
    "nn.GRUCell(3, 4)(torch.zeros(2, 2))",
    "nn.GRUCell(3, 4)(torch.zeros(2, 3), torch.zeros(3, 4))",
    "nn.GRUCell(3, 4)(torch.zeros(2, 3), torch.zeros(2, 5))",
    "nn.GRUCell(3, 4)(torch.zeros(2, 3), torch.zeros(2, 2, 5))",
    "nn.LSTMCell(3, 4)(torch.zeros(2, 3), (torch.zeros(2, 4), torch.zeros(2, 5)))",
    "nn.LSTMCell(3, 4)(torch.zeros(2, 3), (torch.zeros(2, 4), torch.zeros(2, 2, 5)))",
    "torch.lstm_cell(torch.zeros(2, 3), (torch.zeros(2, 4),), torch.zeros(16, 3), "
    "torch.zeros(16, 4))",
    "nn.LSTM(3, 0)",
    "nn.LSTM(0, 3)",
    "nn.LSTM(3.0, 3)",
    "nn.LSTM(3, 3, bias=1)",
    "nn.LSTM(3, 3, num_layers=0)",
    "nn.LSTM(3, 3, proj_size=3)",
    "nn.LSTM(3, 3, proj_size=-1)",
    "nn.LSTM(3, 3, dropout=2)",
    "nn.LSTM(3, 3, dropout=True)",
    "nn.GRU(3, 3, proj_size=1)",
    "nn.RNN(3, 3, nonlinearity='gelu')",
    "rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [1, 2, 4])",
    "rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [4, 2, 0])",
    "rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [4, 2])",
    "rnn.pack_sequence([torch.zeros(2), torch.zeros(3)])",
    "rnn.pad_sequence([torch.zeros(2), torch.zeros(3)], padding_side='x')",
    "rnn.pad_sequence(3)",
    "rnn.pad_sequence([])",
    "rnn.pad_packed_sequence(rnn.pack_sequence([torch.ones(3)]), total_length=2)",
)
ALL |= {expression: (expression,) for expression in _ERRORS}

_VALUES = (
    "nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, dropout=0.1)",
    "nn.RNN(3, 4, batch_first=True, bias=False)",
    "nn.LSTMCell(3, 4, bias=False)",
    "nn.RNNCell(3, 4, nonlinearity='relu')",
    "[list(n for n, _ in nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).named_parameters())]",
    "[len(w) for w in nn.GRU(3, 4, 2, bidirectional=True).all_weights]",
    "rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [4, 2, 1])",
    "rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [1, 2, 4], enforce_sorted=False)",
    "rnn.pad_packed_sequence(rnn.pack_padded_sequence(torch.arange(12.).view(4, 3), [1, 2, 4], "
    "enforce_sorted=False), batch_first=True, padding_value=-1.0, total_length=6)",
    "rnn.pad_sequence([torch.ones(2, 2), torch.zeros(3, 2)], batch_first=True, padding_value=7.0)",
    "rnn.pad_sequence([torch.ones(2), torch.zeros(3)], padding_side='left')",
    "rnn.unpad_sequence(torch.arange(6.).view(3, 2), torch.tensor([3, 1]))",
    "rnn.unpack_sequence(rnn.pack_sequence([torch.ones(1), torch.zeros(3)], False))",
    "rnn.invert_permutation(torch.tensor([2, 0, 1]))",
    "rnn.pack_sequence([torch.ones(2)]).double().data.dtype",
    "rnn.pack_sequence([torch.ones(2)]).is_cuda",
)
ALL |= {expression: (expression, None, None, None) for expression in _VALUES}


def describe(torch, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        case = ALL[name]
        if len(case) == 1:
            return _error(torch, name)
        if len(case) == 4:
            return str(eval(name, {"torch": torch, "nn": torch.nn, "rnn": torch.nn.utils.rnn}))
        return _numbers(_stack(torch, *case) if len(case) == 3 else _cell(torch, *case))


def _error(torch, expression):
    try:
        eval(expression, {"torch": torch, "nn": torch.nn, "rnn": torch.nn.utils.rnn})
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


def _numbers(tensors):
    """Shape, strides and values of each tensor."""
    return [
        [
            list(t.shape),
            list(t.stride()),
            [float(f"{v:.6g}") for v in t.detach().flatten().tolist()],
        ]
        for t in tensors
    ]


def _stack(torch, kind, option, given):
    options = {**_STACKS[kind], **_OPTIONS[option]}
    first = options.get("batch_first", False)
    net = getattr(torch.nn, kind.split()[0])(3, 4, **options)
    x = torch.randn(*((4, 3) if given == "unbatched" else (3, 4, 3) if first else (4, 3, 3)))
    x.requires_grad_()
    leaves, inputs, state = [x], x, None
    if given == "with a state":
        count = options.get("num_layers", 1) * (2 if "bidirectional" in options else 1)
        leaves += [torch.randn(count, 3, options.get("proj_size", 4), requires_grad=True)]
        state = leaves[1]
        if kind.startswith("LSTM"):
            leaves += [torch.randn(count, 3, 4, requires_grad=True)]
            state = tuple(leaves[1:])
    if given.startswith("packed"):
        ordered = given == "packed"
        inputs = torch.nn.utils.rnn.pack_padded_sequence(
            x, [4, 2, 1] if ordered else [2, 4, 1], first, ordered
        )
    output, states = net(inputs, state)
    if given.startswith("packed"):
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, first, -1.0)
    states = list(states) if isinstance(states, tuple) else [states]
    (output.square().sum() + sum((s * 1.5).sum() for s in states)).backward()
    kept = [next(net.parameters()), *net.parameters()]
    gradients = [leaf.grad for leaf in leaves] + [p.grad for p in kept[1:]]
    return [output, *states, *gradients]


def _cell(torch, cell, hx):
    net = eval(cell, {k: getattr(torch.nn, k) for k in ("RNNCell", "LSTMCell", "GRUCell")})
    shape = () if hx == "unbatched" else (3,)
    x = torch.randn(*shape, 4, requires_grad=True)
    state = None
    if hx != "none":
        state = torch.randn(*shape, 5)
        state = (state, torch.randn(*shape, 5)) if cell.startswith("LSTM") else state
    found = net(x, state)
    found = list(found) if isinstance(found, tuple) else [found]
    found = found + list(net(x.detach() * 2, tuple(found) if len(found) == 2 else found[0]))[:1]
    sum(t.square().sum() for t in found).backward()
    return [*found, x.grad, *(p.grad for p in net.parameters())]
