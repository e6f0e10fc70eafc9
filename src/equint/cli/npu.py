"""Commands for NPUs: export what they execute, dump what every layer should give, find where a board differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ..errors import InvalidOption, counted
from . import options as cli
from . import terminal

Network = Annotated[
    Path, Argument(metavar="MODEL", help="Float ONNX model, or a bundle made by export.", show_default=False)
]


def export(
    model: Network,
    output: Annotated[Path, Option("-o", "--output", help="Where to write it.", show_default=False)],
    format: Annotated[
        str,
        Option(
            "--format",
            help="npu (a bundle), integer (ONNX without floats), qdq (ONNX), tflite (for LiteRT); for compilers that "
            "quantize by themselves float ONNX with ranges (onnx-float) or AIMET's encodings (encodings) beside it.",
        ),
    ] = "npu",
    sparse: Annotated[
        str, Option("--sparse", help="Store weights as masks and what is not zero: auto, yes or no.")
    ] = "auto",
    *,
    formats: cli.Formats,
    described: cli.Described,
    shown: cli.Shown,
    effort: cli.EffortName = "full",
    as_json: cli.AsJson = False,
) -> None:
    """Quantize a network for an NPU and write it in integers alone, or for a compiler.

    Default target: npu-shift; of tflite tflite-int8, of onnx-float that of quantize, of encodings qnn.

    Example: equint export net.onnx -o net --card net.toml --target npu-shift
    """
    import equint

    from ..devices import FORMATS, export_files
    from ..files import is_bundle
    from ..npu.bundle import bundle_files

    chosen = next((known for known in FORMATS if known == format), None)
    if chosen is None:
        raise InvalidOption(f"--format {format}: choose {', '.join(FORMATS)}")
    kept: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}
    if sparse not in kept:
        raise InvalidOption(f"--sparse {sparse}: choose auto, yes or no")
    cli.check_file(model)
    if format != "npu" and sparse != "auto":
        raise InvalidOption(f"--sparse {sparse}: only bundles (--format npu) hold sparse weights; leave it out")
    for file, kind in export_files(output, chosen).items():
        for kept_file in bundle_files(model) if is_bundle(model) else (model,):
            cli.check_output(file, kind, formats, described, shown, model=kept_file)
    options = {**formats.options(), **described.options(), **shown.options()}
    if not is_bundle(model):
        options["effort"] = cli.effort_of(effort)
    with terminal.progress_bar(not as_json) as step:
        found = equint.export(model, output, format=chosen, sparse=kept[sparse], **options, progress=step)
    if as_json:
        terminal.print_json(found.facts())
        return
    from ..planning.summary import kilobytes

    if found.result is not None:
        print(found.result.summary())
    print("wrote " + ", ".join(f"{name} ({kilobytes(size)})" for name, size in found.files.items()))


def golden(
    model: Network,
    output: Annotated[Path, Option("-o", "--output", help="The folder to write.", show_default=False)],
    raw: Annotated[bool, Option("--raw", help="Also .bin files: the same values and nothing else.")] = False,
    *,
    formats: cli.Formats,
    described: cli.Described,
    data: cli.DataPath = None,
    images: Annotated[int, Option(min=1, help="How many images the vectors are of.")] = 1,
    io: cli.IoName = None,
    as_json: cli.AsJson = False,
) -> None:
    """Write the integers that every layer reads and gives, to check a board against.

    For LiteRT's targets also network.tflite, and tensors.npz: its tensors by name, as it has them.
    The images are those of --data, or of the card, or random ones; they are not used to quantize.

    Example: equint golden net.json -o golden/ --card net.toml
    """
    import equint

    cli.check_file(model)
    options: dict[str, Any] = {**formats.options(), **described.options(), "data": data, "images": images, "io": io}
    with terminal.progress_bar(not as_json) as step:
        found = equint.golden(model, output, raw=raw, **options, progress=step)
    if as_json:
        terminal.print_json(found.facts())
        return
    print(f"wrote {output}: {counted(len(found.steps), 'step')} on {found.seen}")


def compare_board(
    model: Network,
    dump: Annotated[
        Path,
        Argument(
            help="Folder with the device's tensors, named as golden names them; for LiteRT's targets also an .npz "
            "or folder of a .tflite file's tensors, by name or number."
        ),
    ],
    golden: Annotated[
        Path | None, Option("--golden", help="What they should be. [default: computed from the dumped inputs]")
    ] = None,
    recipe: cli.RecipeName = None,
    target: cli.TargetName = None,
    *,
    described: cli.Described,
    io: cli.IoName = None,
    as_json: cli.AsJson = False,
) -> None:
    """Name the first layer in which a device differs, by how much and why. Exits with 1 where one does.

    Example: equint compare-board net.json dump/ --golden golden/
    """
    import equint

    cli.check_file(model)
    with terminal.progress_bar(not as_json) as step:
        found = equint.compare_board(model, dump, golden, recipe, target, **described.options(), io=io, progress=step)
    if as_json:
        terminal.print_json(found.facts())
    else:
        print("\n".join(found.lines()))
    if found.first is not None:
        raise typer.Exit(1)


def sizes(
    model: Annotated[Path | None, Argument(help="Float ONNX model or bundle. [default: tables of the paper]")] = None,
    sparsity: Annotated[
        float, Option(min=0.0, max=0.99, help="Set this share of each layer's weights to zero before.")
    ] = 0.0,
    every: Annotated[bool, Option("--layers", help="Show every layer.")] = False,
    weight_bits: cli.WeightBits = None,
    as_json: cli.AsJson = False,
) -> None:
    """Show the parameter bytes of a network under LWQ, CWQ and WES, dense and sparse.

    Example: equint sizes net.onnx
    """
    import equint

    from ..npu.sizes import SCHEMES

    if model is None:
        if sparsity or weight_bits:
            raise InvalidOption("--sparsity and --weight-bits are for a network; name one")
        return _paper_sizes(as_json)
    cli.check_file(model)
    found = equint.sizes(model, sparsity=sparsity, weight_bits=weight_bits)
    if as_json:
        return terminal.print_json(found.facts())
    for title, suffix in (("dense", ""), ("sparse", "_sparse")):
        rows = [
            (row["layer"], f"{row['weights']:,}", f"{100 * row['zeros']:.1f} %")
            + tuple(f"{row[scheme + suffix]:,}" for scheme in SCHEMES)
            for row in (*(found.layers if every else ()), {**found.total, "layer": "all layers"})
        ]
        more = (100 * (found.total[s + suffix] / found.total[f"lwq{suffix}"] - 1) for s in ("cwq", "wes"))
        rows.append(("more than LWQ", "", "", "", *(f"+{percent:.1f} %" for percent in more)))
        columns = ("layer", ">weights", ">zeros", ">LWQ", ">CWQ", ">WES")
        terminal.print_table(f"parameter bytes, {title}", columns, rows)
    print("CWQ: 38-bit scale compound, 8-bit zero point per channel. WES: one of each per layer, 4-bit shifts")
    return None


def _paper_sizes(as_json: bool) -> None:
    from ..npu.published import table_4
    from ..npu.sizes import SCHEMES, figure_4, paper_tables, parameter_bits

    if as_json:
        bits = {n: parameter_bits(n) for n in (1, 32, 1024)}
        return terminal.print_json(
            {"bits": bits, "figure_4": figure_4(), "printed": paper_tables(), "table_4": table_4()}
        )
    first = [("mantissa M", "32", "32·N", "32"), ("exponent s", "6", "6·N", "6")]
    first += [("shift S", "", "", "4·N"), ("zero point z", "8", "8·N", "8")]
    schemes = (">LWQ", ">CWQ", ">WES")
    terminal.print_table("table 1: bits, N output channels", ("weight parameters", *schemes), first)
    printed, layers, networks = {(r["part"], r["scheme"], r["channels"]): r["printed"] for r in paper_tables()}, [], []
    for row in figure_4():
        cells = []
        for scheme in ("cwq", "wes"):
            known = printed.get((row["part"], scheme, row["channels"]))
            cells.append(f"+{row[f'{scheme}_more']:.1f} %" + (f" ({known})" if known is not None else ""))
        layers.append((row["layer"], f"{row['channels']:,}", f"{row['lwq']:,.0f}", *cells))
    title = "figure 4: bytes of a layer (in brackets: as printed)"
    terminal.print_table(title, ("layer", ">channels", *schemes), layers)
    for row in table_4():
        cells = [f"{row[s]:.{len(row['printed'][s].split('.')[1])}f} ({row['printed'][s]})" for s in ("fp32", *SCHEMES)]
        networks.append((row["network"], *cells))
    terminal.print_table("table 4: MB (in brackets: as printed)", ("network", ">FP32", *schemes), networks)
    return None
