"""Everything that the HTML report says, collected from a quantization as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EquintError
from ..ir.model import Model, Name, QParams, QSpec
from ..noise.prediction import Prediction, predict
from ..npu.sizes import SCHEMES, network_sizes
from ..ops.layers import layers
from ..planning.summary import sizes
from ..runtime.layer_noise import Measured, measure
from ..samples.images import Samples
from ..scoring.verdicts import Verdict
from ..study.explain import explain
from ..study.sqnr import agreement, layer_rows, pairs
from . import headline, story
from .activations import layer_tensors
from .candidates import candidates
from .layer_weights import layer_weights
from .network_drawing import drawing
from .noise_charts import steps_of
from .wording import in_words, is_number

if TYPE_CHECKING:
    from ..result import Result

LEVELS = {
    1: "no data, no backpropagation",
    2: "data, no backpropagation",
    3: "data and backpropagation",
    4: "retraining, or a changed architecture",
}
WORTH_TELLING = 0.05
"""Gain in dB below which a change is not proposed."""
_PLAIN_LANGUAGE = {"lwq": "one grid per layer", "cwq": "one grid per channel", "wes": "one grid, shift per channel"}


@dataclass(frozen=True)
class Beside:
    """What a page is told beside the result.

    Attributes:
        name: the network's.
        measured: what `evaluate` found, in per cent and dB; a figure `float_x` is the float network's `x`, `verdict`
            that on it. Any other figures are shown by their names.
        images: where given, the noise of every layer is measured on them; made_up: whether they are.
        todo: what to do next; left out, it follows from the verdict.
        made: where the page comes from (`provenance`); saved, file_bytes: the file that was written.
        pictures, activations: what `views` found.
    """

    name: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    images: Samples | None = None
    made_up: bool = False
    todo: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    saved: str = ""
    file_bytes: int | None = None
    pictures: Mapping[str, Any] = field(default_factory=dict)
    activations: Mapping[str, Any] = field(default_factory=dict)


def contents(result: Result, plain: Model, beside: Beside | None = None) -> dict[str, Any]:
    """The report's numbers and words, ready for JSON.

    Args:
        result: what `quantize` gave.
        plain: the float network, BatchNorms folded, with moments and ranges of every tensor, and with grids in the
            format of the result: `formats` tells it.

    Returns:
        name, recipe, target, level; verdict (level and words), figures (what a reader wants first), limits and todo;
        warnings; layers, one row each; network (a drawing); totals (predicted SQNR at the outputs); agreement of
        predicted and measured noise; fits by kind of layer; pictures; activations; candidates; sizes by scheme; events,
        warnings first; made; notes on what could not be shown.
    """
    told, quantized = beside or Beside(), result.model
    seen, notes = _measure(plain, quantized, told.images)
    parts = {"Pictures are": told.pictures, "Activations are": told.activations}
    notes += [f"{what} not shown: {part['why']}." for what, part in parts.items() if "why" in part]
    found = explain(plain, plain, quantized)
    noise = predict(plain, quantized)
    rows = _layers(plain, quantized, seen, noise)
    events = [in_words(e) for e in sorted(quantized.log, key=lambda e: not e.warning)]
    verdict = headline.verdict(told.measured, quantized)
    scored = any(is_number(value) for value in told.measured.values())
    return {
        "name": told.name or plain.graph.name,
        "recipe": result.recipe,
        "target": {"name": result.hardware.name, "description": result.hardware.description},
        "level": {"number": result.level, "words": LEVELS[result.level]},
        "images": 0 if seen is None else seen.images,
        "made_up": told.made_up,
        "verdict": {**headline.shown(verdict), "words": verdict.words},
        "measured": scored,
        "figures": headline.figures(told.measured, quantized, told.file_bytes),
        "limits": headline.limits(found, ()),
        "todo": told.todo or _todo(result, verdict, told.saved, scored),
        "warnings": [e for e in events if e["warning"]],
        "layers": rows,
        "network": drawing(quantized, [row["type"] for row in rows], _shares(noise)),
        "totals": found.predicted,
        "changes": [c for c in found.changes if c["gain"] >= WORTH_TELLING],
        "steps": steps_of(quantized),
        "agreement": _agreement(rows),
        "fits": _fits(rows),
        "candidates": candidates(quantized),
        "pictures": told.pictures if told.pictures.get("shown") else {},
        "activations": told.activations if told.activations.get("tensors") else {},
        "sizes": _sizes(quantized, told.file_bytes, notes),
        "events": events,
        "made": told.made,
        "notes": notes,
    }


def _todo(result: Result, said: Verdict, saved: str, measured: bool) -> str:
    """What to do next, with the names of the files that were given, and the bits."""
    job = result.job
    files = {k: str(v) for k, v in job.given.items() if isinstance(v, str) or hasattr(v, "__fspath__")}
    network = files.pop("model", "") or "NETWORK.onnx"
    given = {**files, "weight_bits": job.weight_bits, "activation_bits": job.activation_bits}
    return story.next_step(said, result, network, saved, given, measured, True)


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


def _shares(noise: Prediction) -> dict[Name, float]:
    """The share of all predicted noise at the outputs that enters at each tensor."""
    found: dict[Name, float] = {}
    of_weights = [(layer.tensor, layer.reaching) for layer in noise.layers]
    of_grids = [(t.tensor, t.rounding + t.clips) for t in noise.tensors]
    for name, part in (*of_weights, *of_grids) if noise.total > 0 else ():
        found[name] = found.get(name, 0.0) + part / noise.total
    return found


def _layers(plain: Model, quantized: Model, seen: Measured | None, noise: Prediction) -> list[dict[str, Any]]:
    weight, activation = formats(quantized)
    formatted = (weight, activation or QSpec(signed=False, symmetric=False))
    first = {r["tensor"]: r for r in layer_rows(plain, plain, *formatted)}
    last = {r["tensor"]: r for r in layer_rows(plain, quantized, *formatted, seen)}
    known = {layer.tensor: layer for layer in noise.layers}
    rows = list[dict[str, Any]]()
    tables = layer_weights(plain, quantized), _origins(quantized), layer_tensors(quantized)
    for number, (facts, origins, tensors) in enumerate(zip(*tables, strict=True)):
        y = facts.pop("tensor")
        now, then = (found.get(y, {"predicted": {}, "measured": None, "equalization": {}}) for found in (last, first))
        row = {
            "number": number + 1,
            **facts,
            "from": origins,
            "tensors": tensors,
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


def _sizes(model: Model, file_bytes: int | None, notes: list[str]) -> dict[str, Any]:
    """Bytes by scheme, as figure 4 of WES; what is not weights and biases counts as parameters of the grids."""
    float_bytes, integer_bytes = sizes(model)
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
    return {"float": float_bytes, "integer": integer_bytes, "file": file_bytes, "fixed": fixed, "schemes": table}
