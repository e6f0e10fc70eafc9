"""Bounds on sizes: what Vela puts on the NPU, by its own report; Vela itself is asked in tests/consumers."""

import pytest

from equint.errors import UnsupportedOperator
from equint.litert.writer import write
from vela_cases import BEYOND, WITHIN, made


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_is_refused_by_name(name: str) -> None:
    result = made(name)
    with pytest.raises(UnsupportedOperator, match="y: becomes " + BEYOND[name][2]):
        write(result.program, taken=result.hardware.litert_operators, compiler="vela")
    write(result.program, taken=result.hardware.litert_operators)


@pytest.mark.parametrize("name", WITHIN)
def test_what_is_within_is_written(name: str) -> None:
    result = made(name)
    write(result.program, taken=result.hardware.litert_operators, compiler="vela")
