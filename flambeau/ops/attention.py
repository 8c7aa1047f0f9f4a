"""Attention as products and a softmax."""

from __future__ import annotations

import math

from flambeau.ops.combination import masked_fill
from flambeau.ops.creation import ones
from flambeau.ops.declare import composite
from flambeau.ops.joining import repeat_interleave, tril
from flambeau.ops.matmul import matmul
from flambeau.ops.normalization import softmax
from flambeau.ops.random import dropout
from flambeau.ops.view import transpose
from flambeau.tensor import Tensor


@composite(
    "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, "
    "float dropout_p=0.0, bool is_causal=False, *, any scale=None, bool enable_gqa=False) "
    "-> Tensor",
    variants="",
)
def scaled_dot_product_attention(
    query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
):
    """Returns ``softmax(query @ key.mT * scale + mask) @ value``; ``(…, L, E) -> (…, L, Ev)``.

    A bool mask keeps the places where it is true; ``is_causal`` those not after the query's own.
    ``enable_gqa`` repeats the heads of ``key`` and ``value`` (dimension -3) for groups of queries.
    """
    _check(query, key, value, attn_mask, is_causal)
    if enable_gqa:
        key, value = _repeated(key, query), _repeated(value, query)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = matmul(query * factor, transpose(key, -2, -1))
    if is_causal:
        attn_mask = tril(ones((query.shape[-2], key.shape[-2]), dtype=query.dtype)) != 0
    if attn_mask is not None:
        if attn_mask.dtype.category == "bool":
            scores = masked_fill(scores, ~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    weights = softmax(scores, -1)
    if attn_mask is not None:
        # A query that may look nowhere gets zeros.
        weights = masked_fill(weights, weights != weights, 0.0)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p, True)
    return matmul(weights, value)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool) -> None:
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype.title} key.dtype: {key.dtype.title} and value.dtype: "
            f"{value.dtype.title} instead."
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.ndim}, key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if mask is not None and is_causal:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True"
        )


def _repeated(heads: Tensor, query: Tensor) -> Tensor:
    return repeat_interleave(heads, query.shape[-3] // heads.shape[-3], -3)


@scaled_dot_product_attention.samples
def scaled_dot_product_attention_samples(make):
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 6)
    yield make(1, 2, 5, 4), make(1, 2, 5, 4), make(1, 2, 5, 4), {"is_causal": True}
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 6), make(3, 5), {"scale": 0.3}
