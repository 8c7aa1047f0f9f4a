"""Layouts: which views of one storage share memory, and the bounded table of all layouts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.core import dtype as types
from flambeau.core import layout as module
from flambeau.core.layout import Layout, certainly_disjoint


def layout(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Layout:
    return Layout.of(shape, types.float32, strides=strides, offset=offset)


def addresses(view: Layout) -> set[int]:
    indices = itertools.product(*map(range, view.shape))
    return {view.offset + sum(map(int.__mul__, i, view.strides)) for i in indices}


VIEWS = st.integers(1, 3).flatmap(
    lambda ndim: st.builds(
        layout,
        st.tuples(*[st.integers(0, 4)] * ndim),
        st.tuples(*[st.integers(0, 12)] * ndim),
        st.integers(0, 30),
    )
)


@given(VIEWS, VIEWS)
def test_disjoint_views_share_no_address(a, b):
    if certainly_disjoint(a, b):
        assert not addresses(a) & addresses(b)


def test_neighbouring_columns_are_disjoint():
    parts = [layout((6, 4), (16, 1), offset) for offset in (0, 4, 8, 12)]
    assert all(certainly_disjoint(a, b) for a, b in itertools.combinations(parts, 2))
    assert not certainly_disjoint(parts[0], layout((6, 5), (16, 1), 3))


def test_a_row_is_disjoint_from_other_rows_and_columns():
    rows, row = layout((5, 8), (8, 1), 8), layout((8,), (1,), 0)
    assert certainly_disjoint(rows, row)
    assert certainly_disjoint(layout((6,), (8,), 3), layout((6,), (8,), 4))
    assert not certainly_disjoint(layout((6,), (8,), 3), row)


def test_even_and_odd_elements_are_disjoint():
    assert certainly_disjoint(layout((8,), (2,), 0), layout((8,), (2,), 1))


@pytest.fixture
def small_table(monkeypatch):
    monkeypatch.setattr(module, "_interned", {})
    monkeypatch.setattr(module, "MAX_INTERNED", 50)
    monkeypatch.setattr(module, "_limit", 50)


def test_equal_layouts_are_one_object():
    first = Layout.of((2, 3), types.float32)
    assert Layout.of([2, 3], types.float32, strides=(3, 1)) is first
    assert Layout.of((2, 3), types.float32, strides=(1, 2)) is not first


def test_layouts_that_nobody_uses_go(small_table):
    for n in range(1, 400):
        Layout.of((n,), types.float32)
        assert len(module._interned) <= 50


def test_layouts_in_use_stay_what_they_are(small_table):
    kept = [Layout.of((7, n), types.float32) for n in range(1, 30)]
    for n in range(1, 400):
        # Derived layouts refer to each other, which is no reason to keep them.
        other = Layout.of((n,), types.float32)
        other.views["itself"] = kept[0].views[n] = other
    assert all(Layout.of(k.shape, types.float32) is k for k in kept)
    assert len(module._interned) <= 2 * 60


def test_a_table_full_of_layouts_in_use_grows(small_table):
    kept = [Layout.of((n, 3), types.float32) for n in range(1, 200)]
    assert all(Layout.of(k.shape, types.float32) is k for k in kept)
