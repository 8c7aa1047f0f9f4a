"""Joining, splitting and rearranging whole tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compiler import kernel as k
from flambeau.core import dtype as types
from flambeau.core.dtype import promote_types
from flambeau.core.layout import Layout
from flambeau.graph import Node
from flambeau.ops import call as path
from flambeau.ops.creation import arange, empty_tensor, filled
from flambeau.ops.declare import composite, copy, copy_
from flambeau.ops.fused import FusedPointwise
from flambeau.ops.reduction import sum as sum_over
from flambeau.ops.scatter import nonzero, walk_layout
from flambeau.ops.view import (
    contiguous,
    expand,
    flatten,
    permute,
    reshape,
    select,
    slice_,
    transpose,
    unsqueeze,
)
from flambeau.ops.view_form import view_of
from flambeau.tensor import Tensor, wrap_dim


@composite(
    "cat(Tensor[] tensors, int dim=0) -> Tensor",
    variants="function out",
    aliases="concat concatenate",
)
def cat(tensors, dim):
    """Returns the tensors joined along an existing dimension."""
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for position, tensor in enumerate(tensors):
        if tensor.ndim == 0:
            raise RuntimeError(
                f"zero-dimensional tensor (at position {position}) cannot be concatenated"
            )
    real = [t for t in tensors if t.shape != (0,)] or tensors[:1]
    first = real[0]
    dim = wrap_dim(dim, first.ndim)
    kind = first.dtype
    for tensor in tensors:
        kind = promote_types(kind, tensor.dtype)
    for position, tensor in enumerate(tensors):
        if tensor.shape != (0,):
            _check_cat(first, tensor, dim, position)
    size = sum(t.shape[dim] for t in real)
    result = empty_tensor((*first.shape[:dim], size, *first.shape[dim + 1 :]), kind)
    at = 0
    for tensor in real:
        n = tensor.shape[dim]
        if tensor.numel():
            copy_(slice_(result, dim, at, at + n, 1), tensor)
        at += n
    return result


def _check_cat(first: Tensor, tensor: Tensor, dim: int, position: int) -> None:
    if tensor.ndim != first.ndim:
        raise RuntimeError(
            f"Tensors must have same number of dimensions: got {first.ndim} and {tensor.ndim}"
        )
    for d in range(first.ndim):
        if d != dim and tensor.shape[d] != first.shape[d]:
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {dim}. Expected size "
                f"{first.shape[d]} but got size {tensor.shape[d]} for tensor number {position} in "
                "the list."
            )


cat.forbids_overlap = True


@cat.derivative
def cat_backward(grad, layouts, dim):
    pieces: list[Any] = []
    real = [layout for layout in layouts if layout.shape != (0,)]
    ndim = real[0].ndim if real else 1
    dim = wrap_dim(dim, ndim)
    at = 0
    for layout in layouts:
        n = layout.shape[dim] if layout.shape != (0,) else 0
        pieces.append(
            slice_(grad, dim, at, at + n, 1) if layout.shape != (0,) else filled(layout, 0)
        )
        at += n
    return {"tensors": pieces}


@composite("stack(Tensor[] tensors, int dim=0) -> Tensor", variants="function out")
def stack(tensors, dim):
    """Returns the tensors joined along a new dimension."""
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = tensors[0]
    dim = wrap_dim(dim, first.ndim + 1)
    for position, tensor in enumerate(tensors):
        if tensor.shape != first.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first.shape)} at entry "
                "0 "
                f"and {list(tensor.shape)} at entry {position}"
            )
    return cat([unsqueeze(t, dim) for t in tensors], dim)


@stack.derivative
def stack_backward(grad, layouts, dim):
    return {"tensors": [select(grad, dim, k) for k in range(len(layouts))]}


def _stacker(name: str, dim: int, at_least: int, doc: str):
    def body(tensors):
        if not tensors:
            raise RuntimeError(f"{name} expects a non-empty TensorList")
        ready = [_at_least(t, at_least) for t in tensors]
        if name == "hstack" and ready[0].ndim == 1:
            return cat(ready, 0)
        return cat(ready, dim)

    body.__doc__ = doc
    return composite(f"{name}(Tensor[] tensors) -> Tensor", variants="function out")(body)


def _at_least(tensor: Tensor, ndim: int) -> Tensor:
    if tensor.ndim == 0:
        tensor = reshape(tensor, (1,))
    if ndim >= 2 and tensor.ndim == 1:
        tensor = unsqueeze(tensor, 0)
    if ndim == 3 and tensor.ndim == 2:
        tensor = unsqueeze(tensor, 2)
    return tensor


hstack = _stacker("hstack", 1, 1, "Joins along columns.")
vstack = _stacker("vstack", 0, 2, "Joins along rows.")
dstack = _stacker("dstack", 2, 3, "Joins along depth.")


@composite("column_stack(Tensor[] tensors) -> Tensor", variants="function out")
def column_stack(tensors):
    """Joins vectors as columns, and matrices along columns."""
    return cat([reshape(t, (t.numel(), 1)) if t.ndim < 2 else t for t in tensors], 1)


# -- splitting -------------------------------------------------------------------------------------


def split(
    tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, **named: Any
) -> tuple[Tensor, ...]:
    """Views of ``split_size`` entries each along ``dim``, or of the sizes in a list."""
    size = named.get("split_size", split_size_or_sections)
    dim = wrap_dim(dim, tensor.ndim)
    n = tensor.shape[dim]
    if isinstance(size, int):
        if size < 0:
            raise RuntimeError(
                f"split expects split_size be non-negative, but got split_size={size}"
            )
        if size == 0 and n:
            raise RuntimeError(
                f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
            )
        sizes = [min(size, n - at) for at in range(0, n, size)] if n else [0]
    else:
        sizes = [int(s) for s in size]
        if sum(sizes) != n:
            raise RuntimeError(
                "split_with_sizes expects split_sizes to sum exactly to "
                f"{n} (input tensor's size at dimension {dim}), but got split_sizes={sizes}"
            )
    layouts = []
    at = 0
    for length in sizes:
        layouts.append(slice_.layout_of(tensor._layout, (None, dim, at, at + length, 1)))
        at += length
    return _parts(tensor, layouts, SPLIT if isinstance(size, int) else SPLIT_WITH_SIZES, dim)


class _Parts:
    """The history of several views that a tensor falls into; they may not be written in place."""

    several_views = True
    derivative_rule = None

    def __init__(self, name: str, rejoin: Callable[[Sequence[Tensor], int], Tensor]) -> None:
        self.name = self.node_name = name
        self.rejoin = rejoin

    def backward(self, node: Node, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        given = [
            filled(layout.contiguous(), 0) if grad is None else grad
            for grad, layout in zip(grads, node.output_layouts, strict=True)
        ]
        return [self.rejoin(given, node.arguments["dim"])]


SPLIT = _Parts("SplitBackward0", lambda grads, dim: cat(list(grads), dim))
SPLIT_WITH_SIZES = _Parts("SplitWithSizesBackward0", lambda grads, dim: cat(list(grads), dim))
UNBIND = _Parts("UnbindBackward0", lambda grads, dim: stack(list(grads), dim))


def _parts(
    tensor: Tensor, layouts: Sequence[Layout], history: _Parts, dim: int
) -> tuple[Tensor, ...]:
    views = tuple(view_of(tensor, layout) for layout in layouts)
    if views and path.needs_graph((tensor,)):
        path.attach(history, (tensor,), views, {"dim": dim})
    return views


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size along ``dim``; the last may be smaller."""
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.shape[wrap_dim(dim, input.ndim)]
    size = -(-n // chunks)
    if size == 0:
        return tuple(slice_(input, dim, 0, 0, 1) for _ in range(chunks))
    return split(input, size, dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views split at indices, or into that many nearly equal sections."""
    n = input.shape[wrap_dim(dim, input.ndim)]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()  # type: ignore[attr-defined]
    if isinstance(indices_or_sections, int):
        sections = indices_or_sections
        if sections <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {sections}")
        small, extra = divmod(n, sections)
        sizes = [small + 1] * extra + [small] * (sections - extra)
        return split(input, sizes, dim)
    edges = [0, *indices_or_sections, n]
    return tuple(slice_(input, dim, a, b, 1) for a, b in zip(edges, edges[1:], strict=False))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without it."""
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    dim = wrap_dim(dim, input.ndim)
    layouts = [select.layout_of(input._layout, (None, dim, k)) for k in range(input.shape[dim])]
    return _parts(input, layouts, UNBIND, dim)


# -- repeating and reordering ----------------------------------------------------------------------


def _split_along(name: str, at_least: int, dim: Callable[[Tensor], int]) -> Callable[..., Any]:
    def pieces(
        input: Tensor, indices_or_sections: Any = None, *indices: int, **named: Any
    ) -> tuple[Tensor, ...]:
        """``tensor_split`` into equal parts (or at indices) along a fixed dimension."""
        if input.ndim < at_least:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {at_least} dimension"
                f"{'s' if at_least > 1 else ''}, but got a tensor with {input.ndim} dimensions!"
            )
        where = named.get("sections", named.get("indices", indices_or_sections))
        where = (where, *indices) if indices else where
        along = dim(input)
        if isinstance(where, int) and (where <= 0 or input.shape[along] % where):
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {along}, but the size of the "
                f"dimension {input.shape[along]} is not divisible by the split_size {where}!"
            )
        return tensor_split(input, where, along)

    pieces.__name__ = pieces.__qualname__ = name
    return pieces


hsplit = _split_along("hsplit", 1, lambda x: 0 if x.ndim == 1 else 1)
vsplit = _split_along("vsplit", 2, lambda x: 0)
dsplit = _split_along("dsplit", 3, lambda x: 2)


@composite("repeat(Tensor self, int[] repeats) -> Tensor", variants="method")
def repeat(self, repeats):
    """Returns the tensor tiled ``repeats`` times along each dimension."""
    if len(repeats) < self.ndim:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    if any(r < 0 for r in repeats):
        raise RuntimeError(
            f"Trying to create tensor with negative dimension {min(repeats)}: {list(repeats)}"
        )
    shape = (1,) * (len(repeats) - self.ndim) + tuple(self.shape)
    if all(r == 1 for r in repeats):
        return copy(reshape(self, shape))
    pairs = tuple(n for r, s in zip(repeats, shape, strict=True) for n in (r, s))
    wide = reshape(self, tuple(n for s in shape for n in (1, s)))
    return reshape(
        contiguous(expand(wide, pairs)), tuple(r * s for r, s in zip(repeats, shape, strict=True))
    )


@repeat.derivative
def repeat_backward(grad, self_layout, repeats):
    shape = (1,) * (len(repeats) - self_layout.ndim) + tuple(self_layout.shape)
    pairs = tuple(n for r, s in zip(repeats, shape, strict=True) for n in (r, s))
    tiles = tuple(range(0, len(pairs), 2))
    summed = sum_over(reshape(grad, pairs), tiles) if tiles else grad
    return {"self": reshape(summed, tuple(self_layout.shape))}


@composite("tile(Tensor self, int[] dims) -> Tensor")
def tile(self, dims):
    """``repeat`` with missing leading counts taken as 1."""
    return repeat(self, (1,) * (self.ndim - len(dims)) + tuple(dims))


def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Returns each entry along ``dim`` repeated in place (of the flattened tensor by default)."""
    if dim is None:
        input, dim = flatten(input), 0
    dim = wrap_dim(dim, input.ndim)
    if isinstance(repeats, int):
        wide = unsqueeze(input, dim + 1)
        shape = list(wide.shape)
        shape[dim + 1] = repeats
        return flatten(contiguous(expand(wide, tuple(shape))), dim, dim + 1)
    counts = repeats.tolist() if isinstance(repeats, Tensor) else list(repeats)  # type: ignore[attr-defined]
    if len(counts) == 1:
        return repeat_interleave(input, int(counts[0]), dim)
    if len(counts) != input.shape[dim]:
        raise RuntimeError("repeats must have the same size as input along dim")
    parts = [
        expand_slice(slice_(input, dim, at, at + 1, 1), dim, count)
        for at, count in enumerate(counts)
        if count
    ]
    return cat(parts, dim) if parts else slice_(input, dim, 0, 0, 1)


def expand_slice(tensor: Tensor, dim: int, count: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = count
    return expand(tensor, tuple(shape))


@composite("flip(Tensor self, int[] dims) -> Tensor")
def flip(self, dims):
    """Returns a copy with the order along ``dims`` reversed."""
    wrapped = [wrap_dim(d, self.ndim) for d in dims]
    for d in wrapped:
        if wrapped.count(d) > 1:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    layout = self._layout
    strides = [-s if d in wrapped else s for d, s in enumerate(layout.strides)]
    start = sum((layout.shape[d] - 1) * layout.strides[d] for d in wrapped)
    if not self.numel():
        return copy(self)
    return _FLIP((self,), (start,), (walk_layout(layout, layout.shape, strides),))[0]


_FLIP = FusedPointwise(
    "flip",
    lambda source, walk, start: source(walk + start),
    contiguous=True,
    indexed=(0,),
    positions=lambda layouts, static: (static[0],),
)


@flip.derivative
def flip_backward(grad, dims):
    return {"self": flip(grad, dims)}


def fliplr(input: Tensor) -> Tensor:
    """Reverses columns."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, (1,))


def flipud(input: Tensor) -> Tensor:
    """Reverses rows."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, (0,))


@composite("roll(Tensor self, int[1] shifts, int[1] dims=[]) -> Tensor")
def roll(self, shifts, dims):
    """Returns the tensor rolled along dimensions (flattened without ``dims``)."""
    if not shifts:
        raise RuntimeError("`shifts` required")
    if self.ndim == 0 and dims:
        raise IndexError(f"Dimension specified as {dims[0]} but tensor has no dimensions")
    if not dims:
        if len(shifts) != 1:
            raise RuntimeError(
                f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}"
            )
        return reshape(roll(flatten(self), shifts, (0,)), tuple(self.shape))
    if len(shifts) != len(dims):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}"
        )
    for shift, dim in zip(shifts, dims, strict=True):
        dim = wrap_dim(dim, self.ndim)
        n = self.shape[dim]
        if n:
            at = (n - shift) % n
            self = cat([slice_(self, dim, at, None, 1), slice_(self, dim, 0, at, 1)], dim)
    return self


@roll.derivative
def roll_backward(grad, shifts, dims):
    return {"self": roll(grad, tuple(-shift for shift in shifts), dims)}


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotates by 90 degrees ``k`` times in the plane of two dimensions."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    a, b = dims
    if a == b or abs(a - b) == input.ndim:
        raise RuntimeError(
            f"expected rotation dims to be different, but got dim0 = {a} and dim1 = {b}"
        )
    for dim in dims:
        if not -input.ndim <= dim < input.ndim:
            raise RuntimeError(
                f"Rotation dim{dims.index(dim)} out of range, dim{dims.index(dim)} = {dim}"
            )
    turns = k % 4
    if turns == 1:
        return transpose(flip(input, (b,)), a, b)
    if turns == 2:
        return flip(input, (a, b))
    if turns == 3:
        return flip(transpose(input, a, b), (b,))
    return input.clone()  # type: ignore[attr-defined]


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Returns a view with dimensions moved to new places."""
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    if len(sources) != len(targets):
        raise RuntimeError(
            "movedim: Invalid source or destination dims: source ("
            f"{sources} dims) should contain the same number of dims as destination ({targets} "
            "dims)"
        )
    for name, dims in (("source", sources), ("destination", targets)):
        if len({wrap_dim(d, input.ndim) for d in dims}) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({dims})")
    sources = [wrap_dim(d, input.ndim) for d in sources]
    targets = [wrap_dim(d, input.ndim) for d in targets]
    order: list[int] = [-1] * input.ndim
    for a, b in zip(sources, targets, strict=True):
        order[b] = a
    rest = iter([d for d in range(input.ndim) if d not in sources])
    return permute(input, tuple(next(rest) if d < 0 else d for d in order))


def unflatten(input: Tensor, dim: Any, sizes: Sequence[int]) -> Tensor:
    """Returns a view with one dimension split into several."""
    dim = wrap_dim(dim, input.ndim)
    n = input.shape[dim]
    shape = list(sizes)
    if shape.count(-1) == 1:
        known = math.prod(s for s in shape if s != -1)
        shape[shape.index(-1)] = n // known if known else 0
    if math.prod(shape) != n:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} "
            f"({n}) in the input tensor"
        )
    return reshape(input, (*input.shape[:dim], *shape, *input.shape[dim + 1 :]))


# -- triangles and diagonals -----------------------------------------------------------------------


def _rows_and_columns(layouts: Sequence[Layout], static: tuple[Any, ...]) -> tuple[Layout, ...]:
    shape = layouts[0].shape
    row = [0] * (len(shape) - 2) + [1, 0]
    column = [0] * (len(shape) - 2) + [0, 1]
    return walk_layout(layouts[0], shape, row), walk_layout(layouts[0], shape, column)


_TRIL = FusedPointwise(
    "tril", lambda x, row, column, d: k.where(column - row <= d, x, 0), positions=_rows_and_columns
)
_TRIU = FusedPointwise(
    "triu", lambda x, row, column, d: k.where(column - row >= d, x, 0), positions=_rows_and_columns
)


@composite("tril(Tensor self, int diagonal=0) -> Tensor", variants="function method inplace out")
def tril(self, diagonal):
    """Returns the lower triangle of matrices, zeros above it."""
    if self.ndim < 2:
        raise RuntimeError("tril: input tensor must have at least 2 dimensions")
    return _TRIL((self,), (diagonal,))[0]


@tril.derivative
def tril_backward(grad, diagonal):
    return {"self": tril(grad, diagonal)}


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any
) -> Tensor:
    """Returns the row and column numbers of a lower triangle, as two rows."""
    return _triangle(tril, row, col, offset, dtype)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any
) -> Tensor:
    """Returns the row and column numbers of an upper triangle, as two rows."""
    return _triangle(triu, row, col, offset, dtype)


def _triangle(part: Any, rows: int, columns: int, offset: int, dtype: Any) -> Tensor:
    inside = part(filled(Layout.of((rows, columns), types.bool_), True), offset)
    return transpose(nonzero(inside), 0, 1).to(dtype or types.int64)  # type: ignore[attr-defined]


@composite("triu(Tensor self, int diagonal=0) -> Tensor", variants="function method inplace out")
def triu(self, diagonal):
    """Returns the upper triangle of matrices, zeros below it."""
    if self.ndim < 2:
        raise RuntimeError("triu: input tensor must have at least 2 dimensions")
    return _TRIU((self,), (diagonal,))[0]


@triu.derivative
def triu_backward(grad, diagonal):
    return {"self": triu(grad, diagonal)}


@composite("diag(Tensor self, int diagonal=0) -> Tensor", variants="function method out")
def diag(self, diagonal):
    """Returns a vector's diagonal matrix, or a matrix's diagonal (a copy)."""
    if self.ndim == 2:
        return copy(self.diagonal(diagonal))
    if self.ndim != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {self.ndim}D")
    return diag_embed(self, diagonal, -2, -1)


@composite("diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor")
def diag_embed(self, offset, dim1, dim2):
    """Returns matrices with the last dimension on their diagonals."""
    n = self.shape[-1] + abs(offset)
    ndim = self.ndim + 1
    first, second = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rest = iter(self.shape[:-1])
    shape = tuple(n if d in (first, second) else next(rest) for d in range(ndim))
    result = filled(Layout.of(shape, self.dtype), 0)
    copy_(result.diagonal(offset, first, second), self)
    return result


@composite("one_hot(Tensor self, int num_classes=-1) -> Tensor", variants="", differentiable=False)
def one_hot(self, num_classes):
    """Returns int64 vectors with a 1 at each index: ``(*) -> (*, num_classes)``."""
    if self.dtype is not types.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if self.numel():
        low, high = int(self.min()), int(self.max())
        if low < 0:
            raise RuntimeError("Class values must be non-negative.")
        if num_classes == -1:
            num_classes = high + 1
        elif high >= num_classes:
            raise RuntimeError("Class values must be smaller than num_classes.")
    elif num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    return (unsqueeze(self, self.ndim) == arange(num_classes)).to(types.int64)


@composite("_pad_constant(Tensor self, int[] pad, Scalar value=0) -> Tensor", variants="")
def constant_pad(self, pad, value):
    """Returns the tensor with a border of one value; ``pad`` counts from the last dimension."""
    if len(pad) % 2 or len(pad) // 2 > self.ndim:
        raise RuntimeError(
            f"Length of pad should be even and at most twice the input dimension {self.ndim}, got "
            f"{len(pad)}"
        )
    shape = list(self.shape)
    target_slices, source_slices = [], []
    for position in range(len(pad) // 2):
        d = self.ndim - 1 - position
        low, high = pad[2 * position], pad[2 * position + 1]
        shape[d] += low + high
        if shape[d] < 0:
            raise RuntimeError(
                f"The input size {self.shape[d]}, plus negative padding {low} and {high}, resulted "
                "in "
                "a negative output size, which is invalid."
            )
        target_slices.append((d, max(low, 0), shape[d] - max(high, 0)))
        source_slices.append((d, max(-low, 0), self.shape[d] - max(-high, 0)))
    result = filled(Layout.of(shape, self.dtype), value)
    inside, source = result, self
    for d, a, b in target_slices:
        inside = slice_(inside, d, a, b, 1)
    for d, a, b in source_slices:
        source = slice_(source, d, a, b, 1)
    copy_(inside, source)
    return result


constant_pad.node_name = "ConstantPadNdBackward0"


@constant_pad.derivative
def constant_pad_backward(grad, pad):
    return {"self": constant_pad(grad, tuple(-p for p in pad), 0)}


@cat.samples
def cat_samples(make):
    yield [make(2, 3), make(4, 3)], 0
    yield [make(2, 3), make(2, 1)], -1
    yield [make(2, 3), make(2, 3, dtype="int64")], 1
    yield [make(0), make(2, 3)], 0
    yield [make(2, 3), make(2, 4)], 0
    yield [make(), make()], 0
    yield ([],)


@stack.samples
def stack_samples(make):
    yield [make(2, 3), make(2, 3)], 0
    yield [make(2, 3), make(2, 3)], -1
    yield [make(), make()], 0
    yield [make(2, 3), make(3, 2)], 0


@flip.samples
def flip_samples(make):
    yield make(2, 3, 4), (0, 2)
    yield make(2, 3, 4), (-1,)
    yield make(2, 3, 4), (0, 0)


@roll.samples
def roll_samples(make):
    yield make(2, 3), 1
    yield make(2, 3), (1, -1), (0, 1)


@tril.samples
def tril_samples(make):
    yield (make(4, 4),)
    yield make(2, 3, 4), 1
    yield (make(4),)


@triu.samples
def triu_samples(make):
    yield (make(4, 4),)
    yield make(2, 3, 4), -1


@diag.samples
def diag_samples(make):
    yield (make(3),)
    yield make(3), 1
    yield make(3, 4), -1


@hstack.samples
def hstack_samples(make):
    yield ([make(3), make(2)],)
    yield ([make(3, 1), make(3, 2)],)


@vstack.samples
def vstack_samples(make):
    yield ([make(3), make(3)],)
    yield ([make(2, 3), make(1, 3)],)


@dstack.samples
def dstack_samples(make):
    yield ([make(2, 3), make(2, 3)],)


@column_stack.samples
def column_stack_samples(make):
    yield ([make(3), make(3, 2)],)


@repeat.samples
def repeat_samples(make):
    yield make(2, 3), (2, 1)
    yield make(3), (2, 2)
    yield make(2, 3, transposed=True), (1, 2)
    yield make(2, 3), (2,)


@tile.samples
def tile_samples(make):
    yield make(2, 3), (2,)
    yield make(3), (2, 2)


@diag_embed.samples
def diag_embed_samples(make):
    yield (make(2, 3),)
    yield make(2, 3), 1
    yield make(2, 3), 0, 0, 2


@one_hot.samples
def one_hot_samples(make):
    yield (make(4, dtype="int64", low=0, high=5),)
    yield make(2, 3, dtype="int64", low=0, high=5), 6
    yield make(3, dtype="int64", low=0, high=5), 1
    yield (make(3),)


METHODS: dict[str, Any] = {
    "split": split,
    "chunk": chunk,
    "tensor_split": tensor_split,
    "unbind": unbind,
    "repeat_interleave": repeat_interleave,
    "fliplr": fliplr,
    "flipud": flipud,
    "rot90": rot90,
    "movedim": movedim,
    "moveaxis": movedim,
    "unflatten": unflatten,
    "hsplit": hsplit,
    "vsplit": vsplit,
    "dsplit": dsplit,
}
