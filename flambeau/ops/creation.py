"""New tensors from sizes and numbers: zeros, full, arange, linspace, eye and their like.

What they fill is recorded like any call, so a constant fuses into its consumers and costs no
memory of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compiler.kernel import Value, where
from flambeau.core import dtype as types
from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, is_dense
from flambeau.core.memory_format import channels_last, contiguous_format, preserve_format
from flambeau.engine.call import IOTA_SLOT, Call, Pointwise, View
from flambeau.engine.storage import Storage
from flambeau.graph import Node
from flambeau.ops import call as path
from flambeau.ops.declare import copy_, copy_into, default_dtype
from flambeau.ops.destination import resize_out
from flambeau.ops.schema import REQUIRED, as_int
from flambeau.tensor import Tensor

_device, _dtype = device, dtype


class _Fill:
    """The call that fills a new tensor with a number."""

    name = "full"

    def build(self, key: Any, first_slot: int) -> Call:
        _, _, _, (layout, kind), _ = key
        work = Pointwise(lambda _, scalars: [scalars[0].cast(layout.dtype)])
        writes = (View(first_slot, layout),)
        return Call(self.name, key, (), writes, (layout,), (float if kind is float else int,), work)


class _Indexed:
    """A call that computes new elements from their row-major index and some numbers."""

    def __init__(self, name: str, body: Callable[..., Value]) -> None:
        self.name = name
        self.body = body

    def build(self, key: Any, first_slot: int) -> Call:
        _, _, _, (layout, kinds), _ = key
        index = View(IOTA_SLOT, Layout.of(layout.shape, types.int64))

        def body(inputs: Sequence[Value], scalars: Sequence[Value]) -> list[Value]:
            return [self.body(inputs[0], *scalars, layout.dtype).cast(layout.dtype)]

        kinds = tuple(float if k is float else int for k in kinds)
        return Call(
            self.name, key, (index,), (View(first_slot, layout),), (layout,), kinds, Pointwise(body)
        )

    def __call__(self, layout: Layout, *numbers: int | float) -> Tensor:
        kinds = tuple(type(n) for n in numbers)
        return path.record(self, (), (layout, kinds), numbers)[0]


_FILL = _Fill()


def _arange(i: Value, start: Value, step: Value, kind: dtype) -> Value:
    return start + i.cast(start.dtype) * step


def _linspace(i: Value, start: Value, end: Value, steps: Value, kind: dtype) -> Value:
    """From both ends towards the middle, as PyTorch does, so that the ends are exact."""
    compute = types.float64 if kind is types.float64 else types.float32
    first, last, count = start.cast(compute), end.cast(compute), steps.cast(compute)
    step = (last - first) / (count - 1)
    position = i.cast(compute)
    up = first + step * position
    down = last - step * (count - 1 - position)
    return where(i < steps / 2, up, down)


class _Eye:
    """The call that compares each element's row with its column."""

    name = "eye"

    def build(self, key: Any, first_slot: int) -> Call:
        _, _, _, (layout,), _ = key
        rows, columns = (
            View(IOTA_SLOT, Layout.of(layout.shape, types.int64, layout.device, strides))
            for strides in ((1, 0), (0, 1))
        )
        work = Pointwise(lambda inputs, _: [(inputs[0] == inputs[1]).cast(layout.dtype)])
        return Call(
            self.name, key, (rows, columns), (View(first_slot, layout),), (layout,), (), work
        )


_ARANGE = _Indexed("arange", _arange)
_LINSPACE = _Indexed("linspace", _linspace)
_EYE = _Eye()


def filled(layout: Layout, number: bool | int | float) -> Tensor:
    """A new tensor of that layout, every element ``number``."""
    if layout.device.type == "meta" or layout.dtype.is_complex:
        return _filled_elsewhere(layout, number)
    return path.record(_FILL, (), (layout, type(number)), (number,))[0]


def _filled_elsewhere(layout: Layout, number: Any) -> Tensor:
    """On the meta device there is nothing to fill; complex kernels do not exist, memory does."""
    tensor = Tensor._from_storage(Storage(layout.nbytes, layout.device), layout)
    if layout.device.type == "meta" or not layout.numel:
        return tensor
    import numpy as np

    memory = tensor._storage.memory()
    np.frombuffer(memory, layout.dtype.numpy)[:] = number
    return tensor


def empty_tensor(
    shape: Sequence[int], dtype: dtype | None = None, device: device | None = None
) -> Tensor:
    """A new contiguous tensor with undefined contents."""
    layout = Layout.of(shape, dtype or default_dtype(), device or CPU)
    return Tensor._from_storage(Storage(layout.nbytes, layout.device), layout)


def like_layout(tensor: Tensor, dtype: dtype | None = None) -> Layout:
    """The layout of a ``*_like`` result: the same strides where those are dense."""
    layout = tensor._layout
    strides = layout.strides if is_dense(layout) else None
    return Layout.of(layout.shape, dtype or layout.dtype, layout.device, strides)


def in_format(layout: Layout, memory_format: Any) -> Layout:
    """The layout with the strides that an explicit memory format asks for."""
    if memory_format is None or memory_format is preserve_format:
        return layout
    if memory_format is contiguous_format:
        return layout.contiguous()
    rank = 4 if memory_format is channels_last else 5
    if layout.ndim != rank:
        title = str(memory_format).removeprefix("torch.")
        raise RuntimeError(f"required rank {rank} tensor to use {title} format")
    batch, channels, *space = layout.shape
    inner = Layout.of((batch, *space, channels), layout.dtype, layout.device).strides
    strides = (inner[0], inner[-1], *inner[1:-1])
    return Layout.of(layout.shape, layout.dtype, layout.device, strides)


def cuda_error() -> Exception:
    """What PyTorch's CPU build says when asked for a GPU."""
    return AssertionError("Torch not compiled with CUDA enabled")


def target_device(where: Any) -> device:
    if where is None:
        return CPU
    target = _device(where)
    if target.type == "cuda":
        raise cuda_error()
    return target


def sizes_of(name: str, sizes: Sequence[Any]) -> tuple[int, ...]:
    """``(2, 3)`` and ``((2, 3),)`` alike; PyTorch's errors for anything else."""
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    if len(sizes) == 1 and isinstance(sizes[0], bool):
        raise TypeError(f"{name}(): argument 'size' (position 1) must be tuple of ints, not bool")
    result = tuple(as_int(n) for n in given)
    for k, n in enumerate(result):
        if n is REQUIRED:
            got = ", ".join(type(s).__name__ for s in sizes)
            raise TypeError(
                f"{name}(): argument 'size' (position 1) must be tuple of ints, but found element "
                "of "
                f"type {type(given[k]).__name__} at pos {k}"
                if isinstance(given, (tuple, list)) and given is not sizes
                else f"{name}(): argument 'size' (position 1) must be tuple of ints, not {got}"
            )
        if n < 0:
            if name == "zeros":
                raise RuntimeError("zeros: Dimension size must be non-negative.")
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(result)}"
            )
    return result


def finish(tensor: Tensor, requires_grad: bool = False, out: Tensor | None = None) -> Tensor:
    if out is not None:
        resize_out(out, tensor.shape)
        return copy_(out, tensor)
    if requires_grad:
        require_grad(tensor)
    return tensor


_PYTHON_TYPES = {
    float: types.float64,
    int: types.int64,
    bool: types.bool_,
    complex: types.complex128,
}


def checked_dtype(name: str, kind: Any) -> dtype | None:
    """A type, also one given as Python's; PyTorch's error for anything else."""
    if kind is None or isinstance(kind, _dtype):
        return kind
    found = _PYTHON_TYPES.get(kind) if isinstance(kind, type) else None
    if found is None:
        raise TypeError(
            f"{name}(): argument 'dtype' must be torch.dtype, not {type(kind).__name__}"
        )
    return found


def require_grad(tensor: Tensor) -> Tensor:
    """The new tensor as a leaf that wants gradients; PyTorch's error where its type has none."""
    if not tensor.dtype.is_differentiable:
        raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
    return tensor.requires_grad_()


def _filler(name: str, number: int) -> Callable[..., Tensor]:
    def create(
        *sizes: Any,
        size: Any = None,
        out: Tensor | None = None,
        dtype: dtype | None = None,
        layout: Any = None,
        device: Any = None,
        pin_memory: bool = False,
        requires_grad: bool = False,
    ) -> Tensor:
        shape = sizes_of(name, sizes or (() if size is None else size,))
        kind = checked_dtype(name, dtype) or (default_dtype() if out is None else out.dtype)
        made = filled(Layout.of(shape, kind, target_device(device)), number)
        return finish(made, requires_grad, out)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Returns a tensor of the given sizes filled with {number}."
    return create


zeros = _filler("zeros", 0)
ones = _filler("ones", 1)


def full(
    size: Any,
    fill_value: Any,
    *,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Returns a tensor of the given sizes filled with a number; its type is the number's."""
    number = fill_value.item() if hasattr(fill_value, "item") else fill_value
    kind = checked_dtype("full", dtype)
    kind = kind or (out.dtype if out is not None else number_dtype(number))
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}"
        )
    shape = sizes_of("full", (size,))
    return finish(filled(Layout.of(shape, kind, target_device(device)), number), requires_grad, out)


def number_dtype(number: Any) -> dtype:
    """The type that a Python number alone gives a tensor."""
    if isinstance(number, bool):
        return types.bool_
    if isinstance(number, int):
        return types.int64
    if isinstance(number, complex):
        return default_dtype().to_complex()
    return default_dtype()


def empty(
    *size: Any,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
    memory_format: Any = None,
    names: Any = None,
) -> Tensor:
    """Returns a tensor of the given sizes with undefined contents."""
    shape = sizes_of("empty", size or ((),))
    if out is not None:
        resize_out(out, shape)
        return out
    made = Layout.of(shape, dtype or default_dtype(), target_device(device))
    made = in_format(made, memory_format)
    return finish(Tensor._from_storage(Storage(made.nbytes, made.device), made), requires_grad)


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Returns a tensor of the given sizes and strides with undefined contents."""
    made = Layout.of(size, dtype or default_dtype(), target_device(device), stride)
    return finish(Tensor._from_storage(Storage(made.nbytes, made.device), made), requires_grad)


def _like(name: str, number: int | None) -> Callable[..., Tensor]:
    def create(
        input: Tensor,
        *,
        dtype: dtype | None = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        pin_memory: bool = False,
    ) -> Tensor:
        if not isinstance(input, Tensor):
            raise TypeError(
                f"{name}(): argument 'input' (position 1) must be Tensor, not "
                f"{type(input).__name__}"
            )
        made = like_layout(input, dtype)
        if device is not None:
            made = Layout.of(made.shape, made.dtype, target_device(device), made.strides)
        made = in_format(made, memory_format)
        if number is None:
            return finish(
                Tensor._from_storage(Storage(made.nbytes, made.device), made), requires_grad
            )
        return finish(filled(made, number), requires_grad)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Returns a tensor like ``input`` ({name.removesuffix('_like')})."
    return create


zeros_like = _like("zeros_like", 0)
ones_like = _like("ones_like", 1)
empty_like = _like("empty_like", None)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Returns a tensor like ``input`` filled with a number."""
    made = in_format(like_layout(input, dtype), memory_format)
    return finish(filled(made, fill_value), requires_grad)


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Returns ``start, start + step, …`` below ``end``; integers if all three are."""
    if end is None:
        start, end = 0, start
    start, end, step = (n.item() if hasattr(n, "item") else n for n in (start, end, step))
    if not isinstance(end, (int, float)):
        raise TypeError(
            f"arange(): argument 'end' (position 1) must be Number, not {type(end).__name__}"
        )
    _check_range(start, end, step)
    whole = all(isinstance(n, int) for n in (start, end, step))
    kind = checked_dtype("arange", dtype)
    kind = kind or (out.dtype if out is not None else types.int64 if whole else default_dtype())
    if kind is types.bool_:
        raise NotImplementedError("\"arange_cpu\" not implemented for 'Bool'")
    if kind.category == "integer" and not whole:
        # PyTorch converts the three numbers to the type first.
        start, end, step = int(start), int(end), int(step)
        whole = True
        if step == 0:
            raise ValueError("step must be nonzero")
        _check_range(start, end, step)
    if whole:
        count = max(0, -((start - end) // step))
    else:
        count = max(0, math.ceil((end - start) / step))
        start, step = float(start), float(step)
    made = _ARANGE(Layout.of((count,), kind, target_device(device)), start, step)
    return finish(made, requires_grad, out)


def _check_range(start: Any, end: Any, step: Any) -> None:
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")


def range_(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Returns ``start, start + step, …`` up to and with ``end`` (PyTorch's deprecated
    ``range``).
    """
    warnings.warn(
        "torch.range is deprecated and will be removed in a future release because its behavior is "
        "inconsistent with Python's range builtin. Instead, use torch.arange, which produces "
        "values "
        "in [start, end).",
        UserWarning,
        stacklevel=2,
    )
    if end is None:
        start, end = 0, start
    _check_range(start, end, step)
    count = int(math.floor((end - start) / step)) + 1
    kind = dtype or default_dtype()
    made = _ARANGE(Layout.of((count,), kind, target_device(device)), float(start), float(step))
    return finish(made, requires_grad, out)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Returns ``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    for bound in (start, end):
        if isinstance(bound, Tensor) and bound.ndim:
            raise RuntimeError("linspace only supports 0-dimensional start and end tensors")
    start, end = (float(n.item() if hasattr(n, "item") else n) for n in (start, end))
    shape = Layout.of((steps,), dtype or default_dtype(), target_device(device))
    if shape.dtype.category == "integer":
        start, end = float(int(start)), float(int(end))
    made = filled(shape, start) if steps == 1 else _LINSPACE(shape, start, end, steps)
    return finish(made, requires_grad, out)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: dtype | None = None,
    requires_grad: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """Returns ``steps`` powers of ``base``, the exponents evenly spaced from start to end."""
    kind = dtype or default_dtype()
    exponents: Any = linspace(start, end, steps, dtype=types.float64)
    return finish((base**exponents).to(kind), requires_grad, options.get("out"))


def eye(
    n: int,
    m: int | None = None,
    *,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Returns the matrix with ones on the diagonal."""
    m = n if m is None else m
    for position, (name, given) in enumerate((("n", n), ("m", m)), 1):
        if as_int(given) is REQUIRED:
            raise TypeError(
                f"eye(): argument '{name}' (position {position}) must be int, not "
                f"{type(given).__name__}"
            )
    for name, size in (("n", n), ("m", m)):
        if size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {size}")
    shape = Layout.of((n, m), dtype or default_dtype(), target_device(device))
    made = path.record(_EYE, (), (shape,))[0] if shape.numel else filled(shape, 0)
    return finish(made, requires_grad, out)


def scalar_tensor(
    s: Any, *, dtype: dtype | None = None, device: Any = None, **options: Any
) -> Tensor:
    """Returns a 0-d tensor of the default type."""
    return filled(Layout.of((), dtype or default_dtype(), target_device(device)), s)


# -- in place, and the new_* methods ---------------------------------------------------------------


@copy_into.derivative
def copy_into_backward(grad, needs):
    # Stands here because what was overwritten has zeros as its gradient.
    found = {"src": grad}
    if "self" in needs:
        found["self"] = filled(grad._layout.contiguous(), 0)
    return found


class ZeroHistory:
    """The history of a result on which its inputs have no influence (any more)."""

    derivative_rule = None

    def __init__(self, name: str) -> None:
        self.name = self.node_name = name

    def backward(self, node: Node, grads: Sequence[Tensor]) -> list[Tensor]:
        return [filled(layout.contiguous(), 0) for layout in node.layouts]


class _FillHistory(ZeroHistory):
    """The history of a tensor filled with another one's number."""

    def backward(self, node: Node, grads: Sequence[Tensor]) -> list[Tensor]:
        return [filled(node.layouts[0].contiguous(), 0), grads[0]]


_FILL_NUMBER = ZeroHistory("FillBackward0")
_FILL_TENSOR = _FillHistory("FillBackward1")
_ZERO = ZeroHistory("ZeroBackward0")


def _fill(
    target: Tensor, value: Tensor, inputs: tuple[Tensor, ...], history: _FillHistory
) -> Tensor:
    graph = path.check_inplace(target, inputs)
    path.record(copy_into, (target, value), (False,), (), (target,))
    if graph:
        path.rebase(target, path.make_node(history, inputs, (target,), None))
    return target


def fill_(self: Tensor, value: Any) -> Tensor:
    """Fills the tensor with a number (or a 0-d tensor's).  Returns it."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{value.ndim} dimensions."
            )
        return _fill(self, value, (self, value), _FILL_TENSOR)
    constant = filled(Layout.of((), self.dtype, self.device), value)
    return _fill(self, constant, (self,), _FILL_NUMBER)


def fill(input: Tensor, value: Any) -> Tensor:
    """Returns a tensor like ``input`` filled with a number (or a 0-d tensor's)."""
    return fill_(input.clone(), value)  # type: ignore[attr-defined]


def zero_(self: Tensor) -> Tensor:
    """Fills the tensor with zeros.  Returns it."""
    constant = filled(Layout.of((), self.dtype, self.device), 0)
    return _fill(self, constant, (self,), _ZERO)


def _new(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def method(
        self: Tensor, *args: Any, dtype: dtype | None = None, device: Any = None, **options: Any
    ) -> Tensor:
        size = options.pop("size", None)
        if size is not None:
            args = (size, *args)
        return create(*args, dtype=dtype or self.dtype, device=device or self.device, **options)

    method.__doc__ = f"``torch.{create.__name__}`` with this tensor's type and device."
    return method


NEW_METHODS = {f"new_{f.__name__}": _new(f) for f in (zeros, ones, empty, full, empty_strided)}
