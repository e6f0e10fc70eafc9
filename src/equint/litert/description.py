"""A quantized .tflite file of any origin as `hardware/lint.py` looks at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from ..errors import UnreadableModel
from ..hardware.lint import Description, Grid, LayerForm
from ..ir.model import Shape
from ..ops.moves import MOVES
from ..tflite.content import Content, Operator, Subgraph, Tensor
from ..tflite.names import onnx_name

_LAYERS: dict[str, tuple[int, int, int | None, int | None]] = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "CONV_3D": (0, 1, 2, 4),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
    "CONV_3D_TRANSPOSE": (2, 1, 3, 3),
    "BATCH_MATMUL": (0, 1, None, None),
}
"""Which inputs are x, the weight and the bias, and the axis of the weight's output channels."""
_RECURRENT = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN", "SVDF")
_RECURRENT_TOO = ("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_COMPILED = {"CUSTOM ethos-u": "Vela", "CUSTOM edgetpu-custom-op": "the Edge TPU compiler"}
"""Operators that hold a compiler's code, and that compiler."""
_BITS = {"INT4": "int4", "UINT4": "uint4", "INT2": "int2"}


def describe(content: Content) -> Description:
    """What rules look at.

    Raises:
        UnreadableModel: nothing in it is quantized, or it is compiled for an NPU.

    Example:
        >>> from ..tflite.content import content_of
        >>> from .file import File, QParams
        >>> file, grid = File(), QParams(np.float32(0.5), np.int32(0))
        >>> x, y = (file.tensor(name, (1, 4), "int8", grid) for name in "xy")
        >>> file.operator("LOGISTIC", [x], [y])
        >>> describe(content_of(file.packed([x], [y], ""), quantized=True)).made["#0 LOGISTIC y"][1].scale.tolist()
        0.5
    """
    if not any(graph.operators for graph in content.subgraphs):
        raise UnreadableModel(f"{content.label}: no operators in it; export it again")
    kinds = {operator.kind for graph in content.subgraphs for operator in graph.operators}
    if made := sorted(kinds & _COMPILED.keys()):
        by = _COMPILED[made[0]]
        raise UnreadableModel(f"{content.label}: compiled by {by} already; give the file that it was made of")
    reader = _Reader()
    for number, graph in enumerate(content.subgraphs):
        reader.read(_Place(graph, number))
    if not any(t.scales is not None for graph in content.subgraphs for t in graph.tensors):
        raise UnreadableModel(f"{content.label}: nothing in it is quantized; `equint quantize` does that")
    return reader.description(content.subgraphs[0])


@dataclass(frozen=True)
class _Place:
    """A subgraph: who makes and reads its tensors, and how findings name them."""

    graph: Subgraph
    number: int
    makers: dict[int, Operator] = field(default_factory=dict)
    readers: dict[int, list[Operator]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for operator in self.graph.operators:
            self.makers.update(dict.fromkeys(operator.outputs, operator))
            for index in operator.inputs:
                self.readers[index].append(operator)

    def tensor(self, operator: Operator, k: int | None) -> Tensor | None:
        """An operator's input; None where it is left out."""
        there = k is not None and k < len(operator.inputs) and operator.inputs[k] >= 0
        return self.graph.tensors[operator.inputs[k]] if there and k is not None else None

    def label(self, operator: Operator) -> str:
        """An operator's number, kind and first result, by which people find it."""
        before = f"subgraph {self.number} " if self.number else ""
        made = f" {self.graph.tensors[operator.outputs[0]].name}" if operator.outputs else ""
        return f"{before}#{operator.number} {operator.kind}{made}"

    def labelled(self, tensor: Tensor) -> str:
        maker = self.makers.get(tensor.index)
        origin = "input" if maker is None else f"#{maker.number} {maker.kind}"
        return f"{f'subgraph {self.number} ' if self.number else ''}{tensor.name} (tensor {tensor.index}, {origin})"

    def is_end(self, operator: Operator) -> bool:
        """Whether it converts an input or an output of the network, and nothing inside."""
        return operator.kind in _CONVERSIONS and (
            operator.inputs[0] in self.graph.inputs or operator.outputs[0] in self.graph.outputs
        )

    def outside(self) -> set[int]:
        """Inputs and outputs of another type or grid than the integers inside: there is a conversion in between."""
        ins = {i for i in self.graph.inputs if self.readers[i] and all(r.kind == "QUANTIZE" for r in self.readers[i])}
        return ins | {
            i
            for i in self.graph.outputs
            if i in self.makers and self.makers[i].kind in _CONVERSIONS and not self.readers[i]
        }

    def unfolds(self, operator: Operator) -> bool:
        """Whether it makes a constant of a constant: a weight that is stored as float16, or without its zeros."""
        x = self.tensor(operator, 0)
        return operator.kind in ("DEQUANTIZE", "DENSIFY") and x is not None and self._constant(x)

    def _constant(self, tensor: Tensor) -> bool:
        maker = self.makers.get(tensor.index)
        return tensor.data is not None or (maker is not None and self.unfolds(maker))


class _Reader:
    """Collects what a description holds."""

    def __init__(self) -> None:
        self.activations = dict[str, Grid]()
        self.layers = list[LayerForm]()
        self.alike = dict[str, tuple[str, tuple[Grid, ...]]]()
        self.made = dict[str, tuple[str, Grid]]()
        self.integers, self.floats, self.every = (defaultdict[str, list[str]](list) for _ in range(3))

    def description(self, first: Subgraph) -> Description:
        inputs: dict[str, Shape | None] = {first.tensors[i].name: first.tensors[i].dims for i in first.inputs}
        integers, floats, every = (
            {kind: tuple(at) for kind, at in found.items()} for found in (self.integers, self.floats, self.every)
        )
        kept = (self.alike, integers, floats, self.made, every)
        return Description(None, inputs, self.activations, tuple(self.layers), {}, *kept)

    def read(self, place: _Place) -> None:
        outside = place.outside()
        for tensor in place.graph.tensors:
            grid = grid_of(tensor)
            if grid is not None and tensor.data is None and tensor.index not in outside:
                self.activations[place.labelled(tensor)] = grid
        for operator in place.graph.operators:
            if not place.is_end(operator) and not place.unfolds(operator):
                self.operator(place, operator)

    def operator(self, place: _Place, operator: Operator) -> None:
        at, kind = place.label(operator), operator.kind
        self.every[kind].append(at)
        if kind in _LAYERS or kind in (*_RECURRENT, *_RECURRENT_TOO):
            self.layers.append(_recurrent(place, operator) if kind not in _LAYERS else _layer(place, operator))
            return
        tensors = place.graph.tensors
        inputs = [tensors[i] for i in operator.inputs if i >= 0]
        read = inputs[:1] if kind.startswith("GATHER") else inputs  # behind it are places, on a grid of their own
        outputs = [tensors[i] for i in operator.outputs]
        grids = [grid for grid in map(grid_of, [*read, *outputs]) if grid is not None]
        if any(tensor.type.startswith("FLOAT") for tensor in (*inputs, *outputs)):
            if onnx_name(kind) not in MOVES:
                self.floats[kind].append(at)
            return
        if grids:
            self.integers[kind].append(at)
        if len(grids) > 1 and kind not in _CONVERSIONS:
            self.alike[at] = kind, tuple(grids)
        if outputs and (made := grid_of(outputs[0])) is not None:
            self.made[at] = kind, made


def grid_of(tensor: Tensor) -> Grid | None:
    """A tensor's grid; None where it is not quantized."""
    scales = tensor.scales
    if scales is None:
        return None
    single = scales.scale.size == 1
    scale, zero = ((a.reshape(()) if single else a) for a in (scales.scale, scales.zero_point))
    return Grid(scale, zero, _BITS.get(tensor.type, tensor.type.lower()), None if single else scales.axis)


def _layer(place: _Place, operator: Operator) -> LayerForm:
    kind = operator.kind
    at, weight_at, bias_at, axis = _LAYERS[kind]
    x, weight, bias = (place.tensor(operator, k) for k in (at, weight_at, bias_at))
    if x is None or weight is None or not operator.outputs:
        return LayerForm(place.label(operator), kind, why_float="its inputs are left out")
    y = place.graph.tensors[operator.outputs[0]]
    known = grid_of(x), grid_of(weight), None if bias is None else grid_of(bias), grid_of(y)
    form = LayerForm(place.label(operator), kind, _work(kind, x, weight, y), *known, biased=bias is not None)
    form = replace(form, why_float=_why_float(x, weight, known[1]))
    if bias is not None and known[2] is None and bias.type in ("INT32", "INT64"):
        unscaled = Grid(np.zeros((), np.float32), np.zeros((), np.int64), bias.type.lower())
        form = replace(form, bias=unscaled)
    if weight.data is None:
        return replace(form, weight=None)
    if kind == "BATCH_MATMUL":
        axis = weight.data.ndim - (2 if operator.options.get("adj_y") else 1)
    lowest = int(weight.data.min(initial=0)) if weight.data.dtype.kind in "iu" else 0
    return replace(form, lowest=lowest, out_axis=axis)


def _why_float(x: Tensor, weight: Tensor, grid: Grid | None) -> str:
    if x.type.startswith("FLOAT"):
        return "its input is float" + (f", beside {grid.dtype} weights: it is hybrid" if grid is not None else "")
    if weight.type.startswith("FLOAT"):
        return "its weight is float"
    return "" if grid is not None else "its weight has no scale of its own, or of each channel"


def _work(kind: str, x: Tensor, weight: Tensor, y: Tensor) -> int:
    """Multiply-accumulates; sizes that the file leaves open count one."""
    ins, outs, kernel = ([n or 1 for n in tensor.dims] for tensor in (x, y, weight))
    each = {
        "CONV_2D": (outs, kernel[1:]),
        "CONV_3D": (outs, kernel[:4]),
        "DEPTHWISE_CONV_2D": (outs, kernel[1:3]),
        "TRANSPOSE_CONV": (ins, kernel[:3]),
        "CONV_3D_TRANSPOSE": (ins, kernel[:4]),
        "BATCH_MATMUL": (outs, ins[-1:]),
        "FULLY_CONNECTED": (outs, kernel[-1:]),
    }
    positions, taps = each[kind]
    return prod(positions) * prod(taps)


def _recurrent(place: _Place, operator: Operator) -> LayerForm:
    """A layer with a state: its products are those of its matrices, at each of its steps."""
    tensors = [place.graph.tensors[i] for i in operator.inputs if i >= 0]
    matrices = [t for t in tensors if t.data is not None and t.data.ndim == 2]
    steps = prod(n or 1 for n in tensors[0].dims[:-1]) if tensors else 1
    why = "its input is float" if tensors and tensors[0].type.startswith("FLOAT") else ""
    work = steps * sum(t.data.size for t in matrices if t.data is not None)
    return LayerForm(place.label(operator), operator.kind, work, why_float=why)


def assumed_target(content: Content) -> str:
    """Whom a file of others is for: uint8 throughout is LiteRT's older form.

    Example:
        >>> assumed_target(Content("m.tflite", ()))
        'tflite-int8'
    """
    kinds = [t.type for t in _quantized(content)]
    return "tflite-uint8" if kinds.count("UINT8") > kinds.count("INT8") else "tflite-int8"


def _quantized(content: Content) -> Iterator[Tensor]:
    return (t for graph in content.subgraphs for t in graph.tensors if t.scales is not None)
