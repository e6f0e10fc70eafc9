"""Everything that the HTML report says, collected from a quantization as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import EquintError, counted
from ..hardware.target import Target
from ..ir.events import Event
from ..ir.model import Model, Name, QParams, QSpec
from ..noise.prediction import predict
from ..npu.sizes import SCHEMES, network_sizes
from ..ops.layers import layers
from ..planning.summary import kilobytes, sizes, told
from ..runtime.layer_noise import Measured, measure
from ..samples.images import Samples
from ..scoring.verdicts import Verdict
from ..study.explain import explain
from ..study.sqnr import agreement, layer_rows, pairs
from .layer_weights import layer_weights
from .story import searched

LEVELS = {
    1: "no data, no backpropagation",
    2: "data, no backpropagation",
    3: "data and backpropagation",
    4: "retraining, or a changed architecture",
}
_SHOWN = {
    "top1": ("Top-1 accuracy", " %"),
    "top5": ("Top-5 accuracy", " %"),
    "agreement": ("Same answer as the float network", " %"),
    "sqnr_db": ("SQNR at the outputs", " dB"),
    "cosine": ("Cosine similarity of the outputs", ""),
    "milliseconds": ("Time per run", " ms"),
    "speedup": ("Speed against float", " ×"),
}
WORTH_TELLING = 0.05
"""Gain in dB below which a change is not proposed."""
_LAST = ("agreement", "sqnr_db", "cosine", "milliseconds", "speedup")
_PLAIN_LANGUAGE = {"lwq": "one grid per layer", "cwq": "one grid per channel", "wes": "one grid, shift per channel"}


def contents(
    plain: Model,
    quantized: Model,
    recipe: str,
    target: Target,
    level: int,
    *,
    name: str = "",
    measured: Mapping[str, Any] | None = None,
    images: Samples | None = None,
) -> dict[str, Any]:
    """The report's numbers and words, ready for JSON.

    Args:
        plain: the float network, BatchNorms folded, with moments and ranges of every tensor, and with grids in the
            format of `quantized`: `formats` tells it.
        quantized: what the recipe made of it; recipe, target, level: as the result of `quantize` has them.
        measured: what `evaluate` found, in per cent and dB; a figure `float_x` is the float network's `x`. Any other
            figures are shown by their names.
        images: where given, the noise of every layer is measured on them.

    Returns:
        name, recipe, target, level; headline and figures (what a reader wants first); warnings; layers, one row each;
        totals (predicted SQNR at the outputs); agreement of predicted and measured noise; fits by kind of layer;
        sizes by scheme; events, warnings first; notes on what could not be shown.
    """
    seen, notes = _measure(plain, quantized, images)
    found = explain(plain, plain, quantized)
    rows = _layers(plain, quantized, seen)
    float_bytes, integer_bytes = sizes(quantized)
    smaller = f"float {kilobytes(float_bytes)}, {float_bytes / max(integer_bytes, 1):.2f} × smaller"
    figures = [
        *_measured_figures(measured or {}),
        *_predicted_figures(found.predicted),
        _figure("Parameters", kilobytes(integer_bytes), smaller, "counted"),
        _figure("Level", f"{level} of 4", LEVELS[level], "stated"),
    ]
    events = [_event(e) for e in sorted(quantized.log, key=lambda e: not e.warning)]
    return {
        "name": name or plain.graph.name,
        "recipe": recipe,
        "target": {"name": target.name, "description": target.description},
        "level": level,
        "images": 0 if seen is None else seen.images,
        "headline": _headline(measured or {}, found.predicted, searched(quantized)),
        "measured": bool(measured),
        "figures": figures,
        "warnings": [e for e in events if e["warning"]],
        "layers": rows,
        "totals": found.predicted,
        "changes": [c for c in found.changes if c["gain"] >= WORTH_TELLING],
        "agreement": _agreement(rows),
        "fits": _fits(rows),
        "sizes": _sizes(quantized, float_bytes, notes),
        "events": events,
        "notes": notes,
    }


def spec_of(grid: QParams) -> QSpec:
    """The format that a grid is one of."""
    middle = 0 if grid.signed else 1 << (grid.bits - 1)
    symmetric = bool(np.all(grid.zero_point == middle))
    shape: Any = "shift" if grid.shift is not None else "channel" if np.ndim(grid.scale) else "tensor"
    return QSpec(grid.bits, grid.signed, symmetric, shape, grid.narrow)


def formats(model: Model) -> tuple[QSpec, QSpec | None]:
    """The formats of a quantized network's weights and activations; None where activations stay float."""
    weights = [model.qparams[n] for n in (layer.weight for layer in layers(model.graph)) if n in model.qparams]
    others = [q for n, q in model.qparams.items() if n not in model.graph.consts]
    weight = spec_of(weights[0]) if weights else QSpec()
    if not others:
        return weight, None
    specs = [spec_of(q) for q in others]
    return weight, replace(specs[0], symmetric=all(spec.symmetric for spec in specs))


def _measure(plain: Model, quantized: Model, images: Samples | None) -> tuple[Measured | None, list[str]]:
    try:
        return None if images is None else measure(plain, quantized, images), []
    except EquintError as error:
        return None, [f"The noise of single layers was not measured: {error}."]


def _layers(plain: Model, quantized: Model, seen: Measured | None) -> list[dict[str, Any]]:
    weight, activation = formats(quantized)
    formatted = (weight, activation or QSpec(signed=False, symmetric=False))
    first = {r["tensor"]: r for r in layer_rows(plain, plain, *formatted)}
    last = {r["tensor"]: r for r in layer_rows(plain, quantized, *formatted, seen)}
    noise = predict(plain, quantized)
    known = {layer.tensor: layer for layer in noise.layers}
    rows = list[dict[str, Any]]()
    for number, (facts, origins) in enumerate(zip(layer_weights(plain, quantized), _origins(quantized), strict=True)):
        y = facts.pop("tensor")
        now, then = (found.get(y, {"predicted": {}, "measured": None, "equalization": {}}) for found in (last, first))
        row = {
            "number": number + 1,
            **facts,
            "from": origins,
            "limit": known[y].limit if y in known else "",
            "share": known[y].reaching / noise.total if y in known and noise.total > 0 else 0.0,
            "predicted": now["predicted"],
            "measured": now["measured"],
            "plain": then["predicted"],
        }
        sides = (("bound", then, "bound"), ("before", then, "reached"), ("after", now, "reached"))
        ends = {side: {part: e[end] for part, e in of["equalization"].items()} for side, of, end in sides}
        rows.append({**row, **ends})
    return rows


def _origins(model: Model) -> list[list[int]]:
    """For every layer the numbers of the layers (from 0) whose outputs reach its input."""
    made = {layer.y: k for k, layer in enumerate(layers(model.graph))}
    reach: dict[Name, frozenset[int]] = {}
    found = list[list[int]]()
    for node in model.graph.nodes:
        before = frozenset().union(*(reach.get(i, frozenset()) for i in node.reads))
        own = {made[o] for o in node.outputs if o in made}
        if own:
            found.append(sorted(before))
        reach |= dict.fromkeys(node.outputs, frozenset(own) or before)
    return found


def _measured_figures(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    names = [k for k, v in measured.items() if _is_number(v) and k != "samples" and not k.startswith("float_")]
    names.sort(key=lambda k: _LAST.index(k) if k in _LAST else -1)
    samples = f"on {counted(measured['samples'], 'sample')}" if "samples" in measured else ""
    found = []
    for name in names:
        label, unit = _SHOWN.get(name, (name.replace("_", " "), ""))
        floats = measured.get(f"float_{name}")
        beside = f"float {_with_unit(floats, unit)}" if _is_number(floats) else ""
        detail = ", ".join(p for p in (beside, samples) if p)
        found.append(_figure(label, _with_unit(measured[name], unit), detail, "measured"))
    return found


def _predicted_figures(predicted: Mapping[str, Any]) -> list[dict[str, str]]:
    now, then = predicted["after"]["total"], predicted["before"]["total"]
    if now is None:
        return []
    detail = "" if then is None else f"with plain grids {signed(then)} dB"
    return [_figure("SQNR at the outputs", f"{signed(now)} dB", detail, "predicted")]


def _headline(measured: Mapping[str, Any], predicted: Mapping[str, Any], verdict: Verdict) -> str:
    if "verdict" in measured:
        return str(measured["verdict"])
    if figures := _measured_figures(measured):
        detail = f" ({figures[0]['detail']})" if figures[0]["detail"] else ""
        return f"{figures[0]['label']}: {figures[0]['value']}{detail}"
    if verdict.level is not None:
        return verdict.words
    total = predicted["after"]["total"]
    if total is None:
        return "Nothing was measured, and no noise could be predicted"
    return f"Predicted SQNR at the outputs: {signed(total)} dB"


def _figure(label: str, value: str, detail: str, basis: str) -> dict[str, str]:
    return {"label": label, "value": value, "detail": detail, "basis": basis}


def _agreement(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How well predicted and measured SQNRs agree, for weights and rounded inputs."""
    table = {kind: agreement(pairs(rows, kind)) for kind in ("weights", "rounding")}
    return {kind: found for kind, found in table.items() if found}


def _fits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Overlap ratio and rounding error before and after, means over the layers of a kind, as figure 3 of WES."""
    known = [r for r in rows if r["overlap"][1] is not None]
    kinds = [(kind, [r for r in known if r["kind"] == kind]) for kind in ("depthwise", "pointwise", "other")]
    groups = [("all layers", known), *(kinds if sum(bool(part) for _, part in kinds) > 1 else [])]
    fits = []
    for kind, part in ((kind, part) for kind, part in groups if part):
        means = {key: [float(np.mean([r[key][k] for r in part])) for k in (0, 1)] for key in ("overlap", "error")}
        fits.append({"kind": kind, "layers": len(part), **means})
    return fits


def _sizes(model: Model, float_bytes: int, notes: list[str]) -> dict[str, Any]:
    """Bytes by scheme, as figure 4 of WES; what is not weights and biases counts as parameters of the grids."""
    try:
        found = network_sizes(model)
    except EquintError as error:
        notes.append(f"Sizes by scheme are not shown: {error}.")
        return {}
    fixed = sum(-(-row["weights"] * row["bits"] // 8) + 4 * row["channels"] for row in found["layers"])
    used, table = {"tensor": "lwq", "channel": "cwq", "shift": "wes"}[formats(model)[0].granularity], []
    for scheme in SCHEMES:
        row = {"scheme": scheme, "meaning": _PLAIN_LANGUAGE[scheme], "total": int(found["total"][scheme])}
        table.append({**row, "grids": int(found["total"][scheme]) - fixed, "used": scheme == used})
    return {"float": float_bytes, "fixed": fixed, "schemes": table}


def _event(event: Event) -> dict[str, Any]:
    facts = ", ".join(f"{k} = {_said(v)}" for k, v in told(event).items())
    row = {"warning": event.warning, "pass": event.source, "did": event.text, "at": event.at}
    return {**row, "why": _said(event.facts.get("why", "")), "facts": facts}


def signed(value: float) -> str:
    """A number with one decimal and a true minus."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def _with_unit(value: Any, unit: str) -> str:
    decimals = {" %": 2, " dB": 1}.get(unit)
    return f"{_number(value) if decimals is None else f'{value:.{decimals}f}'}{unit}".replace("-", "−")


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    return _number(value) if isinstance(value, (float, np.floating)) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
