"""Results of several runs on one page: what `--json` printed, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UnusableData
from ..files import MOST_TEXT, readable
from ..scoring.verdicts import LEVELS, Verdict
from .figures import bars
from .headline import shown
from .page import render
from .wording import FIGURES, in_bytes, is_number, with_unit

SCHEMAS = {"equint.quantize/1": "quantize", "equint.auto/1": "auto"}
"""Objects that are taken, and the command that prints each."""
MOST_DIGITS = 18
_SETUP = ("recipe", "target", "weights", "activations", "level")
_GREY = ("float_", "samples", "unlabelled")


@dataclass(frozen=True)
class Run:
    """One run, as it was printed.

    Attributes:
        name: the file, without its ending.
        setup: recipe, target and formats; figures: what was measured, by key; floats: the same of the float network.
        told: its verdict, as its own page shows it (`headline.shown`).
        sizes: bytes of weights before and after, and of the file.
    """

    name: str
    setup: Mapping[str, str]
    figures: Mapping[str, float]
    floats: Mapping[str, float]
    told: Mapping[str, str]
    sizes: Mapping[str, int]
    data: str
    seconds: float
    warnings: int


def read_run(path: str | os.PathLike[str]) -> Run:
    """A run from the file that the output of `equint quantize --json` or `equint auto --json` was kept in.

    Raises:
        UnusableData: no such file, no JSON, or not what these commands print.
    """
    label = os.fspath(path)
    try:
        text = readable(path, UnusableData, "result", MOST_TEXT).read_text("utf-8-sig")
        found = json.loads(text, parse_int=_whole, parse_constant=_finite)
    except (ValueError, OSError, RecursionError) as error:
        raise UnusableData(f"{label}: not readable as JSON ({str(error)[:120]}); {_GIVE}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, str) or schema not in SCHEMAS:
        raise UnusableData(f"{label}: schema {schema!r} is none of {', '.join(SCHEMAS)}; {_GIVE}")
    try:
        return _run(Path(path).stem, found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else f"something is of another kind ({error})"
        raise UnusableData(f"{label}: {what}; {_GIVE}") from error


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


_GIVE = "give what `equint quantize --json` or `equint auto --json` printed"


def _run(name: str, found: Mapping[str, Any]) -> Run:
    measured = found.get("evaluation") or found.get("measured") or {}
    judged = found.get("judged") or measured.get("verdict") or {}
    words = str(found.get("verdict") or judged.get("words") or "not measured")
    sizes = {key: int(found[key]) for key in ("float_bytes", "integer_bytes", "file_bytes")}
    level = judged.get("level")
    return Run(
        name,
        {key: str(found[key]) for key in _SETUP},
        _figures(measured),
        _figures(measured.get("float") or {}),
        shown(Verdict(level if level in LEVELS else None, words, judged.get("status", "unknown"))),
        sizes,
        f"{measured.get('data', '')}, {measured.get('samples', '')}" if measured else "",
        float(found["seconds"]),
        len(found["warnings"]),
    )


def _figures(found: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in found.items() if is_number(v) and not k.startswith(_GREY)}


def runs_page(runs: Sequence[Run], name: str = "") -> str:
    """One HTML page with all runs: verdicts, figures and sizes side by side, and what differs between them."""
    named = _apart([run.name for run in runs])
    keys = list(dict.fromkeys(key for run in runs for key in run.figures))
    comparable = len({run.data for run in runs}) == 1
    rows = [_figure_row(key, runs, comparable) for key in keys]
    return render(
        "runs.html.j2",
        title=name or _listed(named),
        comparable=comparable,
        runs=[{"name": n, "run": run} for n, run in zip(named, runs, strict=True)],
        rows=rows,
        setup=[_setup_row(key, runs) for key in _SETUP],
        sizes=[_size_row(key, label, runs) for key, label in _SIZES.items()],
        charts=[_chart(row, named) for row in rows if row["best"] is not None][:4],
        doubt=_doubt(runs),
    )


_SIZES = {"float_bytes": "float weights", "integer_bytes": "integer weights", "file_bytes": "file"}


def _listed(names: Sequence[str]) -> str:
    """Names in a title, the first four of many.

    Example:
        >>> _listed(["a", "b", "own"]), _listed(list("abcdef"))
        ('a, b and own', 'a, b, c, d and 2 more')
    """
    names = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _figure_row(key: str, runs: Sequence[Run], comparable: bool) -> dict[str, Any]:
    """A figure of every run; the best where it is known that more is better, and all were measured on the same."""
    label, unit = FIGURES.get(key, (key.replace("_", " "), ""))
    values = [run.figures.get(key) for run in runs]
    known = [v for v in values if v is not None]
    differs = comparable and key in FIGURES and len(set(known)) > 1
    best = max(known) if differs and key != "milliseconds" else None
    texts = ["–" if v is None else with_unit(v, unit) for v in values]
    cells = [
        {
            "text": text,
            "float": with_unit(run.floats[key], unit) if key in run.floats else "",
            "best": best is not None and text == with_unit(best, unit),
        }
        for text, run in zip(texts, runs, strict=True)
    ]
    return {"label": label, "unit": unit, "cells": cells, "values": values, "best": best}


def _setup_row(key: str, runs: Sequence[Run]) -> dict[str, Any]:
    values = [run.setup[key] for run in runs]
    return {"label": key, "values": values, "differs": len(set(values)) > 1}


def _size_row(key: str, label: str, runs: Sequence[Run]) -> dict[str, Any]:
    return {"label": label, "values": [in_bytes(run.sizes[key]) for run in runs]}


def _chart(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    lines: list[Any] = [
        (name[:18], float(v), cell["text"], "line" if cell["best"] else "ghost")
        for name, v, cell in zip(names, row["values"], row["cells"], strict=True)
        if v is not None
    ]
    title = f"{row['label']}: " + "; ".join(f"{r[0]} {r[2]}" for r in lines)
    positive = all(v >= 0 for _, v, _, _ in lines)
    return {"label": row["label"], "drawing": bars(lines, title, row["unit"].strip()) if positive else ""}


def _doubt(runs: Sequence[Run]) -> str:
    """Why figures may not be comparable; empty where nothing speaks against it."""
    if len({run.data for run in runs}) > 1:
        return "The runs were measured on different data, or numbers of samples: their figures cannot be compared."
    if len({run.sizes["float_bytes"] for run in runs}) > 1:
        return "The float networks differ in size: these are runs of different networks."
    return ""


def _apart(names: Sequence[str]) -> list[str]:
    """Names that are all different."""
    return [f"{name} ({names[: k + 1].count(name)})" if names.count(name) > 1 else name for k, name in enumerate(names)]
