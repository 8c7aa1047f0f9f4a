"""``torch.functional``: functions over several tensors, and those written in Python there too."""

from flambeau.ops.arrangement import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast_shapes,
    broadcast_tensors,
    cartesian_prod,
    meshgrid,
)
from flambeau.ops.contraction import einsum, tensordot
from flambeau.ops.distinct import unique, unique_consecutive
from flambeau.ops.joining import split
from flambeau.ops.norm import norm

__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_shapes",
    "broadcast_tensors",
    "cartesian_prod",
    "einsum",
    "meshgrid",
    "norm",
    "split",
    "tensordot",
    "unique",
    "unique_consecutive",
]
