"""Whether the input that is described is the one that a network was trained on, as far as its BatchNorms remember."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import EquintError
from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..runtime.training import Training
from ..samples.images import Samples
from .search import made_up_samples

SHOWN = 8
"""Samples that are held against BatchNorms."""
FAR = 1.5
"""Distance from training, in spreads and doublings, from which it is told: of thirteen networks whose input is known it
was 0.08 to 0.95, up to 1.2 on made-up samples; for pixels from −1 to 1 that should be from 0 to 255, 3 and more."""


def contradictions(network: Model, images: Samples | None) -> Iterator[Event]:
    """A warning where the input lies far from what the first BatchNorms saw; its numbers are of the farthest of these.

    Args:
        network: float, with its BatchNorms and what is known of its input; images: None: samples are made up.
    """
    training = Training(network.graph)
    shown = (images or made_up_samples(network)) if training.norms else None
    if shown is None:
        return
    try:
        apart = training.apart(shown.first(SHOWN))
    except EquintError:  # what does not run is told by who needs it
        return
    if not apart or sum(a.distance for a in apart) / len(apart) < FAR:
        return
    far = max(apart, key=lambda a: a.distance)
    why = f"values there spread {far.spread:.2g} times as wide, with means {far.means:.1f} spreads off"
    todo = "correct --input-range, or mean, std and range in the card, or give the samples that it is for"
    yield Event(EventKind.INPUT_CONTRADICTED, network.graph.inputs[0], {"why": f"{why}; {todo}"}, "input", warning=True)
