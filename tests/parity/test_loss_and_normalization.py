"""Losses, normalisations and their first and second derivatives, live against PyTorch."""

import numpy as np
import pytest

import flambeau
import flambeau.nn.functional
from flambeau.core.config import config
from flambeau.engine.tape import thread

torch = pytest.importorskip("torch")

if torch.__name__ != "torch" or not hasattr(torch, "_C"):
    pytest.skip("torch is flambeau itself here", allow_module_level=True)


@pytest.fixture(params=[1, 1024], autouse=True)
def window(request):
    before = config.window
    config.window = request.param
    thread.tape.flush()
    thread.tape.remaining = request.param
    yield
    thread.tape.flush()
    config.window = before
    thread.tape.remaining = before


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed + len(shape)).normal(size=shape).astype(dtype)


def classes(*shape, count=5):
    return np.random.default_rng(3).integers(0, count, shape)


def unit(*shape, seed=1):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape).astype(np.float32)


def case(name, function, *arrays, second=True):
    return pytest.param(function, arrays, second, id=name)


def _cross_entropy(**options):
    return lambda t, x, y: t.nn.functional.cross_entropy(x, y, **options)


def _weighted(**options):
    return lambda t, x, y, w: t.nn.functional.cross_entropy(x, y, weight=w.detach(), **options)


def _nll(**options):
    return lambda t, x, y: t.nn.functional.nll_loss(x, y, **options)


def _pair(name, **options):
    return lambda t, x, y: getattr(t.nn.functional, name)(x, y, **options)


def _batch_norm(training, affine):
    def function(t, x, w, b, mean, var):
        mean, var = mean.detach(), var.detach()
        scale = (w, b) if affine else (None, None)
        y = t.nn.functional.batch_norm(x, mean, var, *scale, training=training, momentum=0.3)
        return y, mean, var

    return function


CASES = [
    *[
        case(f"cross_entropy-{r}-{shape}", _cross_entropy(reduction=r), normal(*shape), target)
        for r in ("none", "mean", "sum")
        for shape, target in (
            ((6, 5), classes(6)),
            ((5,), classes()),
            ((2, 5, 3), classes(2, 3)),
            ((2, 5, 3, 4), classes(2, 3, 4)),
            ((2, 5, 2, 2, 2), classes(2, 2, 2, 2)),
        )
    ],
    *[
        case(
            f"cross_entropy-weight-{r}-{s}",
            _weighted(reduction=r, label_smoothing=s, ignore_index=2),
            normal(7, 5), classes(7), unit(5),
        )
        for r in ("none", "mean", "sum")
        for s in (0.0, 0.1)
    ],
    *[
        case(f"cross_entropy-ignore-{r}-{s}",
             _cross_entropy(reduction=r, ignore_index=1, label_smoothing=s),
             normal(7, 5), classes(7))
        for r in ("none", "mean", "sum")
        for s in (0.0, 0.2)
    ],
    *[
        case(f"cross_entropy-probabilities-{r}-{s}",
             _cross_entropy(reduction=r, label_smoothing=s), normal(7, 5), unit(7, 5))
        for r in ("none", "mean", "sum")
        for s in (0.0, 0.2)
    ],
    case("cross_entropy-large", _cross_entropy(), normal(300, 1000) * 30, classes(300, count=1000)),
    case("cross_entropy-float64", _cross_entropy(), normal(9, 5, dtype=np.float64), classes(9)),
    case("cross_entropy-transposed", lambda t, x, y: t.nn.functional.cross_entropy(x.t(), y),
         normal(5, 9), classes(9)),
    case("nll-2d", _nll(), normal(2, 5, 3, 4), classes(2, 3, 4)),
    case("nll-none", _nll(reduction="none"), normal(2, 5, 3), classes(2, 3)),
    *[
        case(f"{name}-{r}", _pair(name, reduction=r), normal(4, 5), unit(4, 5))
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div",
                     "binary_cross_entropy_with_logits")
        for r in ("none", "mean", "sum")
    ],
    case("smooth_l1-beta", _pair("smooth_l1_loss", beta=0.3), normal(4, 5), unit(4, 5)),
    case("huber-delta", _pair("huber_loss", delta=0.3), normal(4, 5), unit(4, 5)),
    case("bce", _pair("binary_cross_entropy"), unit(4, 5, seed=7), unit(4, 5)),
    case("bce-weight",
         lambda t, x, y, w: t.nn.functional.binary_cross_entropy(x, y, weight=w.detach()),
         unit(4, 5, seed=7), unit(4, 5), unit(5)),
    case("logits-weights",
         lambda t, x, y, w, p: t.nn.functional.binary_cross_entropy_with_logits(
             x, y, weight=w.detach(), pos_weight=p.detach()),
         normal(4, 5), unit(4, 5), unit(5), unit(5, seed=9)),
    *[
        case(f"batch_norm-{training}-{affine}-{shape}", _batch_norm(training, affine),
             normal(*shape) + 3, unit(shape[1]), normal(shape[1]), normal(shape[1]), unit(shape[1]))
        for training in (True, False)
        for affine in (True, False)
        for shape in ((6, 4), (2, 4, 3), (3, 4, 5, 6))
    ],
    case("batch_norm-channels_last",
         lambda t, x: t.nn.functional.batch_norm(x.permute(0, 3, 1, 2), None, None, training=True),
         normal(2, 5, 6, 4)),
    case("layer_norm-lead", lambda t, x, w, b: t.nn.functional.layer_norm(x, (6,), w, b),
         normal(3, 5, 6), normal(6), normal(6)),
    case("layer_norm-no-lead", lambda t, x, w, b: t.nn.functional.layer_norm(x, (5, 6), w, b),
         normal(5, 6), normal(5, 6), normal(5, 6)),
    case("layer_norm-transposed", lambda t, x: t.nn.functional.layer_norm(x.t(), (6,)),
         normal(6, 3)),
    case("group_norm", lambda t, x, w, b: t.nn.functional.group_norm(x, 2, w, b),
         normal(3, 6, 4, 5), normal(6), normal(6)),
    case("rms_norm", lambda t, x, w: t.nn.functional.rms_norm(x, (6,), w),
         normal(3, 5, 6), normal(6)),
    case("softmax", lambda t, x: t.softmax(x * 3, 1), normal(3, 5, 4)),
    case("log_softmax", lambda t, x: t.log_softmax(x * 3, 1), normal(3, 5, 4)),
    case("softmax-dtype", lambda t, x: t.softmax(x, -1, dtype=t.float64), normal(3, 5)),
    case("logsumexp", lambda t, x: t.logsumexp(x, (0, 2)), normal(3, 5, 4)),
    case("var_mean", lambda t, x: t.var_mean(x, 1), normal(3, 5, 4)),
    case("std", lambda t, x: t.std(x, (0, 1), keepdim=True), normal(3, 5, 4)),
    case("norm-3", lambda t, x: t.norm(x, 3, 1), normal(3, 5)),
    case("prod", lambda t, x: t.prod(x, 1), normal(3, 5)),
    case("cumprod", lambda t, x: t.cumprod(x, 1), normal(3, 5)),
    case("cumsum", lambda t, x: t.cumsum(x, 0), normal(3, 5)),
    case("max", lambda t, x: x.max(1)[0], normal(3, 5)),
    case("amax", lambda t, x: x.amax((0, 1)), normal(3, 5)),
    case("sort", lambda t, x: x.sort(0)[0], normal(3, 5)),
    case("topk", lambda t, x: x.topk(3)[0], normal(3, 50)),
    case("median", lambda t, x: x.median(), normal(3, 5)),
]  # fmt: skip


def evaluate(library, function, arrays, second):
    """Results, first and second derivatives, as arrays; the name of the first result's node."""
    tensors = [library.tensor(np.array(a)) for a in arrays]
    floating = [t for t in tensors if t.is_floating_point()]
    for t in floating:
        t.requires_grad_()
    results = function(library, *tensors)
    results = results if isinstance(results, tuple) else (results,)
    wanted = [r for r in results if r.requires_grad]
    total = sum(
        (r * library.tensor(normal(*r.shape, seed=k), dtype=r.dtype)).sum()
        for k, r in enumerate(wanted)
    )
    first = library.autograd.grad(total, floating, create_graph=second, allow_unused=True)
    found = [*results, *first]
    if second:
        kept = [g for g in first if g is not None and g.requires_grad]
        if kept:
            again = sum(
                (g * library.tensor(normal(*g.shape, seed=5), dtype=g.dtype)).sum() for g in kept
            )
            found += library.autograd.grad(again, floating, allow_unused=True)
    name = results[0].grad_fn.name()
    return [None if f is None else f.detach().numpy(force=True) for f in found], name


@pytest.mark.parametrize("function, arrays, second", CASES)
def test_values_and_derivatives(function, arrays, second):
    for order in {False, second}:
        ours, name = evaluate(flambeau, function, arrays, order)
        theirs, expected_name = evaluate(torch, function, arrays, order)
        assert name == expected_name or expected_name in ("ViewBackward0", "DivBackward1")
        for k, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            if mine is None or other is None:
                zero = other if mine is None else mine
                assert zero is None or not zero.any(), f"part {k}: one is None"
                continue
            assert mine.dtype == other.dtype and mine.shape == other.shape
            np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-5, err_msg=f"part {k}")


ERRORS = [
    lambda t: t.nn.functional.cross_entropy(t.zeros(2, 3), t.tensor([1, 10])),
    lambda t: t.nn.functional.cross_entropy(t.zeros(2, 3), t.tensor([1, -1])),
    lambda t: t.nn.functional.nll_loss(t.zeros(2, 3), t.tensor([1.0, 1])),
    lambda t: t.nn.functional.nll_loss(t.zeros(2, 3), t.tensor([1, 2, 0])),
    lambda t: t.nn.functional.nll_loss(t.zeros(2, 3), t.tensor([1, 2], dtype=t.int32)),
    lambda t: t.nn.functional.nll_loss(t.zeros(2, 3, 4), t.zeros(2, 5, dtype=t.int64)),
    lambda t: t.nn.functional.nll_loss(t.zeros(2, 3, 4, 4), t.zeros(2, 5, 4, dtype=t.int64)),
    lambda t: t.nn.functional.cross_entropy(t.zeros(2, 3), t.zeros(2, 4)),
    lambda t: t.nn.functional.cross_entropy(t.zeros(2, 3), t.tensor([1, 1]), weight=t.ones(4)),
    lambda t: t.nn.functional.cross_entropy(t.zeros(3), t.tensor([1, 1])),
    lambda t: t.nn.functional.binary_cross_entropy(t.tensor([2.0]), t.tensor([1.0])),
    lambda t: t.nn.functional.layer_norm(t.zeros(3, 4), (3,)),
    lambda t: t.nn.functional.group_norm(t.zeros(3, 4), 3),
    lambda t: t.nn.functional.batch_norm(t.zeros(3, 4), t.zeros(3), t.ones(4)),
    lambda t: t.nn.functional.batch_norm(t.zeros(3, 4), None, None),
    lambda t: t.softmax(t.tensor([1]), 0),
    lambda t: t.softmax(t.tensor([1.0]), 3),
    lambda t: t.tensor([True]).mean(),
    lambda t: t.tensor([1]).mean(dtype=t.int64),
    lambda t: t.tensor([1]).var(),
    lambda t: t.tensor([1]).norm(),
    lambda t: t.zeros(0).max(),
    lambda t: t.zeros(0, 3).max(0),
    lambda t: t.zeros(0, 3).amax(0),
    lambda t: t.zeros(0, 3).argmax(0),
    lambda t: t.zeros(0).argmax(),
    lambda t: t.zeros(3).sum(4),
    lambda t: t.zeros(2, 2).any((0, 0)),
    lambda t: t.zeros(3).topk(5),
    lambda t: t.zeros(3).kthvalue(5),
    lambda t: t.zeros(2, 2).median(5),
    lambda t: t.cumsum(t.zeros(2), 3),
    lambda t: t.aminmax(t.zeros(0)),
    lambda t: t.zeros(0).amax(0),
    lambda t: t.max(t.zeros(3), "a"),
    lambda t: t.quantile(t.zeros(3), 1.5),
    lambda t: t.searchsorted(t.zeros(2, 3), t.zeros(3)),
    lambda t: t.quantile(t.arange(3), 0.5),
    lambda t: t.bincount(t.tensor([-1, 2])),
]


@pytest.mark.parametrize("call", ERRORS, ids=range(len(ERRORS)))
def test_errors(call):
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(flambeau)
    assert str(ours.value) == str(theirs.value)


def test_named_tuples_print_alike():
    rows = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0]], np.float32)
    for call in (
        lambda t: t.max(t.tensor(rows), 1),
        lambda t: t.tensor(rows).sort(1, descending=True),
        lambda t: t.topk(t.tensor(rows), 2),
        lambda t: t.aminmax(t.tensor(rows), dim=0),
        lambda t: t.tensor(rows, requires_grad=True).min(0),
    ):
        assert repr(call(flambeau)) == repr(call(torch))
