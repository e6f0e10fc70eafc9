"""Samples as a network takes them: its inputs by name, of its shapes and types, one or several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..errors import UnreadableModel, UnusableData
from ..ir.model import Array, Graph, Name, Shape
from .images import BATCH, SPAN, Feed, Run, Samples, joined, length, split
from .spans import cut

_TURNED = {(0, 3, 1, 2): "channels first", (0, 2, 3, 1): "channels last", (0, 2, 1): "the last two axes the other way"}
"""How pictures and series are turned to where a network reads their channels."""


_OR_CARD = "or a card that says how pictures become its input"

Shapes = Mapping[Name, Sequence[int | str | None]]
"""Shapes of a network's inputs."""


def inputs_alone(shapes: Shapes) -> Graph:
    """A graph of nothing but a network's inputs."""
    return Graph((), {}, tuple(shapes), (), {name: tuple(shape) for name, shape in shapes.items()})


def entries(graph: Graph) -> dict[Name, int]:
    """How many entries along its first axis each input of a network holds for one sample; 0: a scalar, for all.

    1 where that size is free, or where all inputs share one: those are fixed batches. Else it is what the network says:
    recurrent states and tables are no batches.

    Example:
        >>> graph = Graph((), {}, ("x", "state", "rate"), (), {"x": ("N", 9), "state": (2, "N", 4), "rate": ()})
        >>> entries(graph)
        {'x': 1, 'state': 2, 'rate': 0}
    """
    fronts = {name: _front(graph.shapes.get(name)) for name in graph.inputs}
    shared = {front for front in fronts.values() if front != 0}
    fixed = len(shared) == 1
    return {name: 0 if front == 0 else 1 if fixed or front is None else front for name, front in fronts.items()}


def fixed_batch(graph: Graph) -> int | None:
    """How many samples a network takes at once, as its inputs say; None where that is free.

    Example:
        >>> fixed_batch(Graph((), {}, ("x",), (), {"x": (1, 3, 8, 8)}))
        1
    """
    fronts = {_front(graph.shapes.get(name)) for name in graph.inputs} - {0}
    return fronts.pop() if len(fronts) == 1 else 1


def in_samples(graph: Graph) -> bool:
    """Whether all inputs hold samples along their first axis, and nothing else depends on how many.

    Example:
        >>> shapes = {"x": ("N", 9), "state": (2, "N", 4)}
        >>> in_samples(inputs_alone(shapes)), in_samples(inputs_alone({"x": ("N", 9)}))
        (False, True)
    """
    shapes = [graph.shapes.get(name) or () for name in graph.inputs]
    behind = {n for shape in shapes for n in shape[1:] if isinstance(n, str)}
    fronts = {_front(shape) for shape in shapes}
    return len(fronts) == 1 and fronts != {0} and behind.isdisjoint(shape[0] for shape in shapes)


def common_front(shapes: Iterable[Sequence[int | str | None]]) -> int | None:
    """The first size that all shapes share, if it is a number."""
    sizes = {shape[0] if len(shape) else None for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def in_batches(
    run: Callable[[Mapping[Name, Array]], dict[Name, Array]], feeds: Mapping[Name, Array], count: int, size: int
) -> dict[Name, Array]:
    """What a network that takes `size` samples at once gives for `count`: the last batch is filled up with its last.

    Example:
        >>> in_batches(lambda feeds: {"y": feeds["x"] + len(feeds["x"])}, {"x": np.arange(3)}, 3, 2)["y"].tolist()
        [2, 3, 4]
    """
    fill = -count % size
    if fill:
        feeds = {n: np.concatenate([v, np.repeat(v[-1:], fill, 0)]) for n, v in feeds.items()}
    starts = range(0, count, size)
    parts = [run(feeds if len(starts) == 1 else {n: v[k : k + size] for n, v in feeds.items()}) for k in starts]
    found = parts[0] if len(parts) == 1 else {o: np.concatenate([np.atleast_1d(p[o]) for p in parts]) for o in parts[0]}
    return {o: _cut(v, count, count + fill) for o, v in found.items()} if fill else found


def _cut(value: Array, count: int, whole: int) -> Array:
    """What belongs to the first `count` of `whole` samples: each may have several rows."""
    if not value.ndim or len(value) % whole:
        return value
    return value[: len(value) * count // whole]


def _front(shape: Shape | None) -> int | None:
    if shape is None:
        return None
    if not shape:
        return 0
    return shape[0] if isinstance(shape[0], int) else None


def presented(images: Samples, graph: Graph, gathered: bool = True) -> Samples:
    """The samples, checked against the network's inputs, in batches that it can be shown.

    Args:
        gathered: put single samples that come one by one together, so that an array and a list of its rows are the same
            stream.

    Raises:
        EquintError: while reading: inputs that are missing, have another shape, or hold different numbers of samples.

    Example:
        >>> graph = Graph((), {}, ("x", "state"), (), {"x": ("N", 9), "state": (2, "N", 4)})
        >>> shown = presented(Samples.of({"x": np.zeros((3, 9)), "state": np.zeros((6, 1, 4))}), graph)
        >>> [{name: value.shape for name, value in run.items()} for run in shown][1:]
        [{'x': (1, 9), 'state': (2, 1, 4)}, {'x': (1, 9), 'state': (2, 1, 4)}]
    """
    each = entries(graph)
    rows = all(count == 1 for count in each.values())

    def checked(start: int) -> Iterator[Feed]:
        for feed in cut(images.since(start), start) if rows else images:
            named = _named(feed, graph, images.label)
            for name, value in named.items():
                _check(name, value, graph, images.label, each[name], images.total)
            count = _count(named, each, images.label)
            if rows:
                yield named if isinstance(feed, Mapping) else feed
                continue
            for k in range(count):
                yield Run({n: v[k * each[n] : (k + 1) * each[n]] if each[n] else v for n, v in named.items()})

    def shown(start: int = 0) -> Iterator[Feed]:
        return _gathered(checked(start), start) if gathered else checked(start)

    since, total = (shown, lambda: images.total) if rows else (None, None)
    return Samples(shown, images.label, fixed_batch(graph), total=total, since=since)


def as_runs(images: Samples, graph: Graph, rows: int | None = None) -> Samples:
    """Each batch as one sample that is never cut, for networks that fold something else into what they call batch.

    Args:
        rows: how many rows of the stream make a sample; None: the batches as they come.

    Example:
        >>> graph = inputs_alone({"x": ("NT", 3)})
        >>> [run["x"].shape for run in as_runs(Samples.of(np.zeros((10, 3))), graph, 4)]
        [(4, 3), (4, 3)]
    """

    def runs() -> Iterator[Feed]:
        whole = images if rows is None else split(Samples(images.__iter__, images.label, rows), rows)
        for feed in whole:
            if rows is None or length(feed) == rows:
                yield Run(feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed})

    return Samples(runs, images.label)


def _gathered(feeds: Iterator[Feed], start: int) -> Iterator[Feed]:
    """Batches of few samples put together where their shapes allow it; the first begins at sample `start`."""
    waiting, at = None, start
    for feed in feeds:
        few = waiting is not None and length(waiting) + length(feed) <= BATCH and at % SPAN != 0
        at += length(feed)
        if waiting is not None and few and _alike(waiting, feed):
            waiting = joined(waiting, feed)
            continue
        if waiting is not None:
            yield waiting
        waiting = feed
    if waiting is not None:
        yield waiting


def _alike(first: Feed, second: Feed) -> bool:
    if isinstance(first, Run) or isinstance(second, Run):
        return False
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return all(value.shape[1:] == second[name].shape[1:] for name, value in first.items())
    return not isinstance(first, Mapping) and not isinstance(second, Mapping) and first.shape[1:] == second.shape[1:]


def _named(feed: Feed, graph: Graph, label: str) -> dict[Name, Array]:
    return {n: _single(np.asarray(v), graph.shapes.get(n)) for n, v in given(feed, graph.inputs, label).items()}


def given(feed: Feed, inputs: Sequence[Name], label: str) -> Mapping[Name, Array]:
    """What a network with these inputs reads of a batch; others are left out.

    Raises:
        UnusableData: an input that is missing, by its name.

    Example:
        >>> sorted(given({"x": np.zeros((1, 9)), "rate": np.array(16000)}, ["x"], "clips.npz"))
        ['x']
    """
    asked = ", ".join(inputs)
    if not isinstance(feed, Mapping):
        if len(inputs) > 1:
            raise UnusableData(
                f"{label}: one array for a network of {len(inputs)} inputs; "
                f"give them by name ({asked}), in a dict or an .npz"
            )
        return {inputs[0]: feed}
    lost = next((n for n in inputs if n not in feed), None)
    if lost is not None:
        raise UnusableData(f"{label}: nothing for input {lost}; give arrays by the names of the inputs ({asked})")
    kept = {n: feed[n] for n in inputs}
    return Run(kept) if isinstance(feed, Run) else kept


def checked(feed: Feed, shapes: Shapes, label: str, total: int | None = None) -> Mapping[Name, Array]:
    """What a network with inputs of these shapes reads of a batch, once it fits them.

    Args:
        total: samples in the array that the batch is a part of.

    Raises:
        UnusableData: an input that is missing, or of another shape; the message says what to do.

    Example:
        >>> {n: v.shape for n, v in checked(np.zeros((2, 3, 8, 8)), {"x": ("N", 3, 8, 8)}, "photos.npz").items()}
        {'x': (2, 3, 8, 8)}
    """
    named, graph = given(feed, tuple(shapes), label), inputs_alone(shapes)
    each = entries(graph)
    for name, value in named.items():
        value = _single(np.asarray(value), graph.shapes.get(name))
        _check(name, value, graph, label, each[name], total)
    return named


def inputs_of_both(first: Shapes, second: Shapes) -> Shapes:
    """What two networks read that are shown the same: one of them may have fewer inputs, others being constants.

    Single inputs are one another's, whatever they are called.

    Raises:
        UnreadableModel: an input is of two shapes.

    Example:
        >>> inputs_of_both({"x": ("N", 9)}, {"x": ("N", 9), "rate": ()})
        {'x': ('N', 9), 'rate': ()}
    """
    alone = len(first) == len(second) == 1
    for name in first if alone else first.keys() & second.keys():
        one, other = first[name], next(iter(second.values())) if alone else second[name]
        if len(one) != len(other) or any(a != b for a, b in zip(one[1:], other[1:], strict=True) if _known(a, b)):
            shapes = " and ".join(f"({', '.join(str(n or '?') for n in shape)})" for shape in (one, other))
            raise UnreadableModel(f"input {name} is of two shapes, {shapes}: give two forms of one network")
    return first if alone else {**first, **second}


def _known(*sizes: int | str | None) -> bool:
    return all(isinstance(size, int) and size > 0 for size in sizes)


def _single(value: Array, wanted: Shape | None) -> Array:
    """A single number in the form that a network reads it."""
    lone = value.size == 1 and value.ndim < 2 and wanted in ((), (1,))
    return value.reshape((1,) * len(wanted or ())) if lone else value


def _check(name: Name, value: Array, graph: Graph, label: str, each: int, total: int | None = None) -> None:
    """Refuse what contradicts the network's input, with what to do; nothing is ever turned or reshaped.

    Args:
        total: samples in the array that the value is a part of.
    """
    wanted = graph.shapes.get(name)
    if wanted is None or fits(value.shape, wanted):
        return
    whole = value.shape if total is None else (total, *value.shape[1:])
    what = f"{label}: shape {whole} for input {name}, which takes ({', '.join(str(n or '?') for n in wanted)})"
    if value.ndim == len(wanted) - 1 and fits((each, *value.shape), wanted):
        raise UnusableData(f"{what}: samples come first; give an array of shape {(1, *value.shape)} or more of them")
    for axes, read in _TURNED.items():
        if value.ndim == len(axes) and fits(tuple(value.shape[a] for a in axes), wanted):
            raise UnusableData(f"{what}: the network reads {read}; give the array as x.transpose{axes}, {_OR_CARD}")
    raise UnusableData(f"{what}; prepare the samples as the network reads them")


def fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    """Whether an array of several samples has the sizes that an input has behind the first."""
    if len(shape) != len(wanted):
        return False
    return all(not isinstance(n, int) or n == have for n, have in zip(wanted[1:], shape[1:], strict=True))


def _count(named: Mapping[Name, Array], each: Mapping[Name, int], label: str) -> int:
    """How many samples there are."""
    uneven = next((n for n, v in named.items() if each[n] > 1 and len(v) % each[n]), None)
    if uneven is not None:
        raise UnusableData(f"{label}: {len(named[uneven])} entries for input {uneven}; each sample has {each[uneven]}")
    counts = {n: len(v) // each[n] for n, v in named.items() if each[n]}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UnusableData(f"{label}: a batch whose inputs hold different numbers of samples ({sizes})")
    return next(iter(counts.values()), 1)
