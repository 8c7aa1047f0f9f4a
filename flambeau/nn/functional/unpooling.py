"""From maxima back to their places, power means, random windows, and sliding blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.nn.functional.activation import relu
from flambeau.nn.tuples import as_tuple
from flambeau.ops import fractional_pooling as fractional
from flambeau.ops import sliding
from flambeau.ops.pooling import avg_pool1d, avg_pool2d
from flambeau.ops.view import squeeze, unsqueeze
from flambeau.ops.volume_pooling import avg_pool3d
from flambeau.tensor import Tensor

# -- unpooling -------------------------------------------------------------------------------------


def _unpooled_size(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_size: Sequence[int] | None,
) -> list[int]:
    """What unpooling gives; an ``output_size`` may differ from that by less than a stride."""
    dims = len(kernel_size)
    shape = input.size()
    natural = [
        (shape[len(shape) - dims + d] - 1) * stride[d] + kernel_size[d] - 2 * padding[d]
        for d in range(dims)
    ]
    if output_size is None:
        return natural
    wanted = list(output_size)
    if len(wanted) == dims + 2:
        wanted = wanted[2:]
    if len(wanted) != dims:
        raise ValueError(
            "output_size should be a sequence containing "
            f"{dims} or {dims + 2} elements, but it has a length of '{len(wanted)}'"
        )
    for d in range(dims):
        low, high = natural[d] - stride[d], natural[d] + stride[d]
        if not low < wanted[d] < high:
            raise ValueError(
                f'invalid output_size "{output_size}" (dim {d} must be between {low} and {high})'
            )
    return wanted


def _geometry(dims: int, kernel_size: Any, stride: Any, padding: Any) -> list[tuple[int, ...]]:
    kernel = as_tuple(kernel_size, dims)
    return [kernel, kernel if stride is None else as_tuple(stride, dims), as_tuple(padding, dims)]


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the elements at the places that :func:`max_pool1d` found them at."""
    kernel, step, pad = _geometry(1, kernel_size, stride, padding)
    size = _unpooled_size(input, kernel, step, pad, output_size)
    result = fractional.max_unpool2d(
        unsqueeze(input, input.ndim), unsqueeze(indices, indices.ndim), [*size, 1]
    )
    return squeeze(result, (result.ndim - 1,))


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the elements at the places that :func:`max_pool2d` found them at."""
    kernel, step, pad = _geometry(2, kernel_size, stride, padding)
    size = _unpooled_size(input, kernel, step, pad, output_size)
    return fractional.max_unpool2d(input, indices, size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros with the elements at the places that :func:`max_pool3d` found them at."""
    kernel, step, pad = _geometry(3, kernel_size, stride, padding)
    size = _unpooled_size(input, kernel, step, pad, output_size)
    return fractional.max_unpool3d(input, indices, size, step, pad)


# -- power means -----------------------------------------------------------------------------------


def _root(mean: Tensor, norm_type: float, count: int) -> Tensor:
    total = mean.sign() * relu(mean.abs()) * count
    return total.pow(1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: Any, kernel_size: int, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-norm of each window of ``(N, C, L)``."""
    step = [] if stride is None else stride
    mean = avg_pool1d(input.pow(norm_type), kernel_size, step, 0, ceil_mode)
    return _root(mean, norm_type, kernel_size)


def lp_pool2d(
    input: Tensor, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-norm of each window of ``(N, C, H, W)``."""
    rows, columns = as_tuple(kernel_size, 2)
    step = [] if stride is None else stride
    mean = avg_pool2d(input.pow(norm_type), kernel_size, step, 0, ceil_mode)
    return _root(mean, norm_type, rows * columns)


def lp_pool3d(
    input: Tensor, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The ``norm_type``-norm of each window of ``(N, C, D, H, W)``."""
    planes, rows, columns = as_tuple(kernel_size, 3)
    step = [] if stride is None else stride
    mean = avg_pool3d(input.pow(norm_type), kernel_size, step, 0, ceil_mode)
    return _root(mean, norm_type, planes * rows * columns)


# -- random windows --------------------------------------------------------------------------------


def _fractional(
    dims: int,
    input: Tensor,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{dims}d"
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if output_size is None:
        ratio = as_tuple(output_ratio, dims)
        output_size = [int(n * r) for n, r in zip(input.size()[-dims:], ratio)]
    if samples is None:
        samples = fractional.draw_samples(input, dims)
    find = fractional.fractional_max_pool2d if dims == 2 else fractional.fractional_max_pool3d
    return find(input, as_tuple(kernel_size, dims), as_tuple(output_size, dims), samples)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`fractional_max_pool2d`, and where each greatest element is."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The greatest elements of windows at random places, ``output_size`` of them."""
    values, indices = _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return (values, indices) if return_indices else values


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`fractional_max_pool3d`, and where each greatest element is."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The greatest elements of windows at random places, ``output_size`` of them."""
    values, indices = _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return (values, indices) if return_indices else values


# -- sliding blocks --------------------------------------------------------------------------------


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The windows of ``(N, C, H, W)`` as columns: ``(N, C * kernel elements, windows)``."""
    return sliding.im2col(
        input,
        as_tuple(kernel_size, 2),
        as_tuple(dilation, 2),
        as_tuple(padding, 2),
        as_tuple(stride, 2),
    )


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Adds the columns of :func:`unfold` up to an image of ``output_size``."""
    return sliding.col2im(
        input,
        as_tuple(output_size, 2),
        as_tuple(kernel_size, 2),
        as_tuple(dilation, 2),
        as_tuple(padding, 2),
        as_tuple(stride, 2),
    )
