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

from .confined import BYTES, SECONDS, forked
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
    """A table in Markdown: a row for each kind, and one for all."""
    rows = defaultdict[str, Counter[str]](Counter)
    for one in found:
        ways = {WRONG.get(complaint.split(":")[0], OTHER) for complaint in one.complaints}
        outcome = ways or {"success, verified" if one.outcome.code == 0 else "clean refusal"}
        for row in (one.case.kind, "all"):
            rows[row].update(("inputs", *outcome))
    lines = [f"| kind | {' | '.join(COLUMNS)} |", f"|---|{'--:|' * len(COLUMNS)}"]
    for kind in (*sorted(rows.keys() - {"all"}), "all"):
        lines.append(f"| {kind} | {' | '.join(str(rows[kind][c]) for c in COLUMNS)} |")
    slowest, largest = max(o.outcome.seconds for o in found), max(o.outcome.bytes for o in found)
    return [*lines, "", f"slowest {slowest:.1f} s, largest {largest / 1e9:.2f} GB resident"]


WRONG = {
    **dict.fromkeys(("masked", "crash"), "masked error"),
    "hang": f"over {SECONDS} s",
    "memory": f"over {BYTES / 1e9:g} GB",
    **dict.fromkeys(("success", "wrong"), "wrong success"),
    **dict.fromkeys(("lost", "left"), "file lost or left"),
}
"""Ways in which an outcome can be wrong, by the first words of complaints."""
OTHER = "other"
"""A message of several lines, too long, that names nothing or gives no advice; output; a good file that is refused."""
COLUMNS = ("inputs", "clean refusal", "success, verified", *dict.fromkeys(WRONG.values()), OTHER)


if __name__ == "__main__":
    sys.exit(main())
