"""Try the whole corpus, or part of it, and print what came of it.

PYTHONPATH=tests/helpers python -m tests.hostile [--only TEXT] [--sample N] [--jobs N] [--seed N] [--list]
PYTHONPATH=tests/helpers python -m tests.hostile --fuzz SECONDS [--seed N]
PYTHONPATH=tests/helpers python -m tests.hostile --soak COUNT [--seed N]
PYTHONPATH=tests/helpers python -m tests.hostile --kill [--only TEXT]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from .confined import forked
from .corpus import SEED, corpus, sampled
from .fuzzed import fuzzed
from .killed import COMMANDS, try_kills
from .soaked import soak
from .tried import Tried, try_all, warm
from .workshop import furnish


def main() -> int:
    """Exit code 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--sample", type=int, default=0, help="so many, of each kind its share")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--fuzz", type=float, default=0, metavar="SECONDS", help="random cases instead, so long")
    parser.add_argument("--soak", type=int, default=0, metavar="COUNT", help="so many quantizations in this process")
    parser.add_argument("--kill", action="store_true", help="commands killed at every step that writes")
    given = parser.parse_args()
    if given.soak:
        warnings.simplefilter("ignore")  # of extreme networks
        print(found := soak(given.soak, given.seed))
        return int(abs(found.grown) > FLAT)
    if given.kill:
        return _killed(given.only)
    if given.fuzz:
        return _told(_timed(try_all(fuzzed(given.seed)), given.fuzz))
    cases = [case for case in corpus(given.seed) if given.only in case.name]
    cases = sampled(cases, given.sample, given.seed) if given.sample else cases
    if given.list:
        for case in cases:
            print(case.name)
        print(len(cases))
        return 0
    return _told(try_all(cases, given.jobs))


def _killed(only: str) -> int:
    """Every command, killed at every step."""
    warm()
    steps, wrong = 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="hostile-shop-") as place:
        forked(lambda: furnish(Path(place)), Path(place))
        for name in (name for name in COMMANDS if only in name):
            found = try_kills(name, Path(place))
            steps, wrong = steps + found.steps, [*wrong, *found.wrong]
            print("\n".join([f"{name}: killed at {found.steps} steps", *found.wrong]), flush=True)
    print(f"{steps} kills, {len(wrong)} of them wrong")
    return int(bool(wrong))


FLAT = 5.0
"""Per cent by which memory may grow, once warm."""


def _timed(tried: Iterator[Tried], seconds: float) -> Iterator[Tried]:
    """What comes within so many seconds."""
    end = time.monotonic() + seconds
    for one in tried:
        yield one
        if time.monotonic() > end:
            return


def _told(tried: Iterable[Tried]) -> int:
    """What came of cases, printed: what is wrong as it comes, the table at the end."""
    start, found = time.monotonic(), list[Tried]()
    for one in tried:
        found.append(one)
        for complaint in one.complaints:
            print(f"{one.case.name}: {complaint}", file=sys.stderr, flush=True)
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
