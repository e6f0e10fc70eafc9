"""Short HTML for notebooks: a title, lines, and small tables; everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

MOST = 10
"""Rows of a table that are shown."""


def block(title: str, lines: Iterable[str] = (), tables: Iterable[str] = ()) -> str:
    """A title, lines below it, and tables that are HTML already.

    Example:
        >>> block("a < b", ["one"])
        '<div><p><b>a &lt; b</b></p><p>one</p></div>'
    """
    said = "<br>".join(escape(line) for line in lines)
    return f"<div><p><b>{escape(title)}</b></p>{f'<p>{said}</p>' if said else ''}{''.join(tables)}</div>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], most: int = MOST) -> str:
    """A table, its first rows; the caption says how many there are.

    Example:
        >>> table("layers", ["name", "dB"], [["a", 1.25]], 1)[-60:]
        '<tr><th scope="row">a</th><td>1.25</td></tr></tbody></table>'
    """
    more = f", {most} of {len(rows)}" if len(rows) > most else ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(_row(row) for row in rows[:most])
    return (
        f"<table><caption>{escape(caption)}{more}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def of_facts(title: str, facts: Mapping[str, Any]) -> str:
    """The facts of a study: single values as a line, warnings as lines, lists of rows as tables.

    Example:
        >>> of_facts("two", {"images": 8, "layers": [{"name": "a", "db": 1.0}], "warnings": ["few"]})[:54]
        '<div><p><b>two</b></p><p>images 8<br>! few</p><table><'
    """
    single = {k: v for k, v in facts.items() if isinstance(v, (int, float, str)) and v != ""}
    lines = [", ".join(f"{k.replace('_', ' ')} {_said(v)}" for k, v in single.items())] if single else []
    lines += [f"! {w}" for w in facts.get("warnings") or ()]
    tables = [
        table(k.replace("_", " "), list(v[0]), [list(row.values()) for row in v])
        for k, v in facts.items()
        if isinstance(v, (list, tuple)) and v and all(isinstance(row, Mapping) for row in v)
    ]
    return block(title, lines, tables)


def _row(row: Sequence[Any]) -> str:
    first, *others = (escape(_said(value)) for value in row)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{value}</td>" for value in others)}</tr>'


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
