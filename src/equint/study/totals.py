"""SQNR of a quantized network's outputs: measured, and beside it what the float network foretells, where that holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..files import Facts
from ..ir.model import Graph, Model, Name
from ..maths.noise import to_db
from ..onnx.qdq import export
from ..runtime.forecast import forecast
from ..runtime.judge import Judge
from ..samples.images import Samples, split

WITHIN_DB = 3.0
"""A forecast that is further from what was measured does not hold, and is not shown."""


@dataclass(frozen=True)
class Total(Facts):
    """A network's outputs, parts and outputs alike, as `equint.judge` ranks candidates by.

    Attributes:
        measured: SQNR in dB. forecast: the same as foretold by the float network; None where that does not hold.
        off_by: by how much the forecast lies above what was measured, dB, whether it holds or not.
    """

    measured: float
    forecast: float | None
    off_by: float


def totals(
    original: Graph,
    models: Mapping[str, tuple[Model, Model]],
    images: Samples,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Total]:
    """What quantized networks lose at the outputs, measured on all images beside the float network, and foretold.

    Args:
        original: the float network.
        models: by name, the network as it is before grids are chosen, rescaled like the quantized one; and that.
        progress: called with the number of images done.

    Raises:
        EquintError: images that the network does not take.

    Example:
        >>> import numpy as np
        >>> from equint import Card, load
        >>> from equint.demo import data_path, model_path
        >>> from equint.job import Job
        >>> job = Job.of(model_path(), "lwq", "per-tensor", input=Card("gray", (0.0,), (16.0,)), data=data_path())
        >>> reference, quantized = job.plain()
        >>> found = totals(reference.graph, {"plain": (reference, quantized)}, job.samples.first(16))["plain"]
        >>> abs(found.off_by) < 3, found.forecast == found.measured + found.off_by
        (True, True)
    """
    seat = Judge(original, {name: export(quantized) for name, (_, quantized) in models.items()})
    for feed in split(images, seat.batch):
        seat.show(feed)
        if progress is not None:
            progress(seat.images)
    found = dict[str, Total]()
    for name, (before, quantized) in models.items():
        told = forecast(before, quantized, images, judged(seat, before.graph))
        found[name] = compared(seat.sqnr_db(name), to_db(told))
    return found


def compared(measured: float, told: float) -> Total:
    """What was measured, and what was foretold if it holds; SQNR in dB.

    Example:
        >>> compared(20.0, 22.5), compared(20.0, 16.0)
        (Total(measured=20.0, forecast=22.5, off_by=2.5), Total(measured=20.0, forecast=None, off_by=-4.0))
    """
    off = told - measured
    return Total(measured, told if abs(off) <= WITHIN_DB else None, off)


def judged(seat: Judge, graph: Graph) -> list[Name]:
    """The tensors of a network whose noise a judge ranks candidates by."""
    places = (place for at in seat.judged() for place in at)
    return [p.part if p.part in graph.producer else p.tensor for p in places]
