"""Linear maps, convolutions, normalization and embedding as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.graph import no_grad
from flambeau.ops import embedding as table
from flambeau.ops import normalization
from flambeau.ops.pointwise import div, where
from flambeau.tensor import Tensor


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1 @ weight[k] @ x2 + bias[k]`` for each ``k``: ``(*, I), (*, J) -> (*, K)``.

    ``weight`` is ``(K, I, J)``.
    """
    _check_bilinear(input1, input2, weight, bias)
    outputs, width1, width2 = weight.shape
    left = input1.reshape(-1, width1)
    right = input2.reshape(-1, 1, width2)
    mixed = left.matmul(weight.permute(1, 0, 2).reshape(width1, outputs * width2))
    result = (mixed.reshape(-1, outputs, width2) * right).sum(-1)
    result = result.reshape(*input1.shape[:-1], outputs)
    return result if bias is None else result + bias


def _check_bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    message = None
    if input1.dim() != input2.dim():
        message = f"input dimensions do not match: got {input1.dim()} and {input2.dim()}"
    for dim, (first, second) in enumerate(zip(input1.shape[:-1], input2.shape[:-1])):
        if message is None and first != second:
            message = f"input batch dimensions do not match at dim {dim}: got {first} and {second}"
    for number, given in enumerate((input1, input2), 1):
        if message is None and given.size(-1) != weight.size(number):
            message = (
                f"input{number} size does not match weight size: got {given.size(-1)} "
                f"but expected {weight.size(number)}"
            )
    if message is None and bias is not None and bias.size(0) != weight.size(0):
        message = (
            f"bias size does not match weight size: got {bias.size(0)} "
            f"but expected {weight.size(0)}"
        )
    if message is not None:
        raise RuntimeError(f"bilinear(): {message}")


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` ``(V, D)`` at ``input`` ``(*)``: shape ``(*, D)``.

    ``padding_idx`` gets no gradient. ``max_norm`` first scales the rows used down to that norm.
    """
    if padding_idx is None:
        padding_idx = -1
    elif not -weight.size(0) <= padding_idx < weight.size(0):
        raise AssertionError("Padding_idx must be within num_embeddings")
    elif padding_idx < 0:
        padding_idx += weight.size(0)
    if max_norm is not None:
        input = input.contiguous()
        with no_grad():
            limit_rows(weight.detach(), input, max_norm, norm_type)
    return table.embedding(weight, input, padding_idx, scale_grad_by_freq, sparse)


def limit_rows(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows of ``weight`` at ``indices`` down to ``max_norm``, in place."""
    # A row used twice is written twice, with the same values.
    used = indices.reshape(-1)
    rows = weight[used]
    norms = rows.norm(norm_type, 1, keepdim=True)
    weight[used] = where(norms > max_norm, rows * (max_norm / (norms + 1e-7)), rows)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel over batch and space (https://arxiv.org/abs/1502.03167).

    In training by the statistics of ``input`` ``(N, C, *)``, which also move the running ones;
    otherwise by the running statistics.
    """
    if training:
        _check_values_per_channel(input.size())
    if training and eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    return normalization.batch_norm(
        input, weight, bias, running_mean, running_var, training, momentum, eps, True
    )


def _check_values_per_channel(size: Sequence[int]) -> None:
    values = size[0]
    for n in size[2:]:
        values *= n
    if values == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size}"
        )


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes over the last dimensions (https://arxiv.org/abs/1607.06450)."""
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps, True)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divides by the root mean square over the last dimensions (arXiv 1910.07467)."""
    return normalization.rms_norm(input, normalized_shape, weight, eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each group of channels of ``(N, C, *)`` (https://arxiv.org/abs/1803.08494)."""
    if input.dim() < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.dim()}"
        )
    size = input.size()
    _check_values_per_channel([size[0] * size[1] // num_groups, num_groups, *size[2:]])
    return normalization.group_norm(input, num_groups, weight, bias, eps, True)


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
) -> Tensor:
    """``input`` divided by its ``p``-norm along ``dim``, the norm being at least ``eps``."""
    norms = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    if out is None:
        return input / norms
    return div(input, norms, out=out)
