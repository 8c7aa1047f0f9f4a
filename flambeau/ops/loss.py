"""Losses of predictions against targets of the same shape; those of classes are in
`classification_loss.py`.

``reduction`` is 0 for one loss per element, 1 for their mean, 2 for their sum.
"""

from __future__ import annotations

import math as numbers
from collections.abc import Callable
from typing import Any

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.core.dtype import promote_types
from flambeau.core.layout import broadcast_shapes
from flambeau.engine.watch import host_check
from flambeau.graph import grad_mode
from flambeau.ops.classification_loss import (
    MEAN,
    NONE,
    SUM,
    cross_entropy_loss,
    nll_loss,
    nll_loss_nd,
    ready_values,
)
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite
from flambeau.ops.fused import FusedPointwise, FusedReduction
from flambeau.ops.pointwise import where
from flambeau.ops.reduction import mean as mean_
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import expand
from flambeau.tensor import Tensor


def reduce_loss(losses: Tensor, reduction: int) -> Tensor:
    """Losses per element as ``reduction`` says."""
    if reduction == NONE:
        return losses
    return mean_(losses) if reduction == MEAN else sum_(losses)


class PairLoss:
    """A loss in one pass and its gradient in another.

    ``body(x, target, *extra, *numbers)`` is the loss of an element,
    ``gradient(grad, x, target, …)`` its derivative by ``x`` times ``grad``.
    """

    def __init__(self, name: str, body: Callable[..., Any], gradient: Callable[..., Any]) -> None:
        # The count of elements is the last number: what the mean divides by.
        self.each = FusedPointwise(name, lambda *a: body(*a[:-1]))
        self.sum = FusedReduction(name, "sum", lambda *a: body(*a[:-1]))
        self.mean = FusedReduction(
            name, "sum", lambda *a: body(*a[:-1]), lambda total, *numbers: total / numbers[-1]
        )
        self.backward = FusedPointwise(
            f"{name}_backward",
            lambda x, target, grad, *rest: gradient(grad / rest[-1], x, target, *rest[:-1]),
        )

    def forward(self, operands: tuple[Tensor | None, ...], reduction: int, *numbers: float):
        x = operands[0]
        counted = (*numbers, float(x.numel()))
        if reduction == NONE:
            return self.each(operands, counted)[0]
        reduce = self.mean if reduction == MEAN else self.sum
        return reduce(operands, tuple(range(x.ndim)), False, counted)[0]

    def gradient(self, grad, operands: tuple[Tensor | None, ...], reduction: int, *numbers: float):
        x, target, *extra = operands
        counted = (*numbers, mean_divisor(x, reduction))
        return self.backward((x, target, grad, *extra), counted)[0]


def mean_divisor(x: Tensor, reduction: int) -> float:
    return float(x.numel()) if reduction == MEAN else 1.0


def matched(name: str, self: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common type, which must be floating, and shape."""
    if self.dtype is not target.dtype:
        common = promote_types(self.dtype, target.dtype)
        self, target = to_dtype(self, common), to_dtype(target, common)
    if self.shape != target.shape:
        shape = broadcast_shapes(self.shape, target.shape)
        self, target = expand(self, shape), expand(target, shape)
    _check_floating(name, self)
    return self, target


def _check_floating(name: str, tensor: Tensor) -> None:
    if not tensor.dtype.is_floating_point:
        raise NotImplementedError(f"\"{name}\" not implemented for '{tensor.dtype.title}'")


def _scaled(grad: Tensor, self: Tensor, reduction: int) -> Tensor:
    """The gradient of each element's loss, for a second backward."""
    return grad / mean_divisor(self, reduction)


# -- differences: the target's gradient is minus the input's ---------------------------------------

_SQUARED = PairLoss(
    "mse_loss", lambda x, t: (x - t) * (x - t), lambda grad, x, t: (x - t) * 2.0 * grad
)


@composite("_mse_loss(Tensor self, Tensor target, int reduction) -> Tensor", variants="")
def _mse_loss(self, target, reduction):
    return _SQUARED.forward((self, target), reduction)


@_mse_loss.derivative
def _mse_loss_backward(grad, self, target, reduction):
    if grad_mode.enabled:
        found = (self - target) * 2 * _scaled(grad, self, reduction)
    else:
        found = _SQUARED.gradient(grad, (self, target), reduction)
    return {"self": found, "target": -found}


@composite("mse_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor", variants="")
def mse_loss(self, target, reduction):
    """Returns the squared differences of ``self`` and ``target``."""
    return _mse_loss.record([*matched("mse_cpu", self, target), reduction])


@composite("l1_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor", variants="")
def l1_loss(self, target, reduction):
    """Returns the absolute differences of ``self`` and ``target``."""
    return reduce_loss((self - target).abs(), reduction)


def _sign(x):
    return k.where(x > 0, x.like(1.0), k.where(x < 0, x.like(-1.0), x * 0.0))


def _smooth_l1(x, t, beta):
    z = k.absolute(x - t)
    return k.where(z < beta, z * z * 0.5 / beta, z - beta * 0.5)


def _smooth_l1_gradient(grad, x, t, beta):
    difference = x - t
    slope = k.where(k.absolute(difference) < beta, difference / beta, _sign(difference))
    return slope * grad


_SMOOTH = PairLoss("smooth_l1_loss", _smooth_l1, _smooth_l1_gradient)


@composite(
    "_smooth_l1_loss(Tensor self, Tensor target, int reduction, float beta) -> Tensor", variants=""
)
def _smooth_l1_loss(self, target, reduction, beta):
    return _SMOOTH.forward((self, target), reduction, beta)


_smooth_l1_loss.node_name = "SmoothL1LossBackward0"


@_smooth_l1_loss.derivative
def _smooth_l1_loss_backward(grad, self, target, reduction, beta):
    if grad_mode.enabled:
        slope = ((self - target) / beta).clamp(-1, 1)
        found = slope * _scaled(grad, self, reduction)
    else:
        found = _SMOOTH.gradient(grad, (self, target), reduction, beta)
    return {"self": found, "target": -found}


@composite(
    "smooth_l1_loss(Tensor self, Tensor target, int reduction=Mean, float beta=1.0) -> Tensor",
    variants="",
)
def smooth_l1_loss(self, target, reduction, beta):
    """Returns differences squared where they are below ``beta``, absolute ones beyond."""
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(self, target, reduction)
    return _smooth_l1_loss.record([*matched("smooth_l1_cpu", self, target), reduction, beta])


def _huber(x, t, delta):
    z = k.absolute(x - t)
    return k.where(z < delta, z * z * 0.5, delta * (z - delta * 0.5))


def _huber_gradient(grad, x, t, delta):
    difference = x - t
    inside = k.absolute(difference) < delta
    return k.where(inside, difference, _sign(difference) * delta) * grad


_HUBER = PairLoss("huber_loss", _huber, _huber_gradient)


@composite(
    "_huber_loss(Tensor self, Tensor target, int reduction, float delta) -> Tensor", variants=""
)
def _huber_loss(self, target, reduction, delta):
    return _HUBER.forward((self, target), reduction, delta)


@_huber_loss.derivative
def _huber_loss_backward(grad, self, target, reduction, delta):
    if grad_mode.enabled:
        found = (self - target).clamp(-delta, delta) * _scaled(grad, self, reduction)
    else:
        found = _HUBER.gradient(grad, (self, target), reduction, delta)
    return {"self": found, "target": -found}


@composite(
    "huber_loss(Tensor self, Tensor target, int reduction=Mean, float delta=1.0) -> Tensor",
    variants="",
)
def huber_loss(self, target, reduction, delta):
    """Returns :func:`smooth_l1_loss` times ``delta``."""
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    return _huber_loss.record([*matched("huber_cpu", self, target), reduction, delta])


# -- probabilities -------------------------------------------------------------------------------


def _weighted(loss, weight):
    return loss if weight is None else loss * weight


def _binary(x, t, weight):
    """Logarithms are kept above -100, so a certain and wrong prediction has a finite loss."""
    log_no = k.maximum(math.log1p(-x), -100.0)
    log_yes = k.maximum(math.log(x), -100.0)
    return _weighted((t - 1.0) * log_no - t * log_yes, weight)


def _binary_gradient(grad, x, t, weight):
    return _weighted(grad * (x - t) / k.maximum((1.0 - x) * x, 1e-12), weight)


_BINARY = PairLoss("binary_cross_entropy", _binary, _binary_gradient)
_IS_PROBABILITY = FusedReduction(
    "is_probability",
    "all",
    lambda x: (x >= 0.0) & (x <= 1.0),
    results=lambda layouts, static: (types.bool_,),
)


@composite(
    "_binary_cross_entropy(Tensor self, Tensor target, Tensor? weight, int reduction) -> Tensor",
    variants="",
)
def _binary_cross_entropy(self, target, weight, reduction):
    return _BINARY.forward((self, target, weight), reduction)


@_binary_cross_entropy.derivative
def _binary_cross_entropy_backward(grad, self, target, weight, reduction, needs):
    found = {}
    scaled = _scaled(grad, self, reduction)
    if grad_mode.enabled:
        slope = (self - target) / ((1 - self) * self).clamp(min=1e-12)
        found["self"] = _weighted(scaled * slope, weight)
    elif "self" in needs:
        found["self"] = _BINARY.gradient(grad, (self, target, weight), reduction)
    if "target" in needs:
        difference = (1 - self).log() - self.log()
        found["target"] = _weighted(scaled * difference, weight)
    return found


@composite(
    "binary_cross_entropy(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean) "
    "-> Tensor",
    variants="",
)
def binary_cross_entropy(self, target, weight, reduction):
    """Returns ``-(t log x + (1 - t) log(1 - x))`` of probabilities ``x``."""
    if self.dtype is not target.dtype:
        raise RuntimeError(f"Found dtype {target.dtype.title} but expected {self.dtype.title}")
    _check_floating("binary_cross_entropy", self)
    (within,) = _IS_PROBABILITY((self,), tuple(range(self.ndim)))
    _check_probabilities(within)
    return _binary_cross_entropy.record([self, target, weight, reduction])


@host_check
def _check_probabilities(within):
    if not ready_values(within).all():
        raise RuntimeError("all elements of input should be between 0 and 1")


def _log_sigmoid(x):
    return k.minimum(x, 0.0) - math.log1p(math.exp(-k.absolute(x)))


def _logit(x, t, weight, pos_weight):
    if pos_weight is None:
        return _weighted((1.0 - t) * x - _log_sigmoid(x), weight)
    return _weighted((1.0 - t) * x - ((pos_weight - 1.0) * t + 1.0) * _log_sigmoid(x), weight)


def _logit_gradient(grad, x, t, weight, pos_weight):
    if pos_weight is None:
        return _weighted((math.sigmoid(x) - t) * grad, weight)
    positive = pos_weight * t
    return _weighted(((positive + 1.0 - t) * math.sigmoid(x) - positive) * grad, weight)


_LOGIT = PairLoss("binary_cross_entropy_with_logits", _logit, _logit_gradient)


@composite(
    "_binary_cross_entropy_with_logits(Tensor self, Tensor target, Tensor? weight, "
    "Tensor? pos_weight, int reduction) -> Tensor",
    variants="",
)
def _binary_cross_entropy_with_logits(self, target, weight, pos_weight, reduction):
    return _LOGIT.forward((self, target, weight, pos_weight), reduction)


@_binary_cross_entropy_with_logits.derivative
def _logits_backward(grad, self, target, weight, pos_weight, reduction, needs):
    found = {}
    scaled = _scaled(grad, self, reduction)
    positive = target if pos_weight is None else pos_weight * target
    if grad_mode.enabled:
        slope = (positive + 1 - target) * self.sigmoid() - positive
        found["self"] = _weighted(scaled * slope, weight)
    elif "self" in needs:
        operands = (self, target, weight, pos_weight)
        found["self"] = _LOGIT.gradient(grad, operands, reduction)
    if "target" in needs:
        # log_sigmoid(-x) - log_sigmoid(x) is -x.
        slope = -self
        if pos_weight is not None:
            log_sigmoid = -((-self).exp().log1p())
            slope = (log_sigmoid - self) - pos_weight * log_sigmoid
        found["target"] = _weighted(scaled * slope, weight)
    return found


@composite(
    "binary_cross_entropy_with_logits(Tensor self, Tensor target, Tensor? weight=None, "
    "Tensor? pos_weight=None, int reduction=Mean) -> Tensor",
    variants="function",
)
def binary_cross_entropy_with_logits(self, target, weight, pos_weight, reduction):
    """Returns :func:`binary_cross_entropy` of ``sigmoid(self)``, stable for large logits."""
    self, target = matched("binary_cross_entropy_with_logits", self, target)
    values = [self, target, weight, pos_weight, reduction]
    return _binary_cross_entropy_with_logits.record(values)


_KL = "kl_div(Tensor self, Tensor target, int reduction=Mean, *, bool log_target=False) -> Tensor"


@composite(_KL, variants="function")
def kl_div(self, target, reduction, log_target):
    """Returns ``t (log t - x)`` of log probabilities ``x``; 0 where ``t`` is 0."""
    if log_target:
        return reduce_loss(target.exp() * (target - self), reduction)
    logs = where(target > 0, target.log() * target, where(target == 0, target * 0, target.log()))
    return reduce_loss(logs - target * self, reduction)


# -- margins -------------------------------------------------------------------------------------


@composite(
    "soft_margin_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor", variants=""
)
def soft_margin_loss(self, target, reduction):
    """Returns ``log(1 + exp(-t x))`` for targets 1 and -1."""
    return reduce_loss((-target * self).exp().log1p(), reduction)


@composite(
    "hinge_embedding_loss(Tensor self, Tensor target, float margin=1.0, int reduction=Mean) "
    "-> Tensor",
    variants="function",
)
def hinge_embedding_loss(self, target, margin, reduction):
    """Returns ``x`` where the target is 1 and ``max(0, margin - x)`` where it is -1."""
    zero = self * 0
    apart = where(target != 1, (margin - self).clamp(min=0), zero)
    return reduce_loss(apart + where(target != -1, self, zero), reduction)


@composite(
    "margin_ranking_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, "
    "int reduction=Mean) -> Tensor",
    variants="function",
)
def margin_ranking_loss(input1, input2, target, margin, reduction):
    """Returns ``max(0, -t (x1 - x2) + margin)``."""
    return reduce_loss((-target * (input1 - input2) + margin).clamp(min=0), reduction)


@composite(
    "cosine_embedding_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, "
    "int reduction=Mean) -> Tensor",
    variants="function",
)
def cosine_embedding_loss(input1, input2, target, margin, reduction):
    """Returns ``1 - cos`` where the target is 1 and ``max(0, cos - margin)`` where it is -1."""
    if target.ndim not in (0, 1):
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    dim = target.ndim
    products = sum_(input1 * input2, (dim,))
    squares1 = sum_(input1 * input1, (dim,)) + 1e-12
    squares2 = sum_(input2 * input2, (dim,)) + 1e-12
    cosines = products / (squares1 * squares2).sqrt()
    zero = cosines * 0
    losses = where(target == 1, 1 - cosines, zero)
    losses = losses + where(target == -1, (cosines - margin).clamp(min=0), zero)
    return reduce_loss(losses, reduction)


@composite(
    "poisson_nll_loss(Tensor input, Tensor target, bool log_input, bool full, float eps, "
    "int reduction) -> Tensor",
    variants="function",
)
def poisson_nll_loss(input, target, log_input, full, eps, reduction):
    """Returns the negative log likelihood of counts under Poisson distributions."""
    if log_input:
        losses = input.exp() - target * input
    else:
        losses = input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * numbers.pi * target).log()
        losses = losses + where(target > 1, stirling, target * 0)
    return reduce_loss(losses, reduction)


def pair_samples(make):
    """The sample table of losses of a prediction and a target."""
    yield make(3, 5), make(3, 5), {"reduction": MEAN}
    yield make(3, 5), make(3, 5), {"reduction": NONE}
    yield make(4, 3, transposed=True), make(3, 4), {"reduction": SUM}
    yield make(), make(), {"reduction": MEAN}
    yield make(3, 300), make(3, 300), {"reduction": MEAN}
    yield make(6, dtype="bfloat16"), make(6, dtype="bfloat16"), {"reduction": MEAN}
    yield make(7, dtype="float64"), make(7, dtype="float64"), {"reduction": MEAN}


for _operator in (mse_loss, l1_loss, smooth_l1_loss, huber_loss, soft_margin_loss):
    _operator.samples(pair_samples)


@binary_cross_entropy.samples
def binary_cross_entropy_samples(make):
    for reduction in (NONE, MEAN, SUM):
        yield make(3, 5, low=0.01, high=0.99), make(3, 5, low=0, high=1), {"reduction": reduction}
    values = [0.0, 1.0, 0.5, 0.0], [0.0, 0.5, 1.0, 1.0]
    yield make(values=values[0]), make(values=values[1]), {"reduction": MEAN}
    yield make(values=[2.0]), make(values=[1.0]), {"reduction": MEAN}


@binary_cross_entropy_with_logits.samples
def binary_cross_entropy_with_logits_samples(make):
    for reduction in (NONE, MEAN, SUM):
        yield make(3, 5, low=-20, high=20), make(3, 5, low=0, high=1), {"reduction": reduction}


@kl_div.samples
def kl_div_samples(make):
    yield make(3, 5), make(3, 5, low=0, high=1), {"reduction": MEAN}
    yield make(3), make(values=[0.0, 0.5, 1.0]), {"reduction": NONE}
    yield make(3, 5), make(3, 5), {"reduction": SUM, "log_target": True}


__all__ = ["cross_entropy_loss", "nll_loss", "nll_loss_nd"]
