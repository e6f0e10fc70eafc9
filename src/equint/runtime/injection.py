"""Gains as they are measured: noise is put into one tensor of the float network after the other, and seen to arrive.

Each run has noise in one tensor, on one sample. Single measurements scatter (the few outputs of a network are few draws
of its noise), while what predictions are wrong by changes slowly with depth: the ratios of measured to predicted
noise are smoothed along the network, and correct the predicted gains of all tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..ir.model import Array, Graph, Name, Node
from ..maths.smoothing import smoothed
from ..noise.gains import Gains
from ..noise.rounded import shared
from ..onnx.probes import added
from ..onnx.writer import to_proto
from ..samples.images import Run, Samples, split
from .collect import channel_axes
from .session import Session

SITES = 24
"""Tensors into which noise of either kind is put, spread over the depth of the network."""
VALUES = 1 << 25
"""About how many values all these tensors have together at most: numpy draws and sums them, slower than layers run."""
LEAST = 4
"""Tensors that are measured however many values they have."""
SHOWN = 4
"""Samples that they take turns with: each tensor is measured on one, and what its neighbours show counts too."""
SIGNALS = 8
"""Samples that tell the power of the outputs, which differs more from one to the next than noise does."""
LEVEL = 1e-4
"""Noise over signal in the tensor: little enough for the network to be linear, and far above float32's rounding."""
WIDTH = 3.0
"""Measured tensors to either side that a correction is smoothed over, as a standard deviation."""


@dataclass(frozen=True)
class Source:
    """Noise of one kind.

    Attributes:
        kind: "scattered" or "steady".
        names: tensors that it may be put into.
        error: what is added to one of them: by its name, its values, the axis of its channels, and what draws.
        own: whether it is the very noise that is asked for, so that what was measured of a tensor counts as it is, and
            is smoothed for the others alone.
    """

    kind: str
    names: Sequence[Name]
    error: Callable[[Name, Array, int, np.random.Generator], Array]
    own: bool = False


class Injector:
    """A float network that noise can be added to.

    Args:
        graph: float. names: tensors that take noise. places: where noise is looked at; the outputs, if left out.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> graph = tiny_graph()
        >>> noisy = Injector(graph, ["x"])
        >>> feed = {"x": np.ones((1, 4, 4, 4), np.float32)}
        >>> float(noisy.moved(feed, {"x": 0.5 * feed["x"]})["y"].max())  # the layer sums nine weights of 1
        4.5
    """

    def __init__(self, graph: Graph, names: Sequence[Name], places: Sequence[Name] = ()) -> None:
        self.places = tuple(dict.fromkeys(places or graph.outputs))
        made = [name for name in dict.fromkeys(names) if name in graph.producer]
        clean = {name: graph.fresh(f"clean_{k}") for k, name in enumerate(made)}
        self._errors = {name: graph.fresh(f"error_{k}") for k, name in enumerate(made)}
        nodes = list[Node]()
        for node in graph.nodes:
            nodes.append(replace(node, outputs=tuple(clean.get(o, o) for o in node.outputs)))
            nodes += [added(clean[o], self._errors[o], o) for o in node.outputs if o in clean]
        types = {error: graph.dtypes.get(name, "float32") for name, error in self._errors.items()}
        shapes = {name: shape for name, shape in graph.shapes.items() if name in (*graph.inputs, *graph.outputs)}
        noisy = replace(
            graph,
            nodes=tuple(nodes),
            inputs=(*graph.inputs, *self._errors.values()),
            outputs=self.places,
            shapes=shapes,
            dtypes={**graph.dtypes, **types},
        )
        self._none = {error: np.zeros(1, np.dtype(types[error])) for error in self._errors.values()}
        self._noisy = Session(to_proto(noisy), optimized=True, lean=True)
        read = tuple(dict.fromkeys((*self.places, *made)))
        self._clean = Session(to_proto(replace(graph, outputs=read)), optimized=True, lean=True)
        self._last: tuple[Mapping[Name, Array], dict[Name, Array]] | None = None

    def values(self, feed: Mapping[Name, Array]) -> dict[Name, Array]:
        """What the float network's tensors that take noise, and its outputs, are on one sample."""
        if self._last is None or self._last[0] is not feed:
            self._last = feed, {**feed, **self._clean.run(Run(feed))}
        return self._last[1]

    def moved(self, feed: Mapping[Name, Array], errors: Mapping[Name, Array]) -> dict[Name, Array]:
        """By how much the outputs change where `errors` are added to tensors by name; float64."""
        given, added = dict(feed), dict(self._none)
        for name, error in errors.items():
            if name in self._errors:
                added[self._errors[name]] = error.astype(self._none[self._errors[name]].dtype)
            else:
                given[name] = (given[name] + error).astype(given[name].dtype)
        clean, found = self.values(feed), self._noisy.run(Run({**given, **added}))
        return {name: found[name].astype(np.float64) - clean[name] for name in self.places}

    def powers(self, samples: Sequence[Mapping[Name, Array]]) -> dict[Name, float]:
        """Mean over samples of Σ y² of each output."""
        rows = [[_power(self.values(feed)[name]) for name in self.places] for feed in samples]
        return dict(zip(self.places, np.mean(rows, 0).tolist(), strict=True))


def measured_gains(
    graph: Graph,
    tables: Sequence[Gains],
    samples: Samples,
    sources: Sequence[Source],
    places: Sequence[Name] = (),
    sites: int = SITES,
) -> Gains:
    """Predicted gains, corrected by what noise that is put into some of the tensors does at the outputs.

    Noise over signal is meaned over the places, as candidates are judged. Runs the network at most `sites` times for
    each source, on one sample, and `SIGNALS` times for the signal.

    Args:
        graph: the float network that gains are of.
        tables: predictions; of either kind, the one counts that is wrong by the most even factor.
        samples: what the network is shown.
        sources: noise of each kind.
        places: tensors where noise is looked at; the network's outputs, if left out.
        sites: tensors into which noise of each kind is put, at most.

    Raises:
        EquintError: samples that the network does not take.
    """
    order = {name: k for k, name in enumerate((*graph.inputs, *(o for node in graph.nodes for o in node.outputs)))}
    axes, rng = channel_axes(graph), np.random.default_rng(0)
    known = [{n for n in axes if n in order and all(n in getattr(t, s.kind) for t in tables)} for s in sources]
    chosen = [
        spread(sorted(known[k].intersection(source.names), key=order.__getitem__), sites)
        for k, source in enumerate(sources)
    ]
    noisy = Injector(graph, [name for names in chosen for name in names], places)
    feeds = list(single(samples, graph, SIGNALS))
    sizes = {name: value.size for name, value in noisy.values(feeds[0]).items()}
    chosen = [affordable(names, sizes) for names in chosen]
    signal, rows = noisy.powers(feeds), [dict[Name, tuple[float, Array]]() for _ in sources]
    turns = min(len(feeds), SHOWN)
    for turn, feed in enumerate(feeds[:turns]):
        for source, names, own in zip(sources, chosen, rows, strict=True):
            for name in names[turn::turns]:
                error = source.error(name, noisy.values(feed)[name], axes[name], rng)
                moved = noisy.moved(feed, {name: error})
                arrived = float(np.mean([_power(moved[p]) / max(signal[p], 1e-300) for p in noisy.places]))
                expected = [arriving(getattr(table, source.kind)[name], error, axes[name]) for table in tables]
                if np.isfinite(arrived) and arrived > 0 and min(expected) > 0:
                    own[name] = arrived, np.array(expected)
    found = tables[0]._asdict()
    for source, own in zip(sources, rows, strict=True):
        logs = [np.log(expected / arrived) for arrived, expected in own.values()]
        best = int(np.argmin(np.std(logs, 0))) if logs else 0
        measured = {name: (arrived, float(expected[best])) for name, (arrived, expected) in own.items()}
        found[source.kind] = corrected(getattr(tables[best], source.kind), measured, order, source.own)
    return Gains(**found)


def corrected(
    table: Mapping[Name, Array],
    measured: Mapping[Name, tuple[float, float]],
    order: Mapping[Name, int],
    own: bool = False,
) -> dict[Name, Array]:
    """Gains, times by how much more noise arrived than was expected of tensors near them in the network's order.

    Args:
        measured: noise that arrived, and that was expected, by tensor.
        own: whether what was measured counts for its own tensor as it is, and for the others by its share of the noise.
    """
    if not measured:
        return dict(table)
    names = sorted(measured, key=order.__getitem__)
    places, at = (np.array([order[name] for name in known], np.float64) for known in (names, table))
    arrived, expected = np.array([measured[name] for name in names]).T
    smooth = smoothed(at, places, arrived / expected, WIDTH, expected if own else 1.0)
    factors = dict(zip(table, smooth.tolist(), strict=True))
    if own:
        factors |= dict(zip(names, (arrived / expected).tolist(), strict=True))
    return {name: gain * factors[name] for name, gain in table.items()}


def arriving(gain: Array, error: Array, axis: int) -> float:
    """Noise over signal that a tensor's error makes at the outputs, by the power that each of its channels has.

    Example:
        >>> gain, error = np.array([[0.5, 0.0]]), np.array([[1.0, 9.0], [3.0, 9.0]])
        >>> arriving(gain, error, 1)
        2.5
    """
    others = tuple(d for d in range(error.ndim) if d != axis)
    power = np.square(error, dtype=np.float64).mean(others, keepdims=True)
    return float(np.sum(shared(gain, power.shape) * power))


def single(samples: Samples, graph: Graph, count: int) -> Iterator[Run]:
    """The first samples, as many at once as the network has to take, each the inputs of one run."""
    for feed in islice(split(samples, 1, fill=True), count):
        yield Run(feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed})


def spread(names: Sequence[Name], count: int) -> list[Name]:
    """So many names, evenly spread over all; all where there are fewer.

    Example:
        >>> spread("abcdefg", 3)
        ['a', 'd', 'g']
    """
    if len(names) <= count:
        return list(names)
    return [names[k] for k in np.linspace(0, len(names) - 1, count).round().astype(int)]


def affordable(names: Sequence[Name], sizes: Mapping[Name, int], values: int = VALUES) -> list[Name]:
    """As many names, evenly spread, as have so many values together at the mean of all sizes, and `LEAST` at least.

    Example:
        >>> affordable("abcdefgh", dict.fromkeys("abcdefgh", 100), values=500)
        ['a', 'c', 'e', 'f', 'h']
    """
    total = sum(sizes[name] for name in names)
    return spread(names, max(LEAST, len(names) * values // max(total, 1)))


def scattered(name: Name, value: Array, axis: int, rng: np.random.Generator) -> Array:
    """Normal noise, independent from position to position, `LEVEL` of the tensor's power.

    It is as wide in each channel as the channel's values are, and leaves zeros alone, as rounding does.
    """
    others = tuple(d for d in range(value.ndim) if d != axis)
    return _levelled(rng.standard_normal(value.shape) * value.std(others, keepdims=True) * (value != 0), value)


def steady(name: Name, value: Array, axis: int, rng: np.random.Generator) -> Array:
    """Noise in a channel that is what another channel does, its sign drawn: `LEVEL` of the tensor's power.

    So it is spread as signals are, and independent of the channel's own.
    """
    others = tuple(d for d in range(value.ndim) if d != axis)
    width = value.std(others, keepdims=True)
    alike = (value - value.mean(others, keepdims=True)) / np.maximum(width, 1e-12 * max(float(width.max()), 1e-30))
    signs = rng.choice([-1.0, 1.0], width.shape)
    return _levelled(np.take(alike, rng.permutation(value.shape[axis]), axis) * width * signs, value)


def _levelled(error: Array, value: Array) -> Array:
    return np.asarray(error * np.sqrt(LEVEL * _power(value) / max(_power(error), 1e-300)))


def _power(value: Array) -> float:
    return float(np.sum(np.square(value, dtype=np.float64)))
