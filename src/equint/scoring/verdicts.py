"""A verdict in words on a quantized network: how good it is, what the samples tell of others, and how many decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..errors import UnusableData, counted
from ..maths.chance import Interval, lost_share, needed
from .tasks import Measure, Task, task_of

Level = Literal["good", "usable", "poor", "broken"]
LEVELS: tuple[Level, ...] = get_args(Level)
Status = Literal["decided", "undecided", "unknown", "made up", "not measured"]
ALONE = 0.05
"""Two equally good networks differ as far in one of so many trials: rarer differences are not taken for chance."""
GUESSED = (
    "; but the float network itself is right no more than by guessing: if the labels are numbered in another order, "
    "list the classes in the card's `labels`, else correct how its input is prepared"
)
"""Said where the float network's hits are guesses: then losses tell nothing."""
MOST = 1_000_000
"""More samples than these are not counted."""


@dataclass(frozen=True)
class Verdict:
    """How good a quantized network is, and how surely.

    Attributes:
        level: good, usable, poor or broken, as measured; None where nothing was.
        words: the sentence that people read.
        status: `decided`: other samples would show the same level in 95 % of cases; `undecided`: they may show another;
            `unknown`: nothing tells what chance adds, as of one sample; `made up`: measured on made-up samples, which
            tell what samples of the user's own would show roughly; `not measured`.
        figure: the key of what was measured that the level stands on, as `top1`, `agreement` or `sqnr_db`.
        chance: where that figure lies on other samples, in 95 % of cases: points or dB lost, per cent, or dB; None
            where nothing tells.
        samples: measured on; needed: so many more are likely to decide, 0 where they do; None where no number would.
    """

    level: Level | None
    words: str
    status: Status
    figure: str = ""
    chance: tuple[float, float] | None = None
    samples: int = 0
    needed: int | None = None

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)

    def but(self, more: str) -> Verdict:
        """The same with more words."""
        return replace(self, words=self.words + more)


def verdict(task: Task | str, found: Mapping[str, Any], original: Mapping[str, Any] | None = None) -> Verdict:
    """How good a quantized network is, in a word and a sentence, with what the samples tell and what they do not.

    With both figures of the task's main measure the loss decides; else, in this order, agreement where decisions mean
    something, and SQNR of the worst output.

    Args:
        found: what `evaluate` found: figures by key, and in `chance` what is known of other samples.
        original: what it found for the float original.

    Raises:
        EquintError: unknown task, nothing measured, or two networks that were measured on different samples.

    Example:
        >>> turned = {"wrong": 14, "right": 10, "p": 0.54}
        >>> figures = {"samples": 400, "top1": 55.0, "chance": {"top1": (-1.5, 3.5), "turned": turned}}
        >>> told = verdict("classification", figures, {"samples": 400, "top1": 56.0})
        >>> told.level, told.status, told.needed
        ('usable', 'undecided', 9600)
        >>> print(told.words)
        usable, though 400 samples cannot tell it from good or poor: 1.0 points of top-1 lost (56.0 to 55.0 %; of 400 \
samples 14 turned wrong and 10 right, a difference that chance alone makes); on others like them 1.5 points gained to \
3.5 lost; about 9,600 more samples would decide
        >>> verdict("super-resolution", {"psnr": 33.51}, {"psnr": 33.54}).words
        'good: 0.03 dB of PSNR lost (33.54 to 33.51 dB)'
        >>> verdict("super-resolution", {"sqnr_db": 30.0}).level
        'poor'
    """
    task = task_of(task)
    samples = int(found.get("samples", 0))
    if original is not None and original.get("samples", samples) != samples:
        counts = f"{original['samples']} and {samples}"
        raise UnusableData(f"the two networks were measured on {counts} samples; measure both on the same ones")
    known = found.get("chance", {})
    if math.isnan(found.get("sqnr_db", 0.0)):
        return Verdict("broken", "broken: its outputs, or the float network's, are not finite", "decided", "sqnr_db")
    if task.main is not None and task.main.key in found and original is not None and task.main.key in original:
        return _of_loss(task, task.main, original[task.main.key], found[task.main.key], known, samples)
    if "agreement" in found and task.agreement is not None:
        also = f"; output SQNR {decibels(found['sqnr_db'])}" if "sqnr_db" in found else ""
        of = f" of {counted(samples, 'sample')}" if samples else " of cases"
        said = f"the same decision as the float network in {found['agreement']:.1f} %{of}{also}"
        bounds = task.agreement
        return _above("agreement", found["agreement"], bounds, known.get("agreement"), samples, said, "%")
    if "sqnr_db" in found:
        return of_sqnr(task, found["sqnr_db"], known.get("sqnr_db"), samples)
    raise UnusableData(f"nothing measured that tells how good a {task.name} network is; compare it with its original")


def of_sqnr(task: Task | str, reached: float, likely: Sequence[float] | None, samples: int) -> Verdict:
    """A verdict from the SQNR of the worst output alone, in dB; `likely`: where it lies on other samples.

    Example:
        >>> print(of_sqnr("features", 33.0, (31.0, 35.0), 64).words)
        good: output SQNR 33.0 dB on 64 samples (good from 30 dB, usable from 20 dB); on others like them 31.0 to 35.0 \
dB
    """
    task = task_of(task)
    on = f" on {counted(samples, 'sample')}" if samples else ""
    said = f"output SQNR {decibels(reached)}{on} (good from {task.sqnr[0]:g} dB, usable from {task.sqnr[1]:g} dB)"
    return _above("sqnr_db", reached, task.sqnr, likely, samples, said, "dB")


def on_made_up(task: Task | str, reached: float, samples: int, agreement: float | None = None) -> Verdict:
    """A verdict from made-up samples: output SQNR in dB, and the per cent of equal decisions where there are any.

    Example:
        >>> print(on_made_up("classification", 30.2, 16).words)
        good, as far as 16 made-up samples tell: output SQNR 30.2 dB; samples of your own decide
    """
    task = task_of(task)
    level = _level(-reached, [-bound for bound in task.sqnr])
    same = f", the same best class in {agreement:.0f} %" if agreement is not None else ""
    tell = "tells" if samples == 1 else "tell"
    words = f"{level}, as far as {counted(samples, 'made-up sample')} {tell}: output SQNR {decibels(reached)}{same}"
    return Verdict(level, f"{words}; samples of your own decide", "made up", "sqnr_db", None, samples)


def of_drop(lost: float, samples: int) -> Verdict:
    """A verdict from points of top-1 lost on so many samples, of which nothing else is kept.

    At least so many samples turned wrong; the interval is that of as many and no others (`lost_share`).

    Example:
        >>> of_drop(1.0, 500).words.partition(";")[0]
        'usable, though 500 samples cannot tell it from good or poor: 1.0 points of top-1 lost on 500 samples'
    """
    turned = round(abs(lost) / 100 * samples)
    low, high = lost_share(turned if lost > 0 else 0, turned if lost < 0 else 0, samples)
    task, likely = task_of("classification"), (100 * low, 100 * high)
    assert task.main is not None
    said = f"{_change(lost, task.main)} of top-1 {'gained' if lost < 0 else 'lost'} on {counted(samples, 'sample')}"
    between = _between(likely, task.main, "points")
    return _decided("top1", lost, task.drops, likely, samples, said, between, strict=True)


def not_measured(why: str = "") -> Verdict:
    """A verdict where nothing could be measured.

    Example:
        >>> not_measured("one sample alone tells nothing").words
        'not measured: one sample alone tells nothing'
    """
    return Verdict(None, f"not measured: {why}" if why else "not measured", "not measured")


def _of_loss(task: Task, main: Measure, before: float, after: float, known: Mapping[str, Any], samples: int) -> Verdict:
    lost = 0.0 if before == after else round(before - after, 9)
    unit = "points" if main.unit == "%" else main.unit
    said = f"{_change(lost, main)} of {main.title} {'gained' if round(lost, main.decimals) < 0 else 'lost'}"
    facts = f"{before:.{main.decimals}f} to {main.shown(after)}"
    if turned := known.get("turned"):
        alone = (
            ", a difference that chance alone makes"
            if turned["wrong"] != turned["right"] and turned["p"] > ALONE
            else ""
        )
        facts += f"; of {counted(samples, 'sample')} {turned['wrong']} turned wrong and {turned['right']} right{alone}"
    elif samples:
        facts += f"; {counted(samples, 'sample')}"
    likely = known.get(main.key)
    between = "" if likely is None else _between(likely, main, unit)
    told = _decided(main.key, lost, task.drops, likely, samples, f"{said} ({facts})", between, strict=True)
    return told.but(GUESSED) if known.get("guessed") else told


def _above(
    key: str,
    value: float,
    bounds: Sequence[float],
    likely: Sequence[float] | None,
    samples: int,
    said: str,
    unit: str,
) -> Verdict:
    """Of a figure that is better where it is greater."""
    between = "" if likely is None or math.isinf(likely[0]) else f"{likely[0]:.1f} to {likely[1]:.1f} {unit}"
    turned = None if likely is None else (-likely[1], -likely[0])
    told = _decided(key, -value, [-bound for bound in bounds], turned, samples, said, between)
    return told if likely is None else replace(told, chance=(likely[0], likely[1]))


def _decided(
    key: str,
    value: float,
    bounds: Sequence[float],
    likely: Sequence[float] | None,
    samples: int,
    said: str,
    between: str,
    strict: bool = False,
) -> Verdict:
    """The verdict on a value that is better where it is less, and what its interval says of its level."""
    level = _level(value, bounds, strict)
    if likely is None:
        told = f"; nothing tells what {'it is' if samples == 1 else 'they are'} on others" if samples else ""
        return Verdict(level, f"{level}: {said}{told}", "unknown", key, None, samples)
    ends = [LEVELS.index(_level(end, bounds, strict)) for end in likely]
    first, last = min(*ends, LEVELS.index(level)), max(*ends, LEVELS.index(level))
    others = f"; on others like them {between}" if between else ""
    chance = float(likely[0]), float(likely[1])
    if first == last:
        return Verdict(level, f"{level}: {said}{others}", "decided", key, chance, samples, 0)
    edges, k = (-math.inf, *bounds, math.inf), LEVELS.index(level)
    more = needed(value, Interval(*chance), Interval(edges[k], edges[k + 1]), samples)
    many = None if more > MOST else _rounded(more)
    reached = " or ".join(LEVELS[end] for end in (first, last) if end != k)
    doubt = f"{level}, though {counted(samples, 'sample')} cannot tell it from {reached}"
    todo = "no number of samples that one collects" if many is None else f"about {counted(many, 'more sample')}"
    return Verdict(level, f"{doubt}: {said}{others}; {todo} would decide", "undecided", key, chance, samples, many)


def _change(lost: float, main: Measure) -> str:
    size = f"{abs(lost):.{main.decimals}f}"
    noun = ("point" if size == "1" else "points") if main.unit == "%" else main.unit
    return f"{size} {noun}"


def _between(likely: Sequence[float], main: Measure, unit: str) -> str:
    """Where a loss lies: both ends lost, both gained, or from gained to lost."""
    low, high = (round(end, main.decimals) + 0.0 for end in likely)
    if low < 0 < high:
        return f"{-low:.{main.decimals}f} {unit} gained to {high:.{main.decimals}f} lost"
    ends = sorted((abs(low), abs(high)))
    return (
        f"{ends[0]:.{main.decimals}f} to {ends[1]:.{main.decimals}f} {unit} {'gained' if high <= 0 > low else 'lost'}"
    )


def _rounded(count: float) -> int:
    """Up, to two digits that count.

    Example:
        >>> _rounded(9535), _rounded(101), _rounded(7)
        (9600, 110, 7)
    """
    step = int("1" + "0" * (len(str(int(count))) - 2)) if count >= 10 else 1
    return math.ceil(count / step) * step


def _level(value: float, bounds: Sequence[float], strict: bool = False) -> Level:
    """The first level whose bound the value stays under (or at, unless `strict`)."""
    return next((n for n, b in zip(LEVELS, bounds, strict=False) if value < b or (value == b and not strict)), "broken")


def decibels(value: float) -> str:
    """An SQNR for people.

    Example:
        >>> decibels(30.24), decibels(math.inf)
        ('30.2 dB', 'exact')
    """
    return "exact" if value == math.inf else f"{value:.1f} dB"
