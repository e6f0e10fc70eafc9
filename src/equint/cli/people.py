"""Commands that need no choices: one that does everything, and one that writes a card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option

from ..errors import InvalidOption, counted
from ..kinds import CARD, NETWORK, PAGE, TFLITE
from . import options as cli
from . import terminal

if TYPE_CHECKING:
    from ..automatic import Automatic
    from ..hardware.target import Target

MaxDrop = Annotated[
    float | None,
    Option("--max-drop", help="Lose at most so many points of the card's measure (dB of PSNR); needs labels."),
]


def auto(
    model: cli.ModelFile,
    target: cli.TargetName = None,
    card: cli.CardFile = None,
    data: Annotated[
        Path | None, Option("--data", help="Pictures in a folder, or an .npz; labelled or not. [default: the card's]")
    ] = None,
    max_drop: MaxDrop = None,
    input_range: cli.InputRange = None,
    output: Annotated[
        Path | None, Option("-o", "--output", help="Where to write the int8 model. [default: NAME.int8.onnx, here]")
    ] = None,
    io: cli.IoName = None,
    effort: Annotated[
        str | None,
        Option("--effort", help="fast or full, as for quantize. [default: fast first, full where that is not good]"),
    ] = None,
    limit: Annotated[int, Option(min=1, help="Measure on so many samples at most.")] = 400,
    provider: cli.ProviderNames = None,
    force: cli.Force = False,
    verbose: cli.Verbose = False,
    as_json: cli.AsJson = False,
) -> None:
    """Quantize a network, measure it, check it against its target, and say how good it is. MODEL alone will do.

    Writes NAME.int8.onnx and a page about it, NAME.int8.html (of NAME.tflite: NAME.tflite.html). Exit code 1: the bound
    is not held, or the target refuses the file.

    Example: equint auto net.onnx --data photos/ --target openvino
    """
    import equint

    from ..automatic import MEASURED
    from ..pages.provenance import command_line
    from ..planning.spared import spare

    cli.check_file(model)
    asked, output = output, Path(f"{model.stem}.int8.onnx") if output is None else output
    if output.is_dir():
        output = output / f"{model.stem}.int8.onnx"
    if output.suffix.lower() not in (".onnx", ".tflite"):
        raise InvalidOption(f"-o {output}: a model is an .onnx or a .tflite file, and a page is written beside it")
    options: dict[str, Any] = {"target": target}
    for_litert, page = cli.for_litert(output, io, options), _page_of(output)
    hurry = None if effort is None else cli.effort_of(effort)
    written: dict[Path, str | None] = {output: TFLITE if for_litert else NETWORK, page: PAGE}
    spare(written, {"model": model, "card": card, "data": data, "target": target})
    with cli.running_on(provider), terminal.progress_bar(not as_json) as step:
        found = equint.auto(
            model,
            options["target"],
            card=card,
            data=data,
            input_range=input_range,
            max_drop=max_drop,
            limit=limit,
            effort=hurry,
            force=force,
            progress=step,
        )
        found.result.save(output, io=io)
        if for_litert:
            found = replace(found, findings=equint.lint(output, found.result.hardware))
        given: dict[str, Any] = {"output": asked, "card": card, "data": data, "input_range": input_range}
        given |= {"max_drop": max_drop, "target": options["target"], "limit": None if limit == MEASURED else limit}
        given |= {"effort": effort, "io": io, "provider": provider, "force": force}
        about = {"saved": output, "command": command_line(), "todo": advice(found, model, output, given)}
        cli.write_page(page, found.page(model.stem, **about))
    if as_json:
        files = {"output": str(output), "page": str(page), "file_bytes": output.stat().st_size}
        terminal.print_json({**found.facts(), **files}, "auto")
    else:
        for line in lines(found, output, page, model, given):
            terminal.say(line)
        if verbose:
            print(f"\n{found.result.summary()}")
            for note in found.notes:
                print(f"! {note}")
    if found.held is False or not found.findings.clean:
        raise Exit(1)


def card(
    model: cli.ModelFile,
    data: Annotated[
        Path,
        Option(
            "--data", help="Pictures in a folder (or class folders, or calib and eval); or .npz.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None, Option("-o", "--output", help="Where to write the card (.toml). [default: print it]")
    ] = None,
    force: cli.Overwrite = False,
    as_json: cli.AsJson = False,
) -> None:
    """Propose a card: how pictures become the network's input, and what speaks for it; the float score, with labels.

    Example: equint card net.onnx --data photos/ -o net.toml
    """
    import equint

    from ..pages.commands import spelled
    from ..pages.proposals import told, ways
    from ..planning.spared import spare

    cli.check_file(model)
    if output is not None:
        cli.check_card_name(output)
        spare({output: CARD}, {"model": model, "data": data})
    with terminal.progress_bar(not as_json) as step:
        found = equint.card(model, data, progress=step)
    text = found.toml("." if output is None else output.parent)
    if output is not None:
        cli.write_page(output, text)
    if as_json:
        return terminal.print_json({**found.facts(), **({} if output is None else {"output": str(output)})}, "card")
    terminal.print_table(*ways(found))
    for line in told(found):
        terminal.say(line)
    print(f"\n{text}" if output is None else f"wrote {output}; {spelled('auto', model, card=output)}")
    return None


def _page_of(output: Path) -> Path:
    """Where the page about a file goes, beside it: NAME.int8.html, and of a .tflite file NAME.tflite.html.

    Example:
        >>> [_page_of(Path(name)).name for name in ("cls.onnx", "cls.int8.onnx", "cls.tflite")]
        ['cls.int8.html', 'cls.int8.html', 'cls.tflite.html']
    """
    if output.suffix.lower() == ".tflite":
        return output.with_name(f"{output.name}.html")
    return output.with_name(f"{output.stem.removesuffix('.int8')}.int8.html")


def lines(found: Automatic, output: Path, page: Path, model: Path, given: Mapping[str, Any]) -> Iterator[str]:
    """Five lines: what it loses, what was written, for whom, what limits it, and what to do next."""
    from ..pages.story import hardware_line, limit_line, size_line

    result = found.result
    yield found.verdict
    written = size_line(os.fspath(output), output.stat().st_size, model.stat().st_size, result.model, result.target)
    yield f"{written}; page: {page}"
    yield hardware_line(found.findings, os.fspath(output))
    yield f"limits: {limit_line(found.explanation, result.warnings)}"
    yield f"next: {advice(found, model, output, given)}"


def advice(found: Automatic, model: Path, output: Path, given: Mapping[str, Any]) -> str:
    """What to do next: one thing; given: options by name, as the user gave them."""
    from ..pages.commands import spelled
    from ..pages.story import card_name, give_data, given_again, golden

    result, card, data, new = found.result, given["card"], given["data"], card_name()
    given, carded = given_again(given, result.warnings), spelled("card", model, output=new, data=data)
    first, alike = "", {k: v for k, v in {**given, **_looked_at(found, given)}.items() if k != "output"}
    if found.proposal is not None:  # other commands want a card beside data
        first, alike = f"{carded} && ", {**alike, "card": new, "data": None}
    costs = f"{first}{spelled('diagnose', model, **alike)} says which layers cost most"
    if not found.findings.clean:
        return "equint targets lists targets that take other formats; the same command with --target NAME"
    if found.proposal is not None and not found.proposal.clear:
        return f"check how pictures are prepared: {carded}, then the same command with --card {new}"
    if found.held is False:
        other = _roomier(result.hardware, output)
        if other is None:
            return f"{costs}, and what helps"
        anew = spelled("auto", model, **{**given, "target": other})
        return f"{anew} spends 16 bits where needed, on hardware that takes them; on this one {costs}"
    if result.hardware.weight.granularity == "shift":
        return f"{first}{spelled('export', model, **{**alike, 'output': model.stem})} writes the bundle for the NPU"
    if found.evaluation is None and (data is not None or card is not None):
        return f"mend what kept it from being measured on {card if data is None else data}, and give the command again"
    if found.evaluation is None:
        shown = f"{give_data(result.job.original)}{' instead of --input-range' if given['input_range'] else ''}"
        return f"the same command with {shown} measures it on what it is used for, and its ranges"
    if given["effort"] == "fast" and found.judged.level != "good":
        return "the same command with --effort full tries candidates, which may lose less"
    if found.judged.level in ("poor", "broken"):
        return f"{costs}, and what helps"
    if found.judged.status == "undecided" and found.judged.needed:
        return more_samples(found.judged.samples, found.judged.needed, found.total, found.evaluation.data)
    if found.evaluation.original is None and found.evaluation.task != "features":
        return "labels (class folders, or a labels.csv) tell what it loses, and --max-drop bounds it"
    if output.suffix.lower() == ".tflite":
        vectors = f"{first}{golden(str(model), result, alike)}"
        return f"run {output} in LiteRT; {vectors} writes vectors to compare a device with"
    return f"run {output} as the float network; {spelled('lint', output)} --target NAME for other hardware"


def _looked_at(found: Automatic, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by which other commands look at the samples that `auto` looked at."""
    from ..samples.survey import survey
    from ..study.parts import LOOKED_AT

    job, data = found.result.job, given["data"]
    if data is not None and given["card"] is not None:
        data = survey(data, job.original.graph.inputs).calibration
    return {"data": data, "images": None if job.samples is None else LOOKED_AT}


def _roomier(on: Target, output: Path) -> str | None:
    """A target that may hold a bound that is missed: its weights have scales per channel, parts may have 16 bits."""
    from ..hardware.target import TARGETS
    from ..litert.writer import TARGET

    if on.weight.granularity == "channel":
        return None
    return TARGET if output.suffix.lower() == ".tflite" else TARGETS[0].name


def more_samples(measured: int, needed: int, total: int | None, data: str) -> str:
    """How to come by the samples that would decide.

    Args:
        measured: on so many; needed: so many more would decide; total: those that `data` holds, where that is known.

    Example:
        >>> more_samples(100, 300, 1000, "photos")
        'the same command with --limit 400 would decide'
        >>> more_samples(336, 92, 400, "photos")
        'add about 92 samples of your own, which would decide: photos holds 400'
    """
    from ..study.parts import LOOKED_AT

    room = needed if total is None else max(total - measured - LOOKED_AT, 0)
    if needed <= room:
        return f"the same command with --limit {measured + needed} would decide"
    return f"add about {counted(needed - room, 'sample')} of your own, which would decide: {data} holds {total:,}"
