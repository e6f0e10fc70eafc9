"""What passes did or skipped: kinds, facts, and the one table of their words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from string import Formatter
from typing import Any

_ADVICE = "give --input-range, or a card with pixels or a range"


@unique
class EventKind(Enum):
    """Everything that can be said of a model; the value is its text, {names} standing for facts."""

    READ = "read"
    RAN = "ran {pass}"

    INPUT_KNOWN = "input range known ({how})"
    INPUT_INFERRED = f"input range inferred from {{how}}; {_ADVICE}"
    INPUT_ASSUMED = f"input range nothing tells; assumed {{how}}; {_ADVICE}"
    NUMBER_ASSUMED = "nothing tells what whole numbers the network is given; taken for 1: give --set, or samples"
    LENGTHS_ASSUMED = "nothing tells how long samples are; all of {of} is taken for one: give samples"
    CALIBRATED = "measured moments and ranges on images"
    CALIBRATION_DOUBTFUL = "calibration data cannot be right"
    LAYERS_ONLY = "left what stands between layers in float"
    CALIBRATED_ON_PICTURES = "measured moments and ranges on {what}"
    NOT_CALIBRATED = "not calibrated"
    IMAGES_LEFT_OUT = "left out the images that the recipe is published with"
    RANGES_FROM_MADE_UP_SAMPLES = "measured on made-up samples what nothing else tells"
    RANGES_FROM_MOMENTS = "activation ranges from moments"

    INPUT_CONTRADICTED = "the input as described is not what its first BatchNorms saw in training"
    STATISTICS_CONTRADICTED = "the statistics are not of the input as described"

    HEADROOM = "widened ranges for what more samples would show"
    NO_HEADROOM = "widened no range"

    FACET_UNKNOWN = "{facet} of {op} is not known"
    BATCHNORM_FOLDED = "folded BatchNormalization"
    BATCHNORM_LEFT = "left BatchNormalization as it is"
    CLIPS = "clips: {mode}"
    CLIP_LEFT = "left a clip as it is"
    CLIP_BOUND_DROPPED = "dropped a clip's bound"
    CLIP_BOUNDS_MOVED = "moved the bounds of clips"
    BIASES_ABSORBED = "absorbed high biases"
    BIAS_NOT_ABSORBED = "bias not absorbed"
    LAYER_PRUNED = "pruned a layer"
    LAYER_NOT_PRUNED = "left a layer unpruned"
    PRUNED = "pruned small weights"

    EQUALIZED = "equalized"
    NOT_EQUALIZED = "equalization found no free channel scales"
    CHANNELS_HELD_BACK = "held back channels that would set a range"
    MATCHED = "equalized ({method})"
    NOT_MATCHED = "{method} equalization found no free channel scales"
    CHANNELS_LEFT = "left channels as they are"
    CHANNELS_ATTENUATED = "attenuated channels that are clipped"
    OPTIMIZED = "chose scales and ranges for least predicted noise"
    NOT_OPTIMIZED = "nothing to optimize"
    NO_FREE_SCALES = "found no free channel scales"

    WEIGHTS_SHIFTED = "shifted weights"
    WEIGHT_NOT_SHIFTED = "weight not shifted"
    WEIGHTS_CLIPPED = "clipped weights"
    QUANTIZED = "chose grids"
    NOTHING_TO_QUANTIZE = "found no weights to quantize"
    OPERATOR_FLOAT = "{op} stays float"
    WORK_FLOAT = "{op} computes in float"
    FLOAT_BY_DESIGN = "{op} stays float by design"
    FLOAT_BETWEEN = "{op} computes in float, dequantized before and quantized behind: LiteRT has no integer form of it"
    NAMES_NOTHING = "the target's float_layers name nothing in this network"
    BODY_FLOAT = "all inside {op} stays float; convolutions and matrix products there: {layers}"
    FLOAT_BY_OVERRIDE = "stays float: an override says so"
    FLOAT_WITHOUT_RANGE = "stays float: nothing tells its range"
    SPREAD_BELOW_STEP = "a step of the grid is larger than the spread of its values"
    ROUNDED_IN_FRONT = "rounding in front of {tensors} activations costs {cost} dB; --fused-activations leaves it out"
    JOINED_APART = "inputs of a join keep grids of their own"
    ONE_GRID = "one grid for all channels"
    SCALE_BOUNDED = "raised the weight scale to its lower bound"
    SCALE_RAISED_FOR_BIAS = "raised the weight scale for its bias"
    SHIFTS_LOWERED_FOR_BIASES = "lowered shifts for their biases"
    OVERRIDE_OF_SHARED_WEIGHT = "override of another layer with the same weight"
    OVERRIDE_OF_SHARED_GRID = "override of all tensors on one grid"

    KERNELS_ROUNDED = "rounded kernels to keep their sums"
    WEIGHTS_ROUNDED = "rounded weights by second moments of their inputs"
    NOT_ROUNDED_BY_INPUTS = "kernels rounded alone, nothing being known of how inputs go together"
    BIASES_CORRECTED = "corrected biases"
    BIAS_NOT_CORRECTED = "bias not corrected"
    BIASES_CORRECTED_FROM_IMAGES = "corrected biases from images"
    BIASES_NOT_CORRECTED_FROM_IMAGES = "biases not corrected from images"
    BIASES_FINE_TUNED = "fine-tuned biases"
    NO_BIASES_TO_FINE_TUNE = "no biases to fine-tune"
    FINE_TUNING_UNDONE = "rolled fine-tuned biases back"

    CANDIDATE_MEASURED = "measured candidate {candidate}"
    MEASURED_DOUBTFULLY = "{on} tell little of what it loses"
    MEASURED_LOW = "loses much: signal over noise is {SQNR} dB on {on}"
    MEASURED = "measured on {on}"
    CANDIDATE_KEPT = "kept {candidate} of {count} candidates measured on {on}"
    LEFT_OUT = "left out {what}, which cost more than they saved"
    NOTHING_MEASURED = "measured no candidates"

    DROP_WITHIN_BOUND = "kept the drop within its bound"
    DROP_BEYOND_BOUND = "missed the bound on the drop; this is the best found"

    @property
    def named(self) -> frozenset[str]:
        """Facts that the text names."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.value) if name)


@dataclass(frozen=True)
class Event:
    """One thing that the pass `source` did or skipped, where, and the facts that explain it.

    Example:
        >>> print(Event(EventKind.RAN, "", {"pass": "quantize", "seconds": 0.25}))
        ran quantize (seconds=0.25)
        >>> print(Event(EventKind.CLIP_LEFT, "relu", {"why": "no bound", "channels": 3}))
        left a clip as it is: no bound [relu] (channels=3)
    """

    kind: EventKind
    at: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    warning: bool = False

    @property
    def text(self) -> str:
        """What happened, in words."""
        return self.kind.value.format_map(self.facts)

    @property
    def details(self) -> dict[str, Any]:
        return {k: v for k, v in self.facts.items() if k not in self.kind.named}

    @property
    def words(self) -> str:
        """What happened, and why."""
        why = self.details.get("why")
        return f"{self.text}: {why}" if why else self.text

    @property
    def sentence(self) -> str:
        """What happened, why and where, without numbers."""
        return described(self.words, self.at, {})

    def __str__(self) -> str:
        return described(self.words, self.at, {k: v for k, v in self.details.items() if k != "why"})


def described(text: str, at: str, facts: Mapping[str, Any]) -> str:
    """One line: what, [where], (facts)."""
    listed = ", ".join(f"{name}={valued(name, value)}" for name, value in facts.items())
    return " ".join(p for p in (text, at and f"[{at}]", listed and f"({listed})") if p)


IN_DB = frozenset(
    {"SQNR", "SQNR with", "SQNR without", "SQNR of another kind", "SQNR from", "SQNR to", "cost", "gain"}
    | {"predicted gain"}
)
"""Facts that are in decibels, which their names do not tell."""


def valued(name: str, value: Any) -> str:
    """A fact's value with its unit, where that is known of its name.

    Example:
        >>> valued("SQNR", 22.5), valued("predicted gain", 5.277), valued("chance", 0.398), valued("bits", "W8A8")
        ('22.5 dB', '5.3 dB', '40 %', 'W8A8')
    """
    if not isinstance(value, float):
        return str(value)
    if name in IN_DB:
        return f"{value:.1f} dB"
    return f"{100 * value:.0f} %" if name == "chance" else f"{value:.4g}"
