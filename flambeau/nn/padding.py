"""Padding modules."""

from __future__ import annotations

from typing import Any

from flambeau.nn import functional as F
from flambeau.nn.module import Module
from flambeau.nn.tuples import as_tuple
from flambeau.tensor import Tensor


class _ConstantPadNd(Module):
    """What padding with one value shares."""

    __constants__ = ["padding", "value"]
    value: float
    padding: tuple[int, ...]

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Pads the last dimension with ``value``; ``padding`` is a width, or (left, right)."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(value)
        self.padding = as_tuple(padding, 2)


class ConstantPad2d(_ConstantPadNd):
    """Pads the last two dimensions: a width, or (left, right, top, bottom)."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(value)
        self.padding = as_tuple(padding, 4)


class ConstantPad3d(_ConstantPadNd):
    """Pads the last three dimensions: a width, or (left, right, top, bottom, front, back)."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(value)
        self.padding = as_tuple(padding, 6)


class ZeroPad1d(ConstantPad1d):
    """Pads the last dimension with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """Pads the last two dimensions with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """Pads the last three dimensions with zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _BorderPadNd(Module):
    """What padding from the input itself shares."""

    __constants__ = ["padding"]
    padding: tuple[int, ...]
    mode = ""
    widths = 2

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = as_tuple(padding, self.widths)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPadNd(_BorderPadNd):
    mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Mirrors the last dimension at its borders, which are not repeated."""


class ReflectionPad2d(_ReflectionPadNd):
    """Mirrors the last two dimensions at their borders."""

    widths = 4


class ReflectionPad3d(_ReflectionPadNd):
    """Mirrors the last three dimensions at their borders."""

    widths = 6


class _ReplicationPadNd(_BorderPadNd):
    mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Repeats the borders of the last dimension."""


class ReplicationPad2d(_ReplicationPadNd):
    """Repeats the borders of the last two dimensions."""

    widths = 4


class ReplicationPad3d(_ReplicationPadNd):
    """Repeats the borders of the last three dimensions."""

    widths = 6


class _CircularPadNd(_BorderPadNd):
    mode = "circular"


class CircularPad1d(_CircularPadNd):
    """Continues the last dimension from its other end."""


class CircularPad2d(_CircularPadNd):
    """Continues the last two dimensions from their other ends."""

    widths = 4


class CircularPad3d(_CircularPadNd):
    """Continues the last three dimensions from their other ends."""

    widths = 6
