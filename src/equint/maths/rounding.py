"""Rounding that knows its inputs: each weight's error makes up for those of the weights beside it."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

DAMPING = 0.01
"""Share of the mean second moment that is added to all, at least."""
MOST = 0.99
"""Shrinkage beyond which nothing is left of what was measured."""
SWEEPS = 2
"""Coordinate descents behind successive rounding: more change next to nothing."""
RIDGES = (0.01, 0.1, 1.0, np.inf)
"""How firmly weights may be held where they are fitted to other inputs; the last leaves them as they are."""
BLOCK = 32
"""Columns that are rounded before what they do to all others is worked out."""


def second_order(
    weights: Array, moments: Array, lo: int, hi: int, damping: Array | float = DAMPING, sweeps: int = SWEEPS
) -> Array:
    """Integers q for weights w whose output error Σ (q − w)·H·(q − w)ᵀ is small, row by row.

    H = RRᵀ with R upper triangular makes it ‖(q − w)R‖², whose k-th term holds errors up to the k-th alone:

        q_k = round(w_k − Σ_{j<k} (q_j − w_j)·R_jk/R_kk)

    makes each term least in turn: what Optimal Brain Surgeon (Hassibi & Stork 1993) gives where weights are rounded one
    by one, the others free to make up for it (Frantar et al. 2023, GPTQ, eq. 2 and 3), without its inverse. Coordinate
    descent follows, from rounding to nearest where that is better: q_k moves by round(−g_k/H_kk), g = (q − w)H.

    Args:
        weights: `(…, O, n)` in steps of their grid, zero point included.
        moments: `(…, n, n)` second moments of what they are multiplied with, about the mean where a bias takes that.
        lo, hi: ends of the grid.
        damping: added to H's diagonal, times its mean; one, or `(…,)`.

    Returns:
        Whole numbers in [lo, hi], `(…, O, n)`.

    Example:
        >>> alike = np.array([[1.0, 0.99], [0.99, 1.0]])
        >>> second_order(np.array([[2.4, 3.4]]), alike, -8, 7).tolist()  # 2 + 3 would be 0.8 too little
        [[2.0, 4.0]]
    """
    if moments.shape[-1] == 1:
        return np.asarray(np.clip(np.rint(weights), lo, hi))
    added = np.asarray(damping) * np.einsum("...kk->...k", moments).mean(-1)
    h = _raised(moments, np.where(added > 0, added, 1.0))
    w = _columns(weights)
    found, nearest = _successive(w, h, lo, hi), np.clip(np.rint(w), lo, hi)
    slopes = [h @ (q - w) for q in (found, nearest)]
    errors = [np.sum(slope * (q - w), -2, keepdims=True) for slope, q in zip(slopes, (found, nearest), strict=True)]
    better = errors[0] < errors[1]
    q, slope = np.where(better, found, nearest), np.where(better, *slopes)
    return _columns(_descended(q, slope, h, lo, hi, sweeps))


def uncertainty(moments: Array, rows: int) -> Array:
    """Damping that makes up for what a few rows say wrongly of how inputs go together: `(…,)`, DAMPING at least.

    The shrinkage ρ towards equal, uncorrelated inputs of Chen et al. 2010 ("OAS", eq. 23), as ρ/(1 − ρ):
    ρ = ((1 − 2/n)·tr H² + tr² H)/((N + 1 − 2/n)·(tr H² − tr² H/n)), 1 at most.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rows = [rng.normal(size=(count, 8)) @ np.diag([4, 3, 2, 1, 1, 1, 1, 1]) for count in (4, 4000)]
        >>> [float(uncertainty(x.T @ x / len(x), len(x)).round(2)) for x in rows]
        [5.33, 0.01]
    """
    n, trace = moments.shape[-1], np.einsum("...kk->...", moments)
    square = np.einsum("...jk,...jk->...", moments, moments)
    apart = (rows + 1 - 2 / n) * (square - np.square(trace) / n)
    share = ((1 - 2 / n) * square + np.square(trace)) / np.maximum(apart, 1e-300)
    share = np.clip(share, 0.0, MOST)
    return np.asarray(np.maximum(share / (1 - share), DAMPING))


def output_error(error: Array, moments: Array) -> Array:
    """e·H·eᵀ of every row: `(…, O)` of `(…, O, n)` and `(…, n, n)`."""
    return np.asarray(np.einsum("...on,...on->...o", error @ moments, error))


def regressed(weights: Array, covariance: Array, made: Array, ridge: float) -> Array:
    """Weights that make of inputs x̂ what `weights` make of x, as far as that goes: w·(C + λI)(H + λI)⁻¹.

    Ridge regression towards the weights themselves: where inputs are as they were, and where little is known of them,
    nothing changes.

    Args:
        weights: `(…, O, n)`; made: w·C, as large, C = Cov[x, x̂].
        covariance: H = Cov[x̂, x̂], `(…, n, n)`.
        ridge: λ as a share of the mean of H's diagonal; infinite leaves the weights as they are.

    Example:
        >>> w = np.array([[1.0, 2.0]])
        >>> regressed(w, np.diag([1.0, 4.0]), w @ np.diag([2.0, 4.0]), 0.0).tolist()
        [[2.0, 2.0]]
    """
    if np.isinf(ridge):
        return weights
    mean = np.einsum("...kk->...", covariance) / covariance.shape[-1]
    added = np.where(mean > 0, ridge * mean, 1.0)
    solved = _solved(_raised(covariance, added), np.swapaxes(made + added[..., None, None] * weights, -1, -2))
    return np.asarray(np.swapaxes(solved, -1, -2))


def as_strong(fitted: Array, weights: Array, made: Array) -> Array:
    """`fitted` v, row by row times what gives v·x̂ the slope over w·x that w·x̂ has.

    A regression on noisy inputs pulls weights towards zero as far as the noise goes (attenuation): right where as much
    comes again, wrong where the fit was to other inputs.

    Args:
        fitted, weights: `(…, O, n)`; made: w·C, as large, C = E[x·x̂ᵀ].

    Example:
        >>> w = np.array([[1.0, 2.0]])
        >>> as_strong(np.array([[0.5, 1.0]]), w, w @ np.eye(2)).tolist()
        [[1.0, 2.0]]
    """
    whole, left = (np.sum(made * rows, -1, keepdims=True) for rows in (weights, fitted))
    return np.asarray(fitted * np.where((left > 0) & (whole > 0), whole / np.where(left > 0, left, 1.0), 1.0))


def _raised(matrices: Array, added: Array) -> Array:
    """A + λI of A `(…, n, n)` and λ `(…,)`."""
    raised = matrices.copy()
    np.einsum("...kk->...k", raised)[...] += added[..., None]  # a view
    return raised


def _solved(matrix: Array, values: Array) -> Array:
    """A⁻¹b, A `(…, n, n)` positive definite, b `(…, n, O)`; A is lost."""
    if matrix.shape[-1] < BLOCK:
        return np.asarray(np.linalg.solve(matrix, values))
    from scipy.linalg import cho_factor, cho_solve

    found = np.empty_like(values)
    for at in np.ndindex(matrix.shape[:-2]):
        factor = cho_factor(matrix[at].T, overwrite_a=True, check_finite=False)  # transposed as LAPACK wants it
        found[at] = cho_solve(factor, values[at], check_finite=False)
    return found


def fit_error(fitted: Array, covariance: Array, made: Array) -> float:
    """E‖v·x̂ − w·x‖² of weights v for x̂ in place of w for x, but for E‖w·x‖², which all v share; over all rows.

    Args:
        fitted: v, `(…, O, n)`; the rest as for `regressed`.
    """
    return float(np.sum(fitted * (fitted @ covariance)) - 2 * np.sum(fitted * made))


def _columns(weights: Array) -> Array:
    """`(…, O, n)` as `(…, n, O)`, or the other way round: what is done weight by weight then lies side by side."""
    return np.ascontiguousarray(np.swapaxes(weights, -1, -2), np.float64)


def _successive(w: Array, h: Array, lo: int, hi: int) -> Array:
    n = h.shape[-1]
    r = np.linalg.cholesky(h[..., ::-1, ::-1])[..., ::-1, ::-1]  # of the reversed matrix: upper triangular
    r /= np.einsum("...kk->...k", r)[..., None, :].copy()
    q, error = np.empty_like(w), np.zeros_like(w)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        wanted = w[..., start:stop, :] - np.swapaxes(r[..., :start, start:stop], -1, -2) @ error[..., :start, :]
        for k in range(start, stop):
            q[..., k, :] = np.minimum(np.maximum(np.rint(wanted[..., k - start, :]), lo), hi)
            error[..., k, :] = q[..., k, :] - w[..., k, :]
            wanted[..., k - start + 1 :, :] -= r[..., k, k + 1 : stop, None] * error[..., k, None, :]
    return q


def _descended(q: Array, slope: Array, h: Array, lo: int, hi: int, sweeps: int) -> Array:
    n, diagonal = h.shape[-1], np.einsum("...kk->...k", h)
    outer = tuple(range(q.ndim - 2))
    for left in reversed(range(sweeps)):
        moved = False
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            move, near = np.zeros_like(q[..., start:stop, :]), slope[..., start:stop, :].copy()
            for k in range(start, stop):
                at = q[..., k, :]
                step = np.rint(-near[..., k - start, :] / diagonal[..., k, None])
                step = np.minimum(np.maximum(at + step, lo), hi) - at
                rows = np.flatnonzero(step.any(outer))
                if rows.size:
                    move[..., k - start, :] = step
                    change = h[..., k, k + 1 : stop, None] * step[..., None, rows]
                    near[..., k - start + 1 :, rows] += change
            rows = np.flatnonzero(move.any((*outer, -2)))
            q[..., start:stop, :] += move
            since = 0 if left else stop  # the last sweep asks no more what slopes are where it was
            if 2 * rows.size > q.shape[-1]:  # to pick most costs more than to take all
                slope[..., since:, :] += h[..., since:, start:stop] @ move
            elif rows.size:
                slope[..., since:, rows] += h[..., since:, start:stop] @ move[..., rows]
            moved |= rows.size > 0
        if not moved:
            break
    return q
