"""An input that is not what the network was trained on is told, with numbers."""

import pytest

import equint
from equint.demo import data_path, model_path
from equint.ir.events import EventKind
from equint.result import Result

PIXELS = equint.Card("gray", (0.0,), (16.0,))


def told(result: Result) -> list[str]:
    return [str(e) for e in result.warnings if e.kind is EventKind.INPUT_CONTRADICTED]


@pytest.mark.parametrize("span", [(0.0, 1.0), None])
def test_the_right_input_is_not(span: tuple[float, float] | None) -> None:
    assert not told(equint.quantize(model_path(), effort="fast", input=span))


def test_verdicts_say_so() -> None:
    found = equint.auto(model_path(), card=equint.Card(range=(0.0, 255.0), kind="features"))
    assert found.verdict.endswith("is not what it was trained on: correct that first")


@pytest.mark.parametrize("span", [(0.0, 255.0), (-0.01, 0.01)])
def test_another_range_is(span: tuple[float, float]) -> None:
    (said,) = told(equint.quantize(model_path(), effort="fast", input=span))
    assert said.startswith("the input as described is not what its first BatchNorms saw in training [input]")
    assert "values there spread" in said


def test_samples_that_are_prepared_in_another_way_are() -> None:
    raw = equint.Card("gray", (0.0,), (1.0,))
    assert told(equint.quantize(model_path(), "lwq", input=raw, data=data_path(), images=16))
    assert not told(equint.quantize(model_path(), "lwq", input=PIXELS, data=data_path(), images=16))
