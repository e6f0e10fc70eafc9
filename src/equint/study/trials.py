"""Many variants of one network measured on the same images; what they have in common is computed once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..crew.workers import Alone, Crew, in_order
from ..errors import UnusableData, counted
from ..ir.model import Array, Graph, Model, Name, Node
from ..maths.noise import to_db
from ..onnx.probes import is_clamp_of_integers, is_quantizer
from ..onnx.writer import to_proto
from ..ops.layers import as_layer, layers
from ..runtime.machine import Machine, here, on
from ..runtime.session import Session
from ..samples.images import BATCH, Samples, length, split
from ..scoring.metrics import Tally

Key = TypeVar("Key", bound=Hashable)
Values = Mapping[Name, Array]
AT_ONCE = 4
"""Variants that one of several who share the work measures at a time."""
EXACT = 120.0
"""SQNR in dB from which an answer counts as exact: float32 rounds no finer."""


@dataclass(frozen=True)
class Score:
    """How a network answers, compared with its float original.

    Attributes:
        sqnr_db: of the worst output, over all images.
        each_db: every image's own SQNR, at most `EXACT`, at the output where their mean is least.
        agreement: per cent of samples with the same best class; None where the network does not choose among classes.
        top1: per cent of labels hit, where there are labels.
    """

    sqnr_db: float
    agreement: float | None = None
    top1: float | None = None
    each_db: tuple[float, ...] = ()

    def gain(self, before: Score) -> tuple[float, float]:
        """What the typical image gains over `before`, in dB, and the standard error of that.

        A few images with large outputs decide the SQNR over all images; the mean of each one's own is steadier.

        Example:
            >>> Score(20.0, each_db=(20.0, 22.0)).gain(Score(10.0, each_db=(10.0, 10.0)))
            (11.0, 1.0)
        """
        change = np.subtract(self.each_db, before.each_db)
        return float(change.mean()), float(change.std() / max(len(change) - 1, 1) ** 0.5)


@dataclass(frozen=True)
class Truth:
    """Samples, and what the float network answers: a few, kept in memory.

    Attributes:
        feeds: batches, each input by its name; outputs, labels (where there are any): one for each batch.
        shares: whether variants may start in the middle: not where the network has a fixed batch of several samples.
    """

    feeds: tuple[Values, ...]
    outputs: tuple[Values, ...]
    labels: tuple[Array, ...] = ()
    shares: bool = True

    @property
    def images(self) -> int:
        return sum(length(feed) for feed in self.feeds)

    def batches(self, own: slice) -> Truth:
        """Some of the batches."""
        return Truth(self.feeds[own], self.outputs[own], self.labels[own], self.shares)


def truth(graph: Graph, images: Samples, labels: Array | None = None) -> Truth:
    """Show the float network the images; labels: `(N,)` class of each image.

    Raises:
        EquintError: images that do not fit, or as many labels as there are not images.
    """
    session = Session(to_proto(graph), optimized=True, together=True)
    front = {shape[0] for shape in session.shapes.values() if len(shape)}
    fixed = next((n for n in front if isinstance(n, int)), None)
    taken = split(images, min(fixed or BATCH, BATCH))
    feeds = [feed if isinstance(feed, Mapping) else {session.inputs[0]: feed} for feed in taken]
    outputs = tuple(session.run(feed) for feed in feeds)
    parts: tuple[Array, ...] = ()
    if labels is not None:
        ends = np.cumsum([length(feed) for feed in feeds])
        if len(labels) != ends[-1]:
            raise UnusableData(
                f"{counted(len(labels), 'label')} for {counted(int(ends[-1]), 'image')}; give one for each"
            )
        parts = tuple(np.split(np.asarray(labels), ends[:-1]))
    return Truth(tuple(feeds), outputs, parts, fixed in (None, 1))


def scores(variants: Mapping[Key, Graph], against: Truth, base: Graph | None = None) -> dict[Key, Score]:
    """What each variant answers, compared with the float network.

    The base runs once, in pieces. Each variant starts where it begins to differ from the base, with the base's values:
    the later it differs, the less it costs. Graph optimizations are off, as in every reference simulation.

    Args:
        base: the graph that the variants are variants of; left out, each runs from the start.
    """
    usable = base if against.shares else None
    cuts = {key: 0 if usable is None else common(usable, graph) for key, graph in variants.items()}
    needs = {key: _needed(graph, cuts[key], len(graph.nodes), graph.outputs) for key, graph in variants.items()}
    found, at, held = dict[Key, Score](), 0, list(against.feeds)
    order = sorted(variants, key=lambda key: cuts[key])
    for number, key in enumerate(order):
        graph, cut = variants[key], cuts[key]
        if usable is not None and cut > at:
            held = _advanced(usable, at, cut, held, set().union(*(needs[k] for k in order[number:])))
            at = cut
        found[key] = _scored(_ran(_part(graph, cut, len(graph.nodes), graph.outputs), held), against)
    return found


def shared_scores(
    crew: Crew, variants: Mapping[Key, Graph], against: Truth, base: Graph | None = None
) -> dict[Key, Score]:
    """As `scores`, by whoever does it: a few variants at a time, those together that begin to differ nearby."""
    order = sorted(variants, key=lambda key: 0 if base is None else common(base, variants[key]))
    shared = (dict(variants), against, base, replace(here(), threads=crew.threads))
    found = dict[Key, Score]()
    for part in in_order(crew, _scoring, shared, together(crew, order, AT_ONCE)):
        found |= part
    return found


def together(crew: Crew, tasks: Sequence[Key], most: int) -> list[Sequence[Key]]:
    """Tasks in groups for a crew: at most so many, all in one where there is nobody to share them with."""
    size = max(1, len(tasks)) if isinstance(crew, Alone) else most
    return [tasks[k : k + size] for k in range(0, len(tasks), size)]


def _scoring(
    shared: tuple[Mapping[Key, Graph], Truth, Graph | None, Machine],
) -> Callable[[Sequence[Key]], dict[Key, Score]]:
    variants, against, base, machine = shared

    def work(keys: Sequence[Key]) -> dict[Key, Score]:
        with on(machine):
            return scores({key: variants[key] for key in keys}, against, base)

    return work


def _scored(answers: Iterable[Values], against: Truth) -> Score:
    tally, typical = Tally(), dict[Name, list[float]]()
    for number, (outputs, wanted) in enumerate(zip(answers, against.outputs, strict=True)):
        first = wanted[next(iter(wanted))]
        tally.add_reference(outputs, wanted, decides=first.ndim == 2)
        for name, clean in wanted.items():
            typical.setdefault(name, []).extend(_each(clean, outputs[name], length(against.feeds[number])))
        if against.labels and first.ndim == 2:
            tally.add_labels(outputs[next(iter(wanted))], against.labels[number])
    results = tally.results()
    each = min(typical.values(), key=lambda values: float(np.mean(values)))
    return Score(results["sqnr_db"], results.get("agreement"), results.get("top1"), tuple(each))


def _each(clean: Array, noisy: Array, count: int) -> list[float]:
    """SQNR in dB of each of a batch's images, or of the batch where images cannot be told apart in the output."""
    rows = count if clean.ndim and len(clean) % count == 0 else 1
    a, b = (v.astype(np.float64).reshape(rows, -1) for v in (clean, noisy))
    signal, noise = np.square(a).sum(1), np.square(b - a).sum(1)
    return [to_db(max(float(n / max(s, 1e-300)), 10 ** (-EXACT / 10))) for s, n in zip(signal, noise, strict=True)]


def _advanced(base: Graph, start: int, stop: int, held: list[Values], wanted: Collection[Name]) -> list[Values]:
    """The values that everything behind `stop` needs, from those that everything behind `start` needs."""
    made = {o for node in base.nodes[start:stop] for o in node.outputs}
    needed = (_needed(base, stop, len(base.nodes), base.outputs) | set(wanted)) - _constants(base)
    outputs = [n for n in sorted(needed) if n in made]
    ran = _ran(_part(base, start, stop, outputs), held) if outputs else ({} for _ in held)
    kept = ({n: v for n, v in before.items() if n in needed} for before in held)
    return [{**before, **after} for before, after in zip(kept, ran, strict=True)]


def _ran(part: Graph, held: Sequence[Values]) -> Iterator[Values]:
    session = Session(to_proto(part), together=True)
    for values in held:
        given = {n: values[n] for n in part.inputs}
        found = session.run({n: given[n] for n in session.inputs})
        yield {**found, **{n: given[n] for n in part.outputs if n in given}}


def _part(graph: Graph, start: int, stop: int, outputs: Sequence[Name]) -> Graph:
    """Nodes `start` to `stop`, with what they need of constants and of what was made of constants."""
    constants = _constants(graph)
    inputs = tuple(sorted(_needed(graph, start, stop, outputs)))
    wanted = {i for node in graph.nodes[start:stop] for i in node.reads} | set(outputs)
    early: list[Node] = []
    for node in reversed(graph.nodes[:start]):
        if wanted & constants & set(node.outputs):
            early.insert(0, node)
            wanted |= set(node.reads)
    cut = replace(graph, inputs=inputs, outputs=tuple(outputs))
    return cut.with_nodes((*early, *graph.nodes[start:stop]))


def _needed(graph: Graph, start: int, stop: int, outputs: Collection[Name]) -> set[Name]:
    """Values that nodes `start` to `stop`, and `outputs`, take from before: constants left out."""
    nodes = graph.nodes[start:stop]
    read = {i for node in nodes for i in node.reads} | set(outputs)
    return read - {o for node in nodes for o in node.outputs} - _constants(graph)


def _constants(graph: Graph) -> set[Name]:
    """Constants, and what is made of nothing else."""
    found = set(graph.consts)
    for node in graph.nodes:
        if node.reads and found.issuperset(node.reads):
            found.update(node.outputs)
    return found


def common(base: Graph, variant: Graph) -> int:
    """How many nodes two graphs have in common, from the start, so that one can go on with the other's values.

    Only floats are handed over: a cut falls where no integers, and no shapes, are needed behind it.
    """
    alike = 0
    for a, b in zip(base.nodes, variant.nodes, strict=False):
        if not _same_node(a, b) or not all(_equal(base.consts.get(i), variant.consts.get(i)) for i in a.reads):
            break
        alike += 1
    integers = _integers(variant)
    while alike and _needed(variant, alike, len(variant.nodes), variant.outputs) & integers:
        alike -= 1
    return alike


def _same_node(a: Node, b: Node) -> bool:
    if (a.op, a.domain, a.inputs, a.outputs, a.captured) != (b.op, b.domain, b.inputs, b.outputs, b.captured):
        return False
    return a.attrs.keys() == b.attrs.keys() and all(_equal(v, b.attrs[k]) for k, v in a.attrs.items())


def _equal(a: object, b: object) -> bool:
    """Whether values are the same, arrays bit by bit."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    return not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray) and bool(a == b)


def _integers(graph: Graph) -> set[Name]:
    """Values that are no floats."""
    found: set[Name] = set()
    for node in graph.nodes:
        follows = is_clamp_of_integers(node) and bool(found & set(node.inputs))
        for o in node.outputs:
            if is_quantizer(node) or follows or not graph.is_float(o):
                found.add(o)
    return found


def composed(plain: Model, quantized: Model, weights: Collection[Name], tensors: Collection[Name]) -> Model:
    """A network of which only some weights and tensors are quantized, as they are in the quantized one.

    Args:
        plain: what the recipe quantizes: rescaled where it rescales, still float, biases not corrected.
        weights: outputs of the layers whose weights and corrected biases are quantized.
        tensors: names; those of weights are passed over.
    """
    graph, consts, nodes = plain.graph, dict(plain.graph.consts), list[Node]()
    stored = {layer.weight for layer in layers(quantized.graph)}
    qparams = {n: q for n, q in quantized.qparams.items() if n in tensors and n not in stored}
    for before, after in zip(graph.nodes, quantized.graph.nodes, strict=True):
        layer = as_layer(quantized.graph, after)
        if layer is None or layer.y not in weights or layer.weight not in quantized.qparams:
            nodes.append(before)
            continue
        renamed: dict[Name, Name] = {}
        for name in after.reads:
            value = quantized.graph.consts.get(name)
            if value is not None:
                clash = name in consts and not _equal(consts[name], value)
                renamed[name] = f"{name} of {layer.y}" if clash else name
                consts[renamed[name]] = value
        qparams[renamed[layer.weight]] = quantized.qparams[layer.weight]
        nodes.append(replace(after, inputs=tuple(renamed.get(i, i) for i in after.inputs)))
    return replace(plain, graph=graph.with_nodes(nodes, consts), qparams=qparams)
