"""How a network's input is made of pictures: each usual way held against what the network remembers, and its score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..errors import EquintError, InvalidCard, UnusableData
from ..graph.inputs import CHANNELS, layout_of
from ..graph.preparation import BYTES, NORMALISED, SIGNED, UNIT, remembered
from ..ir.events import EventKind
from ..ir.model import Array, Model, Name
from ..maths.chance import apart
from ..onnx.writer import to_proto
from ..runtime.session import Session
from ..runtime.training import Training
from ..samples.card import Card
from ..samples.data import images
from ..samples.generated import tried_sizes
from ..samples.survey import Survey, spread
from ..scoring import metrics
from ..scoring.bench import CLASSIFY
from ..scoring.tasks import Measure, task_of

SHOWN, MEASURED = 16, 100
"""Pictures that are held against BatchNorms, and labelled samples that each way is scored on."""
FITS, CLEARLY = 0.6, 0.2
"""Distance, in spreads and doublings, up to which a way fits BatchNorms, and by how much any other must fit worse. Of
nine networks whose preparation is known it was 0.08 to 0.56, of all other ways 0.5 to 200 and by 0.21 or more worse."""
DECIBELS = 1.0
"""By how much a PSNR must be higher to be higher for sure."""
STEP = 32
"""Pictures of networks that take many sizes are made a multiple of this."""


@dataclass(frozen=True)
class Way:
    """A way to prepare pixels.

    Attributes:
        words: the values that pixels become; mean, std: one for each channel, in pixel units.
        distance: mean over the first BatchNorms of how far pictures so prepared lie from what these saw in training,
            |Δ mean|/σ + |log2 σ'/σ|, medians over channels; None where there are none, or it does not run.
        score: of the float network by the task's measure, on `samples`; None without labels.
    """

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    distance: float | None = None
    score: float | None = None
    samples: int = 0


_USUAL: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float]], ...] = (
    ("0 to 1", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    ("−1 to 1", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    ("normalised by ImageNet's mean and spread", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ("0 to 255", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("0 to 255 less ImageNet's mean", (123.68, 116.78, 103.94), (1.0, 1.0, 1.0)),
)
_WORDS = {UNIT: _USUAL[0][0], SIGNED: _USUAL[1][0], NORMALISED: _USUAL[2][0], BYTES: _USUAL[3][0]}


def ways(channels: int, white: float = 255.0) -> tuple[Way, ...]:
    """The usual ways, for pixels up to the value of white.

    Example:
        >>> [(way.words, way.mean, way.std) for way in ways(1, 16.0)][:2]
        [('0 to 1', (0.0,), (16.0,)), ('−1 to 1', (8.0,), (8.0,))]
    """
    found = []
    for words, mean, std in _USUAL:
        scaled = white / 255 if words in (_USUAL[0][0], _USUAL[1][0]) else 1.0
        if channels == 3 or "ImageNet" not in words:
            m, s = (tuple(round(v * scaled, 6) for v in values[:channels]) for values in (mean, std))
            found.append(Way(words, m, s))
    return tuple(found)


def input_of(model: Model) -> tuple[Name, str, int]:
    """The only input that pictures can be, its layout, and how many channels it has.

    Raises:
        InvalidCard: the network reads several inputs, or no pictures.
    """
    graph = model.graph
    if len(graph.inputs) != 1:
        names = ", ".join(graph.inputs)
        raise InvalidCard(
            f"{model.source or 'the network'}: {len(graph.inputs)} inputs ({names}); give an .npz of arrays so called"
        )
    (name,), shape = graph.inputs, graph.shapes.get(graph.inputs[0])
    layout = layout_of(shape or ())
    channels = shape[CHANNELS[layout]] if shape is not None and len(shape) == 4 else None
    if channels not in (1, 3):
        taken = "of unknown shape" if shape is None else f"({', '.join(str(n or '?') for n in shape)})"
        where = model.source or "the network"
        raise InvalidCard(f"{where}: input {name} {taken} is no picture of 1 or 3 channels; give arrays in an .npz")
    return name, layout, int(channels)


def sizes_tried(model: Model, layout: str, found: Survey) -> Iterator[tuple[int, int] | None]:
    """Sizes to prepare pictures to, the best first; None: each as it is."""
    shape = model.graph.shapes[model.graph.inputs[0]]
    height, width = (
        n if isinstance(n, int) and n > 0 else None for n in (shape[2:] if layout == "nchw" else shape[1:3])
    )
    own_h, own_w = (int(np.median([size[k] for size in found.sizes])) for k in (0, 1))
    if height and width:
        yield height, width
        return
    if height is None and width is None:
        yield None
    scale = height / own_h if height else width / own_w if width else 1.0
    yield height or _stepped(own_h * scale), width or _stepped(own_w * scale)
    for size in tried_sizes(model.graph):
        yield height or size, width or size


def _stepped(size: float) -> int:
    return max(round(size / STEP), 1) * STEP


def running(model: Model, card: Card, found: Survey) -> tuple[Card, Array, dict[Name, Array]]:
    """The card with a size that the network runs on, a picture as it then is, and what the network gives for it.

    Raises:
        UnusableData: it runs on none that was tried; the message is of the first.
    """
    session, refused = Session(to_proto(model.graph)), None
    for size in sizes_tried(model, card.layout or "nchw", found):
        sized = replace(card, size=size)
        given = [np.asarray(x) for x in islice(iter(images(found.calibration, sized, 3, 1)), 3)]
        try:
            return sized, given[0], next(iter([session.run(x) for x in given]))
        except EquintError as error:
            refused = refused or error
    raise UnusableData(f"{found.calibration}: the network runs on no size that was tried ({refused})")


def measured(model: Model, card: Card, tried: Sequence[Way], found: Survey, tell: Callable[[int], None]) -> list[Way]:
    """The ways with their distance from BatchNorms, and their score where there are labels."""
    training, rows = Training(model.graph), []
    scored = found.labelled and card.task in CLASSIFY
    proto = to_proto(model.graph)
    for number, way in enumerate(tried):
        tell(number)
        made = replace(card, mean=way.mean, std=way.std)
        apart = training.apart(images(found.calibration, made, SHOWN))
        way = replace(way, distance=float(np.mean([a.distance for a in apart])) if apart else None)
        if scored or card.task == "super-resolution":
            figures = metrics.evaluate(proto, found.eval, made, optimized=True, limit=MEASURED)
            main = task_of(card.task).main
            assert main is not None
            way = replace(way, score=float(figures[main.key]), samples=int(figures["samples"]))
        rows.append(way)
    return rows


def chosen(rows: Sequence[Way], model: Model, card: Card, classes: int) -> tuple[Way, str, bool]:
    """The way to take, what it stands on, and whether that is clear.

    Args:
        classes: of the network, 0 if it is no classifier.
    """
    name = model.graph.inputs[0]
    if model.graph.dtypes.get(name) == "uint8":
        return rows[-1], f"input {name} takes whole numbers 0 to 255", True
    told = next((row for row in rows if row.words == AS_TOLD), None)
    best, apart = _highest(rows, card)
    if best is not None and apart:
        return best, f"the float network's {_measure(card).title} is highest so", True
    if told is not None:
        return told, "its metadata", True
    near = sorted((row for row in rows if row.distance is not None), key=_distance)
    if near:
        return near[0], *_by_distance(near)
    found = remembered(model.graph, name)
    if found is not None:
        return next(row for row in rows if row.words == _WORDS[found[0]]), f"{found[1]} take such a mean out", True
    if best is not None:
        return best, f"the float network's {_measure(card).title} is highest so, though by no more than chance", False
    usual = _USUAL[2][0] if classes in (1000, 1001) else _USUAL[0][0]
    row = next((row for row in rows if row.words == usual), rows[0])
    return row, "a guess, the usual way: nothing in network or data tells", False


def ordered(model: Model, card: Card, best: Way, found: Survey) -> tuple[Card, str]:
    """The card with the order of channels that the network seems to want, and what speaks for it.

    The labels' score decides where it differs by more than chance, else the distance from BatchNorms where it differs
    clearly; else red, green, blue is taken for granted.
    """
    way = replace(best, mean=best.mean[::-1], std=best.std[::-1])
    (other,) = measured(model, replace(card, kind="bgr"), (way,), found, lambda number: None)
    turned = replace(card, kind="bgr", mean=way.mean, std=way.std)
    if best.score is not None and other.score is not None:
        measure = _measure(card)
        enough = 100 * apart(best.score / 100, other.score / 100, best.samples) if measure.unit == "%" else DECIBELS
        told = f"float {measure.title} {{}} as red, green, blue, {{}} as blue, green, red"
        told = told.format(measure.shown(best.score), measure.shown(other.score))
        if abs(other.score - best.score) > enough:
            return (turned if other.score > best.score else card), told
    if best.distance is not None and other.distance is not None:
        told = f"as red, green, blue {best.distance:.2f} spreads from the BatchNorms, turned {other.distance:.2f}"
        if abs(other.distance - best.distance) > CLEARLY:
            return (turned if other.distance < best.distance else card), told
    return card, 'the usual order, red, green, blue: nothing tells; kind = "bgr" is the other'


def _distance(way: Way) -> float:
    return np.inf if way.distance is None else way.distance


def _measure(card: Card) -> Measure:
    return task_of(card.task).measures[0]


def _highest(rows: Sequence[Way], card: Card) -> tuple[Way | None, bool]:
    """The way of the highest score, and whether no other comes near."""
    scored = sorted(((row.score, row.samples, k) for k, row in enumerate(rows) if row.score is not None), reverse=True)
    if len(scored) < 2 or scored[0][0] == scored[-1][0]:
        return None, False
    (first, samples, k), (second, _, _) = scored[:2]
    enough = 100 * apart(first / 100, second / 100, samples) if _measure(card).unit == "%" else DECIBELS
    return rows[k], first - second > enough


def _by_distance(near: Sequence[Way]) -> tuple[str, bool]:
    """Why the nearest way is taken, and whether that is clear."""
    first, second = _distance(near[0]), _distance(near[1]) if near[1:] else np.inf
    if first >= FITS:
        doubt = "but not near: the pictures may be of another kind, or prepared in another way"
        return f"of these ways nearest to what the first BatchNorms saw in training, {doubt}", False
    if second - first < CLEARLY:
        return f"nearest to what the first BatchNorms saw in training, and “{near[1].words}” almost as near", False
    return "the first BatchNorms saw pictures so in training", True


AS_TOLD = "as the file says"


def told_by_file(model: Model) -> Way | None:
    """The way that a file's metadata name."""
    name = model.graph.inputs[0]
    event = next((e for e in model.log if e.kind is EventKind.INPUT_KNOWN and e.at == name), None)
    if event is None or name not in model.ranges:
        return None
    lo, hi = (np.ravel(v).astype(np.float64) for v in (model.ranges[name].lo, model.ranges[name].hi))
    scale = 255.0 / (hi - lo)
    mean, std = (tuple(round(float(v), 6) for v in values) for values in (-lo * scale, scale))
    return Way(AS_TOLD, mean, std)


def as_it_is(x: Array) -> Card:
    """A card for arrays that are fed as they are."""
    return Card("features", range=spread(x))
