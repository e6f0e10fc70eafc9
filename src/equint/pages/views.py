"""What a page shows of samples: pictures with both answers, and activations on their grids."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EquintError
from ..onnx.writer import to_proto
from ..runtime.session import Session
from ..samples.card import Card, laid_out, read_card
from ..samples.images import Feed, Samples, split
from ..scoring.metrics import source_of
from .activations import activation_histograms
from .pictures import LOOKED_AT, picture_view

if TYPE_CHECKING:
    from ..result import Result


def pictures(result: Result, card: Any, data: Any, images: Samples | None, limit: int = LOOKED_AT) -> dict[str, Any]:
    """The samples on which both networks disagree most; empty where there are none, or they are no pictures.

    Args:
        card: what `evaluate` was given; left out, that of the result. data: what was measured on, and
            `limit` samples of it; left out, `images`.
    """
    described = result.job.card if card is None else _card(card)
    if described is None or len(result.original.graph.inputs) != 1 or (data is None and images is None):
        return {}
    try:
        original, quantized = Session(to_proto(result.original.graph), optimized=True), Session(result.proto)
        described = laid_out(described, original.shapes.values())
        batches: Iterable[tuple[Feed, Any]]
        if isinstance(data, (str, os.PathLike)):
            first = original.outputs[0]
            batches = source_of(Path(data), described, first, LOOKED_AT, False, original.shapes).since(0)
        else:
            assert images is not None
            batches = ((feed, None) for feed in split(images, 1))
        return picture_view(original.run, quantized.run, batches, described, original.outputs, limit)
    except EquintError as error:
        return {"why": str(error)}


def histograms(result: Result, images: Samples | None) -> dict[str, Any]:
    """Activations on their grids; empty where nothing can be shown to the network."""
    if images is None:
        return {}
    try:
        return activation_histograms(result.model, images)
    except EquintError as error:
        return {"why": str(error)}


def _card(given: Any) -> Card | None:
    if isinstance(given, (str, os.PathLike)):
        return read_card(given)
    return given if isinstance(given, Card) else None
