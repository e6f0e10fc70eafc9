"""The library's front door: load a network, quantize it, keep the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .errors import EquintError
from .files import is_bundle
from .graph import inputs
from .graph.placement import place
from .hardware.target import TARGETS, Target
from .hardware.target import target as built_in_target
from .ir.events import Event, EventKind
from .ir.model import Model
from .passes.activation_ranges import ActivationRanges
from .passes.calibrate import Calibrate
from .passes.fold_batchnorm import FoldBatchnorm
from .passes.quantize import Quantize
from .passes.relu6 import Relu6
from .planning import recipe as recipes
from .planning.plan import Data, resolve
from .planning.run import Progress, run
from .samples.card import Card, read_card
from .samples.data import images
from .samples.images import Images
from .samples.statistics import Statistics, fingerprint, is_statistics

if TYPE_CHECKING:
    from onnx import ModelProto

    from .integers.program import Program

NPU = "npu-shift"
"""The target of integer programs, where none is named."""
Input = Card | str | os.PathLike[str] | Sequence[float] | None


@dataclass(frozen=True)
class Result:
    """A quantized network.

    Attributes:
        model: the value after the last pass; its log says what every pass did and skipped.
        original: the network as it was read.
        recipe: name of what was applied. hardware: the target it was made for.
        level: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining.
        seconds: time spent in reading and passes.
    """

    model: Model
    original: Model
    recipe: str
    hardware: Target
    level: int = 1
    seconds: float = field(compare=False, default=0.0)

    def __repr__(self) -> str:
        """One line: the network itself is in `model`, a text for people in `summary()`."""
        weights = sum(name in self.model.graph.consts for name in self.model.qparams)
        return (
            f"Result(recipe={self.recipe!r}, target={self.target!r}, level={self.level}, quantized weights={weights})"
        )

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.hardware.name

    @cached_property
    def proto(self) -> ModelProto:
        """The quantized network as a QDQ ONNX model."""
        from .onnx.qdq import export

        return export(self.model)

    @cached_property
    def program(self) -> Program:
        """The quantized network in integers alone, as an NPU executes it.

        Raises:
            EquintError: something in it has no integer form, or does not fit the target: it names the layer.
        """
        from .integers.lower import lower

        return lower(self.model, self.hardware)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the QDQ model; above 2 GB its constants go to a file beside it.

        Raises:
            EquintError: the output cannot be written.
        """
        from .onnx.writer import save_proto

        save_proto(self.proto, path)

    def to_torch(self) -> Any:
        """The quantized network as a torch module with straight-through gradients, for checking.

        Raises:
            EquintError: torch is missing (extra equint[torch]), or cannot run an operator.
        """
        from .frontends.torch import to_torch

        return to_torch(self.model)

    @property
    def warnings(self) -> tuple[Event, ...]:
        """What a user should know before trusting the result."""
        return tuple(e for e in self.model.log if e.warning)

    def facts(self) -> dict[str, Any]:
        """The result in numbers and words, ready for JSON."""
        from .pages.summary import facts

        return facts(self)

    def summary(self) -> str:
        """The result as a short text."""
        from .pages.summary import text

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


def from_torch(module: Any, example_inputs: Any) -> Model:
    """A torch module as a network whose BatchNorms, and so its moments, are kept.

    Args:
        module: a `torch.nn.Module`; traced on a copy, in inference mode, on the CPU.
        example_inputs: a tensor, or a tuple of them: their shapes matter.

    Raises:
        EquintError: torch is missing (extra equint[torch]), or the module cannot be exported: it says why.

    Example:
        >>> from_torch(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)).graph.outputs  # doctest: +SKIP
        ('output',)
    """
    from .frontends.torch import from_torch as traced

    return load(traced(module, example_inputs))


def quantize(
    source: Any,
    recipe: str | os.PathLike[str] | recipes.Recipe | None = None,
    target: str | Target | None = None,
    *,
    weight_bits: int | None = None,
    activation_bits: recipes.ActivationBits = None,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    example_inputs: Any = None,
    progress: Progress | None = None,
) -> Result:
    """Quantize a network, from its weights alone or with a few unlabelled images.

    Args:
        source: a model from `load`, a path, an ONNX model, or a torch module (with `example_inputs`).
        recipe: name of a built-in recipe, a TOML file, or a `Recipe`; the target's best if left out.
        target: what the hardware accepts; the recipe's own if left out, per-channel if both are.
        weight_bits, activation_bits: 2 to 16; activations may also stay "float".
        input: what the network's input looks like: a card (or its path), or its lowest and highest value.
            Left out, it is inferred from the first BatchNorm.
        data: images without labels: an array (N, …) or an iterable of batches, prepared as the network wants them; a
            file or folder, prepared as the card given as `input` says; or `Statistics` measured before. Left out, no
            data are used.
        images: use only the first so many samples; without `data`, those that the card names for calibration.
        example_inputs: a tensor, or a tuple of them, that a torch module runs on.
        progress: called before each pass, and within long ones.

    Raises:
        EquintError: anything about the network, recipe, target, data or bit widths that cannot be used.

    Example:
        >>> from equint.demo import model_path
        >>> quantize(model_path(), input=(0, 1)).recipe
        'optimal'
    """
    start = perf_counter()
    chosen, hardware = choose(recipe, target)
    if example_inputs is not None or hasattr(source, "named_parameters"):
        if example_inputs is None:
            raise EquintError("a torch module needs example_inputs: a tensor, or a tuple of them, that it runs on")
        source = from_torch(source, example_inputs)
    original = source if isinstance(source, Model) else load(source)
    given = looked_at(original, data, input, images)
    passes = resolve(chosen, hardware, weight_bits, activation_bits, given)
    ready = described(original, input)
    if given is not None:  # the input is measured: that its range had to be guessed is no warning any more
        log = tuple(replace(e, warning=False) if e.kind is EventKind.INPUT_ASSUMED else e for e in ready.log)
        ready = replace(ready, log=log)
    model = run(ready, passes, progress)
    if not model.qparams:
        raise EquintError("nothing to quantize: the network has no convolution or matrix product with constant weights")
    level = chosen.level if given is None else max(chosen.level, 2)
    return Result(model, original, chosen.name, hardware, level, perf_counter() - start)


def program(source: Any, recipe: Any = None, target: str | Target | None = None, **given: Any) -> Program:
    """A network in integers alone: read from a bundle, or quantized as by `quantize` and lowered.

    Args:
        source: a bundle (its .json or .safetensors file), or what `quantize` takes.
        recipe, target, given: for `quantize`; the target is npu-shift where none is given.

    Raises:
        EquintError: as `quantize`, `equint.npu.bundle.load_bundle` and `equint.integers.lower.lower`.

    Example:
        >>> from equint.demo import model_path
        >>> program(model_path(), "wes", input=(0, 1)).target
        'npu-shift'
    """
    if is_bundle(source):
        from .npu.bundle import load_bundle

        if recipe is not None or target is not None or any(v is not None for v in given.values()):
            raise EquintError(f"{source}: a bundle is quantized already; leave recipe, target, input and data out")
        return load_bundle(source)
    return quantize(source, recipe, target or NPU, **given).program


def choose(
    recipe: str | os.PathLike[str] | recipes.Recipe | None, target: str | Target | None
) -> tuple[recipes.Recipe, Target]:
    """The recipe and the target to use, where one of them may be left out.

    Raises:
        EquintError: there is none of that name.

    Example:
        >>> [v.name for v in choose(None, "npu-shift")]
        ['wes-optimal', 'npu-shift']
    """
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
    from .study.inspect import inspect as look

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
    data: Any = None,
    images: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What limits a network once it is quantized, and what each thing you could change would gain: predicted.

    The arguments are those of `quantize`. "Before" is the same format with plain grids: no scales, n = 6 ranges.

    Returns:
        What `equint.study.explain.explain` says (predicted, layers, tensors, changes), and warnings about the input.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> found = explain(model_path(), target="per-tensor", input=(0, 1))
        >>> found["predicted"]["after"]["total"] > found["predicted"]["before"]["total"]
        True
    """
    from .study.explain import explain as analyse

    chosen, hardware = choose(recipe, target)
    original = source if isinstance(source, Model) else load(source)
    given = looked_at(original, data, input, images)
    bits: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": activation_bits, "data": given}
    passes = resolve(chosen, hardware, **bits)
    original = described(original, input)
    reference = _reference(original, hardware, given)
    plain = next((p for p in passes if isinstance(p, Quantize)), None)
    if plain is None or not plain(reference).qparams:
        raise EquintError("nothing to explain: neither the recipe nor the network leaves anything to quantize")
    finer = None
    if hardware.weight.granularity == "tensor" and "granularity" not in chosen.weight:
        fine = replace(hardware, weight=replace(hardware.weight, granularity="channel", symmetric=True))
        finer = run(original, resolve(chosen, fine, **bits), progress)
    found = analyse(reference, plain(reference), run(original, passes, progress), finer)
    return {**found, "warnings": [str(e) for e in original.log if e.warning]}


def looked_at(model: Model, data: Any, input: Input, limit: int | None = None) -> Data | None:
    """The data that a user named, ready for recipes; None where there are none.

    Raises:
        EquintError: a file or folder that is not there or needs a card, or statistics of another network.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> looked_at(Model(tiny_graph()), None, None) is None
        True
    """
    card = read_card(input) if isinstance(input, (str, os.PathLike)) else input if isinstance(input, Card) else None
    if data is None and limit is not None:
        data = None if card is None else card.data.get("calibration")
        if data is None:
            raise EquintError("no images to look at: give data, or a card with calibration in [data]")
    if data is None:
        return None
    if isinstance(data, (str, os.PathLike)):
        data = _stored(data, card)
    if limit is not None and not isinstance(limit, int):
        raise EquintError(f"images = {limit!r}: give how many")
    if isinstance(data, Statistics):
        if limit is not None:
            raise EquintError("statistics are of all images that were measured; leave the number of images out")
        check_statistics(model, data, "the statistics")
        return Data(statistics=data, teacher=model.graph)
    shown = Images.of(data)
    return Data(images=shown if limit is None else shown.first(limit), teacher=model.graph)


def check_statistics(model: Model, statistics: Statistics, label: str) -> None:
    """Refuse statistics that were not measured on this network.

    Raises:
        EquintError: naming them by `label`.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> check_statistics(Model(tiny_graph()), Statistics({}, 1, fingerprint(tiny_graph())), "these")
    """
    if statistics.network != fingerprint(FoldBatchnorm()(model).graph):
        raise EquintError(f"{label}: of another network; calibrate this one")


def _stored(path: str | os.PathLike[str], card: Card | None) -> Statistics | Images:
    """What a file or folder holds: statistics, or images."""
    if is_statistics(path):
        return Statistics.load(path)
    if card is None and os.path.isdir(path):
        raise EquintError(f"{os.fspath(path)}: a folder of pictures needs a card that says how they are prepared")
    return images(path, card or Card())


def calibrate(
    source: Model | str | os.PathLike[str] | ModelProto,
    data: Any,
    *,
    input: Input = None,
    images: int | None = None,
    histograms: bool = True,
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Measure a network's tensors on images, once for many recipes: `quantize(…, data=statistics)`.

    Args:
        data, input, images: as for `quantize`.
        histograms: count all values too, for the rules `percentile` and `mse` (slower).
        resume: a file for what was measured so far; an interrupted run goes on from it.
        progress: called with the number of images done.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> calibrate(model_path(), data_path(), input=Card("gray", (0.0,), (16.0,)), images=10).images
        10
    """
    from .runtime.collect import collect

    model = source if isinstance(source, Model) else load(source)
    given = looked_at(model, data, input, images)
    if given is None or given.images is None:
        raise EquintError("no images to look at: give data, or a card with calibration in [data]")
    graph = FoldBatchnorm()(model).graph
    return collect(graph, given.images, histograms=histograms, resume=resume, progress=progress)


def report(
    result: Result,
    *,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    measured: Mapping[str, Any] | None = None,
    name: str = "",
) -> str:
    """A page about a quantized network, as one HTML file: verdict, layers, ranges, noise, sizes, and what was done.

    Args:
        input, data, images: as they were given to `quantize`; on images the noise of every layer is measured too.
        measured: what `equint.scoring.metrics.evaluate` found, the float network's figures with "float_" before them.
        name: the network's.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> report(quantize(model_path(), input=(0, 1)), input=(0, 1)).splitlines()[0]
        '<!doctype html>'
    """
    from .pages.contents import contents, formats
    from .pages.page import page

    given = looked_at(result.original, data, input, images)
    weight, activation = formats(result.model)
    reference = _reference(described(result.original, input), result.hardware, given)
    plain = Quantize(weight, activation, result.hardware.bias_bits)(reference)
    shown = given.images if given else None
    about: dict[str, Any] = {"name": name, "measured": measured, "images": shown}
    return page(contents(plain, result.model, result.recipe, result.hardware, result.level, **about))


def _reference(original: Model, hardware: Target, given: Data | None) -> Model:
    """The float network with its BatchNorms folded, and moments and ranges of every tensor.

    What stands in front of activations is not measured, only inferred from them. BatchNorm knows its power better,
    which is the signal that predicted noise is compared with.
    """
    folded = Relu6("channel_clip" if hardware.channel_clip else "keep")(FoldBatchnorm()(original))
    seen = Calibrate(images=given.images, statistics=given.statistics)(folded) if given else Calibrate()(folded)
    merged = place(folded.graph).merged
    known = {n: m for n, m in folded.moments.items() if n in merged and m.source == "batchnorm"}
    return ActivationRanges()(replace(seen, moments={**seen.moments, **known}))


def described(model: Model, given: Input) -> Model:
    """The model with what is known of its input.

    Example:
        >>> from equint.ir.weights import tiny_graph
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
        if not isinstance(given, Sequence) or len(given) != 2 or not all(isinstance(v, Real) for v in given):
            raise EquintError(f"input = {given!r}: give a card, its path, or the lowest and the highest value")
        return inputs.describe_range(model, float(given[0]), float(given[1]))
    return inputs.infer_input(model)


def sqnr(
    source: Model | str | os.PathLike[str] | ModelProto,
    target: str | Target | None = None,
    *,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Every layer's own quantization noise, without equalization and with one-step, two-step and optimal scales.

    Predicted from moments; with images also measured on them, and moments and ranges are theirs. How far each layer's
    weights and input are from optimal equalization is the distance of figure 5 of Meller et al. (2019).

    Args:
        target, input, data, images: as for `quantize`; `Statistics` tell moments and ranges, but nothing is measured.

    Returns:
        What `equint.study.sqnr.sqnr` says (target, images, methods), and warnings about the input.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> found = sqnr(model_path(), "per-tensor", input=(0, 1))
        >>> found["methods"]["none"]["layers"][0]["predicted"]["weights"] > 30
        True
    """
    from .study.sqnr import sqnr as analyse

    hardware = target if isinstance(target, Target) else built_in_target(target or TARGETS[0].name)
    original = source if isinstance(source, Model) else load(source)
    given = looked_at(original, data, input, images)
    original = described(original, input)
    reference = _reference(original, hardware, given)
    found = analyse(reference, hardware, given.images if given else None, progress)
    if not found["methods"]["none"]["layers"]:
        raise EquintError("nothing to analyse: the network has no convolution or matrix product with constant weights")
    return {**found, "warnings": [str(e) for e in original.log if e.warning]}
