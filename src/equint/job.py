"""One prologue for all commands: a network, how it is to be quantized, and what is known of its input."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from time import perf_counter
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, get_args

from .errors import InvalidOption, InvalidRecipe, InvalidTarget, UnsupportedOperator
from .frontends.sources import from_torch, load, present
from .graph.overrides import Override
from .graph.placement import kept_float, place
from .hardware.target import TARGETS, Target, is_built_in
from .hardware.target import target as built_in_target
from .ir.events import Event, EventKind
from .ir.model import Graph, Model, Name
from .ops.listed import is_named
from .ops.work import is_recurrent
from .passes import Pass
from .passes.activation_ranges import ActivationRanges
from .passes.quantize import Quantize
from .planning.data import folded, looked_at, sized
from .planning.plan import Data, check_images, resolve
from .planning.recipe import ActivationBits, Recipe, looks, quick, variants, without_images
from .planning.recipe import recipe as built_in_recipe
from .planning.run import Progress, run
from .planning.spared import spare
from .planning.summary import log_facts, network_facts, text
from .planning.variants import quantizer, rewrites, unscaled
from .samples.card import Card, Input, described, laid_out, read_card
from .samples.images import Samples

if TYPE_CHECKING:
    from .integers.program import Program
    from .onnx.writer import ModelProto

Named = str | os.PathLike[str]
_FILES = (str, os.PathLike)
Effort = Literal["full", "fast"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""Whether a recipe's candidates are tried and measured, or the recipe is run alone, in its quick form."""
NO_LAYERS = "the network has no convolution or matrix product with constant weights"


class Options(TypedDict, total=False):
    """How to quantize and what to look at, as `equint.quantize` describes it."""

    weight_bits: int | None
    activation_bits: ActivationBits
    input: Input
    data: Any
    images: int | None
    example_inputs: Any
    set: Mapping[Name, Any] | None
    progress: Progress | None
    effort: Effort
    fused_activations: bool | None


@dataclass(frozen=True)
class Job:
    """A network and all that was said about quantizing it.

    Attributes:
        original: the network as it was read; network: the same, with what is known of its input.
        weight_bits, activation_bits: where they differ from the recipe's.
        data: what recipes may look at beside the weights, if anything.
        effort: "fast" runs the recipe alone and rounds by kernels, "full" measures its candidates and keeps the best.
        seconds: time spent in reading.
        given: the files that were read, by what they are: outputs spare them.
    """

    original: Model
    network: Model
    recipe: Recipe
    target: Target
    weight_bits: int | None = None
    activation_bits: ActivationBits = None
    data: Data | None = None
    progress: Progress | None = field(compare=False, default=None)
    effort: Effort = "full"
    seconds: float = field(compare=False, default=0.0)
    given: Mapping[str, Any] = field(compare=False, default_factory=dict)

    @classmethod
    def of(
        cls,
        source: Any,
        recipe: Named | Recipe | None = None,
        target: Named | Target | None = None,
        *,
        weight_bits: int | None = None,
        activation_bits: ActivationBits = None,
        input: Input = None,
        data: Any = None,
        images: int | None = None,
        example_inputs: Any = None,
        set: Mapping[Name, Any] | None = None,
        progress: Progress | None = None,
        effort: Effort = "full",
        fused_activations: bool | None = None,
    ) -> Self:
        """Read what the arguments of `equint.quantize` name: network, recipe, target, card and data, each once.

        Raises:
            EquintError: as `equint.quantize`.

        Example:
            >>> from equint.demo import model_path
            >>> job = Job.of(model_path(), target="npu-shift")
            >>> job.recipe.name, job.data
            ('wes-optimal', None)
        """
        check(weight_bits=weight_bits, images=images, recipe=recipe, target=target, set=set, progress=progress)
        if effort not in EFFORTS:
            raise InvalidOption(f"effort = {effort!r}: choose {' or '.join(EFFORTS)}")
        check(activation_bits=None if activation_bits == "float" else activation_bits)
        if not isinstance(fused_activations, bool | None):
            raise InvalidOption(f"fused_activations = {fused_activations!r}: give True or False")
        start, given = perf_counter(), {"recipe": recipe, "target": target, "card": input, "data": data}
        chosen, on = choose(recipe, target)
        if fused_activations is not None:
            on = replace(on, fused_activations=fused_activations)
        if images == 0:
            if data is not None:
                raise InvalidOption("images = 0 and data contradict each other; leave one of them out")
            chosen, images = without_images(chosen), None
        torch = example_inputs is not None or hasattr(source, "named_parameters")
        original = from_torch(source, example_inputs) if torch else load(source)
        if set:
            from .onnx.reader import with_constants

            original = with_constants(original, set)
        if isinstance(input, (str, os.PathLike)):
            input = read_card(input)
        if isinstance(input, Card):
            input = laid_out(input, [original.graph.shapes.get(name) for name in original.graph.inputs])
        original, seen = looked_at(original, data, input if isinstance(input, Card) else None, images)
        network = described(original, input)
        if seen is not None:  # the input is measured: its range need not be guessed
            guessed = EventKind.INPUT_ASSUMED, EventKind.NUMBER_ASSUMED, EventKind.LENGTHS_ASSUMED
            network = replace(network, log=tuple(e for e in network.log if e.kind not in guessed))
        only = on.integers_only and not is_recurrent(network.graph)  # which no program holds, however it is quantized
        keys = ("integer_clamps", "integer_biases", "operators", "float_layers", "fixed")
        said = {key: getattr(on, key) for key in keys}
        graph = replace(network.graph, fuses=on.fused_activations, integers_only=only, tied=on.ties, **said)
        network = replace(network, graph=graph).noted(*_named_nothing(graph))
        bits = (weight_bits, activation_bits)
        given = {"model": original.source, **{k: v for k, v in given.items() if isinstance(v, (*_FILES, Card))}}
        return cls(original, network, chosen, on, *bits, seen, progress, effort, perf_counter() - start, given)

    @property
    def samples(self) -> Samples | None:
        """What the network can be shown."""
        return None if self.data is None else self.data.images

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes results doubtful before anything is quantized."""
        return tuple(str(e) for e in self.network.log if e.warning)

    @property
    def spelled(self) -> Recipe:
        """The recipe with this job's target and bit widths written into it."""
        weight, activation, overrides = self.recipe.weight, self.recipe.activation, self.recipe.overrides
        if self.weight_bits is not None:
            weight = {**weight, "bits": self.weight_bits}
        if isinstance(self.activation_bits, int):
            activation = {**activation, "bits": self.activation_bits}
        elif self.activation_bits == "float":
            overrides = (*overrides, Override(tensors=("*",), float=True))
        return replace(self.recipe, target=self.target.name, weight=weight, activation=activation, overrides=overrides)

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The recipe, ready to run: in its quick form where that is asked for."""
        if self.effort == "fast" and looks(self.recipe):
            return self._part(quick(self.recipe))
        seen = self._seen if self.data is None and looks(self.recipe) else self.data
        return resolve(self.recipe, self.target, self.weight_bits, self.activation_bits, seen)

    @cached_property
    def _seen(self) -> Data:
        """What passes may look at: the float network, too, where there is nothing else."""
        return self.data or Data(teacher=folded(self.network).graph)

    def _part(self, chosen: Recipe) -> tuple[Pass, ...]:
        """Part of the recipe; it may look at less."""
        seen = self._seen if looks(chosen) else None
        return resolve(chosen, self.target, self.weight_bits, self.activation_bits, seen)

    def run(self) -> Model:
        """The network after all passes."""
        check_images(self.recipe, self.data)
        return run(self.network, self.passes, self.progress)

    def searched(self) -> Model:
        """The network after the passes of the best of the recipe's candidates, measured; of the recipe where fast."""
        if self.effort == "full" and not self.recipe.candidates:
            return self.run()
        from .planning.fusing import priced
        from .planning.search import measured, search

        if self.effort == "fast":
            return measured(self.network, self.run(), self.samples)
        check_images(self.recipe, self.data)

        def plans(images: Samples | None) -> Mapping[str, Sequence[Pass]]:
            part = self if self.data is None else replace(self, data=replace(self.data, images=images))
            return {chosen.name: part._part(chosen) for chosen in variants(self.recipe)}

        return priced(self.network, search(self.network, plans, self.samples, self.progress), self.samples)

    def quantized(self) -> Result:
        """The network, quantized.

        Raises:
            EquintError: nothing in it can be.
        """
        start = perf_counter()
        model = self.searched()
        if not model.qparams:
            left = f"target {self.target.name} computes none of its layers on integers (operators, float_layers)"
            kept = any(True for _ in kept_float(self.network.graph))
            raise UnsupportedOperator(f"nothing to quantize: {left if kept else NO_LAYERS}")
        return Result(self, model, self.seconds + perf_counter() - start)

    def rewritten(self) -> Model:
        """The network as its recipe rewrites it before anything is measured or scaled."""
        return run(self.network, self._part(rewrites(self.recipe)))

    def rehearse(self) -> None:
        """Refuse what LiteRT has no form for, before work is spent on it.

        Raises:
            EquintError: naming the target, or the node.
        """
        from .litert.saving import check_target
        from .planning.rehearsal import rehearse

        check_target(self.target)
        rehearse(sized(self.rewritten(), self.samples), self.target)

    def reference(self) -> Model:
        """The float network that noise is compared with: the recipe's own, but nothing is rescaled.

        What stands in front of activations is not measured, only inferred from them. BatchNorm knows its power
        better, which is the signal that predicted noise is compared with.
        """
        steps = self._part(unscaled(self.recipe))
        at = next(k for k, step in enumerate(steps) if isinstance(step, ActivationRanges))
        seen = run(self.network, steps[:at])
        clamped = place(seen.graph).clamped
        known = {n: m for n, m in self.rewritten().moments.items() if n in clamped and m.origin == "batchnorm"}
        return run(replace(seen, moments={**seen.moments, **known}), steps[at:])

    def plain(self) -> tuple[Model, Model]:
        """`reference`, and the same with the recipe's grids.

        Raises:
            EquintError: neither the recipe nor the network leaves anything to quantize.
        """
        reference = self.reference()
        grids = next((step for step in self.passes if isinstance(step, Quantize)), None)
        before = reference if grids is None else grids(reference)
        if not before.qparams:
            raise InvalidRecipe("nothing to explain: neither the recipe nor the network leaves anything to quantize")
        return reference, before

    def quantizer(self) -> Callable[[Recipe], Model]:
        """What variants of the recipe make of the network; what they have in common is done once."""
        return quantizer(self.network, self.target, self.data)


@dataclass(frozen=True)
class Result:
    """A quantized network.

    Attributes:
        job: the network as it was read, the recipe and the target.
        model: after the last pass; its log says what every pass did and skipped.
        seconds: time spent in reading and passes.
    """

    job: Job
    model: Model
    seconds: float = field(compare=False, default=0.0)

    def __repr__(self) -> str:
        weights = sum(name in self.model.graph.consts for name in self.model.qparams)
        made = f"recipe={self.recipe!r}, target={self.target!r}, level={self.level}"
        return f"Result({made}, quantized weights={weights})"

    @property
    def original(self) -> Model:
        return self.job.original

    @property
    def recipe(self) -> str:
        return self.job.recipe.name

    @property
    def hardware(self) -> Target:
        """The target it was made for."""
        return self.job.target

    @property
    def target(self) -> str:
        return self.job.target.name

    @property
    def level(self) -> int:
        """1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining."""
        level = self.job.recipe.level
        if self.job.data is None:
            return 1 if level == 2 else level
        return max(level, 2)

    @cached_property
    def proto(self) -> ModelProto:
        """The quantized network as a QDQ ONNX model; its metadata name recipe and target."""
        from .onnx.qdq import export

        own = {} if is_built_in(self.hardware) else {"target.own": "true"}
        return export(self.model, {"recipe": self.recipe, "target": self.target, **own})

    @cached_property
    def program(self) -> Program:
        """The quantized network in integers alone, as an NPU executes it.

        Where its inputs' size is free, it is that of the first sample it was calibrated on.

        Raises:
            EquintError: something in it has no integer form, or does not fit the target: it names the layer.
        """
        from .integers.lower import lower

        return lower(sized(self.model, self.job.samples), self.hardware)

    def save(
        self,
        path: Named,
        format: Literal["qdq", "tflite", "onnx-float", "encodings"] | None = None,
        io: str | None = None,
    ) -> None:
        """Write the QDQ model, a .tflite file, or the float network and its grids.

        Constants above 2 GB go to a file beside ONNX; a .tflite file holds no more.

        Args:
            format: left out, the name's ending says it: .tflite, or else QDQ.
            io: of a .tflite file, the type of inputs and outputs: int8, uint8 or float.

        Raises:
            EquintError: the output cannot be written, would overwrite what this was made of (the network and its
                external data, card, data, recipe or target), or holds something that LiteRT has no operator for.
        """
        from .litert.saving import check_target, io_of, is_tflite
        from .litert.saving import save as save_tflite
        from .onnx.encodings import float_files, save_float
        from .onnx.writer import beside, save_proto

        check(path=path)
        format = format or ("tflite" if is_tflite(path) else "qdq")
        if io is not None and format != "tflite":
            raise InvalidOption(f"io = {io!r}: only .tflite files have other inputs and outputs; leave it out")
        if format == "tflite":
            check_target(self.hardware)
            self.spare((path,))
            about = {"recipe": self.recipe, "target": self.target, "level": self.level}
            save_tflite(self.program, path, io_of(io), about, self.hardware.litert_operators)
            return
        self.spare((path, beside(path)) if format == "qdq" else float_files(path, format))
        if format == "qdq":
            save_proto(self.proto, path)
        else:
            save_float(self.model, path, format, {"recipe": self.recipe, "target": self.target})

    def spare(self, outputs: Collection[Named]) -> None:
        """Refuse outputs that would overwrite what this was made of, or cannot be written.

        Raises:
            OutputRefused: naming the output, and what would be lost.
        """
        spare(outputs, self.job.given)

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
        about = {"recipe": self.recipe, "target": self.target, "level": self.level, **network_facts(self.model)}
        return {**about, "seconds": round(self.seconds, 3), **log_facts(self.model)}

    def summary(self) -> str:
        """The result as a short text.

        Example:
            >>> import equint
            >>> from equint.demo import model_path
            >>> print(equint.quantize(model_path(), input=(0, 1)).summary().splitlines()[0])
            recipe optimal (level 1) for target per-channel
        """
        return text(self.facts(), self.model)


def _named_nothing(graph: Graph) -> list[Event]:
    """A warning of what the target keeps float and the network has not: one board's file serves many networks."""
    lost = [p for p in graph.float_layers if not any(is_named(node.label, (p,)) for node in graph.nodes)]
    return [Event(EventKind.NAMES_NOTHING, ", ".join(lost), {}, "target", warning=True)] if lost else []


def choose(recipe: Named | Recipe | None, target: Named | Target | None) -> tuple[Recipe, Target]:
    """The recipe and the target to use, where one of them may be left out.

    Raises:
        UnknownName: there is none of that name.

    Example:
        >>> [v.name for v in choose(None, "npu-shift")]
        ['wes-optimal', 'npu-shift']
    """
    on = None if target is None else built_in_target(target)
    if recipe is None and on is not None:
        try:
            recipe = built_in_recipe(on.recipe)
        except InvalidRecipe as error:
            label = on.name if isinstance(target, Target) else target
            raise InvalidTarget(f"{label}: recipe = {on.recipe!r} cannot be used ({error})") from error
    chosen = built_in_recipe(recipe if recipe is not None else TARGETS[0].recipe)
    return chosen, on or built_in_target(chosen.target)


_NETWORK = ("a path, an ONNX model, or what load or quantize gave", str, os.PathLike)
_PATH, _BITS, _COUNT = ("a path", str, os.PathLike), ("a whole number from 2 to 16", int), ("how many", int)
_KINDS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("source", "original", "quantized", "against"), _NETWORK),
    **dict.fromkeys(("path", "folder", "dump", "cache"), _PATH),
    **dict.fromkeys(("golden", "resume", "data"), (*_PATH, NoneType)),
    **dict.fromkeys(("weight_bits", "activation_bits"), (*_BITS, NoneType)),
    **dict.fromkeys(("images", "limit"), (*_COUNT, NoneType)),
    **dict.fromkeys(("max_drop", "sparsity"), ("a number", Real)),
    "jobs": _COUNT,
    "name": ("a name", str),
    "recipe": ("a recipe, its name or its TOML file", str, os.PathLike, Recipe, NoneType),
    "target": ("a target, its name or its TOML file", str, os.PathLike, Target, NoneType),
    "card": ("a card or its path", str, os.PathLike, Card, NoneType),
    "set": ("numbers or arrays by the names of inputs", Mapping, NoneType),
    "progress": ("a function of a name, a number and how many there are", Callable, NoneType),
    "result": ("what quantize gave", Result),
}
"""What arguments of public functions are, in words and in types."""


def check(**arguments: object) -> None:
    """Refuse arguments of a wrong type; True and False are no numbers.

    Raises:
        InvalidOption: naming the argument.

    Example:
        >>> check(images=3, weight_bits=8.5)
        Traceback (most recent call last):
        equint.errors.InvalidOption: weight_bits = 8.5: give a whole number from 2 to 16
    """
    for name, value in arguments.items():
        wanted, *kinds = _KINDS[name]
        if not isinstance(value, tuple(kinds)) or isinstance(value, bool):
            shown = repr(value)
            shown = f"a {type(value).__name__}" if len(shown) > 60 or "\n" in shown else shown
            raise InvalidOption(f"{name} = {shown}: give {wanted}")


def runnable(argument: str, source: Any) -> Any:
    """A network that onnxruntime or the integer engine can run: a path, an ONNX model, or a program.

    Args:
        argument: what messages call it; source: one of those, a `Model` from `load`, or a `Result`.

    Raises:
        EquintError: it is nothing of the kind, or not there.
    """
    if isinstance(source, Result):
        return source.proto
    if isinstance(source, Model):
        from .onnx.qdq import export
        from .onnx.writer import to_proto

        return export(source) if source.qparams else to_proto(source.graph)
    from .integers.program import Program

    if hasattr(source, "SerializeToString") or isinstance(source, Program):
        return source
    check(**{argument: source})
    present(source)
    return source
