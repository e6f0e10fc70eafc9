"""SQNR of every layer, predicted from the errors its rounded weights have, against measurement, as Markdown tables.

    EQUINT_REAL=folder python benchmarks/noise.py [--layers] [--figure docs/noise.svg]

Each layer runs alone on what the float network feeds it: with its weights rounded; its input rounded, on a grid
without ends; its input rounded and clipped as the quantized network would; weights and input both. Its output is
compared with the float layer's, before the activation and in the float network's units. Prediction uses no data;
measurement uses 16 evaluation inputs, in which values that are clipped but rarely may not occur. What equations 5 to 9
of Meller et al. (2019) predict from ranges alone is compared by benchmarks/factorization_figures.py.
--layers prints every layer instead; --figure draws the first and the last network of the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from real import Network, networks
from svg import Panel, Series, write

import equint
from equint.graph.placement import keeps_grid
from equint.hardware.target import target
from equint.ir.model import Array, Graph, Model, Name, Node
from equint.ir.weights import Layer
from equint.maths.affine import fake_quantize
from equint.maths.noise import sqnr_db
from equint.noise.prediction import predict
from equint.onnx.writer import to_proto
from equint.ops.activations import clamps
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.relu6 import Relu6
from equint.planning.recipe import recipe
from equint.runtime.session import Session
from equint.samples.card import described
from equint.samples.data import batches

TARGETS = {
    "mobilenet_v1_025_224_imagenet": "per-tensor-clip",
    "mobilenet_v2_035_224_flowers": "per-tensor-clip",
    "mobilenet_v1_025_96_vww": "per-tensor",
    "yolo_fastest_11_coco": "per-tensor",
    "resnet20_cifar10": "per-tensor",
}
DRAWN = ("mobilenet_v1_025_224_imagenet", "resnet20_cifar10")
RECIPES = ("lwq", "optimal")
PARTS = ("weights", "rounding", "activations", "both")
SAMPLES = 16
SILENT = 100.0
"""SQNR in dB above which a layer counts as free of noise: what is left is float32's own rounding."""


@dataclass(frozen=True)
class Compared:
    """A layer's SQNR in dB, predicted and measured, for each of `PARTS`; nan where nothing is quantized or known."""

    name: Name
    predicted: Array
    measured: Array


def reference_of(network: Network, hardware: str) -> Model:
    """The float network that noise is measured against."""
    mode = "channel_clip" if target(hardware).channel_clip else "keep"
    model = described(equint.load(network.model), network.card)
    return ActivationRanges()(Relu6(mode)(FoldBatchnorm()(model)))  # type: ignore[arg-type]


def quantized_of(network: Network, name: str, hardware: str) -> Model:
    """The network with its grids, its weights still float."""
    chosen = recipe(name)
    kept = tuple(p for p in chosen.passes if p[0] != "round_weights")
    return equint.quantize(network.model, replace(chosen, passes=kept), hardware, input=network.card).model


def compared(network: Network, name: str, hardware: str) -> list[Compared]:
    """Every layer of a network, quantized with a recipe for a target."""
    reference, quantized = reference_of(network, hardware), quantized_of(network, name, hardware)
    own = {layer.y: layer for layer in layers(quantized.graph)}
    powers = dict(measured(network, reference, quantized))
    found = []
    for noise in predict(reference, quantized).layers:
        if noise.tensor not in own:
            continue
        weights = np.nan if noise.weights is None else noise.weights
        rounding = np.nan if noise.activations is None else noise.activations
        activations = rounding + (noise.clips or 0.0)
        ratios = (weights, rounding, activations, weights + activations)
        predicted = np.array([-10 * np.log10(r) if r > 0 else np.nan for r in ratios])
        found.append(Compared(noise.name, predicted, powers[noise.tensor]))
    return found


def measured(network: Network, reference: Model, quantized: Model) -> Iterator[tuple[Name, Array]]:
    """Name of every layer's output, and its SQNR in dB for each of `PARTS`."""
    own = {layer.y: layer for layer in layers(quantized.graph)}
    floats = [layer for layer in layers(reference.graph) if layer.y in own]
    origins = {layer.y: _origin(quantized.graph, layer.x) for layer in floats}
    taps = {n for layer in floats for n in (layer.x, origins[layer.y])} - set(reference.graph.inputs)
    x = np.concatenate([b for b, _ in batches(network.card.data["eval"], network.card, limit=SAMPLES)])
    values = Session(to_proto(reference.graph), taps=sorted(taps)).run(x) | {reference.graph.inputs[0]: x}
    for layer in floats:
        yield layer.y, _local(reference, quantized, layer, own[layer.y], values[layer.x], values[origins[layer.y]])


def _origin(graph: Graph, name: Name) -> Name:
    """The tensor before the activations and moves that lead to `name`: where a moved bound still makes a difference."""
    node = graph.producer.get(name)
    while node is not None and (keeps_grid(graph, node) or clamps(node)):
        name = node.inputs[0]
        node = graph.producer.get(name)
    return name


def _local(reference: Model, quantized: Model, before: Layer, after: Layer, x: Array, z: Array) -> Array:
    """SQNR in dB of one layer run alone.

    Args:
        before, after: the layer in the float and in the quantized network.
        x: its float input; z: the tensor of `_origin`, from which the quantized network makes its input.
    """
    entering, leaving = _scale(quantized, before.x), _scale(quantized, before.y)
    signal = _run(reference.graph, before, x)
    weight, bias = quantized.graph.consts[after.weight], _bias(quantized.graph, after)
    rounded = fake_quantize(weight, quantized.qparams[after.weight]) if after.weight in quantized.qparams else None
    plain = (x / entering).astype(np.float32)
    given = endless = None
    if after.x in quantized.qparams:
        origin = _origin(quantized.graph, after.x)
        made = _between(quantized.graph, origin, after.x, (z / _scale(quantized, origin)).astype(np.float32))
        given = fake_quantize(made, quantized.qparams[after.x])
        step = quantized.qparams[after.x].scale
        endless = np.rint(plain / step) * step
    unbiased = _bias(reference.graph, before) / leaving.ravel()
    cases = ((rounded, bias, plain), (weight, unbiased, endless), (weight, unbiased, given), (rounded, bias, given))
    return np.array(
        [
            np.nan
            if w is None or i is None
            else sqnr_db(signal, leaving * _run(quantized.graph, after, i, w, b.astype(np.float32)))
            for w, b, i in cases
        ]
    )


def _scale(model: Model, name: Name) -> Array:
    """Float units per unit of the rescaled tensor."""
    return model.views[name].scale if name in model.views else np.ones(1)


def _bias(graph: Graph, layer: Layer) -> Array:
    count = layer.channels(graph.consts[layer.weight])[1]
    return np.zeros(count) if layer.bias is None else graph.consts[layer.bias].ravel()


def _run(graph: Graph, layer: Layer, x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
    """What the layer alone makes of `x`, with other weights and biases if given."""
    weight = graph.consts[layer.weight] if weight is None else weight
    bias = _bias(graph, layer) if bias is None else bias
    node = replace(layer.node, inputs=(layer.x, "w", "b"))
    consts = {"w": weight, "b": layer.shaped_bias(bias).astype(np.float32)}
    return _outcome(replace(graph, nodes=(node,), consts=consts, inputs=(layer.x,), outputs=(layer.y,)), x)


def _between(graph: Graph, origin: Name, name: Name, z: Array) -> Array:
    """What the nodes between two tensors make of the first."""
    nodes, at = list[Node](), name
    while at != origin:
        nodes.insert(0, graph.producer[at])
        at = nodes[0].inputs[0]
    if not nodes:
        return z
    consts = {i: graph.consts[i] for n in nodes for i in n.reads if i in graph.consts}
    return _outcome(replace(graph, nodes=tuple(nodes), consts=consts, inputs=(origin,), outputs=(name,)), z)


def _outcome(graph: Graph, x: Array) -> Array:
    (result,) = Session(to_proto(graph)).run(x).values()
    return result


def agreement(rows: list[Compared], part: int) -> str:
    """Layers compared, correlation, root mean square error and mean error in dB; the sign: predicted − measured."""
    pairs = known(rows, part)
    error = pairs[:, 0] - pairs[:, 1]
    correlation = np.corrcoef(pairs.T)[0, 1]
    return f"{len(pairs)} | {correlation:.3f} | {np.sqrt(np.mean(error**2)):.1f} | {np.mean(error):+.1f}"


def known(rows: list[Compared], part: int) -> Array:
    """Predicted and measured dB, `(N, 2)`, of the layers that have both and are not silent."""
    pairs = np.array([(r.predicted[part], r.measured[part]) for r in rows])
    return np.asarray(pairs[np.all(np.isfinite(pairs), axis=1) & (pairs[:, 1] < SILENT)])


def panel(title: str, rows: list[Compared]) -> Panel:
    """One network's layers, sorted by predicted SQNR, for weights and for activations."""
    drawn = []
    for part, colour in ((0, "#2f6db3"), (2, "#d2691e")):
        predicted, found = np.array(sorted(known(rows, part).tolist(), reverse=True)).T.tolist()
        order = range(1, len(found) + 1)
        drawn.append(Series(f"{PARTS[part]}, predicted", colour, order, predicted, "line"))
        drawn.append(Series(f"{PARTS[part]}, measured", colour, order, found, "points"))
    return Panel(title, "layers, sorted by predicted SQNR", "SQNR at the layer's output, dB", drawn)


def main() -> None:
    """Print the tables and draw the figure."""
    every = {n.name: n for n in networks() if n.name in TARGETS}
    panels = []
    for name, hardware in TARGETS.items():
        rows = {r: compared(every[name], r, hardware) for r in RECIPES}
        if name in DRAWN:
            panels.append(panel(name, rows["optimal"]))
        print(f"\n### {name}, {hardware}\n")
        if "--layers" in sys.argv:
            _print_layers(rows)
            continue
        print("| quantized | recipe | layers | correlation | root mean square error, dB | mean error, dB | left out |")
        print("|---|---|---|---|---|---|---|")
        both = [r for found in rows.values() for r in found]
        for k, part in enumerate(PARTS):
            for label, found in (*rows.items(), ("together", both)):
                left = len(found) - len(known(found, k))
                print(f"| {part} | {label} | {agreement(found, k)} | {left} |", flush=True)
    if "--figure" in sys.argv:
        path = Path(sys.argv[sys.argv.index("--figure") + 1])
        write(path, "Predicted and measured SQNR of every layer", panels)


def _print_layers(rows: dict[str, list[Compared]]) -> None:
    print("| layer | recipe | " + " | ".join(f"{p}, predicted | measured" for p in PARTS) + " |")
    print("|---" * (2 + 2 * len(PARTS)) + "|")
    for label, found in rows.items():
        for r in found:
            cells = [f"{v:.1f}" for pair in zip(r.predicted, r.measured, strict=True) for v in pair]
            print(f"| {r.name} | {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
