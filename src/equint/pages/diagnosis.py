"""What `equint diagnose` found, as rows for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import counted
from ..maths.chance import share
from .explanation import Shown
from .wording import signed

_STAGES = {
    "rewritten": "rewritten by the recipe, still float",
    "weights": "weights alone quantized",
    "activations": "activations alone quantized",
    "both": "both",
}


LEAST_GAIN = 0.3
"""Gains in dB below this are told as none."""
_FAILED = "the other half of the images, so it is not kept"
PLAIN = ("weights", "activations")
"""Causes that are no more than rounding: said once, of all layers that have no other."""


def stages(found: Mapping[str, Any]) -> Shown:
    """The network as it is quantized step by step."""
    rows = [
        (_STAGES.get(name, name), _db(score["sqnr_db"]), _percent(score["agreement"]), _percent(score["top1"]))
        for name, score in found["stages"].items()
    ]
    if found.get("float_top1") is not None:
        rows.insert(0, ("float, as it was read", "", "", _percent(found["float_top1"])))
    return f"step by step, on {counted(found['images'], 'image')}", ("", ">SQNR, dB", ">agreement", ">top-1"), rows


def layers(found: Mapping[str, Any], limit: int | None = None) -> Shown:
    """The layers that cost most, and why: SQNR at the network's outputs in dB."""
    rows = []
    for row in [row for row in found["sensitivity"]["layers"] if row["alone"] is not None][:limit]:
        why = "; ".join(cause["text"] for cause in found["causes"].get(row["layer"], ()) if cause["kind"] not in PLAIN)
        rows.append((row["layer"], *(_db(row[kind]["sqnr_db"]) for kind in ("weights", "alone", "without")), why))
    title = "layers that cost most, one at a time: SQNR at the outputs, dB"
    return title, ("layer", ">its weights alone", ">with its output", ">all but it", "why"), rows


def plain(found: Mapping[str, Any], limit: int | None = None) -> str:
    """How many of the layers shown cost what rounding costs, and nothing else; empty where none does.

    Example:
        >>> rows = [{"layer": name, "alone": 1.0} for name in "ab"]
        >>> causes = {"a": [{"kind": "weights", "text": "…"}], "b": [{"kind": "dead channels", "text": "…"}]}
        >>> plain({"sensitivity": {"layers": rows}, "causes": causes})
        'nothing but rounding stands out of 1 of these layers'
    """
    shown = [row["layer"] for row in found["sensitivity"]["layers"] if row["alone"] is not None][:limit]
    alone = sum(all(cause["kind"] in PLAIN for cause in found["causes"].get(name, ())) for name in shown)
    return f"nothing but rounding stands out of {alone} of these layers" if alone else ""


def tensors(found: Mapping[str, Any], limit: int | None = None) -> Shown:
    """The activations that cost most."""
    measured = [row for row in found["sensitivity"]["tensors"] if row["alone"] is not None]
    rows = [(row["tensor"], *(_db(row[kind]["sqnr_db"]) for kind in ("alone", "without"))) for row in measured[:limit]]
    return "activations that cost most, one grid at a time", ("tensor", ">it alone, dB", ">all but it, dB"), rows


def remedies(found: Mapping[str, Any]) -> Shown:
    """What was tried, and what it gains."""
    rows = []
    for row in found["remedies"]:
        gains = f"{row['gain']:+.1f} ± {row['error']:.1f} dB", _gain(row["agreement_gain"], "points")
        rows.append((row["kind"], row["at"], *gains, _gain(row["checked"], "dB")))
    title = (
        f"remedies tried, on {counted(found['images'], 'image')}; the best one checked on {found['checked_on']} others"
    )
    return title, ("remedy", "at", ">SQNR", ">agreement", ">on other images"), rows


def advice(found: Mapping[str, Any]) -> str:
    """The diagnosis in one sentence, which follows from the remedies shown.

    Example:
        >>> best = {"kind": "recipe", "at": "dfq", "gain": 6.4, "error": 2.0, "checked": -1.7}
        >>> print(advice({"best": None, "remedies": [best]}))
        keep the recipe: recipe dfq gains +6.4 ± 2.0 dB where it was chosen, but −1.7 dB on the other half of the \
images, so it is not kept
    """
    best = found["best"]
    if best is None:
        return f"keep the recipe: {_why_kept(found['remedies'])}"
    what = {
        "recipe": f"take recipe {best['at']}",
        "ranges": "let ranges hold all that was seen",
        "granularity": f"give layer {best['at']} a weight scale per channel",
        "16 bits": f"give tensor {best['at']} 16 bits",
        "float": f"leave layer {best['at']} float",
        "together": f"change the formats of {best['at']}",
    }[best["kind"]]
    parts = f"{best['gain']:+.1f} ± {best['error']:.1f} where it was chosen, {best['checked']:+.1f} on other images"
    return f"{what}: about {_gain(best['expected'], 'dB')} ({parts})"


def _why_kept(tried: Sequence[Mapping[str, Any]]) -> str:
    """Why none of the remedies is taken: the one that was checked failed, or none was worth a check."""
    for row in tried:
        if row["checked"] is not None:
            gain = f"{signed(row['gain'])} ± {row['error']:.1f} dB where it was chosen"
            return f"{row['kind']} {row['at']} gains +{gain}, but {signed(row['checked'])} dB on {_FAILED}"
    if any(row["gain"] >= LEAST_GAIN for row in tried):
        return "what gains more than 0.3 dB gains less than its standard error; more images may tell"
    return "nothing that was tried gains more than 0.3 dB"


def text(found: Mapping[str, Any], limit: int | None = 8) -> str:
    """Everything as plain text."""
    tables = [stages(found), layers(found, limit), tensors(found, limit), remedies(found)]
    parts = ["\n".join([title, *_aligned(columns, rows)]) for title, columns, rows in tables]
    parts[1] = "\n".join(filter(None, [parts[1], plain(found, limit)]))
    warnings = "\n".join(f"! {line}" for line in once(found["warnings"]))
    return "\n\n".join([*([warnings] if warnings else []), *parts, advice(found)])


def once(lines: Sequence[str]) -> list[str]:
    """Sentences that differ only in where they hold, each once, with how often and where.

    Example:
        >>> once(["no range [a] (n=1)", "no range [b] (n=2)", "too few"])
        ['no range (2 times: a, b)', 'too few']
    """
    table = dict[str, list[str]]()
    for line in lines:
        table.setdefault(line.partition(" [")[0], []).append(line)
    return [
        found[0] if len(found) == 1 else f"{what} ({len(found)} times: {_places(found)})"
        for what, found in table.items()
    ]


def _places(lines: Sequence[str]) -> str:
    at = [line.partition(" [")[2].partition("]")[0] for line in lines]
    return ", ".join(at[:3]) + (", …" if len(at) > 3 else "")


def mixed_text(found: Mapping[str, Any]) -> str:
    """What `Mixed.facts` says, as plain text.

    Example:
        >>> facts = {"met": True, "drop": 0.0, "before": 3.0, "metric": "agreement", "cost": 64.0, "tried": 9}
        >>> print(mixed_text({**facts, "images": 64, "chosen": ["conv1"], "events": []}))
        agreement drops by 0.0 points instead of 3.0, on 64 images; on others like them by up to 5.7; 9 \
networks were measured
        64 bytes more: conv1
    """
    first = f"{found['metric']} drops by {found['drop']:.1f} points instead of {found['before']:.1f}"
    n = found["images"]
    most = 100 * share(round(max(found["drop"], 0.0) / 100 * n), n).high
    tried = f"{found['tried']} {'network was' if found['tried'] == 1 else 'networks were'} measured"
    lines = [f"{first}, on {counted(n, 'image')}; on others like them by up to {most:.1f}; {tried}"]
    if found["chosen"]:
        lines.append(f"{counted(round(found['cost']), 'byte')} more: {', '.join(found['chosen'])}")
    return "\n".join([*lines, *(f"! {e}" for e in found["events"] if not found["met"])])


def _aligned(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table, without columns that are empty everywhere."""
    filled = [k for k in range(len(columns)) if not rows or any(row[k] for row in rows)]
    columns, rows = [columns[k] for k in filled], [tuple(row[k] for k in filled) for row in rows]
    lines = (tuple(c.removeprefix(">") for c in columns), *rows)
    sides = [">" if c.startswith(">") else "<" for c in columns]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return ["  ".join(map("{:{}{}}".format, row, sides, widths)).rstrip() for row in lines]


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def _gain(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:+.1f} {unit}"
