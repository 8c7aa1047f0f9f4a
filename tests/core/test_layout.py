"""Layouts: which views of one storage share memory."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flambeau.core import dtype as types
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
