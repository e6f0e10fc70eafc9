"""What looks at one network, before it is quantized or after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from .arguments import Named, check, refused
from .comparisons import Evaluation
from .errors import InvalidOption, TargetMismatch, UnknownName, UnsupportedOperator, UnusableData
from .files import is_bundle, readable
from .hardware.target import TARGETS, Target
from .hardware.target import target as built_in_target
from .ir.model import Array, Model, Name
from .job import NO_LAYERS, Job, Options
from .planning.recipe import Recipe
from .planning.run import Progress
from .result import Result, runnable
from .samples.card import Input
from .samples.images import Samples

MADE_UP = 8
"""Made-up samples on which a page measures layers, where there are no others."""

if TYPE_CHECKING:
    from .hardware.lint import Findings
    from .study.diagnose import Diagnosis, Quantizer
    from .study.explain import Explanation
    from .study.inspect import Inspection
    from .study.mixed import Mixed
    from .study.sqnr import LayerSqnr


def inspect(source: Any, target: Named | Target | None = None, *, input: Input = None) -> Inspection:
    """What a network offers to quantization for a target: layers, free channel scales, and what pins the others.

    Example:
        >>> from equint.demo import model_path
        >>> sorted(inspect(model_path(), "per-tensor-clip"))
        ['borders', 'events', 'groups', 'layers', 'pinned']
    """
    from .study.inspect import inspect as look

    return look(Job.of(source, None, target, input=input).rewritten())


def lint(source: Any, target: Named | Target | None = None) -> Findings:
    """What a target's hardware refuses of a quantized network, computes in float, or computes wrongly.

    Args:
        source: an ONNX file or model, or a .tflite file, of any tool; a `Model`, or a `Result`.
        target: whom it is for; if left out that of a result, or the one that a file of equint names; for files that
            name none onnxruntime, of .tflite files tflite-int8, or tflite-uint8 where they are of uint8.

    Returns:
        Its `findings` name node, rule, source and what to do; `clean` where none of them is an error. Operators of a
        .tflite file are named by number, kind and first result: `#3 CONV_2D conv1`.

    Raises:
        EquintError: a file that cannot be read, or in which nothing is quantized, or that names a target that is no
            built-in one; a .tflite file and a target that takes none.

    Example:
        >>> from equint import quantize
        >>> from equint.demo import model_path
        >>> result = quantize(model_path(), "lwq", "per-tensor", input=(0, 1))
        >>> lint(result).clean, lint(result, "openvino").findings[0].rule
        (True, 'weight-zero-point')
    """
    from .hardware.lint import Machine
    from .hardware.lint import lint as judge
    from .onnx.description import describe
    from .onnx.reader import load_proto
    from .tflite.reader import is_tflite

    if target is None and isinstance(source, Result):
        target = source.hardware
    check(target=target)
    asked, network = None if target is None else built_in_target(target), runnable("source", source)
    named = isinstance(network, (str, os.PathLike))
    label = os.fspath(network) if named else "source"
    if is_bundle(network) or not (named or hasattr(network, "SerializeToString")):
        raise InvalidOption(f"{label}: a bundle or program is for NPUs alone; lint judges ONNX and TFLite networks")
    if named and is_tflite(network):
        return _lint_tflite(network, label, asked)
    proto = load_proto(network) if named else network
    if asked is not None:
        return judge(describe(proto, label), asked, Machine.here())
    on, origin = _made_for(proto, label)
    return replace(judge(describe(proto, label), on, Machine.here()), target_from=origin)


def _lint_tflite(path: Named, label: str, asked: Target | None) -> Findings:
    """A .tflite file, held to the rules of a target that takes such files."""
    from .hardware.lint import lint as judge
    from .litert.description import assumed_target, describe
    from .tflite.content import content_of

    content = content_of(Path(path).read_bytes(), label, quantized=True)
    said, own = content.provenance.get("target"), bool(content.provenance.get("own"))
    origin: Literal["asked", "file", "assumed"] = "asked" if asked else "file" if said is not None else "assumed"
    on = asked or (built_in_target(assumed_target(content)) if said is None else _named(str(said), own, label))
    if "tflite" not in on.formats:
        fit = ", ".join(t.name for t in TARGETS if "tflite" in t.formats)
        raise TargetMismatch(f"{label}: target {on.name} takes no .tflite files; choose {fit}")
    return replace(judge(describe(content), on), target_from=origin)


def _made_for(proto: Any, label: str) -> tuple[Target, Literal["file", "assumed"]]:
    """The target that a file names; the first of the built-in ones where it names none."""
    from .onnx.writer import said_of

    name = said_of(proto, "target")
    if name is None:
        return TARGETS[0], "assumed"
    return _named(name, said_of(proto, "target.own") is not None, label), "file"


def _named(name: str, own: bool, label: str) -> Target:
    """The built-in target that a file names, unless it was made for one of the user's own."""
    known = {n for t in TARGETS for n in (t.name, *t.aliases)}
    if name not in known or own:
        raise UnknownName(f"{label}: made for {name!r}, a target of your own; give its TOML file as target (--target)")
    return built_in_target(name)


def explain(
    source: Any, recipe: Named | Recipe | None = None, target: Named | Target | None = None, **options: Unpack[Options]
) -> Explanation:
    """What limits a network once it is quantized, and what each thing you could change would gain: predicted.

    The arguments are those of `quantize`. "Before" is the recipe's own format and ranges, but no scales are chosen.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> found = explain(model_path(), target="per-tensor", input=(0, 1))
        >>> found.predicted["after"]["total"] > found.predicted["before"]["total"]
        True
    """
    from .study.explain import explain as analyse

    job = Job.of(source, recipe, target, **options).checked()
    reference, before = job.plain()
    on, finer = job.target, None
    if on.weight.granularity == "tensor" and "granularity" not in job.recipe.weight:
        fine = replace(on, weight=replace(on.weight, granularity="channel", symmetric=True))
        finer = replace(job, target=fine).run()
    return analyse(reference, before, job.run(), finer, job.warnings)


def sqnr(
    source: Any,
    target: Named | Target | None = None,
    *,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    set: Mapping[Name, Any] | None = None,
    fused_activations: bool | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> LayerSqnr:
    """Every layer's own quantization noise, without equalization and with one-step, two-step and optimal scales.

    Predicted from moments and the errors that rounded weights have, and as equations 5 to 9 of Meller et al. (2019) do,
    from ranges alone; with images also measured on them, and moments and ranges are theirs. How far each layer's
    weights and input are from optimal equalization is the distance of figure 5 of Meller et al. (2019).

    Args:
        target, input, data, images, set, fused_activations, force: as for `quantize`; `Statistics` tell moments and
            ranges, and nothing is measured.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint.demo import model_path
        >>> found = sqnr(model_path(), "per-tensor", input=(0, 1))
        >>> found.methods["none"]["layers"][0]["predicted"]["weights"] > 30
        True
    """
    from .study.sqnr import sqnr as analyse

    looks = Options(input=input, data=data, images=images, set=set, progress=progress, force=force)
    job = Job.of(source, None, target, **Options(fused_activations=fused_activations, **looks)).checked()
    found = analyse(job.reference(), job.target, job.samples, progress, job.warnings)
    if not found.methods["none"]["layers"]:
        raise UnsupportedOperator(f"nothing to analyse: {NO_LAYERS}")
    return found


def diagnose(
    source: Any,
    recipe: Named | Recipe | None = None,
    target: Named | Target | None = None,
    *,
    labels: Array | None = None,
    ray: str | None = None,
    **options: Unpack[Options],
) -> Diagnosis:
    """Which layers and tensors cost a quantized network most, why, and what helps: measured on images.

    The arguments are those of `equint.quantize`. Without images, generated pictures serve.

    Args:
        labels: `(N,)` class of each image, for the float network's own accuracy.
        ray: variants are measured by Ray: "local", or a cluster's address (docs/fleets.md); what is found is the same.

    Returns:
        Its `recipe` is the one to use, with overrides where they pay; `facts()` is everything, ready for JSON.

    Raises:
        EquintError: as `equint.quantize`; also for saved statistics, on which nothing can be tried.

    Example:
        >>> from equint import Card
        >>> from equint.demo import data_path, model_path
        >>> found = diagnose(model_path(), "lwq", input=Card("gray", (0.0,), (16.0,)), data=data_path(), images=32)
        >>> sorted(found.stages)
        ['activations', 'both', 'rewritten', 'weights']
    """
    from .crew.workers import hired
    from .study.diagnose import diagnose as look

    check(ray=ray)
    with hired(1, ray) as crew:
        job = Job.of(source, recipe, target, **options).checked()
        _check_labels(labels)
        return look(*_subject(job), labels=labels, progress=job.progress, crew=crew)


def mixed(
    source: Any,
    max_drop: float,
    recipe: Named | Recipe | None = None,
    target: Named | Target | None = None,
    *,
    labels: Array | None = None,
    **options: Unpack[Options],
) -> Mixed:
    """The cheapest overrides with which a network loses at most `max_drop` points; the best found if none suffice.

    Points are of top-1 where there are labels, else of agreement with the float network, on the images. The other
    arguments are those of `diagnose`.

    Raises:
        EquintError: as `diagnose`, and for networks whose result is not a score per class.

    Example:
        >>> from equint import Card
        >>> from equint.demo import data_path, model_path
        >>> given = {"input": Card("gray", (0.0,), (16.0,)), "data": data_path(), "images": 16}
        >>> mixed(model_path(), 100.0, "lwq", **given).chosen
        ()
    """
    from .study.mixed import mixed as search

    check(max_drop=max_drop)
    if not 0 <= max_drop <= 100:
        raise InvalidOption(f"max_drop = {max_drop}: give points from 0 to 100")
    job = Job.of(source, recipe, target, **options).checked()
    _check_labels(labels)
    return search(*_subject(job), max_drop, labels=labels, progress=job.progress)


def report(
    result: Result,
    *,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    measured: Mapping[str, Any] | Evaluation | None = None,
    name: str = "",
    saved: Named | None = None,
    command: str = "",
    todo: str = "",
) -> str:
    """A page about a quantized network, as one HTML file: verdict, what limits it, layers, candidates, sizes, origin.

    Args:
        input, data, images: left out, those that the result was made with; on images the noise of every layer is
            measured too, and on a few made-up ones where there are none.
        measured: what `evaluate` found; or its figures, the float network's with "float_" before them.
        name: the network's.
        saved: the file that the result was saved as: its size and checksum are shown.
        command: how it was made, shown with versions and checksums of what was read.
        todo: what to do next; left out, it follows from what was measured.

    Raises:
        EquintError: as `quantize`.

    Example:
        >>> from equint import quantize
        >>> from equint.demo import model_path
        >>> report(quantize(model_path(), input=(0, 1))).splitlines()[0]
        '<!doctype html>'
    """
    from .pages.contents import Beside, contents
    from .pages.page import page
    from .pages.provenance import provenance
    from .pages.views import histograms, pictures
    from .planning.search import made_up_samples

    if not isinstance(result, Result):
        raise refused("result", result, "what quantize gave")
    check(name=name, saved=saved, command=command, todo=todo)
    if saved is not None:
        readable(saved, UnusableData, "network that was saved")
    if not isinstance(measured, Mapping | Evaluation | None):
        raise InvalidOption(f"measured = {measured!r}: give what evaluate found")
    job = result.job
    if input is not None or data is not None or images is not None:
        bits: dict[str, Any] = {"weight_bits": job.weight_bits, "activation_bits": job.activation_bits}
        job = Job.of(job.original, job.recipe, job.target, input=input, data=data, images=images, **bits)
    _, before = job.plain()
    shown = job.samples or made_up_samples(job.network)
    shown = shown if job.samples or shown is None else shown.first(MADE_UP)
    seen: tuple[Any, ...] = ()
    if isinstance(measured, Evaluation):
        seen = measured.card, measured.data, job.samples, int(measured.figures["samples"])
    files = {**result.job.given, "saved": saved, "data": _looked_at(result, measured)}
    return page(
        contents(
            result,
            before,
            Beside(
                name=name,
                measured=_figures(measured),
                images=shown,
                made_up=job.samples is None,
                todo=todo,
                made=provenance(files, command),
                saved="" if saved is None else os.fspath(saved),
                file_bytes=None if saved is None else Path(saved).stat().st_size,
                pictures=pictures(result, *(seen or (None, None, job.samples))),
                activations=histograms(result, shown),
            ),
        )
    )


def _figures(measured: Mapping[str, Any] | Evaluation | None) -> Mapping[str, Any]:
    """Figures by name, the float network's with "float_" before them, and the verdict's words."""
    if not isinstance(measured, Evaluation):
        return measured or {}
    of_float = {f"float_{key}": value for key, value in (measured.original or {}).items()}
    verdict = {} if measured.verdict is None else {"verdict": measured.verdict}
    return {**measured.figures, **of_float, **verdict}


def _looked_at(result: Result, measured: Mapping[str, Any] | Evaluation | None) -> Any:
    """The data that a page names: those that were measured on, else those that were given."""
    return measured.data if isinstance(measured, Evaluation) else result.job.given.get("data")


def _subject(job: Job) -> tuple[Model, Recipe, Target, Quantizer, Samples]:
    """What variants are tried of, and on which images: the user's, or generated ones."""
    from .study.diagnose import shown

    if job.data is not None and job.samples is None:
        raise UnusableData("saved statistics show no images to try anything on; give images")
    alone = replace(job.spelled, candidates=())  # what is tried are changes of the recipe itself
    return job.original, alone, job.target, job.quantizer(), job.samples or shown(job.network)


def _check_labels(labels: Any) -> None:
    if labels is not None and (isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__")):
        raise refused("labels", labels, "the class of each image")
