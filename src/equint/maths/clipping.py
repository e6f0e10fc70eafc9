"""The range at which weights are best clipped: what is cut off against what a narrower grid rounds less."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array, QSpec
from .affine import choose_qparams, fake_quantize
from .simplex import Simplex, search

NARROWEST = 0.3
ROUNDS, POINTS = 4, 7
SIMPLEX = Simplex()


def clip_error(rows: Array, worth: Array, lo: Array, hi: Array, spec: QSpec) -> Array:
    """Σ worth·(w − w*)², w* clipped to [lo, hi] and quantized there: clipping and quantization error, `(U,)`.

    Oh et al. (2020), weight clipping. Inside the range the error is quantization's, outside it is clipping's.

    Example:
        >>> rows, ends = np.array([[0.5, 0.26, 4.0]], np.float32), np.array([1.0])
        >>> clip_error(rows, np.ones((1, 3)), -ends, ends, QSpec(8)).round(3).tolist()
        [9.0]
    """
    grid = choose_qparams(lo, hi, spec, 0)
    return np.asarray(np.einsum("un,un,un->u", worth, *(2 * [fake_quantize(rows, grid) - rows]), dtype=np.float64))


def nelder_mead(rows: Array, worth: Array, spec: QSpec, simplex: Simplex = SIMPLEX) -> tuple[Array, Array]:
    """(lo, hi) from a simplex search that starts at the extremes of each row (Oh et al. 2020): `(U,)` each."""
    found = np.zeros((2, len(rows)))
    for k in range(len(rows)):
        row, own = rows[[k]], worth[[k]]

        def cost(ends: Array, row: Array = row, own: Array = own) -> float:
            return float(clip_error(row, own, ends[:1], ends[1:], spec)[0]) if ends[0] < ends[1] else np.inf

        start = np.array([min(float(row.min()), 0.0), max(float(row.max()), 0.0)])
        found[:, k] = search(cost, start, simplex)[0] if start[0] < start[1] else start
    return found[0], found[1]


def percentile(rows: Array, percent: float) -> tuple[Array, Array]:
    """(lo, hi) beyond which `percent` per cent of each row's weights lie on either side: `(U,)` each.

    Linear between sorted weights, and never beyond zero. The paper compares its search with a fixed percentile, and
    does not say which.

    Example:
        >>> lo, hi = percentile(np.arange(-50, 51, dtype=np.float32)[None], 2.0)
        >>> float(lo[0]), float(hi[0])
        (-48.0, 48.0)
    """
    lo, hi = np.percentile(rows.astype(np.float64), [percent, 100 - percent], axis=1)
    return np.minimum(lo, 0.0), np.maximum(hi, 0.0)


def grid_search(rows: Array, worth: Array, spec: QSpec) -> tuple[Array, Array]:
    """(lo, hi) of least `clip_error` on grids of both ends, each round finer around the best so far: `(U,)` each.

    All rows at once. The extremes are among the candidates, so clipping never costs more than not clipping.

    Example:
        >>> rows = np.append(np.linspace(-1, 1, 10_000), 1.5).astype(np.float32)[None]
        >>> lo, hi = grid_search(rows, np.ones(rows.shape), QSpec(4, symmetric=False))
        >>> bool(hi[0] < 1.2)
        True
    """
    ends = np.minimum(rows.min(1), 0.0).astype(np.float64), np.maximum(rows.max(1), 0.0).astype(np.float64)
    best, share = clip_error(rows, worth, *ends, spec), np.ones((2, len(rows)))
    width = 1 - NARROWEST
    for _ in range(ROUNDS):
        centre = share.copy()
        offsets = np.linspace(-1, 1, 2 * POINTS - 1) * width
        for both in ([(o, o) for o in offsets], [(o, 0.0) for o in offsets], [(0.0, o) for o in offsets]):
            for pair in both:
                tried = np.clip(centre + np.array(pair)[:, None], NARROWEST / 2, 1.0)
                cost = clip_error(rows, worth, tried[0] * ends[0], tried[1] * ends[1], spec)
                better = cost < best
                best, share = np.where(better, cost, best), np.where(better, tried, share)
            centre = share.copy()
        width /= POINTS - 1
    return share[0] * ends[0], share[1] * ends[1]


def best_of_both(rows: Array, worth: Array, spec: QSpec, simplex: Simplex = SIMPLEX) -> tuple[Array, Array]:
    """`grid_search` or `nelder_mead`, whichever costs less, row by row."""
    grid, far = grid_search(rows, worth, spec), nelder_mead(rows, worth, spec, simplex)
    first, second = (clip_error(rows, worth, *ends, spec) for ends in (grid, far))
    return np.where(first <= second, grid[0], far[0]), np.where(first <= second, grid[1], far[1])
