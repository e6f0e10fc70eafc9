"""How good a network is: its task's measures on labelled data, agreement and SQNR against its float original."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..crew.workers import Alone, Crew, in_order
from ..errors import InvalidCard, UnreadableModel
from ..files import is_bundle
from ..integers.program import Program
from ..ir.model import Array, Name
from ..maths.chance import lost_share, mcnemar
from ..runtime.machine import Machine, here, on
from ..samples.card import Card, laid_out
from ..samples.data import count as total
from ..samples.data import feeds, is_labelled
from ..samples.images import SPAN, Feed
from ..samples.presented import Shapes, checked, inputs_of_both
from ..samples.spans import Span, spans
from . import detection, segmentation, super_resolution
from .bench import DECIDE, Bench, Meter, Part
from .bench import Source as Labelled
from .tally import Tally as Tally
from .tasks import missing, task_of

if TYPE_CHECKING:
    from ..runtime.session import Source

ALONE = Alone()
ARRAYS = (".npz", ".npy")
_PAIRED = {"segmentation": segmentation, "detection": detection, "super-resolution": super_resolution}
"""Tasks whose truth lies beside the pictures."""


@dataclass(frozen=True)
class _Evaluation:
    """What is to be measured, as it is sent to those who do it: see `evaluate`.

    Attributes:
        together: whether network and original take several samples at once, where that is known.
        ranges: of inputs, which the network is quantized for.
    """

    model: Source | Program
    data: str
    card: Card
    against: Source | None
    optimized: bool
    limit: int | None
    machine: Machine
    together: tuple[bool | None, bool | None] = (None, None)
    ranges: Mapping[Name, tuple[float, float]] = field(default_factory=dict)


def evaluate(
    model: Source | Program,
    data: str | os.PathLike[str],
    card: Card,
    against: Source | None = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    crew: Crew = ALONE,
) -> dict[str, Any]:
    """Run a network over data and measure it.

    Args:
        model: ONNX file or model, float or quantized; or a bundle or program for NPUs, which the integer engine runs.
        data: .npz, .npy or folder of pictures, prepared as `card` says; docs/tasks.md says what each task needs.
        against: the float original, for agreement, SQNR and cosine similarity.
        optimized: run as deployed, with onnxruntime's optimizations; off is the reference simulation.
        limit: use only the first so many labelled samples.
        progress: called with the number of samples done, and how many there are.
        crew: who does it, span by span; what is found is the same.

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
    return both(model, data, card, against, optimized=optimized, limit=limit, progress=progress, crew=crew)[0]


def both(
    model: Source | Program,
    data: str | os.PathLike[str],
    card: Card,
    against: Source | None = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    crew: Crew = ALONE,
    ranges: Mapping[Name, tuple[float, float]] | None = None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What `evaluate` finds, and, where there are labels, the float original's own figures on the same samples.

    Of the first, `chance` tells where figures lie on other samples, in 95 % of cases: the main measure's loss by its
    key (points, or dB), agreement (per cent) and sqnr_db; and `turned`, where classes are right or wrong: how many
    samples became wrong and right, and how likely two equally good networks differ so (McNemar); `guessed`, where the
    float network hits labels no better than guessing would. `warnings`, where samples lie outside `ranges`, which
    the network is quantized for.

    Raises:
        EquintError: as `evaluate`.
    """
    asked = _Evaluation(model, os.fspath(data), card, against, optimized, limit, replace(here(), threads=crew.threads))
    asked = replace(asked, ranges=ranges or {})
    alone, found = isinstance(crew, Alone), Part()
    bench, sessions = _benched(asked)
    every = None if alone and progress is None else count(data, card, limit, bench.known)

    def told(done: int) -> None:
        if progress is not None and every is not None:
            progress(done, every)

    if alone:
        own = replace(bench, told=told)
        parts = in_order(crew, Bench.measuring, own, spans(every or None))
    else:
        parts = in_order(crew, _measuring, replace(asked, together=_together(bench, sessions)), spans(every or None))
    for part in parts:
        found.merge(part)
        if not alone:
            told(found.samples)
        if part.samples == 0 or found.samples % SPAN:
            break
    left_out = {"unlabelled": bench.source.unlabelled} if bench.source.unlabelled else {}
    figures = found.own.results() | left_out
    if doubts := list(found.seen.warnings()):
        figures["warnings"] = doubts
    if against is None:
        return figures, None
    figures["chance"] = _chance(found, card.task)
    if not labelled(card.task, figures):
        return figures, None
    found.original.tally.samples = found.samples
    return figures, found.original.results() | left_out


def _measuring(asked: _Evaluation) -> Callable[[Span], Part]:
    """What measures spans of the data, for a crew."""
    return _benched(asked)[0].measuring()


def _benched(asked: _Evaluation) -> tuple[Bench, Sequence[Any]]:
    """The network beside the data, and the sessions that run it and its original."""
    from ..runtime.session import Session

    if is_bundle(asked.against):
        raise UnreadableModel(f"{asked.against}: a bundle; compare with the float ONNX network")
    with on(asked.machine):
        run, results, inputs = _opened(asked.model, asked.optimized, asked.together[0])
        original = None if asked.against is None else Session(asked.against, True, together=asked.together[1])
    card = laid_out(asked.card, inputs.values())
    every = inputs if original is None else inputs_of_both(inputs, original.shapes)
    source = source_of(Path(asked.data), card, results[0], asked.limit, original is None, every)
    reference = None if original is None else lambda x: original.run(checked(x, original.shapes, asked.data))
    bench = Bench(
        run,
        results,
        inputs,
        source,
        asked.data,
        card.task,
        every,
        reference,
        alone=original is None,
        ranges=asked.ranges,
    )
    return bench, (getattr(run, "__self__", None), original)


def _together(bench: Bench, sessions: Sequence[Any]) -> tuple[bool | None, bool | None]:
    """Whether the networks take several samples at once, as the first batch tells: the same for all who measure."""
    for x, _ in islice(bench.source.since(0), 1):
        bench.run(checked(x, bench.inputs, bench.label))
        if bench.reference is not None:
            bench.reference(x)
    first, second = (getattr(session, "together", None) for session in sessions)
    return first, second


def _chance(found: Part, task: str) -> dict[str, Any]:
    """What the samples tell of others: see `both`."""
    own, original = found.own, found.original
    told: dict[str, Any] = {key: tuple(interval) for key, interval in own.tally.intervals().items()}
    main = task_of(task).main
    if main is not None and own.tally.labelled:
        wrong, right = own.tally.turned(original.tally)
        interval = lost_share(wrong, right, own.tally.labelled)
        told[main.key] = 100 * interval.low, 100 * interval.high
        told["turned"] = {"wrong": wrong, "right": right, "p": mcnemar(wrong, right)}
        told |= {"guessed": True} if original.tally.guessed else {}
    elif main is not None and own.meter is not None and original.meter is not None:
        lost = own.meter.lost(original.meter)
        told |= {} if lost is None else {main.key: tuple(lost)}
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
    return is_labelled(path)


def unscored(data: str | os.PathLike[str], card: Card) -> str:
    """Why the task's measure is not taken on data that were read; empty where it is, or where nothing speaks for it.

    Example:
        >>> from equint.demo import data_path
        >>> unscored(data_path(), Card(task="detection"))
        'not scored as detection: the card has no boxes and heads or priors in [data], and labels of classes are none'
        >>> unscored(data_path(), Card(task="features"))
        'not scored: labels of classes tell nothing of task features; correct the task in the card'
    """
    if has_labels(data, card):
        return ""
    labelled, lacking = is_labelled(Path(data)), " and ".join(missing(card.task, card.data))
    if lacking:
        others = ", and labels of classes are none" if labelled else ""
        return f"not scored as {card.task}: the card has no {lacking} in [data]{others}"
    return (
        f"not scored: labels of classes tell nothing of task {card.task}; correct the task in the card"
        if labelled
        else ""
    )


def source_of(data: Path, card: Card, output: Name, limit: int | None, alone: bool, inputs: Shapes) -> Labelled:
    """Data with what measures them; where the card lacks something, only inputs, unless the network is `alone`."""

    def plain(start: int) -> Iterator[tuple[Feed, Array | None]]:
        return feeds(data, card, inputs, limit=limit, start=start)

    if card.task == "segmentation" and data.suffix in ARRAYS:
        masked = lambda start: segmentation.from_arrays(plain(start), data)
        return Labelled(masked, lambda: segmentation.confusion(output, card))
    lacking = missing(card.task, card.data)
    if alone and lacking:
        keys = " and ".join(lacking)
        raise InvalidCard(f"{data}: the card has no {keys} in [data] to measure {card.task}; add it, or --against")
    if card.task not in _PAIRED or not data.is_dir() or lacking:
        return Labelled(plain)
    paired: Any = _PAIRED[card.task]
    meter: Callable[[], Meter]
    match card.task:
        case "segmentation":
            meter = lambda: segmentation.confusion(output, card)
        case "detection":
            meter = lambda: detection.Detections(card)
        case _:
            meter = lambda: super_resolution.Fidelity(output, card)
    files, left = paired.labelled(data, card)
    meter()  # what it lacks is said before anything runs
    return Labelled(lambda start: paired.samples(files[start:limit], card), meter, left)


def input_shapes(model: Source | Program) -> Shapes:
    """Shapes of the inputs of a network, a bundle or a program. Raises EquintError: it cannot be read.

    Example:
        >>> from equint.demo import model_path
        >>> input_shapes(model_path())
        {'input': ['N', 1, 8, 8]}
    """
    return _opened(model, False)[2]


def _opened(
    model: Source | Program, optimized: bool, together: bool | None = None
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

    session = Session(model, optimized, together=together)
    return session.run, session.outputs, session.shapes
