"""The library's front door: quantize a network, and what that is done with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from .arguments import Named, Providers, check, check_path
from .errors import InvalidOption, UnusableData
from .hardware.target import TARGETS, Target
from .ir.model import Name
from .job import Effort, Job, Options
from .planning.data import NO_SAMPLES, folded
from .planning.recipe import ActivationBits, Recipe, built_in
from .planning.run import Progress
from .result import Result, quantized
from .samples.card import Card, Input, read_card
from .samples.statistics import Statistics


def quantize(
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
    providers: Providers = None,
    force: bool = False,
) -> Result:
    """Quantize a network, from its weights alone or with a few unlabelled images.

    Args:
        source: a model from `load`, a path, an ONNX model, or a torch module (with `example_inputs`).
        recipe: name of a built-in recipe, a TOML file, or a `Recipe`; the target's best if left out.
        target: name of a built-in target, a TOML file, or a `Target`; the recipe's own if left out, onnxruntime (also
            called per-channel) if both are.
        weight_bits, activation_bits: 2 to 16; activations may also stay "float".
        input: what the network's input looks like: a card (or its path), or its lowest and highest value.
            Left out, it is inferred from the first BatchNorm.
        data: images without labels: an array (N, …) or an iterable of batches, prepared as the network wants them; a
            file or folder, prepared as the card given as `input` says; or `Statistics` measured before. For several
            inputs arrays by their names: one mapping, an iterable of mappings, or an .npz. Left out, no data are used.
        images: use only the first so many samples; without `data`, those that the card names for calibration. 0 goes
            without, even where the recipe is published with images and refuses to run without, as `one-step` does.
        example_inputs: a tensor, or a tuple of them, that a torch module runs on.
        set: inputs that become constants, such as a sampling rate, and their values.
        progress: called before each pass, and within long ones.
        effort: "full" measures a recipe's candidates, if it has any, on samples or generated ones beside the float
            network and keeps the best; "fast" runs the recipe alone, measures nothing, and rounds by kernels
            where the recipe rounds by second moments.
        fused_activations: whether the hardware applies an activation (LeakyRelu, HardSwish, …) to a layer's sums, so
            that nothing is rounded between them; the target says it if left out.
        providers: execution providers of onnxruntime that networks are measured on, the preferred first, by name; the
            CPU if left out. What they leave to the CPU is a warning (`equint.runtime.machine.LeftToCpu`).
        force: warn, and go on, where the input as described or prepared is not what the network was trained on.

    Raises:
        EquintError: anything about the network, recipe, target, data or bit widths that cannot be used; an input that
            lies far off what its BatchNorms saw in training, or off what statistics hold.

    Example:
        >>> from equint.demo import model_path
        >>> quantize(model_path(), input=(0, 1)).recipe
        'optimal'
    """
    from .runtime.machine import machine, on

    check(providers=providers)
    shown = Options(input=input, data=data, images=images, example_inputs=example_inputs)
    looks = Options(**shown, set=set, progress=progress)
    formats = Options(weight_bits=weight_bits, activation_bits=activation_bits, fused_activations=fused_activations)
    options = Options(effort=effort, force=force, **formats, **looks)
    with on(machine(providers)):
        return quantized(Job.of(source, recipe, target, **options))


def calibrate(
    source: Any,
    data: Any = None,
    *,
    input: Input = None,
    images: int | None = None,
    histograms: bool = True,
    resume: Named | None = None,
    set: Mapping[Name, Any] | None = None,
    ray: str | None = None,
    providers: Providers = None,
    progress: Callable[[int], None] | None = None,
    force: bool = False,
) -> Statistics:
    """Measure a network's tensors on images, once for many recipes: `quantize(…, data=statistics)`.

    Args:
        data, input, images, set, force: as for `quantize`.
        histograms: count all values too, for the rules `percentile` and `mse` (slower).
        resume: a file for what was measured so far; an interrupted run goes on from it.
        ray: share the work with Ray: "local", or a cluster's address (docs/fleets.md); the statistics are the same.
        providers: execution providers of onnxruntime that the network runs on, the preferred first; else the CPU.
        progress: called with the number of images done.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> calibrate(model_path(), data_path(), input=Card("gray", (0.0,), (16.0,)), images=10).images
        10
    """
    from .crew.workers import hired
    from .runtime.collect import collect
    from .runtime.machine import machine, on

    check(images=images, histograms=histograms, resume=resume, ray=ray, providers=providers, progress=progress)
    check_path("input", input)
    if images == 0:
        raise InvalidOption("images = 0 leaves nothing to measure; give 1 or more")
    input = read_card(input) if isinstance(input, (str, os.PathLike)) else input
    if data is None and isinstance(input, Card):
        data = input.data.get("calibration")
    with hired(1, ray) as crew, on(machine(providers)):
        job = Job.of(source, input=input, data=data, images=images, set=set, force=force)
        if job.samples is None:
            raise UnusableData(NO_SAMPLES)
        job.checked()
        about: dict[str, Any] = {"histograms": histograms, "resume": resume, "progress": progress, "crew": crew}
        return collect(folded(job.original).graph, job.samples, **about)


def recipes() -> tuple[Recipe, ...]:
    """The recipes that come with equint.

    Example:
        >>> [recipe.name for recipe in recipes()][:3]
        ['optimal', 'lwq', 'cwq']
    """
    return built_in()


def targets() -> tuple[Target, ...]:
    """The targets that come with equint; the first is the default.

    Example:
        >>> [target.name for target in targets()][:4]
        ['onnxruntime', 'per-tensor-symmetric', 'openvino', 'tensorrt']
    """
    return TARGETS
