"""What the terminal shows: tables, lines for people, JSON, and a bar over what takes long."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import in_a_line

if TYPE_CHECKING:
    from ..planning.run import Progress


@contextmanager
def progress_bar(shown: bool) -> Iterator[Progress]:
    """A bar over passes or samples, on standard error and only for people."""
    if not (shown and sys.stderr.isatty()):
        yield lambda name, number, total: None
        return
    from rich.progress import Progress

    with Progress(console=console(True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda name, number, total: bar.update(task, description=name, completed=number, total=total or None)


def console(errors: bool = False) -> Any:
    """Where tables and bars go: wide enough for files, as wide as the window for people."""
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False, markup=False, emoji=False)


NARROW = 60
"""Columns of a window in which a row that does not fit is told line by line."""

NAMES = 3
"""Names in the first column are whole where they fit the window so many times."""


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of rows, if there are any; columns that begin with ">" are set to the right, bars have no name."""
    from rich import box
    from rich.table import Table

    table, shown = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"), console()
    cells = [[in_a_line(cell) for cell in row] for row in rows]
    short = max((len(row[0]) for row in cells), default=0) <= shown.width // NAMES
    for k, name in enumerate(columns):
        justify: Any = "right" if name.startswith(">") else "left"
        whole = not name or (k == 0 and short)
        table.add_column(name.lstrip(">"), justify=justify, overflow="fold" if name else "crop", no_wrap=whole)
    for row in cells:
        table.add_row(*row)
    wide = shown.measure(table, options=shown.options.update(width=1000)).maximum
    if cells and wide > shown.width and shown.width < NARROW:
        for line in (title, *records([name.lstrip(">") for name in columns], cells)):
            say(line)
    elif cells:
        shown.print(table)


def records(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of a table, each as its first cell and a line for every other that says something and has a name.

    Example:
        >>> print(*records(["layer", "SQNR dB", ""], [["conv", "31.2", "███"], ["head", "", "█"]]), sep="\\n")
        conv
          SQNR dB: 31.2
        head
    """
    for first, *others in rows:
        yield first
        yield from (f"  {name}: {cell}" for name, cell in zip(columns[1:], others, strict=True) if name and cell)


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def print_json(value: Any, schema: str = "") -> None:
    """A result as JSON on standard output; where it has a schema, it says which, and its version."""
    from ..files import jsonable

    told = {"schema": f"equint.{schema}/1"} if schema else {}
    print(json.dumps(jsonable({**told, **value} if told else value), indent=2, ensure_ascii=False))


def say(line: str) -> None:
    """A line for people: wrapped to the window, a file's is as long as it is."""
    if not sys.stdout.isatty():
        print(line)
        return
    import shutil
    from textwrap import fill

    width = min(max(shutil.get_terminal_size().columns, 40), 200)
    print(fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
