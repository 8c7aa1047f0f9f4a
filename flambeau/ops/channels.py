"""Channels exchanged with pixels, and among groups."""

from __future__ import annotations

from flambeau.ops.declare import composite
from flambeau.ops.view import contiguous_copy, permute, reshape
from flambeau.tensor import Tensor


def _check_pixels(name: str, self: Tensor, factor: int, what: str) -> None:
    if self.ndim < 3:
        raise RuntimeError(
            f"{name} expects input to have at least 3 dimensions, but got input with {self.ndim} "
            "dimension(s)"
        )
    if factor <= 0:
        raise RuntimeError(f"{name} expects a positive {what}, but got {factor}")


@composite("pixel_shuffle(Tensor self, int upscale_factor) -> Tensor", variants="function")
def pixel_shuffle(self, upscale_factor):
    """Returns ``(…, C r², H, W)`` as ``(…, C, H r, W r)``."""
    r = upscale_factor
    _check_pixels("pixel_shuffle", self, r, "upscale_factor")
    *lead, channels, height, width = self.shape
    if channels % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}"
        )
    split = reshape(self, (*lead, channels // (r * r), r, r, height, width))
    n = len(lead)
    moved = permute(split, (*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return reshape(contiguous_copy(moved), (*lead, channels // (r * r), height * r, width * r))


@composite("pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor", variants="function")
def pixel_unshuffle(self, downscale_factor):
    """Returns ``(…, C, H r, W r)`` as ``(…, C r², H, W)``."""
    r = downscale_factor
    _check_pixels("pixel_unshuffle", self, r, "downscale_factor")
    *lead, channels, height, width = self.shape
    for name, size, dim in (("height", height, -2), ("width", width, -1)):
        if size % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but "
                f"input.size({dim})={size} is not divisible by {r}"
            )
    split = reshape(self, (*lead, channels, height // r, r, width // r, r))
    n = len(lead)
    moved = permute(split, (*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return reshape(contiguous_copy(moved), (*lead, channels * r * r, height // r, width // r))


@composite("channel_shuffle(Tensor self, int groups) -> Tensor", variants="function")
def channel_shuffle(self, groups):
    """Returns the channels (dimension 1) dealt out among groups."""
    if self.ndim < 3:
        raise RuntimeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes "
            f"{list(self.shape)}"
        )
    if groups <= 0:
        raise RuntimeError(
            f"Number of groups to divide channels in must be positive. Value of groups:{groups}"
        )
    batch, channels, *rest = self.shape
    if channels % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {channels} channels and {groups} "
            "groups."
        )
    split = reshape(self, (batch, groups, channels // groups, -1))
    return reshape(permute(split, (0, 2, 1, 3)), (batch, channels, *rest))


@pixel_shuffle.samples
def pixel_shuffle_samples(make):
    yield make(2, 8, 2, 3), 2
    yield make(9, 2, 2), 3
    yield make(2, 7, 2, 3), 2


@pixel_unshuffle.samples
def pixel_unshuffle_samples(make):
    yield make(2, 2, 4, 6), 2
    yield make(1, 3, 3), 3
    yield make(1, 3, 3), 2


@channel_shuffle.samples
def channel_shuffle_samples(make):
    yield make(2, 6, 2, 2), 3
    yield make(1, 4, 3), 2
