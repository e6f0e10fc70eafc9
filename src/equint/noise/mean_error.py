"""What other weights do to the mean of a layer's outputs."""

from __future__ import annotations

import numpy as np

from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Moments, QParams
from ..ir.weights import Layer
from ..maths.affine import fake_quantize
from ..ops.layers import layer_coverage, over_taps


def mean_error(graph: Graph, layer: Layer, grid: QParams, x: Moments) -> Array:
    """E[y_q] − E[y] = Σ_i E[x_i]·Σ_k ΔW_oik·c_k per output channel, `(O,)`, real units."""
    weight = graph.consts[layer.weight]
    return mean_error_of(graph, layer, fake_quantize(weight, grid) - weight, x)


def mean_error_of(graph: Graph, layer: Layer, change: Array, x: Moments) -> Array:
    """Σ_i E[x_i]·Σ_k ΔW_oik·c_k for any change ΔW of a layer's weight, `(O,)`, real units."""
    error = layer.unpack(change).astype(np.float64)
    g, _, i, _ = error.shape
    expected = channel_means(x.mean, layer.x_axis, g * i).reshape(g, i)
    return np.asarray(np.einsum("goi,gi->go", over_taps(error, layer_coverage(graph, layer)), expected)).reshape(-1)
