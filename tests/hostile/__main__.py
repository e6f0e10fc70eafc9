"""Try the whole corpus, or part of it, and print what came of it.

PYTHONPATH=tests/helpers python -m tests.hostile [--only TEXT] [--sample N] [--jobs N] [--seed N] [--list]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict

from .corpus import SEED, corpus, sampled
from .tried import Tried, try_all


def main() -> int:
    """Exit code 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--sample", type=int, default=0, help="so many, of each kind its share")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    cases = [case for case in corpus(given.seed) if given.only in case.name]
    cases = sampled(cases, given.sample, given.seed) if given.sample else cases
    if given.list:
        for case in cases:
            print(case.name)
        print(len(cases))
        return 0
    start, found = time.monotonic(), []
    for one in try_all(cases, given.jobs):
        found.append(one)
        for complaint in one.complaints:
            print(f"{one.case.name}: {complaint}", file=sys.stderr)
    print("\n".join(summary(found)))
    print(f"\n{len(found)} inputs in {time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(any(one.complaints for one in found))


def summary(found: list[Tried]) -> list[str]:
    """A table in Markdown: a row for each kind, and what was wrong."""
    rows, every = defaultdict[str, Counter[str]](Counter), Counter[str]()
    for one in found:
        outcome = "wrong" if one.complaints else "success, verified" if one.outcome.code == 0 else "clean refusal"
        rows[one.case.kind].update((outcome, "inputs"))
        every.update((outcome, "inputs", *{c.split(":")[0] for c in one.complaints}))
    columns = ("inputs", "clean refusal", "success, verified", "wrong")
    lines = [f"| kind | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for kind, counts in (*sorted(rows.items()), ("all", every)):
        lines.append(f"| {kind} | {' | '.join(str(counts[c]) for c in columns)} |")
    slowest, largest = max(o.outcome.seconds for o in found), max(o.outcome.bytes for o in found)
    lines += ["", f"slowest {slowest:.1f} s, largest {largest / 1e9:.2f} GB resident"]
    return lines + [f"{what}: {every[what]}" for what in WRONG]


WRONG = (
    *("hang", "memory", "crash", "masked", "success", "wrong", "lost", "left", "refused"),
    *("lines", "long", "escapes", "unnamed", "todo", "output", "noise"),
)
"""Ways in which an outcome can be wrong: the first words of complaints."""


if __name__ == "__main__":
    sys.exit(main())
