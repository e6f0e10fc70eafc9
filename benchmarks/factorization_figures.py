"""Figures 3 to 6 of Meller et al. (2019) on the networks at hand; its tables are those of benchmarks/factorization.py.

    EQUINT_REAL=folder python benchmarks/factorization_figures.py [options] [network ...]

Options: --cache FOLDER, --jobs N, --limit N samples, --images N (64), --sections A,B (prediction,
channels), --figure FILE (docs/channels.svg) for channels; networks by a part of their names.

prediction: SQNR of every layer by equations 5 to 9 and from known errors, against what is measured on the images
(figure 4), and the median gain of each kind of equalization (figures 5 and 6); `equint sqnr --plot` draws them.
channels: the largest weight, activation and successor's weight of every channel of two layers, before and after
equalization (figure 3). Target per-tensor throughout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from channel_bars import State, write
from tables import Bench, run

import equint
from equint.graph.placement import fused
from equint.ir.model import Array, Graph, Model
from equint.ir.weights import Layer
from equint.job import Job
from equint.ops.layers import as_layer, layers
from equint.passes.one_step import OneStep
from equint.passes.two_step import TwoStep

KINDS = ("weights", "output", "y1", "input", "earlier", "y2")
FIGURE = Path("docs/channels.svg")


def prediction(bench: Bench) -> None:
    """Figure 4 in numbers, and the medians of figures 5 and 6."""
    print(f"## Every layer's SQNR, predicted and measured on {bench.asked.images} images\n")
    print("Correlation over the layers / root mean square difference in dB.\n")
    heads = ("weights", "output", "SQNR_Y1", "input", "weights before", "SQNR_Y2")
    known = ("known errors: weights", "known errors: rounded input", "known errors: both")
    print("| network | equalization | layers | " + " | ".join((*heads, *known)) + " |")
    print("|---" * (3 + len(heads) + len(known)) + "|", flush=True)
    gains = list[str]()
    for card in bench.cards:
        found = equint.sqnr(_model(card), "per-tensor", input=card, images=bench.asked.images).methods
        for name, method in found.items():
            cells = [_agreed(method["published_agreement"].get(kind)) for kind in KINDS]
            cells += [_agreed(method["agreement"].get(kind)) for kind in ("weights", "rounding", "both")]
            print(f"| {card.stem} | {name} | {len(method['layers'])} | {' | '.join(cells)} |", flush=True)
            gains.append(f"| {card.stem} | {name} | {' | '.join(_medians(method['layers']))} |")
    print("\n## Median over the layers, dB\n")
    heads = ("SQNR_W1", "its bound", "SQNR_X", "its bound", "measured: weights", "measured: output")
    print("| network | equalization | " + " | ".join(heads) + " |")
    print("|---" * (2 + len(heads)) + "|")
    print("\n".join(gains), end="\n\n", flush=True)


def _model(card: Path) -> Path:
    import tomllib

    return card.parent / str(tomllib.loads(card.read_text("utf-8"))["model"])


def _agreed(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{found['correlation']:.3f} / {found['rms']:.1f}"


def _medians(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ends = [(part, end) for part in ("weights", "activations") for end in ("reached", "bound")]
    columns = [[row["equalization"][part][end] for row in rows] for part, end in ends]
    columns += [[row["measured"][kind] for row in rows] for kind in ("weights", "output")]
    known = ([v for v in column if v is not None] for column in columns)
    return [f"{median(values):.1f}" if values else "–" for values in known]


def channels(bench: Bench) -> None:
    """Figure 3: the first two layers of the first network that stand alone and have at least 8 channels, none dead."""
    card, path = bench.cards[0], bench.asked.figure or FIGURE
    job = Job.of(_model(card), None, "per-tensor", input=card, images=bench.asked.images)
    model = job.reference()
    found = next((pair for pair in pairs(model.graph) if _lively(model, *pair)), None)
    if found is None:
        sys.exit(f"{card.stem}: no two layers of 8 channels or more that stand alone; name another network")
    first, second = found
    alone = two_layers(model, first, second)
    reader = _maxima(alone, second, inputs=True)
    states = [State("before", _bars(alone, first, second))]
    states.append(State("one-step", _bars(OneStep(shared_clips=False)(alone), first, second)))
    evened = np.maximum(reader / reader.max(), 1 / 16)
    states.append(State("two-step: the next layer evened out", _scaled(states[0].values, evened)))
    states.append(State("two-step", _bars(TwoStep(shared_clips=False)(alone), first, second)))
    tensors = (("weights", "#2f6db3"), ("activations", "#2a8f4f"), ("successor", "#c0392b"))
    write(path, f"{card.stem}: largest value of each channel, {first.name} and {second.name}", tensors, states)
    print(f"## Largest values over the channels' mean, {card.stem}, {first.name} and {second.name}\n")
    print("| | weights | activations | successor |\n|---|---|---|---|")
    for state in states:
        print(f"| {state.title} | " + " | ".join(f"{max(v) / np.mean(v):.2f}" for v in state.values) + " |")
    print(f"\n{path}\n")


def pairs(graph: Graph) -> Sequence[tuple[Layer, Layer]]:
    """Layers whose output, behind a ReLU, one other layer alone reads."""
    found = list[tuple[Layer, Layer]]()
    for layer in layers(graph):
        behind = fused(graph, layer.y)
        users = graph.users(behind[-1].outputs[0]) if behind else ()
        reader = as_layer(graph, users[0]) if len(users) == 1 else None
        if reader is not None:
            found.append((layer, reader))
    return found


def two_layers(model: Model, first: Layer, second: Layer) -> Model:
    """The two layers alone; a bound above becomes a ReLU, which has none."""
    behind = [replace(n, op="Relu", inputs=n.inputs[:1]) for n in fused(model.graph, first.y)]
    graph = replace(model.graph, inputs=(first.x,), outputs=(second.y,))
    return replace(model, graph=graph.with_nodes((first.node, *behind, second.node)))


def _maxima(model: Model, layer: Layer, inputs: bool = False) -> Array:
    """Largest magnitude of the weights of every output channel, or input channel."""
    weight = np.abs(layer.unpack(model.graph.consts[layer.weight]))
    return np.asarray(weight.max(axis=(1, 3) if inputs else (2, 3)).reshape(-1), np.float64)


def _bars(model: Model, first: Layer, second: Layer) -> list[list[float]]:
    known = model.ranges[second.x]
    reach = np.broadcast_to(np.maximum(np.abs(known.lo), np.abs(known.hi)).reshape(-1), len(_maxima(model, first)))
    return [_maxima(model, first).tolist(), reach.tolist(), _maxima(model, second, inputs=True).tolist()]


def _lively(model: Model, first: Layer, second: Layer) -> bool:
    """Whether no channel is a hundred times smaller than the largest."""
    if second.x not in model.ranges or len(_maxima(model, first)) < 8:
        return False
    return all(min(values) > 0.01 * max(values) for values in _bars(model, first, second))


def _scaled(values: Sequence[Sequence[float]], by: Array) -> list[list[float]]:
    weights, reach, reader = map(np.asarray, values)
    return [(weights * by).tolist(), (reach * by).tolist(), (reader / by).tolist()]


SECTIONS: Mapping[str, Callable[[Bench], None]] = {
    "prediction": prediction,
    "channels": channels,
}

if __name__ == "__main__":
    run(__doc__ or "", SECTIONS)
