"""``x[…]``, ``x[…] = y`` and the operators that read and write at indices along a dimension."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.core import dtype as types
from flambeau.core.layout import Layout, broadcast_shapes
from flambeau.interchange import item, tensor_from_data
from flambeau.ops import call as path
from flambeau.ops.creation import empty_tensor, filled
from flambeau.ops.declare import composite, copy, copy_
from flambeau.ops.destination import check_writable, expand_shape
from flambeau.ops.scatter import (
    bounds,
    check_indices,
    check_range,
    coordinate,
    offsets_of,
    scatter_along,
    scatter_rows,
    take,
    true_positions,
    walk_layout,
)
from flambeau.ops.view import (
    contiguous,
    expand,
    reshape,
    select,
    slice_,
    unsqueeze,
    view_as_is,
)
from flambeau.tensor import Tensor, wrap_dim

# -- the square brackets ---------------------------------------------------------------------------


def get_item(self: Tensor, key: Any) -> Tensor:
    """``self[key]``: a view for integers, slices, None and ``…``; a copy for index tensors."""
    kind = type(key)
    if self._layout.ndim:
        if kind is int:
            return select_checked(self, 0, key, 0)
        if kind is slice and key.step is None:
            start, stop = key.start, key.stop
            plain = (start is None or type(start) is int) and (stop is None or type(stop) is int)
            if plain and not (start is None and stop is None):
                return slice_(self, 0, start, stop, 1)
    entries = key if isinstance(key, tuple) else (key,)
    if not any(_is_advanced(e) for e in entries):
        viewed = _basic(self, entries)
        return view_as_is(self) if viewed is self else viewed
    viewed, indices = _split(self, entries)
    return index_tensor(viewed, tuple(indices))


def set_item(self: Tensor, key: Any, value: Any) -> None:
    """``self[key] = value``."""
    entries = key if isinstance(key, tuple) else (key,)
    if not isinstance(value, Tensor):
        value = _assigned_number(self, value)
    if not any(_is_advanced(e) for e in entries):
        target = _basic(self, entries)
        value = _trim(value, target)
        expand_shape(value.shape, target.shape)
        copy_(self if target is self else target, value)
        return
    viewed, indices = _split(self, entries)
    index_put_(viewed, tuple(indices), value)


def _assigned_number(self: Tensor, value: Any) -> Tensor:
    """A number as a 0-d tensor; PyTorch's errors for other values."""
    if not isinstance(value, (bool, int, float, np.number, np.bool_)):
        raise TypeError(f"can't assign a {_title(value)} to a torch.{self.dtype.title}Tensor")
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise ValueError("Overflow when unpacking long long")
    return filled(Layout.of((), self.dtype), number)


def _title(value: Any) -> str:
    kind = type(value)
    return f"numpy.{kind.__name__}" if kind.__module__ == "numpy" else kind.__name__


def delete_item(self: Tensor, key: Any) -> None:
    raise TypeError("Tensor does not support deleting items")


def _trim(value: Tensor, target: Tensor) -> Tensor:
    """Leading dimensions of size 1 beyond the target's are dropped, as in assignment."""
    while value.ndim > target.ndim and value.shape[0] == 1:
        value = select(value, 0, 0)
    return value


def _is_advanced(entry: Any) -> bool:
    if isinstance(entry, Tensor):
        return not (
            entry.ndim == 0 and entry.dtype.category == "integer" and entry.dtype is not types.uint8
        )
    return isinstance(entry, (list, np.ndarray, range)) or (
        isinstance(entry, tuple) or entry is True or entry is False
    )


def select_checked(tensor: Tensor, dim: int, index: int, position: int) -> Tensor:
    n = tensor._layout.shape[dim]
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of bounds for dimension {position} with size {n}")
    return select(tensor, dim, index)


def _consumed(entry: Any) -> int:
    """How many dimensions of the tensor an entry takes."""
    if entry is None or entry is Ellipsis or entry is True or entry is False:
        return 0
    if isinstance(entry, (Tensor, np.ndarray)) and str(entry.dtype).endswith("bool"):
        return int(entry.ndim)
    if isinstance(entry, Tensor) and entry.dtype is types.uint8:
        return entry.ndim
    if isinstance(entry, list) and entry and all(isinstance(e, bool) for e in entry):
        return 1
    return 1


def _basic(tensor: Tensor, entries: Sequence[Any]) -> Tensor:
    """The view that integers, slices, None and ``…`` describe."""
    viewed, indices = _split(tensor, entries)
    assert all(i is None for i in indices)
    return viewed


def _split(tensor: Tensor, entries: Sequence[Any]) -> tuple[Tensor, list[Tensor | None]]:
    """The basic part as a view, and the index tensors by dimension of that view."""
    total = sum(map(_consumed, entries))
    plain = not any(isinstance(e, slice) or _is_advanced(e) for e in entries)
    if total > tensor.ndim == 0 and plain:
        raise IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or "
            "`tensor.item<T>()` in C++ to convert a 0-dim tensor to a number"
        )
    if total > max(tensor.ndim, 1):
        raise IndexError(f"too many indices for tensor of dimension {tensor.ndim}")
    viewed = tensor
    indices: list[Tensor | None] = []
    dim = 0
    skipped = tensor.ndim - total
    for position, entry in enumerate(entries):
        if entry is Ellipsis:
            dim += skipped
            indices += [None] * skipped
            skipped = 0
        elif entry is None:
            viewed = unsqueeze(viewed, dim)
            dim += 1
            indices.append(None)
        elif isinstance(entry, slice):
            viewed = _sliced(viewed, dim, entry)
            dim += 1
            indices.append(None)
        elif _is_truth(entry):
            viewed = unsqueeze(viewed, dim)
            indices.append(_index_tensor([0] if entry else []))
            dim += 1
        elif _is_advanced(entry):
            found = _as_indices(entry, viewed, dim)
            indices += found
            dim += len(found)
        else:
            viewed = select_checked(viewed, dim, _as_int(entry), position)
    return viewed, indices


def _is_truth(entry: Any) -> bool:
    """Whether the entry is one truth value, which selects all or nothing along a new dimension."""
    if isinstance(entry, Tensor):
        return entry.ndim == 0 and entry.dtype is types.bool_
    return entry is True or entry is False


def _sliced(tensor: Tensor, dim: int, entry: slice) -> Tensor:
    if entry == slice(None):
        return tensor
    if tensor.ndim == 0:
        raise IndexError("slice() cannot be applied to a 0-dim tensor.")
    start, stop, step = (_edge(n) for n in (entry.start, entry.stop, entry.step))
    if step == 0:
        raise ValueError("slice step cannot be zero")
    if step is not None and step < 0:
        raise ValueError("step must be greater than zero")
    return slice_(tensor, dim, start, stop, 1 if step is None else step)


def _edge(entry: Any) -> int | None:
    if entry is None:
        return None
    if not hasattr(entry, "__index__"):
        raise TypeError("slice indices must be integers or None or have an __index__ method")
    return int(entry.__index__())


def _as_int(entry: Any) -> int:
    if isinstance(entry, Tensor):
        return int(item(entry))
    if isinstance(entry, str):
        raise TypeError("new(): invalid data type 'str'")
    try:
        return int(entry.__index__())
    except (AttributeError, TypeError):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
            "valid "
            f"indices (got {type(entry).__name__})"
        ) from None


def _index_tensor(data: Any) -> Tensor:
    made = tensor_from_data(data)
    return made if made.numel() else filled(Layout.of(made.shape, types.int64), 0)


def _as_indices(entry: Any, viewed: Tensor, dim: int) -> list[Tensor | None]:
    """An index entry as int64 tensors, one per dimension that it takes."""
    index = (
        entry
        if isinstance(entry, Tensor)
        else _index_tensor(list(entry) if isinstance(entry, range) else entry)
    )
    if index.dtype is types.uint8:
        warnings.warn(
            "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool "
            "instead.",
            UserWarning,
            stacklevel=4,
        )
    if index.dtype in (types.bool_, types.uint8):
        return list(_mask_indices(index, viewed, dim))
    if index.dtype not in (types.int64, types.int32):
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return [index]


def _mask_indices(mask: Tensor, viewed: Tensor, dim: int) -> list[Tensor]:
    for k, n in enumerate(mask.shape):
        if viewed.shape[dim + k] != n:
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {k} does not match the shape "
                "of "
                f"the indexed tensor {list(viewed.shape)} at index {dim + k}"
            )
    if mask.dtype is types.uint8:
        mask = mask != 0  # type: ignore[assignment]
    positions = true_positions(mask)
    return [coordinate(positions, mask.shape, k) for k in range(mask.ndim)]


# -- index tensors ---------------------------------------------------------------------------------


class _Geometry:
    """Where an advanced index reads: the result's shape, a running offset, and the indices in
    place.
    """

    def __init__(self, layout: Layout, indices: Sequence[Tensor | None]) -> None:
        given = [(d, i) for d, i in enumerate(indices) if i is not None]
        dims = [d for d, _ in given]
        try:
            shape = broadcast_shapes(*(i.shape for _, i in given))
        except RuntimeError:
            raise IndexError(
                "shape mismatch: indexing tensors could not be broadcast together with shapes "
                + ", ".join(str(list(i.shape)) for _, i in given)
            ) from None
        adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
        lead = dims[0] if adjacent else 0
        rest = [d for d in range(layout.ndim) if d not in dims]
        before, after = rest[:lead], rest[lead:]
        self.shape = tuple(
            [layout.shape[d] for d in before] + list(shape) + [layout.shape[d] for d in after]
        )
        strides = (
            [layout.strides[d] for d in before]
            + [0] * len(shape)
            + [layout.strides[d] for d in after]
        )
        self.walk = walk_layout(layout, self.shape, strides)
        self.sizes = [layout.shape[d] for d in dims]
        self.strides = [layout.strides[d] for d in dims]
        for k, (d, index) in enumerate(given):
            check_indices(index, k, layout.shape[d])
        self.after = len(after)
        self.indices = [self._placed(i, shape, len(after)) for _, i in given]

    def rows(self) -> tuple[Layout, list[Tensor], int]:
        """The same for rows: without the last dimensions, where they are neighbours in memory.

        And how long a row is.
        """
        walk = self.walk
        dropped, length = 0, 1
        while dropped < self.after and walk.strides[-1 - dropped] == length:
            length *= walk.shape[-1 - dropped]
            dropped += 1
        kept = walk.ndim - dropped
        rows = walk_layout(walk, walk.shape[:kept], walk.strides[:kept])
        places = [reshape(i, tuple(i.shape[: i.ndim - dropped])) for i in self.indices]
        return rows, places, length

    def _placed(self, index: Tensor, shape: Sequence[int], after: int) -> Tensor:
        """The index broadcast, with dimensions of size 1 where the dimensions after it stand."""
        wide = expand(index, tuple(shape))
        for _ in range(after):
            wide = unsqueeze(wide, wide.ndim)
        return wide


@composite("_index(Tensor self, any indices) -> Tensor", variants="")
def index_tensor(self, indices):
    """The elements at index tensors; None leaves a dimension as it is."""
    geometry = _Geometry(self._layout, indices)
    return take(self, geometry.walk, geometry.indices, geometry.sizes, geometry.strides)


index_tensor.node_name = "IndexBackward0"


@index_tensor.derivative
def index_tensor_backward(grad, self_layout, indices):
    zeros = filled(Layout.of(self_layout.shape, grad.dtype), 0)
    return {"self": index_put(zeros, indices, grad, True)}


@composite("index_put(Tensor self, any indices, Tensor values, bool accumulate=False) -> Tensor")
def index_put(self, indices, values, accumulate):
    """Returns a copy with ``values`` written (or added) at index tensors."""
    result = contiguous(copy(self))
    write_at(result, expanded_indices(result, indices), values, accumulate)
    return result


@index_put.derivative
def index_put_backward(grad, self_layout, values_layout, indices, accumulate):
    indices = tuple(expanded_indices(grad, indices))
    inside = index_tensor(grad, indices)
    if accumulate:
        outside = grad
    else:
        zero = filled(Layout.of((), grad.dtype), 0)
        outside = index_put(grad, indices, zero, False)
    return {"self": outside, "values": inside}


def expanded_indices(tensor: Tensor, indices: Sequence[Any]) -> list[Tensor | None]:
    """Masks among the indices become the indices of their true elements."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None:
            found.append(None)
        else:
            found += _as_indices(index, tensor, len(found))
    return found


def write_at(
    target: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool
) -> None:
    """Writes in place, without graph."""
    if values.dtype is not target.dtype:
        if values.ndim or not (
            values.dtype.category == target.dtype.category or target.dtype.is_floating_point
        ):
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{target.dtype.title} for the destination and {values.dtype.title} for the source."
            )
        values = values.to(target.dtype)  # type: ignore[attr-defined]
    geometry = _Geometry(target._layout, indices)
    try:
        wide = expand(values, geometry.shape)
    except RuntimeError:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to "
            f"indexing result of shape {list(geometry.shape)}"
        ) from None
    walk, places, length = geometry.rows()
    offsets = offsets_of(walk, places, geometry.sizes, geometry.strides)
    scatter_rows(target, wide, offsets, "sum" if accumulate else "set", length)


def index_put_(
    self: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False
) -> Tensor:
    """Writes ``values`` at index tensors in place.  Returns ``self``."""
    graph = path.check_inplace(self, (self, values))
    check_writable(self)
    found = expanded_indices(self, indices)
    write_at(self, found, values, accumulate)
    if graph:
        node = path.make_node(
            index_put, (self, values), (self,), {"indices": tuple(found), "accumulate": accumulate}
        )
        path.rebase(self, node)
    return self


# -- along one dimension ---------------------------------------------------------------------------


def _check_index(name: str, index: Tensor) -> None:
    if index.dtype not in (types.int64, types.int32):
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index")


@composite(
    "index_select(Tensor self, int dim, Tensor index) -> Tensor", variants="function method out"
)
def index_select(self, dim, index):
    """Returns the slices at ``index`` (1-d) along ``dim``."""
    if index.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if index.dtype not in (types.int64, types.int32):
        raise RuntimeError("index_select(): Expected dtype int32 or int64 for index")
    if self.ndim == 0 and index.numel() != 1:
        raise IndexError(
            f"index_select(): Index to scalar can have only 1 value, got {index.numel()} value(s)"
        )
    dim = wrap_dim(dim, self.ndim)
    size = self.shape[dim] if self.ndim else 1
    check_range(index, size, IndexError, "index out of range in self")
    if self.ndim == 0:
        return copy(self)
    return take_slices(self, dim, reshape(index, (index.numel(),)))


def take_slices(source: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices at a vector of indices that are known to be in range; records no graph."""
    layout = source._layout
    shape = (*layout.shape[:dim], index.numel(), *layout.shape[dim + 1 :])
    strides = [0 if d == dim else stride for d, stride in enumerate(layout.strides)]
    wide = reshape(index, (index.numel(), *(1,) * (layout.ndim - dim - 1)))
    walk = walk_layout(layout, shape, strides)
    return take(source, walk, (wide,), (layout.shape[dim],), (layout.strides[dim],))


@composite(
    "gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor",
    variants="function method out",
)
def gather(self, dim, index, sparse_grad):
    """Returns ``out[i][j] = self[index[i][j]][j]`` (for ``dim=0``), shaped like ``index``."""
    if index.numel() and index.dtype not in (types.int64, types.int32):
        raise RuntimeError("gather(): Expected dtype int32/int64 for index")
    dim = wrap_dim(dim, self.ndim)
    if not index.numel():
        return empty_tensor(index.shape, self.dtype)
    _check_gather("gather", self, dim, index, "input")
    layout = self._layout
    if layout.ndim == 0:
        return copy(expand(self, tuple(index.shape)))
    strides = [0 if d == dim else s for d, s in enumerate(layout.strides)]
    walk = walk_layout(layout, index.shape or (1,) * layout.ndim, strides)
    wide = index if index.ndim else reshape(index, (1,) * layout.ndim)
    result = take(self, walk, (wide,), (layout.shape[dim],), (layout.strides[dim],))
    return result if index.ndim else reshape(result, ())


def _check_gather(name: str, self: Tensor, dim: int, index: Tensor, what: str) -> None:
    if max(index.ndim, 1) != max(self.ndim, 1):
        raise RuntimeError(f"Index tensor must have the same number of dimensions as {what} tensor")
    for d, n in enumerate(index.shape):
        if d != dim and self.ndim and n > self.shape[d]:
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be no "
                f"larger than self {list(self.shape)} apart from dimension {dim}"
            )
    size = self.shape[dim] if self.ndim else 1
    message = f"index {{wrong}} is out of bounds for dimension {dim} with size {size}"
    check_range(index, size, RuntimeError, message)


@gather.derivative
def gather_backward(grad, self_layout, dim, index):
    zeros = filled(Layout.of(self_layout.shape, grad.dtype), 0)
    return {"self": scatter_add(zeros, dim, index, grad)}


def scatter_values(self: Tensor, dim: int, index: Tensor, src: Tensor, mode: str) -> Tensor:
    """A copy of ``self`` with ``src`` written or combined at ``index`` along ``dim``."""
    dim = wrap_dim(dim, self.ndim)
    if index.numel() and max(src.ndim, 1) != max(index.ndim, 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as src tensor")
    if not index.numel():
        return copy(self)
    _check_gather("scatter", self, dim, index, "self")
    result = contiguous(copy(self))
    part = src if tuple(src.shape) == tuple(index.shape) else _corner(src, index.shape)
    if part.dtype is not result.dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
    scatter_along(result, dim, index, part, mode)
    return result


def _corner(src: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of ``src`` that ``index`` covers."""
    if src.ndim != len(shape):
        raise RuntimeError("Index tensor must have the same number of dimensions as src tensor")
    for d, n in enumerate(shape):
        if n > src.shape[d]:
            raise RuntimeError(
                f"Expected index {list(shape)} to be no larger than src {list(src.shape)}"
            )
        src = slice_(src, d, 0, n, 1)
    return src


@composite(
    "scatter(Tensor self, int dim, Tensor index, Operand src, *, str? reduce=None) -> Tensor",
    variants="function method inplace out",
)
def scatter(self, dim, index, src, reduce):
    """Returns a copy with ``src`` (a tensor or a number) written at ``index`` along ``dim``."""
    if not isinstance(src, Tensor):
        src = expand(filled(Layout.of((), self.dtype), src), tuple(index.shape))
    mode = {None: "set", "add": "sum", "multiply": "prod"}.get(reduce)
    if mode is None:
        raise RuntimeError("reduce argument must be either add or multiply.")
    return scatter_values(self, dim, index, src, mode)


@scatter.derivative
def scatter_backward(grad, dim, index, reduce):
    if reduce == "multiply":
        raise RuntimeError("derivative for aten::scatter with reduce='multiply' is not implemented")
    kept = grad if reduce == "add" else scatter(grad, dim, index, 0)
    return {"self": kept, "src": gather(grad, dim, index)}


@composite(
    "scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
    variants="function method inplace out",
)
def scatter_add(self, dim, index, src):
    """Returns a copy with ``src`` added at ``index`` along ``dim``."""
    return scatter_values(self, dim, index, src, "sum")


@scatter_add.derivative
def scatter_add_backward(grad, dim, index):
    return {"self": grad, "src": gather(grad, dim, index)}


@composite(
    "index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
)
def index_add(self, dim, index, source, alpha):
    """Returns a copy with slices of ``source`` added at ``index`` along ``dim``."""
    dim = wrap_dim(dim, self.ndim)
    _check_index("index_add", index)
    if index.ndim > 1:
        raise IndexError(
            f"index_add_(): Index is supposed to be a vector, but got dim: {index.ndim}"
        )
    if source.dtype is not self.dtype:
        raise RuntimeError(
            "index_add_(): self and source expected to have the same dtype, but got "
            f"(self) {self.dtype.title} and (source) {source.dtype.title}"
        )
    _check_slices(self, dim, source)
    if self.ndim:
        check_indices(index, dim, self.shape[dim])
    return _put_slices(self, dim, index, source if alpha == 1 else source * alpha, True)


@index_select.derivative
def index_select_backward(grad, self_layout, dim, index):
    zeros = filled(Layout.of(self_layout.shape, grad.dtype), 0)
    if not self_layout.ndim:
        return {"self": reshape(grad, ())}
    return {"self": index_add(zeros, dim, reshape(index, (index.numel(),)), grad)}


@index_add.derivative
def index_add_backward(grad, dim, index, alpha):
    inside = index_select(grad, dim, index)
    return {"self": grad, "source": inside if alpha == 1 else inside * alpha}


def _check_slices(self: Tensor, dim: int, source: Tensor) -> None:
    """Whether ``source`` agrees with ``self`` in all dimensions but one; PyTorch's error."""
    mine, theirs = list(self.shape), list(source.shape)
    if mine[:dim] + mine[dim + 1 :] != theirs[:dim] + theirs[dim + 1 :]:
        raise RuntimeError(
            "source tensor shape must match self tensor shape, excluding the specified dimension. "
            f"Got self.shape = {mine} source.shape = {theirs}"
        )


def _put_slices(self: Tensor, dim: int, index: Tensor, values: Tensor, accumulate: bool) -> Tensor:
    """A copy with slices along ``dim`` written or added; scalars count as vectors of one."""
    whole = self if self.ndim else reshape(self, (1,))
    flat = reshape(index, (index.numel(),))
    if not self.ndim and values.ndim == 0:
        values = reshape(values, (1,))
    result = index_put(whole, (*[None] * dim, flat), values, accumulate)
    return result if self.ndim else reshape(result, ())


@composite(
    "index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor",
    variants="function method inplace out",
)
def index_copy(self, dim, index, source):
    """Returns a copy with slices of ``source`` written at ``index`` along ``dim``."""
    dim = wrap_dim(dim, self.ndim)
    if index.dtype is not types.int64:
        raise RuntimeError(
            f"index_copy_(): Expected a long tensor for index, but got {index.dtype.title}"
        )
    if source.dtype is not self.dtype:
        raise RuntimeError(
            "index_copy_(): self and source expected to have the same dtype, but got "
            f"(self) {self.dtype.title} and (source) {source.dtype.title}"
        )
    if self.ndim and source.ndim == self.ndim:
        _check_slices(self, dim, source)
    return _put_slices(self, dim, index, source, False)


@index_copy.derivative
def index_copy_backward(grad, dim, index, source_layout):
    zero = filled(Layout.of((), grad.dtype), 0)
    outside = _put_slices(grad, wrap_dim(dim, grad.ndim), index, zero, False)
    inside = reshape(index_select(grad, dim, index), tuple(source_layout.shape))
    return {"self": outside, "source": inside}


def _index_fill_backward(grad, dim, index, needs):
    zero = filled(Layout.of((), grad.dtype), 0)
    gradients = {"self": _put_slices(grad, wrap_dim(dim, grad.ndim), index, zero, False)}
    if "value" in needs:
        # Filled places count once, however often the index names them.
        gradients["value"] = (grad - gradients["self"]).sum()
    return gradients


@composite(
    "index_fill(Tensor self, int dim, Tensor index, Operand value) -> Tensor",
    variants="function method inplace out",
)
def index_fill(self, dim, index, value):
    """Returns a copy with slices at ``index`` along ``dim`` filled with a number."""
    if not isinstance(value, Tensor):
        value = filled(Layout.of((), self.dtype), value)
    elif value.ndim:
        raise RuntimeError(
            "index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.ndim} dimension(s)."
        )
    return _put_slices(self, wrap_dim(dim, self.ndim), index, value, False)


index_fill.derivative(_index_fill_backward)


@composite("take(Tensor self, Tensor index) -> Tensor", variants="function method out")
def take_flat(self, index):
    """Returns the elements at positions of the flattened tensor."""
    if index.dtype is not types.int64:
        raise RuntimeError(f"take(): Expected a long tensor for index, but got {index.dtype.title}")
    size, found = self.numel(), bounds(index)
    if found is not None and (found[0] < -size or found[1] >= size):
        wrong = found[0] if found[0] < -size else found[1]
        raise IndexError(
            f"out of range: tried to access index {wrong} on a tensor of {size} elements."
        )
    return index_tensor(reshape(self, (size,)), (index,))


@composite("masked_select(Tensor self, Tensor mask) -> Tensor", variants="function method out")
def masked_select(self, mask):
    """Returns the elements where ``mask`` is true, as a vector."""
    if mask.dtype is not types.bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask")
    shape = broadcast_shapes(self.shape, mask.shape)
    self, mask = expand(self, shape), expand(mask, shape)
    if not shape:
        self, mask = reshape(self, (1,)), reshape(mask, (1,))
    return get_item(self, mask)


@composite(
    "masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor",
    variants="function method inplace out",
)
def masked_scatter(self, mask, source):
    """Returns a copy with the next elements of ``source`` wherever ``mask`` is true."""
    if mask.dtype is not types.bool_:
        raise RuntimeError(
            "masked_scatter_ only supports boolean masks, but got mask with dtype "
            f"{mask.dtype.title}"
        )
    if source.dtype is not self.dtype:
        raise RuntimeError(
            "masked_scatter: expected self and source to have same dtypes but got "
            f"{self.dtype.title} and {source.dtype.title}"
        )
    wide = expand(mask, broadcast_shapes(self.shape, mask.shape))
    positions = true_positions(wide)
    count = positions.shape[0]
    if source.numel() < count:
        raise RuntimeError("Number of elements of source < number of ones in mask")
    values = slice_(reshape(source, (source.numel(),)), 0, 0, count, 1)
    indices = tuple(coordinate(positions, wide.shape, d) for d in range(wide.ndim))
    return index_put(expand(self, wide.shape), indices, values, False)


@index_select.samples
def index_select_samples(make):
    yield make(4, 5), 0, make(values=[0, 2, 2], dtype="int64")
    yield make(4, 5), -1, make(values=[4, 0], dtype="int64")
    yield make(4, 5), 0, make(values=[4], dtype="int64")
    yield make(4, 5), 0, make(2, 2, dtype="int64", low=0, high=4)


@gather.samples
def gather_samples(make):
    yield make(4, 5), 0, make(2, 5, dtype="int64", low=0, high=4)
    yield make(4, 5), 1, make(4, 3, dtype="int64", low=0, high=5)
    yield make(4, 5), 1, make(values=[[9]], dtype="int64")
    yield make(4, 5), 1, make(3, dtype="int64", low=0, high=3)


@scatter.samples
def scatter_samples(make):
    yield make(4, 5), 0, make(values=[[0, 1, 2, 3, 0]], dtype="int64"), make(1, 5)
    yield make(4, 5), 1, make(values=[[0], [3]], dtype="int64"), 2.5
    yield make(4, 5), 0, make(values=[[4, 1]], dtype="int64"), make(1, 5)


@scatter_add.samples
def scatter_add_samples(make):
    yield make(4, 5), 0, make(3, 5, dtype="int64", low=0, high=4), make(3, 5)
    yield make(4, 5), 1, make(4, 2, dtype="int64", low=0, high=5), make(4, 2)


@index_add.samples
def index_add_samples(make):
    yield make(4, 5), 0, make(values=[0, 2, 2], dtype="int64"), make(3, 5)
    yield make(4, 5), 1, make(values=[0, 4], dtype="int64"), make(4, 2), {"alpha": 2}


@masked_select.samples
def masked_select_samples(make):
    yield make(3, 4), make(3, 4, dtype="bool")
    yield make(3, 4), make(4, dtype="bool")
    yield make(3, 4), make(4)


@take_flat.samples
def take_samples(make):
    yield make(3, 4), make(values=[0, 11, -1], dtype="int64")


for _operator in (index_select, gather, take_flat, masked_select):
    _operator.forbids_overlap = True


@index_copy.samples
def index_copy_samples(make):
    yield make(4, 5), 0, make(values=[0, 2], dtype="int64"), make(2, 5)
    yield make(4, 5), -1, make(values=[4], dtype="int64"), make(4, 1)


@index_fill.samples
def index_fill_samples(make):
    yield make(4, 5), 0, make(values=[0, 2], dtype="int64"), 1.5
    yield make(4, 5), 1, make(values=[4, 4], dtype="int64"), -1


@masked_scatter.samples
def masked_scatter_samples(make):
    yield make(3, 4), make(3, 4, dtype="bool"), make(12)


METHODS: dict[str, Any] = {
    "__getitem__": get_item,
    "__setitem__": set_item,
    "index_put_": index_put_,
    "__delitem__": delete_item,
}
