"""Elements selected along a dimension by position, and their gradients put back there.

What ``max``, ``sort``, ``kthvalue`` and their like need in backward: `pick` reads, `place` writes,
and each is the other's derivative.
"""

from __future__ import annotations

from flambeau.compiler import kernel as k
from flambeau.core.layout import Layout
from flambeau.ops.creation import filled
from flambeau.ops.declare import composite
from flambeau.ops.fused import FusedPointwise, dimension_position, row_positions
from flambeau.ops.scatter import scatter_along
from flambeau.tensor import Tensor


def _pick_body(index, source, offset, stride):
    return source(offset + index * stride)


_PICK = FusedPointwise(
    "pick",
    _pick_body,
    results=lambda layouts, static: (layouts[1].dtype,),
    indexed=(1,),
    positions=lambda layouts, static: (row_positions(layouts[1], layouts[0].shape, static[0]),),
)


@composite("_pick(Tensor self, Tensor index, int dim) -> Tensor", variants="")
def pick(self, index, dim):
    """``self`` at ``index`` along ``dim``; ``index`` has its shape but for that dimension."""
    stride = self._layout.strides[dim] if self.ndim else 0
    return _PICK((index, self), (stride,), (dim,))[0]


@pick.derivative
def pick_backward(grad, self_layout, index, dim):
    size = self_layout.shape[dim] if self_layout.ndim else 1
    return {"self": place(grad, index, dim, size)}


def _place_one_body(values, index, position):
    return k.where(position == index, values, 0)


_PLACE_ONE = FusedPointwise(
    "place",
    _place_one_body,
    positions=lambda layouts, static: (dimension_position(layouts[0], *static),),
)


def _placed_shape(shape, dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :]) if shape else ()


@composite("_place(Tensor self, Tensor index, int dim, int size) -> Tensor", variants="")
def place(self, index, dim, size):
    """Zeros, with ``self`` added at the positions ``index`` along ``dim``."""
    if not self.ndim:
        return self
    if self.shape[dim] == 1:
        return _PLACE_ONE((self, index), (), (_placed_shape(self.shape, dim, size), dim))[0]
    return _place_many(self, index, dim, size)


@place.derivative
def place_backward(grad, index, dim):
    return {"self": pick(grad, index, dim)}


def _place_many(values: Tensor, index: Tensor, dim: int, size: int) -> Tensor:
    layout = Layout.of(_placed_shape(values.shape, dim, size), values.dtype, values.device)
    result = filled(layout, 0)
    scatter_along(result, dim, index, values, "sum")
    return result


def place_reduced(grad: Tensor, index: Tensor, layout: Layout, dim: int, keepdim: bool) -> Tensor:
    """The gradient of a selection that kept one element along ``dim``."""
    if not layout.ndim:
        return grad
    dim %= layout.ndim
    if not keepdim:
        grad, index = grad.unsqueeze(dim), index.unsqueeze(dim)
    return place(grad, index, dim, layout.shape[dim])
