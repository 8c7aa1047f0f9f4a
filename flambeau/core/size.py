"""``torch.Size``: what a tensor's ``shape`` is."""

from __future__ import annotations

from typing import Any


class Size(tuple[int, ...]):
    """``torch.Size``: a tuple of dimensions."""

    __slots__ = ()

    def numel(self) -> int:
        result = 1
        for n in self:
            result *= n
        return result

    def __getitem__(self, index: Any) -> Any:
        result = tuple.__getitem__(self, index)
        return Size(result) if isinstance(index, slice) else result

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            return NotImplemented
        return Size(tuple.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return Size(tuple.__add__(other, self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, times: Any) -> Any:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __reduce__(self) -> tuple[object, tuple[tuple[int, ...]]]:
        return Size, (tuple(self),)
