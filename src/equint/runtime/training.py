"""What a network's first BatchNorms saw in training, against what samples show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..ir.model import Array, Graph, Name, Node
from ..onnx.writer import to_proto
from ..ops.attributes import is_batchnorm
from ..samples.images import Feed
from .session import Session

FIRST = 4
"""BatchNorms that are looked at, the first ones: behind them all ways to prepare an input become alike."""
DEAD = 1e-3
"""Channels that spread so much less than the others tell nothing."""


OFF = 10.0
"""Spreads, from which a channel's values are none that training ever showed it."""


class Apart(NamedTuple):
    """How far samples lie from training.

    Attributes:
        means: |Δ mean|/σ; spread: σ'/σ, of the samples over training's: medians over channels.
        off: channels whose values lie over `OFF` spreads from training's mean, in root mean square; of: of so many.
    """

    means: float
    spread: float
    off: int = 0
    of: int = 0

    @property
    def distance(self) -> float:
        """|Δ mean|/σ + |log2 σ'/σ|.

        Example:
            >>> Apart(0.5, 0.25).distance
            2.5
        """
        return self.means + abs(float(np.log2(self.spread)))


class Training:
    """The first BatchNorms, and what stands in front of them.

    Example:
        >>> from ..demo import model_path
        >>> from ..onnx.reader import read
        >>> rng = np.random.default_rng(0)
        >>> seen = Training(read(model_path()).graph)
        >>> right, bright = (seen.apart([rng.uniform(0, high, (8, 1, 8, 8)).astype(np.float32)]) for high in (1, 255))
        >>> max(a.distance for a in right) < 1 < 7 < max(a.distance for a in bright)
        True
    """

    def __init__(self, graph: Graph) -> None:
        self.norms = [n for n in graph.nodes if is_batchnorm(n) and _saw(graph, n) is not None][:FIRST]
        self._saw = [saw for node in self.norms if (saw := _saw(graph, node)) is not None]
        taps = [n.inputs[0] for n in self.norms]
        self._session = Session(to_proto(_in_front(graph, taps)), taps=taps) if taps else None

    def apart(self, shown: Iterable[Feed]) -> list[Apart]:
        """How far samples lie from training in front of each of the BatchNorms; nothing where there are none."""
        if self._session is None:
            return []
        sums = [np.zeros((3, 1))] * len(self.norms)
        for batch in shown:
            outputs = self._session.run(batch)
            for k, node in enumerate(self.norms):
                values = outputs[node.inputs[0]].astype(np.float64)
                axes = (0, *range(2, values.ndim))
                count = np.full(values.shape[1], values.size / values.shape[1])
                sums[k] = sums[k] + np.stack([count, values.sum(axes), np.square(values).sum(axes)])
        return [_apart(total, saw) for total, saw in zip(sums, self._saw, strict=True)]


def _in_front(graph: Graph, names: Iterable[Name]) -> Graph:
    """The part of a network that some tensors are made by."""
    needed, nodes = set(names), []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            nodes.append(node)
            needed.update(node.reads)
    consts = {name: value for name, value in graph.consts.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(nodes)), consts=consts, outputs=tuple(names))


def _saw(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    mean, variance = (graph.constant(name) for name in node.inputs[3:5])
    if mean is None or variance is None or not np.max(variance, initial=0.0) > 0:
        return None
    return mean, np.sqrt(np.maximum(variance, 0))


def _apart(total: Array, saw: tuple[Array, Array]) -> Apart:
    mean, std = total[1] / total[0], np.sqrt(np.maximum(total[2] / total[0] - np.square(total[1] / total[0]), 0))
    alive = saw[1] > DEAD * saw[1].max()
    means, spreads = np.abs(mean - saw[0])[alive] / saw[1][alive], std[alive] / saw[1][alive]
    off = int(np.count_nonzero(np.hypot(means, spreads) > OFF))
    return Apart(float(np.median(means)), float(np.median(np.maximum(spreads, 1e-30))), off, means.size)
