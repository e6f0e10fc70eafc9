"""Bias fine-tuning: train the biases alone until the quantized network answers as the float one does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from ..errors import UnusableData
from ..graph.weight_grids import fitted, stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Correction, Graph, Model, Name, View
from ..maths.affine import BiasGrid, summed_bits
from ..maths.noise import to_db
from ..ops.layers import layers
from ..samples.images import Samples
from . import Keeps, Need, Stage, needed, require


@dataclass(frozen=True)
class FinetuneBias:
    """Knowledge distillation into the biases (Meller et al. 2019, section 5.2), with straight-through gradients.

    Only biases change, so that few unlabelled images are enough (1,000 as published) and training is short. The paper
    says no more than that: optimizer and rate, loss (`equint.torch.distill.distill`), steps, batch, augmentation and
    held-out images are ours. The biases with the least loss on held-out images are kept, which are those before
    training where nothing helped.

    Attributes:
        first: train on the first so many images, where there are more.
        steps, batch: optimizer steps, and images in each.
        rate: learning rate, relative to the spread of each layer's outputs.
        temperature: of the softened scores that are compared.
        features: weight of the mean error of inner tensors beside that of the outputs; 0 compares outputs alone.
        held_out: share of images for that check.
        augment: mirror and shift pictures at random.
        teacher: the float network; the model's own weights if left out.

    Raises:
        EquintError: no images, torch is missing, or an operator that cannot be trained through.
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.CORRECTION

    steps: int = 300
    batch: int = 8
    rate: float = 1e-2
    temperature: float = 4.0
    features: float = 30.0
    held_out: float = 0.2
    augment: bool = True
    seed: int = 0
    first: float = math.inf
    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")
    images: Samples | None = needed(Need.IMAGES, None)
    teacher: Graph | None = needed(Need.TEACHER, None)
    progress: Callable[[int, int], None] | None = needed(Need.PROGRESS, None)

    def __post_init__(self) -> None:
        require("first", self.first, self.first >= 1, "1 or more")
        require("steps", self.steps, self.steps >= 1, "1 or more")
        require("batch", self.batch, self.batch >= 1, "1 or more")
        require("rate", self.rate, 0 < self.rate < 1, "a number above 0 and below 1")
        require("temperature", self.temperature, 0 < self.temperature < 1e3, "a number above 0")
        require("features", self.features, 0 <= self.features < 1e6, "0 or more")
        require("held_out", self.held_out, 0 <= self.held_out < 1, "0 to below 1")
        require("seed", self.seed, self.seed >= 0, "0 or more")

    def __call__(self, model: Model) -> Model:
        if self.images is None:
            raise UnusableData("finetune_bias needs images; give data")
        from ..onnx.qdq import qdq_graph
        from ..runtime.sweep import open_biases
        from ..torch.distill import Plan, distill

        every = [la for la in layers(model.graph) if la.weight in model.qparams]
        if not every:
            nothing = {"why": "no quantized layer"}
            return model.noted(Event(EventKind.NO_BIASES_TO_FINE_TUNE, "", nothing, "finetune_bias"))
        student, places = open_biases(qdq_graph(model), every)
        spreads = {
            place.bias: float(np.mean(model.moments[la.y].std)) if la.y in model.moments else 1.0
            for la, place in zip(every, places, strict=True)
        }
        plan = Plan(**{f.name: getattr(self, f.name) for f in fields(Plan)})
        teacher = self.teacher or model.graph
        views = _inner(model, teacher, own=self.teacher is None)
        images = self.images.first(int(self.first)) if self.first < math.inf else self.images
        trained = distill(student, spreads, teacher, images, plan, views, self.progress)
        facts = {
            "layers": len(every),
            "images": trained.images,
            "loss before": trained.before,
            "after": trained.after,
            "best step": trained.step,
            "gain in dB": to_db(trained.after) - to_db(trained.before),
        }
        if trained.step == 0:
            why = {"why": "the loss on the held-out images did not fall", **facts}
            return model.noted(Event(EventKind.FINE_TUNING_UNDONE, "", why, "finetune_bias", warning=True))
        editor, qparams, events = Editor(model.graph), dict(model.qparams), list[Event]()
        corrected = dict[Name, Correction]()
        for layer, place in zip(every, places, strict=True):
            bias = trained.values[place.bias].reshape(-1).astype(np.float32)
            weight, x = qparams[layer.weight], qparams.get(layer.x)
            bias = stored_bias(bias, x, self.bias_bits, self.bias_grid)
            editor.set_bias(layer, bias)
            width = summed_bits(self.bias_bits, self.bias_grid)
            qparams[layer.weight] = fitted(layer, weight, bias, x, width, events)
            corrected[layer.y] = Correction("fine-tuned", np.ones(bias.size, bool))
        done = Event(EventKind.BIASES_FINE_TUNED, "", facts, "finetune_bias")
        return replace(model, graph=editor.done(), qparams=qparams, corrected=corrected).noted(done, *events)


def _inner(model: Model, teacher: Graph, own: bool) -> dict[Name, View]:
    """Quantized tensors that the teacher has too, and how its values become those of the model."""
    same = View(np.ones((), np.float32), np.zeros((), np.float32))
    shared = [t for t in model.qparams if t in model.graph.producer and t in teacher.producer]
    return {t: same if own else model.views.get(t, same) for t in shared if t not in teacher.outputs}
