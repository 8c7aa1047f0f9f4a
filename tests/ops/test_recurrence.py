"""Layers of recurrent networks: derivatives of both orders, and the same bits in any window."""

import pytest

import flambeau as torch
from flambeau.ops.recurrence import gru_layer, lstm_layer, rnn_layer
from tests.engine.programs import window

SIZES = [((2, 1, 1), False), ((2, 2, 1), True)]
LAYERS = {
    "lstm": (4, lambda s, r, x, h, c, w, b: lstm_layer(x, h, c, w, s, r, True)[:2]),
    "gru": (3, lambda s, r, x, h, c, w, b: gru_layer(x, h, w, b, s, r, True)[0]),
    "tanh": (1, lambda s, r, x, h, c, w, b: rnn_layer(x, h, w, s, r, False)),
    "relu": (1, lambda s, r, x, h, c, w, b: rnn_layer(x, h, w, s, r, True)),
}


def operands(gates, sizes, dtype):
    torch.manual_seed(gates)
    shapes = [(sum(sizes), gates * 2), (sizes[0], 2), (sizes[0], 2), (gates * 2, 2), (gates * 2,)]
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("sizes, reverse", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives(name, sizes, reverse):
    gates, layer = LAYERS[name]
    given = operands(gates, sizes, torch.float64)

    def function(*tensors):
        return layer(sizes, reverse, *tensors)

    used = given if name == "gru" else given[:4]
    left = given[len(used) :]
    assert torch.autograd.gradcheck(lambda *t: function(*t, *left), used)
    assert torch.autograd.gradgradcheck(lambda *t: function(*t, *left), used)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_part_of_the_results(name):
    """Where only some steps have gradients, or the cells alone, the rest count as zeros."""
    gates, layer = LAYERS[name]
    sizes = (3, 2, 2)
    given = operands(gates, sizes, torch.float64)
    found = layer(sizes, False, *given)
    results = found if isinstance(found, tuple) else (found,)
    for result in results:
        (part,) = torch.autograd.grad(result[3:5].sum(), given[0], retain_graph=True)
        mask = torch.zeros_like(result)
        mask[3:5] = 1.0
        (whole,) = torch.autograd.grad((result * mask).sum(), given[0], retain_graph=True)
        assert torch.equal(part, whole)
        assert not part[5:].any()


@pytest.mark.parametrize("sizes, reverse", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_window(name, sizes, reverse):
    gates, layer = LAYERS[name]
    outcomes = []
    for calls in (1, 1024):
        with window(calls):
            given = operands(gates, sizes, torch.float32)
            found = layer(sizes, reverse, *given)
            result = found[0] if isinstance(found, tuple) else found
            result.square().sum().backward()
            outcomes.append([result, *(t.grad for t in given if t.grad is not None)])
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b)
