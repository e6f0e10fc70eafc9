"""The searches of the total range of weight equalizing shifts, on the same weights: error and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from time import perf_counter

import numpy as np

from equint.ir.model import Array, Graph, QSpec
from equint.ir.weights import as_rows
from equint.maths.shifts import SEARCHES
from equint.ops.layers import layers
from equint.study.weights import kind_of

SPEC = QSpec(8, signed=False, symmetric=False, granularity="shift")
MOST = 15
TIMES = 3
KINDS = ("depthwise", "pointwise", "other")
COLUMNS = (
    "layers of",
    "layers",
    "deterministic is worse",
    "error the exact one saves: mean, most",
    "Nelder-Mead is worse",
    "mean, most",
    "time of Nelder-Mead / exact: median, least, most",
    "Nelder-Mead, exact: s in all",
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


def searched(network: str, layer: str, kind: str, rows: Array) -> Searched:
    """All searches on one weight, in turn."""
    errors, seconds = dict[str, float](), dict.fromkeys(SEARCHES, np.inf)
    for _ in range(TIMES):
        for name, search in SEARCHES.items():
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
    for other in ("deterministic", "nelder-mead"):
        cuts = [s.cut(other) for s in group]
        yield str(sum(c > 1e-9 for c in cuts))
        yield f"{100 * mean(cuts):.1f} %, {100 * max(cuts):.1f} %"
    ratios = [s.ratio for s in group]
    yield f"{median(ratios):.2f}, {min(ratios):.2f}, {max(ratios):.2f}"
    yield ", ".join(f"{sum(s.seconds[k] for s in group):.2f}" for k in ("nelder-mead", "exact"))
