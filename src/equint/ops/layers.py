"""Layers: convolutions and products with constant weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.fields import aligned, channel_means, per_channel
from ..ir.model import Array, Graph, Moments, Node, Range
from ..ir.weights import Layer, as_layer, layer_coverage
from . import torch_kernels
from .operator import Backward, Form, Gained, Grid, Operator, Pair, Rule, Scales

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

    Example:
        >>> from ..ir.weights import layers, tiny_graph
        >>> graph = tiny_graph()
        >>> ones = Moments(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1)))
        >>> layer_moments(graph, next(layers(graph)), ones)[0].tolist()
        [6.25, 6.25, 6.25, 6.25]
    """
    w = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    share = layer_coverage(graph, layer)
    mean_x = channel_means(x.mean, layer.x_axis, g * i).reshape(g, i)
    std_x = channel_means(x.std, layer.x_axis, g * i).reshape(g, i)
    mean_y = np.einsum("goi,gi->go", w @ share, mean_x).reshape(-1)
    energy = np.square(w) @ share
    if layer.x in graph.inputs:
        energy = (1 - pixels) * energy + pixels * np.square(w @ share)
    apart = np.sqrt(np.einsum("goi,gi->go", energy, np.square(std_x))).reshape(-1)
    together = np.einsum("goi,gi->go", np.abs(w) @ share, std_x).reshape(-1)
    if layer.bias:
        mean_y = mean_y + graph.consts[layer.bias].reshape(-1)
    return mean_y, apart ** (1 - correlation) * together**correlation


def expected_input(graph: Graph, layer: Layer, x: Moments) -> Array:
    """E[x_i] of a layer's input channels, `(I,)`.

    Example:
        >>> from ..ir.weights import layers, tiny_graph
        >>> graph = tiny_graph()
        >>> expected_input(graph, next(layers(graph)), Moments(np.ones((1, 1, 1, 1)), np.ones(()))).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return channel_means(x.mean, layer.x_axis, layer.channels(graph.consts[layer.weight])[0])


def _moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    layer = as_layer(graph, node)
    known = None if layer is None else operands[node.inputs.index(layer.x)]
    if layer is None or known is None:
        return None
    rank = graph.rank(layer.y) or known[0].ndim
    mean, std = (aligned(values, layer.y_axis, rank) for values in layer_moments(graph, layer, Moments(*known)))
    return [(mean, std)]


def _bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    return None  # interval arithmetic over many products tells less than their moments


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
    energy = np.square(w) @ layer_coverage(at.graph, layer)
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
    """A layer is integer wherever its weight is constant; `integer` says that it is so in any case."""
    return Operator(
        name,
        moments=_moments,
        bound=_bound,
        wide=True,
        gain=_gain,
        scales=Scales(Rule.ABSORBS),
        grid=Grid(integer=integer),
        steps=Form.LAYER,
        torch=torch,
    )


LAYERS: Mapping[str, Operator] = {
    "Conv": _layer("Conv", torch_kernels.conv),
    "ConvTranspose": _layer("ConvTranspose", torch_kernels.conv_transpose, integer=True),
    "Gemm": _layer("Gemm", torch_kernels.gemm),
    "MatMul": _layer("MatMul", torch_kernels.matmul),
}
"""Operators with weights; `as_layer` says whether a node's are constant."""
