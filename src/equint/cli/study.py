"""Commands that put results beside one another: tables of many networks, diagnosis of one, a page about one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EquintError
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
    check_output,
    counter,
    input_of,
    labels_of,
    pass_progress,
    print_json,
    write_page,
)

if TYPE_CHECKING:
    from ..api import Result


def table(
    networks: Annotated[list[Path], typer.Argument(help="Cards, or ONNX models with a card beside them.")],
    recipe: Annotated[list[str], typer.Option("--recipe", help="Recipe name or TOML file; may be repeated.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", help="May be repeated. [default: each recipe's own]")
    ] = None,
    bits: Annotated[
        list[str] | None,
        typer.Option("--bits", help="Weights/activations, such as 4/8; may be repeated. [default: 8/8]"),
    ] = None,
    images: Annotated[
        list[int] | None, typer.Option("--images", help="Look at so many images, 0: none; may be repeated.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="Samples to judge on: N, or NETWORK=N; may be repeated.")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder that keeps what was found.")] = Path("equint-results"),
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes.")] = 1,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the table, as Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure many networks under many recipes, targets and bit widths; interrupted, it goes on where it was."""
    from ..files import drafted
    from ..study.table import jsonlines, markdown
    from ..study.table import table as measure

    if output is not None:
        for path in networks:
            check_output(output, network=path)
        for name in recipe:
            check_output(output, recipe=name)
    widths = [_widths(text) for text in bits or ["8/8"]]
    if any(n < 0 for n in images or ()):
        raise EquintError(f"--images {min(images or ())}: give how many, or 0 for none")
    shown = [n or None for n in images] if images else None
    total = 0

    with counter(not as_json, lambda: total, "measuring") as done:
        rows = measure(
            networks,
            recipe,
            target or (),
            bits=widths,
            images=shown,
            limit=_limits(limit),
            cache=cache,
            jobs=jobs,
            progress=lambda count, every, name: done(count),
        )
    text = markdown(rows)
    if output is not None:
        with drafted(output) as (draft, _):
            draft.write_text(text, "utf-8")
    print(jsonlines(rows) if as_json else text, end="")


def report(
    model: ModelFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the page.", show_default=False)],
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
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Also judge it on so many samples of the card's eval.")
    ] = None,
) -> None:
    """Quantize a network and write a page about what that did: one HTML file that needs nothing else."""
    from .. import api

    given = input_of(card, input_range, mean, std)
    check_output(output, model=model, data=data, card=card, recipe=recipe)
    if limit is not None and card is None:
        raise EquintError("--limit needs a card that names what to judge on (eval in [data])")
    bits: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": activation_bits_of(activation_bits)}
    looks: dict[str, Any] = {"input": given, "data": data, "images": images}
    with pass_progress(True) as step:
        result = api.quantize(model, recipe, target, **bits, **looks, progress=step)
    measured = None if limit is None or card is None else _measured(result, model, card, limit)
    write_page(output, api.report(result, **looks, measured=measured, name=model.stem))
    print(f"wrote {output}")


def diagnose(
    model: ModelFile,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the recipe that pays most (.toml).")
    ] = None,
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
    every: Annotated[bool, typer.Option("--all", help="Show all layers and tensors that were measured.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find which layers cost a quantized network most, why, and what helps; every gain is measured."""
    from .. import studies as study
    from ..pages.diagnosis import text
    from ..planning.recipe import to_toml

    if output is not None:
        if output.suffix != ".toml":
            raise EquintError(f"{output}: recipes are .toml files; choose another name")
        check_output(output, model=model, data=data, card=card, recipe=recipe)
    given, bits = input_of(card, input_range, mean, std), activation_bits_of(activation_bits)
    with pass_progress(not as_json) as step:
        looks: dict[str, Any] = {"input": given, "data": data, "images": images, "progress": step}
        formats: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": bits}
        found = study.diagnose(model, recipe, target, labels=labels_of(data, images), **formats, **looks)
    if output is not None:
        write_page(output, to_toml(found.recipe))
    if as_json:
        return print_json({**found.facts(), **({"output": str(output)} if output else {})})
    print(text(found.facts(), None if every else 8))
    if output is not None:
        print(f"wrote {output}; equint quantize --recipe takes it")
    return None


COMMANDS: tuple[Callable[..., None], ...] = (table, diagnose, report)
"""What the command line offers beside its own."""


def _widths(text: str) -> tuple[int, Any]:
    weights, _, activations = text.partition("/")
    try:
        return int(weights), "float" if activations == "float" else int(activations)
    except ValueError as error:
        raise EquintError(f"--bits {text}: give weights/activations, such as 8/8, 4/8 or 8/float") from error


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
    raise EquintError(f"--limit {' '.join(given)}: give one number, or NETWORK=NUMBER for each")


def _measured(result: Result, model: Path, card: Path, limit: int) -> dict[str, Any]:
    """Figures of the quantized network, and the float ones by "float_" and their name."""
    from tempfile import TemporaryDirectory

    from ..samples.card import read_card
    from ..scoring.metrics import evaluate
    from ..scoring.tasks import judged

    prepared = read_card(card)
    where = prepared.data.get("eval")
    if where is None:
        raise EquintError(f"{card}: names no eval in [data] to judge on; add it, or leave --limit out")
    with TemporaryDirectory() as folder, counter(True, lambda: 2 * limit, "judging") as done:
        file = Path(folder) / "quantized.onnx"
        result.save(file)
        found = evaluate(file, where, prepared, model, limit=limit, progress=done)
        original = evaluate(model, where, prepared, limit=limit, optimized=True, progress=lambda n: done(limit + n))
    words = judged(prepared.task, found, original).words
    return {**found, **{f"float_{key}": value for key, value in original.items()}, "verdict": words}
