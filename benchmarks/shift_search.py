"""The searches of the total range of weight equalizing shifts, on the same weights: error and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from time import perf_counter

import numpy as np
from scipy.stats import norm

from equint.ir.model import Array, Graph, QSpec
from equint.ir.weights import as_rows
from equint.maths.shifts import SEARCHES, Shifted, deterministic, error, shifts_of, symmetric_ranges
from equint.ops.layers import layers
from equint.study.weights import kind_of

SPEC = QSpec(8, signed=False, symmetric=False, granularity="shift")
MOST = 15
TIMES = 3
TRIES = 40
OCTAVES = 8
"""How far below the largest range the Bayesian search looks, in powers of two."""
KINDS = ("depthwise", "pointwise", "other")
COLUMNS = (
    "layers of",
    "layers",
    "deterministic is worse",
    "error the exact one saves: mean, most",
    "Nelder-Mead is worse",
    "mean, most",
    f"Bayesian search of {TRIES} r̂ is worse",
    "mean, most",
    "time of Nelder-Mead / exact: median, least, most",
    "Nelder-Mead, Bayesian, exact: s in all",
)


@dataclass(frozen=True)
class Searched:
    """One layer: φ and the best seconds of every search."""

    network: str
    layer: str
    kind: str
    errors: Mapping[str, float]
    seconds: Mapping[str, float]

    def cut(self, other: str) -> float:
        """Share of another search's error that the exact one saves."""
        return 1 - self.errors["exact"] / self.errors[other] if self.errors[other] > 0 else 0.0

    @property
    def ratio(self) -> float:
        """How many times longer Nelder-Mead takes than the exact search."""
        return self.seconds["nelder-mead"] / self.seconds["exact"]


def bayesian(rows: Array, spec: QSpec, most: int, worth: Array | None = None) -> Shifted:
    """r̂ by Bayesian optimization, which the paper names beside Nelder-Mead: as much φ as TRIES evaluations find.

    A Gaussian process of log φ over log2 r̂ (squared exponential, length a quarter of an octave) is asked where the
    expected improvement is largest, from the largest range, its half and its quarter on.
    """
    start = deterministic(rows, spec, most, worth)
    if start.total == 0 or start.cost == 0:
        return start
    ranges, candidates = symmetric_ranges(rows), np.linspace(-OCTAVES, 0.999, 64 * (OCTAVES + 1))

    def tried(octave: float) -> Shifted:
        total = start.total * 2.0**octave
        shifts = shifts_of(ranges, total, most)
        return Shifted(shifts, total, error(rows, shifts, spec, worth), 1)

    at = [0.0, -1.0, -2.0]
    found = [start, *map(tried, at[1:])]
    for _ in range(TRIES - len(at)):
        values = np.log([f.cost for f in found])
        centre, spread = values.mean(), values.std() or 1.0
        near = np.exp(-8 * np.subtract.outer(at, at) ** 2) + 1e-6 * np.eye(len(at))
        far = np.exp(-8 * np.subtract.outer(candidates, at) ** 2)
        mean_at = far @ np.linalg.solve(near, (values - centre) / spread)
        std_at = np.sqrt(np.maximum(1 - np.einsum("ij,ji->i", far, np.linalg.solve(near, far.T)), 1e-12))
        better = ((values.min() - centre) / spread - mean_at) / std_at
        expected = std_at * (better * norm.cdf(better) + norm.pdf(better))
        expected[np.isin(candidates, at)] = -1
        at.append(float(candidates[np.argmax(expected)]))
        found.append(tried(at[-1]))
    best = min(found, key=lambda f: f.cost)
    return Shifted(best.shifts, best.total, best.cost, TRIES)


EVERY = {**SEARCHES, "bayesian": bayesian}


def searched(network: str, layer: str, kind: str, rows: Array) -> Searched:
    """All searches on one weight, in turn."""
    errors, seconds = dict[str, float](), dict.fromkeys(EVERY, np.inf)
    for _ in range(TIMES):
        for name, search in EVERY.items():
            began = perf_counter()
            errors[name] = search(rows, SPEC, MOST, None).cost
            seconds[name] = min(seconds[name], perf_counter() - began)
    assert errors["exact"] <= min(errors.values()), f"{network}, {layer}: {errors}"
    return Searched(network, layer, kind, errors, seconds)


def real_layers(network: str, graph: Graph) -> Iterator[Searched]:
    """Every layer of a network whose BatchNorms are folded."""
    seen = set[str]()
    for layer in layers(graph):
        axis, weight = layer.out_axis(), graph.consts[layer.weight]
        if axis is not None and layer.x_axis != -2 and layer.weight not in seen:
            seen.add(layer.weight)
            yield searched(network, layer.name, kind_of(layer, weight), as_rows(weight, axis))


def synthetic_layers() -> Iterator[Searched]:
    """Larger layers whose channels' spreads are log-normal."""
    rng = np.random.default_rng(0)
    for kind, shape in (("depthwise", (1024, 9)), ("pointwise", (1024, 1024)), ("other", (512, 1152))):
        for tails, draw in (("normal", rng.normal), ("Laplace", rng.laplace)):
            rows = (draw(size=shape) * rng.lognormal(0, 1, (shape[0], 1))).astype(np.float32)
            yield searched("synthetic", f"{shape[0]} × {shape[1]}, {tails}", kind, rows)


def groups(found: Sequence[Searched]) -> dict[str, list[Searched]]:
    """Layers by kind, all together, and each synthetic one."""
    real = [s for s in found if s.network != "synthetic"]
    kinds = {kind: [s for s in real if s.kind == kind] for kind in KINDS}
    made = {f"synthetic: {s.kind}, {s.layer}": [s] for s in found if s.network == "synthetic"}
    return {label: group for label, group in {**kinds, "all": real, **made}.items() if group}


def compared(group: Sequence[Searched]) -> Iterator[str]:
    """The cells of one row."""
    yield str(len(group))
    for other in ("deterministic", "nelder-mead", "bayesian"):
        cuts = [s.cut(other) for s in group]
        yield str(sum(c > 1e-9 for c in cuts))
        yield f"{100 * mean(cuts):.1f} %, {100 * max(cuts):.1f} %"
    ratios = [s.ratio for s in group]
    yield f"{median(ratios):.2f}, {min(ratios):.2f}, {max(ratios):.2f}"
    yield ", ".join(f"{sum(s.seconds[k] for s in group):.2f}" for k in ("nelder-mead", "bayesian", "exact"))
