"""Layouts are interned, and the table of them is bounded."""

from __future__ import annotations

import pytest

from flambeau.core import dtype as types
from flambeau.core import layout
from flambeau.core.layout import Layout


@pytest.fixture
def small_table(monkeypatch):
    monkeypatch.setattr(layout, "_interned", {})
    monkeypatch.setattr(layout, "MAX_INTERNED", 50)
    monkeypatch.setattr(layout, "_limit", 50)


def test_equal_layouts_are_one_object():
    first = Layout.of((2, 3), types.float32)
    assert Layout.of([2, 3], types.float32, strides=(3, 1)) is first
    assert Layout.of((2, 3), types.float32, strides=(1, 2)) is not first


def test_layouts_that_nobody_uses_go(small_table):
    for n in range(1, 400):
        Layout.of((n,), types.float32)
        assert len(layout._interned) <= 50


def test_layouts_in_use_stay_what_they_are(small_table):
    kept = [Layout.of((7, n), types.float32) for n in range(1, 30)]
    for n in range(1, 400):
        # Derived layouts refer to each other, which is no reason to keep them.
        other = Layout.of((n,), types.float32)
        other.views["itself"] = kept[0].views[n] = other
    assert all(Layout.of(k.shape, types.float32) is k for k in kept)
    assert len(layout._interned) <= 2 * 60


def test_a_table_full_of_layouts_in_use_grows(small_table):
    kept = [Layout.of((n, 3), types.float32) for n in range(1, 200)]
    assert all(Layout.of(k.shape, types.float32) is k for k in kept)
