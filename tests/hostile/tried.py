"""Cases tried one after the other, or several at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .case import Case
from .confined import Outcome, complaints, forked, tried
from .workshop import furnish


@dataclass(frozen=True)
class Tried:
    """A case, what came of it, and what is wrong with that."""

    case: Case
    outcome: Outcome
    complaints: Sequence[str]


def try_all(cases: Iterable[Case], jobs: int = 1) -> Iterator[Tried]:
    """Each case in a process of its own; so many at once."""
    warm()
    with tempfile.TemporaryDirectory(prefix="hostile-shop-") as place:
        shop = Path(place)
        made = forked(lambda: furnish(shop), shop, {})
        if made.code:
            raise AssertionError(f"the workshop failed: {made.err[-2000:]}")
        if jobs == 1:
            for case in cases:
                yield _one(case, shop)
            return
        yield from _several(list(cases), jobs, shop)


def _one(case: Case, shop: Path) -> Tried:
    found = tried(case, shop)
    return Tried(case, found, complaints(case, found))


def _several(cases: Sequence[Case], jobs: int, shop: Path) -> Iterator[Tried]:
    """Workers that are forked, so that they need not import; each takes every so many of the cases."""
    ends = []
    for number in range(jobs):
        there, here = os.pipe()
        child = os.fork()
        if not child:
            os.close(there)
            try:
                with os.fdopen(here, "w") as stream:
                    for k in range(number, len(cases), jobs):
                        one = _one(cases[k], shop)
                        print(json.dumps((k, vars(one.outcome), one.complaints)), file=stream, flush=True)
            finally:
                os._exit(0)
        os.close(here)
        ends.append((child, os.fdopen(there)))
    for child, stream in ends:
        with stream:
            for line in stream:
                k, outcome, wrong = json.loads(line)
                yield Tried(cases[k], Outcome(**outcome), wrong)
        os.waitpid(child, 0)


def warm() -> None:
    """Import what commands import, once: forked processes have it. Nothing runs here, so that no threads are there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in IMPORTED:
        import_module(name)


IMPORTED = (
    *("jsonschema.validators", "onnx.inliner", "onnx.version_converter", "onnxruntime", "PIL.Image", "rich.table"),
    *("safetensors.numpy", "scipy.optimize", "scipy.sparse", "scipy.special", "equint.cli.main", "equint.comparisons"),
    *("equint.devices", "equint.job", "equint.pages.page", "equint.planning.search", "equint.studies"),
    *("equint.study.diagnose", "equint.study.table", "equint.runtime.entrance"),
)
