"""Analytic bias correction: take the mean error of quantized weights out of the biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.weight_grids import fitted, stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Correction, Graph, Model, Moments, Name, QParams
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, summed_bits
from ..noise.mean_error import mean_error
from ..ops.layers import bias_of, layers
from . import Keeps, Need, Stage, needed

_REFITS = 10


@dataclass(frozen=True)
class CorrectBias:
    """b_o ← b_o − Σ_i E[x_i]·Σ_k ΔW_oik·c_k, ΔW = W_q − W (Nagel et al. 2019, section 4.2).

    E[x] are the moments of the float network, earlier layers being corrected too; c_k is the share of positions where
    tap k meets the input and not padding. Where a corrected bias no longer fits `bias_bits`, its weight's scale is
    raised, and the layer is corrected again.
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.CORRECTION

    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")

    def __call__(self, model: Model) -> Model:
        editor, qparams, events = Editor(model.graph), dict(model.qparams), list[Event]()
        known = []
        for layer in layers(model.graph):
            if layer.weight not in qparams:
                continue
            if layer.x in model.moments:
                known.append((layer, model.moments[layer.x]))
            else:
                why = {"why": "nothing is known of its input's mean"}
                events.append(Event(EventKind.BIAS_NOT_CORRECTED, layer.name, why, "correct_bias", warning=True))
        moves, corrected = list[float](), dict[Name, Correction]()
        self._settle(model.graph, known, qparams, events)
        for layer, x in known:
            bias = self._corrected(model.graph, layer, qparams, x)
            editor.set_bias(layer, bias)
            corrected[layer.y] = Correction("analytic", np.ones(bias.size, bool))
            moves.append(float(np.sqrt(np.mean(np.square(bias - bias_of(model.graph, layer))))))
        facts = {"layers": len(moves), "mean move": float(np.mean(moves)) if moves else 0.0}
        done = Event(EventKind.BIASES_CORRECTED, "", facts, "correct_bias")
        before = {y: c for y, c in model.corrected.items() if y in corrected and c.channels.all()}
        corrected = {**model.corrected, **corrected, **before}
        return replace(model, graph=editor.done(), qparams=qparams, corrected=corrected).noted(done, *events)

    def _settle(
        self, graph: Graph, known: list[tuple[Layer, Moments]], qparams: dict[Name, QParams], events: list[Event]
    ) -> None:
        """Raise weight scales until every corrected bias fits: a raised scale changes the correction."""
        raised: dict[Name, Event] = {}
        for _ in range(_REFITS):
            settled = True
            for layer, x in known:
                grid, noted = qparams[layer.weight], list[Event]()
                bias, width = self._corrected(graph, layer, qparams, x), summed_bits(self.bias_bits, self.bias_grid)
                qparams[layer.weight] = fitted(layer, grid, bias, qparams.get(layer.x), width, noted)
                if noted:
                    raised[layer.name], settled = noted[-1], False
            if settled:
                break
        events += raised.values()

    def _corrected(self, graph: Graph, layer: Layer, qparams: Mapping[Name, QParams], x: Moments) -> Array:
        bias = bias_of(graph, layer) - mean_error(graph, layer, qparams[layer.weight], x)
        return stored_bias(bias.astype(np.float32), qparams.get(layer.x), self.bias_bits, self.bias_grid)
