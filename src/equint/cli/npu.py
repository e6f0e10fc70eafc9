"""Commands for NPUs: export what they execute, dump what every layer should give, find where a board differs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
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
    RecipeName,
    Std,
    TargetName,
    WeightBits,
    activation_bits_of,
    check_file,
    check_output,
    console,
    input_of,
    pass_progress,
    print_json,
    table_of,
)

if TYPE_CHECKING:
    from ..api import Result
    from ..integers.program import Program
    from ..ir.model import Array, Name

FORMATS = ("npu", "integer", "qdq")
Network = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Float ONNX model, or a bundle made by export.", show_default=False),
]


def export(
    model: Network,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.", show_default=False)],
    format: Annotated[
        str, typer.Option("--format", help="npu (a bundle), integer (ONNX without floats) or qdq (ONNX).")
    ] = "npu",
    sparse: Annotated[
        str, typer.Option("--sparse", help="Store weights as masks and what is not zero: auto, yes or no.")
    ] = "auto",
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
    """Quantize a network for an NPU and write it in integers alone. [default target: npu-shift]"""

    if format not in FORMATS:
        raise EquintError(f"--format {format}: choose {', '.join(FORMATS)}")
    from ..files import is_bundle
    from ..npu.bundle import bundle_files

    kept = {"auto": "auto", "yes": True, "no": False}
    if sparse not in kept:
        raise EquintError(f"--sparse {sparse}: choose auto, yes or no")
    check_file(model)
    if format != "npu" and sparse != "auto":
        raise EquintError(f"--sparse {sparse}: only bundles (--format npu) hold sparse weights; leave it out")
    for file in bundle_files(output) if format == "npu" else (output,):
        for kept_file in bundle_files(model) if is_bundle(model) else (model,):
            check_output(file, model=kept_file, data=data, card=card, recipe=recipe)
    options = (recipe, target, weight_bits, activation_bits, card, input_range, mean, std, data, images)
    result = None if is_bundle(model) else _quantized(model, not as_json, *options)
    if format == "qdq":
        if result is None:
            raise EquintError(f"{model}: a bundle holds no scales of layers; export qdq from the float network")
        result.save(output)
        files = [output]
    else:
        program = _bundled(model, *options) if result is None else result.program
        if format == "npu":
            from ..npu.bundle import save_bundle

            files = list(save_bundle(program, output, sparse=kept[sparse]))  # type: ignore[arg-type]
        else:
            from ..integers.emit import export_integer
            from ..onnx.writer import save_proto

            save_proto(export_integer(program), output)
            files = [output]
    sizes = {str(f): f.stat().st_size for f in files}
    if as_json:
        told = {} if result is None else result.facts()
        return print_json({**told, "format": format, "files": sizes})
    from ..pages.summary import kilobytes

    if result is not None:
        print(result.summary())
    print("wrote " + ", ".join(f"{name} ({kilobytes(size)})" for name, size in sizes.items()))
    return None


def golden(
    model: Network,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Also .bin files: the same values and nothing else.")] = False,
    recipe: RecipeName = None,
    target: TargetName = None,
    weight_bits: WeightBits = None,
    activation_bits: ActivationBits = None,
    card: CardFile = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    data: DataPath = None,
    images: Annotated[int, typer.Option(min=1, help="How many images the vectors are of.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write the integers that every layer reads and gives, to check a board against.

    The images are those of --data, or of the card, or random ones; they are not used to quantize.
    """
    from ..npu.golden import write_golden

    check_file(model)
    program, warnings = _program(
        model, not as_json, recipe, target, weight_bits, activation_bits, card, input_range, mean, std, None, None
    )
    feeds, shown = _feeds(program, data, input_of(card, input_range, mean, std), images)
    steps = write_golden(program, feeds, output, raw=raw)
    if as_json:
        return print_json({"output": str(output), "images": shown, "steps": steps, "warnings": warnings})
    count = len(next(iter(feeds.values())))
    print(f"wrote {output}: {len(steps)} steps on {count} {shown}")
    return None


def compare_board(
    model: Network,
    dump: Annotated[Path, typer.Argument(help="Folder with the device's tensors, named as golden names them.")],
    golden: Annotated[
        Path | None, typer.Option("--golden", help="What they should be. [default: computed from the dumped inputs]")
    ] = None,
    recipe: RecipeName = None,
    target: TargetName = None,
    card: CardFile = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    as_json: AsJson = False,
) -> None:
    """Name the first layer in which a device differs, by how much and why. Exits with 1 where one does."""
    from ..npu.board import compare_board as compare
    from ..npu.board import dumped_inputs

    check_file(model)
    program, _ = _program(model, not as_json, recipe, target, None, None, card, input_range, mean, std, None, None)
    found = compare(program, golden if golden is not None else dumped_inputs(program, dump), dump)
    if as_json:
        print_json(found.facts())
    else:
        print("\n".join(found.lines()))
    if found.first is not None:
        raise typer.Exit(1)


def sizes(
    model: Annotated[
        Path | None, typer.Argument(help="Float ONNX model or bundle. [default: tables of the paper]")
    ] = None,
    sparsity: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Set this share of each layer's weights to zero before.")
    ] = 0.0,
    every: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    weight_bits: WeightBits = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameter bytes of a network under LWQ, CWQ and WES, dense and sparse."""
    from ..npu import sizes as counted

    if model is None:
        if sparsity or weight_bits:
            raise EquintError("--sparsity and --weight-bits are for a network; name one")
        return _paper_sizes(as_json)
    check_file(model)
    found = counted.network_sizes(_pruned(model, sparsity, weight_bits))
    if as_json:
        return print_json(found)
    rows = [*(found["layers"] if every else ()), {**found["total"], "layer": "all layers"}]
    for title, suffix in (("dense", ""), ("sparse", "_sparse")):
        table = table_of(f"parameter bytes, {title}", "layer", ">weights", ">zeros", ">LWQ", ">CWQ", ">WES")
        for row in rows:
            sizes = (f"{row[scheme + suffix]:,}" for scheme in counted.SCHEMES)
            table.add_row(row["layer"], f"{row['weights']:,}", f"{100 * row['zeros']:.1f} %", *sizes)
        more = (100 * (rows[-1][s + suffix] / rows[-1][f"lwq{suffix}"] - 1) for s in ("cwq", "wes"))
        table.add_row("more than LWQ", "", "", "", *(f"+{percent:.1f} %" for percent in more))
        console().print(table)
    print("CWQ: 38-bit scale compound, 8-bit zero point per channel. WES: one of each per layer, 4-bit shifts")
    return None


COMMANDS: tuple[Callable[..., None], ...] = (export, golden, compare_board, sizes)
"""What the command line offers beside its own."""


def _asked(
    recipe: str | None,
    target: str | None,
    weight_bits: int | None,
    activation_bits: str | None,
    card: Path | None,
    input_range: tuple[float, float] | None,
    mean: str | None,
    std: str | None,
    data: Path | None,
    images: int | None,
) -> dict[str, Any]:
    """The options of quantization, for the library."""
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits_of(activation_bits)}
    looks = {"input": input_of(card, input_range, mean, std), "data": data, "images": images}
    return {"recipe": recipe, "target": target, **bits, **looks}


def _quantized(model: Path, shown: bool, *options: Any) -> Result:
    """A float network quantized, for the shift target where none is named."""
    from .. import api

    asked = _asked(*options)
    with pass_progress(shown) as step:
        return api.quantize(model, **{**asked, "target": asked["target"] or api.NPU}, progress=step)


def _bundled(model: Path, *options: Any) -> Program:
    """The program that a bundle holds; its input may be described, nothing else be asked of it."""
    from .. import api

    return api.program(model, **{k: v for k, v in _asked(*options).items() if k != "input"})


def _program(model: Path, shown: bool, *options: Any) -> tuple[Program, list[str]]:
    """The program that a bundle holds, or that a float network becomes; and warnings."""
    from ..files import is_bundle

    if is_bundle(model):
        return _bundled(model, *options), []
    result = _quantized(model, shown, *options)
    return result.program, [str(e) for e in result.warnings]


def _feeds(program: Program, data: Path | None, given: Any, count: int) -> tuple[dict[Name, Array], str]:
    """Inputs for golden vectors, and what they are."""
    import numpy as np

    from ..maths.affine import storage
    from ..samples.card import Card, read_card
    from ..samples.data import batches

    card = read_card(given) if isinstance(given, Path) else given if isinstance(given, Card) else Card()
    where = data or card.data.get("calibration") or card.data.get("eval")
    if where is not None:
        if len(program.inputs) != 1:
            raise EquintError(f"{where}: the network has {len(program.inputs)} inputs; leave data out for random ones")
        taken = [x for x, _ in islice(batches(where, card, size=count, limit=count), 1)]
        return {program.inputs[0]: taken[0]}, f"images of {where}"
    rng = np.random.default_rng(0)
    feeds = {}
    for name in program.inputs:
        grid, shape = program.grids[name], program.shapes.get(name, ())
        if not all(isinstance(n, int) for n in shape[1:]):
            raise EquintError(f"input {name} has no fixed size {tuple(shape)}; give --data or a card with images")
        size = [count, *(int(n) for n in shape[1:] if isinstance(n, int))]
        feeds[name] = rng.integers(grid.qmin, grid.qmax, size, endpoint=True).astype(storage(grid))
    return feeds, "random images"


def _pruned(model: Path, sparsity: float, weight_bits: int | None) -> Any:
    """The network's own integers under the shift target, after pruning."""
    from dataclasses import replace

    from .. import api
    from ..files import is_bundle
    from ..planning.recipe import recipe

    if is_bundle(model):
        if sparsity or weight_bits:
            raise EquintError(f"{model}: a bundle's weights are what they are; leave the options out")
        return api.program(model)
    chosen = recipe("wes")
    prune = (("prune", {"sparsity": sparsity, "cost": "weights"}),) if sparsity else ()
    at = 1 + next(k for k, (name, _) in enumerate(chosen.passes) if name == "fold_batchnorm")
    chosen = replace(chosen, passes=(*chosen.passes[:at], *prune, *chosen.passes[at:]))
    return api.quantize(model, chosen, "npu-shift", weight_bits=weight_bits).model


def _paper_sizes(as_json: bool) -> None:
    from ..npu.published import table_4
    from ..npu.sizes import SCHEMES, figure_4, paper_tables, parameter_bits

    if as_json:
        bits = {n: parameter_bits(n) for n in (1, 32, 1024)}
        return print_json({"bits": bits, "figure_4": figure_4(), "printed": paper_tables(), "table_4": table_4()})
    first = table_of("table 1: bits, N output channels", "weight parameters", ">LWQ", ">CWQ", ">WES")
    for what, *each in (
        ("mantissa M", "32", "32·N", "32"),
        ("exponent s", "6", "6·N", "6"),
        ("shift S", "", "", "4·N"),
        ("zero point z", "8", "8·N", "8"),
    ):
        first.add_row(what, *each)
    printed = {(r["part"], r["scheme"], r["channels"]): r["printed"] for r in paper_tables()}
    title = "figure 4: bytes of a layer (in brackets: as printed)"
    figure = table_of(title, "layer", ">channels", ">LWQ", ">CWQ", ">WES")
    for row in figure_4():
        cells = []
        for scheme in ("cwq", "wes"):
            told = printed.get((row["part"], scheme, row["channels"]))
            cells.append(f"+{row[f'{scheme}_more']:.1f} %" + (f" ({told})" if told is not None else ""))
        figure.add_row(row["layer"], f"{row['channels']:,}", f"{row['lwq']:,.0f}", *cells)
    fourth = table_of("table 4: MB (in brackets: as printed)", "network", ">LWQ", ">CWQ", ">WES")
    for row in table_4():
        told = (f"{row[s]:.{len(row['printed'][s].split('.')[1])}f} ({row['printed'][s]})" for s in SCHEMES)
        fourth.add_row(row["network"], *told)
    for table in (first, figure, fourth):
        console().print(table)
    return None
