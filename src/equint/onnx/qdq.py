"""Export as QDQ: float operators between QuantizeLinear and DequantizeLinear, which runtimes turn into integers.

Weights and biases are stored as integers. Where a quantizer's saturation does what a ReLU or clip did, the
activation is left out; where a bound lies inside the grid, or differs per channel, an integer clamp stands
between QuantizeLinear and DequantizeLinear. Grids narrower than 8 bits are held by the same clamp. For runtimes that
take no such clamps (`Graph.integer_clamps`) the activation stays in front of the quantizer, and so does a Clip to the
ends of a narrow grid.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, checker, helper, numpy_helper, shape_inference

from ..errors import UnreadableModel
from ..graph import clamps
from ..graph.placement import grid_of, place
from ..ir.model import Array, Graph, Model, Moments, Name, Node, QParams, Range, View
from ..ir.weights import Layer
from ..maths.affine import quantize, quantize_bias, storage
from ..ops.activations import is_clamp
from ..ops.attributes import clip_bounds
from ..ops.layers import as_layer
from ..ops.listed import on_integers
from .writer import said_of, to_proto

WIDE = 21
"""The first opset whose quantizers take 16 bits."""


def export(model: Model, about: Mapping[str, str] | None = None) -> ModelProto:
    """The quantized model as ONNX.

    Tensors keep their names: what a consumer reads as `t` is the dequantized `t`. The scale and offset that
    relate rewritten tensors to the original network's travel in the metadata, for `compare`, and so do what its inputs
    look like and what is said `about` the file, by keys that get "equint." in front: the target, for `lint`.

    Raises:
        onnx.checker.ValidationError: never on models that the passes made; it would be a bug here.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.passes.quantize import Quantize
        >>> model = Quantize(activation=None)(Model(tiny_graph()))
        >>> [n.op_type for n in export(model).graph.node]
        ['DequantizeLinear', 'Conv']
    """
    proto = to_proto(qdq_graph(model))
    said = {f"equint.{key}": value for key, value in (about or {}).items()}
    about_inputs = {"equint.inputs": json.dumps(_inputs(model))}
    helper.set_model_props(proto, {"equint.views": _packed_views(model.views), **about_inputs, **said})
    if proto.ByteSize() < 1 << 31 and all(o.type.tensor_type.HasField("shape") for o in proto.graph.output):
        try:
            checker.check_model(proto, full_check=True)
        except shape_inference.InferenceError:  # onnx cannot look into every function of its own
            checker.check_model(proto)
    return proto


def qdq_graph(model: Model) -> Graph:
    """The quantized model as a graph: what `export` writes."""
    wide = model.graph.opset < WIDE and any(q.bits > 8 for q in model.qparams.values())
    return _Exporter(_at_opset(model) if wide else model).graph()


@contextmanager
def _reading(key: str, source: object) -> Iterator[None]:
    """Metadata that are not as equint writes them are refused; `source`: the file, where they come from one."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        where = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the quantized network"
        why = f"its metadata equint.{key} are not as equint writes them ({type(error).__name__}: {error})"
        raise UnreadableModel(f"{where}: {why}; quantize the float network again") from error


def views_of(proto: ModelProto, source: object = None) -> dict[Name, View]:
    """The views stored in an exported model, read from `source`; empty for models of other origin.

    Raises:
        UnreadableModel: they are not as `export` writes them.
    """
    stored = said_of(proto, "views")
    if stored is None:
        return {}
    with _reading("views", source):
        table = json.loads(stored)
        arrays = [np.frombuffer(base64.b64decode(a), np.float32) for a in table["arrays"]]
        shaped = {name: [arrays[i].reshape(s) for i, s in pairs] for name, pairs in table["views"].items()}
        return {name: View(scale, offset) for name, (scale, offset) in shaped.items()}


def _told_inputs(proto: ModelProto, source: object) -> dict[Name, dict[str, Array]]:
    """What `_inputs` wrote. Raises UnreadableModel: it is something else."""
    with _reading("inputs", source):
        told = json.loads(said_of(proto, "inputs") or "{}")
        keys = ("low", "high", "mean", "std")
        found = {name: {key: np.asarray(about[key], np.float64) for key in keys} for name, about in told.items()}
        for name, about in found.items():
            if not all(np.isfinite(v).all() for v in about.values()) or np.any(about["low"] > about["high"]):
                raise ValueError(f"no range and spread of {name}")
        return found


def _inputs(model: Model) -> dict[Name, dict[str, Any]]:
    """What float inputs were taken for: lowest and highest value, mean and spread."""
    told = dict[Name, dict[str, Any]]()
    for name in model.graph.inputs:
        moments, span = model.moments.get(name), model.ranges.get(name)
        if moments is None or span is None or not model.graph.is_float(name):
            continue
        fields = {"low": span.lo, "high": span.hi, "mean": moments.mean, "std": moments.std}
        told[name] = {key: np.asarray(value, np.float64).tolist() for key, value in fields.items()}
    return told


def described_inputs(proto: ModelProto, model: Model, source: object = None) -> Model:
    """A float network whose inputs are known as an exported model's metadata describe them; as it is without.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> one = np.ones((1, 1, 1, 1))
        >>> known = Model(tiny_graph(), {"x": Moments(0 * one, one, "given")}, {"x": Range(-2 * one, one)})
        >>> read = described_inputs(export(known), Model(tiny_graph()))
        >>> read.ranges["x"].lo.item(), read.moments["x"].origin
        (-2.0, 'given')

    Raises:
        UnreadableModel: they are not as `export` writes them.
    """
    told = _told_inputs(proto, source)
    fields = {name: told[name] for name in model.graph.inputs if name in told}
    moments = {name: Moments(f["mean"], f["std"], "given") for name, f in fields.items()}
    ranges = {name: Range(f["low"], f["high"]) for name, f in fields.items()}
    return replace(model, moments={**model.moments, **moments}, ranges={**model.ranges, **ranges})


def input_spans(proto: ModelProto, source: object = None) -> dict[Name, tuple[float, float]]:
    """The range that a quantized model's first quantizer gives each of its inputs, or else that its metadata tell."""
    consts = {t.name: t for t in proto.graph.initializer}
    told = _told_inputs(proto, source)
    spans = {name: (float(np.min(about["low"])), float(np.max(about["high"]))) for name, about in told.items()}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and {*node.input[1:3]} <= consts.keys() and len(node.input) == 3:
            scale, zero = (numpy_helper.to_array(consts[i]) for i in node.input[1:3])
            if scale.size == 1 and node.input[0] in {i.name for i in proto.graph.input}:
                ends = np.iinfo(zero.dtype)
                lo, hi = ((float(e) - float(zero)) * float(scale) for e in (ends.min, ends.max))
                spans[node.input[0]] = (lo, hi)
    return spans


def held_ranges(proto: ModelProto) -> dict[Name, tuple[float, float]]:
    """How far the grids of a quantized model's activations reach, and half a step further: beyond that they saturate.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> grid = QParams(np.float32(0.5), np.int32(0), signed=False)
        >>> held_ranges(export(Model(tiny_graph(), qparams={"y": grid})))
        {'y': (-0.25, 127.75)}
    """
    consts = {t.name: t for t in proto.graph.initializer}
    makers = {o: node for node in proto.graph.node for o in node.output}
    ranges = dict[Name, tuple[float, float]]()
    for node in proto.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in consts or not {*node.input[1:3]} <= consts.keys():
            continue
        scale, zero = (numpy_helper.to_array(consts[i]) for i in node.input[1:3])
        low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
        behind = makers[node.input[0]]
        while behind.op_type in ("Max", "Min") and behind.input[1] in consts:
            bound = numpy_helper.to_array(consts[behind.input[1]])
            low, high = (max(low, int(bound.min())), high) if behind.op_type == "Max" else (low, int(bound.max()))
            behind = makers[behind.input[0]]
        if scale.size == 1:
            step, centre = float(scale), int(zero)
            ranges[node.output[0]] = (low - 0.5 - centre) * step, (high + 0.5 - centre) * step
    return ranges


def _packed_views(views: Mapping[Name, View]) -> str:
    """JSON with every distinct array once: tensors of a group share theirs."""
    index: dict[bytes, int] = {}
    table: dict[str, Any] = {}
    for name, view in views.items():
        fields = [np.asarray(f, np.float32) for f in (view.scale, view.offset)]
        table[name] = [(index.setdefault(f.tobytes(), len(index)), list(f.shape)) for f in fields]
    return json.dumps({"arrays": [base64.b64encode(a).decode() for a in index], "views": table})


def _at_opset(model: Model) -> Model:
    """Convert the float network first: the converter does not know quantizers of every width.

    Nor does it know a MatMul with a bias, which gets it back behind: as an Add it would be no part of its layer.
    """
    from onnx import version_converter

    from .reader import decode

    biased = {n.outputs[0]: n for n in model.graph.nodes if n.op == "MatMul" and not n.domain and len(n.inputs) > 2}
    bare = [replace(n, inputs=n.inputs[:2]) if n is biased.get(n.outputs[0]) else n for n in model.graph.nodes]
    graph = decode(version_converter.convert_version(to_proto(model.graph.with_nodes(bare)), WIDE), "model")
    nodes = [replace(n, inputs=biased[n.outputs[0]].inputs) if n.outputs[0] in biased else n for n in graph.nodes]
    biases = {n.inputs[2]: model.graph.consts[n.inputs[2]] for n in biased.values()}
    graph = graph.with_nodes(nodes, biases)
    known = model.graph
    flags = (
        "fuses",
        "integers_only",
        "layers_only",
        "integer_clamps",
        "integer_biases",
        "tied",
        "fixed",
        "operators",
        "float_layers",
    )
    graph = replace(graph, **{flag: getattr(known, flag) for flag in flags})
    return replace(model, graph=replace(graph, shapes=known.shapes, dtypes=known.dtypes))


class _Exporter:
    """Walks the graph once and emits nodes; keeps the names under which values are now read."""

    def __init__(self, model: Model) -> None:
        self.model, self.float = model, model.graph
        self.merged = place(model.graph).merged
        self.ends = clamps.ends(model.graph, self.merged)
        self.nodes: list[Node] = []
        self.consts: dict[Name, Array] = dict(model.graph.consts)
        self.reads: dict[Name, Name] = {}  # where consumers find a value now
        self.stored: dict[Name, Name] = {}
        self.taken = {*model.graph.inputs, *model.graph.consts, *model.graph.producer}
        self.named = {node.name for node in model.graph.nodes}
        self.taken |= self.named

    def fresh(self, stem: Name) -> Name:
        """A name, for a value or a node, that nothing else has."""
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        return stem

    def graph(self) -> Graph:
        for name in self.float.inputs:
            if name in self.model.qparams:
                self.reads[name] = self.fresh(f"{name}_dequantized")
                self.quantizer(name, name, self.reads[name], [])
        for node in self.float.nodes:
            self.emit(node)
        dtypes = {**self.float.dtypes, **{n: str(a.dtype) for n, a in self.consts.items()}}
        return replace(self.float.with_nodes(self.nodes, self.consts), dtypes=dtypes)

    def emit(self, node: Node) -> None:
        layer = as_layer(self.float, node)
        out = node.outputs[0] if node.outputs else ""
        if is_clamp(self.float, node) and node.inputs[0] in self.merged and self.grid_behind(out) is not None:
            x = node.inputs[0]  # the quantizer at the end of the chain does it
            self.reads[out] = self.reads.get(x, x)
            if out in self.model.qparams:
                self.quantizer(out, self.reads.pop(out), out, self.chain(node))
            return
        node = self.without_idle_bound(node)
        inputs = [self.reads.get(i, i) for i in node.inputs]
        if layer is not None and layer.weight in self.model.qparams and on_integers(self.float, node):
            inputs = self.integer_operands(layer, inputs)
        elif grid_of(self.float, node).constants:
            inputs = [self.weight(i) if i in self.float.consts and i in self.model.qparams else i for i in inputs]
        quantized = [o for o in node.outputs if o in self.model.qparams]
        raw = {o: self.fresh(f"{o}_float") for o in quantized}
        outputs = tuple(raw.get(o, o) for o in node.outputs)
        name = node.name or (out if raw and out not in self.named else "")  # what messages call it stays
        self.nodes.append(replace(node, inputs=tuple(inputs), outputs=outputs, name=name))
        for o in quantized:
            self.quantizer(o, raw[o], o, [])

    def without_idle_bound(self, node: Node) -> Node:
        """A Clip that stays in front of a quantizer, as the Relu that it is where the grid ends no higher."""
        q = self.model.qparams.get(node.outputs[0]) if len(node.outputs) == 1 else None
        if q is None or node.op != "Clip" or not is_clamp(self.float, node):
            return node
        lo, hi = clip_bounds(self.float, node)
        idle = lo is not None and np.all(lo == 0) and hi is not None and np.all(clamps.on_grid(hi, q) >= q.qmax)
        return replace(node, op="Relu", inputs=node.inputs[:1], attrs={}) if idle else node

    def grid_behind(self, name: Name) -> QParams | None:
        """The grid in which a chain of activations ends, if an integer clamp can do their work there."""
        name = self.ends.get(name, name)
        q = self.model.qparams.get(name)
        clamped = q is not None and q.bits <= 8 and self.float.integer_clamps
        return q if q is not None and (clamped or self.covers(q, name)) else None

    def covers(self, q: QParams, last: Name) -> bool:
        bounds = [clip_bounds(self.float, n) for n in self.chain(self.float.producer[last])]
        known = [(clamps.on_grid(lo, q), clamps.on_grid(hi, q)) for lo, hi in bounds if not (lo is None or hi is None)]
        return all(np.all(lo <= q.qmin) and np.all(hi >= q.qmax) for lo, hi in known)

    def chain(self, node: Node) -> list[Node]:
        return clamps.chain(self.float, self.merged, node)

    def quantizer(self, name: Name, raw: Name, out: Name, activations: list[Node]) -> None:
        """raw → QuantizeLinear → (integer clamp) → DequantizeLinear → out."""
        q = self.model.qparams[name]
        scale, zero = self.grid_consts(name, q)
        integer = self.fresh(f"{name}_quantized")
        raw = self.within(name, raw, q)
        self.add("QuantizeLinear", (raw, scale, zero), integer, f"{name}_QuantizeLinear")
        integer = self.clamp(name, integer, q, activations)
        self.add("DequantizeLinear", (integer, scale, zero), out, f"{name}_DequantizeLinear")

    def add(self, op: str, inputs: tuple[Name, ...], out: Name, name: Name, **attrs: int) -> None:
        self.nodes.append(Node(op, inputs, (out,), attrs, name=self.fresh(name)))

    def within(self, name: Name, raw: Name, q: QParams) -> Name:
        """The values within a grid narrower than the type that holds it, where integers may not be clamped to it."""
        full = np.iinfo(storage(q))
        if self.float.integer_clamps or (q.qmin, q.qmax) == (full.min, full.max):
            return raw
        clipped, ends = self.fresh(f"{name}_within"), (self.fresh(f"{name}_lowest"), self.fresh(f"{name}_highest"))
        self.consts |= {end: np.asarray(value, np.float32) for end, value in zip(ends, (q.lo, q.hi), strict=True)}
        self.add("Clip", (raw, *ends), clipped, f"{name}_Clip")
        return clipped

    def clamp(self, name: Name, integer: Name, q: QParams, activations: list[Node]) -> Name:
        dtype = storage(q)
        full = np.iinfo(dtype)
        if not self.float.integer_clamps:
            return integer  # what bounds the values stands in front
        low, high = clamps.bounds(self.float, q, activations)
        for op, bound, idle in (("Max", low, full.min), ("Min", high, full.max)):
            if np.any(bound != idle) and not (q.bits > 8 and np.all(bound == (q.qmin if op == "Max" else q.qmax))):
                constant, clamped = self.fresh(f"{name}_{op.lower()}imum"), self.fresh(f"{name}_clamped_{op.lower()}")
                self.consts[constant] = bound.astype(dtype)
                self.add(op, (integer, constant), clamped, f"{name}_{op}")
                integer = clamped
        return integer

    def grid_consts(self, name: Name, q: QParams) -> tuple[Name, Name]:
        scale, zero = self.fresh(f"{name}_scale"), self.fresh(f"{name}_zero_point")
        self.consts[scale] = np.asarray(q.scale, np.float32)
        self.consts[zero] = np.asarray(q.zero_point).astype(storage(q))
        return scale, zero

    def integer_operands(self, layer: Layer, inputs: list[Name]) -> list[Name]:
        """Weight and bias as integer constants behind DequantizeLinear."""
        q = self.model.qparams[layer.weight]
        at = layer.node.inputs.index(layer.weight)
        inputs = [self.weight(layer.weight) if k == at else i for k, i in enumerate(inputs)]
        x = self.model.qparams.get(layer.x)
        if layer.bias is not None and x is not None:
            integers, scale = quantize_bias(self.float.consts[layer.bias], x, q)
            if self.float.integer_biases:
                inputs[2] = self.constant(f"{layer.y}_bias", integers, scale, 0 if scale.ndim else None)
            else:
                inputs[2] = self.fresh(f"{layer.y}_bias_rounded")
                self.consts[inputs[2]] = (integers * scale.astype(np.float64)).astype(np.float32)
        return inputs

    def weight(self, name: Name) -> Name:
        """A quantized constant, stored once however many nodes read it."""
        if name not in self.stored:
            q = self.model.qparams[name]
            integers = quantize(self.float.consts[name], q).astype(storage(q))
            self.stored[name] = self.constant(name, integers, q.steps, q.axis, q.zero_point)
        return self.stored[name]

    def constant(self, stem: Name, integers: Array, scale: Array, axis: int | None, zero: Array | None = None) -> Name:
        names = (self.fresh(f"{stem}_quantized"), self.fresh(f"{stem}_scale"), self.fresh(f"{stem}_zero_point"))
        zeros = np.broadcast_to(np.asarray(0 if zero is None else zero), np.shape(scale)).astype(integers.dtype)
        self.consts |= dict(zip(names, (integers, np.asarray(scale, np.float32), zeros), strict=True))
        out = self.fresh(f"{stem}_dequantized")
        self.add("DequantizeLinear", names, out, f"{stem}_DequantizeLinear", **({} if axis is None else {"axis": axis}))
        return out
