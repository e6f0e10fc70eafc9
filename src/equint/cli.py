"""The command line. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import EquintError

if TYPE_CHECKING:
    from rich.table import Table

    from .evaluate.data import Card

app = typer.Typer(
    help="Turn trained convolutional networks (ONNX) into fixed-point networks, from their weights alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelFile = Annotated[Path, typer.Argument(help="ONNX model.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
CardFile = Annotated[Path | None, typer.Option("--card", help="TOML card that says how the network's input is made.")]
Mean = Annotated[str | None, typer.Option(help="Pixel means, comma-separated, as in (x − mean)/std.")]
Std = Annotated[str | None, typer.Option(help="Pixel standard deviations, comma-separated.")]
TargetName = Annotated[
    str | None,
    typer.Option("--target", help="What the hardware accepts: per-channel, per-tensor or per-tensor-clip."),
]


RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Recipe name or TOML file. [default: the target's best]")
]
WeightBits = Annotated[int | None, typer.Option("--weight-bits", help="2 to 16. [default: 8]")]
ActivationBits = Annotated[
    str | None, typer.Option("--activation-bits", help="2 to 16, or float for weights only. [default: 8]")
]
InputRange = Annotated[
    tuple[float, float] | None,
    typer.Option("--input-range", metavar="LO HI", help="Lowest and highest value of the network's input."),
]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", help="Unlabelled images: .npz, .npy, a folder (with --card), or saved statistics."),
]
ImageCount = Annotated[
    int | None,
    typer.Option("--images", min=1, help="Look at so many images. Without --data: of the card's calibration data."),
]


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
    as_json: AsJson = False,
) -> None:
    """Quantize a float network, without data or with a few unlabelled images."""
    from . import api

    given = _input(card, input_range, mean, std)
    bits = _activation_bits(activation_bits)
    _check_output(output, model, data)
    with _progress(not as_json) as step:
        looks: dict[str, Any] = {"input": given, "data": data, "images": images, "progress": step}
        result = api.quantize(model, recipe, target, weight_bits=weight_bits, activation_bits=bits, **looks)
        result.save(output)
    if as_json:
        _print_json({**result.facts(), "output": str(output), "file_bytes": output.stat().st_size})
        return
    from .report.summary import kilobytes

    print(result.summary())
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
    from . import api
    from .statistics import Statistics, merged

    _check_file(model)
    if output.suffix != ".npz":
        raise EquintError(f"{output}: statistics are .npz files; choose another name")
    _check_output(output, model, data)
    draft = output.with_name(f"{output.stem}.part.npz")
    network, parts = api.load(model), [Statistics.load(path) for path in merge or ()]
    for path, part in zip(merge or (), parts, strict=True):
        api.check_statistics(network, part, str(path))
    if data is not None or images is not None or not parts:
        given = _input(card, None, mean, std)
        with _counter(not as_json, lambda: images or 0, "calibrating") as done:
            looks: dict[str, Any] = {"input": given, "images": images, "resume": draft, "progress": done}
            parts.append(api.calibrate(network, data, histograms=histograms, **looks))
    found = merged(parts)
    found.save(output)
    draft.unlink(missing_ok=True)
    if as_json:
        _print_json({"output": str(output), "images": found.images, "tensors": len(found.tensors)})
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
    from . import api

    found = api.inspect(model, target, input=card)
    if as_json:
        return _print_json(found)
    layers = _table("layers", "layer", "kind", ">weights", ">spread", ">overlap", ">dead", "moments")
    for row in found["layers"]:
        shape = "×".join(map(str, row["shape"]))
        numbers = (f"{row['spread']:.1f}", f"{row['overlap_ratio']:.3f}", str(row["dead"]))
        layers.add_row(row["name"], row["op"], shape, *numbers, row["moments"])
    groups = _table("free channel scales", ">channels", "given by", "taken by", "passed", "clips")
    for row in found["groups"]:
        cells = (_few(row[k]) for k in ("givers", "takers", "tensors", "clips"))
        groups.add_row(str(row["channels"]), *cells)
    pins = _table("pinned to scale 1", "tensor", "why")
    for tensor, why in found["pinned"].items():
        pins.add_row(tensor, why)
    for table in (layers, groups, pins):
        if table.row_count:
            _console().print(table)
    for op, nodes in found["borders"].items():
        print(f"{op} stays float: {_few(nodes)}")
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
    from . import api

    given, bits = _input(card, input_range, mean, std), _activation_bits(activation_bits)
    with _progress(not as_json) as step:
        looks: dict[str, Any] = {"input": given, "data": data, "images": images, "progress": step}
        found = api.explain(model, recipe, target, weight_bits=weight_bits, activation_bits=bits, **looks)
    if as_json:
        return _print_json(found)
    from .report.explanation import changes, layers, totals

    for title, columns, rows in (totals(found), layers(found, None if every else 10), changes(found)):
        table = _table(title, *columns)
        for row in rows:
            table.add_row(*row)
        if table.row_count:
            _console().print(table)
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

    from .recipe import built_in, recipe, source
    from .target import TARGETS

    if show is not None:
        print(source(recipe(show).name), end="")
        return
    if as_json:
        _print_json({"recipes": [asdict(r) for r in built_in()], "targets": [asdict(t) for t in TARGETS]})
        return
    table = _table("recipes", "recipe", ">level", "default target", "what it does")
    for r in built_in():
        table.add_row(r.name, str(r.level), r.target, r.description)
    hardware = _table("targets", "target", "default recipe", "what it is")
    for t in TARGETS:
        hardware.add_row(t.name, t.recipe, t.description)
    for shown in (table, hardware):
        _console().print(shown)
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
    """Measure accuracy on labels, and agreement and SQNR against the float original."""
    from .evaluate import data as datasets
    from .evaluate.metrics import evaluate as measure

    _check_file(model)
    prepared = _card(card, kind or _kind(model, mean, std), mean, std, size)
    where = data or prepared.data.get("eval")
    if where is None:
        raise EquintError("no data to evaluate on: give --data, or a card with eval in [data]")
    if against is not None:
        _check_file(against)
    with _counter(not as_json, lambda: datasets.count(where, limit)) as done:
        found = measure(model, where, prepared, against, optimized=optimized, limit=limit, progress=done)
    if as_json:
        _print_json({"model": str(model), "data": str(where), **found})
        return
    table = _table("", "measure", ">value")
    units = {"top1": " %", "top5": " %", "agreement": " %", "sqnr_db": " dB"}
    for key, value in found.items():
        if key != "outputs":
            shown = f"{value:.4f}" if key == "cosine" else str(value) if key == "samples" else f"{value:.2f}"
            table.add_row(key, shown + units.get(key, ""))
    _console().print(table)


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

    from .analysis.compare import compare as measure
    from .evaluate.data import batches

    for file in (original, quantized):
        _check_file(file)
    prepared = _card(card, None, None, None, None)
    where = data or prepared.data.get("calibration")
    feeds = None if where is None else (x for x, _ in batches(where, prepared, size=8, limit=limit))
    rows = measure(original, quantized, feeds)
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    title = f"on {where}" if where else "on random inputs; --card or --data for real ones"
    table = _table(title, "tensor", "made by", ">SQNR dB", ">peak", "")
    for row in rows:
        bar = "█" * max(0, min(30, round(row.sqnr_db / 2))) if row.sqnr_db < 1e3 else "exact"
        table.add_row(row.tensor, row.op, f"{row.sqnr_db:.1f}", f"{row.peak:.3g}", bar)
    _console().print(table)


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Quantize a small bundled network without data and show what that did."""
    from .demo.run import run

    with _progress(not as_json) as step:
        rows = run(step)
    if as_json:
        _print_json(rows)
        return
    table = _table("digits, 500 held-out images, no data used", "network", ">accuracy", ">agreement", ">parameters")
    for row in rows:
        cells = (f"{row['accuracy']:.1f} %", f"{row['agreement']:.1f} %", row["size"])
        table.add_row(row["network"], *cells)
    _console().print(table)


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
    from . import api
    from .report import layer_sqnr as report

    if plot is not None:
        report.check_plot(plot)
        _check_output(plot, model)
    given = _input(card, input_range, mean, std)
    with _progress(not as_json) as step:
        found = api.sqnr(model, target, input=given, data=data, images=images, progress=step)
    if plot is not None:
        report.plot(found, plot, model.stem)
    if as_json:
        return _print_json(found)
    for title, columns, rows in report.tables(found):
        table = _table(title, *columns)
        for row in rows:
            table.add_row(*row)
        _console().print(table)
    for line in (*report.notes(found), *([f"wrote {plot}"] if plot else [])):
        print(line)
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an `EquintError` becomes one line and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in arguments[:1]:
        from . import __version__

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


def _input(card: Path | None, span: tuple[float, float] | None, mean: str | None, std: str | None) -> Any:
    """What --card, --input-range or --mean and --std say of the input."""
    if sum(g is not None for g in (card, span, mean or std)) > 1:
        raise EquintError("give one of --card, --input-range and --mean with --std")
    if mean is not None or std is not None:
        return _card(None, None, mean, std, None)
    return card if card is not None else span


def _card(card: Path | None, kind: str | None, mean: str | None, std: str | None, size: tuple[int, int] | None) -> Card:
    """The card given, or one made of options."""
    from .evaluate.data import KINDS, Card, read_card

    if card is not None:
        return read_card(card)
    if kind is not None and kind not in KINDS:
        raise EquintError(f"kind {kind!r}; choose {', '.join(KINDS)}")
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    count = max(len(means), len(stds), 1)
    means, stds = means or (0.0,) * count, stds or (1.0,) * count
    if len(means) != len(stds) or any(s <= 0 for s in stds):
        raise EquintError("--mean and --std need as many numbers each, std above 0")
    chosen = kind or ("features" if mean is None and std is None else "gray" if count == 1 else "rgb")
    return Card(chosen, means, stds, size)


def _kind(model: Path, mean: str | None, std: str | None) -> str | None:
    """rgb or gray by the channels of the model's input, where pixels are normalised."""
    if mean is None and std is None:
        return None
    from .runtime.session import Session

    shape = next(iter(Session(model).shapes.values()), ())
    return "gray" if len(shape) == 4 and shape[1] == 1 else "rgb"


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise EquintError(f"{option} {text}: give numbers separated by commas, such as 123.7,116.3,103.5") from error


def _activation_bits(text: str | None) -> Any:
    if text is None or text == "float":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise EquintError(f"--activation-bits {text}: give 2 to 16, or float") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise EquintError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")


def _check_output(path: Path, model: Path, data: Path | None = None) -> None:
    """Fail before the work and not after it."""
    from .files import writable

    for what, given in (("the float model", model), ("the data", data)):
        if given is not None and writable(path) == given.resolve():
            raise EquintError(f"{path}: would overwrite {what}; choose another output")


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the passes, on standard error and only for people."""
    if not (shown and sys.stderr.isatty()):
        yield lambda name, number, total: None
        return
    from rich.progress import Progress

    with Progress(console=_console(True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, number, total: bar.update(task, description=name, completed=number, total=total)


@contextmanager
def _counter(shown: bool, total: Callable[[], int], what: str = "evaluating") -> Iterator[Callable[[int], None]]:
    """A bar over samples, on standard error and only for people."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=_console(True), transient=True) as bar:
        task = bar.add_task(what, total=total() or None)
        yield lambda done: bar.update(task, completed=done)


def _console(errors: bool = False) -> Any:
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False)


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    """JSON has no infinity: exact agreement (infinite SQNR) becomes null."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
