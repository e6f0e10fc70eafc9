"""How good a network is: its task's measures on labelled data, agreement and SQNR against its float original."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from ..errors import InvalidCard, UnreadableModel, UnusableData
from ..files import is_bundle
from ..integers.program import Program
from ..ir.model import Array, Name
from ..maths.chance import Interval, lost_share, mcnemar
from ..samples.card import Card, laid_out
from ..samples.data import count as total
from ..samples.data import feeds, listing
from ..samples.images import Feed, length
from ..samples.presented import Shapes, checked, inputs_of_both
from ..samples.stored import stored
from . import detection, segmentation, super_resolution
from .tally import Tally as Tally
from .tasks import missing, task_of

if TYPE_CHECKING:
    from ..runtime.session import Source

CLASSIFY = frozenset({"classification", "keyword-spotting"})
DECIDE = CLASSIFY | {"segmentation"}
"""Tasks whose networks choose among classes, so that two can agree."""
ARRAYS = (".npz", ".npy")
_PAIRED = {"segmentation": segmentation, "detection": detection, "super-resolution": super_resolution}
"""Tasks whose truth lies beside the pictures."""


class Meter(Protocol):
    """Measures outputs against the truth, batch by batch."""

    def add(self, outputs: Mapping[Name, Array], truths: Any, /) -> None:
        """Take a batch."""

    def results(self) -> dict[str, float]:
        """What was measured, by key."""

    def lost(self, before: Self, /) -> Interval | None:
        """By how much the task's main measure lies under another network's, on the same samples; None: not known."""


@dataclass(frozen=True)
class _Source:
    """Batches of (network input, truth or None), what measures them, and how many pictures have no truth."""

    batches: Iterable[tuple[Feed, Any]]
    meter: Meter | None = None
    unlabelled: int = 0


def evaluate(
    model: Source | Program,
    data: str | os.PathLike[str],
    card: Card,
    against: Source | None = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run a network over data and measure it.

    Args:
        model: ONNX file or model, float or quantized; or a bundle or program for NPUs, which the integer engine runs.
        data: .npz, .npy or folder of pictures, prepared as `card` says; docs/tasks.md says what each task needs.
        against: the float original, for agreement, SQNR and cosine similarity.
        optimized: run as deployed, with onnxruntime's optimizations; off is the reference simulation.
        limit: use only the first so many labelled samples.
        progress: called with the number of samples done, and how many there are.

    Returns:
        samples; unlabelled: pictures left out because nothing says what is on them, if there are any; and, where
        there are labels, top1 and top5, or miou and pixel_accuracy, or map50 and map, all in per cent, or psnr in dB
        and ssim; agreement in per cent, sqnr_db and cosine (of the worst output) against the original; and `chance`,
        as `both` says.

    Raises:
        EquintError: files that cannot be read, shapes that do not fit, or nothing to measure.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> card = Card("gray", (0.0,), (16.0,))
        >>> evaluate(model_path(), data_path(), card, limit=50)["samples"]
        50
    """
    return both(model, data, card, against, optimized=optimized, limit=limit, progress=progress)[0]


def both(
    model: Source | Program,
    data: str | os.PathLike[str],
    card: Card,
    against: Source | None = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What `evaluate` finds, and, where there are labels, the float original's own figures on the same samples.

    Of the first, `chance` tells where figures lie on other samples, in 95 % of cases: the main measure's loss by its
    key (points, or dB), agreement (per cent) and sqnr_db; and `turned`, where classes are right or wrong: how many
    samples became wrong and right, and how likely two equally good networks differ so (McNemar).

    Raises:
        EquintError: as `evaluate`.
    """
    from ..runtime.session import Session

    if is_bundle(against):
        raise UnreadableModel(f"{against}: a bundle; compare with the float ONNX network")
    run, results, inputs = _opened(model, optimized)
    card = laid_out(card, inputs.values())
    reference = Session(against, optimized=True) if against is not None else None
    every_input = inputs if reference is None else inputs_of_both(inputs, reference.shapes)
    source = source_of(Path(data), card, results[0], limit, reference is None, every_input)
    tally, of_float, meter, measured = Tally(), Tally(), source.meter, False
    beside = deepcopy(meter)
    every = 0 if progress is None else count(data, card, limit, every_input)
    for x, truths in source.batches:
        if not all(np.isfinite(v).all() for v in (x.values() if isinstance(x, Mapping) else [x])):
            raise UnusableData(f"{data}: holds values that are not finite; check how the samples are prepared")
        outputs = run(checked(x, inputs, os.fspath(data)))
        tally.samples += length(x)
        expected = None
        if reference is not None:
            expected = reference.run(checked(x, reference.shapes, os.fspath(data)))
            tally.add_reference(outputs, expected, card.task in DECIDE, length(x))
        if truths is not None and card.task in CLASSIFY:
            try:
                tally.add_labels(outputs[results[0]], truths)
                if expected is not None:
                    of_float.add_labels(expected[results[0]], truths)
            except UnusableData as error:
                raise UnusableData(f"{data}: {error}") from error
        elif truths is not None and meter is not None and beside is not None:
            meter.add(outputs, truths)
            measured = True
            if expected is not None:
                beside.add(expected, truths)
        elif reference is None:
            raise UnusableData(f"{data}: no labels for {card.task}; give --against FLOAT.onnx to compare with")
        if progress is not None:
            progress(tally.samples, every)
    left_out = {"unlabelled": source.unlabelled} if source.unlabelled else {}
    found = tally.results() | left_out | (meter.results() if meter is not None and measured else {})
    if reference is None:
        return found, None
    found["chance"] = _chance(tally, of_float, card, (meter, beside) if measured else None)
    if not labelled(card.task, found):
        return found, None
    of_float.samples = tally.samples
    return found, of_float.results() | left_out | (beside.results() if beside is not None and measured else {})


def _chance(tally: Tally, of_float: Tally, card: Card, meters: tuple[Any, Any] | None) -> dict[str, Any]:
    """What the samples tell of others: see `both`."""
    told: dict[str, Any] = {key: tuple(interval) for key, interval in tally.intervals().items()}
    main = task_of(card.task).main
    if main is not None and tally.labelled:
        wrong, right = tally.turned(of_float)
        interval = lost_share(wrong, right, tally.labelled)
        told[main.key] = 100 * interval.low, 100 * interval.high
        told["turned"] = {"wrong": wrong, "right": right, "p": mcnemar(wrong, right)}
    elif main is not None and meters is not None and (lost := meters[0].lost(meters[1])) is not None:
        told[main.key] = tuple(lost)
    return told


def labelled(task: str, found: Mapping[str, Any]) -> bool:
    """Whether what was found holds the figure that labels of the task give."""
    main = task_of(task).main
    return main is not None and main.key in found


def count(data: str | os.PathLike[str], card: Card, limit: int | None = None, inputs: Shapes | None = None) -> int:
    """How many samples `evaluate` will measure of a network with these inputs. Raises EquintError as `evaluate`."""
    path = Path(data)
    if card.task not in _PAIRED or not path.is_dir() or missing(card.task, card.data):
        return total(path, limit, inputs)
    found = len(_PAIRED[card.task].labelled(path, card)[0])
    return found if limit is None else min(found, limit)


def has_labels(data: str | os.PathLike[str], card: Card) -> bool:
    """Whether the task's measure can be taken on data. Raises EquintError: they cannot be read.

    Example:
        >>> from equint.demo import data_path
        >>> has_labels(data_path(), Card()), has_labels(data_path(), Card(task="features"))
        (True, False)
    """
    path, folder = Path(data), Path(data).is_dir()
    if card.task in _PAIRED and folder:
        return not missing(card.task, card.data)
    if card.task not in DECIDE or (card.task == "segmentation" and path.suffix not in ARRAYS):
        return False
    return listing(path)[1] is not None if folder else "y" in stored(path)


def source_of(data: Path, card: Card, output: Name, limit: int | None, alone: bool, inputs: Shapes) -> _Source:
    """Data with what measures them; where the card lacks something, only inputs, unless the network is `alone`."""
    plain = feeds(data, card, inputs, limit=limit)
    if card.task == "segmentation" and data.suffix in ARRAYS:
        return _Source(segmentation.from_arrays(plain, data), segmentation.confusion(output, card))
    lacking = missing(card.task, card.data)
    if alone and lacking:
        keys = " and ".join(lacking)
        raise InvalidCard(f"{data}: the card has no {keys} in [data] to measure {card.task}; add it, or --against")
    if card.task not in _PAIRED or not data.is_dir() or lacking:
        return _Source(plain)
    files: Sequence[Any]
    match card.task:
        case "segmentation":
            files, left = segmentation.labelled(data, card)
            return _Source(segmentation.samples(files[:limit], card), segmentation.confusion(output, card), left)
        case "detection":
            files, left = detection.labelled(data, card)
            return _Source(detection.samples(files[:limit], card), detection.Detections(card), left)
        case _:
            files, left = super_resolution.labelled(data, card)
            meter = super_resolution.Fidelity(output, card)
            return _Source(super_resolution.samples(files[:limit], card), meter, left)


def input_shapes(model: Source | Program) -> Shapes:
    """Shapes of the inputs of a network, a bundle or a program. Raises EquintError: it cannot be read.

    Example:
        >>> from equint.demo import model_path
        >>> input_shapes(model_path())
        {'input': ['N', 1, 8, 8]}
    """
    return _opened(model, False)[2]


def _opened(
    model: Source | Program, optimized: bool
) -> tuple[Callable[[Feed], Mapping[Name, Array]], tuple[Name, ...], Shapes]:
    """What gives a network's real outputs for a batch, their names, and the shapes of its inputs."""
    if is_bundle(model):
        from ..npu.bundle import load_bundle

        model = load_bundle(model)  # type: ignore[arg-type]
    if isinstance(model, Program):
        from ..integers.engine import Engine

        engine = Engine(model)
        return engine.real, model.results, {name: model.shapes.get(name, ()) for name in model.inputs}
    from ..runtime.session import Session

    session = Session(model, optimized)
    return session.run, session.outputs, session.shapes
