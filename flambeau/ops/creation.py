"""New tensors from sizes and numbers."""

from __future__ import annotations

from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, is_dense
from flambeau.engine.call import Call, Pointwise, View
from flambeau.engine.storage import Storage
from flambeau.ops import call as path
from flambeau.ops.declare import default_dtype
from flambeau.tensor import Tensor


class _Fill:
    """The call that fills a new tensor with a number."""

    name = "full"

    def build(self, key, first_slot: int) -> Call:
        _, _, _, (layout, kind), _ = key
        work = Pointwise(lambda _, scalars: [scalars[0].cast(layout.dtype)])
        writes = (View(first_slot, layout),)
        return Call(self.name, key, (), writes, (layout,), (float if kind is float else int,), work)


_FILL = _Fill()


def filled(layout: Layout, number) -> Tensor:
    """A new tensor of that layout, every element ``number``."""
    return path.record(_FILL, (), (layout, type(number)), (number,))[0]


def empty_tensor(shape, dtype: dtype | None = None, device: device | None = None) -> Tensor:
    """A new contiguous tensor with undefined contents."""
    layout = Layout.of(shape, dtype or default_dtype(), device or CPU)
    return Tensor._from_storage(Storage(layout.nbytes, layout.device), layout)


def ones_like(tensor: Tensor) -> Tensor:
    return filled(like_layout(tensor), 1)


def zeros(shape, dtype: dtype | None = None) -> Tensor:
    return filled(Layout.of(shape, dtype or default_dtype()), 0)


def like_layout(tensor: Tensor, dtype: dtype | None = None) -> Layout:
    """The layout of a ``*_like`` result: the same strides where those are dense."""
    layout = tensor._layout
    strides = layout.strides if is_dense(layout) else None
    return Layout.of(layout.shape, dtype or layout.dtype, layout.device, strides)
