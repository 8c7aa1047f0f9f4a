"""Dropout: zeroing elements or whole channels at random in training."""

from __future__ import annotations

import warnings

from flambeau.ops import random as operators
from flambeau.tensor import Tensor


def _check_probability(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _run(operator, input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    result = operator(input, p, training)
    return input.copy_(result) if inplace and result is not input else result


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes elements with probability ``p``, scales the others by ``1 / (1 - p)``."""
    _check_probability(p)
    return _run(operators.dropout, input, p, training, inplace)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean and variance of SELU units (https://arxiv.org/abs/1706.02515)."""
    _check_probability(p)
    return _run(operators.alpha_dropout, input, p, training, inplace)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`alpha_dropout` of whole channels."""
    _check_probability(p)
    return _run(operators.feature_alpha_dropout, input, p, training, inplace)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zeroes whole channels of ``(N, C, L)`` or ``(C, L)``."""
    _check_probability(p)
    dims = input.dim()
    if dims not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {dims}D input. "
            "Note that dropout1d exists to provide channel-wise dropout on inputs with 1 "
            "spatial dimension, a channel dimension, and an optional batch dimension "
            "(i.e. 2D or 3D inputs)."
        )
    return _with_batch(input, p, training, inplace, batched=dims == 3)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zeroes whole channels of ``(N, C, H, W)``."""
    _check_probability(p)
    dims = input.dim()
    if dims not in (3, 4):
        warnings.warn(_unusual_dims("dropout2d", dims, 2), stacklevel=2)
    if dims == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise "
            "1D dropout behavior is desired - input is interpreted as shape (N, C, L), where C "
            "is the channel dim. This behavior will change in a future release to interpret the "
            "input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=2,
        )
    return _run(operators.feature_dropout, input, p, training, inplace)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zeroes whole channels of ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    _check_probability(p)
    dims = input.dim()
    if dims not in (4, 5):
        warnings.warn(_unusual_dims("dropout3d", dims, 3), stacklevel=2)
    return _with_batch(input, p, training, inplace, batched=dims == 5)


def _with_batch(input: Tensor, p: float, training: bool, inplace: bool, batched: bool) -> Tensor:
    """Channel dropout of an input that may lack its batch dimension."""
    if batched:
        return _run(operators.feature_dropout, input, p, training, inplace)
    if inplace:
        _run(operators.feature_dropout, input.unsqueeze_(0), p, training, True)
        return input.squeeze_(0)
    return operators.feature_dropout(input.unsqueeze(0), p, training).squeeze(0)


def _unusual_dims(name: str, dims: int, spatial: int) -> str:
    return (
        f"{name}: Received a {dims}-D input to {name}, which is deprecated and will result in "
        "an error in a future release. To retain the behavior and silence this warning, please "
        f"use dropout instead. Note that {name} exists to provide channel-wise dropout on inputs "
        f"with {spatial} spatial dimensions, a channel dimension, and an optional batch "
        f"dimension (i.e. {spatial + 1}D or {spatial + 2}D inputs)."
    )
