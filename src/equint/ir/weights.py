"""Weight layouts: every weighted operator seen as (group, out, in, taps).

This is the only file that knows how Conv, ConvTranspose, Gemm and MatMul store their weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .model import Array, Correction, Graph, Model, Name, Node, Shape


@dataclass(frozen=True)
class Layer:
    """A weighted operator with constant weights.

    `x_axis`, `y_axis` are the channel axes of input and output; `order` says how the weight is stored.
    """

    node: Node
    x: Name
    weight: Name
    bias: Name | None
    y: Name
    groups: int
    order: str  # "oik" Conv, "iok" ConvTranspose, "io" / "oi" Gemm and MatMul
    x_axis: int
    y_axis: int

    @property
    def name(self) -> str:
        """How messages name the layer."""
        return self.node.label

    def unpack(self, weight: Array) -> Array:
        """The weight as `(G, O/G, I/G, K)`, a view where the storage order allows.

        Example:
            >>> layer = next(layers(tiny_graph()))
            >>> layer.unpack(np.zeros((4, 1, 3, 3))).shape
            (4, 1, 1, 9)
        """
        if self.order in ("oi", "io"):
            return (weight if self.order == "oi" else weight.T)[None, :, :, None]
        weight = weight if self.order == "oik" else swapped(weight, self.groups)
        return weight.reshape(self.groups, len(weight) // self.groups, weight.shape[1], prod(weight.shape[2:]))

    def pack(self, view: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `unpack`: back to the stored `shape`."""
        if self.order == "iok":
            return np.ascontiguousarray(swapped(view.reshape(-1, *view.shape[2:]), self.groups).reshape(shape))
        return np.ascontiguousarray(view[0, :, :, 0].T if self.order == "io" else view.reshape(shape))

    def out_axis(self) -> int | None:
        """The stored axis that holds output channels, where one axis does (None: grouped ConvTranspose)."""
        if self.order == "iok":
            return 1 if self.groups == 1 else None
        return {"oik": 0, "oi": 0, "io": 1}[self.order]

    @property
    def weight_first(self) -> bool:
        """Whether it is a MatMul W·x: its channels lie along the last but one axis."""
        return self.x_axis == -2

    def shaped_bias(self, values: Array) -> Array:
        """`(O,)` values as the operator adds them: a column behind a MatMul whose weight comes first."""
        return values.reshape(-1, 1) if self.weight_first else values

    def channels(self, weight: Array) -> tuple[int, int]:
        """(input channels, output channels)."""
        g, o, i, _ = self.unpack(weight).shape
        return g * i, g * o


def swapped(weight: Array, groups: int) -> Array:
    """ConvTranspose's weight `(I, O/G, *k)` in Conv's order `(O, I/G, *k)`, or the other way round.

    Example:
        >>> swapped(np.array([[1, 2], [3, 4]]), 1).tolist(), swapped(np.array([[1, 2], [3, 4]]), 2).tolist()
        ([[1, 3], [2, 4]], [[1], [2], [3], [4]])
    """
    split = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    return np.swapaxes(split, 1, 2).reshape(groups * weight.shape[1], *split.shape[1:2], *weight.shape[2:])


def layers(graph: Graph) -> Iterator[Layer]:
    """Every weighted operator of the graph whose weights are constant, in topological order."""
    for node in graph.nodes:
        layer = as_layer(graph, node)
        if layer is not None:
            yield layer


def as_layer(graph: Graph, node: Node) -> Layer | None:
    """The node as a `Layer`, or None where it has no constant weight in a layout known here."""
    if node.domain or node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
    if bias is not None and bias not in graph.consts:
        return None
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    weight = graph.constant(b)
    if node.op == "MatMul" and weight is None:
        weight, rank = graph.constant(a), graph.rank(b)
        if weight is None or weight.ndim != 2 or rank is None or rank < 2:
            return None
        return Layer(node, b, a, bias, y, 1, "oi", -2, -2)
    if weight is None or a in graph.consts or not graph.is_float(b):
        return None
    if node.op == "Conv" and weight.ndim >= 3:
        return Layer(node, a, b, bias, y, int(node.attrs.get("group", 1)), "oik", 1, 1)
    if node.op == "ConvTranspose" and weight.ndim >= 3:
        return Layer(node, a, b, bias, y, int(node.attrs.get("group", 1)), "iok", 1, 1)
    if node.op == "Gemm" and weight.ndim == 2 and not node.attrs.get("transA", 0):
        return Layer(node, a, b, bias, y, 1, "oi" if node.attrs.get("transB", 0) else "io", 1, 1)
    if node.op == "MatMul" and weight.ndim == 2:
        return Layer(node, a, b, bias, y, 1, "io", -1, -1)
    return None


def leads_to_layer(graph: Graph, name: Name) -> bool:
    """Whether some layer reads what becomes of a tensor.

    Example:
        >>> leads_to_layer(tiny_graph(), "x"), leads_to_layer(tiny_graph(), "y")
        (True, False)
    """
    seen, stack = {name}, [name]
    while stack:
        for user in graph.users(stack.pop()):
            if as_layer(graph, user) is not None:
                return True
            fresh = [o for o in user.outputs if o and o not in seen]
            seen.update(fresh)
            stack += fresh
    return False


def pads_zero(layer: Layer) -> bool:
    """Whether the operator sees zeros around its input, so that borders differ from the middle."""
    attrs = layer.node.attrs
    if layer.node.op == "ConvTranspose":  # every border position misses taps
        return True
    return layer.node.op == "Conv" and (
        any(attrs.get("pads", ())) or attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    )


def coverage(layer: Layer, kernel: tuple[int, ...], x_shape: Shape | None, y_shape: Shape | None) -> Array:
    """For each tap, the share of output positions where it meets the input and not padding: `(K,)`.

    1 everywhere for an unpadded convolution, and where the spatial size is unknown. For ConvTranspose,
    the share of output positions that the tap writes: about 1/stride per dimension.

    Example:
        >>> layer = next(layers(tiny_graph()))
        >>> coverage(layer, (3, 3), ("N", 4, 4, 4), ("N", 4, 4, 4)).round(4)[:3].tolist()
        [0.5625, 0.75, 0.5625]
    """
    if layer.node.op not in ("Conv", "ConvTranspose"):
        return np.ones(1)
    attrs, n = layer.node.attrs, len(kernel)
    strides = attrs.get("strides", [1] * n)
    dilations = attrs.get("dilations", [1] * n)
    pads = attrs.get("pads", [0] * 2 * n)
    per_dim = []
    for d in range(n):
        x = x_shape[2 + d] if x_shape else None
        y = y_shape[2 + d] if y_shape else None
        transposed = layer.node.op == "ConvTranspose"
        if not isinstance(x, int) or not isinstance(y, int) or y == 0:
            per_dim.append(np.full(kernel[d], 1 / strides[d] if transposed else 1.0))
            continue
        before = pads[d]
        if attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
            inner, outer = (x, y) if transposed else (y, x)
            total = max((inner - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1 - outer, 0)
            before = total // 2 if attrs["auto_pad"] == "SAME_UPPER" else total - total // 2
        inner, outer = (x, y) if transposed else (y, x)
        hits = np.arange(inner)[:, None] * strides[d] + np.arange(kernel[d])[None, :] * dilations[d] - before
        inside = (hits >= 0) & (hits < outer)
        per_dim.append(inside.sum(0) / y)
    total_coverage = per_dim[0]
    for share in per_dim[1:]:
        total_coverage = np.multiply.outer(total_coverage, share)
    return np.asarray(total_coverage, np.float64).reshape(-1)


def layer_coverage(graph: Graph, layer: Layer) -> Array:
    """`coverage` with the shapes that the graph knows."""
    kernel = graph.consts[layer.weight].shape[2:]
    return coverage(layer, kernel, graph.shapes.get(layer.x), graph.shapes.get(layer.y))


def tiny_graph() -> Graph:
    """A depthwise 3×3 convolution over four channels, padded by one: for examples."""
    node = Node("Conv", ("x", "w"), ("y",), {"group": 4, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]})
    shapes: dict[Name, Shape] = {"x": ("N", 4, 4, 4), "y": ("N", 4, 4, 4)}
    return Graph((node,), {"w": np.ones((4, 1, 3, 3), np.float32)}, ("x",), ("y",), shapes)


def still_corrected(model: Model, graph: Graph) -> dict[Name, Correction]:
    """The model's corrections that hold in a rewritten graph: those of layers whose weights are untouched.

    Example:
        >>> model = Model(tiny_graph(), corrected={"y": Correction("analytic", np.ones(4, bool))})
        >>> doubled = model.graph.with_consts({"w": 2 * model.graph.consts["w"]})
        >>> [sorted(still_corrected(model, graph)) for graph in (model.graph, doubled)]
        [['y'], []]
    """
    before = {layer.y: model.graph.consts[layer.weight] for layer in layers(model.graph)}
    after = {layer.y: graph.consts[layer.weight] for layer in layers(graph)}
    return {y: found for y, found in model.corrected.items() if after.get(y) is before[y]}


def as_rows(weight: Array, axis: int) -> Array:
    """A weight as `(O, n)`, its output channels being along `axis`.

    Example:
        >>> as_rows(np.zeros((3, 4, 2, 2)), 1).shape
        (4, 12)
    """
    return np.ascontiguousarray(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
