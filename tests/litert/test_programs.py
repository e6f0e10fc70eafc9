"""Which nodes of a network are written in float, and what is said of it."""

from pathlib import Path

import pytest

import equint
from equint.integers.lower import lower
from equint.litert.programs import refused
from handwritten import network, normal

POOL = "c = Conv (x, w) y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (c)"


def test_what_the_writer_refuses_is_written_in_float() -> None:
    model = network(POOL, inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    result = equint.quantize(model, "lwq", "tflite-int8", input=(-2, 2), effort="fast")
    assert list(refused(lower(result.model, result.hardware))) == ["y"]
    assert not refused(result.program)
    assert [step.op for step in result.program.steps] == ["Conv", "Float", "Quantize"]


def test_a_warning_tells_how_much_is_float() -> None:
    model = network("c = Conv (x, w) d = Div (c, c) y = Conv3 (d)".replace("Conv3 (d)", "Conv (d, v)"),
                    inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3), v=normal(4, 4, 1, 1))  # fmt: skip
    result = equint.quantize(model, "lwq", "tflite-int8", input=(-2, 2), effort="fast")
    (event,) = [e for e in result.warnings if e.source == "litert"]
    assert event.facts == {"op": "Div", "nodes": 1, "of": 3, "share of multiply-accumulates": 0.0}
    assert "Div computes in float" in result.summary()


def test_sizes_that_are_not_known_make_nothing_float() -> None:
    model = network("c = Conv (x, w) y = Relu (c)", inputs="float[1,3,H,W] x", w=normal(4, 3, 3, 3))
    result = equint.quantize(model, "lwq", "tflite-int8", input=(-2, 2), effort="fast")
    assert [step.op for step in result.program.steps] == ["Conv"]
    assert not [e for e in result.warnings if e.source == "litert"]


def test_narrow_activations_are_refused_where_a_file_is_written(tmp_path: Path) -> None:
    """Their grids end before their type does, so that layers need a clamp, in a summary too."""
    model = network("c = Conv (x, w) r = Relu (c) y = Conv (r, v)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3),
                    v=normal(4, 4, 1, 1))  # fmt: skip
    for target in ("tflite-int8", "tflite-uint8"):
        result = equint.quantize(model, "lwq", target, input=(-2, 2), effort="fast", activation_bits=4)
        assert "activations 4 bits per tensor" in result.summary()
        with pytest.raises(equint.EquintError, match="grid of 4 bits"):
            result.save(tmp_path / "x.tflite")
        assert not list(tmp_path.iterdir())
