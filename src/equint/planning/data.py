"""What recipes may look at beside the weights: from a file, a folder, arrays or statistics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import EquintError, InvalidOption, UnusableData
from ..ir.model import Model, Name, Shape
from ..ops.borders import reads_sizes
from ..passes.fold_batchnorm import FoldBatchnorm
from ..samples.card import Card
from ..samples.data import images
from ..samples.generated import any_size, open_shapes, stand_in, tried_sizes
from ..samples.images import Feed, FirstRun, Run, Samples
from ..samples.presented import as_runs, fixed_batch, presented
from ..samples.statistics import Statistics, fingerprint, is_statistics
from .plan import Data

NO_SAMPLES = "no images to look at: give data, or a card with calibration in [data]"


def folded(model: Model) -> Model:
    """The network that statistics are of: its BatchNorms folded, as every recipe begins."""
    return FoldBatchnorm()(model)


def check_statistics(model: Model, statistics: Statistics, label: str) -> None:
    """Refuse statistics that were not measured on this network."""
    if statistics.shapes:
        model = _known(model, statistics.shapes, statistics.settled)
    if statistics.network != fingerprint(folded(model).graph):
        raise UnusableData(f"{label}: of another network; calibrate this one")


def looked_at(model: Model, data: Any, card: Card | None, limit: int | None) -> tuple[Model, Data | None]:
    """The network with the shapes that data tell, and the data that a user named, ready for recipes; None without.

    Raises:
        UnusableData: a file or folder that is not there or needs a card, samples that the network cannot be shown, or
            statistics of another network.
    """
    if data is None and limit is not None:
        data = None if card is None else card.data.get("calibration")
        if data is None:
            raise UnusableData(NO_SAMPLES)
    if data is None:
        return _guessed(model), None
    label = os.fspath(data) if isinstance(data, (str, os.PathLike)) else "the statistics"
    if isinstance(data, (str, os.PathLike)):
        if is_statistics(data):
            data = Statistics.load(data)
        elif card is None and os.path.isdir(data):
            what = "a folder of pictures needs a card that says how they are prepared, or --mean and --std"
            raise UnusableData(f"{os.fspath(data)}: {what}")
        else:
            data = images(data, card or Card(), inputs=model.graph.inputs)
    if isinstance(data, Statistics):
        if limit is not None:
            raise InvalidOption("statistics are of all images that were measured; leave the number of images out")
        model = _known(model, data.shapes, data.settled) if data.shapes else _guessed(model)
        check_statistics(model, data, label)
        return model, Data(statistics=data, teacher=folded(model).graph)
    listed = not isinstance(data, (Samples, Mapping)) and not hasattr(data, "shape")
    model, shown = _first_shown(model, Samples.of(data), listed)
    return model, Data(images=shown if limit is None else shown.first(limit), teacher=folded(model).graph)


def _first_shown(model: Model, images: Samples, listed: bool) -> tuple[Model, Samples]:
    """The network as its first sample shows it, and the samples as it takes them.

    Args:
        listed: whether each batch may be meant as one sample: where the network runs on that, and not on its rows.
    """
    from ..runtime.first_run import rows_of_a_sample

    def shaped(shown: Samples) -> tuple[Model, Samples]:
        known, seen = _shaped(model, next(iter(shown)))
        return known, shown.known(seen)

    shown = presented(images, model.graph)
    feed = next(iter(shown))
    try:
        return shaped(shown)
    except UnusableData as error:
        if not isinstance(feed, Run) and fixed_batch(model.graph) is None:
            if listed:
                with suppress(UnusableData):
                    return shaped(as_runs(presented(images, model.graph, gathered=False), model.graph))
            rows = rows_of_a_sample(model.graph, feed)
            if rows is not None:
                with suppress(UnusableData):  # fewer rows than that
                    return shaped(as_runs(shown, model.graph, rows))
        total = images.total
        if total is None:
            raise
        raise UnusableData(f"{images.label}: the first of {total} samples: {error}") from error


def _shaped(model: Model, feed: Feed) -> tuple[Model, FirstRun]:
    """The network with the shapes that its tensors have on a sample, and what else that shows."""
    from ..runtime.first_run import first_run

    found = first_run(model.graph, feed)
    return _known(model, found.shapes, found.settled), found


def sized(model: Model, images: Samples | None) -> Model:
    """The network for inputs as large as the first sample, where it leaves their size free; the batch stays free."""
    if images is None or not any_size(model.graph):
        return model
    feed = next(iter(images))
    named = dict(feed) if isinstance(feed, Mapping) else {model.graph.inputs[0]: feed}
    shapes = {n: s for n in model.graph.inputs if (s := model.graph.shapes.get(n))}
    fixed = {n: (s[0], *np.shape(named[n])[1:]) for n, s in shapes.items()}
    graph = replace(model.graph, shapes={**model.graph.shapes, **fixed})
    return _shaped(replace(model, graph=graph), feed)[0]


def single(model: Model, images: Samples | None) -> Model:
    """The network for one sample at a time, where a free batch leaves sizes inside it open."""
    graph = model.graph
    made = (o for node in graph.nodes for o in node.outputs if o)
    computed = any(node.captured or reads_sizes(node) for node in graph.nodes)
    if not computed and all(
        (s := graph.shapes.get(n)) is not None and all(isinstance(d, int) for d in s[1:]) for n in made
    ):
        return model
    shapes = {n: s for n in graph.inputs if (s := graph.shapes.get(n))}
    alone = _known(model, {n: (1, *s[1:]) for n, s in shapes.items() if not isinstance(s[0], int)}, fold=True)
    return alone if images is None else _shaped(alone, next(iter(images)))[0]


def _known(model: Model, shapes: Mapping[Name, Shape], fold: bool) -> Model:
    from ..onnx.reader import with_shapes

    return with_shapes(model, shapes, fold)


def _guessed(model: Model) -> Model:
    """The network with the shapes that it has on a made-up sample, where inference leaves some open."""
    from ..runtime.entrance import check_runs
    from ..runtime.first_run import rows_of_a_sample

    check_runs(model)
    if not open_shapes(model.graph):
        return model

    for size in tried_sizes(model.graph):
        feed = stand_in(model.graph, size)
        try:
            return model if feed is None else _shaped(model, feed)[0]
        except EquintError:  # what was made up is nothing that it reads
            continue
    feed = stand_in(model.graph)
    rows = None if feed is None else rows_of_a_sample(model.graph, feed)
    if feed is None or rows is None:
        return model
    return _shaped(model, Run({n: np.repeat(v, rows, 0) for n, v in dict(feed).items()}))[0]
