"""Padding at the borders."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.ops.creation import arange
from flambeau.ops.joining import cat, constant_pad
from flambeau.tensor import Tensor


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pads ``input``; ``pad`` names (left, right) of the last dimension first, then inwards.

    ``mode`` is ``"constant"`` (with ``value``, default 0), ``"reflect"``, ``"replicate"`` or
    ``"circular"``; negative amounts crop.
    """
    if len(pad) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(pad) > 2 * input.dim():
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension "
            f"but got padding length {len(pad)} and input of dimension {input.dim()}"
        )
    if mode == "constant":
        return constant_pad(input, pad, 0 if value is None else value)
    _check_mode(input, pad, mode, value)
    result = input
    for number in range(len(pad) // 2):
        dim = input.dim() - 1 - number
        left, right = pad[2 * number], pad[2 * number + 1]
        result = _pad_dim(result, dim, left, right, mode)
    return result.clone() if result is input else result


def _check_mode(input: Tensor, pad: Sequence[int], mode: str, value: float | None) -> None:
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    spatial = len(pad) // 2
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if not 1 <= spatial <= 3 or input.dim() not in (spatial + 1, spatial + 2):
        raise NotImplementedError(
            f"Padding size {len(pad)} is not supported for {input.dim()}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)"
        )
    if mode == "circular":
        _check_circular(input, pad)
    if mode == "reflect":
        _check_reflect(input, pad)


def _check_reflect(input: Tensor, pad: Sequence[int]) -> None:
    for number in range(len(pad) // 2):
        dim = input.dim() - 1 - number
        left, right = pad[2 * number], pad[2 * number + 1]
        if left >= input.size(dim) or right >= input.size(dim):
            raise RuntimeError(
                "Argument #4: Padding size should be less than the corresponding input "
                f"dimension, but got: padding ({left}, {right}) at dimension {dim} of input "
                f"{list(input.shape)}"
            )


def _check_circular(input: Tensor, pad: Sequence[int]) -> None:
    for number in range(len(pad) // 2):
        size = input.size(input.dim() - 1 - number)
        if pad[2 * number] > size or pad[2 * number + 1] > size:
            raise RuntimeError("Padding value causes wrapping around more than once.")


def _pad_dim(input: Tensor, dim: int, left: int, right: int, mode: str) -> Tensor:
    """Pads one dimension: crops where negative, then joins the borders in one copy."""
    size = input.size(dim)
    if mode == "replicate" and min(left, right) < 0:
        places = (arange(size + left + right) - left).clamp(0, size - 1)
        return input.index_select(dim, places)
    if left < 0 or right < 0:
        start, stop = max(-left, 0), size - max(-right, 0)
        input = input.narrow(dim, start, stop - start)
        size, left, right = stop - start, max(left, 0), max(right, 0)
    if left == 0 and right == 0:
        return input
    pieces = [input]
    if left:
        pieces.insert(0, _border(input, dim, left, mode, before=True))
    if right:
        pieces.append(_border(input, dim, right, mode, before=False))
    return cat(pieces, dim)


def _border(input: Tensor, dim: int, width: int, mode: str, before: bool) -> Tensor:
    size = input.size(dim)
    if mode == "replicate":
        shape = [-1] * input.dim()
        shape[dim] = width
        return input.narrow(dim, 0 if before else size - 1, 1).expand(shape)
    if mode == "circular":
        return input.narrow(dim, size - width if before else 0, width)
    return input.narrow(dim, 1 if before else size - 1 - width, width).flip(dim)
