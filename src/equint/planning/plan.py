"""From a recipe to passes: each is given what it declares to need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import EquintError, InvalidRecipe, UnusableData
from ..hardware.target import Target
from ..ir.model import Graph, QSpec
from ..maths.affine import check_bits
from ..passes import Need, Pass, followed, needs
from ..samples.images import Samples
from ..samples.statistics import Statistics
from .recipe import PASSES, ActivationBits, Recipe, looks, needs_images, without_images


@dataclass(frozen=True)
class Data:
    """What a recipe may look at beside the weights: images, what was measured on such before, the float network."""

    images: Samples | None = None
    statistics: Statistics | None = None
    teacher: Graph | None = None


def resolve(
    chosen: Recipe,
    on: Target,
    weight_bits: int | None = None,
    activation_bits: ActivationBits = None,
    data: Data | None = None,
) -> tuple[Pass, ...]:
    """The passes of a recipe for a target, ready to run.

    Raises:
        EquintError: bit widths that cannot be, weights finer than the target takes, data that no pass looks at.

    Example:
        >>> from ..hardware.target import target
        >>> from .recipe import recipe
        >>> [type(p).__name__ for p in resolve(recipe("lwq"), target("per-tensor"))]
        ['FoldBatchnorm', 'Calibrate', 'ActivationRanges', 'Quantize']
    """
    weight, activation = formats(chosen, on, weight_bits, activation_bits)
    given: dict[Need, Any] = {
        Need.WEIGHT: weight,
        Need.ACTIVATION: activation,
        Need.BIAS_BITS: chosen.bias_bits or on.bias_bits,
        Need.BIAS_GRID: chosen.bias_grid,
        Need.SHIFT_BITS: on.shift_bits,
        Need.OVERRIDES: chosen.overrides,
    }
    if data is not None:
        if not looks(chosen):
            why = "looks at no images; leave the data out, or choose another recipe"
            raise InvalidRecipe(f"recipe {chosen.name} {why}")
        given |= {Need.IMAGES: data.images, Need.STATISTICS: data.statistics, Need.TEACHER: data.teacher}
    passes = list[Pass]()
    for kind, options in ((PASSES[name], options) for name, options in chosen.passes):
        follows = {key: of(on) for key, of in followed(kind).items() if options.get(key) == "target"}
        own = {key: given[need] for key, need in needs(kind).items() if need in given}
        try:
            passes.append(kind(**own, **{**options, **follows}))
        except EquintError as error:
            raise InvalidRecipe(f"recipe {chosen.name}: {error}") from error
    return tuple(passes)


def check_images(chosen: Recipe, data: Data | None) -> None:
    """Refuse a recipe that cannot do without images, whatever is asked for, where there are none.

    Example:
        >>> from .recipe import recipe
        >>> check_images(recipe("one-step"), None)
        >>> check_images(recipe("bias-finetune"), None)
        Traceback (most recent call last):
        equint.errors.UnusableData: recipe bias-finetune: finetune_bias needs images; give data
    """
    needing = needs_images(without_images(chosen))
    if data is None and needing:
        raise UnusableData(f"recipe {chosen.name}: {needing[-1]} needs images; give data")


def formats(
    chosen: Recipe, on: Target, weight_bits: int | None, activation_bits: ActivationBits
) -> tuple[QSpec, QSpec | None]:
    """The formats of weights and activations: the target's, as the recipe changes them, as the user changes those.

    Raises:
        EquintError: bit widths that cannot be, weights finer than the target takes.

    Example:
        >>> from ..hardware.target import target
        >>> from .recipe import recipe
        >>> weight, activation = formats(recipe("lwq"), target("per-channel"), 4, "float")
        >>> weight.bits, weight.granularity, activation
        (4, 'tensor', None)
    """
    weight = replace(on.weight, **chosen.weight)
    activation = replace(on.activation, **chosen.activation)
    if weight_bits is not None:
        weight = replace(weight, bits=weight_bits)
    if isinstance(activation_bits, int):
        activation = replace(activation, bits=activation_bits)
    for spec in (weight, activation):
        check_bits(spec.bits)
    for finer, what in (("channel", "a weight scale"), ("shift", "a shift")):
        if weight.granularity == finer != on.weight.granularity:
            raise InvalidRecipe(
                f"recipe {chosen.name} needs {what} per channel, which target {on.name} does not take; choose another"
            )
    if activation_bits != "float" and activation.granularity != "tensor":
        raise InvalidRecipe(f"recipe {chosen.name}: activations have one scale per tensor; leave their granularity out")
    for override in chosen.overrides:
        if override.granularity not in (None, "tensor", on.weight.granularity):
            raise InvalidRecipe(
                f"recipe {chosen.name}: the override of {override.names} needs granularity {override.granularity}, "
                f"which target {on.name} does not take; choose another"
            )
    return weight, None if activation_bits == "float" else activation
