"""A sample of the hostile corpus: `python -m tests.hostile` tries all of it and prints what docs/reliability.md has."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import equint
from equint.ops.table import OPERATORS

from .case import Case
from .confined import Outcome, complaints, forked
from .corpus import SEED, corpus, sampled
from .fuzzed import fuzzed
from .grown import network
from .killed import COMMANDS, strangers, try_kills
from .soaked import soak
from .tried import try_all, warm
from .workshop import furnish

COUNT = 150
"""Cases of the sample: about a minute and a half of one processor."""


def test_the_corpus_is_large_reproducible_and_its_cases_have_names_of_their_own() -> None:
    cases = corpus()
    assert len(cases) >= 1000
    assert [case.name for case in cases] == [case.name for case in corpus()]
    commands = {case.command[0] for case in cases if case.command}
    known = {"quantize", "calibrate", "inspect", "explain", "recipes", "targets", "evaluate", "compare", "lint", "demo"}
    assert commands >= known | {"sqnr", "export", "golden", "compare-board", "sizes", "table", "diagnose", "report"}


FUZZED = 60
"""Random cases: about a minute of one processor."""


def in_forks(test: Callable[..., None]) -> Callable[..., None]:
    """A test that takes long, in forked processes."""
    for mark in (
        pytest.mark.slow,
        pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in forked processes"),
        pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
        pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    ):
        test = mark(test)
    return test


@in_forks
def test_every_outcome_of_a_sample_is_as_it_should_be() -> None:
    seed = chance()
    cases = sampled(corpus(), COUNT, seed)
    wrong = [f"{one.case.name}: {said}" for one in try_all(cases) for said in one.complaints]
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


def chance() -> int:
    """A seed: always the same where nobody looks."""
    return SEED if os.environ.get("CI") else int(np.random.default_rng().integers(1 << 30))


@in_forks
def test_every_outcome_of_random_cases_is_as_it_should_be() -> None:
    seed = chance()
    tried = try_all(fuzzed(seed, FUZZED))
    wrong = [f"{one.case.name}: {said}" for one in tried for said in one.complaints]
    assert not wrong, "\n".join(wrong)


def test_random_networks_are_of_every_operator() -> None:
    """But those that quantized networks alone have."""
    grown = {n.op_type for k in range(400) for n in network(np.random.default_rng(k), 1 + k % 16).graph.node}
    assert {*OPERATORS} - grown <= {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Path]:
    """Good files of every kind."""
    warm()
    with tempfile.TemporaryDirectory(prefix="hostile-shop-") as place:
        assert not forked(lambda: furnish(Path(place)), Path(place)).code
        yield Path(place)


@in_forks
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written_by_another_way(shop: Path, name: str) -> None:
    assert strangers(name, shop) == []


@in_forks
def test_killed_commands_leave_nothing_half_written_and_lose_nothing(shop: Path) -> None:
    """Two commands, every sixth step: `python -m tests.hostile --kill` tries every step of all."""
    rng = np.random.default_rng(chance())
    for name in rng.choice([*COMMANDS], 2, replace=False):
        start = int(rng.integers(6))
        assert try_kills(str(name), shop, lambda k, start=start: k % 6 == start).wrong == ()  # type: ignore[misc]


@in_forks
def test_memory_stays_what_it_is() -> None:
    """`python -m tests.hostile --soak 2000` goes on for longer."""
    assert soak(100, chance()).grown < 5


def test_two_quantizations_at_once_give_what_each_gives_alone() -> None:
    protos = [network(np.random.default_rng(k), 8) for k in (2, 5)] * 2

    def made(proto: object) -> bytes:
        return bytes(equint.quantize(proto, "cwq-bc").proto.SerializeToString(deterministic=True))

    alone = [made(proto) for proto in protos]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made, protos)) == alone


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
