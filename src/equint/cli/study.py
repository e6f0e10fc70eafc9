"""Commands that look at networks: at one, at two beside each other, or at many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

from ..errors import InvalidOption, counted
from ..kinds import EXPECTED, PAGE, RECIPE, TEXT
from . import options as cli
from . import terminal


def inspect(
    model: cli.ModelFile, target: cli.TargetName = None, card: cli.CardFile = None, as_json: cli.AsJson = False
) -> None:
    """Show layers, free channel scales, and what pins the others.

    Example: equint inspect net.onnx
    """
    import equint

    found = equint.inspect(model, target, input=card)
    if as_json:
        terminal.print_json(found.facts())
        return
    columns = ("layer", "kind", ">weights", ">spread", ">overlap", ">dead", "moments")
    rows = [
        (r["name"], r["op"], "×".join(map(str, r["shape"])), f"{r['spread']:.1f}", f"{r['overlap_ratio']:.3f}")
        + (str(r["dead"]), r["moments"])
        for r in found.layers
    ]
    terminal.print_table("layers", columns, rows)
    groups = [
        (str(r["channels"]), *(terminal.few(r[key]) for key in ("givers", "takers", "tensors", "clips")))
        for r in found.groups
    ]
    terminal.print_table("free channel scales", (">channels", "given by", "taken by", "passed", "clips"), groups)
    terminal.print_table("pinned to scale 1", ("tensor", "why"), found.pinned.items())
    for op, nodes in found.borders.items():
        print(f"{op} stays float: {terminal.few(nodes)}")


def lint(
    model: Annotated[
        Path, Argument(metavar="FILE", help="Quantized ONNX or TFLite model, of any tool.", show_default=False)
    ],
    target: cli.TargetName = None,
    as_json: cli.AsJson = False,
) -> None:
    """Show what hardware refuses of a quantized network or computes in float; exit code 1 where that is an error.

    Without --target: for the target that equint made the file for, else for onnxruntime, of .tflite for tflite-int8.

    Example: equint lint net.int8.onnx --target openvino
    """
    import equint

    from ..pages.findings import lines

    cli.check_file(model)
    found = equint.lint(model, target)
    if as_json:
        terminal.print_json({"file": str(model), **found.facts()})
    else:
        print("\n".join(lines(found, model.name)))
    if not found.clean:
        raise Exit(1)


def explain(
    model: cli.ModelFile,
    formats: cli.Formats,
    described: cli.Described,
    shown: cli.Shown,
    every: Annotated[bool, Option("--all", help="Show all layers, not only the ten that matter most.")] = False,
    as_json: cli.AsJson = False,
) -> None:
    """Show what limits each layer once quantized, and what each change would gain: predicted, without data.

    Example: equint explain net.onnx --target per-tensor
    """
    import equint

    options = {**formats.options(), **described.options(), **shown.options()}
    with terminal.progress_bar(not as_json) as step:
        found = equint.explain(model, **options, progress=step).facts()
    if as_json:
        terminal.print_json(found)
        return
    from ..pages.explanation import LEGEND, changes, layers, totals

    for table in (totals(found), layers(found, None if every else 10), changes(found)):
        terminal.print_table(*table)
    print(LEGEND)
    print("predicted from weights and moments: good for comparing, not a forecast; `equint evaluate` measures")
    for warning in found["warnings"]:
        print(f"! {warning}")


def sqnr(
    model: cli.ModelFile,
    target: cli.TargetName = None,
    fused_activations: cli.FusedActivations = None,
    *,
    described: cli.Described,
    shown: cli.Shown,
    plot: Annotated[
        Path | None, Option("--plot", help="Draw it all: .png or .svg; needs the extra equint[plot].")
    ] = None,
    as_json: cli.AsJson = False,
) -> None:
    """Show each layer's own noise, predicted and measured on images, before and after each kind of equalization.

    Example: equint sqnr net.onnx --card net.toml --images 16 --plot net.png
    """
    import equint

    from ..pages import layer_sqnr as page

    if plot is not None:
        page.check_plot(plot)
        cli.check_output(plot, EXPECTED[plot.suffix.lower()], described, shown, model=model)
    with terminal.progress_bar(not as_json) as step:
        options = {**described.options(), **shown.options(), "fused_activations": fused_activations}
        found = equint.sqnr(model, target, **options, progress=step).facts()
    if plot is not None:
        page.plot(found, plot, model.stem)
    if as_json:
        terminal.print_json(found)
        return
    for table in page.tables(found):
        terminal.print_table(*table)
    for line in (*page.notes(found), *([f"wrote {plot}"] if plot else []), page.conclusion(found)):
        terminal.say(line)


def evaluate(
    model: cli.ModelFile,
    card: cli.CardFile = None,
    against: Annotated[Path | None, Option("--against", help="The float network, for agreement and SQNR.")] = None,
    data: Annotated[
        Path | None, Option("--data", help=".npz with x and y, a folder, or .tar files. [default: the card's eval]")
    ] = None,
    kind: Annotated[str | None, Option(help="rgb, gray or features, where there is no card.")] = None,
    mean: cli.Mean = None,
    std: cli.Std = None,
    layout: cli.Layout = None,
    size: Annotated[tuple[int, int] | None, Option(metavar="H W", help="Resize pictures to this.")] = None,
    limit: Annotated[int | None, Option(min=1, help="Use only the first so many samples.")] = None,
    optimized: Annotated[
        bool, Option("--optimized", help="Run as deployed, with onnxruntime's integer kernels.")
    ] = False,
    ray: cli.RayAddress = None,
    provider: cli.ProviderNames = None,
    as_json: cli.AsJson = False,
) -> None:
    """Measure a network or bundle by its task, and against the float original; say how good it is.

    Example: equint evaluate net.int8.onnx --card net.toml --against net.onnx
    """
    import equint

    from ..scoring.tasks import shown

    cli.check_file(model)
    prepared = cli.card_of(card, kind or cli.kind_of(model, mean, std), mean, std, size, layout)
    asked: dict[str, Any] = {"optimized": optimized, "limit": limit, "ray": ray}
    with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
        found = equint.evaluate(model, data, prepared, against, **asked, progress=step)
    if as_json:
        terminal.print_json(found.facts())
        return
    of_float = None if found.original is None else dict(shown(found.task, found.original))
    rows = [
        (name, value, *([] if of_float is None else [of_float.get(name, "")]))
        for name, value in shown(found.task, found.figures)
    ]
    terminal.print_table("", ("measure", ">value", *([] if of_float is None else [">float"])), rows)
    if found.verdict is not None:
        terminal.say(found.verdict.words)
    for warning in found.warnings:
        terminal.say(f"! {warning}")


def compare(
    original: Annotated[Path, Argument(metavar="FLOAT", help="The float network.")],
    quantized: Annotated[Path, Argument(metavar="INT8", help="The quantized network.")],
    card: cli.CardFile = None,
    data: Annotated[Path | None, Option("--data", help="Inputs. [default: the card's, else made up]")] = None,
    limit: Annotated[int, Option(min=1, help="Use only the first so many samples.")] = 16,
    provider: cli.ProviderNames = None,
    as_json: cli.AsJson = False,
) -> None:
    """Show the SQNR of every tensor, layer by layer.

    Example: equint compare net.onnx net.int8.onnx --card net.toml
    """
    import equint

    with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
        found = equint.compare(original, quantized, data, card, limit=limit, progress=step)
    if as_json:
        terminal.print_json(found.facts())
        for warning in found.warnings:  # of rows, one for each tensor, none can hold them
            print(f"! {warning}", file=sys.stderr)
        return
    rows = []
    for row in found.tensors:
        bar = f"{counted(row.not_finite, 'value')} not finite"
        if not row.not_finite:
            bar = "█" * max(0, min(30, round(row.sqnr_db / 2))) if row.sqnr_db < 1e3 else "exact"
        rows.append((row.tensor, row.op, f"{row.sqnr_db:.1f}", f"{row.peak:.3g}", bar))
    title = f"on {found.data}" if found.data else "on made-up inputs; --card or --data for real ones"
    terminal.print_table(title, ("tensor", "made by", ">SQNR dB", ">peak", ""), rows)
    for line in (found.verdict.words, *(f"! {warning}" for warning in found.warnings)):
        terminal.say(line)


def table(
    networks: Annotated[list[Path], Argument(help="Cards, or ONNX models with a card beside them.")],
    recipe: Annotated[list[str], Option("--recipe", help="Recipe name or TOML file; may be repeated.")],
    target: Annotated[
        list[str] | None, Option("--target", help="May be repeated. [default: each recipe's own]")
    ] = None,
    bits: Annotated[
        list[str] | None, Option("--bits", help="Weights/activations, such as 4/8; may be repeated. [default: 8/8]")
    ] = None,
    images: Annotated[
        list[int] | None, Option("--images", help="Look at so many images, 0: none; may be repeated.")
    ] = None,
    limit: Annotated[
        list[str] | None, Option("--limit", help="Samples to judge on: N, or NETWORK=N; may be repeated.")
    ] = None,
    cache: Annotated[Path, Option("--cache", help="Folder that keeps what was found.")] = Path("equint-results"),
    jobs: Annotated[int, Option("--jobs", min=1, help="Processes.")] = 1,
    ray: cli.RayAddress = None,
    provider: cli.ProviderNames = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Also write the table, as Markdown.")] = None,
    force: cli.Overwrite = False,
    as_json: cli.AsJson = False,
) -> None:
    """Measure many networks under many recipes, targets and bit widths; interrupted, it goes on where it was.

    Exit code 1 where nothing could be measured: the table says why.

    Example: equint table net.toml other.toml --recipe lwq --recipe optimal -o table.md
    """
    import equint

    from ..pages.results import jsonlines

    if output is not None:
        cli.check_output(output, TEXT, network=networks, recipe=recipe)
    if any(n < 0 for n in images or ()):
        raise InvalidOption(f"--images {min(images or ())}: give how many, or 0 for none")
    asked: dict[str, Any] = {"bits": [_widths(text) for text in bits or ["8/8"]], "limit": _limits(limit)}
    asked["images"] = images or None
    with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
        found = equint.table(networks, recipe, target or (), **asked, cache=cache, jobs=jobs, ray=ray, progress=step)
    if output is not None:
        cli.write_page(output, found.markdown())
    print(jsonlines(found.rows) if as_json else found.markdown(), end="")
    if not as_json and sys.stderr.isatty():  # of the table itself, every line is Markdown
        print(f"results are kept in the folder {cache}; the same command goes on from them", file=sys.stderr)
    if found.rows and all(row.reason for row in found.rows if row.target or len(found.rows) == 1):
        raise Exit(1)  # the reasons stand in the table


def report(
    model: cli.ModelFile,
    output: Annotated[Path, Option("-o", "--output", help="Where to write the page.", show_default=False)],
    formats: cli.Formats,
    described: cli.Described,
    shown: cli.Shown,
    limit: Annotated[
        int | None, Option("--limit", min=1, help="Also judge it on so many samples of the card's eval.")
    ] = None,
) -> None:
    """Quantize a network and write a page about what that did: one HTML file that needs nothing else.

    Example: equint report net.onnx -o net.html --card net.toml --limit 200
    """
    import equint

    from ..pages.provenance import command_line
    from ..pages.story import contradicted, onwards, searched

    cli.check_output(output, PAGE, formats, described, shown, model=model)
    if limit is not None and described.card is None:
        raise InvalidOption("--limit needs a card that names what to judge on (eval in [data])")
    options = {**formats.options(), **described.options(), **shown.options()}
    with terminal.progress_bar(True) as step:
        result = equint.quantize(model, **options, progress=step)
        measured = None
        if limit is not None and described.card is not None:
            measured = equint.evaluate(result, None, described.card, model, limit=limit, progress=step)
    judged = None if measured is None else measured.verdict
    todo = onwards(result, judged, None, None, model, cli.given(formats, described, shown), True)
    about: dict[str, Any] = {"name": model.stem, "command": command_line(), "todo": todo}
    cli.write_page(output, equint.report(result, measured=measured, **about))
    said = searched(result.model) if judged is None else judged
    terminal.say(said.words + contradicted(result.warnings))
    print(f"wrote {output}")


def page(
    results: Annotated[list[Path], Argument(help="What quantize --json or auto --json printed, kept in files.")],
    output: Annotated[Path, Option("-o", "--output", help="Where to write the page.", show_default=False)],
    name: Annotated[str, Option("--name", help="What the page is called. [default: the files']")] = "",
    force: cli.Overwrite = False,
) -> None:
    """Put results of two or more runs beside one another on one page: verdicts, figures, sizes, what differs.

    Example: equint page a.json b.json -o both.html
    """
    import equint

    cli.check_output(output, PAGE, result=results)
    cli.write_page(output, equint.page(results, name=name))
    print(f"wrote {output}")


def diagnose(
    model: cli.ModelFile,
    output: Annotated[Path | None, Option("-o", "--output", help="Write the recipe that pays most (.toml).")] = None,
    *,
    formats: cli.Formats,
    described: cli.Described,
    shown: cli.Shown,
    every: Annotated[bool, Option("--all", help="Show all layers and tensors that were measured.")] = False,
    ray: cli.RayAddress = None,
    as_json: cli.AsJson = False,
) -> None:
    """Find which layers cost a quantized network most, why, and what helps; every gain is measured.

    Example: equint diagnose net.onnx --card net.toml --images 64 -o better.toml
    """
    import equint

    from ..pages.diagnosis import text
    from ..planning.recipe import to_toml

    if output is not None:
        if output.suffix != ".toml":
            raise InvalidOption(f"{output}: recipes are .toml files; choose another name")
        cli.check_output(output, RECIPE, formats, described, shown, model=model)
    options = {**formats.options(), **described.options(), **shown.options()}
    with terminal.progress_bar(not as_json) as step:
        found = equint.diagnose(model, labels=cli.labels_of(shown), ray=ray, **options, progress=step)
    if output is not None:
        cli.write_page(output, to_toml(found.recipe))
    if as_json:
        terminal.print_json({**found.facts(), **({"output": str(output)} if output else {})})
        return
    print(text(found.facts(), None if every else 8))
    if output is not None:
        which = "the recipe as it is" if found.best is None else "the recipe with what helps"
        print(f"wrote {output}, {which}; equint quantize --recipe takes it")


def _widths(text: str) -> tuple[int, Any]:
    weights, _, activations = text.partition("/")
    try:
        found = int(weights), "float" if activations == "float" else int(activations)
        if not all(bits == "float" or 2 <= int(bits) <= 16 for bits in found):
            raise ValueError("2 to 16 bits")
        return found
    except ValueError as error:
        raise InvalidOption(f"--bits {text}: give weights/activations, such as 8/8, 4/8 or 8/float") from error


def _limits(given: list[str] | None) -> Any:
    """A number for all networks, or numbers by network."""
    if not given:
        return None
    named = dict(g.split("=", 1) for g in given if "=" in g)
    plain = [g for g in given if "=" not in g]
    try:
        counts = {name: int(count) for name, count in named.items()}
        if len(plain) == 1 and not named and int(plain[0]) > 0:
            return int(plain[0])
        if not plain and min(counts.values()) > 0:
            return counts
    except ValueError:
        pass
    raise InvalidOption(f"--limit {' '.join(given)}: give one number, or NETWORK=NUMBER for each")
