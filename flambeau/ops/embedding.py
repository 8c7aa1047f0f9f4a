"""Rows of a table by number, and their gradient."""

from __future__ import annotations

from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.ops.creation import filled
from flambeau.ops.declare import composite
from flambeau.ops.indexing import index_put, index_tensor, scatter_add
from flambeau.ops.scatter import check_range, scatter_rows, take, walk_layout
from flambeau.ops.view import contiguous, expand, reshape, unsqueeze


@composite(
    "embedding(Tensor weight, Tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, "
    "bool sparse=False) -> Tensor",
    variants="function",
)
def embedding(weight, indices, padding_idx, scale_grad_by_freq, sparse):
    """Returns the rows of ``weight`` at ``indices``: ``(V, D), (*) -> (*, D)``."""
    if weight.ndim != 2:
        raise RuntimeError("'weight' must be 2-D")
    if indices.dtype not in (types.int64, types.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got torch.{indices.dtype.title}Tensor instead (while checking "
            "arguments "
            "for embedding)"
        )
    check_range(indices, weight.shape[0], IndexError, "index out of range in self")
    layout = weight._layout
    shape = (*indices.shape, layout.shape[1])
    walk = walk_layout(layout, shape, [0] * indices.ndim + [layout.strides[1]])
    return take(
        weight, walk, (unsqueeze(indices, indices.ndim),), layout.shape[:1], layout.strides[:1]
    )


@embedding.derivative
def embedding_backward(grad, weight_layout, indices, padding_idx, scale_grad_by_freq):
    rows, width = weight_layout.shape
    zeros = filled(Layout.of((rows, width), grad.dtype), 0)
    flat = reshape(indices, (indices.numel(),))
    values = reshape(contiguous(grad), (indices.numel(), width))
    if scale_grad_by_freq:
        counts = filled(Layout.of((rows,), grad.dtype), 0)
        ones = expand(filled(Layout.of((), grad.dtype), 1), tuple(flat.shape))
        counts = scatter_add(counts, 0, flat.to(types.int64), ones)
        values = values / unsqueeze(index_tensor(counts, (flat,)), 1)
    if padding_idx >= 0:
        values = values * unsqueeze((flat != padding_idx).to(grad.dtype), 1)
    if values.requires_grad:
        return {"weight": index_put(zeros, (flat,), values, True)}
    offsets = contiguous(flat.to(types.int64) * width)
    scatter_rows(zeros, values, offsets, "sum", width)
    return {"weight": zeros}


@embedding.samples
def embedding_samples(make):
    yield make(10, 3), make(2, 4, dtype="int64", low=0, high=10)
    yield make(10, 3), make(5, dtype="int64", low=0, high=10), {"padding_idx": 2}
    yield make(10, 3), make(values=[10], dtype="int64")
