"""What tries many variants of one network: diagnosis, and the cheapest mixed precision that is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .api import Input, choose, described, load, looked_at
from .errors import EquintError
from .graph.overrides import Override
from .hardware.target import Target
from .ir.model import Array, Model
from .planning import recipe as recipes
from .planning.run import Progress
from .planning.variants import quantizer
from .samples.images import Images
from .study.diagnose import Diagnosis, shown
from .study.diagnose import diagnose as _diagnose
from .study.mixed import Mixed
from .study.mixed import mixed as _mixed


def diagnose(
    source: Any,
    recipe: Any = None,
    target: str | Target | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: recipes.ActivationBits = None,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Which layers and tensors cost a quantized network most, why, and what helps: measured on images.

    The arguments are those of `equint.quantize`. Without images, generated pictures serve.

    Args:
        labels: `(N,)` class of each image, for the float network's own accuracy.

    Returns:
        Its `recipe` is the one to use, with overrides where they pay; `facts()` is everything, ready for JSON.

    Raises:
        EquintError: as `equint.quantize`; also for saved statistics, on which nothing can be tried.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> from equint.samples.card import Card
        >>> found = diagnose(model_path(), "lwq", input=Card("gray", (0.0,), (16.0,)), data=data_path(), images=32)
        >>> sorted(found.stages)
        ['activations', 'both', 'rewritten', 'weights']
    """
    trial = _trial(source, recipe, target, weight_bits, activation_bits, input, data, images)
    return _diagnose(*trial, labels=labels, progress=progress)


def mixed(
    source: Any,
    max_drop: float,
    recipe: Any = None,
    target: str | Target | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: recipes.ActivationBits = None,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> Mixed:
    """The cheapest overrides with which a network loses at most `max_drop` points; the best found if none suffice.

    Points are of top-1 where there are labels, else of agreement with the float network, on the images. The other
    arguments are those of `diagnose`.

    Raises:
        EquintError: as `diagnose`, and for networks whose result is not a score per class.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> from equint.samples.card import Card
        >>> given = {"input": Card("gray", (0.0,), (16.0,)), "data": data_path(), "images": 16}
        >>> mixed(model_path(), 100.0, "lwq", **given).chosen
        ()
    """
    if not 0 <= max_drop <= 100:
        raise EquintError(f"max_drop = {max_drop}: give points from 0 to 100")
    trial = _trial(source, recipe, target, weight_bits, activation_bits, input, data, images)
    return _mixed(*trial, max_drop, labels=labels, progress=progress)


def _trial(
    source: Any,
    recipe: Any,
    target: str | Target | None,
    weight_bits: int | None,
    activation_bits: recipes.ActivationBits,
    input: Input,
    data: Any,
    images: int | None,
) -> tuple[Model, recipes.Recipe, Target, Callable[[recipes.Recipe], Model], Images]:
    """The original, the recipe with its bits, the target, what quantizes by a recipe, and images."""
    chosen, hardware = choose(recipe, target)
    chosen = replace(chosen, target=hardware.name)
    if weight_bits is not None:
        chosen = replace(chosen, weight={**chosen.weight, "bits": weight_bits})
    if isinstance(activation_bits, int):
        chosen = replace(chosen, activation={**chosen.activation, "bits": activation_bits})
    elif activation_bits == "float":
        chosen = replace(chosen, overrides=(*chosen.overrides, Override(tensors=("*",), float=True)))
    original = source if isinstance(source, Model) else load(source)
    given = looked_at(original, data, input, images)
    if given is not None and given.images is None:
        raise EquintError("saved statistics show no images to try anything on; give images")
    ready = described(original, input)
    seen = shown(ready) if given is None or given.images is None else given.images
    return original, chosen, hardware, quantizer(ready, hardware, given), seen
