"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.nn.convolution import _ConvNd
from flambeau.nn.tuples import as_tuple
from flambeau.ops.transposed_convolution import conv_transpose1d, conv_transpose2d
from flambeau.ops.volume_convolution import conv_transpose3d
from flambeau.tensor import Tensor


class _ConvTransposeNd(_ConvNd):
    """What transposed convolutions of any number of dimensions share."""

    dimensions = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f'Only "zeros" padding mode is supported for {self.__class__.__name__}'
            )
        dims = self.dimensions
        super().__init__(
            in_channels,
            out_channels,
            as_tuple(kernel_size, dims),
            as_tuple(stride, dims),
            as_tuple(padding, dims),
            as_tuple(dilation, dims),
            True,
            as_tuple(output_padding, dims),
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """What must be added at the end to reach ``output_size``."""
        if output_size is None:
            return self.output_padding
        dims = self.dimensions
        batched = input.dim() == dims + 2
        wanted = list(output_size)
        leading = 2 if batched else 1
        if len(wanted) == leading + dims:
            wanted = wanted[leading:]
        if len(wanted) != dims:
            raise ValueError(
                f"ConvTranspose{dims}D: for {input.dim()}D input, output_size must have {dims} or "
                f"{leading + dims} elements (got {len(output_size)})"
            )
        smallest = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                input.shape[-dims:], self.stride, self.padding, self.dilation, self.kernel_size
            )
        ]
        largest = [n + s - 1 for n, s in zip(smallest, self.stride)]
        if any(not low <= n <= high for n, low, high in zip(wanted, smallest, largest)):
            raise ValueError(
                f"requested an output size of {output_size}, but valid sizes range from "
                f"{smallest} to {largest} (for an input of {input.size()[2:]})"
            )
        return tuple(n - low for n, low in zip(wanted, smallest))

    def _transpose(self, operator: Any, input: Tensor, output_size: Any) -> Tensor:
        return operator(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self._output_padding(input, output_size),
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTransposeNd):
    """The transpose of a convolution over ``(N, C_in, L)`` or ``(C_in, L)``.

    The output is ``(L - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1``
    long; ``forward`` also takes an ``output_size``.
    """

    dimensions = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self._transpose(conv_transpose1d, input, output_size)


class ConvTranspose2d(_ConvTransposeNd):
    """The transpose of a convolution over ``(N, C_in, H, W)`` or ``(C_in, H, W)``."""

    dimensions = 2

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self._transpose(conv_transpose2d, input, output_size)


class ConvTranspose3d(_ConvTransposeNd):
    """The transpose of a convolution over ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)``."""

    dimensions = 3

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self._transpose(conv_transpose3d, input, output_size)
