"""Views' copying forms (``select_copy`` …) and writes through views (``select_scatter`` …)."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.ops.arrangement import unfold
from flambeau.ops.declare import composite, copy, copy_
from flambeau.ops.joining import split, unbind
from flambeau.ops.operator import Operator
from flambeau.ops.view import (
    as_strided,
    contiguous_copy,
    diagonal,
    expand,
    narrow,
    permute,
    reshape,
    select,
    slice_,
    squeeze,
    t,
    transpose,
    unsqueeze,
    view,
    view_as_is,
)
from flambeau.tensor import Tensor

# -- copies ----------------------------------------------------------------------------------------


def _copying(name: str, parameters: str, viewed: Callable[..., Tensor]) -> Operator:
    """Declares ``name``: what ``viewed`` shows, in memory of its own."""

    def body(self: Tensor, *arguments: object) -> Tensor:
        return contiguous_copy(viewed(self, *arguments))

    body.__doc__ = f"Returns a copy of what ``{name.removesuffix('_copy')}`` shows."
    variants = "function method out" if name == "narrow_copy" else "function out"
    return composite(f"{name}(Tensor self{parameters}) -> Tensor", variants=variants)(body)


def _narrowed(self: Tensor, dim: int, start: object, length: int) -> Tensor:
    found: Tensor = narrow(self, dim, start, length)
    return found


alias_copy = _copying("alias_copy", "", view_as_is)
as_strided_copy = _copying(
    "as_strided_copy", ", int[] size, int[] stride, int? storage_offset=None", as_strided
)
diagonal_copy = _copying("diagonal_copy", ", int offset=0, int dim1=0, int dim2=1", diagonal)
expand_copy = _copying("expand_copy", ", int[] size", expand)
narrow_copy = _copying("narrow_copy", ", int dim, any start, int length", _narrowed)
permute_copy = _copying("permute_copy", ", int[] dims", permute)
select_copy = _copying("select_copy", ", int dim, int index", select)
slice_copy = _copying(
    "slice_copy", ", int dim=0, int? start=None, int? end=None, int step=1", slice_
)
squeeze_copy = _copying("squeeze_copy", ", int[1]? dim=None", squeeze)
t_copy = _copying("t_copy", "", t)
transpose_copy = _copying("transpose_copy", ", int dim0, int dim1", transpose)
unfold_copy = _copying("unfold_copy", ", int dimension, int size, int step", unfold)
unsqueeze_copy = _copying("unsqueeze_copy", ", int dim", unsqueeze)
view_copy = _copying("view_copy", ", int[] size", view)


def unbind_copy(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Returns copies of the slices along ``dim``."""
    return tuple(contiguous_copy(part) for part in unbind(input, dim))


def split_copy(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Returns copies of what ``split`` shows."""
    return tuple(contiguous_copy(part) for part in split(input, split_size, dim))


# -- writes ----------------------------------------------------------------------------------------


def _written(self: Tensor, viewed: Callable[..., Tensor], arguments: tuple, src: Tensor) -> Tensor:
    """A copy of ``self`` with ``src`` where the view shows."""
    result = copy(self)
    target = viewed(result, *arguments)
    if target.shape != src.shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(target.shape)}"
        )
    copy_(target, src)
    return result


@composite("select_scatter(Tensor self, Tensor src, int dim, int index) -> Tensor")
def select_scatter(self, src, dim, index):
    """Returns a copy with ``src`` as the slice at ``index`` of a dimension."""
    return _written(self, select, (dim, index), src)


@composite(
    "slice_scatter(Tensor self, Tensor src, int dim=0, int? start=None, int? end=None, "
    "int step=1) -> Tensor"
)
def slice_scatter(self, src, dim, start, end, step):
    """Returns a copy with ``src`` in ``[start:end:step]`` of a dimension."""
    return _written(self, slice_, (dim, start, end, step), src)


@composite(
    "diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor"
)
def diagonal_scatter(self, src, offset, dim1, dim2):
    """Returns a copy with ``src`` on a diagonal."""
    return _written(self, diagonal, (offset, dim1, dim2), src)


@composite("diagflat(Tensor self, int offset=0) -> Tensor")
def diagflat(self, offset):
    """Returns the diagonal matrix of the flattened tensor."""
    return reshape(self, (-1,)).diag(offset)


# -- samples ---------------------------------------------------------------------------------------


@select_scatter.samples
def select_scatter_samples(make):
    yield make(3, 4), make(4), 0, 1
    yield make(3, 4), make(3), 1, -1
    yield make(3, 4), make(3), 0, 1


@slice_scatter.samples
def slice_scatter_samples(make):
    yield make(6, 2), make(2, 2), 0, 1, 5, 2
    yield make(3, 4), make(3, 2), {"dim": 1, "start": -2}


@diagonal_scatter.samples
def diagonal_scatter_samples(make):
    yield make(3, 4), make(3)
    yield make(3, 4), make(3), 1


@diagflat.samples
def diagflat_samples(make):
    yield (make(2, 2),)
    yield make(3), -1


@permute_copy.samples
def permute_copy_samples(make):
    yield make(2, 3, 4), (2, 0, 1)
