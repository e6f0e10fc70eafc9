"""The layered layout: worked by hand, and what must hold of any graph."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equint.pages.layout import aligned, apart, crossings, layered, ordered, rows


def test_a_diamond_with_a_shortcut() -> None:
    """0 feeds 1 and 2, both feed 3, and 0 feeds 3 directly: the shortcut has a point of its own beside 1 and 2."""
    found = layered(4, [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)], node_width=10.0, line_width=2.0)
    assert [row for _, row in found.places] == [0, 1, 1, 2]
    assert found.rows == 3
    assert found.width == 22.0
    assert [x for x, _ in found.places[1:3]] == [5.0, 15.0]
    shortcut = found.routes[4]
    assert [row for _, row in shortcut] == [0, 1, 2]
    assert shortcut[1][0] == 21.0
    assert (shortcut[0], shortcut[-1]) == (found.places[0], found.places[3])


def test_the_longest_way_counts() -> None:
    assert rows(5, [(0, 1), (1, 2), (2, 4), (0, 4), (3, 4)]) == [0, 1, 2, 0, 3]
    with pytest.raises(ValueError, match="topological"):
        rows(2, [(1, 0)])


def test_crossings_by_hand() -> None:
    """K(2, 2) crosses once, K(3, 3) nine times."""
    assert crossings([[0, 1], [2, 3]], [(a, b) for a in (0, 1) for b in (2, 3)]) == 1
    assert crossings([[0, 1, 2], [3, 4, 5]], [(a, b) for a in (0, 1, 2) for b in (3, 4, 5)]) == 9
    assert crossings([[0, 1], [2, 3]], [(0, 2), (1, 3)]) == 0


def test_two_ladders_are_untangled() -> None:
    lines = [(0, 3), (1, 2), (2, 5), (3, 4)]
    found = ordered([0, 0, 1, 1, 2, 2], lines)
    assert crossings(found, lines) == 0


def test_blocks_are_moved_together() -> None:
    """Three that want the same place stand around it; the mean of each block is kept."""
    assert apart([4.0, 4.0, 4.0], [2.0, 2.0, 2.0]) == [2.0, 4.0, 6.0]
    assert apart([0.0, 9.0], [1.0, 3.0]) == [0.0, 9.0]
    assert apart([], []) == []


def test_a_chain_is_straight() -> None:
    assert {x for x, _ in layered(5, [(k, k + 1) for k in range(4)]).places} == {0.5}
    assert layered(0, []).rows == 0


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 14))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return count, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=25)) if pairs else []


@given(graphs())
def test_nothing_overlaps_and_edges_lead_down(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    found = layered(count, edges, 3.0, 1.0)
    for row in range(found.rows):
        xs = sorted(x for x, r in found.places if r == row)
        assert all(b - a >= 3.0 - 1e-9 for a, b in pairwise(xs))
    for (a, b), route in zip(edges, found.routes, strict=True):
        assert (route[0], route[-1]) == (found.places[a], found.places[b])
        assert [r for _, r in route] == list(range(found.places[a][1], found.places[b][1] + 1))
    assert all(1.5 - 1e-9 <= x <= found.width - 1.5 + 1e-9 for x, _ in found.places)


def test_order_survives_alignment() -> None:
    order = [[0, 1, 2], [3, 4]]
    x = aligned(order, [(0, 4), (2, 3), (1, 3)], [2.0, 1.0, 2.0, 3.0, 1.0])
    assert x[0] < x[1] < x[2]
    assert x[4] - x[3] >= 2.0
