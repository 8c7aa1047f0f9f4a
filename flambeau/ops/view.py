"""Views: other layouts over the same storage, and the copies that stand in where no view exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, contiguous_strides
from flambeau.core.memory_format import channels_last, channels_last_3d
from flambeau.engine.storage import Storage
from flambeau.graph import Node, above, no_grad
from flambeau.ops import call as path
from flambeau.ops.creation import filled
from flambeau.ops.declare import (
    composite,
    copy,
    copy_,
    copy_operator,
)
from flambeau.ops.destination import expand_shape
from flambeau.ops.view_form import view_of
from flambeau.ops.view_operator import ViewOperator
from flambeau.ops.view_operator import view as view_operator
from flambeau.tensor import Tensor, wrap_dim


def infer_size(shape: Sequence[int], numel: int) -> tuple[int, ...]:
    """``shape`` with its one -1 replaced; PyTorch's errors for what does not fit."""
    known = 1
    unknown = None
    for k, n in enumerate(shape):
        if n == -1:
            if unknown is not None:
                raise RuntimeError("only one dimension can be inferred")
            unknown = k
        elif n < 0:
            raise RuntimeError(f"invalid shape dimension {n} at index {k} of shape {list(shape)}")
        else:
            known *= n
    if unknown is not None:
        if known == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
                if numel == 0
                else f"shape '{list(shape)}' is invalid for input of size {numel}"
            )
        if numel % known == 0:
            return (*shape[:unknown], numel // known, *shape[unknown + 1 :])
    elif known == numel:
        return tuple(shape)
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")


def view_strides(layout: Layout, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Strides that show the same elements in ``shape``; None where only a copy could."""
    if layout.is_contiguous or layout.numel == 0:
        return contiguous_strides(shape)
    if not shape:
        return ()
    # Walk blocks of dimensions that one stride covers, from the last; new ones must split them.
    strides = [0] * len(shape)
    at = len(shape) - 1
    block = 1
    base = layout.strides[-1] if layout.ndim else 1
    for d in range(layout.ndim - 1, -1, -1):
        block *= layout.shape[d]
        joined = d > 0 and (layout.shape[d - 1] == 1 or layout.strides[d - 1] == block * base)
        if joined:
            continue
        filled_block = 1
        while at >= 0 and (filled_block < block or shape[at] == 1):
            strides[at] = filled_block * base
            filled_block *= shape[at]
            at -= 1
        if filled_block != block:
            return None
        if d > 0:
            block, base = 1, layout.strides[d - 1]
    return tuple(strides) if at == -1 else None


@view_operator("view(Tensor(a) self, int[] size) -> Tensor(a)", variants="method")
def view(layout, size):
    """Returns the same elements in another shape, which the strides must allow."""
    shape = infer_size(size, layout.numel)
    strides = view_strides(layout, shape)
    if strides is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return layout.view(shape, strides, layout.offset)


@view.derivative
def view_backward(grad, self_layout):
    return {"self": reshape(grad, self_layout.shape)}


@view_operator("_unsafe_view(Tensor self, int[] size) -> Tensor", variants="")
def unsafe_view(layout, size):
    return layout.view(size, contiguous_strides(size), layout.offset)


@unsafe_view.derivative
def unsafe_view_backward(grad, self_layout):
    return {"self": reshape(grad, self_layout.shape)}


@view.samples
def view_samples(make):
    yield make(2, 3, 4), (6, 4)
    yield make(2, 3, 4), (-1, 2)
    yield make(6), (2, 3)
    yield make(0, 3), (3, 0)
    yield make(), (1, 1)
    yield make(3, 4, transposed=True), (4, 3)
    yield make(3, 4, transposed=True), (12,)
    yield make(2, 3), (4, 2)
    yield make(2, 3), (-1, -1)


@composite("reshape(Tensor(a) self, int[] shape) -> Tensor(a)")
def reshape(self, shape):
    """Returns the elements in another shape: a view where possible, else a copy."""
    layout = self._layout
    shape = infer_size(shape, layout.numel)
    if shape == layout.shape:
        return view_as_is(self)
    if view_strides(layout, shape) is not None:
        return view(self, shape)
    copied = unsafe_view(contiguous_copy(self), shape)
    copied._base = None
    return copied


@reshape.samples
def reshape_samples(make):
    yield make(2, 6), (3, 4)
    yield make(2, 6), (3, -1)
    yield make(3, 4, transposed=True), (12,)
    yield make(3, 4, transposed=True), (2, 2, 3)
    yield make(), (1,)
    yield make(2, 3), (5,)
    yield make(0, 2), (0,)


@view_operator("alias(Tensor(a) self) -> Tensor(a)", variants="")
def view_as_is(layout):
    return layout


@view_as_is.derivative
def view_as_is_backward(grad):
    return {"self": grad}


@view_operator(
    "expand(Tensor(a) self, int[] size, *, bool implicit=False) -> Tensor(a)", variants="method"
)
def expand(layout, size, implicit):
    """Returns a view with dimensions of size 1 repeated; -1 keeps a size."""
    if len(size) < layout.ndim:
        raise RuntimeError(
            f"expand(torch.{layout.dtype.title}Tensor{{{list(layout.shape)}}}, size={list(size)}): "
            "the "
            f"number of sizes provided ({len(size)}) must be greater or equal to the number of "
            f"dimensions in the tensor ({layout.ndim})"
        )
    lead = len(size) - layout.ndim
    target = []
    for k, n in enumerate(size):
        if n == -1 and k < lead:
            raise RuntimeError(
                "The expanded size of the tensor (-1) isn't allowed in a leading, non-existing "
                f"dimension {k}"
            )
        target.append(layout.shape[k - lead] if n == -1 else n)
    expand_shape(layout.shape, target)
    strides = [0] * lead
    for k, n in enumerate(layout.shape):
        strides.append(layout.strides[k] if n == target[lead + k] else 0)
    return layout.view(target, strides, layout.offset)


@expand.derivative
def expand_backward(grad):
    # The engine sums a gradient over the dimensions along which its input was repeated.
    return {"self": grad}


@expand.samples
def expand_samples(make):
    yield make(3, 1), (3, 4)
    yield make(3, 1), (2, -1, 4)
    yield make(), (2, 2)
    yield make(3), (2,)


@view_operator("permute(Tensor(a) self, int[] dims) -> Tensor(a)")
def permute(layout, dims):
    """Returns a view with the dimensions in the given order."""
    if len(dims) != layout.ndim:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            "length "
            f"of the desired ordering of dimensions i.e. input.dim() = {layout.ndim} is not equal "
            "to "
            f"len(dims) = {len(dims)}"
        )
    order = [wrap_dim(d, layout.ndim) for d in dims]
    if len(set(order)) != len(order):
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    shape = [layout.shape[d] for d in order]
    return layout.view(shape, [layout.strides[d] for d in order], layout.offset)


@permute.derivative
def permute_backward(grad, dims):
    order = [d % max(len(dims), 1) for d in dims]
    return {"self": permute(grad, tuple(order.index(d) for d in range(len(order))))}


@permute.samples
def permute_samples(make):
    yield make(2, 3, 4), (2, 0, 1)
    yield make(2, 3, 4), (0, -1, 1)
    yield make(2, 3), (0, 0)
    yield make(2, 3), (0,)


@view_operator(
    "transpose(Tensor(a) self, int dim0, int dim1) -> Tensor(a)",
    aliases="swapaxes swapdims",
    variants="function method inplace",
)
def transpose(layout, dim0, dim1):
    """Returns a view with two dimensions exchanged."""
    a, b = wrap_dim(dim0, layout.ndim), wrap_dim(dim1, layout.ndim)
    if layout.ndim == 0:
        return layout
    shape, strides = list(layout.shape), list(layout.strides)
    shape[a], shape[b] = shape[b], shape[a]
    strides[a], strides[b] = strides[b], strides[a]
    return layout.view(shape, strides, layout.offset)


@transpose.derivative
def transpose_backward(grad, dim0, dim1):
    return {"self": transpose(grad, dim0, dim1)}


@transpose.samples
def transpose_samples(make):
    yield make(2, 3), 0, 1
    yield make(2, 3, 4), -1, 0
    yield make(), 0, 0
    yield make(2, 3), 0, 2


@view_operator("t(Tensor(a) self) -> Tensor(a)", variants="function method inplace")
def t(layout):
    """Returns the transposed view of a matrix; vectors and scalars as they are."""
    if layout.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {layout.ndim}D")
    return layout.view(layout.shape[::-1], layout.strides[::-1], layout.offset)


@t.derivative
def t_backward(grad):
    return {"self": t(grad)}


@t.samples
def t_samples(make):
    yield (make(2, 3),)
    yield (make(3),)
    yield (make(2, 3, 4),)


@view_operator(
    "unsqueeze(Tensor(a) self, int dim) -> Tensor(a)", variants="function method inplace"
)
def unsqueeze(layout, dim):
    """Returns a view with a dimension of size 1 inserted."""
    dim = wrap_dim(dim, layout.ndim + 1)
    shape, strides = list(layout.shape), list(layout.strides)
    step = shape[dim] * strides[dim] if dim < layout.ndim else 1
    shape.insert(dim, 1)
    strides.insert(dim, step)
    return layout.view(shape, strides, layout.offset)


@unsqueeze.derivative
def unsqueeze_backward(grad, self_layout):
    return {"self": reshape(grad, self_layout.shape)}


@unsqueeze.samples
def unsqueeze_samples(make):
    yield make(2, 3), 0
    yield make(2, 3), -1
    yield make(2, 3, transposed=True), 1
    yield make(2, 3), 3


@view_operator(
    "squeeze(Tensor(a) self, int[1]? dim=None) -> Tensor(a)", variants="function method inplace"
)
def squeeze(layout, dim):
    """Returns a view without the dimensions of size 1 (all, or those in ``dim``)."""
    dims = range(layout.ndim) if dim is None else [wrap_dim(d, layout.ndim) for d in dim]
    kept = [d for d in range(layout.ndim) if layout.shape[d] != 1 or d not in dims]
    shape = [layout.shape[d] for d in kept]
    return layout.view(shape, [layout.strides[d] for d in kept], layout.offset)


@squeeze.derivative
def squeeze_backward(grad, self_layout):
    return {"self": reshape(grad, self_layout.shape)}


@squeeze.samples
def squeeze_samples(make):
    yield (make(1, 3, 1),)
    yield make(1, 3, 1), 0
    yield make(1, 3, 1), 1
    yield make(1, 3, 1), (0, 2)
    yield make(1, 3), 5


@view_operator("select(Tensor(a) self, int dim, int index) -> Tensor(a)")
def select(layout, dim, index):
    """Returns the slice at ``index`` of a dimension, without that dimension."""
    if layout.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, layout.ndim)
    n = layout.shape[dim]
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(layout.shape)} at "
            f"dimension {dim}"
        )
    index += n if index < 0 else 0
    shape = layout.shape[:dim] + layout.shape[dim + 1 :]
    strides = layout.strides[:dim] + layout.strides[dim + 1 :]
    return layout.view(shape, strides, layout.offset + index * layout.strides[dim])


@select.derivative
def select_backward(grad, self_layout, dim, index):
    return {"self": spread(grad, self_layout, select, (dim, index))}


@select.samples
def select_samples(make):
    yield make(3, 4), 0, 1
    yield make(3, 4), -1, -2
    yield make(3, 4), 0, 3
    yield make(), 0, 0


@view_operator(
    "slice(Tensor(a) self, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor(a)",
    variants="",
)
def slice_(layout, dim, start, end, step):
    """Returns ``self[start:end:step]`` along a dimension."""
    dim = wrap_dim(dim, layout.ndim)
    if step <= 0:
        raise ValueError("step must be greater than zero")
    first, last, step = slice(start, end, step).indices(layout.shape[dim])
    length = max(0, -(-(last - first) // step))
    shape, strides = list(layout.shape), list(layout.strides)
    shape[dim] = length
    strides[dim] *= step
    return layout.view(shape, strides, layout.offset + first * layout.strides[dim])


@slice_.derivative
def slice_backward(grad, self_layout, dim, start, end, step):
    return {"self": spread(grad, self_layout, slice_, (dim, start, end, step))}


def spread(grad: Tensor, layout: Layout, viewed, arguments: tuple) -> Tensor:
    """Zeros of the input's shape with ``grad`` in the part that the view showed."""
    whole = filled(Layout.of(layout.shape, grad.dtype, grad.device), 0)
    copy_(viewed(whole, *arguments), grad)
    return whole


@composite("narrow(Tensor(a) self, int dim, any start, int length) -> Tensor(a)")
def narrow(self, dim, start, length):
    """Returns the view of ``length`` entries from ``start`` along a dimension."""
    if isinstance(start, Tensor) and (start.ndim or start.dtype.category != "integer"):
        raise RuntimeError("start must be an 0-dim integral Tensor.")
    start = int(start)
    if self.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, self.ndim)
    n = self.shape[dim]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})"
        )
    start += n if start < 0 else 0
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return slice_(self, dim, start, start + length, 1)


@narrow.samples
def narrow_samples(make):
    yield make(4, 5), 1, 1, 3
    yield make(4, 5), 0, -2, 2
    yield make(4, 5), 0, 3, 2
    yield make(4, 5), 0, 5, 1


@view_operator("diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)")
def diagonal(layout, offset, dim1, dim2):
    """Returns the diagonal of two dimensions as the last dimension of a view."""
    a, b = wrap_dim(dim1, layout.ndim), wrap_dim(dim2, layout.ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rows, columns = layout.shape[a], layout.shape[b]
    length = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    start = layout.offset
    if length:
        start += offset * layout.strides[b] if offset >= 0 else -offset * layout.strides[a]
    rest = [d for d in range(layout.ndim) if d not in (a, b)]
    shape = [layout.shape[d] for d in rest] + [length]
    strides = [layout.strides[d] for d in rest] + [layout.strides[a] + layout.strides[b]]
    return layout.view(shape, strides, start)


@diagonal.derivative
def diagonal_backward(grad, self_layout, offset, dim1, dim2):
    return {"self": spread(grad, self_layout, diagonal, (offset, dim1, dim2))}


@diagonal.samples
def diagonal_samples(make):
    yield (make(3, 4),)
    yield make(3, 4), 1
    yield make(3, 4), -1
    yield make(2, 3, 4), 0, 2, 1
    yield make(3, 4), 9
    yield make(3, 4), 0, 1, 1


class _FreeView(ViewOperator):
    """A view anywhere in the storage, which must be large enough."""

    def make(self, tensor: Tensor, layout: Layout, arguments: Sequence[Any]) -> Tensor:
        if layout.nbytes > tensor._storage.nbytes and layout.numel:
            itemsize = layout.dtype.itemsize
            raise RuntimeError(
                f"setStorage: sizes {list(layout.shape)}, strides {list(layout.strides)}, storage "
                f"offset {layout.offset}, and itemsize {itemsize} requiring a storage size of "
                f"{layout.nbytes} are out of bounds for storage of size {tensor._storage.nbytes}"
            )
        return super().make(tensor, layout, arguments)


@view_operator(
    "as_strided(Tensor(a) self, int[] size, int[] stride, int? storage_offset=None) -> Tensor(a)",
    kind=_FreeView,
)
def as_strided(layout, size, stride, storage_offset):
    """Returns a view with the given shape, strides and offset in elements."""
    if len(size) != len(stride):
        raise RuntimeError("mismatch in length of strides and shape")
    if any(s < 0 for s in stride):
        raise RuntimeError(
            "as_strided: Negative strides are not supported at the moment, got strides: "
            f"{list(stride)}"
        )
    return layout.view(size, stride, layout.offset if storage_offset is None else storage_offset)


@as_strided.samples
def as_strided_samples(make):
    yield make(3, 4), (2, 2), (4, 1)
    yield make(3, 4), (2, 2), (1, 4), 3
    yield make(3, 4), (2,), (1, 1)


def view_dtype(tensor: Tensor, dtype: dtype) -> Tensor:
    """``x.view(dtype)``: the same bytes read as another type."""
    layout = tensor._layout
    old, new = layout.dtype.itemsize, dtype.itemsize
    if dtype is layout.dtype:
        return tensor
    shape, strides, offset = list(layout.shape), list(layout.strides), layout.offset
    if old != new:
        _check_resized_view(layout, dtype)
        shape[-1] = shape[-1] * old // new
        strides = [s * old // new for s in strides[:-1]] + [1]
        offset = offset * old // new
    made = Layout.of(shape, dtype, layout.device, strides, offset)
    return view_of(Tensor._from_storage(tensor._storage, layout), made)


def _check_resized_view(layout: Layout, dtype: dtype) -> None:
    """PyTorch's errors where elements of another size do not fit."""
    old, new = layout.dtype, dtype
    if layout.ndim == 0:
        raise RuntimeError(
            f"self.dim() cannot be 0 to view {old.title} as {new.title} (different element sizes)"
        )
    if layout.strides[-1] != 1:
        raise RuntimeError(
            f"self.stride(-1) must be 1 to view {old.title} as {new.title} (different element "
            f"sizes), but got {layout.strides[-1]}"
        )
    if new.itemsize < old.itemsize:
        return
    ratio = new.itemsize // old.itemsize
    if layout.shape[-1] % ratio:
        raise RuntimeError(
            f"self.size(-1) must be divisible by {ratio} to view {old.title} as {new.title} "
            f"(different element sizes), but got {layout.shape[-1]}"
        )
    if layout.offset % ratio:
        raise RuntimeError(
            f"self.storage_offset() must be divisible by {ratio} to view {old.title} as "
            f"{new.title} (different element sizes), but got {layout.offset}"
        )
    for dim, stride in enumerate(layout.strides[:-1]):
        if stride % ratio:
            raise RuntimeError(
                f"self.stride({dim}) must be divisible by {ratio} to view {old.title} as "
                f"{new.title} (different element sizes), but got {stride}"
            )


def detach(tensor: Tensor) -> Tensor:
    """The same memory outside the graph."""
    return Tensor._from_storage(tensor._storage, tensor._layout)


@composite("flatten(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)")
def flatten(self, start_dim, end_dim):
    """Returns the tensor with dimensions ``start_dim`` to ``end_dim`` joined into one."""
    start, end = wrap_dim(start_dim, self.ndim), wrap_dim(end_dim, self.ndim)
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if self.ndim == 0:
        return reshape(self, (1,))
    if start == end:
        return self
    joined = 1
    for n in self.shape[start : end + 1]:
        joined *= n
    return reshape(self, (*self.shape[:start], joined, *self.shape[end + 1 :]))


@flatten.samples
def flatten_samples(make):
    yield (make(2, 3, 4),)
    yield make(2, 3, 4), 1
    yield make(2, 3, 4), 0, 1
    yield (make(),)
    yield make(2, 3), 1, 0


@composite(
    "contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)", variants="method"
)
def contiguous(self, memory_format):
    """Returns the tensor itself if its elements lie in row-major order, else a copy that does."""
    if memory_format is channels_last or memory_format is channels_last_3d:
        return in_channels_last(self, memory_format)
    if self._layout.is_contiguous:
        return self
    return contiguous_copy(self)


def in_channels_last(tensor: Tensor, memory_format: object, force_copy: bool = False) -> Tensor:
    """The tensor with the channels innermost in memory; itself where they are already."""
    wanted = 4 if memory_format is channels_last else 5
    if tensor.ndim != wanted:
        raise RuntimeError(
            f"required rank {wanted} tensor to use {memory_format!s} format".replace("torch.", "")
        )
    order = (0, *range(2, wanted), 1)
    moved = permute(tensor, order)
    if moved._layout.is_contiguous and not force_copy:
        return tensor
    back = tuple(order.index(d) for d in range(wanted))
    return permute(contiguous_copy(moved), back)


def contiguous_copy(tensor: Tensor) -> Tensor:
    """A row-major copy; differentiable."""
    layout = tensor._layout
    if layout.is_contiguous:
        return copy(tensor)
    result = Tensor._from_storage(
        Storage(layout.numel * layout.dtype.itemsize, layout.device), layout.contiguous()
    )
    with no_grad():
        copy_(result, tensor)
    if path.needs_graph((tensor,)):
        path.attach(copy_operator, (tensor,), (result,), None)
    return result


# -- views whose base was written in place ---------------------------------------------------------


def geometry(layout: Layout, grad: Tensor) -> Tensor:
    """A copy of ``grad`` in a new storage, laid out exactly as ``layout`` (its offset included)."""
    wide = Layout.of(layout.shape, grad.dtype, grad.device, layout.strides, layout.offset)
    result = Tensor._from_storage(Storage(wide.nbytes, wide.device), wide)
    return copy_(result, grad)


class _CopySlices:
    """The history of a base after one of its views was written in place.

    The first target is the base's former history, the others are the further inputs of the
    operator that wrote.
    """

    name = "CopySlices"
    node_name = "torch::autograd::CopySlices"

    def backward(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        layout, inner = node.saved
        (grad,) = grads
        whole = geometry(node.output_layouts[0], grad)
        # A view in the graph's eyes too, so that this can be differentiated again.
        inside = as_strided(whole, tuple(layout.shape), layout.strides, layout.offset)
        results = inner.operator.backward(inner, [copy(inside)])
        first = results[0]
        if first is None:
            copy_(inside, filled(Layout.of((), grad.dtype), 0))
        else:
            copy_(inside, first)
        return [whole, *results[1:]]


class _StridedView:
    """The history of a view whose base has a new one."""

    name = "as_strided"
    node_name = "AsStridedBackward0"

    def backward(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        base, layout = node.layouts[0], node.output_layouts[0]
        (grad,) = grads
        zero = filled(Layout.of((), grad.dtype), 0)
        whole = geometry(base, expand(zero, base.shape))
        copy_(as_strided(whole, tuple(layout.shape), layout.strides, layout.offset), grad)
        return [whole]


_COPY_SLICES = _CopySlices()
_STRIDED_VIEW = _StridedView()


def copy_slices(base: Tensor, layout: Layout, inner: Node) -> Node:
    former = (base.grad_fn or base) if base.requires_grad else None
    targets = [former, *inner.targets[1:]]
    numbers = [base._output_nr, *(inner.numbers or [0] * len(inner.targets))[1:]]
    layouts = [base._layout, *inner.layouts[1:]]
    return Node(_COPY_SLICES, targets, numbers, layouts, [base._layout], (layout, inner), (), None)


def rebuild_view_grad_fn(view: Tensor) -> Node | None:
    """The up-to-date ``grad_fn`` of a view after its storage was written."""
    base = view._base
    if base is None or view._view_version == -1 or not base.requires_grad:
        return view._grad_fn
    target = base.grad_fn or base
    node = Node(
        _STRIDED_VIEW, [target], [base._output_nr], [base._layout], [view._layout], (), (), None
    )
    view._view_version = view._storage.version
    view._output_nr = 0
    return node


above.copy_slices = copy_slices
