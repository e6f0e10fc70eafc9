"""What recipes may look at beside the weights: from a file, a folder, arrays or statistics."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InvalidOption, UnusableData
from ..ir.model import Model
from ..passes.fold_batchnorm import FoldBatchnorm
from ..samples.card import Card
from ..samples.data import images
from ..samples.images import Samples
from ..samples.statistics import Statistics, fingerprint, is_statistics
from .plan import Data

NO_SAMPLES = "no images to look at: give data, or a card with calibration in [data]"


def folded(model: Model) -> Model:
    """The network that statistics are of: its BatchNorms folded, as every recipe begins."""
    return FoldBatchnorm()(model)


def check_statistics(model: Model, statistics: Statistics, label: str) -> None:
    """Refuse statistics that were not measured on this network."""
    if statistics.network != fingerprint(folded(model).graph):
        raise UnusableData(f"{label}: of another network; calibrate this one")


def looked_at(model: Model, data: Any, card: Card | None, limit: int | None) -> Data | None:
    """The data that a user named, ready for recipes; None where there are none.

    Raises:
        UnusableData: a file or folder that is not there or needs a card, or statistics of another network.
    """
    if data is None and limit is not None:
        data = None if card is None else card.data.get("calibration")
        if data is None:
            raise UnusableData(NO_SAMPLES)
    if data is None:
        return None
    if isinstance(data, (str, os.PathLike)):
        if is_statistics(data):
            data = Statistics.load(data)
        elif card is None and os.path.isdir(data):
            raise UnusableData(f"{os.fspath(data)}: a folder of pictures needs a card that says how they are prepared")
        else:
            data = images(data, card or Card())
    if isinstance(data, Statistics):
        if limit is not None:
            raise InvalidOption("statistics are of all images that were measured; leave the number of images out")
        check_statistics(model, data, "the statistics")
        return Data(statistics=data, teacher=model.graph)
    shown = Samples.of(data)
    return Data(images=shown if limit is None else shown.first(limit), teacher=model.graph)
