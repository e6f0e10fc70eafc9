"""How much of the noise in a tensor arrives at the network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..ir.model import Array, Graph, Moments, Name
from ..ops.operator import Backward, Unknown
from ..ops.table import ignores_values, op_of
from .constants import MEASURED, NoiseModel


class Gains(NamedTuple):
    """Gains of every tensor as fields: output noise over output signal per unit of noise variance in a channel.

    Attributes:
        scattered: of noise that is independent from position to position, as rounding makes it.
        steady: of noise that neighbouring positions share as they share the signal: of wrong weights and of clips.
    """

    scattered: Mapping[Name, Array]
    steady: Mapping[Name, Array]


def gains(graph: Graph, moments: Mapping[Name, Moments], noise: NoiseModel = MEASURED) -> Gains:
    """How much of every tensor's noise arrives at the outputs.

    A tensor with noise variance n_c in channel c adds Σ_c gain_c·n_c to the noise-to-signal ratio of the
    network's outputs (their sum where there are several). Behind a layer,

        gain_i = Σ_o κ_o^likeness · gain_o · Σ_k c_k·W_oik²

    κ_o is how many times output o varies more than it would if the layer's inputs were independent: BatchNorm
    tells, and noise shares part of it. Averaging n positions leaves pooled + (1 − pooled)/n of scattered noise's
    variance, and 1/√n of steady noise's. An operator that is not known ends the path as if it were an output.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> from ..graph.moments import propagate
        >>> graph = tiny_graph()
        >>> moments = propagate(graph, {"x": Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "given")})
        >>> [round(float(v), 3) for v in gains(graph, moments).scattered["y"].ravel()]
        [0.007, 0.007, 0.007, 0.007]
    """
    scattered = _table(graph, moments, lambda n: noise.pooled + (1 - noise.pooled) / n, noise)
    return Gains(scattered, _table(graph, moments, lambda n: n**-0.5, noise))


def _table(
    graph: Graph, moments: Mapping[Name, Moments], averaged: Callable[[float], float], noise: NoiseModel
) -> dict[Name, Array]:
    table: dict[Name, Array] = {}

    def grown(kappa: Array) -> Array:
        return np.asarray(np.clip(kappa, 1 / noise.kappa_limit, noise.kappa_limit) ** noise.likeness)

    at = Backward(graph, moments, table, averaged, grown)

    def add(name: Name, gain: Array | None) -> None:
        if name in moments and gain is not None:
            fitted = _fitted(gain, at.shape(name))
            table[name] = table[name] + fitted if name in table else fitted

    for name in graph.outputs:
        add(name, at.output(name))
    for node in reversed(graph.nodes):
        operator = op_of(node)
        known = any(o in moments for o in node.outputs)
        if ignores_values(operator) or (known and not any(o in table for o in node.outputs)):
            continue
        found = None if not known or isinstance(operator.gain, Unknown) else operator.gain(node, at)
        for name, gain in [(i, at.output(i)) for i in node.reads] if found is None else found:
            add(name, gain)
    return table


def _fitted(gain: Array, shape: tuple[int, ...]) -> Array:
    """The gain as a field of the given shape: summed where the operator broadcast the tensor, and the mean of positions
    where it has others."""
    gain = gain.reshape(gain.shape + (1,) * max(len(shape) - gain.ndim, 0))
    lead = gain.ndim - len(shape)
    gain = gain.sum(tuple(range(lead))) if lead else gain
    for axis, n in enumerate(shape):
        if axis > 1 and n > 1 and gain.shape[axis] not in (1, n):
            gain = gain.mean(axis, keepdims=True)
        if n == 1 and gain.shape[axis] > 1:
            gain = gain.sum(axis, keepdims=True)
    return np.asarray(np.broadcast_to(gain, np.broadcast_shapes(gain.shape, shape)))
