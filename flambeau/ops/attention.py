"""Scaled dot product attention: kernels that keep no scores, and the composite beside them.

The dispatch rule: the kernels take floating types without dropout, without a gradient for the
mask, without an empty dimension, of at most `MOST_COLUMNS` columns, where shapes agree; half
precision only where PyTorch's own kernel does.  Everything else, and every mistake, takes the
composite, as does a backward pass that is itself differentiated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from flambeau.compiler.attention import (
    MOST_COLUMNS,
    AttentionProblem,
    plan_attention,
    plan_attention_backward,
)
from flambeau.core import dtype as types
from flambeau.core.layout import Layout, broadcast_shapes, elementwise_strides
from flambeau.engine.call import Lowered, View
from flambeau.graph import grad_mode, no_grad
from flambeau.ops.combination import masked_fill
from flambeau.ops.conversion import to_dtype
from flambeau.ops.convolution import lowered
from flambeau.ops.creation import ones, zeros
from flambeau.ops.declare import composite, kernel_operator, operation_dtype
from flambeau.ops.extreme import amax
from flambeau.ops.joining import repeat_interleave, tril
from flambeau.ops.matmul import matmul
from flambeau.ops.normalization import softmax
from flambeau.ops.random import dropout
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import expand, reshape, transpose
from flambeau.tensor import Tensor, types_name


@dataclass
class AllowedBackends:
    """Which of PyTorch's ways are switched on (``torch.backends.cuda``, ``sdpa_kernel``).

    ``flash`` means the kernels here and ``math`` the composite; the others are only remembered.
    """

    flash: bool = True
    math: bool = True
    mem_efficient: bool = True
    cudnn: bool = True
    overrideable: bool = True
    half_reduction: bool = False


allowed = AllowedBackends()


# -- the kernels: four dimensions, broadcast, an additive mask in the type of the computation ------


def _problem(
    query: Layout,
    key: Layout,
    value: Layout,
    scale: float,
    causal: bool,
    operands: dict[str, View],
) -> AttentionProblem:
    batch, heads, queries, dim = query.shape
    return AttentionProblem(
        dtype=query.dtype,
        batch=batch,
        heads=heads,
        group=heads // key.shape[1],
        queries=queries,
        keys=key.shape[2],
        dim=dim,
        value_dim=value.shape[3],
        scale=scale,
        causal=causal,
        masked="mask" in operands,
        strides={name: view.layout.strides for name, view in operands.items() if name != "lse"},
    )


@kernel_operator(
    "_flash_attention(Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, "
    "bool causal, bool like_query) -> (Tensor, Tensor)",
    variants="",
)
def flash_attention(query, key, value, mask, scale, causal, like_query):
    shape = (*query.shape[:-1], value.shape[-1])
    strides = elementwise_strides(shape, [query]) if like_query else None
    levels = Layout.of(query.shape[:-1], operation_dtype(query.dtype), query.device)
    return Layout.of(shape, query.dtype, query.device, strides), levels


flash_attention.node_name = "ScaledDotProductFlashAttentionForCpuBackward0"


@flash_attention.lower
def flash_attention_lower(
    call, target, query, key, value, mask, scale, causal, like_query
) -> Lowered:
    names = ("q", "k", "v", "mask") if mask is not None else ("q", "k", "v")
    operands = dict(zip(names, call.reads, strict=True))
    operands |= {"out": call.writes[0], "lse": call.writes[1]}
    problem = _problem(query, key, value, scale, causal, operands)
    return lowered(plan_attention(problem, target), operands)


@flash_attention.derivative
def flash_attention_derivative(grad0, query, key, value, mask, result0, result1, scale, causal):
    if grad_mode.enabled:
        gradients = _differentiable_gradients(grad0, query, key, value, mask, scale, causal)
    else:
        gradients = flash_attention_backward(
            grad0, query, key, value, mask, result0, result1, scale, causal
        )
    return dict(zip(("query", "key", "value"), gradients, strict=True))


@kernel_operator(
    "_flash_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor? mask, "
    "Tensor out, Tensor lse, float scale, bool causal) -> (Tensor, Tensor, Tensor)",
    variants="",
    differentiable=False,
)
def flash_attention_backward(grad, query, key, value, mask, out, lse, scale, causal):
    return tuple(_rows_outside_heads(layout) for layout in (query, key, value))


def _rows_outside_heads(layout: Layout) -> Layout:
    """As PyTorch lays gradients out: all heads of a row side by side."""
    _, heads, rows, columns = layout.shape
    strides = (heads * rows * columns, columns, heads * columns, 1)
    return Layout.of(layout.shape, layout.dtype, layout.device, strides)


@flash_attention_backward.lower
def flash_attention_backward_lower(
    call, target, grad, query, key, value, mask, out, lse, scale, causal
) -> Lowered:
    names = ("grad", "q", "k", "v", *(() if mask is None else ("mask",)), "out", "lse")
    operands = dict(zip(names, call.reads, strict=True))
    operands |= dict(zip(("dq", "dk", "dv"), call.writes, strict=True))
    problem = _problem(query, key, value, scale, causal, operands)
    return lowered(plan_attention_backward(problem, target), operands)


def _differentiable_gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
) -> tuple[Tensor, ...]:
    """The gradients by operators that have derivatives themselves."""
    heads, shared, dtype = query.shape[1], key.shape[1], query.dtype
    computed = operation_dtype(dtype)
    grad, query, key, value = (to_dtype(t, computed) for t in (grad, query, key, value))
    keys, values = (repeat_interleave(t, heads // shared, 1) for t in (key, value))
    weights = _weights(query, keys, mask, scale, causal)
    slopes = matmul(grad, transpose(values, -2, -1))
    slopes = weights * (slopes - sum_(weights * slopes, (-1,), True)) * scale

    def shared_sum(gradient: Tensor) -> Tensor:
        batch, _, rows, columns = gradient.shape
        return sum_(reshape(gradient, (batch, shared, heads // shared, rows, columns)), (2,))

    gradients = (
        matmul(slopes, keys),
        shared_sum(matmul(transpose(slopes, -2, -1), query)),
        shared_sum(matmul(transpose(weights, -2, -1), grad)),
    )
    return tuple(to_dtype(gradient, dtype) for gradient in gradients)


# -- the composite -----------------------------------------------------------------------------


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, causal: bool) -> Tensor:
    """``softmax(scale * query @ key^T + mask)``; zeros for a query that may look nowhere."""
    scores = matmul(query * scale, transpose(key, -2, -1))
    if causal:
        seen = tril(ones((query.shape[-2], key.shape[-2]), dtype=types.uint8)) != 0
        scores = masked_fill(scores, ~seen, -math.inf)
    if mask is not None:
        if mask.dtype is types.bool_:
            scores = masked_fill(scores, ~mask, -math.inf)
        else:
            scores = scores + to_dtype(mask, scores.dtype)
    if mask is None or 0 in scores.shape:
        return softmax(scores, -1)
    with no_grad():
        blind = amax(scores, (-1,), True) == -math.inf
    return masked_fill(softmax(masked_fill(scores, blind, 0.0), -1), blind, 0.0)


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
    mask_layout = None if attn_mask is None else attn_mask._layout
    way = _dispatch(query._layout, key._layout, value._layout, mask_layout, enable_gqa)
    if not (allowed.flash or allowed.math):
        raise RuntimeError(
            "No viable backend for scaled_dot_product_attention was found. This is likely due to "
            "turning off both the math kernel and the fused kernels."
        )
    fits = way.fits and allowed.flash and dropout_p == 0
    if attn_mask is not None:
        if attn_mask.requires_grad and grad_mode.enabled:
            fits = False
        if is_causal and not (fits and way.like_query):
            raise RuntimeError(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
                "is_causal=True"
            )
    if not allowed.math and not (fits and way.like_query):
        raise RuntimeError("No available kernel.  Aborting execution.")
    scale = way.scale if scale is None else float(scale)
    if fits:
        return _by_kernels(query, key, value, attn_mask, is_causal, scale, way)
    if enable_gqa and query.ndim > 2:
        key, value = _repeated(key, query), _repeated(value, query)
    computed = operation_dtype(query.dtype)
    query, key, wide_value = (to_dtype(t, computed) for t in (query, key, value))
    weights = _weights(query, key, attn_mask, scale, is_causal)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p, True)
    return to_dtype(matmul(weights, wide_value), value.dtype)


@dataclass(frozen=True, slots=True)
class _Way:
    """What the operands' layouts decide.

    ``outer`` is the broadcast shape of all dimensions but the last two, ``shared`` that of keys and
    values, where fewer heads of them serve several of the query.  ``direct``: the kernels take the
    operands as they are.
    """

    fits: bool
    scale: float
    like_query: bool = False
    direct: bool = False
    outer: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()


@functools.lru_cache(maxsize=1024)
def _dispatch(
    query: Layout, key: Layout, value: Layout, mask: Layout | None, enable_gqa: bool
) -> _Way:
    """The dispatch rule of this module, as far as layouts go; raises for what never fits."""
    _check(query, key, value, mask)
    columns = query.shape[-1]
    scale = 1 / math.sqrt(columns) if columns else math.inf
    outer = _outer_shapes(query.shape, key.shape, value.shape, enable_gqa)
    fits = (
        outer is not None
        and query.dtype.is_floating_point
        and key.shape[-1] == columns
        and key.shape[-2] == value.shape[-2]
        and max(columns, value.shape[-1]) <= MOST_COLUMNS
        and 0 not in (*query.shape, *key.shape, *value.shape)
    )
    if not fits or outer is None:
        return _Way(False, scale)
    if mask is not None and not _expands(mask.shape, (*outer[0], query.shape[-2], key.shape[-2])):
        return _Way(False, scale)
    four = query.ndim == key.ndim == value.ndim == 4
    direct = four and query.shape[:2] == outer[0] and key.shape[:2] == value.shape[:2] == outer[1]
    # PyTorch's own kernel, whose result is laid out as the query is, takes these operands.
    like_query = (
        direct
        and columns == value.shape[-1]
        and query.strides[-1] == key.strides[-1] == value.strides[-1] == 1
    )
    # Gradients want the result before it is rounded: in half precision PyTorch's kernel does
    # without as well, but its composite has it.
    if operation_dtype(query.dtype) is not query.dtype and not like_query:
        return _Way(False, scale)
    return _Way(True, scale, like_query, direct, *outer)


def _outer_shapes(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], enable_gqa: bool
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Of the result, and of keys and values (see `_Way`); None where they do not agree."""
    own, *others = (tuple(shape[:-2]) for shape in (query, key, value))
    try:
        shared = broadcast_shapes(*others)
        if not enable_gqa:
            return (broadcast_shapes(own, shared),) * 2
        if not own or len(own) != len(shared) or not shared[-1] or own[-1] % shared[-1]:
            return None
        outer = broadcast_shapes(own[:-1], shared[:-1])
    except RuntimeError:
        return None
    return (*outer, own[-1]), (*outer, shared[-1])


def _expands(shape: Sequence[int], full: Sequence[int]) -> bool:
    missing = len(full) - len(shape)
    return missing >= 0 and all(n in (1, m) for n, m in zip(shape, full[missing:], strict=True))


def _by_kernels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    way: _Way,
) -> Tensor:
    outer = way.outer
    if mask is not None:
        mask = expand(_additive(mask, query.dtype), (*outer, query.shape[-2], key.shape[-2]))
        mask = _four(mask, outer)
    if not way.direct:
        query, key, value = _four(query, outer), _four(key, way.shared), _four(value, way.shared)
    # The arguments are in canonical form already.
    result = flash_attention.record([query, key, value, mask, scale, causal, way.like_query])[0]
    return result if len(outer) == 2 else reshape(result, (*outer, *result.shape[-2:]))


def _four(tensor: Tensor, outer: tuple[int, ...]) -> Tensor:
    """The tensor with its outer dimensions broadcast and made two."""
    if tensor.ndim == 4 and tuple(tensor.shape[:2]) == outer:
        return tensor
    inner = tuple(tensor.shape[-2:])
    full = expand(tensor, (*outer, *inner))
    if len(outer) == 2:
        return full
    batch = math.prod(outer[:-1])
    return reshape(full, (batch, outer[-1] if outer else 1, *inner))


def _additive(mask: Tensor, dtype: types.dtype) -> Tensor:
    """The mask as numbers to add, of the type that scores are computed in."""
    computed = operation_dtype(dtype)
    with no_grad():
        if mask.dtype is not types.bool_:
            return to_dtype(mask, computed)
        return masked_fill(zeros(mask.shape, dtype=computed), ~mask, -math.inf)


def _check(query: Layout, key: Layout, value: Layout, mask: Layout | None) -> None:
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{types_name(query.dtype)} key.dtype: {types_name(key.dtype)} and value.dtype: "
            f"{types_name(value.dtype)} instead."
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if mask is not None and mask.dtype not in (types.bool_, types.float32, query.dtype):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {types_name(mask.dtype)} and  query.dtype: "
            f"{types_name(query.dtype)} instead."
        )
    if query.dtype.category in ("integer", "bool"):
        raise RuntimeError(f"expected scalar type Float but found {query.dtype.title}")


def _repeated(shared: Tensor, query: Tensor) -> Tensor:
    heads, count = query.shape[-3], shared.shape[-3]
    if not count or heads % count:
        raise RuntimeError("Number of heads in key and value must divide the number of heads in ")
    return repeat_interleave(shared, heads // count, -3)


@scaled_dot_product_attention.samples
def scaled_dot_product_attention_samples(make):
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 6)
    yield make(1, 2, 5, 4), make(1, 2, 5, 4), make(1, 2, 5, 4), {"is_causal": True}
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 6), make(3, 5), {"scale": 0.3}
    yield make(2, 3, 37, 8), make(2, 3, 37, 8), make(2, 3, 37, 8), {"is_causal": True}
    yield make(2, 3, 37, 8), make(2, 3, 130, 8), make(2, 3, 130, 8)
    yield make(2, 3, 37, 8), make(1, 3, 30, 8), make(1, 3, 30, 12), {"scale": -0.4}
    yield make(1, 2, 9, 5), make(1, 2, 7, 5), make(1, 2, 7, 5), make(9, 7, dtype="bool")
    yield make(2, 2, 9, 5), make(2, 2, 7, 5), make(2, 2, 7, 5), make(2, 1, 1, 7, dtype="bool")
    yield (
        make(1, 2, 3, 4),
        make(1, 2, 2, 4),
        make(1, 2, 2, 4),
        make(values=[[0, 0.5], [-math.inf, -math.inf], [1, -math.inf]]),
    )
    yield make(1, 4, 6, 8), make(1, 2, 7, 8), make(1, 2, 7, 8), {"enable_gqa": True}
    yield make(4, 6, 8), make(2, 7, 8), make(2, 7, 8), {"enable_gqa": True}
    yield make(5, 4), make(6, 4), make(6, 3)
    yield make(1, 2, 2, 3, 4), make(1, 2, 2, 3, 4), make(1, 2, 2, 3, 4), {"is_causal": True}
    yield (*(make(1, 2, 7, 4, dtype="float64") for _ in range(3)), {"is_causal": True})
    yield tuple(make(1, 2, 7, 4, dtype="bfloat16") for _ in range(3))
    yield tuple(make(1, 2, 7, 4, dtype="float16") for _ in range(3))
    yield (*(make(1, 2, 7, 4, dtype="bfloat16") for _ in range(3)), make(7, 7))
    yield make(1, 2, 3, 4), make(1, 2, 0, 4), make(1, 2, 0, 4)
    yield make(1, 2, 0, 4), make(1, 2, 3, 4), make(1, 2, 3, 4)
    yield make(1, 2, 3, 4), make(1, 2, 3, 4), make(1, 2, 3, 4), make(3, 3), 0.0, True
    yield make(2, 3, 4), make(2, 3, 4), make(2, 3, 4), make(3, 3), 0.0, True
    yield make(2, 3, 4), make(2, 3, 5), make(2, 3, 4)
    yield make(2, 5, 3, 4), make(2, 3, 3, 4), make(2, 3, 3, 4), {"enable_gqa": True}
    yield make(2, 5, 3, 4), make(2, 3, 3, 4), make(2, 3, 3, 4)
    yield make(2, 3, 4), make(2, 3, 4), make(2, 3, 4), make(3, 4)
    yield make(2, 3, 4), make(2, 3, 4), make(2, 3, 4), make(3, 3, dtype="int64")
    yield make(2, 3, 4), make(2, 3, 4), make(2, 3, 4, dtype="float64")
    yield make(4), make(2, 3, 4), make(2, 3, 4)
