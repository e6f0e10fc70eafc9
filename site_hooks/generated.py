"""What pages show of the code itself: `<!-- generated: commands -->` becomes a section for each command.

So the reference is that of the version that it is built from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from typer.main import get_command

import equint
from equint.cli.main import app
from equint.pages.targets import formats_table, rules_table
from equint.planning.recipe import source

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.M)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what a page asks for in the place of its marks."""
    return _MARK.sub(lambda mark: KINDS[mark[1]](), markdown)


def commands() -> str:
    """A section for each command: what it does, an example, its arguments and options."""
    group: Any = get_command(app)
    return "\n".join("\n".join(_command(name, command)) for name, command in group.commands.items())


def _command(name: str, command: Any) -> Iterator[str]:
    said, _, example = command.help.partition("Example: ")
    context = command.context_class(command, info_name=name)
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context)) is not None]
    yield f"## {name}\n\n{said.strip()}\n"
    if example:
        yield f"```bash\n{' '.join(example.split())}\n```\n"
    yield "| argument or option | what it is |\n|---|---|"
    for names, text in records:
        yield f"| `{_cell(names)}` | {_cell(text).replace('<', '&lt;')} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def recipes() -> str:
    """Every built-in recipe: its level, its target, its passes with their options, as its TOML says."""
    table = ["| recipe | level | default target | what it does |", "|---|--:|---|---|"]
    table += [
        f"| [`{r.name}`](#{r.name}) | {r.level} | [`{r.target}`](targets.md#{r.target}) | {r.description} |"
        for r in equint.recipes()
    ]
    parts = [f"## {r.name}\n\n{r.description}\n\n```toml\n{source(r.name)}```\n" for r in equint.recipes()]
    return "\n".join([*table, "", *parts])


def targets() -> str:
    """Every built-in target: its formats, and its rules with who says so."""
    parts = [_target(on) for on in equint.targets()]
    return "\n".join([formats_table(equint.targets()), *parts])


def _target(on: equint.Target) -> str:
    aliases = "".join(f'<a id="{alias}"></a>' for alias in on.aliases)
    return f"## {on.name} {{#{on.name}}}\n\n{aliases}{on.description}.\n\n{rules_table(on)}"


_ROW = "mobilenet_v1_025_224_imagenet"


def headline() -> str:
    """One network's row of the README, whose figures `benchmarks/check.py` measures again."""
    text = (ROOT / "README.md").read_text("utf-8")
    head, row = (re.search(rf"^\| {name} .*$", text, re.M) for name in (r"network \(float", _ROW))
    measured = re.search(r"2 cores of [^)]*", text)
    assert head is not None
    assert row is not None
    assert measured is not None
    cells = dict(zip(head[0].split(" | "), row[0].split(" | "), strict=True))
    float_top1, samples = re.findall(r"[\d.]+(?=[,)])", row[0].split(" | ")[0])
    methods = {"plain int8": "lwq", "DFQ": "dfq", "equint": "optimal"}
    found = {name: re.split(" / |, ", cells[f"{recipe}<br>per-tensor"]) for name, recipe in methods.items()}
    lines = [
        f"| MobileNetV1 0.25, ImageNet | float | {' | '.join(found)} |",
        "|---|" + "--:|" * (1 + len(found)),
        _figures("top-1", f"{float_top1} %", [f"{f[0]} %" for f in found.values()]),
        _figures("same answer as the float network", "", [f[1] for f in found.values()]),
        _figures("signal over quantization noise", "", [f[2].replace("-", "−") for f in found.values()]),
    ]
    said = f"8 bits, one scale per layer, no data; {samples} images; {' '.join(measured[0].split())}."
    lines = [line.replace(" %", "\u00a0%").replace(" dB", "\u00a0dB") for line in lines]
    return "\n".join([*lines, "", f"{said} [All networks](accuracy.md)", "{ .caption }"])


def _figures(what: str, original: str, found: list[str]) -> str:
    return f"| {what} | {original} | {' | '.join([*found[:-1], f'**{found[-1]}**'])} |"


KINDS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "headline": headline,
    "recipes": recipes,
    "targets": targets,
}
"""What marks may ask for."""
