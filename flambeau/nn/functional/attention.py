"""Attention with several heads and its projections."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from flambeau.core.dtype import bool_, dtype
from flambeau.nn.functional.dropout import dropout
from flambeau.ops.attention import scaled_dot_product_attention
from flambeau.ops.combination import masked_fill
from flambeau.ops.creation import zeros
from flambeau.ops.joining import cat, constant_pad
from flambeau.ops.matmul import linear, matmul
from flambeau.ops.normalization import softmax
from flambeau.tensor import Tensor


def additive_mask(
    mask: Tensor | None,
    name: str,
    other: Tensor | None,
    other_name: str,
    dtype: dtype,
    compared: bool = True,
) -> Tensor | None:
    """A mask as numbers to add: a bool one is minus infinity where it is true.

    Warns where it is ``compared`` with another mask of another type.
    """
    if mask is None:
        return None
    if mask.dtype is not bool_ and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if compared and other is not None and other.dtype is not mask.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for "
            "both instead.",
            stacklevel=3,
        )
    if mask.dtype is not bool_:
        return mask
    return masked_fill(zeros(mask.shape, dtype=dtype), mask, -math.inf)


def _is_batch_major(tensor: Tensor) -> bool:
    """Whether ``(length, batch, features)`` lies in memory batch entry by batch entry."""
    return tensor.stride(0) < tensor.stride(1)


def _project(tensor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map that takes the rows in the order of memory, so that none are moved."""
    if _is_batch_major(tensor):
        return linear(tensor.transpose(0, 1), weight, bias).transpose(0, 1)
    return linear(tensor, weight, bias)


@dataclass(frozen=True)
class _Projections:
    """The weights and biases of the three input projections."""

    weights: tuple[Tensor, Tensor, Tensor] | None
    packed: Tensor | None
    bias: Tensor | None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = query.shape[-1]
        if self.packed is not None and query is key and key is value:
            return _project(query, self.packed, self.bias).split(width, -1)
        if self.packed is not None and key is value:
            query_weight, both_weights = self.packed.split([width, 2 * width])
            query_bias = both_bias = None
            if self.bias is not None:
                query_bias, both_bias = self.bias.split([width, 2 * width])
            keys, values = _project(key, both_weights, both_bias).split(width, -1)
            return _project(query, query_weight, query_bias), keys, values
        weights = self.packed.chunk(3) if self.weights is None else self.weights
        biases = (None,) * 3 if self.bias is None else self.bias.chunk(3)
        inputs = (query, key, value)
        found = [_project(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
        return found[0], found[1], found[2]


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of ``num_heads`` heads between projected queries, keys and values.

    Operands are ``(length, batch, features)`` or ``(length, features)``.  Returns the projected
    result and, with ``need_weights``, the attention weights.  Bool masks hide where they are true.
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = _unsqueezed(query, key, value)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    padding = additive_mask(
        key_padding_mask, "key_padding_mask", attn_mask, "attn_mask", query.dtype
    )
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    by_hint = is_causal and padding is None and not need_weights
    if by_hint:
        attn_mask = None
    mask = additive_mask(attn_mask, "attn_mask", None, "", query.dtype, False)
    projections = _projections(
        query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias,
        (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None,
    )  # fmt: skip
    head_dim = width // num_heads
    mask = _checked_mask(mask, length, key.shape[0], batch, num_heads)
    queries, keys, values = projections(query, key, value)
    if (bias_k is None) != (bias_v is None):
        raise AssertionError(
            "bias_v is set but bias_k is None"
            if bias_k is None
            else "bias_k is set but bias_v is None"
        )
    if bias_k is not None and bias_v is not None:
        if static_k is not None:
            raise AssertionError("bias cannot be added to static key.")
        if static_v is not None:
            raise AssertionError("bias cannot be added to static value.")
        keys = cat([keys, bias_k.expand(1, batch, width)])
        values = cat([values, bias_v.expand(1, batch, width)])
        mask, padding = _longer(mask), _longer(padding)
    shape = (batch, num_heads, head_dim)
    queries = _split_heads(queries, shape)
    keys = _static("k", static_k, shape) if static_k is not None else _split_heads(keys, shape)
    values = _static("v", static_v, shape) if static_v is not None else _split_heads(values, shape)
    if add_zero_attn:
        nothing = zeros((batch, num_heads, 1, head_dim), dtype=keys.dtype)
        keys, values = cat([keys, nothing], 2), cat([values, nothing], 2)
        mask, padding = _longer(mask), _longer(padding)
    mask = _merged(mask, padding, batch, keys.shape[2])
    rate = dropout_p if training else 0.0
    if not need_weights:
        result = scaled_dot_product_attention(queries, keys, values, mask, rate, by_hint)
        weights = None
    else:
        result, weights = _attend(queries, keys, values, mask, rate)
    # Rows in the order of lengths, whatever the operands' is: dropout draws in the order of memory.
    rows = result.permute(2, 0, 1, 3).reshape(length, batch, width)
    output = linear(rows, out_proj_weight, out_proj_bias)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    if not batched:
        output = output.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return output, weights


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, rate: float
) -> tuple[Tensor, Tensor]:
    """Attention that keeps its weights; a query that sees nothing has weights of NaN."""
    scores = matmul(queries * math.sqrt(1.0 / queries.shape[-1]), keys.transpose(-2, -1))
    weights = softmax(scores if mask is None else scores + mask, -1)
    if rate > 0.0:
        weights = dropout(weights, rate)
    return matmul(weights, values), weights


def _unsqueezed(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With a batch dimension; equal objects stay equal, for they are projected together."""
    wide_query = query.unsqueeze(1)
    wide_key = wide_query if key is query else key.unsqueeze(1)
    return wide_query, wide_key, wide_key if value is key else value.unsqueeze(1)


def _split_heads(tensor: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``(length, batch, heads * dim)`` as ``(batch, heads, length, dim)``; a view."""
    return tensor.view(tensor.shape[0], *shape).permute(1, 2, 0, 3)


def _static(name: str, tensor: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Keys or values that the caller gives ready: ``(batch * heads, length, dim)``."""
    batch, heads, head_dim = shape
    if tensor.shape[0] != batch * heads:
        raise AssertionError(
            f"expecting static_{name}.size(0) of {batch * heads}, but got {tensor.shape[0]}"
        )
    if tensor.shape[2] != head_dim:
        raise AssertionError(
            f"expecting static_{name}.size(2) of {head_dim}, but got {tensor.shape[2]}"
        )
    return tensor.view(batch, heads, -1, head_dim)


def _longer(mask: Tensor | None) -> Tensor | None:
    """A mask for one key more, which everybody may see."""
    return None if mask is None else constant_pad(mask, (0, 1), 0)


def _merged(mask: Tensor | None, padding: Tensor | None, batch: int, keys: int) -> Tensor | None:
    """Both masks as one that broadcasts to ``(batch, heads, queries, keys)``."""
    if padding is None:
        return mask
    if tuple(padding.shape) != (batch, keys):
        raise AssertionError(
            f"expecting key_padding_mask shape of {(batch, keys)}, but got {padding.shape}"
        )
    padding = padding.view(batch, 1, 1, keys)
    return padding if mask is None else mask + padding


def _checked_mask(
    mask: Tensor | None, queries: int, keys: int, batch: int, heads: int
) -> Tensor | None:
    if mask is None:
        return None
    rank = mask.dim()
    expected = (queries, keys) if rank == 2 else (batch * heads, queries, keys)
    if tuple(mask.shape) != expected:
        raise RuntimeError(
            f"The shape of the {rank}D attn_mask is {mask.shape}, but should be {expected}."
        )
    return mask if rank == 2 else mask.view(batch, heads, queries, keys)


def _projections(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    expected_width: int,
    heads: int,
    packed: Tensor | None,
    bias: Tensor | None,
    separate: tuple[Tensor | None, Tensor | None, Tensor | None] | None,
) -> _Projections:
    width = query.shape[-1]
    if width != expected_width:
        raise AssertionError(
            f"was expecting embedding dimension of {expected_width}, but got {width}"
        )
    if width // heads * heads != width:
        raise AssertionError(f"embed_dim {width} not divisible by num_heads {heads}")
    if separate is None:
        if key.shape != value.shape:
            raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
        if packed is None:
            raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
        return _Projections(None, packed, bias)
    if key.shape[:2] != value.shape[:2]:
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
        )
    weights = []
    for name, weight in zip("qkv", separate, strict=True):
        if weight is None:
            raise AssertionError(f"use_separate_proj_weight is True but {name}_proj_weight is None")
        weights.append(weight)
    for name, weight, operand in zip(
        ("query", "key", "value"), weights, (query, key, value), strict=True
    ):
        expected = (width, operand.shape[-1])
        if tuple(weight.shape) != expected:
            raise AssertionError(
                f"expecting {name} weights shape of {expected}, but got {weight.shape}"
            )
    return _Projections((weights[0], weights[1], weights[2]), None, bias)


def _check_ranks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    heads: int,
) -> bool:
    """Whether there is a batch; raises where the numbers of dimensions do not go together."""
    rank = query.dim()
    if rank not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor"
        )
    kind = "batched (3-D)" if rank == 3 else "unbatched (2-D)"
    if key.dim() != rank or value.dim() != rank:
        raise AssertionError(
            f"For {kind} `query`, expected `key` and `value` to be {rank}-D but found "
            f"{key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.dim() != rank - 1:
        raise AssertionError(
            f"For {kind} `query`, expected `key_padding_mask` to be `None` or {rank - 1}-D but "
            f"found {key_padding_mask.dim()}-D tensor instead"
        )
    if attn_mask is None:
        return rank == 3
    if attn_mask.dim() not in (2, 3):
        raise AssertionError(
            f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found "
            f"{attn_mask.dim()}-D tensor instead"
        )
    if rank == 2 and attn_mask.dim() == 3:
        expected = (heads, query.shape[0], key.shape[0])
        if tuple(attn_mask.shape) != expected:
            raise AssertionError(
                f"Expected `attn_mask` shape to be {expected} but got {attn_mask.shape}"
            )
    return rank == 3
