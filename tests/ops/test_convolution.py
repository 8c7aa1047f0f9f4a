"""Convolutions differentiated by one operand alone, and bits that threads do not change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import flambeau as torch
from flambeau.nn import functional as F


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradient_of_one_operand(dims: int, wanted: tuple[bool, bool]) -> None:
    generator = np.random.default_rng(0)
    tensors = [
        torch.tensor(generator.standard_normal(shape)).requires_grad_(needed)
        for shape, needed in zip(((2, 3, *(5,) * dims), (4, 3, *(2,) * dims)), wanted, strict=True)
    ]
    result = getattr(F, f"conv{dims}d")(*tensors)
    back = getattr(F, f"conv_transpose{dims}d")(result, tensors[1])
    (back * back).sum().backward()
    for tensor, needed in zip(tensors, wanted, strict=True):
        assert (tensor.grad is not None) is needed


GEOMETRIES = [
    (4, 64, 64, 28, 3, {"padding": 1}),
    (2, 264, 260, 7, 3, {"padding": 1}),
    (6, 96, 32, 14, 1, {}),
    (5, 24, 24, 15, 3, {"padding": 1, "groups": 24}),
    (3, 16, 32, 9, 3, {"padding": 1, "stride": 2}),
]


def bits(threads: int) -> str:
    generator = np.random.default_rng(1)
    digest = hashlib.sha256()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for batch, channels, filters, size, kernel, options in GEOMETRIES:
            taps = (filters, channels // options.get("groups", 1), kernel, kernel)
            shapes = ((batch, channels, size, size), taps)
            operands = [
                torch.tensor(generator.standard_normal(shape, dtype=np.float32)).requires_grad_()
                for shape in shapes
            ]
            result = F.conv2d(*operands, **options)
            (result * result).sum().backward()
            for tensor in (result, *(operand.grad for operand in operands)):
                digest.update(tensor.detach().numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    return digest.hexdigest()


def test_threads_do_not_change_a_bit() -> None:
    assert bits(1) == bits(2) == bits(3)
