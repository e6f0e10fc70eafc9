"""The command line. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ..drafts import noted
from ..errors import EquintError, InvalidOption, counted
from ..kinds import NETWORK, PAGE, STATISTICS, TFLITE
from . import failures, npu, people, study, terminal
from . import options as cli

Misused: Any = typer.BadParameter.__mro__[1]
"""An option or argument that is unknown, missing or of a wrong kind."""

app = typer.Typer(
    help="Turn trained convolutional networks (ONNX) into fixed-point networks, from their weights alone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _common(
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `main` takes --debug wherever it stands."""


def quantize(
    model: cli.ModelFile,
    output: Annotated[Path, Option("-o", "--output", help="Where to write the int8 model.", show_default=False)],
    formats: cli.Formats,
    described: cli.Described,
    shown: cli.Shown,
    max_drop: Annotated[
        float | None,
        Option(
            "--max-drop",
            help="Spend bits where needed, to lose at most so many points: of top-1 where --data is an .npz with "
            "labels (y), else of agreement with the float network. For top-1 on a card's labelled data: equint auto.",
        ),
    ] = None,
    report: Annotated[
        Path | None, Option("--report", help="Also write a page about the result: one HTML file.")
    ] = None,
    io: cli.IoName = None,
    effort: cli.EffortName = "full",
    measure: Annotated[
        bool, Option("--measure/--no-measure", help="With a card whose data have labels: measure on 200 samples.")
    ] = True,
    provider: cli.ProviderNames = None,
    verbose: cli.Verbose = False,
    as_json: cli.AsJson = False,
) -> None:
    """Quantize a float network, without data or with a few unlabelled images.

    The output is QDQ ONNX; a name that ends in .tflite asks for a file for LiteRT, whose default target is tflite-int8.

    Example: equint quantize net.onnx -o net.int8.onnx --card net.toml --images 64
    """
    import equint

    from ..job import Job
    from ..pages import headline, story
    from ..pages.findings import kinds
    from ..pages.provenance import command_line

    options = {**formats.options(), **described.options(), **shown.options()}
    for_litert = cli.for_litert(output, io, options)
    cli.check_output(output, TFLITE if for_litert else NETWORK, formats, described, shown, model=model)
    if report is not None:
        cli.check_output(report, PAGE, formats, described, shown, model=model, quantized_model=output)
    with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
        options["progress"], spent = step, None
        if for_litert:
            Job.of(model, **options).rehearse()
        if max_drop is not None:
            spent = equint.mixed(model, max_drop, labels=cli.labels_of(shown), **options)
            options |= {"recipe": spent.recipe, "weight_bits": None, "activation_bits": None}
        result = equint.quantize(model, **options, effort=cli.effort_of(effort))
        measured = cli.measured(result, model, described.card, step) if measure and not for_litert else None
        result.save(output, io=io)
        found = equint.lint(output if for_litert else result, result.hardware)
        said = None if measured is None else measured.verdict
        again = {**cli.given(formats, described, shown), "target": options["target"], "io": io, "provider": provider}
        if report is not None:
            about: dict[str, Any] = {"name": model.stem, "saved": output, "command": command_line()}
            about["todo"] = story.onwards(result, said, spent, output, model, again, True)
            cli.write_page(report, equint.report(result, measured=measured, **about))
    if as_json:
        spending = {} if spent is None else {"mixed": spent.facts()}
        written = {"lint": found.facts(), "output": str(output), "file_bytes": output.stat().st_size}
        facts = result.facts()
        facts["warnings"] = [*facts["warnings"], *kinds(found)]
        told = headline.judged(said, spent, result.model)
        told |= {} if measured is None else {"measured": measured.facts()}
        terminal.print_json({**facts, **spending, **written, **told}, "quantize")
        return
    bound = "" if spent is None or max_drop is None else story.bound_kept(max_drop, spent, cli.top1_of(measured))
    for line in story.told(result, found, said, spent, output, model, again, bound, report is not None):
        terminal.say(line)
    if report is not None:
        terminal.say(f"page: {report}")
    if verbose:
        print(f"\n{result.summary()}")
        for line in kinds(found):
            print(f"! {line}")


def calibrate(
    model: cli.ModelFile,
    output: Annotated[Path, Option("-o", "--output", help="Where to write the statistics (.npz).")],
    data: cli.DataPath = None,
    card: cli.CardFile = None,
    mean: cli.Mean = None,
    std: cli.Std = None,
    layout: cli.Layout = None,
    set: cli.SetInputs = None,
    images: cli.ImageCount = None,
    histograms: Annotated[
        bool, Option(help="Count all values, for the range rules percentile and mse: slower.")
    ] = True,
    merge: Annotated[
        list[Path] | None, Option("--merge", help="Add statistics measured before; may be repeated.")
    ] = None,
    ray: cli.RayAddress = None,
    provider: cli.ProviderNames = None,
    force: cli.Force = False,
    as_json: cli.AsJson = False,
) -> None:
    """Measure a network's tensors on images; interrupted, it goes on where it was. Use with quantize --data.

    Example: equint calibrate net.onnx -o statistics.npz --card net.toml --images 64
    """
    import equint

    from ..drafts import remove
    from ..onnx.reader import with_constants
    from ..planning.data import check_statistics
    from ..samples.statistics import Statistics, merged

    cli.check_file(model)
    if output.suffix != ".npz":
        raise InvalidOption(f"{output}: statistics are .npz files; choose another name")
    cli.check_output(output, STATISTICS, model=model, data=data, card=card, merge=merge)
    draft = output.with_name(f"{output.stem}{failures.PART}")
    looks: dict[str, Any] = {**cli.Described(card, None, mean, std, layout, set, force).options(), "images": images}
    network, parts = equint.load(model), [Statistics.load(path) for path in merge or ()]
    network = with_constants(network, looks.pop("set") or {})
    for path, part in zip(merge or (), parts, strict=True):
        check_statistics(network, part, str(path))
    if data is not None or images is not None or not parts:
        looks["resume"] = draft
        with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
            looks["progress"] = lambda done: step("calibrating", done, images or 0)
            parts.append(equint.calibrate(network, data, histograms=histograms, ray=ray, **looks))
    found = merged(parts)
    found.save(output)
    if "resume" in looks:
        remove(draft)
    if as_json:
        terminal.print_json({"output": str(output), "images": found.images, "tensors": len(found.tensors)})
        return
    print(f"measured {counted(len(found.tensors), 'tensor')} on {counted(found.images, 'image')}; wrote {output}")


def recipes(
    show: Annotated[str | None, Option("--show", help="Print this recipe's TOML, to copy and change.")] = None,
    as_json: cli.AsJson = False,
) -> None:
    """List the built-in recipes and targets.

    Example: equint recipes --show optimal
    """
    from dataclasses import asdict

    from ..hardware.target import TARGETS
    from ..planning.recipe import built_in, recipe, source  # where `import equint` would load far more

    if show is not None:
        print(source(recipe(show).name), end="")
        return
    if as_json:
        listed = {"recipes": [asdict(r) for r in built_in()], "targets": [asdict(t) for t in TARGETS]}
        terminal.print_json(listed)
        return
    rows = [(r.name, str(r.level), r.target, r.description) for r in built_in()]
    terminal.print_table("recipes", ("recipe", ">level", "default target", "what it does"), rows)
    _list_targets(False)
    print("levels: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining")


def targets(
    target: Annotated[str | None, Argument(help="A target or its TOML file, to show. [default: list all]")] = None,
    show: Annotated[str | None, Option("--show", help="Show this target: its formats and rules, with sources.")] = None,
    as_json: cli.AsJson = False,
) -> None:
    """List the built-in targets, or show one.

    Example: equint targets openvino
    """
    if show is not None and target is not None:
        raise InvalidOption(f"--show {show}: {target} is named already; give one of them")
    if show is None and target is None:
        return _list_targets(as_json)
    from dataclasses import asdict

    from ..hardware.target import target as found
    from ..pages.targets import described

    on = found(target or show or "")
    if as_json:
        return terminal.print_json(asdict(on))
    print("\n".join(described(on)))
    return None


def _list_targets(as_json: bool) -> None:
    from dataclasses import asdict

    from ..hardware.target import TARGETS

    if as_json:
        return terminal.print_json([asdict(target) for target in TARGETS])
    rows = [(", ".join((t.name, *t.aliases)), t.recipe, t.audience, t.description) for t in TARGETS]
    return terminal.print_table("targets", ("target", "best recipe", "who it is for", "what it is"), rows)


def demo(as_json: cli.AsJson = False) -> None:
    """Quantize a small bundled network without data and show what that did.

    Example: equint demo
    """
    from ..demo.run import run

    with terminal.progress_bar(not as_json) as step:
        rows = run(step)
    if as_json:
        terminal.print_json(rows)
        return
    cells = [(r["network"], f"{r['accuracy']:.1f} %", f"{r['agreement']:.1f} %", r["size"]) for r in rows]
    title = "digits, 500 held-out images, no data used"
    terminal.print_table(title, ("network", ">accuracy", ">agreement", ">parameters"), cells)


COMMANDS: tuple[cli.Command, ...] = (
    *(
        people.auto,
        people.card,
        quantize,
        calibrate,
        study.inspect,
        study.explain,
        recipes,
        targets,
        study.evaluate,
        study.compare,
        study.lint,
    ),
    *(demo, study.sqnr, npu.export, npu.golden, npu.compare_board, npu.sizes, study.table, study.diagnose),
    *(study.report, study.page),
)
"""All commands, in the order in which help lists them."""
for command in COMMANDS:
    app.command()(cli.expanded(command))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an `EquintError` becomes one line and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in arguments[:1]:
        from .. import __version__

        print(f"equint {__version__}")
        return
    if empty := failures.empty(arguments):
        failures.end(f"equint: {empty}: is empty; give a value, or leave it out")
    debug = "--debug" in arguments
    sys.stdout, sys.stderr = sys.stdout or StringIO(), sys.stderr or StringIO()  # closed: nobody reads it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what an encoding has not is spelled out: the work is done
            stream.reconfigure(errors="backslashreplace")
    if not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries; what users should know is said by equint
    with noted() as written:
        code = _ran(arguments, debug, written)
    sys.exit(code)


def _ran(arguments: list[str], debug: bool, written: Sequence[Path]) -> int:
    """Run a command: its exit code; written: what has appeared until then."""
    try:
        code = app([a for a in arguments if a != "--debug"], prog_name="equint", standalone_mode=False) or 0
        if code == STOPPED:  # as the parser tells Ctrl-C
            raise KeyboardInterrupt
    except Misused as error:
        failures.end(failures.usage(error, [c.__name__.replace("_", "-") for c in COMMANDS]))
    except (KeyboardInterrupt, typer.Abort):
        failures.end(f"equint: stopped; {failures.kept(arguments, written)}", STOPPED)
    except EquintError as error:
        if debug:
            raise
        failures.end(f"equint: {failures.named(error, arguments, _spelling(arguments))}")
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        failures.end(f"equint: {where}{error.strerror or error}; give another file, or make room for it")
    except Exception as error:
        if debug:
            raise
        said = " ".join(str(error).split())[:300]
        kind = "not enough memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}: {said}"
        failures.end(f"equint: {kind}; --debug shows where")
    return int(code)


STOPPED = 130
"""Exit code of a command that was interrupted."""


def _spelling(arguments: Sequence[str]) -> dict[str, str]:
    """How the options of the command that is run are spelled, by their names."""
    group: Any = typer.main.get_command(app)
    command = group.commands.get(next((a for a in arguments if not a.startswith("-")), ""))
    params = () if command is None else command.params
    return {p.name: p.opts[-1] for p in params if p.opts[-1].startswith("--")}
