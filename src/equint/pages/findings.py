"""What `lint` found, for people: a line for each kind, and one for each place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ..hardware.lint import Finding, Findings, TargetFrom

SHOWN = 3
"""Places of a kind that are named; `--json` names all."""


_FROM: Mapping[TargetFrom, str] = {
    "asked": "",
    "file": ", as it says itself",
    "assumed": ", assumed: it names no target, and --target was not given",
}


def lines(found: Findings, name: str) -> Iterator[str]:
    """A page of text about a file: errors first, and how much of its work integers do.

    Example:
        >>> list(lines(Findings("openvino", 1.0), "net.onnx"))
        ['net.onnx for openvino: clean; integers do 100.0 % of all multiply-accumulates']
    """
    errors, count = (len([f for f in found.findings if f.level == level or not level]) for level in ("error", ""))
    verdict = f"{_counted(errors, 'error')}, {_counted(count - errors, 'warning')}" if count else "clean"
    verdict = verdict if found.ruled else "not judged, the target has no [[rules]]"
    share = f"integers do {100 * found.integer_share:.1f} % of all multiply-accumulates"
    yield f"{name} for {found.target}{_FROM[found.target_from]}: {verdict}; {share}"
    yield from kinds(found)


def kinds(found: Findings) -> Iterator[str]:
    """A line for each kind of finding, the first places named."""
    table = defaultdict[tuple[str, str], list[Finding]](list)
    for finding in found.findings:
        table[finding.level, finding.rule].append(finding)
    for (level, rule), same in table.items():
        first, places = same[0], [f.at for f in same if f.at]
        more = f", and {len(same) - SHOWN} more" if len(same) > SHOWN else ""
        share = 100 * sum(f.float_share for f in same)
        head, said = f"{level} {rule}{f', {len(same)} places' if len(same) > 1 else ''}", first.what
        if any(f.what != first.what for f in same):
            said = ", ".join(f"{f.what} [{f.at}]" for f in same[:SHOWN]) + more
        elif places:
            head += f" [{', '.join(places[:SHOWN])}{more}]"
        head += f" ({share:.1f} % of all multiply-accumulates)" if share else ""
        yield f"{head}: {said}: {first.why}; {first.todo} ({first.source}, {first.date})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
