"""What stays float in programs for LiteRT, and what does not."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.errors import UnsupportedOperator
from equint.hardware.target import target
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program
from equint.ir.model import Array
from handwritten import network, normal

INT8 = target("tflite-int8")
CONV = "c = Conv (x, w) "


def lowered(body: str, *labels: str, output: str = "float[1,4,6,6] y", **consts: Any) -> Program:
    model = network(CONV + body, inputs="float[1,3,8,8] x", output=output, w=normal(4, 3, 3, 3), **consts)
    return lower(equint.quantize(model, "lwq", INT8, input=(-2, 2), effort="fast").model, INT8, labels)


def operators(program: Program) -> list[str]:
    return [step.op for step in program.steps]


def inside(program: Program) -> list[str]:
    return [node.op for step in program.steps if step.op == "Float" for node in step.attrs["graph"].nodes]


def test_what_has_no_integer_form_is_computed_in_float() -> None:
    program = lowered("y = Div (c, c)")
    assert operators(program) == ["Conv", "Float", "Quantize"]
    assert inside(program) == ["Div"]


def test_nothing_is_rounded_between_two_of_them() -> None:
    program = lowered("d = Div (c, c) y = InstanceNormalization (d, s, s)", "y", s=normal(4))
    assert operators(program) == ["Conv", "Float", "Float", "Quantize"]


def test_what_is_moved_between_them_stays_float_too() -> None:
    program = lowered("d = Div (c, c) t = Transpose <perm = [0, 1, 3, 2]> (d) y = Div (t, c)")
    assert inside(program) == ["Div", "Transpose", "Div"]
    assert operators(program).count("Quantize") == 1


def test_what_is_read_by_integers_is_rounded_once() -> None:
    program = lowered("d = Div (c, c) t = Transpose <perm = [0, 1, 3, 2]> (d) y = Add (t, c)")
    assert operators(program) == ["Conv", "Float", "Quantize", "Transpose", "ScaledSum"]


def test_an_activation_goes_with_the_layer_that_is_named() -> None:
    program = lowered("r = Relu (c) y = MaxPool <kernel_shape = [1, 1]> (r)", "c")
    assert inside(program) == ["Conv", "Relu"]
    assert operators(program) == ["Float", "Quantize", "MaxPool"]


def test_pieces_of_a_function_go_together() -> None:
    program = lowered("s = Sqrt (c) e = Exp (s) y = Neg (e)", "y")
    assert inside(program) == ["Sqrt", "Exp", "Neg"]


def test_masks_and_places_have_types_of_their_own() -> None:
    program = lowered("y = ArgMax <axis = 1> (c)", output="int64[1,1,6,6] y")
    assert program.types == {"y": "int64"}
    assert "y" not in program.grids
    feed: Array = np.zeros((1, 3, 8, 8), np.int8)
    assert Engine(program).run(feed)["y"].dtype == np.int64


def test_grids_that_no_program_holds_are_not_left_in_float() -> None:
    model = network(CONV + "y = Relu (c)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    for bits, message in ((16, "grid of 16 bits"), ("float", "activations are float")):
        made = equint.quantize(model, "lwq", INT8, input=(-2, 2), effort="fast", activation_bits=bits)  # type: ignore[arg-type]
        with pytest.raises(UnsupportedOperator, match=message):
            lower(made.model, INT8)


def test_hardware_without_floats_has_none() -> None:
    model = network(CONV + "y = Div (c, c)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    made = equint.quantize(model, "lwq", "ethos-u", input=(-2, 2), effort="fast")
    with pytest.raises(UnsupportedOperator, match="y: LiteRT divides no int8 values"):
        lower(made.model, target("ethos-u"))
