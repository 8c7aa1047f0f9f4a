"""Tensors that results are written into: in-place targets and ``out=``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from flambeau.core.layout import Layout, is_dense, may_overlap_itself, reach
from flambeau.ops import call as path
from flambeau.tensor import Tensor


def check_writable(tensor: Tensor) -> None:
    """PyTorch's error for in-place writes to expanded tensors."""
    if may_overlap_itself(tensor._layout):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )


def check_no_overlap(out: Tensor, inputs: Sequence[Any]) -> None:
    """PyTorch's error where ``out`` shares any memory with an input."""
    check_writable(out)
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or tensor._storage is not out._storage:
            continue
        first = max(tensor._layout.offset, out._layout.offset)
        if first < min(_end(tensor._layout), _end(out._layout)):
            raise RuntimeError(
                "unsupported operation: some elements of the input tensor and the written-to "
                "tensor refer to a single memory location. Please clone() the tensor before "
                "performing the operation."
            )


def _end(layout: Layout) -> int:
    return reach(layout.shape, layout.strides, layout.offset)


def check_overlap(target: Tensor, operands: Sequence[Any]) -> None:
    """PyTorch's error where an operand shares a part of the written memory."""
    storage, layout = target._storage, target._layout
    for operand in operands:
        if (
            isinstance(operand, Tensor)
            and operand._storage is storage
            and operand._layout is not layout
            and _overlap_in_part(layout, operand._layout)
        ):
            raise RuntimeError(
                "unsupported operation: some elements of the input tensor and the written-to "
                "tensor refer to a single memory location. Please clone() the tensor before "
                "performing the operation."
            )


def _overlap_in_part(a: Layout, b: Layout) -> bool:
    """Whether two dense layouts share elements without being the same view."""
    if not (a.numel and b.numel and is_dense(a) and is_dense(b)):
        return False
    if a.offset == b.offset and a.numel == b.numel:
        return a.strides != b.strides
    return a.offset < b.offset + b.numel and b.offset < a.offset + a.numel


def check_out(name: str, inputs: Sequence[Any], out: Any) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if path.needs_graph([*inputs, out]):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )


def resize_out(out: Tensor, shape: Sequence[int]) -> None:
    """Gives ``out`` the result's shape; PyTorch's warning where it held something else."""
    if out.shape == tuple(shape):
        return
    if out.numel():
        warnings.warn(
            f"An output with one or more elements was resized since it had shape "
            f"{list(out.shape)}, which does not match the required output shape {list(shape)}. "
            "This behavior is deprecated, and in a future PyTorch release outputs will not be "
            "resized unless they have zero elements. You can explicitly reuse an out tensor t by "
            "resizing it, inplace, to zero elements with t.resize_(0).",
            UserWarning,
            stacklevel=4,
        )
    resize(out, shape)


def resize(tensor: Tensor, shape: Sequence[int]) -> None:
    """Sets a contiguous shape on the storage, growing it where needed."""
    layout = Layout.of(shape, tensor.dtype, tensor.device, None, tensor._layout.offset)
    if layout.nbytes > tensor._storage.nbytes:
        tensor._storage.resize(layout.nbytes)
    tensor._layout = layout


def expand_shape(source: Sequence[int], target: Sequence[int]) -> tuple[int, ...]:
    """``target``, if ``source`` expands to it; PyTorch's error otherwise."""
    if len(source) > len(target):
        raise RuntimeError(
            f"expand(torch.FloatTensor{{{list(source)}}}, size={list(target)}): the number of "
            "sizes "
            f"provided ({len(target)}) must be greater or equal to the number of dimensions in the "
            f"tensor ({len(source)})"
        )
    for d in range(1, len(source) + 1):
        if source[-d] not in (1, target[-d]):
            raise RuntimeError(
                f"The expanded size of the tensor ({target[-d]}) must match the existing size "
                f"({source[-d]}) at non-singleton dimension {len(target) - d}.  Target sizes: "
                f"{list(target)}.  Tensor sizes: {list(source)}"
            )
    return tuple(target)
