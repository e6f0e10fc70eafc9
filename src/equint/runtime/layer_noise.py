"""Noise of every layer alone, measured on images: what its rounded weights and its rounded input do to its output.

The float network feeds every layer. Beside it stand copies with quantized weights, with a quantized input and with
both; all are subtracted, squared and summed inside onnxruntime, so that only a number per sample
comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from ..errors import UnusableData
from ..graph.placement import fused, keeps_grid, stored_as
from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Model, Name, Node
from ..ir.weights import Layer
from ..maths.affine import fake_quantize
from ..onnx.probes import row_power
from ..onnx.writer import to_proto
from ..ops.activations import clamps, is_clip
from ..ops.layers import layers
from ..samples.images import Samples, length, split
from .batches import BATCH, at_once
from .session import Session


@dataclass(frozen=True)
class LayerPower:
    """Sums of squares over a layer's output, before its activation, in the float network's units.

    `signal` is Σ y²; the others Σ (ŷ − y)² where the weights, the input (activations) or both are quantized, or the
    input is only rounded, on a grid without ends, or only cut off (clips); None where there is nothing of the kind.

    `stored` is Σ a² behind the activations that the layer's quantizer replaces; there `output` is the noise of the
    rounded output, `y1` that of weights and output. `earlier` is the noise at y of the rounded weights of the layer
    before, and `y2` that of those, the input and the weights: what equations 5 to 9 of Meller et al. (2019) predict.
    """

    signal: float
    weights: float | None = None
    activations: float | None = None
    both: float | None = None
    rounding: float | None = None
    clips: float | None = None
    stored: float | None = None
    output: float | None = None
    y1: float | None = None
    earlier: float | None = None
    y2: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured: the number of images, and the powers by the name of each layer's output."""

    images: int
    layers: Mapping[Name, LayerPower]


def measure(
    reference: Model,
    quantized: Model,
    images: Samples,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Signal and noise of every layer whose weights or input are quantized (Meller et al. 2019, section 5.1).

    Each layer reads what the float network puts out: noise of the layers before does not count. Grids are executed
    as QuantizeLinear and DequantizeLinear would, as float arithmetic of any width; what a clip with a moved bound
    lets pass, or cuts off, counts as noise of the input. A corrected bias counts with the weights; rounding of
    biases does not count. Memory does not grow with the number of images.

    Args:
        reference: the float network.
        quantized: the same network with grids; its channels may be rescaled and its clips moved.
        batch: most images that go through the network at once.
        progress: called with the number of images done.

    Raises:
        EquintError: no images, images of a wrong shape, values that are not finite, tensors that were shifted.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.ir.model import QParams
        >>> grid = QParams(np.float32(0.75), np.int32(0))
        >>> model = Model(tiny_graph())
        >>> images = Samples.of(np.ones((3, 4, 4, 4), np.float32))
        >>> found = measure(model, Model(tiny_graph(), qparams={"w": grid}), images).layers["y"]
        >>> found.weights / found.signal, found.activations
        (0.0625, None)
    """
    shifted = next((name for name, view in quantized.views.items() if np.any(view.offset)), None)
    if shifted is not None:
        raise UnusableData(f"tensor {shifted} was shifted; the noise of layers is measured before biases are absorbed")
    probes = _Probes(reference.graph, quantized)
    own = {layer.y: layer for layer in layers(quantized.graph)}
    table = {la.y: probes.layer(la, own[la.y]) for la in layers(reference.graph) if la.y in own}
    table = {name: wanted for name, wanted in table.items() if len(wanted) > 1}
    outputs = [o for wanted in table.values() for o in wanted.values()]
    if not outputs:
        return Measured(0, {})
    session = Session(to_proto(probes.graph(outputs)), optimized=True, lean=True, together=True)
    sums, seen = dict.fromkeys(outputs, 0.0), 0
    for feed in split(images, at_once(reference.graph, batch)):
        for name, value in session.run(feed).items():
            sums[name] += float(np.sum(value, dtype=np.float64))
        seen += length(feed)
        if progress is not None:
            progress(seen)
    return Measured(seen, {y: _power(y, {kind: sums[o] for kind, o in wanted.items()}) for y, wanted in table.items()})


def _power(name: Name, sums: Mapping[str, float]) -> LayerPower:
    if not np.isfinite(list(sums.values())).all():
        raise UnusableData(f"tensor {name} takes values that are not finite; check the network and its input")
    return LayerPower(**sums)


class _Probes:
    """Operators and constants to be added to the float network, under names that nothing in it has."""

    def __init__(self, graph: Graph, quantized: Model) -> None:
        self.float, self.quantized = graph, quantized
        self.nodes, self.consts, self.inputs = list[Node](), dict[Name, Array](), dict[Name, dict[str, Name]]()
        self.noisy = dict[Name, Name]()
        taken = (*graph.inputs, *graph.consts, *graph.producer)
        self.stem, self.count = "noise", count()
        while any(name.startswith(self.stem) for name in taken):
            self.stem += "_"

    def graph(self, outputs: list[Name]) -> Graph:
        """The float network with the probes, which alone are put out."""
        nodes = (*self.float.nodes, *self.nodes)
        return replace(self.float, nodes=nodes, consts={**self.float.consts, **self.consts}, outputs=tuple(outputs))

    def layer(self, before: Layer, after: Layer) -> dict[str, Name]:
        """The values that tell the signal and noise of a layer, in the float and in the quantized network."""
        found, plain = {"signal": self.power(before.y)}, list(before.node.inputs)
        given = self.given(before.x) if before.x in self.quantized.qparams else {}
        found |= {kind: self.noise(before, x, plain) for kind, x in given.items()}
        stored = stored_as(self.float, before.y)
        if stored in self.quantized.qparams:
            found["stored"] = self.power(stored)
            found["output"] = self.error(self.rounded(stored, stored), stored)
        early = self.noisy.get(before.x)
        if early is not None:
            found["earlier"] = self.noise(before, early, plain)
        if after.weight not in self.quantized.qparams:
            return found
        operands = self.operands(after)
        y = self.run(before, before.x, operands)
        found["weights"] = self.error(y, before.y)
        self.noisy[stored] = self.activated(before.y, y)
        if given:
            found["both"] = self.noise(before, given["activations"], operands)
        if "output" in found:
            found["y1"] = self.error(self.rounded(stored, self.noisy[stored]), stored)
        if given and early is not None:
            found["y2"] = self.noise(before, self.rounded(before.x, early), operands)
        return found

    def noise(self, layer: Layer, x: Name, operands: list[Name]) -> Name:
        """Σ (ŷ − y)² of the layer with another input, weights and bias."""
        return self.error(self.run(layer, x, operands), layer.y)

    def run(self, layer: Layer, x: Name, operands: list[Name]) -> Name:
        """The layer's output with another input, weights and bias."""
        inputs = [x if i == layer.x else i for i in operands]
        self.nodes.append(replace(layer.node, name="", inputs=tuple(inputs), outputs=(self.fresh(),)))
        return self.nodes[-1].outputs[0]

    def activated(self, name: Name, value: Name) -> Name:
        """What the activations behind a layer's output make of another value in its place."""
        values = {name: value}
        for node in fused(self.float, name):
            inputs = tuple(values.get(i, i) for i in node.inputs)
            name, values[node.outputs[0]] = node.outputs[0], self.fresh()
            self.nodes.append(replace(node, name="", inputs=inputs, outputs=(values[name],)))
        return values[name]

    def rounded(self, name: Name, value: Name) -> Name:
        """Another value in a tensor's place, on the tensor's grid, all in float units."""
        grid = self.quantized.qparams[name]
        ends = [self.constant(np.asarray(end - grid.zero_point)) for end in (grid.qmin, grid.qmax)]
        unit = self.constant(grid.scale * _scale(self.quantized, name))
        return self.add("Mul", self.add("Clip", self.add("Round", self.add("Div", value, unit)), *ends), unit)

    def operands(self, layer: Layer) -> list[Name]:
        """The inputs of the layer's node with its weights rounded and its bias as it is now, in float units."""
        model, weight = self.quantized, self.quantized.graph.consts[layer.weight]
        inputs, outputs = layer.channels(weight)
        enters = channel_means(_scale(model, layer.x), layer.x_axis, inputs)
        leaves = channel_means(_scale(model, layer.y), layer.y_axis, outputs)
        view = layer.unpack(fake_quantize(weight, model.qparams[layer.weight]))
        g, o, i, _ = view.shape
        real = layer.pack(view * (leaves.reshape(g, o, 1, 1) / enters.reshape(g, 1, i, 1)), weight.shape)
        names = {layer.weight: self.constant(real)}
        if layer.bias is not None:
            bias = model.graph.consts[layer.bias].reshape(-1) * leaves
            names[layer.bias] = self.constant(layer.shaped_bias(bias))
        return [names.get(i, i) for i in layer.node.inputs]

    def given(self, name: Name) -> dict[str, Name]:
        """What the quantized network reads as `name`, in float units: rounded, cut off, and both."""
        if name not in self.inputs:
            grid, scale = self.quantized.qparams[name], _scale(self.quantized, name)
            ends = [self.constant(np.asarray(end - grid.zero_point)) for end in (grid.qmin, grid.qmax)]
            step, unit = self.constant(grid.scale), self.constant(grid.scale * scale)
            steps = self.add("Div", self.before_grid(name), step)
            found = {
                "rounding": self.add("Round", self.add("Div", name, unit)),
                "clips": self.add("Clip", steps, *ends),
                "activations": self.add("Clip", self.add("Round", steps), *ends),
            }
            self.inputs[name] = {kind: self.add("Mul", value, unit) for kind, value in found.items()}
        return self.inputs[name]

    def before_grid(self, name: Name) -> Name:
        """The float network's tensor in the quantized one's units; where clips lead to it, as those now clip."""
        graph = self.quantized.graph
        path = _clips(graph, name)
        start = path[0].inputs[0] if path else name
        scaled = start in self.quantized.views
        names = {start: self.add("Div", start, self.constant(_scale(self.quantized, start))) if scaled else start}
        for node in path:
            consts = {i: graph.consts[i] for i in node.inputs if i in graph.consts}
            names |= {i: self.fresh() for i in (*consts, *node.outputs) if i}
            self.consts |= {names[i]: value for i, value in consts.items()}
            inputs, outputs = (tuple(names.get(n, n) for n in side) for side in (node.inputs, node.outputs))
            self.nodes.append(replace(node, name="", inputs=inputs, outputs=outputs))
        return names[name]

    def error(self, name: Name, exact: Name) -> Name:
        return self.power(self.add("Sub", name, exact))

    def power(self, name: Name) -> Name:
        """Σ y² of each row: of a batch that is filled up, what does not count is cut off."""
        nodes, consts = row_power(name, self.float.opset, self.fresh())
        self.nodes += nodes
        self.consts |= consts
        return nodes[-1].outputs[0]

    def add(self, op: str, *inputs: Name, **attrs: int | list[int]) -> Name:
        self.nodes.append(Node(op, inputs, (self.fresh(),), attrs))
        return self.nodes[-1].outputs[0]

    def constant(self, value: Array) -> Name:
        name = self.fresh()
        self.consts[name] = np.asarray(value, np.float32)
        return name

    def fresh(self) -> Name:
        return f"{self.stem}{next(self.count)}"


def _clips(graph: Graph, name: Name) -> list[Node]:
    """The nodes from the first clip on that lead to a tensor: only there is what they let pass known."""
    path, node = list[Node](), graph.producer.get(name)
    while node is not None and (keeps_grid(graph, node) or clamps(node)):
        path.insert(0, node)
        node = graph.producer.get(node.inputs[0])
    first = next((k for k, node in enumerate(path) if is_clip(node)), len(path))
    return path[first:]


def _scale(model: Model, name: Name) -> Array:
    """Float units per unit of the quantized network's tensor."""
    return model.views[name].scale if name in model.views else np.ones(1)
