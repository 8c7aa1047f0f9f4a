"""How a tensor lies in its storage: shape, strides, offset, element type and device.

Layouts are interned: equal layouts are one object, so comparing two is comparing pointers, and
facts derived from one (contiguity, the layouts of its views) are computed once per program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sys import getrefcount
from typing import Any, TypeAlias

from flambeau.core.device import CPU, device
from flambeau.core.dtype import dtype
from flambeau.core.size import Size

# Inside a class that has members ``dtype`` and ``device`` those names mean the members.
ElementType: TypeAlias = dtype
Place: TypeAlias = device

# A long program with ever new shapes must not fill memory: past this those that nobody uses go.
MAX_INTERNED = 1 << 16


class Layout:
    """An interned view description.  Build with :meth:`of`; never change one.

    ``strides`` and ``offset`` count elements.  ``nbytes`` is how far into the storage the view
    reaches.  ``views`` caches layouts derived from this one by view operations.
    """

    __slots__ = (
        "__weakref__", "device", "dtype", "is_contiguous", "nbytes", "ndim", "numel", "offset",
        "shape", "strides", "views",
    )  # fmt: skip
    shape: Size
    strides: tuple[int, ...]
    offset: int
    dtype: dtype
    device: device
    ndim: int
    numel: int
    nbytes: int
    is_contiguous: bool
    views: dict[Any, Layout]

    @staticmethod
    def of(
        shape: Sequence[int],
        dtype: ElementType,
        device: Place = CPU,
        strides: Sequence[int] | None = None,
        offset: int = 0,
    ) -> Layout:
        """The layout of that shape; contiguous (row-major) unless ``strides`` says otherwise."""
        shape = tuple(shape)
        strides = contiguous_strides(shape) if strides is None else tuple(strides)
        key = (shape, strides, offset, dtype, device)
        found = _interned.get(key)
        return found if found is not None else _intern(key)

    def with_dtype(self, dtype: ElementType) -> Layout:
        """The same shape and strides with elements of another type, at offset 0."""
        return Layout.of(self.shape, dtype, self.device, self.strides, 0)

    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Layout:
        """Another view of the same storage."""
        return Layout.of(shape, self.dtype, self.device, strides, offset)

    def contiguous(self, dtype: ElementType | None = None) -> Layout:
        return Layout.of(self.shape, dtype or self.dtype, self.device)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        text = f"{self.dtype.name}[{shape}]"
        if not self.is_contiguous:
            text += f" strides {self.strides}"
        if self.offset:
            text += f" offset {self.offset}"
        return text


_Key = tuple[tuple[int, ...], tuple[int, ...], int, dtype, device]
_interned: dict[_Key, Layout] = {}


def _drop_unused() -> None:
    """Forgets the derived layouts, which are found again, then all that nothing else refers to."""
    global _limit
    # Another thread may add or drop some meanwhile.
    for layout in tuple(_interned.values()):
        layout.views.clear()
    del layout
    for key, count in _references(_interned):
        if count == _UNUSED:
            _interned.pop(key, None)
    _limit = max(MAX_INTERNED, 2 * len(_interned))


def _references(table: dict[Any, Any]) -> Iterator[tuple[Any, int]]:
    for key in tuple(table):
        value = table.get(key)
        yield key, getrefcount(value)


class _Lone:
    """An object that only a table refers to, to learn what `getrefcount` says of such a one."""


_UNUSED = next(count for _, count in _references({0: _Lone()}))
_limit = MAX_INTERNED


def _intern(key: _Key) -> Layout:
    if len(_interned) >= _limit:
        _drop_unused()
    shape, strides, offset, dtype_, device_ = key
    layout = Layout()
    layout.shape, layout.strides, layout.offset = Size(shape), strides, offset
    layout.dtype, layout.device = dtype_, device_
    layout.ndim = len(shape)
    layout.numel = layout.shape.numel()
    layout.is_contiguous = _is_contiguous(shape, strides)
    layout.nbytes = reach(shape, strides, offset) * dtype_.itemsize
    layout.views = {}
    _interned[key] = layout
    return layout


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1:
            if stride != expected:
                return False
            expected *= n
    return True


def reach(shape: Sequence[int], strides: Sequence[int], offset: int) -> int:
    """How many elements of the storage the view spans, its offset included."""
    last = offset
    for n, stride in zip(shape, strides, strict=True):
        if n == 0:
            return 0
        last += (n - 1) * stride
    return last + 1


def is_dense(layout: Layout) -> bool:
    """Whether the elements fill one gap-free block without overlap, in some order of dimensions."""
    expected = 1
    pairs = [(s, n) for n, s in zip(layout.shape, layout.strides, strict=True) if n != 1]
    for stride, n in sorted(pairs):
        if stride != expected:
            return layout.numel == 0
        expected *= n
    return True


def may_overlap_itself(layout: Layout) -> bool:
    """Whether two indices may address one element (expanded views and the like)."""
    expected = 1
    pairs = [(s, n) for n, s in zip(layout.shape, layout.strides, strict=True) if n != 1]
    for stride, n in sorted(pairs):
        if stride < expected:
            return layout.numel != 0
        expected = stride * (n - 1) + expected
    return False


def certainly_disjoint(a: Layout, b: Layout) -> bool:
    """Whether two views of one storage share no byte, where that can be told without a search."""
    if a.numel == 0 or b.numel == 0:
        return True
    if a is b:
        return False
    if a.nbytes <= b.offset * b.dtype.itemsize or b.nbytes <= a.offset * a.dtype.itemsize:
        return True
    if a.dtype.itemsize != b.dtype.itemsize:
        return False
    steps = sorted({s for v in (a, b) for s, _ in _moving(v)} | {1}, reverse=True)
    first, second = _box(a, steps), _box(b, steps)
    if first is None or second is None:
        return False
    return any(
        p[0] + p[1] <= q[0] or q[0] + q[1] <= p[0] for p, q in zip(first, second, strict=True)
    )


def _moving(layout: Layout) -> list[tuple[int, int]]:
    """Stride and size of the dimensions that lead to other addresses."""
    pairs = zip(layout.strides, layout.shape, strict=True)
    return [(stride, n) for stride, n in pairs if n != 1 and stride]


def _box(layout: Layout, steps: Sequence[int]) -> list[tuple[int, int]] | None:
    """The view's addresses as ranges of digits (start, count) for these place values, largest
    first; None where a digit would carry.
    """
    pairs = _moving(layout)
    moving = dict(pairs)
    if len(moving) != len(pairs) or min(moving, default=1) < 0:
        return None
    box = []
    rest = layout.offset
    for step in steps:
        start, rest = divmod(rest, step)
        box.append((start, moving.get(step, 1)))
    # What the lower digits add up to at most must stay below each place value.
    below = 0
    for step, (start, count) in zip(reversed(steps), reversed(box), strict=True):
        if below >= step:
            return None
        below += (start + count - 1) * step
    return box


def broadcast_shapes(*shapes: Sequence[int]) -> Size:
    """The common shape; PyTorch's error where two sizes differ and neither is 1."""
    result: list[int] = []
    for shape in shapes:
        if len(shape) > len(result):
            result = [1] * (len(shape) - len(result)) + result
        lead = len(result) - len(shape)
        for i, n in enumerate(shape):
            have = result[lead + i]
            if have == 1:
                result[lead + i] = n
            elif n not in (1, have):
                raise RuntimeError(
                    f"The size of tensor a ({have}) must match the size of tensor b ({n}) "
                    f"at non-singleton dimension {lead + i}"
                )
    return Size(result)


def broadcast_strides(layout: Layout, shape: Sequence[int]) -> tuple[int, ...]:
    """The strides that make ``layout`` look like ``shape``: 0 along repeated dimensions."""
    lead = len(shape) - layout.ndim
    inner = zip(layout.shape, layout.strides, shape[lead:], strict=True)
    return (0,) * lead + tuple(0 if n == 1 and want != 1 else s for n, s, want in inner)


def elementwise_strides(shape: Sequence[int], operands: Iterable[Layout]) -> tuple[int, ...]:
    """The strides of a pointwise result: dense, in the order of dimensions that the inputs have.

    PyTorch's ``TensorIterator`` sorts dimensions by the operands' strides, the first operand with
    an opinion deciding; equal dense inputs hand their strides on.
    """
    candidates = [o for o in operands if o.shape == tuple(shape)]
    if not candidates or all(o.is_contiguous for o in candidates):
        return contiguous_strides(shape)
    same = candidates[0].strides
    if all(o.strides == same for o in candidates) and is_dense(candidates[0]):
        return same
    order = _sorted_dimensions(shape, [broadcast_strides(o, shape) for o in operands if o.ndim])
    strides = [0] * len(shape)
    step = 1
    for dim in order:
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def _sorted_dimensions(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Dimensions from fastest to slowest, ambiguous ones keeping row-major order."""

    def should_swap(fast: int, slow: int) -> int:
        for stride in strides:
            a, b = stride[fast], stride[slow]
            if a == 0 or b == 0:
                continue
            if a != b:
                return 1 if a > b else -1
            if shape[fast] > shape[slow]:
                return 1
        return 0

    order = list(range(len(shape) - 1, -1, -1))
    for i in range(1, len(order)):
        at = i
        for j in range(i - 1, -1, -1):
            comparison = should_swap(order[j], order[at])
            if comparison > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif comparison < 0:
                break
    return order
