"""Where the nodes of a network are drawn: a layered layout (Sugiyama et al. 1981), as pure functions of its edges.

Nodes are numbered in topological order. A node's row is the longest way to it from a source; an edge across several
rows runs through points of its own in each. Rows are ordered by barycenters of their neighbours, those sweeps being
kept that leave the fewest crossings; then every point comes as near to the mean of its neighbours as its row allows.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Edge = tuple[int, int]
SWEEPS = 6
"""Times that rows are ordered downwards and upwards, and as often aligned."""


@dataclass(frozen=True)
class Layout:
    """Where everything lies; x counts in the unit of the widths given, from the left edge of the drawing.

    Attributes:
        places: centre x and row of every node.
        routes: of every edge, the points (x, row) from one node to the other.
        width: of the drawing; rows: how many there are.
    """

    places: tuple[tuple[float, int], ...]
    routes: tuple[tuple[tuple[float, int], ...], ...]
    width: float
    rows: int


def layered(count: int, edges: Sequence[Edge], node_width: float = 1.0, line_width: float = 0.25) -> Layout:
    """The layout of `count` nodes.

    Args:
        edges: from a node to a later one.
        node_width: of a node, with the gap beside it; line_width: the same of an edge that passes a row.

    Raises:
        ValueError: an edge that does not lead to a later node.

    Example:
        >>> layered(3, [(0, 1), (1, 2), (0, 2)]).rows
        3
        >>> [row for _, row in layered(3, [(0, 1), (1, 2), (0, 2)]).places]
        [0, 1, 2]
    """
    row = rows(count, edges)
    chains, rank = _chains(edges, row)
    lines = [(a, b) for chain in chains for a, b in pairwise(chain)]
    order = ordered(rank, lines)
    wide = [node_width if k < count else line_width for k in range(len(rank))]
    x = aligned(order, lines, wide)
    left = min((x[k] - wide[k] / 2 for k in range(len(rank))), default=0.0)
    right = max((x[k] + wide[k] / 2 for k in range(len(rank))), default=0.0)
    places = tuple((x[k] - left, rank[k]) for k in range(len(rank)))
    routes = tuple(tuple(places[k] for k in chain) for chain in chains)
    return Layout(places[:count], routes, right - left, max(row, default=-1) + 1)


def rows(count: int, edges: Sequence[Edge]) -> list[int]:
    """The row of every node: the length of the longest way to it.

    Example:
        >>> rows(4, [(0, 1), (1, 3), (0, 3), (2, 3)])
        [0, 1, 0, 2]
    """
    found = [0] * count
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        if not 0 <= a < b < count:
            raise ValueError(f"edge {a} to {b}: nodes are numbered in topological order, from 0 to {count - 1}")
        found[b] = max(found[b], found[a] + 1)
    return found


def crossings(order: Sequence[Sequence[int]], lines: Sequence[Edge]) -> int:
    """How many pairs of lines between neighbouring rows cross.

    Example:
        >>> crossings([[0, 1], [2, 3]], [(0, 3), (1, 2)])
        1
    """
    place = {k: at for line in order for at, k in enumerate(line)}
    row = {k: r for r, line in enumerate(order) for k in line}
    between: dict[int, list[tuple[int, int]]] = {}
    for a, b in lines:
        between.setdefault(row[a], []).append((place[a], place[b]))
    return sum(_inversions([end for _, end in sorted(pairs)]) for pairs in between.values())


def ordered(rank: Sequence[int], lines: Sequence[Edge]) -> list[list[int]]:
    """The points of every row from left to right.

    Example:
        >>> ordered([0, 0, 1, 1], [(0, 3), (1, 2)])
        [[0, 1], [3, 2]]
    """
    order: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for k, r in enumerate(rank):
        order[r].append(k)
    above, below = _neighbours(len(rank), lines)
    best, least = order, crossings(order, lines)
    for sweep in range(2 * SWEEPS):
        if not least:
            break
        down = sweep % 2 == 0
        order = [list(line) for line in order]
        for r in range(len(order)) if down else range(len(order) - 1, -1, -1):
            beside = order[r - 1] if down and r else order[r + 1] if not down and r + 1 < len(order) else []
            place = {k: float(at) for at, k in enumerate(beside)}
            order[r] = _by_barycenter(order[r], above if down else below, place)
        found = crossings(order, lines)
        if found < least:
            best, least = order, found
    return best


def aligned(order: Sequence[Sequence[int]], lines: Sequence[Edge], wide: Sequence[float]) -> list[float]:
    """Centre x of every point: near to the mean of its neighbours, without overlap, the order of rows unchanged.

    Example:
        >>> aligned([[0], [1, 2], [3]], [(0, 1), (0, 2), (1, 3), (2, 3)], [1.0] * 4)
        [0.0, -0.5, 0.5, 0.0]
    """
    above, below = _neighbours(len(wide), lines)
    x = [0.0] * len(wide)
    for line in order:
        for before, k in pairwise(line):
            x[k] = x[before] + (wide[before] + wide[k]) / 2
    for sweep in range(2 * SWEEPS):
        sides = above if sweep % 2 == 0 else below
        for line in order if sweep % 2 == 0 else reversed(order):
            wanted = [sum(x[n] for n in sides[k]) / len(sides[k]) if sides[k] else x[k] for k in line]
            for k, at in zip(line, apart(wanted, [wide[k] for k in line]), strict=True):
                x[k] = at
    return x


def apart(wanted: Sequence[float], wide: Sequence[float]) -> list[float]:
    """Centres nearest to those wanted (least squares) in the same order without overlap: isotonic regression.

    Example:
        >>> apart([0.0, 0.0, 5.0], [1.0, 1.0, 1.0])
        [-0.5, 0.5, 5.0]
    """
    shift, gap = [0.0], 0.0
    for a, b in pairwise(wide):
        gap += (a + b) / 2
        shift.append(gap)
    blocks: list[tuple[float, int]] = []  # mean, how many
    for at, moved in zip(wanted, shift, strict=False):
        mean, many = at - moved, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, many = (mean * many + other * more) / (many + more), many + more
        blocks.append((mean, many))
    flat = [mean for mean, many in blocks for _ in range(many)]
    return [at + moved for at, moved in zip(flat, shift, strict=False)]


def _chains(edges: Sequence[Edge], row: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Of every edge its points, and the row of every point; new points have numbers behind those of the nodes."""
    rank, chains = list(row), list[list[int]]()
    for a, b in edges:
        chain = [a]
        for r in range(row[a] + 1, row[b]):
            chain.append(len(rank))
            rank.append(r)
        chains.append([*chain, b])
    return chains, rank


def _neighbours(count: int, lines: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    above, below = [[list[int]() for _ in range(count)] for _ in range(2)]
    for a, b in lines:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _by_barycenter(line: Sequence[int], sides: Sequence[Sequence[int]], place: dict[int, float]) -> list[int]:
    """A row in the order of its points' mean neighbours; points without any keep their places."""
    at = {k: float(number) for number, k in enumerate(line)}
    for k in line:
        known = [place[n] for n in sides[k] if n in place]
        if known:
            at[k] = sum(known) / len(known)
    return sorted(line, key=lambda k: at[k])


def _inversions(values: Sequence[int]) -> int:
    """Pairs out of order, by insertion into a sorted list."""
    seen, count = list[int](), 0
    for value in values:
        count += len(seen) - bisect_right(seen, value)
        insort(seen, value)
    return count
