"""Attention: the kernels against the composite, and what surrounds them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd.gradcheck import gradcheck, gradgradcheck
from flambeau.compiler import jit
from flambeau.engine.tape import thread
from flambeau.nn.functional import scaled_dot_product_attention as attention
from flambeau.ops.attention import allowed


def composite(*arguments, **keywords):
    allowed.flash = False
    try:
        return attention(*arguments, **keywords)
    finally:
        allowed.flash = True


def leaves(*shapes, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]


MASKS = {
    "none": lambda queries, keys: None,
    "bool": lambda queries, keys: torch.rand(queries, keys) < 0.7,
    "padding": lambda queries, keys: torch.rand(2, 1, 1, keys) < 0.7,
    "additive": lambda queries, keys: torch.randn(2, 1, queries, keys, dtype=torch.float64),
    "lowest": lambda queries, keys: torch.full((queries, 1), torch.finfo(torch.float64).min),
}


# PyTorch's composite refuses a mask beside is_causal.
@pytest.mark.parametrize("mask, causal", [("none", True), *((mask, False) for mask in MASKS)])
@pytest.mark.parametrize("sizes", [(5, 7, 4, 6), (70, 150, 16, 16)])
def test_as_the_composite(sizes, causal, mask):
    queries, keys, dim, value_dim = sizes
    shapes = (2, 4, queries, dim), (2, 2, keys, dim), (2, 2, keys, value_dim)
    q, k, v = leaves(*shapes)
    hidden = MASKS[mask](queries, keys)
    found, expected = (
        way(q, k, v, hidden, is_causal=causal, enable_gqa=True) for way in (attention, composite)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if mask != "lowest":
        grad = torch.randn_like(found)
        gradients = (torch.autograd.grad(out, (q, k, v), grad) for out in (found, expected))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_second_derivatives():
    q, k, v = leaves((1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 4))

    def function(q, k, v):
        return attention(q, k, v, is_causal=True, enable_gqa=True)

    assert gradcheck(function, (q, k, v))
    assert gradgradcheck(function, (q, k, v))


def test_split_heads_are_not_copied():
    x = torch.randn(2, 40, 3 * 32)
    thread.tape.flush()
    q, k, v = (t.view(2, 40, 4, 8).transpose(1, 2) for t in x.split(32, 2))
    y = attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(2, 40, 32)
    names = [call.name for call in thread.tape.recorded()]
    assert names == ["_flash_attention"]
    dense = attention(q.contiguous(), k.contiguous(), v.contiguous(), is_causal=True)
    assert (dense.transpose(1, 2).reshape(2, 40, 32) == y).all()


def test_an_additive_mask_gets_a_gradient():
    q, k, v, mask = leaves((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), (5, 6))
    assert gradcheck(lambda mask: attention(q.detach(), k.detach(), v.detach(), mask), (mask,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_summed_in_float(dtype):
    kind = getattr(torch, dtype)
    q, k, v = (t.to(kind) for t in leaves(*[(1, 2, 50, 24)] * 3))
    found = attention(q, k, v, is_causal=True)
    wide = attention(q.double(), k.double(), v.double(), is_causal=True)
    assert found.dtype is kind
    torch.testing.assert_close(found.double(), wide, rtol=1e-2, atol=torch.finfo(kind).eps)


@pytest.mark.parametrize("sizes", [(32, 32), (40, 300), (33, 1000), (130, 77)])
@pytest.mark.parametrize("mask, causal", [("none", True), ("none", False), ("bool", False)])
def test_bfloat16_in_whole_tiles(sizes, mask, causal):
    """Columns that AMX takes, seen through split heads that are grouped."""
    queries, keys = sizes
    torch.manual_seed(0)
    wide = [
        torch.randn(2, n, heads, 64, dtype=torch.float64).bfloat16().transpose(1, 2)
        for n, heads in ((queries, 4), (keys, 2), (keys, 2))
    ]
    hidden = MASKS[mask](queries, keys)
    found = attention(*wide, hidden, is_causal=causal, enable_gqa=True)
    expected = attention(*(t.double() for t in wide), hidden, is_causal=causal, enable_gqa=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("queries", [1, 100])
def test_threads_change_no_bit(dtype, queries):
    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    shapes = (2, 4, queries, 64), (2, 4, 1100, 64), (2, 4, 1100, 64)
    q, k, v = (torch.randn(*shape).to(kind).requires_grad_() for shape in shapes)

    def run():
        out = attention(q, k, v, is_causal=queries > 1)
        gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
        return [t.detach().float().numpy().tobytes() for t in (out, *gradients)]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_dropout_draws_as_the_operator_does():
    q, k, v = leaves((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    torch.manual_seed(3)
    found = attention(q, k, v, dropout_p=0.4)
    torch.manual_seed(3)
    weights = torch.dropout(torch.softmax(q @ k.mT / math.sqrt(4), -1), 0.4, True)
    torch.testing.assert_close(found, weights @ v)


def test_many_lengths_share_one_kernel(monkeypatch):
    attention(*(torch.randn(1, 2, 9, 8) for _ in range(3))).numpy()
    monkeypatch.setattr(jit, "emit_image", lambda *_: pytest.fail("compiled again"))
    for length in range(1, 60, 7):
        q, k, v = (torch.randn(1, 2, n, 8) for n in (length, 60 - length, 60 - length))
        found = attention(q, k, v).numpy()
        assert np.isfinite(found).all()
