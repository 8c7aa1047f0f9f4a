"""Largest and smallest elements over dimensions, and where they are."""

from __future__ import annotations

from flambeau.core import dtype as types
from flambeau.ops import return_types
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, operation_dtype, reduced_dims, reduction
from flambeau.ops.pointwise import maximum, minimum
from flambeau.ops.reduction import restore_reduced
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.selection import place_reduced
from flambeau.tensor import Tensor


def _same_type(source, asked):
    return operation_dtype(source), source


def _with_index(source, asked):
    return operation_dtype(source), (source, types.int64)


def _index_only(source, asked):
    return operation_dtype(source), types.int64


def extreme_samples(make):
    """The sample table of ``amax`` and its like; no value occurs twice by chance."""
    yield make(3, 5), 1
    yield make(2, 3, 4), -2, True
    yield make(), 0
    yield make(4, 3, transposed=True), 0
    yield make(4, 40, dtype="bfloat16", low=-100, high=100), 1
    yield make(3, 37, dtype="int64", low=-1000, high=1000), 1
    yield make(3, 5, dtype="uint8", high=200), 0
    yield make(values=[[1, float("nan"), 3], [4, 2, 0.5]]), 1
    yield make(values=[[1, 3, 3], [2, 2, 0]]), 1
    yield make(0, 4), 0
    yield make(4, 0), 0


def _shared_gradient(grad, self, result, dim, keepdim, also_nan=False):
    """Equal extremes share the gradient; where they are NaN, the NaN do if ``also_nan``."""
    layout = self._layout
    result = restore_reduced(result, layout, dim, keepdim)
    grad = restore_reduced(grad, layout, dim, keepdim)
    chosen = self == result
    if also_nan:
        chosen = chosen | ((self != self) & (result != result))
    count = sum_(chosen, reduced_dims(dim, layout.ndim), True)
    return grad / count * to_dtype(chosen, grad.dtype)


# -- over several dimensions ---------------------------------------------------------------------


@reduction(
    "amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    combine="max",
    promote=_same_type,
    empty_ok=False,
    variants="function method out",
)
def amax(self):
    """Returns the largest elements over ``dim``; equal ones share the gradient."""
    return self


@reduction(
    "amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    combine="min",
    promote=_same_type,
    empty_ok=False,
    variants="function method out",
)
def amin(self):
    """Returns the smallest elements over ``dim``; equal ones share the gradient."""
    return self


@amax.derivative
def amax_backward(grad, self, result, dim, keepdim):
    return {"self": _shared_gradient(grad, self, result, dim, keepdim)}


@amin.derivative
def amin_backward(grad, self, result, dim, keepdim):
    return {"self": _shared_gradient(grad, self, result, dim, keepdim)}


@amax.samples
def amax_samples(make):
    yield from extreme_samples(make)
    yield make(2, 3, 4), (0, 2)
    yield (make(300),)


@amin.samples
def amin_samples(make):
    yield from amax_samples(make)


# -- max and min ---------------------------------------------------------------------------------


@reduction(
    "_max_all(Tensor self) -> Tensor",
    combine="max",
    promote=_same_type,
    empty_ok=False,
    variants="",
)
def _max_all(self):
    return self


@reduction(
    "_min_all(Tensor self) -> Tensor",
    combine="min",
    promote=_same_type,
    empty_ok=False,
    variants="",
)
def _min_all(self):
    return self


@_max_all.derivative
def _max_all_backward(grad, self, result):
    return {"self": _shared_gradient(grad, self, result, None, False, True)}


@_min_all.derivative
def _min_all_backward(grad, self, result):
    return {"self": _shared_gradient(grad, self, result, None, False, True)}


@reduction(
    "_max_dim(Tensor self, int dim, bool keepdim=False) -> (Tensor, Tensor)",
    combine="max argmax",
    promote=_with_index,
    empty_ok=False,
    variants="",
)
def _max_dim(self):
    return self, self


@reduction(
    "_min_dim(Tensor self, int dim, bool keepdim=False) -> (Tensor, Tensor)",
    combine="min argmin",
    promote=_with_index,
    empty_ok=False,
    variants="",
)
def _min_dim(self):
    return self, self


@_max_dim.derivative
def _max_dim_backward(grad0, self_layout, result1, dim, keepdim):
    return {"self": place_reduced(grad0, result1, self_layout, dim, keepdim)}


@_min_dim.derivative
def _min_dim_backward(grad0, self_layout, result1, dim, keepdim):
    return {"self": place_reduced(grad0, result1, self_layout, dim, keepdim)}


# The largest along one dimension and the first place of it.
extreme_along = _max_dim

_max_all.node_name, _max_dim.node_name = "MaxBackward1", "MaxBackward0"
_min_all.node_name, _min_dim.node_name = "MinBackward1", "MinBackward0"
_max_all.name = _max_dim.name = "max"
_min_all.name = _min_dim.name = "min"

_FORMS = """\
{name}() received an invalid combination of arguments - got ({got}), but expected one of:
 * (Tensor input, *, Tensor out = None)
 * (Tensor input, Tensor other, *, Tensor out = None)
 * (Tensor input, int dim, bool keepdim = False, *, tuple of Tensors out = None)
"""


def _choose(name: str, forms, self, dim, keepdim, other):
    """Which of the three overloads the arguments mean, and its result."""
    over_all, over_dim, elementwise, named = forms
    other = dim if isinstance(dim, Tensor) and other is None else other
    if isinstance(other, Tensor):
        return elementwise(self, other)
    if dim is None:
        return over_all.record([self])
    if isinstance(dim, bool) or not isinstance(dim, int):
        got = f"Tensor, {type(dim).__name__}"
        raise TypeError(_FORMS.format(name=name, got=got))
    return named(over_dim.record([self, dim, keepdim]))


@composite(
    "max(Tensor self, any dim=None, bool keepdim=False, *, any other=None) -> Tensor",
    variants="function method out",
)
def max(self, dim, keepdim, other):
    """Returns the largest element; with ``dim`` the largest over it and where; with a tensor, the
    larger of each pair."""
    forms = _max_all, _max_dim, maximum, return_types.max
    return _choose("max", forms, self, dim, keepdim, other)


@composite(
    "min(Tensor self, any dim=None, bool keepdim=False, *, any other=None) -> Tensor",
    variants="function method out",
)
def min(self, dim, keepdim, other):
    """Returns the smallest element; with ``dim`` the smallest over it and where; with a tensor, the
    smaller of each pair."""
    forms = _min_all, _min_dim, minimum, return_types.min
    return _choose("min", forms, self, dim, keepdim, other)


@max.samples
def max_samples(make):
    yield from extreme_samples(make)
    yield (make(3, 5),)
    yield (make(values=[1, 3, 3]),)
    yield make(3, 5), make(5)
    yield (make(0),)


@min.samples
def min_samples(make):
    yield from max_samples(make)


# -- positions -----------------------------------------------------------------------------------


@reduction(
    "argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
    combine="argmax",
    promote=_index_only,
    empty_ok=False,
    variants="function method out",
)
def argmax(self):
    """Returns where the largest element over ``dim`` is: the first one, counted in all if None."""
    return self


@reduction(
    "argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
    combine="argmin",
    promote=_index_only,
    empty_ok=False,
    variants="function method out",
)
def argmin(self):
    """Returns where the smallest element over ``dim`` is: the first one, counted in all if None."""
    return self


@argmax.samples
def argmax_samples(make):
    yield from extreme_samples(make)
    yield (make(3, 5),)
    yield (make(4, 3, transposed=True),)


@argmin.samples
def argmin_samples(make):
    yield from argmax_samples(make)


argmax.differentiable = argmin.differentiable = False


# -- both ----------------------------------------------------------------------------------------


@reduction(
    "_aminmax(Tensor self, int? dim, bool keepdim) -> (Tensor, Tensor)",
    combine="min max",
    promote=lambda source, asked: (operation_dtype(source), (source, source)),
    variants="",
)
def _aminmax(self):
    return self, self


@_aminmax.derivative
def _aminmax_backward(grad0, grad1, self, result0, result1, dim, keepdim):
    smallest = _shared_gradient(grad0, self, result0, dim, keepdim)
    return {"self": smallest + _shared_gradient(grad1, self, result1, dim, keepdim)}


@composite(
    "aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor, Tensor)",
    variants="function method out",
)
def aminmax(self, dim, keepdim):
    """Returns the smallest and the largest elements over ``dim``."""
    dims = reduced_dims(dim, self.ndim)
    if any_empty(self, dims):
        raise RuntimeError(
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no "
            "identity."
        )
    return return_types.aminmax(_aminmax.record([self, dim, keepdim]))


def any_empty(tensor: Tensor, dims) -> bool:
    return any(tensor.shape[d] == 0 for d in dims)


@aminmax.samples
def aminmax_samples(make):
    yield (make(3, 5),)
    yield make(3, 5), {"dim": 1}
    yield make(2, 3, 4), {"dim": -2, "keepdim": True}
    yield make(values=[[1, 3, 3], [float("nan"), 2, 0]]), {"dim": 1}
    yield make(3, 7, dtype="int64", low=-50, high=50), {"dim": 1}
