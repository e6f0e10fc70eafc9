"""What hardware accepts, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnknownName
from ..ir.model import QSpec
from ..maths.fixedpoint import Mantissa, Rounding


@dataclass(frozen=True)
class Target:
    """The number formats and operators of one kind of hardware.

    Attributes:
        weight, activation: formats; the granularity of `weight` is the finest that the hardware takes.
        bias_bits: width of integer biases.
        channel_clip: whether an activation may be clamped to a bound per channel.
        float_between: whether recipes may leave what stands between layers in float, where that is better.
        integers_only: whether it runs nothing in float, so that every activation gets a grid.
        shift_bits: width of the shift that a weight's output channel may have, where granularity is "shift".
        mantissa_bits, exponent_bits: of the scale compound M·2^s that its integer operators multiply by.
        rounding: what they do with the bits that they drop.
        fused_activations: whether it applies activations (LeakyRelu, HardSwish, …) to a layer's sums before these are
            rounded.
        table_bits: to so many bits its integer operators round what they look up in the table of such an activation,
            where that has not two straight parts.
        mantissa: `nearest` to the scale compound, as published; or `provable`, within 2^-18 of it, with which float32
            kernels compute the same integers (`maths/fixedpoint.provable_compound`).
        recipe: the built-in recipe that measured best for it (docs/accuracy.md); the default there.
    """

    name: str
    description: str
    weight: QSpec
    activation: QSpec = field(default_factory=lambda: QSpec(8, signed=False, symmetric=False))
    bias_bits: int = 32
    channel_clip: bool = False
    float_between: bool = False
    integers_only: bool = False
    shift_bits: int = 0
    mantissa_bits: int = 32
    exponent_bits: int = 6
    rounding: Rounding = "half_up"
    mantissa: Mantissa = "provable"
    fused_activations: bool = False
    table_bits: int = 10
    recipe: str = "optimal"


TARGETS = (
    Target(
        "per-channel",
        "one weight scale per output channel: onnxruntime, TensorRT, TFLite, most recent runtimes",
        QSpec(8, signed=True, symmetric=True, granularity="channel"),
        float_between=True,
    ),
    Target(
        "per-tensor",
        "one weight scale and zero point per layer: older and smaller accelerators, DSPs",
        QSpec(8, signed=True, symmetric=False, granularity="tensor"),
    ),
    Target(
        "per-tensor-clip",
        "per-tensor weights, and activations may be clamped to a bound per channel",
        QSpec(8, signed=True, symmetric=False, granularity="tensor"),
        channel_clip=True,
    ),
    Target(
        "npu-shift",
        "per-tensor weights with a 4-bit shift per output channel, integers only: NPUs with a weight equalizing shift",
        QSpec(8, signed=False, symmetric=False, granularity="shift"),
        integers_only=True,
        shift_bits=4,
        fused_activations=True,
        recipe="wes-optimal",
    ),
)
"""The built-in targets; the first is the default."""


def target(name: str) -> Target:
    """The built-in target called `name`. Raises EquintError that lists them."""
    found = next((t for t in TARGETS if t.name == name), None)
    if found is None:
        raise UnknownName(f"unknown target {name!r}; choose {', '.join(t.name for t in TARGETS)}")
    return found
