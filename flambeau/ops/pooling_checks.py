"""PyTorch's errors for windows and inputs that pooling cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout
from flambeau.tensor import wrap_dim


def pair(name: str, argument: str, numbers: Any, dims: int) -> tuple[int, ...]:
    """One number per dimension; a single one stands for all."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    if len(numbers) == 1:
        return numbers * dims
    if len(numbers) == dims:
        return numbers
    if dims == 2:
        raise RuntimeError(
            f"{name}: {argument} must either be a single int, or a tuple of two ints"
        )
    if name == "max_pool1d":
        raise RuntimeError(
            f"{name}() {argument} must be an int, list of ints or tuple of ints of size 1 but got "
            f"size {len(numbers)}"
        )
    raise RuntimeError(
        f"{_shown(name)}() argument '{argument}' should contain one int (got {len(numbers)})"
    )


def _shown(name: str) -> str:
    """``max_pool1d`` that also returns indices is a pooling over planes, under the same name."""
    return name.removesuffix("_with_indices")


def check_window(
    name: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    divisor: int | None,
) -> None:
    """The numbers of a window; the texts of ``max_pool1d`` are its own."""
    if name == "max_pool1d":
        _check_window_of_a_row(kernel[0], stride[0], padding[0], dilation[0])
        return
    first = 1 if len(kernel) == 1 else 0
    both = [(1,) * first + tuple(n) for n in (kernel, stride, padding, dilation)]
    if 0 in stride:
        raise RuntimeError("stride should not be zero")
    for numbers, what, high, wide in (
        (both[0], "kernel size", "kH", "kW"),
        (both[1], "stride", "dH", "dW"),
        (both[3], "dilation", "dilationH", "dilationW"),
    ):
        if any(n <= 0 for n in numbers):
            raise RuntimeError(
                f"{what} should be greater than zero, but got {high}: {numbers[0]} {wide}: "
                f"{numbers[-1]}"
            )
    for p, k in zip(padding, kernel, strict=True):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > k // 2:
            raise RuntimeError(_pad_text(kernel, padding, dilation, p, k))
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")


def _pad_text(
    kernel: Sequence[int], padding: Sequence[int], dilation: Sequence[int], p: int, k: int
) -> str:
    if set(dilation) == {1}:
        return (
            f"pad should be at most half of effective kernel size, but got pad={p}, "
            f"kernel_size={k} and dilation=1"
        )
    return (
        "pad should be smaller than or equal to half of kernel size, but got "
        f"padW = {padding[-1]}, padH = {padding[0]}, kW = {kernel[-1]}, kH = {kernel[0]}"
    )


def _check_window_of_a_row(kernel: int, stride: int, padding: int, dilation: int) -> None:
    named = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    if kernel <= 0 or stride <= 0:
        name = "kernel_size" if kernel <= 0 else "stride"
        raise RuntimeError(f"max_pool1d() {name} must be greater than zero, but got {named[name]}")
    if padding < 0:
        raise RuntimeError(f"max_pool1d() padding must be non-negative, but got {padding}")
    if padding > kernel // 2:
        raise RuntimeError(
            "max_pool1d() padding should be at most half of kernel size, but got "
            f"padding={padding} and kernel_size={kernel}"
        )
    if dilation <= 0:
        raise RuntimeError(f"max_pool1d() dilation must be greater than zero, but got {dilation}")


def check_input(name: str, dims: int, layout: Layout) -> None:
    """The input's dimensions: all but the batch must hold something."""
    shape = list(layout.shape)
    batched = layout.ndim == dims + 2
    fits = batched or layout.ndim == dims + 1
    filled = all(shape[1:] if batched else shape)
    if fits and filled:
        return
    text = f"{dims + 1}D or {dims + 2}D (batch mode) tensor"
    if name == "max_pool1d":
        raise RuntimeError(
            f"{name}: Expected {text} with optional 0 dim batch size for input, but got:{shape}"
        )
    if not fits and name == "max_pool2d":
        raise RuntimeError(f"non-empty {text} expected for input")
    if not fits and dims == 1:
        raise RuntimeError(
            f"Expected 2 to 3 dimensions, but got {layout.ndim}-dimensional tensor for argument #1 "
            f"'self' (while checking arguments for {_shown(name)})"
        )
    if name == "avg_pool2d" and layout.ndim < 3:
        if not layout.ndim:
            raise IndexError("Dimension specified as -3 but tensor has no dimensions")
        wrap_dim(-3, layout.ndim)
    if dims == 1:
        shape.insert(layout.ndim - 1, 1)
    raise RuntimeError(
        "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but "
        f"got:{shape}"
    )


def check_type(name: str, kind: dtype) -> None:
    """Integers only where PyTorch has kernels for them."""
    if kind.is_floating_point:
        return
    adaptive = name.startswith("adaptive")
    if adaptive and name.endswith("3d"):
        raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{kind.title}'")
    if kind.category == "integer" and not adaptive and name != "max_pool1d":
        return
    kernels = {"max_pool1d": "max_pool1d_impl", "avg_pool3d": "avg_pool3d_out_frame"}
    kernel = kernels.get(name, _shown(name).replace("1d", "2d"))
    raise NotImplementedError(f"\"{kernel}\" not implemented for '{kind.title}'")


def check_adaptive(name: str, dims: int, layout: Layout, size: Sequence[int]) -> None:
    """The input and the output size of adaptive pooling."""
    if not dims + 1 <= layout.ndim <= dims + 2:
        if dims == 1:
            raise RuntimeError(
                f"Expected 2 to 3 dimensions, but got {layout.ndim}-dimensional tensor for "
                f"argument #1 'self' (while checking arguments for {name})"
            )
        colon = ":" if "max" in name else ""
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got{colon} "
            f"{list(layout.shape)}"
        )
    if len(size) != dims:
        raise RuntimeError(_size_text(name, dims, len(size)))
    if any(n < 0 for n in size):
        raise RuntimeError(_negative_text(name, layout, size))
    for d in range(layout.ndim - dims, layout.ndim):
        if layout.shape[d] == 0:
            shape, at = list(layout.shape), d
            if name == "adaptive_avg_pool1d":
                shape, at = [*shape[:-1], 1, 0], d + 1
                name = "adaptive_avg_pool2d"
            raise RuntimeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but "
                f"input has sizes {shape} with dimension {at} being empty"
            )


def _size_text(name: str, dims: int, given: int) -> str:
    if dims == 1:
        return f"{name}() argument 'output_size' should contain one int (got {given})"
    if "max" in name:
        return f"{name}(): internal error: output_size.size() must be {dims}"
    return f"{name}: output_size must be {dims}"


def _negative_text(name: str, layout: Layout, size: Sequence[int]) -> str:
    both = (1, *size) if len(size) == 1 else tuple(size)
    if "max" in name:
        shape = [*layout.shape[: layout.ndim - len(size)], *both]
        return f"Trying to create tensor with negative dimension {min(both)}: {shape}"
    if len(both) == 3:
        return (
            f"{name}: elements of output_size must be greater than or equal to 0 but received "
            f"{{{both[0]}, {both[1]},{both[2]}}}"
        )
    return (
        "adaptive_avg_pool2d: elements of output_size must be greater than or equal to 0 but "
        f"received {{{both[0]}, {both[1]}}}"
    )


# -- three dimensions ------------------------------------------------------------------------------


def volume_numbers(name: str, argument: str, numbers: Any) -> tuple[int, ...]:
    """Three numbers; a single one stands for all."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    if len(numbers) in (1, 3):
        return numbers * (3 // len(numbers))
    how = "must either be" if name.startswith("max") else "must be"
    if argument == "stride":
        how += " omitted,"
    if argument == "dilation":
        how = "must be either"
    raise RuntimeError(f"{name}: {argument} {how} a single int, or a tuple of three ints")


def check_volume_window(
    name: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> None:
    """The numbers of a window over volumes."""
    if 0 in stride:
        raise RuntimeError("stride should not be zero")
    for numbers, what, names in (
        (kernel, "kernel size", ("kT", "kH", "kW")),
        (stride, "stride", ("dT", "dH", "dW")),
        (dilation, "dilation", ("dilationT", "dilationH", "dilationW")),
    ):
        if any(n <= 0 for n in numbers):
            given = " ".join(f"{axis}: {n}" for axis, n in zip(names, numbers))
            raise RuntimeError(f"{what} should be greater than zero, but got {given}")
    for p, k in zip(padding, kernel, strict=True):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > k // 2:
            raise RuntimeError(
                "pad should be at most half of effective kernel size, but got "
                f"pad={p}, kernel_size={k} and dilation=1"
            )


def check_volume(
    name: str, layout: Layout, kernel: Sequence[int], out: Sequence[int], padding: Sequence[int]
) -> None:
    """The input of a window over volumes, whose output is to have ``out`` elements."""
    if layout.ndim not in (4, 5):
        raise RuntimeError("non-empty 4D or 5D (batch mode) tensor expected for input")
    shape = list(layout.shape)
    for d in range(layout.ndim - 4, layout.ndim):
        if not shape[d]:
            function = name
            if name.startswith("max"):
                function = "max_pool3d_with_indices_out_cpu_template"
            raise RuntimeError(
                f"{function}(): Expected input's non-batch dimensions to have positive length, but "
                f"input has a shape of {shape} and non-batch dimension {d - layout.ndim + 4} has "
                "length zero!"
            )
    planes, *size = shape[-4:]
    too_small = any(k > n + 2 * p for k, n, p in zip(kernel, size, padding, strict=True))
    if name == "avg_pool3d" and too_small:
        t, h, w = size
        raise RuntimeError(
            f"input image (T: {t} H: {h} W: {w}) smaller than kernel size (kT: {kernel[0]} kH: "
            f"{kernel[1]} kW: {kernel[2]})"
        )
    if any(n <= 0 for n in out):
        raise RuntimeError(
            f"Given input size: ({'x'.join(map(str, (planes, *size)))}). Calculated output size: "
            f"({'x'.join(map(str, (planes, *out)))}). Output size is too small"
        )
