"""Negative log likelihood and cross entropy: losses of class scores against classes.

Logarithms of probabilities are never stored: one reduction reads each row's score at its target,
and the gradient is one formula per score, with the target compared to the running class.
"""

from __future__ import annotations

import ctypes

import numpy as np

from flambeau.compiler import kernel as k
from flambeau.compiler import math
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.engine.watch import host_check, watch
from flambeau.graph import grad_mode
from flambeau.ops.conversion import to_dtype
from flambeau.ops.declare import composite, operation_dtype
from flambeau.ops.fused import FusedPointwise, FusedReduction, dimension_position, row_positions
from flambeau.ops.normalization import LOG_EXP_SUM, MAXIMUM, log_softmax, softmax_input
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.selection import place
from flambeau.ops.view import reshape
from flambeau.tensor import Tensor

NONE, MEAN, SUM = 0, 1, 2

# -- the kernels ---------------------------------------------------------------------------------
# Of each row: target, scores, top and log_total (None where scores are log probabilities already);
# weights of classes or None; strides and the ignored class as numbers.


def _row(target, scores, top, log_total, weight, offset, class_stride, weight_stride, ignored):
    """A row's loss times its target's weight, and that weight; both 0 where it is ignored."""
    target = target.cast(types.int64)
    is_ignored = target == ignored
    safe = k.where(is_ignored, 0, target)
    score = scores(offset + safe * class_stride)
    if top is not None:
        score = score - top - log_total
    factor = score.like(1.0) if weight is None else weight(safe * weight_stride)
    factor = k.where(is_ignored, 0, factor)
    return k.where(is_ignored, 0, -score * factor), factor


def _offsets(layouts, static):
    """Where each row's scores start."""
    (dim,) = static
    return (row_positions(layouts[1], layouts[0].shape, dim),)


def _two_like_scores(layouts, static):
    return layouts[1].dtype, layouts[1].dtype


_ROW_OPTIONS = {"results": _two_like_scores, "indexed": (1, 4), "positions": _offsets}
_ROWS = FusedPointwise("nll_loss", _row, contiguous=True, **_ROW_OPTIONS)
_ROW_SUM = FusedReduction("nll_loss", "sum sum", _row, **_ROW_OPTIONS)


def _computed_like_scores(layouts, static):
    return (operation_dtype(layouts[1].dtype),)


_LOSS_SUM = FusedReduction(
    "nll_loss", "sum", lambda *operands: _row(*operands)[0],
    **(_ROW_OPTIONS | {"results": _computed_like_scores}),
)  # fmt: skip
_MEAN = FusedPointwise(
    "mean", lambda total, weight: total / weight, results=lambda layouts, static: static
)


def _score_gradient(
    scores, target, top, log_total, weight, grad, total_weight, position, weight_stride, ignored
):
    """What one score adds to the losses of all rows, times the losses' gradient."""
    target = target.cast(types.int64)
    is_ignored = target == ignored
    if weight is not None:
        grad = grad * weight(k.where(is_ignored, 0, target) * weight_stride)
    if total_weight is not None:
        grad = grad / total_weight
    chosen = k.where(position == target, grad, 0)
    result = -chosen
    if top is not None:
        # The exponential is the one of `LOG_EXP_SUM`; the other one runs once per row.
        result = math.exp(scores - top) * (math.exp(-log_total) * grad) - chosen
    return k.where(is_ignored, 0, result)


_SCORE_GRADIENT = FusedPointwise(
    "nll_loss_backward",
    _score_gradient,
    contiguous=True,
    indexed=(4,),
    positions=lambda layouts, static: (
        dimension_position(layouts[0], layouts[0].shape, static[0]),
    ),
)


def _row_weight(target, weight, weight_stride, ignored):
    target = target.cast(types.int64)
    is_ignored = target == ignored
    safe = k.where(is_ignored, 0, target)
    one = safe.like(1).cast(types.float64)
    factor = one if weight is None else weight(safe * weight_stride)
    return k.where(is_ignored, 0, factor), safe


_ROW_WEIGHT = FusedPointwise(
    "target_weight",
    _row_weight,
    indexed=(1,),
    results=lambda layouts, static: (*static, types.int64),
)


_TOTAL_WEIGHT = FusedReduction(
    "total_weight",
    "sum",
    lambda *operands: _row_weight(*operands)[0],
    indexed=(1,),
    results=lambda layouts, static: static,
)


# -- what stands around them ---------------------------------------------------------------------


def _with_class_dim(tensor: Tensor | None, dim: int) -> Tensor | None:
    """The target, or what has its shape, with the dimension of classes as one of size 1."""
    if tensor is None or tensor.ndim == 0:
        return tensor
    layout = tensor._layout
    key = "class", dim
    found = layout.views.get(key)
    if found is None:
        shape, strides = list(layout.shape), list(layout.strides)
        shape.insert(dim, 1)
        strides.insert(dim, 0)
        found = layout.views[key] = layout.view(shape, strides, layout.offset)
    return Tensor._from_storage(tensor._storage, found)


def _stride(weight: Tensor | None) -> int:
    return 0 if weight is None else weight._layout.strides[0]


def _class_dim(scores: Tensor) -> int:
    return 0 if scores.ndim == 1 else 1


def _rows(scores, target):
    """The target as the kernels want it."""
    return _with_class_dim(target, _class_dim(scores)) if target.ndim else reshape(target, (1,))


def _total_weight(scores, target, weight, reduction, ignore_index):
    """What a mean divides by; None for other reductions.

    Recorded first: it needs no score, so that nothing between scores and their gradient waits.
    """
    if reduction != MEAN:
        return None
    rows = _rows(scores, target)
    dims, numbers = tuple(range(rows.ndim)), (_stride(weight), ignore_index)
    result = (operation_dtype(scores.dtype),)
    return _TOTAL_WEIGHT((rows, weight), dims, False, numbers, result)[0]


def _reduce_rows(scores, target, top, log_total, weight, total, reduction, ignore_index):
    """The loss and the sum of the rows' weights."""
    dim = _class_dim(scores)
    rows = _rows(scores, target)
    numbers = (scores._layout.strides[dim], _stride(weight), ignore_index)
    operands = (rows, scores, top, log_total, weight)
    if reduction == NONE:
        result, factors = _ROWS(operands, numbers, (dim,))
        layout = Layout.of(target.shape, scores.dtype, scores.device)
        return Tensor._from_storage(result._storage, layout), factors
    dims = tuple(range(rows.ndim))
    if reduction == SUM:
        return _ROW_SUM(operands, dims, False, numbers, (dim,))
    (loss,) = _LOSS_SUM(operands, dims, False, numbers, (dim,))
    return _MEAN((loss, total), (), (scores.dtype,))[0], total


def _gradient_of_scores(grad, scores, target, top, log_total, weight, total, reduction, ignored):
    dim = _class_dim(scores)
    if reduction == NONE:
        grad = _with_class_dim(grad, dim)
    operands = (
        scores, _with_class_dim(target, dim), top, log_total, weight, grad,
        total if reduction == MEAN else None,
    )  # fmt: skip
    return _SCORE_GRADIENT(operands, (_stride(weight), ignored), (dim,))[0]


def _plain_gradient(grad, scores, target, weight, total, reduction, ignored):
    """The gradient of log probabilities as graph, for a second backward."""
    dim = _class_dim(scores)
    rows = _with_class_dim(target, dim)
    factor, safe = _ROW_WEIGHT((rows, weight), (_stride(weight), ignored), (scores.dtype,))
    if reduction == NONE and scores.ndim > 1:
        grad = grad.unsqueeze(dim)
    values = -(grad * factor)
    if reduction == MEAN:
        values = values / total.detach()
    if scores.ndim == 1:
        values, safe = values.reshape(1), safe.reshape(1)
    return place(values, safe, dim, scores.shape[dim])


@composite(
    "_nll_loss(Tensor self, Tensor target, Tensor? weight, int reduction, int ignore_index) "
    "-> (Tensor, Tensor)",
    variants="",
)
def _nll_loss(self, target, weight, reduction, ignore_index):
    total = _total_weight(self, target, weight, reduction, ignore_index)
    return _reduce_rows(self, target, None, None, weight, total, reduction, ignore_index)


@_nll_loss.derivative
def _nll_loss_backward(grad0, self, target, weight, result1, reduction, ignore_index):
    if grad_mode.enabled:
        values = (grad0, self, target, weight, result1, reduction, ignore_index)
        return {"self": _plain_gradient(*values)}
    values = (grad0, self, target, None, None, weight, result1, reduction, ignore_index)
    return {"self": _gradient_of_scores(*values)}


@composite(
    "_cross_entropy(Tensor self, Tensor target, Tensor? weight, int reduction, int ignore_index) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    variants="",
)
def _cross_entropy(self, target, weight, reduction, ignore_index):
    dims = (_class_dim(self),)
    total = _total_weight(self, target, weight, reduction, ignore_index)
    (top,) = MAXIMUM((self,), dims, True)
    (log_total,) = LOG_EXP_SUM((self, top), dims, True)
    values = (self, target, top, log_total, weight, total, reduction, ignore_index)
    loss, total = _reduce_rows(*values)
    return loss, total, top, log_total


# PyTorch's cross entropy is made of two nodes, of which this is the last.
_nll_loss.node_name = _cross_entropy.node_name = "NllLossBackward0"


@_cross_entropy.derivative
def _cross_entropy_backward(
    grad0, self, target, weight, result1, result2, result3, reduction, ignore_index
):
    if grad_mode.enabled:
        values = (grad0, self, target, weight, result1, reduction, ignore_index)
        inner = _plain_gradient(*values)
        dim = _class_dim(self)
        return {"self": inner - log_softmax(self, dim).exp() * sum_(inner, (dim,), True)}
    top, log_total = result2, result3
    values = (grad0, self, target, top, log_total, weight, result1, reduction, ignore_index)
    return {"self": _gradient_of_scores(*values)}


# For three and more dimensions the node has another name.
_nll_loss_2d = _nll_loss.with_node_name("NllLoss2DBackward0")
_cross_entropy_2d = _cross_entropy.with_node_name("NllLoss2DBackward0")


# -- checks --------------------------------------------------------------------------------------


def _check_nll(self: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """PyTorch's errors about shapes and types."""
    if self.ndim == 0:
        raise ValueError("Expected 1 or more dimensions (got 0)")
    softmax_input("log_softmax", self, _class_dim(self), None)
    if self.ndim != 1 and (not target.ndim or self.shape[0] != target.shape[0]):
        found = target.shape[0] if target.ndim else 0
        if not target.ndim:
            raise IndexError("Dimension specified as 0 but tensor has no dimensions")
        raise ValueError(
            f"Expected input batch_size ({self.shape[0]}) to match target batch_size ({found})."
        )
    if self.ndim <= 2:
        if target.ndim > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if self.ndim == 1 and target.ndim and target.shape[0] != 1:
            raise ValueError(
                f"For 1D input, 1D target must have size 1, but got target size: {target.shape[0]}"
            )
    elif self.ndim == 4:
        if target.ndim != 3:
            raise RuntimeError(
                "only batches of spatial targets supported (3D tensors) but got targets of "
                f"dimension: {target.ndim}"
            )
        if self.shape[2:] != target.shape[1:]:
            raise RuntimeError(
                f"size mismatch (got input: {list(self.shape)} , target: {list(target.shape)}"
            )
    elif target.shape[1:] != self.shape[2:]:
        expected = [self.shape[0], *self.shape[2:]]
        raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    if target.dtype not in (types.int64, types.uint8):
        raise RuntimeError(
            f"expected target dtype to be Long or Byte, but got {target.dtype.title}"
        )
    classes = self.shape[_class_dim(self)]
    if weight is not None and (weight.ndim != 1 or weight.shape[0] != classes):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but "
            f"got weight tensor of shape: {list(weight.shape)}"
        )


def _is_being_written(tensor: Tensor) -> bool:
    """Whether a pending call writes the tensor's storage."""
    storage = tensor._storage
    tape, slot = storage.tape, storage.slot
    if tape is None:
        return False
    if storage.block is None:
        return True
    return any(view.slot == slot for call in tape.recorded() for view in call.writes)


def ready_values(tensor: Tensor) -> np.ndarray:
    """The tensor's elements where they lie; runs what is pending only if it would change them."""
    storage, layout = tensor._storage, tensor._layout
    if watch.capture is not None:
        watch.capture.touched()
    if _is_being_written(tensor):
        storage.ready()
    size = layout.dtype.itemsize
    strides = [s * size for s in layout.strides]
    assert storage.block is not None
    memory = (ctypes.c_ubyte * storage.nbytes).from_address(storage.block.address)
    return np.ndarray(layout.shape, layout.dtype.numpy, memory, layout.offset * size, strides)


@host_check
def _check_range(target: Tensor, classes: int, ignore_index: int) -> None:
    """Classes out of range are an error at the call, as in PyTorch."""
    if not target.numel():
        return
    values = ready_values(target)
    unsigned = values.view(f"u{values.itemsize}")  # negative numbers as very large ones
    if unsigned.max() < classes:
        return
    wrong = values[((values < 0) | (values >= classes)) & (values != ignore_index)]
    if wrong.size:
        raise IndexError(f"Target {wrong.flat[0]} is out of bounds.")


def _prepared(self, target, weight, ignore_index):
    """The target without a dimension of size 1 that it may have; PyTorch's errors."""
    key = "nll", target._layout, None if weight is None else weight._layout
    if key not in self._layout.views:
        _check_nll(self, target, weight)
        self._layout.views[key] = self._layout
    if self.ndim == 1 and target.ndim == 1:
        target = reshape(target, ())
    _check_range(target, self.shape[_class_dim(self)], ignore_index)
    return target


# -- the operators -------------------------------------------------------------------------------


@composite(
    "nll_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, "
    "int ignore_index=-100) -> Tensor",
    variants="",
)
def nll_loss(self, target, weight, reduction, ignore_index):
    """Returns minus the log probabilities ``self`` ``(N, C, *)`` at classes ``target`` ``(N, *)``.

    ``reduction`` is 0 for one loss per row, 1 for their weighted mean, 2 for their sum.
    """
    rows = _prepared(self, target, weight, ignore_index)
    operator = _nll_loss if self.ndim <= 2 else _nll_loss_2d
    loss = operator.record([self, rows, weight, reduction, ignore_index])[0]
    return loss if rows is target or reduction != NONE else reshape(loss, target.shape)


@composite(
    "nll_loss_nd(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, "
    "int ignore_index=-100) -> Tensor",
    variants="",
)
def nll_loss_nd(self, target, weight, reduction, ignore_index):
    return nll_loss.body(self, target, weight, reduction, ignore_index)


@composite(
    "cross_entropy_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, "
    "int ignore_index=-100, float label_smoothing=0.0) -> Tensor",
    variants="",
)
def cross_entropy_loss(self, target, weight, reduction, ignore_index, label_smoothing):
    """Returns the cross entropy of scores ``(N, C, *)`` and classes or probabilities."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing:g}")
    if self.shape == target.shape:
        return _against_probabilities(
            self, target, weight, reduction, ignore_index, label_smoothing
        )
    if label_smoothing > 0.0:
        values = (self, target, weight, reduction, ignore_index, label_smoothing)
        return _smoothed(*values)
    rows = _prepared(self, target, weight, ignore_index)
    operator = _cross_entropy if self.ndim <= 2 else _cross_entropy_2d
    loss = operator.record([self, rows, weight, reduction, ignore_index])[0]
    return loss if rows is target or reduction != NONE else reshape(loss, target.shape)


def _against_probabilities(self, target, weight, reduction, ignore_index, label_smoothing):
    if not target.dtype.is_floating_point:
        raise RuntimeError(
            f"Expected floating point type for target with class probabilities, got "
            f"{target.dtype.title}"
        )
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    dim = _class_dim(self)
    classes = self.shape[dim]
    if label_smoothing > 0.0:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    losses = log_softmax(self, dim) * target
    if weight is not None:
        shape = [1] * self.ndim
        shape[dim] = classes
        losses = losses * reshape(weight, shape)
    if reduction == NONE:
        return -sum_(losses, (dim,))
    total = -sum_(losses)
    return total if reduction == SUM else total / (self.numel() / classes)


def _smoothed(self, target, weight, reduction, ignore_index, label_smoothing):
    """The target's class gets part of the probability, the rest is spread evenly."""
    dim = _class_dim(self)
    logs = log_softmax(self, dim)
    sharp = nll_loss(logs, target, weight, reduction, ignore_index)
    classes = self.shape[dim]
    if weight is not None:
        shape = [1] * self.ndim
        shape[dim] = classes
        spread = -sum_(logs * reshape(weight, shape), (dim,))
    else:
        spread = -sum_(logs, (dim,))
    spread = spread * to_dtype(target != ignore_index, spread.dtype)
    if reduction != NONE:
        spread = sum_(spread)
    if reduction == MEAN:
        factor, _ = _ROW_WEIGHT((target, weight), (_stride(weight), ignore_index), (self.dtype,))
        spread = spread / sum_(factor)
    return sharp * (1 - label_smoothing) + spread * (label_smoothing / classes)


@nll_loss.samples
def nll_loss_samples(make):
    def classes():
        return make(values=[1, 0, 4], dtype="int64")

    for reduction in (NONE, MEAN, SUM):
        yield make(3, 5), classes(), {"reduction": reduction}
        yield make(3, 5), classes(), {"ignore_index": 0, "reduction": reduction}
    yield make(4), make(values=2, dtype="int64"), {"reduction": MEAN}
    yield make(4, 3, transposed=True), make(values=[1, 0, 2], dtype="int64"), {"reduction": SUM}
    yield make(3, 5), make(values=[1, 5, 2], dtype="int64"), {"reduction": MEAN}
    yield make(3, 5, dtype="bfloat16"), classes(), {"reduction": MEAN}


@cross_entropy_loss.samples
def cross_entropy_loss_samples(make):
    labels = [0, 3, 2, 4]
    yield make(4, 5), make(values=labels, dtype="int64"), None, 1
    yield make(4, 5), make(values=labels, dtype="int64"), make(5, low=0.1), 2, 3
    yield make(4, 5), make(values=labels, dtype="int64"), None, 1, -100, 0.1
    yield make(4, 5), make(4, 5, low=0, high=1), None, 1
    yield make(2, 5, 3), make(2, 3, dtype="int64", low=0, high=5), None, 0
    yield make(4, 5), make(values=[0, 1, 2, 9], dtype="int64"), None, 1
