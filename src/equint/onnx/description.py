"""A quantized ONNX file as `hardware/lint.py` looks at it: QDQ of any origin, and operators on integers (QOperator)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from ..errors import UnreadableModel
from ..graph.placement import grid_of
from ..hardware.lint import NO_INTEGER_FORM, Description, Grid, LayerForm
from ..ir.model import Array, Graph, Name, Node
from ..ops.activations import clamps
from ..ops.table import ignores_values, op_of
from ..ops.work import multiplications
from .reader import decode
from .shapes import infer_shapes

_CLAMPS = ("Min", "Max", "Clip")
_ON_INTEGERS = {
    "QLinearConv": ("Conv", 0, 3, 6, 8),
    "QLinearMatMul": ("MatMul", 0, 3, 6, None),
    "QGemm": ("Gemm", 0, 3, 7, 6),
}
"""Operators on integers: the float operator, and at which inputs x, the weight, the scale of y and the bias begin."""
_CONTRIB = "com.microsoft"
_OF_ONNXRUNTIME = (
    *("QLinearAdd", "QLinearMul", "QLinearWhere", "QLinearConcat", "QLinearLeakyRelu", "QLinearSigmoid"),
    *("QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean"),
)
"""Operators on integers in a domain of onnxruntime: their last inputs are scale and zero point of y."""


def describe(proto: ModelProto, label: str = "model") -> Description:
    """What rules look at.

    Raises:
        UnreadableModel: nothing in it is quantized, or its shapes do not fit together.

    Example:
        >>> from equint.ir.model import Model
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.passes.quantize import Quantize
        >>> from .qdq import export
        >>> describe(export(Quantize(activation=None)(Model(tiny_graph())))).layers[0].why_float
        'its input is float'
    """
    if not proto.graph.node:
        raise UnreadableModel(f"{label}: no operators in it; is it an ONNX model? Export it again")
    if not any(o.domain in ("", "ai.onnx") for o in proto.opset_import):
        raise UnreadableModel(f"{label}: names no ONNX operator set; export it again")
    return _Reader(infer_shapes(decode(proto, label)), label, proto.producer_name == "equint").description()


class _Reader:
    """Follows values to the grids that hold them."""

    def __init__(self, graph: Graph, label: str, ours: bool = False) -> None:
        same = {n.outputs[0]: n.inputs[0] for n in graph.nodes if n.op == "Identity" and not n.domain}
        self.graph, self.label, self.same, self.ours = graph, label, same, ours

    def origin(self, name: Name) -> Name:
        while name in self.same:
            name = self.same[name]
        return name

    def const(self, name: Name) -> Array | None:
        return self.graph.constant(self.origin(name))

    def producer(self, name: Name) -> Node | None:
        return self.graph.producer.get(self.origin(name))

    def users(self, name: Name) -> Iterator[Node]:
        for user in self.graph.users(name):
            if user.outputs and user.outputs[0] in self.same:
                yield from self.users(user.outputs[0])
            else:
                yield user

    def grid(self, scale: Name, zero: Name, integers: Name, axis: int) -> Grid | None:
        scales, zeros = self.const(scale), self.const(zero) if zero else None
        if scales is None or (zero and zeros is None):
            return None
        known = self.const(integers)
        dtype = zeros.dtype if zeros is not None else known.dtype if known is not None else np.dtype(np.uint8)
        zeros = np.zeros(scales.shape, dtype) if zeros is None else zeros
        single = scales.size == 1
        scales, zeros = (a.reshape(()) if single and a.size == 1 else a for a in (scales, zeros))
        return Grid(scales, zeros, str(dtype), None if single else axis)

    def of_node(self, node: Node) -> Grid | None:
        if len(node.inputs) < 2:
            raise UnreadableModel(f"{self.label}: {node.label}: {node.op} without a scale; export it again")
        zero = node.inputs[2] if len(node.inputs) > 2 else ""
        return self.grid(node.inputs[1], zero, node.inputs[0], int(node.attrs.get("axis", 1)))

    def read(self, name: Name) -> tuple[Grid | None, Array | None]:
        """The grid of a value behind DequantizeLinear, and its integers where these are constant."""
        node = self.producer(name)
        if node is None or node.op != "DequantizeLinear":
            return None, None
        grid, integers = self.of_node(node), self.const(node.inputs[0])
        before = self.producer(node.inputs[0])
        if grid is not None and integers is None and before is not None and before.op == "QuantizeLinear":
            value = self.const(before.inputs[0])
            integers = None if value is None else _rounded(value, grid)
        grid = self._positive(grid, node, name)
        if grid is not None and grid.axis is not None and integers is not None and not node.attrs.get("block_size", 0):
            sizes = integers.shape[grid.axis : grid.axis + 1]
            if sizes != (grid.scale.size,):
                what = f"{grid.scale.size} scales along axis {grid.axis} of shape {integers.shape}"
                raise UnreadableModel(f"{self.label}: {node.label}: {what}; export it again")
        return grid, integers

    def _positive(self, grid: Grid | None, node: Node, name: Name) -> Grid | None:
        if grid is None or grid.axis is None or grid.axis >= 0:
            return grid
        rank = self.graph.rank(self.origin(name)) or 0
        return replace(grid, axis=grid.axis + rank)

    def written(self, name: Name) -> Grid | None:
        """The grid that a value is rounded to, a Relu or Clip in between that alone reads it."""
        users = list(self.users(name))
        if len(users) == 1 and clamps(users[0]):
            users = list(self.users(users[0].outputs[0]))
        grids = [self.of_node(user) for user in users if user.op == "QuantizeLinear"]
        return grids[0] if grids and len(grids) == len(users) and name not in self.graph.outputs else None

    def description(self) -> Description:
        graph, activations = self.graph, dict[Name, Grid]()
        clamped, alike = dict[str, str](), dict[str, tuple[str, tuple[Grid, ...]]]()
        layers = list[LayerForm]()
        kinds: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
        for node in graph.nodes:
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                self._activation(node, activations)
            elif node.op in _ON_INTEGERS:
                layers.append(self._on_integers(node, activations))
            elif node.domain == _CONTRIB and node.op in _OF_ONNXRUNTIME:
                kinds[0][node.op.removeprefix("QLinear")].append(node.label)
                if (made := self._made(node)) is not None:
                    activations[node.outputs[0]] = made
            elif node.op in _CLAMPS and not node.domain and self._is_integer(node.inputs[0]):
                at = node.label.removesuffix(f"_{node.op}") if self.ours else node.label
                clamped[at] = f"{clamped[at]} and {node.op}" if at in clamped else node.op
            elif work := multiplications(graph, node):
                layers.append(self._layer(node, work))
            elif self._computes(node):
                read = (self.read(i)[0] for i in node.inputs if self.const(i) is None)
                grids = [*read, *map(self.written, node.outputs)]
                known = tuple(grid for grid in grids if grid is not None)
                if len(known) > 1:
                    alike[node.label] = node.op, known
                bare = any(grid is None for grid in grids)
                if not self._fused(node) and not (bare and grid_of(graph, node).keeps):
                    kinds[bare][_named(node)].append(node.label)
        if not activations and not any(layer.weight for layer in layers):
            raise UnreadableModel(f"{self.label}: nothing in it is quantized; `equint quantize` does that")
        inputs = {name: graph.shapes.get(name) for name in graph.inputs}
        integers, floats = ({op: tuple(nodes) for op, nodes in kind.items()} for kind in kinds)
        return Description(graph.opset, inputs, activations, tuple(layers), clamped, alike, integers, floats)

    def _activation(self, node: Node, activations: dict[Name, Grid]) -> None:
        quantizes = node.op == "QuantizeLinear"
        made, before, grid = [node.inputs[0]], self.producer(node.inputs[0]), self.of_node(node)
        if before is not None and before.op == "QuantizeLinear":
            made.append(before.inputs[0])
        constant = any(self.const(name) is not None for name in made)
        if not constant and grid is not None and (not quantizes or node.outputs[0] in self.graph.outputs):
            name = node.outputs[0]
            activations[made[-1] if name.startswith(made[-1]) else name] = grid  # the network's own name of it

    def _made(self, node: Node) -> Grid | None:
        """The grid of what an operator on integers makes; its zero point may be left out."""
        scale, zero = node.inputs[:2] if node.op == "QLinearConcat" else node.inputs[-2:]
        last = self.const(zero) if zero else None
        if last is not None and last.dtype.kind == "f":
            scale, zero = zero, ""
        return self.grid(scale, zero, "", 0)

    def _is_integer(self, name: Name) -> bool:
        node = self.producer(name)
        while node is not None and node.op in _CLAMPS:
            node = self.producer(node.inputs[0])
        return node is not None and node.op == "QuantizeLinear"

    def _layer(self, node: Node, work: int) -> LayerForm:
        form = LayerForm(node.label, _named(node), work, y=self.written(node.outputs[0]))
        if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain:
            return replace(form, why_float=NO_INTEGER_FORM)
        (x, first), (weight, integers) = (self.read(name) for name in node.inputs[:2])
        swapped = first is not None and integers is None
        if swapped:
            x, weight, integers = weight, x, first
        biased = len(node.inputs) > 2 and bool(node.inputs[2])
        bias = self.read(node.inputs[2])[0] if biased else None
        why = "its input is float" if x is None else "its weight is float" if weight is None else ""
        form = replace(form, x=x, bias=bias, biased=biased, why_float=why)
        if weight is None or integers is None:
            return form
        out = _out_axis(node, integers.ndim, swapped)
        return replace(form, weight=weight, lowest=int(integers.min(initial=0)), out_axis=out)

    def _on_integers(self, node: Node, activations: dict[Name, Grid]) -> LayerForm:
        op, x, w, y, b = _ON_INTEGERS[node.op]
        inputs = (*node.inputs, "", "", "")
        grids = [self.grid(inputs[k + 1], inputs[k + 2], inputs[k], 0) for k in (x, w)]
        made = self.grid(inputs[y], inputs[y + 1], "", 0) if inputs[y] else None
        weight, bias = self.const(inputs[w]), self.const(inputs[b]) if b is not None and inputs[b] else None
        for name, grid in ((inputs[x], grids[0]), (node.outputs[0], made)):
            if grid is not None:
                activations[name] = grid
        plain = Node(op, (inputs[x], inputs[w]), node.outputs, node.attrs)
        inner = weight.size if op == "Gemm" and weight is not None else 0  # the rank of what foreign operators make
        work = inner or multiplications(self.graph, plain)  # is not known
        form = LayerForm(node.label, op, work, grids[0], y=made or grids[0], biased=bias is not None)
        if bias is not None and grids[0] is not None and grids[1] is not None:
            summed = Grid(grids[0].scale * grids[1].scale, np.zeros((), bias.dtype), str(bias.dtype))
            form = replace(form, bias=summed)
        if grids[1] is None or weight is None:
            return replace(form, why_float="" if grids[1] is not None else "its weight is not constant")
        out = _out_axis(plain, weight.ndim, False)
        of_weight = replace(grids[1], axis=None if grids[1].axis is None else out)
        return replace(form, weight=of_weight, lowest=int(weight.min(initial=0)), out_axis=out)

    def _computes(self, node: Node) -> bool:
        """Whether a node makes floats of what depends on the network's inputs."""
        if node.outputs and node.outputs[0] in self.same:
            return False
        floats = any(o and self.graph.is_float(o) for o in node.outputs)
        read = [i for i in node.reads if self.const(i) is None]
        return floats and bool(read) and not ignores_values(op_of(node))

    def _fused(self, node: Node) -> bool:
        """Whether it is a Relu or Clip between an operator that computes and a quantizer."""
        before = self.producer(node.inputs[0])
        return clamps(node) and before is not None and self.written(before.outputs[0]) is not None


def _rounded(value: Array, grid: Grid) -> Array:
    ends = np.iinfo(grid.dtype)
    shape = [1] * value.ndim
    if grid.axis is not None and grid.scale.size > 1:
        shape[grid.axis] = -1
    scale, zero = (a.reshape(shape) if np.size(a) > 1 else a for a in (grid.scale, grid.zero_point))
    return np.asarray(np.clip(np.rint(value / scale) + zero.astype(np.int64), ends.min, ends.max))


def _out_axis(node: Node, rank: int, swapped: bool) -> int | None:
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if int(node.attrs.get("group", 1)) == 1 else None
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    return rank - 2 if swapped else rank - 1


def _named(node: Node) -> str:
    return f"{node.domain}::{node.op}" if node.domain else node.op
