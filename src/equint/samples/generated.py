"""Generated pictures, for networks that read pictures and have none to be shown."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ir.model import Array, Model
from ..maths.pictures import MEAN, STD, pictures
from .images import BATCH, Samples

PICTURES = 128
USUAL = 128
"""Height and width of pictures whose size is free."""


def picture_shape(model: Model) -> tuple[int, int, int] | None:
    """(channels, height, width) of what the network reads; None where that is no picture, or nothing is known of it."""
    graph = model.graph
    shape = graph.shapes.get(graph.inputs[0]) if len(graph.inputs) == 1 and graph.is_float(graph.inputs[0]) else None
    if shape is None or len(shape) != 4 or shape[1] not in (1, 3) or graph.inputs[0] not in model.moments:
        return None
    height, width = (n if isinstance(n, int) else USUAL for n in shape[2:])
    return int(shape[1]), height, width


def generated(model: Model, shape: tuple[int, int, int]) -> Samples:
    """Pictures as the network's input wants them, by its mean, spread and range."""
    (name,), (channels, height, width) = model.graph.inputs, shape
    m, r = model.moments[name], model.ranges[name]

    def batches() -> Iterator[Array]:
        for seed in range(PICTURES // BATCH):
            pixels = pictures(BATCH, height, width, channels, seed)
            yield np.clip((pixels - MEAN) / STD * m.std + m.mean, r.lo, r.hi).astype(np.float32)

    return Samples(batches, "generated pictures")
