"""Layers: convolutions and products with constant weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..ir.fields import aligned, channel_means, per_channel
from ..ir.model import Array, Correction, Graph, Model, Moments, Name, Node, Shape
from ..ir.weights import Layer
from . import torch_kernels
from .operator import Backward, BoundFacet, Form, Gained, Grid, Operator, Pair, Rule, Scales, by_name
from .windows import share_met


def layers(graph: Graph) -> Iterator[Layer]:
    """Every weighted operator of the graph whose weights are constant, in topological order."""
    return (layer for node in graph.nodes if (layer := as_layer(graph, node)) is not None)


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
    if node.op in ("Conv", "ConvTranspose") and weight.ndim >= 3:
        order = "oik" if node.op == "Conv" else "iok"
        return Layer(node, a, b, bias, y, int(node.attrs.get("group", 1)), order, 1, 1)
    if node.op == "Gemm" and weight.ndim == 2 and not node.attrs.get("transA", 0):
        return Layer(node, a, b, bias, y, 1, "oi" if node.attrs.get("transB", 0) else "io", 1, 1)
    if node.op == "MatMul" and weight.ndim == 2:
        return Layer(node, a, b, bias, y, 1, "io", -1, -1)
    return None


def is_product(node: Node) -> bool:
    """Whether a node is a matrix product a·b without a bias: as a layer, or of two activations.

    Example:
        >>> is_product(Node("MatMul", ("a", "b"), ("y",))), is_product(Node("Gemm", ("a", "b"), ("y",)))
        (True, False)
    """
    return node.op == "MatMul" and len(node.inputs) == 2


def bias_of(graph: Graph, layer: Layer) -> Array:
    """A layer's bias, `(O,)`; `(1,)` zero of one that has none."""
    return np.zeros(1) if layer.bias is None else graph.consts[layer.bias].reshape(-1)


def leads_to_layer(graph: Graph, name: Name) -> bool:
    """Whether some layer reads what becomes of a tensor."""
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
    pads = any(attrs.get("pads", ())) or attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return layer.node.op == "ConvTranspose" or (layer.node.op == "Conv" and pads)  # of the former all borders miss taps


def sees_all_taps(layer: Layer) -> bool:
    """Whether every output away from borders has a product with every tap: not so where strides spread the input."""
    return layer.node.op != "ConvTranspose"


def coverage(layer: Layer, kernel: tuple[int, ...], x_shape: Shape | None) -> Array:
    """For each tap, the share of output positions where it meets the input and not padding: `(K,)`.

    1 everywhere for an unpadded convolution, and where the spatial size is unknown. For ConvTranspose,
    the share of output positions that the tap writes: about 1/stride per dimension.

    Example:
        >>> layer = next(layers(tiny_graph()))
        >>> coverage(layer, (3, 3), ("N", 4, 4, 4)).round(4)[:3].tolist()
        [0.5625, 0.75, 0.5625]
    """
    if layer.node.op not in ("Conv", "ConvTranspose"):
        return np.ones(1)
    n, transposed, per_dim = len(kernel), layer.node.op == "ConvTranspose", list[Array]()
    for d, taps in enumerate(kernel):
        size = x_shape[2 + d] if x_shape else None
        stride = layer.node.attrs.get("strides", [1] * n)[d] if transposed else 1
        known = size if isinstance(size, int) and size > 0 else 0
        per_dim.append(share_met(layer.node, d, taps, known) if known else np.full(taps, 1 / stride))
    return np.asarray(reduce(np.multiply.outer, per_dim), np.float64).reshape(-1)


def layer_coverage(graph: Graph, layer: Layer) -> Array:
    """`coverage` with the shapes that the graph knows."""
    kernel = graph.consts[layer.weight].shape[2:]
    return coverage(layer, kernel, graph.shapes.get(layer.x))


def over_taps(weights: Array, share: Array) -> Array:
    """Σ_k c_k·W_oik: `(G, O, I)` of weights `(G, O, I, K)` and the `share` `(K,)` of positions that each tap meets.

    Example:
        >>> over_taps(np.ones((1, 1, 2, 3)), np.array([0.5, 1.0, 0.5])).tolist()
        [[[2.0, 2.0]]]
    """
    if share.size > 1:
        return np.asarray(weights @ share)
    return weights[..., 0] if share[0] == 1 else weights[..., 0] * share[0]  # as a product it would be slow


def tiny_graph() -> Graph:
    """A depthwise 3×3 convolution over four channels, padded by one: for examples."""
    node = Node("Conv", ("x", "w"), ("y",), {"group": 4, "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]})
    shapes: dict[Name, Shape] = {"x": ("N", 4, 4, 4), "y": ("N", 4, 4, 4)}
    return Graph((node,), {"w": np.ones((4, 1, 3, 3), np.float32)}, ("x",), ("y",), shapes)


def still_corrected(model: Model, graph: Graph) -> dict[Name, Correction]:
    """The model's corrections that hold in a rewritten graph: those of layers whose weights are untouched."""
    before, after = ({layer.y: g.consts[layer.weight] for layer in layers(g)} for g in (model.graph, graph))
    return {y: found for y, found in model.corrected.items() if after.get(y) is before[y]}


CORRELATION = 0.1
"""How far a layer's inputs are from independent (0) towards fully correlated (1): measured, docs/moments.md."""
PIXEL_CORRELATION = 0.9
"""Correlation of neighbouring pixels of a network's input."""


def layer_moments(
    graph: Graph, layer: Layer, x: Moments, correlation: float = CORRELATION, pixels: float = PIXEL_CORRELATION
) -> Pair:
    """Mean and standard deviation `(O,)` of a layer's output for inputs `x`.

    mean_o = b_o + Σ_i E[x_i]·Σ_k W_oik·c_k, c_k being the share of positions where tap k meets the input.
    Independent inputs would give var_o = Σ_i Var[x_i]·Σ_k W_oik²·c_k, fully correlated ones
    std_o ≤ Σ_i σ_i·Σ_k |W_oik|·c_k; the result lies between, at independent^(1−c)·correlated^c.
    The network's own input is an image: its neighbouring pixels are strongly correlated.
    """
    w = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    share = layer_coverage(graph, layer)
    mean_x = channel_means(x.mean, layer.x_axis, g * i).reshape(g, i)
    std_x = channel_means(x.std, layer.x_axis, g * i).reshape(g, i)
    mean_y = np.einsum("goi,gi->go", over_taps(w, share), mean_x).reshape(-1)
    energy = over_taps(np.square(w), share)
    if layer.x in graph.inputs:
        energy = (1 - pixels) * energy + pixels * np.square(over_taps(w, share))
    apart = np.sqrt(np.einsum("goi,gi->go", energy, np.square(std_x))).reshape(-1)
    together = np.einsum("goi,gi->go", over_taps(np.abs(w), share), std_x).reshape(-1)
    return mean_y + bias_of(graph, layer), apart ** (1 - correlation) * together**correlation


def _moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    layer = as_layer(graph, node)
    known = None if layer is None else operands[node.inputs.index(layer.x)]
    if layer is None or known is None:
        return None
    rank = graph.rank(layer.y) or known[0].ndim
    mean, std = (aligned(values, layer.y_axis, rank) for values in layer_moments(graph, layer, Moments(*known)))
    return [(mean, std)]


_bound: BoundFacet = lambda graph, node, ranges: None  # interval arithmetic over many products tells too little


def _gain(node: Node, at: Backward) -> Gained | None:
    """gain_i = Σ_o grown(κ_o)·gain_o·Σ_k c_k·W_oik²: κ_o compares what varies with what independent inputs would."""
    layer = as_layer(at.graph, node)
    if layer is None or layer.x not in at.moments:
        return None if layer is None else []
    w = layer.unpack(at.graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    behind = per_channel(at.behind[layer.y], layer.y_axis, g * o)
    if behind is None:
        return None
    energy = over_taps(np.square(w), layer_coverage(at.graph, layer))
    gain = np.einsum("goi,go->gi", energy, behind.reshape(g, o) * at.grown(_kappa(layer, energy, at))).reshape(-1)
    return [(layer.x, aligned(gain, layer.x_axis, at.moments[layer.x].mean.ndim))]


def _kappa(layer: Layer, energy: Array, at: Backward) -> Array:
    """Var[y_o] / Σ_i Σ_k c_k·W_oik²·Var[x_i] for every output channel `(G, O)`; 1 where it cannot be known."""
    g, o, i = energy.shape
    x, y = at.moments[layer.x], at.moments.get(layer.y)
    enters = per_channel(np.square(x.std), layer.x_axis, g * i)
    leaves = None if y is None else per_channel(np.square(y.std), layer.y_axis, g * o)
    if enters is None or leaves is None:
        return np.ones((g, o))
    apart, leaves = np.einsum("goi,gi->go", energy, enters.reshape(g, i)), leaves.reshape(g, o)
    known = (apart > 0) & (leaves > 0)
    return np.where(known, leaves / np.where(known, apart, 1.0), 1.0)


def _layer(name: str, torch: Callable[..., Any], integer: bool = False) -> Operator:
    """`integer`: whether it is so where its weight is computed, too."""
    grid = Grid(integer=integer, layer=True)
    return Operator(name, _moments, _bound, _gain, Scales(Rule.ABSORBS), grid, Form.LAYER, torch, wide=True)


LAYERS = by_name(
    _layer("Conv", torch_kernels.conv),
    _layer("ConvTranspose", torch_kernels.conv_transpose, integer=True),
    _layer("Gemm", torch_kernels.gemm),
    _layer("MatMul", lambda a, b, c=None: a @ b if c is None else a @ b + c, integer=True),
)
"""Operators with weights; `as_layer` says whether a node's are constant."""


def layers_inside(node: Node) -> int:
    """How many convolutions and matrix products an operator's subgraphs hold, theirs counted too."""
    return sum(map(_inside, node.attrs.values()))


def _inside(attribute: object) -> int:
    nodes = getattr(attribute, "node", ())
    own = sum(node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") for node in nodes)
    return own + sum(_inside(a.g) for node in nodes for a in node.attribute if a.HasField("g"))
