"""One prologue for all commands: a network, how it is to be quantized, and what is known of its input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, get_args

from .arguments import Named, check, check_path, choose
from .errors import InvalidOption, InvalidRecipe, UnsupportedOperator, meant
from .frontends.sources import from_torch, load
from .graph.overrides import Override
from .graph.placement import place
from .hardware.target import Target
from .ir.events import Event, EventKind
from .ir.model import Graph, Model, Name
from .ops.listed import is_named
from .ops.work import is_recurrent
from .passes import Pass
from .passes.activation_ranges import ActivationRanges
from .passes.quantize import Quantize
from .planning.data import folded, looked_at, single, sized
from .planning.plan import Data, check_images, resolve
from .planning.recipe import ActivationBits, Recipe, looks, quick, variants, without_images
from .planning.run import Progress, run
from .planning.variants import quantizer, rewrites, unscaled
from .samples.card import Card, Input, described, laid_out, read_card
from .samples.images import Samples

if TYPE_CHECKING:
    pass

_FILES = (str, os.PathLike)
Effort = Literal["full", "fast"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""Whether a recipe's candidates are tried and measured, or the recipe is run alone, in its quick form."""
MEASURES = "equint evaluate --against the float network, or equint compare, measures it"
"""What to do where `quantize` does not."""
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
    force: bool


@dataclass(frozen=True)
class Job:
    """A network and all that was said about quantizing it.

    Attributes:
        original: the network as it was read; network: the same, with what is known of its input.
        weight_bits, activation_bits: where they differ from the recipe's.
        data: what recipes may look at beside the weights, if anything.
        effort: "fast" runs the recipe alone and rounds by kernels, "full" measures its candidates and keeps the best.
        seconds: time spent in reading.
        force: whether to go on where what was said of the input is contradicted; always where nothing was.
        given: the files that were read, by what they are: outputs spare them.
        card: how the input is made, where a card said so.
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
    force: bool = field(compare=False, default=False)
    card: Card | None = field(compare=False, default=None)

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
        force: bool = False,
        **unknown: Any,
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
        for name in unknown:
            raise InvalidOption(f"{name}: no such argument; {meant(name, Options.__annotations__)}")
        check(weight_bits=weight_bits, images=images, recipe=recipe, target=target, set=set, progress=progress)
        check(effort=effort, fused_activations=fused_activations, force=force)
        if effort not in EFFORTS:
            raise InvalidOption(f"effort = {effort!r}: choose {' or '.join(EFFORTS)}")
        is_float = isinstance(activation_bits, str) and activation_bits == "float"
        check(activation_bits=None if is_float else activation_bits)
        for name, value in (("source", source), ("input", input), ("data", data)):
            check_path(name, value)
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
        card = input if isinstance(input, Card) else None
        original, seen = looked_at(original, data, card, images)
        network = described(original, _seen_input(original, seen) if input is None else input)
        if seen is not None:  # the input is measured: its range need not be guessed
            guessed = EventKind.INPUT_ASSUMED, EventKind.NUMBER_ASSUMED, EventKind.LENGTHS_ASSUMED
            network = replace(network, log=tuple(e for e in network.log if e.kind not in guessed))
        network = _for_hardware(network, on)
        bits = (weight_bits, activation_bits)
        given = {"model": original.source, **{k: v for k, v in given.items() if isinstance(v, (*_FILES, Card))}}
        assumed = input is None or (card is not None and card.range is None)
        force = force or (data is None and assumed)  # a range that nobody gave is a guess
        seconds = perf_counter() - start
        return cls(original, network, chosen, on, *bits, seen, progress, effort, seconds, given, force, card)

    def checked(self) -> Self:
        """The job, with a warning in its log where the input is not what the network was trained on.

        Raises:
            UnusableData: it lies too far off, and nobody said to go on.
        """
        from .planning.contradicted import contradictions

        return replace(self, network=self.network.noted(*contradictions(self.network, self.data, self.force)))

    @property
    def samples(self) -> Samples | None:
        """What the network can be shown."""
        return None if self.data is None else self.data.images

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes results doubtful before anything is quantized."""
        return tuple(e.sentence for e in self.network.log if e.warning)

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
            why = f"the recipe names no candidates to choose among; {MEASURES}"
            return self.run().noted(Event(EventKind.NOTHING_MEASURED, "", {"why": why}, "search"))
        from .planning.fusing import priced
        from .planning.search import measured, search

        check_images(self.recipe, self.data)
        if self.effort == "fast":
            return measured(self.network, self.passes, self.samples, self.progress)

        def plans(images: Samples | None) -> Mapping[str, Sequence[Pass]]:
            part = self if self.data is None else replace(self, data=replace(self.data, images=images))
            return {chosen.name: part._part(chosen) for chosen in variants(self.recipe)}

        return priced(self.network, search(self.network, plans, self.samples, self.progress), self.samples)

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
        model = sized(self.rewritten(), self.samples)
        with self.naming_file():
            rehearse(single(model, self.samples) if self.target.mixes else model, self.target)

    @contextmanager
    def naming_file(self) -> Iterator[None]:
        """What has no form names the file that it is in, where the network was read from one."""
        try:
            yield
        except UnsupportedOperator as error:
            if not self.original.source:
                raise
            raise UnsupportedOperator(f"{self.original.source}: {error}") from error

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
        """`reference`, and the same with the recipe's grids; made once.

        Raises:
            EquintError: neither the recipe nor the network leaves anything to quantize.
        """
        return self._plain

    @cached_property
    def _plain(self) -> tuple[Model, Model]:
        reference = self.reference()
        grids = next((step for step in self.passes if isinstance(step, Quantize)), None)
        before = reference if grids is None else grids(reference)
        if not before.qparams:
            raise InvalidRecipe("nothing to explain: neither the recipe nor the network leaves anything to quantize")
        return reference, before

    def quantizer(self) -> Callable[[Recipe], Model]:
        """What variants of the recipe make of the network; what they have in common is done once."""
        return quantizer(self.network, self.target, self.data)


def _seen_input(original: Model, seen: Data | None) -> Input:
    """How far statistics say that the only input reaches; None where there are none, or several inputs."""
    name = original.graph.inputs[0]
    if seen is None or seen.statistics is None or len(original.graph.inputs) > 1:
        return None
    found = seen.statistics.tensors.get(name)
    low, high = (0.0, 0.0) if found is None else (float(found.low.min()), float(found.high.max()))
    return (low, high) if low < high else None


def _for_hardware(network: Model, on: Target) -> Model:
    """The network with what placement must know of the hardware that it is for."""
    only = on.integers_only and not is_recurrent(network.graph)  # which no program holds, however it is quantized
    keys = ("integer_clamps", "integer_biases", "operators", "float_layers", "fixed")
    said = {key: getattr(on, key) for key in keys}
    graph = replace(network.graph, fuses=on.fused_activations, integers_only=only, tied=on.ties, **said)
    return replace(network, graph=graph).noted(*_named_nothing(graph))


def _named_nothing(graph: Graph) -> list[Event]:
    """A warning of what the target keeps float and the network has not: one board's file serves many networks."""
    lost = [p for p in graph.float_layers if not any(is_named(node.label, (p,)) for node in graph.nodes)]
    return [Event(EventKind.NAMES_NOTHING, ", ".join(lost), {}, "target", warning=True)] if lost else []
