"""Generated pictures, waveforms and features, for networks that have nothing else to be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from math import ceil
from threading import Lock

import numpy as np

from ..files import Shelf
from ..graph.inputs import CHANNELS, is_counted_with, is_picture, is_signal, layout_of, row_axis
from ..ir.model import Array, Graph, Model, Moments, Name, Range
from ..maths.pictures import MEAN, STD, pictures
from ..maths.signals import features, waveforms
from .images import BATCH, Feed, Run, Samples, part
from .presented import entries, fixed_batch

PICTURES, LARGE = 128, 32
"""Pictures that are drawn, and how many at least where they are larger than `AREA`."""
AREA = 320 * 320
FEW, OTHERS = 16, 64
"""Pictures, and other samples, that are made up where only some tensors are to be measured."""
VALUES = 2**16
"""Values of a sample that is no picture, of which `OTHERS` are made up; of larger ones fewer, `FEW` at least."""
USUAL = 128
"""Height and width of pictures whose size is free, and other free sizes."""
SIZES = (USUAL, 224, 320, 64, 256, 512, 1024, 4096, 16384)
"""Sizes that are tried in turn: not every network runs on the first."""
LENGTHS = (8192, 4096, 2048, 1024, 512, 256, 128, 64)
"""The same for waveforms."""
LEVELS = (0.5, 1.0, 2.0)
"""How many times as far as its range lets expect features of a sample spread: nothing tells how full it is."""


def picture_shape(model: Model, size: int = USUAL) -> tuple[int, int, int] | None:
    """(channels, height, width) of what the network reads; None where that is no picture, or nothing is known of it."""
    graph = model.graph
    shape = graph.shapes.get(graph.inputs[0]) if len(graph.inputs) == 1 else None
    if shape is None or len(shape) != 4 or graph.inputs[0] not in model.moments:
        return None
    axis = CHANNELS[layout_of(shape)]
    channels, sizes = shape[axis], [n for d, n in enumerate(shape) if d not in (0, axis)]
    if channels not in (1, 3):
        return None
    height, width = (n if isinstance(n, int) else size for n in sizes)
    return int(channels), height, width


def misleading(model: Model) -> bool:
    """Whether pictures tell less than BatchNorms do: how the input reaches is assumed, and these saw real ones.

    Example:
        >>> from ..ir.model import Moments
        >>> origins = {"x": "assumed", "a": "batchnorm"}
        >>> known = {name: Moments(np.zeros(()), np.ones(()), origin) for name, origin in origins.items()}
        >>> misleading(Model(Graph((), {}, ("x",), ()), known))
        True
    """
    return model.trained and any(m.origin == "assumed" for m in model.moments.values())


def generated(model: Model, shape: tuple[int, int, int]) -> Samples:
    """Pictures as the network's input wants them, by its mean, spread and range; of large ones fewer."""
    (name,), (channels, height, width) = model.graph.inputs, shape

    def batches() -> Iterator[Array]:
        for seed in range(_share(PICTURES, LARGE, height * width / AREA) // BATCH):
            yield _prepared(model, name, _drawn(height, width, channels, seed))

    return Samples(batches, "generated pictures", fixed_batch(model.graph))


def _share(most: int, least: int, size: float) -> int:
    """How many samples of a size have together what `most` of size 1 have: in whole batches, at least so many.

    Example:
        >>> [_share(128, 32, size) for size in (0.1, 1, 1.69, 4, 100)]
        [128, 128, 80, 32, 32]
    """
    return min(most, max(least, ceil(most / max(size, 1) / BATCH) * BATCH))


def _prepared(model: Model, name: Name, pixels: Array) -> Array:
    """Pixels `(N, C, H, W)`, 0 to 255, as an input takes them."""
    m, r = model.moments[name], model.ranges[name]
    last = layout_of(model.graph.shapes[name]) == "nhwc"
    pixels = pixels.transpose(0, 2, 3, 1) if last else pixels
    made = np.clip((pixels - MEAN) / STD * m.std + m.mean, r.lo, r.hi).astype(np.float32)
    return made if model.graph.is_float(name) else np.rint(made)


def _drawn(height: int, width: int, channels: int, number: int) -> Array:
    """A batch of pictures; those drawn before are read again, as many networks may be shown them."""
    with _drawing:
        shelf = _kept(height, width, channels)
        while len(shelf) <= number:
            shelf.append(pictures(BATCH, height, width, channels, len(shelf)))
        return shelf[number]


_drawing = Lock()
"""Threads share what is kept, and its file's place."""


@lru_cache(maxsize=1)
def _kept(height: int, width: int, channels: int) -> Shelf:
    return Shelf()


def made_up(model: Model, size: int = USUAL) -> Samples | None:
    """Pictures where the network reads such; else samples of every input, if sizes tell enough of them.

    Example:
        >>> from ..ir.model import Moments, Range
        >>> graph = Graph((), {}, ("x",), (), {"x": ("N", 3)})
        >>> known = {"x": Moments(np.full((1, 1), 5.0), np.zeros((1, 1)))}
        >>> model = Model(graph, known, {"x": Range(np.zeros((1, 1)), np.full((1, 1), 9.0))})
        >>> next(iter(made_up(model))).tolist()
        [[5.0, 5.0, 5.0]]
    """
    shape = picture_shape(model, size)
    if shape is not None:
        return generated(model, shape).first(FEW)
    first = stand_in(model.graph, size)
    return None if first is None else _imagined_as(model, first)


def beside(model: Model, images: Samples) -> Samples:
    """Made-up samples as large as those that are given; where nothing else tells how far an input reaches, these do.

    Example:
        >>> from ..ir.model import Moments, Range
        >>> graph = Graph((), {}, ("x",), (), {"x": ("N", 3, "H", "W")})
        >>> one, none = np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))
        >>> model = Model(graph, {"x": Moments(none, one, "assumed")}, {"x": Range(-one, one)})
        >>> images = Samples.of(np.linspace(0, 255, 2 * 3 * 32 * 48).reshape(2, 3, 32, 48))
        >>> made = next(iter(beside(model, images)))
        >>> made.shape[1:], 100 < float(made.max()) <= 255
        ((3, 32, 48), True)
    """
    open_ = [n for n in model.graph.inputs if n in model.moments and model.moments[n].origin == "assumed"]
    feeds = list(islice(images.first(FEW) if open_ else images, None if open_ else 1))
    named = [feed if isinstance(feed, Mapping) else {model.graph.inputs[0]: feed} for feed in feeds]
    known, first = _reaching(model, open_, named), named[0]
    if picture_shape(known) is None:
        made = _imagined_as(known, part(first, 0, 1))
    else:
        sizes = list(np.shape(first[model.graph.inputs[0]])[1:])
        channels = sizes.pop(CHANNELS[layout_of(model.graph.shapes[model.graph.inputs[0]])] - 1)
        made = generated(known, (channels, *sizes))
    return Samples(made.first(FEW).__iter__, made.label, images.batch, images.seen)


def _reaching(model: Model, open_: Sequence[Name], feeds: Sequence[Mapping[Name, Array]]) -> Model:
    """The network whose `open_` inputs, of which nothing tells, lie where samples do.

    A picture's mean and spread are those of photographs that reach as far: the samples may be of one kind.
    """
    moments, ranges = dict(model.moments), dict(model.ranges)
    for name in open_:
        values, shape = [np.asarray(feed[name], np.float64) for feed in feeds], model.graph.shapes.get(name)
        axis = CHANNELS[layout_of(shape)] if is_picture(shape) and shape else None
        axes = None if axis is None else tuple(d for d in range(4) if d != axis)
        lo = np.min([v.min(axes, keepdims=True) for v in values], 0)
        hi = np.max([v.max(axes, keepdims=True) for v in values], 0)
        if axis is None:
            square, mean = (np.mean([np.mean(v**power) for v in values]) for power in (2, 1))
            centre, spread = np.full_like(lo, mean), np.full_like(lo, np.sqrt(max(square - mean**2, 0)))
        else:
            centre, spread = lo + (hi - lo) * MEAN / 255, (hi - lo) * STD / 255
        moments[name], ranges[name] = Moments(centre, spread, "inferred"), Range(lo, hi)
    return replace(model, moments=moments, ranges=ranges)


def _imagined_as(model: Model, first: Feed) -> Samples:
    """Samples of every input like a first one, of which only sizes matter."""
    values = sum(np.size(like) for like in dict(first).values())

    def batches() -> Iterator[Feed]:
        for seed in range(_share(OTHERS, FEW, values / VALUES)):
            made = {name: _imagined(model, name, like, seed) for name, like in dict(first).items()}
            yield Run(made) if isinstance(first, Run) else made if len(made) > 1 else next(iter(made.values()))

    return Samples(batches, "generated samples", 1)


def _imagined(model: Model, name: Name, like: Array, seed: int) -> Array:
    """One sample of an input: a picture, a waveform, or features, as far as it reaches; 1 where numbers are counted."""
    m, span, graph = model.moments.get(name), model.ranges.get(name), model.graph
    if row_axis(graph, name):
        return like
    if like.dtype.kind != "f" and is_counted_with(graph, name):
        return np.ones_like(like)
    if m is None or span is None:
        return like
    if is_picture(graph.shapes.get(name)):
        last = layout_of(graph.shapes[name]) == "nhwc"
        channels, height, width = (like.shape[axis] for axis in ((3, 1, 2) if last else (1, 2, 3)))
        return _prepared(model, name, pictures(len(like), height, width, channels, seed)).astype(like.dtype)
    if is_signal(graph, name):
        heard = waveforms(1, like.size, seed).reshape(like.shape)
        return np.asarray((span.lo + span.hi) / 2 + (span.hi - span.lo) / 2 * heard, like.dtype)
    if like.ndim == 0:
        drawn = np.asarray(np.random.default_rng(seed).normal())
    else:
        rngs = [np.random.default_rng((seed, k)) for k in range(len(like))]
        drawn = np.stack([rng.choice(LEVELS) * features(rng, like.shape[1:]) for rng in rngs])
    made = np.clip(m.mean + m.std * drawn, span.lo, span.hi)
    return np.asarray(made if graph.is_float(name) else np.rint(made), like.dtype)


def open_shapes(graph: Graph) -> bool:
    """Whether inference leaves open how many dimensions a tensor has, or how large one of them behind the first is."""
    fixed = all(isinstance(n, int) for name in graph.inputs for n in graph.shapes.get(name, ())[1:])
    for name in (o for node in graph.nodes for o in node.outputs if o and graph.is_float(o)):
        shape = graph.shapes.get(name)
        if shape is None or (not fixed and len(shape) > 2 and not isinstance(shape[1], int)):
            return True
        if fixed and any(not isinstance(n, int) for n in shape[1:]):
            return True
    return False


def tried_sizes(graph: Graph) -> tuple[int, ...]:
    """Values of free sizes, in the order in which they are tried; where none is free, any one."""
    if not any_size(graph):
        return SIZES[:1]
    return LENGTHS if any(is_signal(graph, name) for name in graph.inputs) else SIZES


def any_size(graph: Graph) -> bool:
    """Whether a size of an input, behind the first, is free."""
    return any(not isinstance(n, int) for name in graph.inputs for n in graph.shapes.get(name, ())[1:])


def stand_in(graph: Graph, size: int = USUAL) -> Feed | None:
    """One made-up sample, whose values mean nothing; None where an input says too little of itself.

    Example:
        >>> sample = stand_in(Graph((), {}, ("x", "k"), (), {"x": ("N", 3, "H", "W"), "k": ()}, {"k": "int64"}))
        >>> {name: value.shape for name, value in sample.items()}
        {'x': (1, 3, 128, 128), 'k': ()}
    """
    rng, made = np.random.default_rng(0), dict[Name, Array]()
    batch = {shape[0] for name in graph.inputs if (shape := graph.shapes.get(name))} - {None}
    for name in graph.inputs:
        shape, dtype = graph.shapes.get(name), np.dtype(graph.dtypes.get(name, "float32"))
        if shape is None or dtype.kind not in "fiub":
            return None
        sizes = [n if isinstance(n, int) else size if axis and n not in batch else 1 for axis, n in enumerate(shape)]
        made[name] = (rng.normal(size=sizes) if dtype.kind == "f" else np.zeros(sizes)).astype(dtype)
    for name, (rows, axis) in ((name, found) for name in made if (found := row_axis(graph, name))):
        made[name] = np.full_like(made[name], made[rows].shape[axis])
    return made if all(n == 1 for n in entries(graph).values()) else Run(made)
