"""Cards: a small TOML file that travels with a network and says how its input is made and its output read.

docs/cards.md describes every key.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import EquintError, InvalidCard, InvalidOption, UnknownName
from ..files import MOST_TEXT, read_toml, readable
from ..graph import inputs
from ..ir.model import Model

CHANNELS_OF = {"rgb": 3, "bgr": 3, "gray": 1}
"""Kinds of pixels, and how many channels each has."""
KINDS = (*CHANNELS_OF, "features")
LAYOUTS = ("nchw", "nhwc")
"""Where the channels of pictures lie."""
TASKS = ("classification", "keyword-spotting", "segmentation", "detection", "super-resolution", "features")
"""What networks are for; `equint.scoring.tasks` says how each is measured."""
PATHS = frozenset({"eval", "calibration", "masks", "boxes", "heads", "priors", "low", "list"})
"""Keys of [data] that name a file or folder, relative to the card."""
FARTHEST = 1e12
"""No mean, deviation or bound of an input lies farther from 0, and no deviation nearer than its inverse."""
MOST_PIXELS = 1 << 26
"""Of a picture: it is unpacked as a whole, and its numbers take twelve bytes a pixel."""
WHOLE = {"ignore": 0, "classes": 1, "scale": 1, "border": 0}
"""Keys of [data] that are whole numbers, and the least each can be."""


@dataclass(frozen=True)
class Decode:
    """How a detector's outputs become boxes.

    Attributes:
        score: boxes that score less are dropped.
        iou: of two boxes of one class that overlap more than this, the better one stays.
        most: boxes kept per picture.
        variances: of an SSD's box offsets (centre, size).
        probabilities: an SSD's scores are probabilities already, not logits.
        scores, boxes: names of an SSD's outputs, where their shapes do not tell.
    """

    score: float = 0.01
    iou: float = 0.45
    most: int = 100
    variances: tuple[float, float] = (0.1, 0.2)
    probabilities: bool = False
    scores: str = ""
    boxes: str = ""


@dataclass(frozen=True)
class Card:
    """How a network's input is made, where its data lie, and what its output means.

    Attributes:
        kind: "rgb", "bgr" (channels in that order), "gray" (pixels 0 to 255, then (x − mean)/std) or "features" (fed as
            they are).
        mean, std: per channel, in the network's order, in pixel units.
        size: (height, width), or None to keep the images'.
        range: lowest and highest value of the network's input, where known.
        task: one of `TASKS`.
        data: [data] of the card, paths already joined to its folder.
        decode: how a detector's outputs become boxes.
        labels: names of the classes, in the order of the network's outputs.
        layout: "nchw" or "nhwc", or None: as the network's input says.

    Example:
        >>> Card("gray", (0.0,), (255.0,), task="super-resolution", data={"scale": 2}).data["scale"]
        2
    """

    kind: str = "features"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    task: str = "classification"
    data: Mapping[str, Any] = field(default_factory=dict)
    decode: Decode = Decode()
    labels: tuple[str, ...] = ()
    layout: str | None = None


Input = Card | str | os.PathLike[str] | Sequence[float] | None
"""What a network's input looks like: a card, its path, or its lowest and highest value."""


def named_files(path: Path) -> dict[str, Path]:
    """The network, data and other files that a card names, by key; nothing of a file that is no card."""
    if path.suffix != ".toml" or not path.is_file():
        return {}
    table = read_toml(path, "card")
    section = table.get("data")
    own = {key: table.get(key) for key in ("model", "labels")}
    named = {**(section if isinstance(section, dict) else {}), **own}
    return {key: path.parent / value for key, value in named.items() if isinstance(value, str) and "\0" not in value}


TABLES = frozenset({"task", "input", "data", "decode", "labels", "model"})
"""What a card holds at its top; others are the user's own, but for those that look like misspelt ones."""


_INPUT = frozenset({"kind", "mean", "std", "size", "range", "layout"})


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read a card.

    Raises:
        EquintError: missing file, not TOML, or values that make no sense, naming the key.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "net.toml"
        ...     _ = file.write_text('task = "segmentation"\\n[data]\\nmasks = "masks"')
        ...     card = read_card(file)
        >>> card.task, card.data["masks"].name
        ('segmentation', 'masks')
    """
    path = Path(path)
    table = read_toml(path, "card")
    for name in sorted(table.keys() - TABLES):
        if name in _INPUT:
            raise InvalidCard(f"{path}: {name} stands outside [input]; put it under that heading")
        meant = get_close_matches(name, TABLES, 1, 0.8)
        if meant:
            raise UnknownName(f"{path}: unknown table or key {name}; did you mean {meant[0]}?")
    given = _section(path, table, "input", set(_INPUT))
    kind = given.get("kind", "rgb")
    if kind not in KINDS:
        raise InvalidCard(f"{path}: kind = {kind!r}; choose {', '.join(KINDS)}")
    channels = CHANNELS_OF.get(kind, 0)
    mean = _numbers(path, given, "mean", [0.0] * channels)
    std = _numbers(path, given, "std", [1.0] * channels)
    if len(mean) != len(std) or (channels and len(mean) not in (1, channels)) or any(s < 1 / FARTHEST for s in std):
        raise InvalidCard(f"{path}: mean and std need {channels or 'as many'} numbers each, std above 0")
    size, span = _numbers(path, given, "size", []), _numbers(path, given, "range", [])
    if len(size) not in (0, 2) or any(s < 1 or s % 1 for s in size) or math.prod(size) > MOST_PIXELS:
        raise InvalidCard(f"{path}: size must be [height, width], whole numbers, {MOST_PIXELS:,} pixels at most")
    if len(span) not in (0, 2) or (span and span[0] >= span[1]):
        raise InvalidCard(f"{path}: range must be [low, high]")
    layout = given.get("layout")
    if layout is not None and layout not in LAYOUTS:
        raise InvalidCard(f"{path}: layout = {layout!r}; choose {', '.join(LAYOUTS)}")
    task = table.get("task", TASKS[0])
    if task not in TASKS:
        raise InvalidCard(f"{path}: task = {task!r}; choose {', '.join(TASKS)} (features: anything else)")
    sized = (int(size[0]), int(size[1])) if size else None
    between = (span[0], span[1]) if span else None
    data, decode, labels = _data(path, table), _decode(path, table), _labels(path, table.get("labels", ()))
    return Card(kind, mean, std, sized, between, task, data, decode, labels, layout)


def laid_out(card: Card, shapes: Iterable[Sequence[int | str | None] | None]) -> Card:
    """The card with the layout of the network's only input, where that has four dimensions.

    Raises:
        InvalidCard: the card names another layout or size than the input can have.

    Example:
        >>> laid_out(Card("rgb"), [("N", 50, 155, 3)]).layout
        'nhwc'
    """
    only = list(shapes)
    shape = only[0] if len(only) == 1 else None
    if shape is None or len(shape) != 4:
        return card
    layout, sizes = card.layout or inputs.layout_of(shape), ", ".join(str(n or "?") for n in shape)
    axis = inputs.CHANNELS[layout]
    channels = CHANNELS_OF.get(card.kind)
    if card.layout and channels is not None and isinstance(shape[axis], int) and shape[axis] != channels:
        raise InvalidCard(
            f"layout {layout}: the network's input ({sizes}) has {shape[axis]} channels there; correct it"
        )
    fixed = [n for d, n in enumerate(shape) if d not in (0, axis)]
    if card.size and any(isinstance(n, int) and n > 0 and n != m for n, m in zip(fixed, card.size, strict=True)):
        raise InvalidCard(f"size = {list(card.size)}: the network's input ({sizes}) is of another; correct size")
    return replace(card, layout=layout)


def described(model: Model, given: Input) -> Model:
    """The model with what is known of its input: from a card, its path, or the lowest and highest value."""
    if isinstance(given, (str, os.PathLike)):
        given = read_card(given)
    if given is None:
        return inputs.infer_input(model)
    if not isinstance(given, Card):
        pair = isinstance(given, Sequence) and not isinstance(given, bytes) and len(given) == 2
        if not pair or not all(isinstance(v, Real) for v in given):
            raise InvalidOption(f"input = {given!r}: give a card, its path, or the lowest and the highest value")
        return inputs.describe_range(model, float(given[0]), float(given[1]))
    if given.range is not None:
        return inputs.describe_range(model, *given.range)
    if given.kind != "features":
        return inputs.describe_pixels(model, given.mean or (0.0,), given.std or (1.0,), given.layout)
    return inputs.infer_input(model, inputs.FEATURE_REACH, pictures=False)


def _section(path: Path, table: Mapping[str, Any], name: str, known: set[str] | None = None) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise InvalidCard(f"{path}: [{name}] must be a table")
    unknown = set() if known is None else set(section) - known
    if unknown:
        raise UnknownName(f"{path}: unknown key {min(unknown)} in [{name}]; known are {', '.join(sorted(known or ()))}")
    return section


def _data(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    data = _section(path, table, "data")
    for key, least in WHOLE.items():
        value = data.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidCard(f"{path}: {key} must be a whole number from {least}, not {value!r}")
    for key in PATHS & set(data):
        if not isinstance(data[key], str) or not data[key] or "\0" in data[key]:
            raise InvalidCard(f"{path}: {key} must be the path of a file or folder, not {data[key]!r}")
    return {k: path.parent / v if k in PATHS else v for k, v in data.items()}


_ASKED = {float: "a number from 0 to 1", int: "a whole number above 0", bool: "true or false", str: "a name"}


def _decode(path: Path, table: Mapping[str, Any]) -> Decode:
    default = Decode()
    given = _section(path, table, "decode", set(Decode.__dataclass_fields__))
    values: dict[str, Any] = {}
    for key, value in given.items():
        like = getattr(default, key)
        if isinstance(like, tuple):
            values[key] = _numbers(path, given, key, [])
            if len(values[key]) != 2 or min(values[key]) <= 0:
                raise InvalidCard(f"{path}: {key} must be two numbers above 0")
        elif isinstance(like, float) and isinstance(value, (int, float)) and 0 <= value <= 1:
            values[key] = float(value)
        elif not isinstance(like, float) and type(value) is type(like) and (key != "most" or value > 0):
            values[key] = value
        else:
            raise InvalidCard(f"{path}: {key} in [decode] must be {_ASKED[type(like)]}, not {value!r}")
    return Decode(**values)


def _labels(path: Path, given: Any) -> tuple[str, ...]:
    """Names listed in the card, or in a text file with one name per line."""
    if isinstance(given, str):
        try:
            file = readable(path.parent / given, InvalidCard, "list of names", MOST_TEXT)
            given = file.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError, EquintError) as error:
            why = str(error)[:200]
            raise InvalidCard(f"{path}: labels = {given!r} cannot be read ({why}); correct labels") from error
        given = [line.strip() for line in given if line.strip()]
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        raise InvalidCard(f"{path}: labels must be a list of names, or a text file with one name per line")
    return tuple(given)


def _numbers(path: Path, table: Mapping[str, Any], key: str, absent: list[float]) -> tuple[float, ...]:
    value = table.get(key, absent)
    value = [value] if type(value) in (int, float) else value
    if not isinstance(value, list) or not all(type(v) in (int, float) and abs(v) <= FARTHEST for v in value):
        raise InvalidCard(f"{path}: {key} must be a list of numbers, none beyond {FARTHEST:g}")
    return tuple(float(v) for v in value)
