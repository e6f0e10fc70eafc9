"""Empirical bias correction: take the mean error that images show out of the biases, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.weight_grids import fitted, stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Correction, Graph, Model, Name
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, summed_bits
from ..ops.layers import bias_of, layers
from ..samples.images import Samples
from . import Keeps, Need, Stage, needed


@dataclass(frozen=True)
class CorrectBiasEmpirical:
    """b_o ← b_o − (E[y_q] − E[y]), all layers before it being quantized and corrected (Nagel et al. 2019, appendix D).

    The expectations are means over positions and images. A channel's correction is rolled back where it would not
    help on images that it was not measured on: with m_a, m_b the mean errors of the two halves of the images, each
    half's correction changes the other half's squared error by m_a² − 2·m_a·m_b and m_b² − 2·m_a·m_b, whose sum must be
    negative. Without images nothing is done; without a teacher the model's own weights are it.
    Layers whose biases rounding took from images are left alone.

    Attributes:
        roll_back: False keeps every channel's correction, as published.
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.CORRECTION

    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")
    images: Samples | None = needed(Need.IMAGES, None)
    teacher: Graph | None = needed(Need.TEACHER, None)
    progress: Callable[[int, int], None] | None = needed(Need.PROGRESS, None)
    roll_back: bool = True

    def __call__(self, model: Model) -> Model:
        if self.images is None:
            why = {"why": "no images to look at"}
            return model.noted(Event(EventKind.BIASES_NOT_CORRECTED_FROM_IMAGES, "", why, "correct_bias_empirical"))
        from ..runtime.sweep import mean_errors

        done = {y for y, c in model.corrected.items() if c.how == "empirical" and c.channels.all()}
        left = [la.y for la in layers(model.graph) if la.weight in model.qparams and la.y not in done]
        if done and not left:
            facts = {"layers": len(done), "how": "as their weights were rounded"}
            return model.noted(Event(EventKind.BIASES_CORRECTED_FROM_IMAGES, "", facts, "correct_bias_empirical"))
        helped = dict[Name, Array]()

        def decide(layer: Layer, errors: Array) -> Array:
            helped[layer.y] = helps(errors) if self.roll_back else np.ones(errors.shape[1], bool)
            bias, x = bias_of(model.graph, layer), model.qparams.get(layer.x)
            change = np.where(helped[layer.y], -errors.mean(0), 0.0)
            wanted = bias + change
            return np.asarray(change + (stored_bias(wanted, x, self.bias_bits, self.bias_grid) - wanted))

        taught = replace(model, views={}) if self.teacher is None else model  # its own weights have its own units
        biases = mean_errors(taught, self.teacher or model.graph, self.images, decide, self.progress, left)
        editor, qparams, events = Editor(model.graph), dict(model.qparams), list[Event]()
        corrected = dict(model.corrected)
        for layer in layers(model.graph):
            if layer.y not in biases:
                continue
            bias = np.where(helped[layer.y], biases[layer.y], bias_of(model.graph, layer)).astype(np.float32)
            weight, x = qparams[layer.weight], qparams.get(layer.x)
            bias = stored_bias(bias, x, self.bias_bits, self.bias_grid)
            editor.set_bias(layer, bias)
            width = summed_bits(self.bias_bits, self.bias_grid)
            qparams[layer.weight] = fitted(layer, weight, bias, x, width, events)
            known = corrected.get(layer.y)
            good = helped[layer.y] if known is None else known.channels | helped[layer.y]
            corrected[layer.y] = Correction("empirical", good)
        kept, channels = (sum(int(f(h)) for h in helped.values()) for f in (np.sum, np.size))
        counts = {"layers": len(helped), "channels": kept, "rolled back": channels - kept}
        event = Event(EventKind.BIASES_CORRECTED_FROM_IMAGES, "", counts, "correct_bias_empirical")
        return replace(model, graph=editor.done(), qparams=qparams, corrected=corrected).noted(event, *events)


def helps(errors: Array) -> Array:
    """Whether a channel's correction, measured on one half of the images, helps on the other: `(O,)`.

    Args:
        errors: `(2, O)` mean errors of the halves, real units.

    Example:
        >>> helps(np.array([[1.0, 1.0, 1.0], [0.9, 0.1, -0.5]])).tolist()
        [True, False, False]
    """
    a, b = errors
    return np.asarray(np.square(a) + np.square(b) < 4 * a * b)
