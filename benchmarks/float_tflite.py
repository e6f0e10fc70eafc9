"""The float form of a network's .tflite file: the same operators, in the same order of axes, with float weights.

For comparing with tools that quantize float .tflite files; made from an integer program of the network, whose tensors
become float, and whose weights those of the network that the program was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import equint
from equint.integers.program import Program, Step
from equint.ir.model import Array, Graph, Name, QParams
from equint.litert.file import File
from equint.litert.layouts import Order
from equint.litert.writer import Writer, filled
from equint.ops.attributes import clip_bounds
from equint.result import Result

FINE = 1 << 23
"""Steps from zero to the largest weight: float32 holds no more."""
KINDS = {(0.0, None): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


class FloatFile(File):
    """A file whose quantized tensors are float, and whose QUANTIZEs are other names."""

    def __init__(self, biases: dict[str, Array]) -> None:
        super().__init__()
        self.versions, self.biases = {}, biases
        self.same: dict[int, int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, grid: QParams | None = None, free: Sequence[int] = ()
    ) -> int:
        """As in a file of integers, but float where these have a grid."""
        return super().tensor(name, shape, "float32" if grid is not None else dtype, None, free)

    def constant(self, name: str, array: Array, grid: QParams | None = None, axis: int = 0) -> int:
        """What integers stand for; of biases the float network's own."""
        if name in self.biases:
            return super().constant(name, self.biases[name])
        if grid is not None:
            sizes = [-1 if k == axis else 1 for k in range(array.ndim)]
            scale, zero = (v.reshape(sizes) if v.size > 1 else v for v in (grid.scale, np.asarray(grid.zero_point)))
            array = ((array.astype(np.float64) - zero) * scale).astype(np.float32)
        return super().constant(name, array)

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 0, **options: Any
    ) -> None:
        """An operator of floats."""
        inputs = [self.same.get(i, i) for i in inputs]
        if name == "QUANTIZE":
            self.same[outputs[0]] = inputs[0]
        else:
            super().operator(name, inputs, outputs, 3 if name == "RESIZE_NEAREST_NEIGHBOR" else 1, **options)


class FloatWriter(Writer):
    """Writes activations as the float network has them, not as clamps of grids."""

    def __init__(self, program: Program, graph: Graph, biases: dict[str, Array]) -> None:
        super().__init__(program)
        self.file = self.floats = FloatFile(biases)
        self.graph = graph

    def dtype(self, name: Name) -> str:
        """Integers as wide as fine weights, until they are written as floats."""
        return "int32"

    def finished(self, step: Step, order: Order, write: Callable[[int, str], None], fuses: bool = True) -> None:
        """With the activation that makes the step's output in the float network."""
        kind = self.activation(step.outputs[0])
        if fuses or kind == "NONE":
            write(self.made(step.outputs[0], order), kind)
            return
        raw = self.raw(step.outputs[0], [self.shape(step.outputs[0])[axis] for axis in order])
        write(raw, "NONE")
        self.file.operator(kind, [raw], [self.made(step.outputs[0], order)])

    def clamp(self, step: Step, x: int, low: Array, high: Array, order: Order) -> None:
        """An activation alone."""
        self.file.operator(self.activation(step.outputs[0]), [x], [self.made(step.outputs[0], order)])

    def activation(self, name: Name) -> str:
        """What fused activation makes a tensor."""
        node = self.graph.producer.get(name)
        if node is None or node.op not in ("Relu", "Clip"):
            return "NONE"
        bounds = [
            None if b is None or not np.isfinite(b).all() else float(np.max(b)) for b in clip_bounds(self.graph, node)
        ]
        return KINDS[bounds[0] or 0.0, bounds[1]]


def float_file(network: Any, card: Any) -> bytes:
    """A float network as .tflite: nothing in it is scaled or rounded.

    Args:
        network: what `equint.quantize` takes.
    """
    result = equint.quantize(network, "cwq", "tflite-int8", input=card, effort="fast")
    graph = result.model.graph
    fine, biases = _fine(result, graph)
    writer = FloatWriter(fine, graph, biases)
    _, inputs, outputs = filled(fine, writer=writer)
    return writer.file.packed(inputs, [writer.floats.same.get(i, i) for i in outputs], "float")


def _fine(result: Result, graph: Graph) -> tuple[Program, dict[str, Array]]:
    """The program with weights of 24 bits, of which floats are made again, and its float biases."""
    program, steps, scales = result.program, [], dict(result.program.weight_scales)
    biases: dict[str, Array] = {}
    layers = {node.outputs[0]: node for node in graph.nodes if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul")}
    for step in program.steps:
        if "weight" in step.arrays:
            made = step.outputs[0]
            node = layers.get(made) or layers[graph.producer[made].inputs[0]]
            weight = graph.consts[node.inputs[1]].astype(np.float64)
            like = step.arrays["weight"]
            weight = weight if weight.shape == like.shape and not _flips(node, like) else weight.T
            scale = float(np.abs(weight).max()) / FINE
            scales[made] = np.array(scale, np.float32)
            integers = np.rint(weight / np.float64(scales[made])).astype(np.int32)
            zero = np.zeros((), np.int32)
            step = replace(step, arrays={**step.arrays, "weight": integers, "weight_zero_point": zero})
            given = len(node.inputs) > 2 and bool(node.inputs[2])
            biases[f"{made}_bias"] = (
                graph.consts[node.inputs[2]] if given else np.zeros(step.arrays["bias"].shape)
            ).astype(np.float32)
        steps.append(step)
    return replace(program, steps=tuple(steps), weight_scales=scales), biases


def _flips(node: Any, like: Array) -> bool:
    """Whether a matrix product's weight is stored the other way round in programs."""
    return node.op in ("Gemm", "MatMul") and like.ndim == 2 and not node.attrs.get("transB", 0)
