"""What needs no choices: a network quantized, measured and judged at one call, and a card proposed for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Named, Providers, check
from .comparisons import Evaluation, evaluate, judge
from .errors import EquintError, InvalidOption
from .files import jsonable
from .frontends.sources import load
from .hardware.target import Target
from .ir.events import EventKind
from .ir.model import Model
from .job import EFFORTS, Effort, Job
from .markup import block
from .planning.recipe import variants
from .planning.run import Progress
from .result import Result, quantized
from .samples.card import Card
from .studies import lint, report

if TYPE_CHECKING:
    from .hardware.lint import Findings
    from .runtime.judge import Judgement
    from .scoring.verdicts import Verdict
    from .study.explain import Explanation
    from .study.mixed import Bounded, Mixed
    from .study.proposal import Proposal

MEASURED = 400
"""Samples that the result is measured on, at most."""
NAME = "quantized"


@dataclass(frozen=True)
class Automatic:
    """A quantized network, and all that tells how good it is.

    Attributes:
        result: the quantized network; findings: what its target refuses.
        evaluation: measured on the data, with a verdict; judgement: on made-up samples, where there are no data.
        explanation: where its noise comes from, predicted; None where that cannot be told.
        proposal: the card that was proposed, where data came without one.
        max_drop: what may be lost, in points of the task's measure; drop: what is; mixed: what was spent for it.
        others: whether it was measured on other samples than those that it was made of; limit: on so many at most.
        total: samples that the data hold, where that is known.
        notes: what could not be done, and why.
    """

    result: Result
    findings: Findings
    evaluation: Evaluation | None = None
    judgement: Judgement | None = None
    explanation: Explanation | None = None
    proposal: Proposal | None = None
    max_drop: float | None = None
    drop: float | None = None
    mixed: Mixed | None = None
    others: bool = True
    limit: int = MEASURED
    total: int | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = f"target={self.result.target!r}, held={self.held}, clean={self.findings.clean}"
        return f"Automatic({shown}, measured={self.evaluation or self.judgement})"

    @property
    def held(self) -> bool | None:
        """Whether no more is lost than `max_drop`; None where nothing was asked for."""
        return None if self.max_drop is None or self.drop is None else self.drop <= self.max_drop

    @property
    def judged(self) -> Verdict:
        """What it loses, and what the samples tell of others."""
        from .pages.story import contradicted, on_shown
        from .scoring.verdicts import not_measured

        guessed = contradicted(self.result.warnings) or self._guessed()
        if self.evaluation is not None and self.evaluation.verdict is not None:
            same = "; measured on samples that it was also calibrated with: too few are given to part them"
            same = "" if self.others else same
            unscored = f"; {self.notes[0]}" if self.notes else ""
            return self.evaluation.verdict.but(same + self._bound() + unscored + guessed)
        if self.judgement is not None:
            return on_shown(self.judgement, NAME, self.result.model).but(guessed)
        return not_measured(self.notes[0] if self.notes else "")

    @property
    def verdict(self) -> str:
        """`judged` in a sentence."""
        return self.judged.words

    def _guessed(self) -> str:
        if self.proposal is None or self.proposal.clear:
            return ""
        return "; how its input is prepared was guessed, and all this holds only if that is right"

    def _bound(self) -> str:
        """Whether no more was lost than asked for, and whether that holds of other samples."""
        if self.held is None or self.max_drop is None or self.evaluation is None:
            return ""
        asked = f"; max-drop {self.max_drop:g}"
        if not self.held:
            return f"{asked} is NOT held"
        spent = "" if self.mixed is None else ", on the samples that formats were chosen by"
        told = self.evaluation.verdict
        most = None if told is None or told.chance is None else told.chance[1]
        return f"{asked} is held{spent}{'' if most is None else more_elsewhere(most, self.max_drop)}"

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, what hardware makes of it, and what limits it."""
        from .pages.story import hardware_line, limit_line

        lines = [hardware_line(self.findings), f"limits: {limit_line(self.explanation, self.result.warnings)}"]
        return block(self.verdict, [*lines, *self.notes])

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        parts = ("evaluation", "judgement", "proposal", "mixed")
        found = {name: part.facts() for name in parts if (part := getattr(self, name)) is not None}
        bound = {} if self.max_drop is None else {"max_drop": self.max_drop, "drop": self.drop, "held": self.held}
        verdict = {"verdict": self.verdict, "judged": self.judged.facts()}
        about = {**verdict, **bound, "notes": list(self.notes), "lint": self.findings.facts()}
        ready: dict[str, Any] = jsonable({**self.result.facts(), **about, **found})
        return ready

    def page(self, name: str = "", **about: Any) -> str:
        """The report on it: see `equint.report`, which takes what is said `about` it."""
        told: Any = {"verdict": self.judged}
        if self.evaluation is not None:
            told = replace(self.evaluation, verdict=self.judged)
        return report(self.result, measured=told, name=name, **about)


def more_elsewhere(most: float, asked: float) -> str:
    """What is said of a bound that is held here, where on other samples up to `most` points may be lost.

    Example:
        >>> more_elsewhere(3.5, 0.5), more_elsewhere(0.54, 0.5), more_elsewhere(0.4, 0.5)
        (', though on others up to 3.5 may be lost', ', though on others up to 0.54 may be lost', '')
        >>> more_elsewhere(0.502, 0.5)
        ', and on others about as much may be lost'
    """
    if most <= asked:
        return ""
    if most - asked < 0.01:
        return ", and on others about as much may be lost"
    return f", though on others up to {most:.{1 if most - asked >= 0.1 else 2}f} may be lost"


def card(source: Any, data: Named, *, progress: Progress | None = None) -> Proposal:
    """Propose how a network's input is made of data: it looks at both, and says what speaks for it.

    Each usual way to prepare pixels is held against what the first BatchNorms saw in training; where there are labels,
    the float network's score tells too.

    Args:
        source: a path, an ONNX model, or what `load` gave.
        data: a folder of pictures, of class folders, or of parts (calib and eval, train and val); or an .npz or .npy.
        progress: called before each way is tried.

    Returns:
        Its `card` is ready for other functions; `toml(folder)` is the text of a file in that folder.

    Raises:
        EquintError: what cannot be read, or a network that the data cannot be shown.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> found = card(model_path(), data_path())
        >>> found.way, found.card.std, found.clear
        ('0 to 1', (16.0,), True)
    """
    from .study.proposal import propose

    check(data=data, progress=progress)
    if data is None:
        raise InvalidOption("data = None: give a folder of pictures, or an .npz")
    return propose(load(source), data, progress)


def auto(
    source: Any,
    target: Named | Target | None = None,
    *,
    card: Card | Named | None = None,
    data: Named | None = None,
    input_range: tuple[float, float] | None = None,
    max_drop: float | None = None,
    limit: int = MEASURED,
    effort: Effort | None = None,
    providers: Providers = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Automatic:
    """Quantize a network and find out how good that is: nothing but the network is needed.

    Args:
        source: a path, an ONNX model, or what `load` gave.
        target: as for `quantize`.
        card: how the input is made, and the task; proposed if left out where there are data.
        data: a folder of pictures or an .npz, for the card's own; labelled or not.
        input_range: lowest and highest value of the network's input, instead of a card.
        max_drop: what may be lost at most, in points of the task's measure (in dB for PSNR): where more is, layers and
            tensors get 16 bits, or stay float, if the target takes that. Needs labels.
        limit: samples to measure on.
        effort: as for `quantize`; left out, fast first, and full only where that is measured to be less than good.
        providers: as for `quantize`.
        progress: called with what is done, how far it is, and how far there is to go.
        force: as for `quantize`.

    Raises:
        EquintError: as `quantize` and `evaluate`; `max_drop` without labels.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> found = auto(model_path(), data=data_path(), max_drop=5.0)
        >>> found.held, found.findings.clean, found.proposal.way
        (True, True, '0 to 1')
    """
    check(card=card, data=data, limit=limit, progress=progress, force=force)
    if max_drop is not None:
        check(max_drop=max_drop)
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise InvalidOption(f"max_drop = {max_drop}: give points from 0 to 100")
    if limit is None or limit < 1:
        raise InvalidOption(f"limit = {limit}: give 1 or more")
    if effort is not None:
        check(effort=effort)
    if effort not in (None, *EFFORTS):
        raise InvalidOption(f"effort = {effort!r}: choose {' or '.join(EFFORTS)}")
    if input_range is not None and (card is not None or data is not None):
        raise InvalidOption("input_range beside card or data: these say how far the input reaches; leave one out")
    from .runtime.machine import machine
    from .runtime.machine import on as running_on
    from .study.parts import apart, check_labels, described, held, strange_labels

    check(providers=providers)
    with running_on(machine(providers)):
        model = load(source)
        about, proposal = described(model, card, data, progress)
        where, looked, measure, others = apart(model, about, data, limit)
        notes = list[str]()
        if max_drop is not None:
            check_labels(model, about, where)
        elif about is not None and (strange := strange_labels(model, about, where)):
            notes.append(f"not scored: {strange}")
            about = replace(about, task="features")
        job = Job.of(model, None, target, input=about or input_range, data=looked, progress=progress, force=force)
        given = {k: v for k, v in (("model", model.source), ("card", card), ("data", data), ("target", target)) if v}
        job = replace(job, given={**job.given, **{k: v for k, v in given.items() if isinstance(v, (str, os.PathLike))}})
        on = _Measured(model, about, where, measure, max_drop is None, progress)
        made = on.tried(replace(job, effort=effort or "fast"), notes)
        if effort is None and not made.enough:
            made = max((made, on.tried(job, notes)), key=lambda tried: tried.rank)
        spent, drop = None, None
        if max_drop is not None and made.evaluation is not None:
            key, before = _figure(made.evaluation)
            if made.drop > max_drop:
                spent, better = _spent(job, made.result, on.bounded(key, before), max_drop, progress)
                made = on.of(better, notes) if spent.drop < made.drop else made
            drop = made.drop
        found = _explained(made.result)
        bound: dict[str, Any] = {"proposal": proposal, "max_drop": max_drop, "drop": drop, "mixed": spent}
        return Automatic(
            *(made.result, lint(made.result), made.evaluation, made.judgement, found),
            **bound,
            others=others,
            limit=limit,
            total=held(model, about, where),
            notes=tuple(dict.fromkeys(notes)),
        )


@dataclass(frozen=True)
class _Tried:
    """A quantized network, and what was measured of it: on data, or else on made-up samples."""

    result: Result
    evaluation: Evaluation | None
    judgement: Judgement | None

    @property
    def level(self) -> str | None:
        """Of the verdict, as it was measured."""
        from .pages.story import on_shown

        if self.evaluation is not None and self.evaluation.verdict is not None:
            return self.evaluation.verdict.level
        return None if self.judgement is None else on_shown(self.judgement, NAME, self.result.model).level

    @property
    def drop(self) -> float:
        """Points of the task's measure that are lost; dB of PSNR."""
        assert self.evaluation is not None
        key, before = _figure(self.evaluation)
        return before - float(self.evaluation.figures[key])

    @property
    def enough(self) -> bool:
        """Whether it is good by its task, and by its SQNR, of which less is left to chance."""
        from .pages.story import task_of_outputs
        from .scoring.tasks import task_of

        task = task_of_outputs(self.result.model) if self.evaluation is None else self.evaluation.task
        return self.level == "good" and self.rank[1] >= task_of(task).sqnr[0]

    @property
    def rank(self) -> tuple[int, float]:
        """Greater where less is lost: by level, then by SQNR in dB."""
        from .scoring.verdicts import LEVELS

        level = self.level
        reached = 0.0 if self.judgement is None else self.judgement.sqnr_db[NAME]
        reached = reached if self.evaluation is None else float(self.evaluation.figures.get("sqnr_db", 0.0))
        return (-len(LEVELS) if level is None else -LEVELS.index(level)), reached


@dataclass(frozen=True)
class _Measured:
    """What quantized networks are measured on.

    Attributes:
        card, where, limit: as for `evaluate`; where is None where there are no data.
        lenient: whether what cannot be measured is a note, and no error.
    """

    model: Model
    card: Card | None
    where: Path | None
    limit: int
    lenient: bool
    progress: Progress | None

    def tried(self, job: Job, notes: list[str]) -> _Tried:
        """The job's network, quantized and measured."""
        return self.of(quantized(job), notes)

    def of(self, result: Result, notes: list[str]) -> _Tried:
        """A quantized network, measured; notes: what could not be, and why, is added."""
        found = None
        if self.where is not None:
            noted = notes if self.lenient else None
            found = _evaluated(result, self.where, self.card, self.model, self.limit, self.progress, noted)
        return _Tried(result, found, _judged(result, self.model, notes) if found is None else None)

    def bounded(self, key: str, before: float) -> Bounded:
        """A bound on a figure of the task, of which the float network has so much."""
        from .onnx.qdq import export
        from .scoring import metrics
        from .study.mixed import Bounded

        def lost(model: Model) -> float:
            assert self.where is not None
            found = metrics.evaluate(export(model), self.where, self.card or Card(), limit=self.limit)
            return before - float(found[key])

        return Bounded(key, self.limit, lost)


def _evaluated(
    result: Result,
    where: Path,
    card: Card | None,
    model: Model,
    limit: int,
    progress: Progress | None,
    notes: list[str] | None = None,
) -> Any:
    """What `evaluate` finds; None, with a note, where that cannot be measured and none needs it."""
    task = card or Card(task="features")
    try:
        return evaluate(result, where, task, model, limit=limit, progress=progress)
    except EquintError as error:
        if notes is None:
            raise
        try:  # what labels say may not fit; the float network's own answers do
            alike = replace(task, task="features")
            found = evaluate(result, where, alike, model, limit=limit, progress=progress)
        except EquintError:
            notes.append(str(error))
            return None
        notes.append(f"not scored by its task: {error}")
        return found


def _figure(found: Evaluation) -> tuple[str, float]:
    from .scoring.tasks import task_of

    main = task_of(found.task).main
    assert main is not None
    assert found.original is not None
    return main.key, float(found.original[main.key])


def _spent(
    job: Job, result: Result, bounded: Bounded, max_drop: float, progress: Progress | None
) -> tuple[Mixed, Result]:
    """What the bound costs on top of the recipe that was kept, and the network with it."""
    from .study.diagnose import shown
    from .study.mixed import mixed

    kept = next((e.facts["candidate"] for e in reversed(result.model.log) if e.kind is EventKind.CANDIDATE_KEPT), "")
    chosen = next((v for v in variants(job.spelled) if v.name == kept), variants(job.spelled)[0])
    seen = job.samples or shown(job.network)
    told = mixed(job.original, chosen, job.target, job.quantizer(), seen, max_drop, bounded=bounded, progress=progress)
    return told, quantized(replace(job, recipe=told.recipe, weight_bits=None, activation_bits=None))


def _judged(result: Result, model: Model, notes: list[str]) -> Judgement | None:
    try:
        return judge(result.job.network, {NAME: result})
    except EquintError as error:
        notes.append(str(error))
        return None


def _explained(result: Result) -> Explanation | None:
    from .study.explain import explain

    try:
        _, before = result.job.plain()
        return explain(before, before, result.model)
    except EquintError:
        return None
