"""Losses: how far a prediction is from a target."""

from __future__ import annotations

import warnings

from flambeau.core.layout import broadcast_shapes
from flambeau.nn.functional.reduction import legacy_reduction, reduction_number
from flambeau.ops import loss as operators
from flambeau.ops.classification_loss import cross_entropy_loss, nll_loss_nd
from flambeau.tensor import Tensor


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax and negative log likelihood in one.

    ``input`` is ``(C)``, ``(N, C)`` or ``(N, C, *)``; ``target`` holds classes, shaped like
    ``input`` without ``C``, or probabilities, shaped like ``input``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    number = reduction_number(reduction)
    return cross_entropy_loss(input, target, weight, number, ignore_index, label_smoothing)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood: ``-input[n, target[n]]`` of log probabilities ``(N, C, *)``."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return nll_loss_nd(input, target, weight, reduction_number(reduction), ignore_index)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(t log x + (1 - t) log(1 - x))`` for probabilities ``x``."""
    number = reduction_number(legacy_reduction(size_average, reduce, reduction))
    if target.size() != input.size():
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}) is deprecated. Please ensure they have the same size."
        )
    if weight is not None:
        weight = weight.expand(broadcast_shapes(target.size(), weight.size()))
    return operators.binary_cross_entropy(input, target, weight, number)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`binary_cross_entropy` of ``sigmoid(input)``, stable for large logits."""
    number = reduction_number(legacy_reduction(size_average, reduce, reduction))
    if target.size() != input.size():
        raise ValueError(
            f"Target size ({target.size()}) must be the same as input size ({input.size()})"
        )
    return operators.binary_cross_entropy_with_logits(input, target, weight, pos_weight, number)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``(x - t)²``; with ``weight``, the mean is over the weights."""
    _warn_of_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    left, right = _broadcast(input, target)
    if weight is None:
        return operators.mse_loss(left, right, reduction_number(reduction))
    return _weighted((left - right).pow(2), input, weight, reduction, weighted_mean=True)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``|x - t|``; with ``weight``, the mean is over the weights."""
    _warn_of_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    left, right = _broadcast(input, target)
    if weight is None:
        return operators.l1_loss(left, right, reduction_number(reduction))
    return _weighted((left - right).abs(), input, weight, reduction, weighted_mean=True)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic within ``beta`` of the target, linear beyond (https://arxiv.org/abs/1504.08083)."""
    _warn_of_broadcast(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    left, right = _broadcast(input, target)
    if beta == 0.0:
        return operators.l1_loss(left, right, reduction_number(reduction))
    return operators.smooth_l1_loss(left, right, reduction_number(reduction), beta)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """:func:`smooth_l1_loss` times ``delta``."""
    _warn_of_broadcast(input, target)
    left, right = _broadcast(input, target)
    if weight is None:
        return operators.huber_loss(left, right, reduction_number(reduction), delta)
    losses = operators.huber_loss(left, right, reduction_number("none"), delta)
    return _weighted(losses, input, weight, reduction, weighted_mean=False)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence ``t (log t - x)`` of log probabilities ``x``.

    ``reduction="batchmean"`` is the divergence as mathematics defines it.
    """
    if size_average is not None or reduce is not None:
        number = reduction_number(legacy_reduction(size_average, reduce, reduction))
    else:
        if reduction == "mean":
            warnings.warn(
                "reduction: 'mean' divides the total loss by both the batch size and the support "
                "size.'batchmean' divides only by the batch size, and aligns with the KL div "
                "math definition.'mean' will be changed to behave the same as 'batchmean' in the "
                "next major release.",
                stacklevel=2,
            )
        number = reduction_number("sum" if reduction == "batchmean" else reduction)
    reduced = operators.kl_div(input, target, number, log_target=log_target)
    if reduction == "batchmean" and input.dim() != 0:
        reduced = reduced / input.size(0)
    return reduced


def _broadcast(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both with their common shape."""
    if input.shape == target.shape:
        return input, target
    shape = broadcast_shapes(input.shape, target.shape)
    return input.expand(shape), target.expand(shape)


def _warn_of_broadcast(input: Tensor, target: Tensor) -> None:
    if target.size() != input.size():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=3,
        )


def _weighted(
    losses: Tensor, input: Tensor, weight: Tensor, reduction: str, weighted_mean: bool
) -> Tensor:
    if weight.size() != input.size():
        raise ValueError("Weights and input must have the same size.")
    weighted = losses * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if reduction != "mean":
        raise ValueError(
            f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'."
        )
    return weighted.sum() / weight.sum() if weighted_mean else weighted.mean()
