"""What `lint` found, for people: a line for each kind, and one for each place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ..hardware.lint import Finding, Findings

SHOWN = 3
"""Places of a kind that are named; `--json` names all."""


def lines(found: Findings, name: str) -> Iterator[str]:
    """A page of text about a file: errors first, and how much of its work integers do.

    Example:
        >>> list(lines(Findings("openvino", 1.0), "net.onnx"))
        ['net.onnx for openvino: clean; integers do 100.0 % of all multiply-accumulates']
    """
    errors, count = (len([f for f in found.findings if f.level == level or not level]) for level in ("error", ""))
    verdict = "clean" if not count else f"{errors} errors, {count - errors} warnings"
    share = f"integers do {100 * found.integer_share:.1f} % of all multiply-accumulates"
    yield f"{name} for {found.target}: {verdict}; {share}"
    yield from kinds(found)


def kinds(found: Findings) -> Iterator[str]:
    """A line for each kind of finding, the first places named."""
    table = defaultdict[tuple[str, str], list[Finding]](list)
    for finding in found.findings:
        table[finding.level, finding.rule].append(finding)
    for (level, rule), same in table.items():
        first, places = same[0], [f.at for f in same if f.at]
        more = f", and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        where = f" [{', '.join(places[:SHOWN])}{more}]" if places else ""
        share = 100 * sum(f.float_share for f in same)
        where += f" ({share:.1f} % of all multiply-accumulates)" if share else ""
        said = f"{first.what}: {first.why}; {first.todo} ({first.source}, {first.date})"
        yield f"{level} {rule}{where}: {said}"
