"""A quantized network in a few lines, for people: what it loses, what was written, what limits it, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import counted
from ..graph.inputs import CHANNELS, layout_of
from ..hardware.lint import Findings
from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..maths.chance import share
from ..planning.summary import grouped, kilobytes, sizes
from ..scoring.verdicts import Verdict, not_measured, of_drop, of_sqnr, on_made_up
from ..scoring.verdicts import verdict as verdict_on
from .commands import left_out, spelled

if TYPE_CHECKING:
    from pathlib import Path

    from ..result import Result
    from ..runtime.judge import Judgement
    from ..study.explain import Explanation
    from ..study.mixed import Mixed

SHARE = 0.05
"""What makes less of the noise limits nothing."""

OF_HALF = "; so far as half of the samples makes it: the file is made of all, and may lose less"
"""What stands behind a verdict on the candidate that was kept: samples that it was made of would flatter it."""


def task_of_outputs(model: Model) -> str:
    """The task whose bounds on SQNR a network's first output is judged by, where nothing names one.

    Example:
        >>> from ..ir.model import Graph
        >>> task_of_outputs(Model(Graph((), {}, (), ("y",), {"y": ("N", 10)})))
        'classification'
    """
    shape = model.graph.shapes.get(model.graph.outputs[0]) or ()
    classes = len(model.graph.outputs) == 1 and len(shape) == 2 and shape[1] != 1
    return "classification" if classes else "features"


def on_shown(found: Judgement, name: str, model: Model) -> Verdict:
    """A verdict from made-up samples.

    Args:
        name: the candidate's; model: it.
    """
    task = task_of_outputs(model)
    row = next((r for r in found.losses[name] if r.role == "output" and not r.part), None)
    same = row.agreement if row is not None and task == "classification" else None
    told = on_made_up(task, found.sqnr_db[name], found.images, same)
    return coarse(model, told.but(f"; those made up tell little: {found.blind[0]}") if found.blind else told)


def searched(model: Model) -> Verdict:
    """A verdict from what the search among candidates measured, or why it measured nothing."""
    measured = (EventKind.CANDIDATE_KEPT, EventKind.MEASURED)
    kept = next((e for e in reversed(model.log) if e.kind in measured), None)
    if kept is None:
        none = next((e for e in model.log if e.kind is EventKind.NOTHING_MEASURED), None)
        return not_measured() if none is None else not_measured(str(none.facts["why"]))
    reached, samples, task = float(kept.facts["SQNR"]), int(kept.facts["samples"]), task_of_outputs(model)
    if "made-up" in kept.facts["on"]:
        return coarse(model, on_made_up(task, reached, samples))
    likely = (kept.facts["SQNR from"], kept.facts["SQNR to"]) if "SQNR from" in kept.facts else None
    said = of_sqnr(task, reached, likely, samples)
    return said.but(OF_HALF) if kept.kind is EventKind.CANDIDATE_KEPT else said


def bounded(spent: Mixed) -> Verdict:
    """A verdict from what a bound on the drop was measured to leave."""
    if spent.metric != "agreement":
        return of_drop(spent.drop, spent.images)
    alike = round((1 - spent.drop / 100) * spent.images)
    low, high = share(alike, spent.images)
    figures = {"samples": spent.images, "agreement": 100 - spent.drop, "chance": {"agreement": (100 * low, 100 * high)}}
    return verdict_on("classification", figures)


def bound_kept(asked: float, spent: Mixed, top1: tuple[float, float] | None) -> str:
    """What a verdict begins with where a drop was bounded: by labels where these were measured, else by the search.

    Args:
        top1: of the float and the quantized network, per cent, where labels were measured.

    Example:
        >>> bound_kept(0.5, None, (97.0, 96.0))
        'max-drop 0.5 is missed, 1.0 points of top-1 lost; '
    """
    if top1 is not None:
        lost, what = round(top1[0] - top1[1], 9), "top-1"
    else:
        lost, what = spent.drop, "top-1" if spent.metric == "top1" else "agreement with the float network"
    digits = 1 if abs(lost - asked) >= 0.1 or lost == asked else 2
    return f"max-drop {asked:g} is {'held' if lost <= asked else 'missed'}, {lost:.{digits}f} points of {what} lost; "


def coarse(model: Model, said: Verdict) -> Verdict:
    """A verdict where no samples were given, and why it is broken if an output's grid is too coarse to show anything.

    An Exp at an output makes that: nothing but samples tells how far it goes.

    Example:
        >>> from ..ir.model import Graph, Moments, Node, QParams
        >>> graph = Graph((Node("Exp", ("x",), ("y",)),), {}, ("x",), ("y",), {"y": ("N", 1)})
        >>> grid = QParams(np.float32(500.0), np.int32(0), 8, False)
        >>> model = Model(graph, {"y": Moments(np.ones((1, 1)), np.full((1, 1), 3.0))}, qparams={"y": grid})
        >>> print(coarse(model, not_measured()).words)
        broken: a step of the grid of output y is 500, and its values spread by 3: nothing tells how far Exp goes; \
give samples (--data)
    """
    makers = {o: node.op for node in model.graph.nodes for o in node.outputs}
    for name in model.graph.outputs:
        grid, moments = model.qparams.get(name), model.moments.get(name)
        if grid is None or moments is None:
            continue
        step, spread = float(np.max(grid.scale)), float(np.max(moments.std))
        if step > spread > 0:
            why = f"a step of the grid of output {name} is {step:.3g}, and its values spread by {spread:.3g}"
            todo = f"nothing tells how far {makers.get(name, 'it')} goes; give samples (--data)"
            return replace(said, level="broken", words=f"broken: {why}: {todo}")
    return said


def contradicted(warnings: Sequence[Event]) -> str:
    """What a verdict adds where the input is another than the network was trained on; empty where it is not.

    Example:
        >>> contradicted([Event(EventKind.INPUT_CONTRADICTED, "x")])
        '; but its input as described is not what it was trained on: correct that first'
    """
    if not _is_contradicted(warnings):
        return ""
    return "; but its input as described is not what it was trained on: correct that first"


def _is_contradicted(warnings: Sequence[Event]) -> bool:
    kinds = (EventKind.INPUT_CONTRADICTED, EventKind.STATISTICS_CONTRADICTED)
    return any(e.kind in kinds for e in warnings)


def given_again(given: Mapping[str, Any], warnings: Sequence[Event]) -> dict[str, Any]:
    """Options for the next command: --force only where it went on with an input that is contradicted.

    Example:
        >>> given_again({"card": "c.toml", "force": True}, [])
        {'card': 'c.toml', 'force': False}
    """
    return {**given, "force": bool(given.get("force")) and _is_contradicted(warnings)}


def size_line(output: str, file_bytes: int, float_bytes: int, model: Model, target: str) -> str:
    """What was written, how large it is, and for whom."""
    smaller = f", {float_bytes / file_bytes:.1f} times smaller" if float_bytes > 1.05 * file_bytes else ""
    before, after = map(kilobytes, sizes(model))
    files = f"{kilobytes(file_bytes)} (float {kilobytes(float_bytes)}{smaller})"
    return f"{output}: {files}, weights {before} → {after}, for {target}"


def hardware_line(found: Findings, file: str = "FILE") -> str:
    """How much of the work integers do, and what the target refuses; file: what `equint lint` tells more of."""
    share = f"integers do {100 * found.integer_share:.1f} % of the multiply-accumulates"
    errors = [f for f in found.findings if f.level == "error"]
    others = [f for f in found.findings if f.level != "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        return f"{found.target} refuses it: {first.what} [{first.at}]{more}; {first.todo}"
    if others:
        rules = dict.fromkeys(f.what for f in others)
        more = f"; and {len(rules) - 2} more (equint lint {file} tells all)" if len(rules) > 2 else ""
        return f"{share}; float or worth a look: {'; '.join(list(rules)[:2])}{more}"
    return f"{share}; {found.target} takes all of it" if found.ruled else f"{share}; {found.target} has no rules"


def limit_line(found: Explanation | None, warnings: Sequence[Event]) -> str:
    """What most of the noise comes from, predicted; or what makes the result doubtful."""
    parts = []
    if warnings:
        more = f" (and {len(warnings) - 1} more, -v)" if len(warnings) > 1 else ""
        parts.append(f"{warnings[0].sentence}{more}")
    rows = [] if found is None else [(r["share"], r["name"], "rounding its weights") for r in found.layers]
    rows += [] if found is None else [(r["share"], r["name"], "rounding or clipping it") for r in found.tensors]
    share, name, why = max(rows, default=(0.0, "", ""), key=lambda row: row[0])
    if share >= SHARE:
        parts.append(f"{100 * share:.0f} % of the predicted noise comes from {name}, {why}")
    return "; ".join(parts) or "nothing stands out: noise comes from all layers alike"


def warned(warnings: Sequence[Event], most: int = 3) -> Iterator[str]:
    """What makes the result doubtful, a line each; facts are left to those who ask for them."""
    for said in (lines := [line for bad, line in grouped(warnings, facts=False) if bad])[:most]:
        yield f"! {said}"
    if len(lines) > most:
        yield f"! and {counted(len(lines) - most, 'more warning')}: -v shows them"


def give_data(model: Model) -> str:
    """What to give a network to be measured on: an option, and what it is to hold.

    Example:
        >>> from ..ir.model import Graph
        >>> give_data(Model(Graph((), {}, ("x",), (), {"x": ("N", 400)})))
        '--data SAMPLES.npz (an array x)'
    """
    shapes = [model.graph.shapes.get(name) or () for name in model.graph.inputs]
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][CHANNELS[layout_of(shapes[0])]] in (1, 3):
        return "--data FOLDER (of pictures)"
    names = ", ".join(model.graph.inputs[:4]) if len(shapes) > 1 else "x"
    return f"--data SAMPLES.npz ({'an array' if len(shapes) == 1 else 'arrays'} {names})"


def card_name() -> str:
    """What a card that is advised is called: a name that no file has here."""
    others = (f"card-{k}.toml" for k in count(2))
    return next(name for name in chain(("card.toml",), others) if not Path(name).exists())


def next_step(
    said: Verdict, result: Result, model: str, output: str, given: Mapping[str, Any], measured: bool, paged: bool
) -> str:
    """What to do with a quantized network, in a line.

    Args:
        output: the network's file; empty where none was written, as for a page alone.
        given: options by name, as the user gave them.
        measured: whether samples were; paged: whether there is a page about it.
    """
    card, data = given.get("card"), give_data(result.job.original)
    if said.level in ("poor", "broken") and not (said.status in ("made up", "not measured") and card is None):
        return f"{spelled('diagnose', model, **given)} says which layers cost most, and what helps"
    if output.lower().endswith(".tflite"):
        return f"run {output} in LiteRT; {golden(model, result, given)} writes vectors to compare a device with"
    if measured and not output:
        return f"{spelled('quantize', model, **{'output': f'{Path(model).stem}.int8.onnx', **given})} writes it"
    if measured:
        page = spelled("report", model, **{"output": f"{Path(model).stem}.html", **given})
        return f"run {output} as the float network" + ("" if paged else f"; {page} draws a page about it")
    if card and output and not given.get("set"):
        described = result.job.card
        on = "" if described is not None and "eval" in described.data else f" {data}"
        return f"{spelled('evaluate', output, **{**given, 'data': None}, against=model)}{on} measures it on your data"
    return f"{_with_data(model, given, data)} measures it on what it is used for, and its ranges"


def golden(model: str, result: Result, given: Mapping[str, Any]) -> str:
    """The command that writes a device's vectors of a network."""
    own = {"output": "golden", **given, "target": given.get("target") or result.target}
    return spelled("golden", model, **own)


def _with_data(model: str, given: Mapping[str, Any], data: str) -> str:
    """How to quantize a network again and measure it on data: by `auto`, unless that lacks what was asked for."""
    given = {**given, "input_range": None, "data": None, "images": None, "output": None}
    given["force"] = given.get("force") and given.get("card") is not None
    if not left_out("auto", given):
        return f"{spelled('auto', model, **given)} {data}"
    pictures = data.startswith("--data FOLDER") and given.get("card") is None and given.get("mean") is None
    if pictures:
        card = card_name()
        return f"{spelled('card', model, output=card)} {data}, then the same command with --card {card} --images 64,"
    return f"the same command with {data}"


def onwards(
    result: Result,
    said: Verdict | None,
    spent: Mixed | None,
    output: Path | None,
    model: Path,
    given: Mapping[str, Any],
    paged: bool,
) -> str:
    """`next_step` of a network that was quantized by a command; output: its file, if one was written."""
    seen = said is not None or (given.get("card") is None and (spent is not None or result.job.samples is not None))
    verdict, given = _verdict(result, said, spent), given_again(given, result.warnings)
    return next_step(verdict, result, str(model), "" if output is None else str(output), given, seen, paged)


def _verdict(result: Result, said: Verdict | None, spent: Mixed | None) -> Verdict:
    return said if said is not None else searched(result.model) if spent is None else bounded(spent)


def told(
    result: Result,
    found: Findings,
    said: Verdict | None,
    spent: Mixed | None,
    output: Path,
    model: Path,
    given: Mapping[str, Any],
    bound: str = "",
    paged: bool = False,
) -> Iterator[str]:
    """What `quantize` did: a verdict, what was written, for whom, what is doubtful, and what to do next.

    Args:
        said: of labelled samples, if there are any; spent: what a bound on the drop cost.
        given: options by name, as the user gave them; bound: whether what was asked for is held.
        paged: whether there is a page about it.
    """
    from .diagnosis import mixed_text

    yield bound + _verdict(result, said, spent).words + contradicted(result.warnings)
    sized = output.stat().st_size, model.stat().st_size
    yield size_line(str(output), *sized, result.model, result.target)
    yield hardware_line(found, str(output))
    if spent is not None:
        yield from mixed_text(spent.facts()).splitlines()
    yield from warned(result.warnings)
    yield f"next: {onwards(result, said, spent, output, model, given, paged)}"
