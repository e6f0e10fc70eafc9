"""A sample of the hostile corpus: `python -m tests.hostile` tries all of it and prints what docs/reliability.md has."""

import os

import numpy as np
import pytest

from .case import Case
from .confined import Outcome, complaints
from .corpus import SEED, corpus, sampled
from .tried import try_all

COUNT = 150
"""Cases of the sample: about a minute and a half of one processor."""


def test_the_corpus_is_large_reproducible_and_its_cases_have_names_of_their_own() -> None:
    cases = corpus()
    assert len(cases) >= 1000
    assert [case.name for case in cases] == [case.name for case in corpus()]
    commands = {case.command[0] for case in cases if case.command}
    known = {"quantize", "calibrate", "inspect", "explain", "recipes", "targets", "evaluate", "compare", "lint", "demo"}
    assert commands >= known | {"sqnr", "export", "golden", "compare-board", "sizes", "table", "diagnose", "report"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in forked processes")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_every_outcome_of_a_sample_is_as_it_should_be() -> None:
    seed = SEED if os.environ.get("CI") else int(np.random.default_rng().integers(1 << 30))
    cases = sampled(corpus(), COUNT, seed)
    wrong = [f"{one.case.name}: {said}" for one in try_all(cases) for said in one.complaints]
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


GOOD = Outcome(2, "", "equint: net.onnx: conv1: strides [0, 0], which begin at 1; export it again\n", 0.1, 10**8)
CASE = Case("network/strides/quantize", ("quantize", "net.onnx"), names=("net.onnx", "conv1"))


def test_a_clean_refusal_has_nothing_to_complain_of() -> None:
    assert complaints(CASE, GOOD) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"code": None}, "hang"),
        ({"code": -11}, "crash"),
        ({"code": 0}, "success"),
        ({"bytes": 2 * 10**9}, "memory"),
        ({"err": "warning\n" + GOOD.err}, "lines"),
        ({"err": GOOD.err.replace("net.onnx", "it")}, "unnamed"),
        ({"err": GOOD.err.replace("; export it again", "")}, "todo"),
        ({"err": GOOD.err.replace("[0, 0]", "\x1b[31m")}, "escapes"),
        ({"err": GOOD.err.replace("[0, 0]", "0" * 700)}, "long"),
        ({"err": "equint: net.onnx: conv1: unexpected KeyError: 'x'; --debug shows where\n"}, "masked"),
        ({"out": "wrote"}, "output"),
        ({"changed": ["net.onnx"]}, "lost"),
        ({"left": ["out.onnx"]}, "left"),
    ],
)
def test_each_kind_of_fault_is_seen(change: dict[str, object], kind: str) -> None:
    found = complaints(CASE, Outcome(**{**vars(GOOD), **change}))
    assert kind in [said.split(":")[0] for said in found]
