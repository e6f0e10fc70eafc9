"""The command line. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import EquintError
from . import npu as cli_npu
from . import study as cli_study
from .options import (
    ActivationBits,
    AsJson,
    CardFile,
    DataPath,
    ImageCount,
    InputRange,
    Mean,
    ModelFile,
    RecipeName,
    Std,
    TargetName,
    WeightBits,
    activation_bits_of,
    card_of,
    check_file,
    check_output,
    console,
    counter,
    few,
    input_of,
    kind_of,
    labels_of,
    pass_progress,
    print_json,
    table_of,
    write_page,
)

app = typer.Typer(
    help="Turn trained convolutional networks (ONNX) into fixed-point networks, from their weights alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `main` takes --debug wherever it stands."""


@app.command()
def quantize(
    model: ModelFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the int8 model.", show_default=False)],
    recipe: RecipeName = None,
    target: TargetName = None,
    weight_bits: WeightBits = None,
    activation_bits: ActivationBits = None,
    card: CardFile = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    data: DataPath = None,
    images: ImageCount = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Spend bits where needed, to lose at most so many points of agreement."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write a page about the result: one HTML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Quantize a float network, without data or with a few unlabelled images."""
    from .. import api

    given = input_of(card, input_range, mean, std)
    bits = activation_bits_of(activation_bits)
    kept: dict[str, Any] = {"model": model, "data": data, "card": card, "recipe": recipe}
    check_output(output, **kept)
    if report is not None:
        check_output(report, **kept, quantized_model=output)
    with pass_progress(not as_json) as step:
        looks: dict[str, Any] = {"input": given, "data": data, "images": images, "progress": step}
        formats: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": bits}
        chosen: Any = recipe
        if max_drop is not None:
            from .. import studies as study

            spent = study.mixed(model, max_drop, recipe, target, labels=labels_of(data, images), **formats, **looks)
            chosen, formats = spent.recipe, {}
        result = api.quantize(model, chosen, target, **formats, **looks)
        result.save(output)
        if report is not None:
            write_page(report, api.report(result, input=given, data=data, images=images, name=model.stem))
    if as_json:
        spending = {} if max_drop is None else {"mixed": spent.facts()}
        print_json({**result.facts(), **spending, "output": str(output), "file_bytes": output.stat().st_size})
        return
    from ..pages.summary import kilobytes

    print(result.summary())
    if max_drop is not None:
        from ..pages.diagnosis import mixed_text

        print(mixed_text(spent.facts()))
    print(f"wrote {output} ({kilobytes(output.stat().st_size)}; {model} has {kilobytes(model.stat().st_size)})")


@app.command()
def calibrate(
    model: ModelFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the statistics (.npz).")],
    data: DataPath = None,
    card: CardFile = None,
    mean: Mean = None,
    std: Std = None,
    images: ImageCount = None,
    histograms: Annotated[
        bool, typer.Option(help="Count all values, for the range rules percentile and mse: slower.")
    ] = True,
    merge: Annotated[
        list[Path] | None, typer.Option("--merge", help="Add statistics measured before; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a network's tensors on images; interrupted, it goes on where it was. Use with quantize --data."""
    from .. import api
    from ..samples.statistics import Statistics, merged

    check_file(model)
    if output.suffix != ".npz":
        raise EquintError(f"{output}: statistics are .npz files; choose another name")
    check_output(output, model=model, data=data, card=card)
    draft = output.with_name(f"{output.stem}.part.npz")
    network, parts = api.load(model), [Statistics.load(path) for path in merge or ()]
    for path, part in zip(merge or (), parts, strict=True):
        api.check_statistics(network, part, str(path))
    if data is not None or images is not None or not parts:
        given = input_of(card, None, mean, std)
        with counter(not as_json, lambda: images or 0, "calibrating") as done:
            looks: dict[str, Any] = {"input": given, "images": images, "resume": draft, "progress": done}
            parts.append(api.calibrate(network, data, histograms=histograms, **looks))
    found = merged(parts)
    found.save(output)
    draft.unlink(missing_ok=True)
    if as_json:
        print_json({"output": str(output), "images": found.images, "tensors": len(found.tensors)})
        return
    print(f"measured {len(found.tensors)} tensors on {found.images} images; wrote {output}")


@app.command()
def inspect(
    model: ModelFile,
    target: TargetName = None,
    card: CardFile = None,
    as_json: AsJson = False,
) -> None:
    """Show layers, free channel scales, and what pins the others."""
    from .. import api

    found = api.inspect(model, target, input=card)
    if as_json:
        return print_json(found)
    layers = table_of("layers", "layer", "kind", ">weights", ">spread", ">overlap", ">dead", "moments")
    for row in found["layers"]:
        shape = "×".join(map(str, row["shape"]))
        numbers = (f"{row['spread']:.1f}", f"{row['overlap_ratio']:.3f}", str(row["dead"]))
        layers.add_row(row["name"], row["op"], shape, *numbers, row["moments"])
    groups = table_of("free channel scales", ">channels", "given by", "taken by", "passed", "clips")
    for row in found["groups"]:
        cells = (few(row[k]) for k in ("givers", "takers", "tensors", "clips"))
        groups.add_row(str(row["channels"]), *cells)
    pins = table_of("pinned to scale 1", "tensor", "why")
    for tensor, why in found["pinned"].items():
        pins.add_row(tensor, why)
    for table in (layers, groups, pins):
        if table.row_count:
            console().print(table)
    for op, nodes in found["borders"].items():
        print(f"{op} stays float: {few(nodes)}")
    return None


@app.command()
def explain(
    model: ModelFile,
    recipe: RecipeName = None,
    target: TargetName = None,
    weight_bits: WeightBits = None,
    activation_bits: ActivationBits = None,
    card: CardFile = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    data: DataPath = None,
    images: ImageCount = None,
    every: Annotated[bool, typer.Option("--all", help="Show all layers, not only the ten that matter most.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what limits each layer once quantized, and what each change would gain: predicted, without data."""
    from .. import api

    given, bits = input_of(card, input_range, mean, std), activation_bits_of(activation_bits)
    with pass_progress(not as_json) as step:
        looks: dict[str, Any] = {"input": given, "data": data, "images": images, "progress": step}
        found = api.explain(model, recipe, target, weight_bits=weight_bits, activation_bits=bits, **looks)
    if as_json:
        return print_json(found)
    from ..pages.explanation import changes, layers, totals

    for title, columns, rows in (totals(found), layers(found, None if every else 10), changes(found)):
        table = table_of(title, *columns)
        for row in rows:
            table.add_row(*row)
        if table.row_count:
            console().print(table)
    print("predicted from weights and moments: good for comparing, not a forecast; `equint evaluate` measures")
    for warning in found["warnings"]:
        print(f"! {warning}")
    return None


@app.command()
def recipes(
    show: Annotated[str | None, typer.Option("--show", help="Print this recipe's TOML, to copy and change.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in recipes and targets."""
    from dataclasses import asdict

    from ..hardware.target import TARGETS
    from ..planning.recipe import built_in, recipe, source

    if show is not None:
        print(source(recipe(show).name), end="")
        return
    if as_json:
        print_json({"recipes": [asdict(r) for r in built_in()], "targets": [asdict(t) for t in TARGETS]})
        return
    table = table_of("recipes", "recipe", ">level", "default target", "what it does")
    for r in built_in():
        table.add_row(r.name, str(r.level), r.target, r.description)
    hardware = table_of("targets", "target", "default recipe", "what it is")
    for t in TARGETS:
        hardware.add_row(t.name, t.recipe, t.description)
    for shown in (table, hardware):
        console().print(shown)
    print("levels: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining")


@app.command()
def evaluate(
    model: ModelFile,
    card: CardFile = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="The float original, for agreement and SQNR.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help=".npz with x and y, or a folder. [default: the card's eval]")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="rgb, gray or features, where there is no card.")] = None,
    mean: Mean = None,
    std: Std = None,
    size: Annotated[tuple[int, int] | None, typer.Option(metavar="H W", help="Resize pictures to this.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first so many samples.")] = None,
    optimized: Annotated[
        bool, typer.Option("--optimized", help="Run as deployed, with onnxruntime's integer kernels.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a network or bundle by its task, and against the float original; say how good it is."""
    from ..scoring import metrics
    from ..scoring.tasks import judged, shown

    check_file(model)
    prepared = card_of(card, kind or kind_of(model, mean, std), mean, std, size)
    where = data or prepared.data.get("eval")
    if where is None:
        raise EquintError("no data to evaluate on: give --data, or a card with eval in [data]")
    if against is not None:
        check_file(against)
    given: dict[str, Any] = {"limit": limit}
    with counter(not as_json, lambda: metrics.count(where, prepared, limit)) as done:
        found = metrics.evaluate(model, where, prepared, against, optimized=optimized, progress=done, **given)
    task, original = prepared.task, None
    if against is not None and metrics.labelled(prepared.task, found):
        with counter(not as_json, lambda: metrics.count(where, prepared, limit), "evaluating the original") as done:
            original = metrics.evaluate(against, where, prepared, optimized=True, progress=done, **given)
    verdict = judged(task, found, original) if against is not None else None
    if as_json:
        told = {} if verdict is None else {"verdict": {"level": verdict.level, "words": verdict.words}}
        float_figures = {} if original is None else {"float": original}
        print_json({"model": str(model), "data": str(where), **found, **float_figures, **told})
        return
    rows, of_float = shown(task, found), dict(shown(task, original)) if original else {}
    table = table_of("", "measure", ">value", *([">float"] if of_float else []))
    for name, value in rows:
        table.add_row(name, value, *([of_float.get(name, "")] if of_float else []))
    console().print(table)
    if verdict is not None:
        print(verdict.words)


@app.command()
def compare(
    original: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float model.")],
    quantized: Annotated[Path, typer.Argument(metavar="INT8", help="The quantized model.")],
    card: CardFile = None,
    data: Annotated[Path | None, typer.Option("--data", help="Inputs. [default: the card's, else random]")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Use only the first so many samples.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Show the SQNR of every tensor, layer by layer."""
    from dataclasses import asdict

    from ..samples.data import batches
    from ..study.compare import compare as measure

    for file in (original, quantized):
        check_file(file)
    prepared = card_of(card, None, None, None, None)
    where = data or prepared.data.get("calibration")
    feeds = None if where is None else (x for x, _ in batches(where, prepared, size=8, limit=limit))
    rows = measure(original, quantized, feeds)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    title = f"on {where}" if where else "on random inputs; --card or --data for real ones"
    table = table_of(title, "tensor", "made by", ">SQNR dB", ">peak", "")
    for row in rows:
        bar = "█" * max(0, min(30, round(row.sqnr_db / 2))) if row.sqnr_db < 1e3 else "exact"
        table.add_row(row.tensor, row.op, f"{row.sqnr_db:.1f}", f"{row.peak:.3g}", bar)
    console().print(table)


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Quantize a small bundled network without data and show what that did."""
    from ..demo.run import run

    with pass_progress(not as_json) as step:
        rows = run(step)
    if as_json:
        print_json(rows)
        return
    table = table_of("digits, 500 held-out images, no data used", "network", ">accuracy", ">agreement", ">parameters")
    for row in rows:
        cells = (f"{row['accuracy']:.1f} %", f"{row['agreement']:.1f} %", row["size"])
        table.add_row(row["network"], *cells)
    console().print(table)


@app.command()
def sqnr(
    model: ModelFile,
    target: TargetName = None,
    card: CardFile = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    data: DataPath = None,
    images: ImageCount = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw it all: .png or .svg; needs the extra equint[plot].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show each layer's own noise, predicted and measured on images, before and after each kind of equalization."""
    from .. import api
    from ..pages import layer_sqnr as report

    if plot is not None:
        report.check_plot(plot)
        check_output(plot, model=model, data=data, card=card)
    given = input_of(card, input_range, mean, std)
    with pass_progress(not as_json) as step:
        found = api.sqnr(model, target, input=given, data=data, images=images, progress=step)
    if plot is not None:
        report.plot(found, plot, model.stem)
    if as_json:
        return print_json(found)
    for title, columns, rows in report.tables(found):
        table = table_of(title, *columns)
        for row in rows:
            table.add_row(*row)
        console().print(table)
    for line in (*report.notes(found), *([f"wrote {plot}"] if plot else [])):
        print(line)
    return None


for command in (*cli_npu.COMMANDS, *cli_study.COMMANDS):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an `EquintError` becomes one line and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in arguments[:1]:
        from .. import __version__

        print(f"equint {__version__}")
        return
    debug = "--debug" in arguments
    try:
        app([a for a in arguments if a != "--debug"], prog_name="equint")
    except EquintError as error:
        if debug:
            raise
        print(f"equint: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())[:300]
        what = "not enough memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}: {reason}"
        print(f"equint: {what}; --debug shows where", file=sys.stderr)
        sys.exit(2)
