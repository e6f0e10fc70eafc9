"""The library's front door: load a network, quantize it, keep the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

from . import inputs
from . import recipe as recipes
from .errors import EquintError
from .evaluate.data import Card, read_card
from .model import Event, Model
from .passes.activation_ranges import ActivationRanges
from .passes.fold_batchnorm import FoldBatchnorm
from .passes.quantize import Quantize
from .passes.relu6 import Relu6
from .pipeline import Progress, run
from .target import TARGETS, Target
from .target import target as built_in_target

if TYPE_CHECKING:
    from onnx import ModelProto

Input = Card | str | os.PathLike[str] | Sequence[float] | None


@dataclass(frozen=True)
class Result:
    """A quantized network.

    Attributes:
        model: the value after the last pass; its log says what every pass did and skipped.
        original: the network as it was read.
        recipe, target: names of what was applied.
        level: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining.
        seconds: time spent in reading and passes.
    """

    model: Model
    original: Model
    recipe: str
    target: str
    level: int = 1
    seconds: float = field(compare=False, default=0.0)

    @cached_property
    def proto(self) -> ModelProto:
        """The quantized network as a QDQ ONNX model."""
        from .onnx.qdq import export

        return export(self.model)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the QDQ model; above 2 GB its constants go to a file beside it.

        Raises:
            EquintError: the output cannot be written.
        """
        from .onnx.writer import save_proto

        save_proto(self.proto, path)

    @property
    def warnings(self) -> tuple[Event, ...]:
        """What a user should know before trusting the result."""
        return tuple(e for e in self.model.log if e.warning)

    def facts(self) -> dict[str, Any]:
        """The result in numbers and words, ready for JSON."""
        from .report.summary import facts

        return facts(self)

    def summary(self) -> str:
        """The result as a short text."""
        from .report.summary import text

        return text(self)


def load(source: str | os.PathLike[str] | ModelProto) -> Model:
    """Read a float ONNX network.

    Raises:
        EquintError: the file is missing, damaged, too old or already quantized.

    Example:
        >>> from equint.demo import model_path
        >>> load(model_path()).graph.outputs
        ('output',)
    """
    from .onnx.reader import read

    return read(source)


def quantize(
    source: Model | str | os.PathLike[str] | ModelProto,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    target: str | Target | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: recipes.ActivationBits = None,
    input: Input = None,
    progress: Progress | None = None,
) -> Result:
    """Quantize a network without data.

    Args:
        source: a model from `load`, a path, or an ONNX model.
        recipe: name of a built-in recipe, a TOML file, or a `Recipe`; the target's best if left out.
        target: what the hardware accepts; the recipe's own if left out, per-channel if both are.
        weight_bits, activation_bits: 2 to 16; activations may also stay "float".
        input: what the network's input looks like: a card (or its path), or its lowest and highest value.
            Left out, it is inferred from the first BatchNorm.
        progress: called before each pass.

    Raises:
        EquintError: anything about the network, recipe, target or bit widths that cannot be used.

    Example:
        >>> from equint.demo import model_path
        >>> quantize(model_path(), input=(0, 1)).recipe
        'optimal'
    """
    start = perf_counter()
    chosen, hardware = _choose(recipe, target)
    passes = recipes.resolve(chosen, hardware, weight_bits, activation_bits)
    original = source if isinstance(source, Model) else load(source)
    model = run(described(original, input), passes, progress)
    if not model.qparams:
        raise EquintError("nothing to quantize: the network has no convolution or matrix product with constant weights")
    return Result(model, original, chosen.name, hardware.name, chosen.level, perf_counter() - start)


def _choose(
    recipe: str | os.PathLike[str] | recipes.Recipe | None, target: str | Target | None
) -> tuple[recipes.Recipe, Target]:
    hardware = built_in_target(target) if isinstance(target, str) else target
    if recipe is None:
        hardware = hardware or TARGETS[0]
        return recipes.recipe(hardware.recipe), hardware
    chosen = recipes.recipe(recipe)
    return chosen, hardware or built_in_target(chosen.target)


def inspect(
    source: Model | str | os.PathLike[str] | ModelProto, target: str | Target | None = None, *, input: Input = None
) -> dict[str, Any]:
    """What a network offers to quantization for a target: layers, free channel scales, and what pins the others.

    Example:
        >>> from equint.demo import model_path
        >>> sorted(inspect(model_path(), "per-tensor-clip"))
        ['borders', 'events', 'groups', 'layers', 'pinned']
    """
    from .analysis.inspect import inspect as look

    hardware = target if isinstance(target, Target) else built_in_target(target or TARGETS[0].name)
    model = described(source if isinstance(source, Model) else load(source), input)
    return look(Relu6("channel_clip" if hardware.channel_clip else "keep")(FoldBatchnorm()(model)))


def explain(
    source: Model | str | os.PathLike[str] | ModelProto,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    target: str | Target | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: recipes.ActivationBits = None,
    input: Input = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What limits a network once it is quantized, and what each thing you could change would gain: predicted.

    The arguments are those of `quantize`. "Before" is the same format with plain grids: no scales, n = 6 ranges.

    Returns:
        What `equint.analysis.explain.explain` says (predicted, layers, tensors, changes), and warnings about the input.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> found = explain(model_path(), target="per-tensor", input=(0, 1))
        >>> found["predicted"]["after"]["total"] > found["predicted"]["before"]["total"]
        True
    """
    from .analysis.explain import explain as analyse

    chosen, hardware = _choose(recipe, target)
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    passes = recipes.resolve(chosen, hardware, **bits)  # type: ignore[arg-type]
    original = described(source if isinstance(source, Model) else load(source), input)
    clips = Relu6("channel_clip" if hardware.channel_clip else "keep")
    reference = ActivationRanges()(clips(FoldBatchnorm()(original)))
    plain = next((p for p in passes if isinstance(p, Quantize)), None)
    if plain is None or not plain(reference).qparams:
        raise EquintError("nothing to explain: neither the recipe nor the network leaves anything to quantize")
    finer = None
    if hardware.weight.granularity == "tensor" and "granularity" not in chosen.weight:
        fine = replace(hardware, weight=replace(hardware.weight, granularity="channel", symmetric=True))
        finer = run(original, recipes.resolve(chosen, fine, **bits), progress)  # type: ignore[arg-type]
    found = analyse(reference, plain(reference), run(original, passes, progress), finer)
    return {**found, "warnings": [str(e) for e in original.log if e.warning]}


def described(model: Model, given: Input) -> Model:
    """The model with what is known of its input.

    Example:
        >>> from equint.layout import tiny_graph
        >>> described(Model(tiny_graph()), (0, 1)).moments["x"].source
        'given'
    """
    if isinstance(given, (str, os.PathLike)):
        given = read_card(given)
    if isinstance(given, Card):
        if given.range is not None:
            return inputs.describe_range(model, *given.range)
        if given.kind != "features":
            return inputs.describe_pixels(model, given.mean or (0.0,), given.std or (1.0,))
        return inputs.infer_input(model, inputs.FEATURE_REACH)
    elif given is not None:
        if len(given) != 2:
            raise EquintError(f"input range {list(given)}: give the lowest and the highest value")
        return inputs.describe_range(model, float(given[0]), float(given[1]))
    return inputs.infer_input(model)
