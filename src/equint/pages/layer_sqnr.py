"""What `equint sqnr` found: rows for people, and figures like 4, 5 and 6 of Meller et al. (2019)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..drafts import drafted
from ..errors import MissingLibrary, OutputRefused, counted
from .explanation import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("weights", "activations", "both")
OWN = {"weights": "weights", "output": "rounded output", "y1": "SQNR_Y1"}
"""What equations 5 to 9 tell of a layer's own noise, and its heading: of its weights, its output, both."""
ARRIVING = {"input": "rounded input", "earlier": "weights before", "y2": "SQNR_Y2"}
"""What they tell of noise from before, as it leaves the layer: of its input, the weights of the layer before, and of
these with its own weights."""
PUBLISHED = {**OWN, **ARRIVING}
FORMATS = (".png", ".svg")
"""What figures can be written as."""
_STYLES = {
    "none": ("no equalization", "#7f7f7f"),
    "one-step": ("one-step", "#2f6db3"),
    "two-step": ("two-step", "#d2691e"),
    "optimal": ("optimal", "#2a8f4f"),
}


def overview(found: Mapping[str, Any]) -> Shown:
    """Medians over the layers, a row for each kind of equalization."""
    side = "measured" if found["images"] else "predicted"
    rows = []
    for name, method in found["methods"].items():
        noise = ([_value(row, side, part) for row in method["layers"]] for part in PARTS)
        left = ([_left(row, part) for row in method["layers"]] for part in PARTS[:2])
        known = ([v for v in values if v is not None] for values in (*noise, *left))
        rows.append((name, *(_db(median(values) if values else None) for values in known)))
    columns = ("equalization", *_right(PARTS), *_right([f"{part}, left to gain" for part in PARTS[:2]]))
    return f"median over the layers, {side} SQNR at each layer's own output, dB", columns, rows


def layers(found: Mapping[str, Any], side: str) -> Shown:
    """Every layer's SQNR, for each kind of equalization."""
    kind = f"measured on {counted(found['images'], 'image')}" if side == "measured" else "predicted from known errors"
    title = f"SQNR at each layer's own output, {kind}, dB: {' → '.join(found['methods'])}"
    return title, ("layer", *_right(PARTS)), _by_layer(found, lambda row, part: _value(row, side, part), PARTS)


def distances(found: Mapping[str, Any]) -> Shown:
    """What optimal equalization of each layer's weights, or of its input, could still gain.

    Below zero where `optimal` cuts off what optimal equalization keeps.
    """
    title = f"left to gain by optimal equalization of each layer alone, dB: {' → '.join(found['methods'])}"
    return title, ("layer", *_right(PARTS[:2])), _by_layer(found, _left, PARTS[:2])


def totals(found: Mapping[str, Any]) -> Shown:
    """SQNR of the network's outputs: measured, and the forecast where it holds; else by how much it is off."""
    both = {name: method["total"] for name, method in found["methods"].items()}
    images = f"biases corrected, on {counted(found['images'], 'image')}"
    title = f"SQNR at the outputs, {images}, and its forecast, dB"
    return (
        title,
        ("equalization", ">measured", "forecast"),
        [(name, _db(total["measured"]), _forecast(total)) for name, total in both.items()],
    )


def agreements(found: Mapping[str, Any]) -> Shown:
    """How well SQNRs predicted from known errors and measured ones agree: correlation, root mean square difference."""
    kinds = ("weights", "rounding", "activations", "both")
    names = ("weights", "rounded activations", "activations", "both")
    title = "predicted from known errors against measured: correlation, root mean square error"
    return title, ("equalization", *_right(names)), _agreed(found, "agreement", kinds)


def published_agreements(found: Mapping[str, Any]) -> Shown:
    """The same of SQNRs predicted by equations 5 to 9: figure 4 of Meller et al. (2019), in numbers."""
    title = "predicted by equations 5 to 9 against measured: correlation, root mean square error"
    return title, ("equalization", *_right(PUBLISHED.values())), _agreed(found, "published_agreement", PUBLISHED)


def published(found: Mapping[str, Any]) -> list[Shown]:
    """What equations 5 to 9 predict of every layer, for each kind of equalization: its own noise, and what arrives."""
    title = f"by equations 5 to 9, dB: {' → '.join(found['methods'])}"

    def value(row: Mapping[str, Any], kind: str) -> float | None:
        return _value(row, "published", kind)

    return [
        (f"SQNR of {what} {title}", ("layer", *_right(kinds.values())), _by_layer(found, value, kinds))
        for what, kinds in (("each layer's own noise", OWN), ("noise from before each layer", ARRIVING))
    ]


def tables(found: Mapping[str, Any]) -> list[Shown]:
    """Everything, what matters most last: on a terminal it stays in sight."""
    seen = bool(found["images"])
    first = [layers(found, "measured")] if seen else []
    last = [agreements(found), published_agreements(found)] if seen else []
    end = [totals(found)] if seen else []
    return [*first, layers(found, "predicted"), *published(found), distances(found), *last, overview(found), *end]


def conclusion(found: Mapping[str, Any]) -> str:
    """Which equalization is best at the outputs, in a sentence; without measurement, that nothing tells.

    Example:
        >>> both = {"none": {"total": {"measured": 20.0}}, "two-step": {"total": {"measured": 25.5}}}
        >>> conclusion({"images": 8, "methods": both})
        'best at the outputs, which are what counts: two-step, 25.5 dB, 5.5 dB above none'
        >>> print(conclusion({"images": 8, "methods": {**both, "optimal": {"total": {"measured": 24.0}}}}))
        best at the outputs, which are what counts: two-step, 25.5 dB, 1.5 dB above optimal, the default recipe's
    """
    known = {name: method["total"]["measured"] for name, method in found["methods"].items()} if found["images"] else {}
    ranked = sorted((name for name in known if known[name] is not None), key=lambda name: -known[name])
    if len(ranked) < 2:
        return "nothing tells which equalization is best: the outputs are what counts, and they were not measured"
    best = ranked[0]
    other = "optimal" if best != "optimal" and "optimal" in ranked else ranked[1]
    ahead = f"{_db(known[best])} dB, {_db(known[best] - known[other])} dB above {other}"
    recipe = ", the default recipe's" if other == "optimal" else ""
    return f"best at the outputs, which are what counts: {best}, {ahead}{recipe}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader should know of the numbers."""
    note = "nothing was measured: give --data, or --images with a card that names calibration data"
    if found["images"]:
        note = "ranges come from the same images: predicted clips are those of images not seen yet"
    return [note, *(f"! {warning}" for warning in found["warnings"])]


def check_plot(path: str | os.PathLike[str]) -> None:
    """Refuse a figure that could not be drawn, before the work.

    Raises:
        EquintError: matplotlib is missing, or the name ends otherwise than .png or .svg.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise OutputRefused(f"{os.fspath(path)}: figures are {' or '.join(FORMATS)} files; choose another name")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingLibrary("plotting needs the extra equint[plot]: pip install 'equint[plot]'") from error


def plot(found: Mapping[str, Any], path: str | os.PathLike[str], network: str = "") -> None:
    """Draw the layers of `equint.sqnr`: predicted against measured, distance to optimal equalization, all methods.

    The rows are figures 4, 5 and 6 of Meller et al. (2019), weights on the left and activations on the right. The bound
    drawn is that of the network as it was. Without measurement the first row is left out.

    Args:
        path: a .png or .svg file, which appears whole or not at all.
        network: its name, for the title.

    Raises:
        EquintError: as `check_plot`, and where the file cannot be written.
    """
    check_plot(path)
    import matplotlib
    from matplotlib.figure import Figure

    rows = ([_compared] if found["images"] else []) + [_distance, _methods]
    settings: Any = {"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.color": "#e4e4e4"}
    settings["svg.hashsalt"] = "equint"
    with matplotlib.rc_context(settings), drafted(path) as (draft, _):
        figure = Figure(figsize=(10, 3.6 * len(rows) + 0.5), dpi=150, layout="constrained")
        seen = counted(found["images"], "image") if found["images"] else "predicted without images"
        figure.suptitle(", ".join(p for p in (network, f"target {found['target']}", seen) if p), weight="bold")
        for axes, draw in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
            for one, part in zip(axes, PARTS[:2], strict=True):
                draw(one, found, part)
                one.xaxis.get_major_locator().set_params(integer=True)
                one.legend(fontsize=8, framealpha=0.85)
                one.spines[["top", "right"]].set_visible(False)
        figure.savefig(draft, metadata={"Date": None} if draft.suffix.lower() == ".svg" else None)


def _compared(axes: Axes, found: Mapping[str, Any], part: str) -> None:
    """Figure 4: a layer's SQNR by equation 5 as a line, the measured as points."""
    kind = {"activations": "output"}.get(part, part)
    for name in ("none", "optimal"):
        rows = found["methods"][name]["layers"]
        pairs = [(_value(row, "published", kind), _value(row, "measured", kind)) for row in rows]
        known = sorted(((p, m) for p, m in pairs if p is not None and m is not None), reverse=True)
        label, colour = _STYLES[name]
        places = range(1, len(known) + 1)
        axes.plot(places, [p for p, _ in known], color=colour, label=f"{label}, predicted")
        axes.plot(places, [m for _, m in known], "o", color=colour, markersize=3.5, label=f"{label}, measured")
    noise = {"weights": "rounded weights", "activations": "the rounded output"}[part]
    axes.set_title(f"Predicted and measured noise of {noise} (eq. 5)")
    axes.set_xlabel("layers, sorted by predicted SQNR")
    axes.set_ylabel("SQNR at the layer's output, dB")


def _distance(axes: Axes, found: Mapping[str, Any], part: str) -> None:
    """Figure 5: what the channels reach on one grid, and the bound where each of them fills it."""
    plain = [row["equalization"][part] for row in found["methods"]["none"]["layers"]]
    first = {row["input"]: k for k, row in reversed(list(enumerate(found["methods"]["none"]["layers"])))}
    once = range(len(plain)) if part == "weights" else sorted(first.values())
    order = sorted((k for k in once if plain[k]["reached"] is not None), key=lambda k: -plain[k]["reached"])
    places, bound = range(1, len(order) + 1), [plain[k]["bound"] for k in order]
    axes.plot(places, bound, "--", color="black", label="optimal equalization")
    for name, method in found["methods"].items():
        _line(axes, name, [method["layers"][k]["equalization"][part]["reached"] for k in order])
    tensor, letter = {"weights": ("weights", "W"), "activations": ("layer inputs", "X")}[part]
    axes.set_title(f"Distance to optimal equalization of {tensor}")
    axes.set_xlabel(f"{tensor}, sorted by SQNR without equalization")
    axes.set_ylabel(f"Σ{letter}² / ΣΔ{letter}² with uniform noise, dB")


def _methods(axes: Axes, found: Mapping[str, Any], part: str) -> None:
    """Figure 6: every layer's SQNR before and after each kind of equalization."""
    side = "measured" if found["images"] else "predicted"
    plain = [_value(row, side, part) for row in found["methods"]["none"]["layers"]]
    known = sorted(((v, k) for k, v in enumerate(plain) if v is not None), reverse=True)
    for name, method in found["methods"].items():
        _line(axes, name, [_value(method["layers"][k], side, part) for _, k in known])
    noise = {"weights": "weights", "activations": "the input"}[part]
    axes.set_title(f"{side.capitalize()} noise of {noise}, before and after equalization")
    axes.set_xlabel("layers, sorted by SQNR without equalization")
    axes.set_ylabel("SQNR at the layer's output, dB")


def _line(axes: Axes, name: str, values: Sequence[float | None]) -> None:
    label, colour = _STYLES[name]
    heights = [float("nan") if v is None else v for v in values]
    axes.plot(range(1, len(values) + 1), heights, "o-", color=colour, markersize=2.5, linewidth=1.3, label=label)


def _agreed(found: Mapping[str, Any], key: str, kinds: Iterable[str]) -> list[tuple[str, ...]]:
    """A row for each kind of equalization: correlation and root mean square error of each kind of noise."""
    rows = []
    for name, method in found["methods"].items():
        known = (method[key].get(kind) for kind in kinds)
        rows.append((name, *("–" if a is None else f"{a['correlation']:.3f}, {a['rms']:.1f} dB" for a in known)))
    return rows


def _by_layer(found: Mapping[str, Any], value: Any, parts: Iterable[str]) -> list[tuple[str, ...]]:
    """A row for each layer: for each part its values under all methods, one after the other."""
    tables = [method["layers"] for method in found["methods"].values()]
    return [
        (rows[0]["name"], *(" → ".join(_db(value(row, part)) for row in rows) for part in parts))
        for rows in zip(*tables, strict=True)
    ]


def _value(row: Mapping[str, Any], side: str, part: str) -> float | None:
    found: float | None = (row[side] or {}).get(part)
    return found


def _left(row: Mapping[str, Any], part: str) -> float | None:
    ends = row["equalization"].get(part)
    return None if ends is None or ends["reached"] is None else float(ends["bound"] - ends["reached"])


def _forecast(total: Mapping[str, Any]) -> str:
    off = total["off_by"]
    if total["forecast"] is not None:
        return _db(total["forecast"])
    if off is None:
        return "does not hold here"
    return f"does not hold here: {abs(off):.1f} dB too {'high' if off > 0 else 'low'}"


def _right(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f">{name}" for name in names)


def _db(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 1) + 0.0:.1f}"  # no −0.0
