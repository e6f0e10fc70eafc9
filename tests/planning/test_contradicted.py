"""An input that is not what the network was trained on is told, with numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import equint
from equint.demo import data_path, model_path
from equint.errors import UnusableData
from equint.ir.events import EventKind
from equint.ir.model import Graph, Model, Node
from equint.planning.contradicted import contradictions
from equint.planning.plan import Data
from equint.result import Result
from equint.samples.images import Samples

PIXELS = equint.Card("gray", (0.0,), (16.0,))


def told(result: Result) -> list[str]:
    return [str(e) for e in result.warnings if e.kind is EventKind.INPUT_CONTRADICTED]


@pytest.mark.parametrize("span", [(0.0, 1.0), None])
def test_the_right_input_is_not(span: tuple[float, float] | None) -> None:
    assert not told(equint.quantize(model_path(), effort="fast", input=span))


def test_verdicts_say_so() -> None:
    found = equint.auto(model_path(), card=equint.Card(range=(0.0, 255.0), kind="features"), force=True)
    assert found.verdict.endswith("is not what it was trained on: correct that first")


@pytest.mark.parametrize("span", [(0.0, 255.0), (-0.01, 0.01)])
def test_another_range_is(span: tuple[float, float]) -> None:
    (said,) = told(equint.quantize(model_path(), effort="fast", input=span, force=True))
    assert said.startswith("the input as described is not what its first BatchNorms saw in training: values there")
    assert said.endswith("[input]")
    assert "values there spread" in said


def test_samples_that_are_prepared_in_another_way_are() -> None:
    raw = equint.Card("gray", (0.0,), (1.0,))
    with pytest.raises(UnusableData, match=r"8 of 8 channels in front of stem\.conv/bn lie over 10 spreads off"):
        equint.quantize(model_path(), "lwq", input=raw, data=data_path(), images=16)
    assert told(equint.quantize(model_path(), "lwq", input=raw, data=data_path(), images=16, force=True))
    assert not told(equint.quantize(model_path(), "lwq", input=PIXELS, data=data_path(), images=16))


ASKED: dict[str, Callable[..., Any]] = {
    "quantize": equint.quantize,
    "explain": equint.explain,
    "sqnr": lambda source, **given: equint.sqnr(source, "per-tensor", **given),
    "diagnose": equint.diagnose,
    "mixed": lambda source, **given: equint.mixed(source, 1.0, **given),
    "program": equint.program,
    "calibrate": lambda source, **given: equint.calibrate(source, np.full((2, 1, 8, 8), 200.0, np.float32), **given),
}


@pytest.mark.parametrize("name", ASKED)
def test_whatever_is_made_of_the_wrong_input_is_refused_by_the_numbers(name: str) -> None:
    with pytest.raises(UnusableData, match=r"means \d+ spreads off.*correct --input-range.*force=True"):
        ASKED[name](model_path(), input=(0, 255))


def test_what_nobody_described_is_not_refused() -> None:
    """The same weights behind a factor of 255: what the input is, the BatchNorms tell, and nothing contradicts them."""
    assert not told(equint.quantize(model_path(), "lwq"))


def odd(low: float, high: float) -> equint.Statistics:
    """Statistics of the demo's network on values between."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(low, high, (16, 1, 8, 8)).astype(np.float32)
    return equint.calibrate(model_path(), samples, force=True)


def test_statistics_of_another_range_than_the_cards_are_told_or_refused() -> None:
    measured = odd(0, 1)
    kinds = [e.kind for e in equint.quantize(model_path(), "lwq", input=(0, 1), data=measured).warnings]
    assert EventKind.STATISTICS_CONTRADICTED not in kinds
    wider = equint.quantize(model_path(), "lwq", input=(-0.5, 0.5), data=measured)
    (said,) = (str(e) for e in wider.warnings if e.kind is EventKind.STATISTICS_CONTRADICTED)
    assert "described -0.5 to 0.5" in said
    assert "measured 0.00" in said
    with pytest.raises(UnusableData, match=r"1 of 1 channels of the statistics lie over 10 spreads off.*0 to 255"):
        equint.quantize(model_path(), "lwq", input=(0, 255), data=measured)
    assert equint.quantize(model_path(), "lwq", input=(0, 255), data=measured, force=True).warnings


def test_statistics_that_training_contradicts_are_refused() -> None:
    with pytest.raises(UnusableData, match="in front of stem"):
        equint.quantize(model_path(), "lwq", data=odd(0, 255))


def test_the_refusal_needs_more_than_half_of_the_channels() -> None:
    """By hand: an identity in front of a BatchNorm that saw spread 1 about 0; values at 20 in one, two, three."""

    def network(*means: float) -> Any:
        conv, norm = Node("Conv", ("x", "w"), ("h",)), Node("BatchNormalization", ("h", "g", "b", "m", "v"), ("y",))
        consts = {"w": np.eye(3, dtype=np.float32)[:, :, None, None], "g": np.ones(3, np.float32)}
        consts |= {"b": np.zeros(3, np.float32), "m": np.asarray(means, np.float32), "v": np.ones(3, np.float32)}
        shapes = {"x": ("N", 3, 4, 4), "h": ("N", 3, 4, 4), "y": ("N", 3, 4, 4)}
        return Model(Graph((conv, norm), consts, ("x",), ("y",), shapes))

    seen = Data(images=Samples.of(np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)))
    for far, refused in ((1, False), (2, True), (3, True)):
        model = network(*(20.0 if k < far else 0.0 for k in range(3)))
        if refused:
            with pytest.raises(UnusableData, match=f"x: {far} of 3 channels"):
                list(contradictions(model, seen))
            assert [e.kind for e in contradictions(model, seen, force=True)] == [EventKind.INPUT_CONTRADICTED]
        else:
            assert not list(contradictions(model, seen))
