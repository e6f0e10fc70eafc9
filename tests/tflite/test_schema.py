"""The schema beside the one that LiteRT's package carries, where it is installed."""

import re
from typing import Any

import numpy as np
import pytest

from equint.tflite.schema import NUMBERS, Field, operator_code, operator_name, schema


@pytest.fixture(scope="module")
def published() -> Any:
    return pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")


METADATA = {
    "ModelMetadata",
    "SubGraphMetadata",
    "TensorMetadata",
    "ProcessUnit",
    "NormalizationOptions",
    "Stats",
    "Content",
}
"""Tables of another published schema, that of TensorFlow Lite Support."""


def values(published: Any, enum: str) -> dict[str, int]:
    return {name: n for name, n in vars(getattr(published, enum)).items() if not name.startswith("__")}


@pytest.mark.parametrize("enum", sorted(schema().enums))
def test_enums_are_numbered_as_published(published: Any, enum: str) -> None:
    ours, theirs = schema().enums[enum].numbers, values(published, enum)
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize("union", sorted(set(schema().unions) - {"ProcessUnitOptions"}))
def test_unions_are_numbered_as_published(published: Any, union: str) -> None:
    ours, theirs = schema().unions[union].numbers, values(published, union)
    assert {name: ours[name] for name in theirs} == theirs


def width(field: Field) -> int:
    number = schema().enums[field.type].base if field.type in schema().enums else field.type
    return np.dtype(NUMBERS[number]).itemsize


@pytest.mark.parametrize("table", sorted(set(schema().tables) - METADATA))
def test_fields_are_numbered_as_published(published: Any, table: str) -> None:
    """The published module writes each field by a function `<Table>Add<Field>(builder, value)` of its own."""
    calls: list[tuple[str, int, Any]] = []

    class Listening:
        def __getattr__(self, name: str) -> Any:
            return lambda slot, *rest: calls.append((name, slot, rest[-1]))

    for field in schema().tables[table]:
        spelled = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
        writer = getattr(published, f"{table}Add{spelled}", None)
        if writer is None:  # deprecated fields have none
            assert field.name in ("deprecated_tag", "new_height", "new_width")
            continue
        calls.clear()
        writer(Listening(), 0)
        [(name, slot, default)] = calls
        # what is added under a union's own name is where its table lies
        assert slot == field.slot + (field.type in schema().unions), field.name
        if not field.many and (field.type in NUMBERS or field.type in schema().enums):
            numbers = schema().enums[field.type].numbers if field.type in schema().enums else {}
            assert default == (numbers[field.default] if numbers else field.default), field.name
            assert int(re.sub(r"\D", "", name) or 8) == 8 * width(field), field.name


def test_no_operator_is_left_out(published: Any) -> None:
    assert set(values(published, "BuiltinOperator")) <= set(schema().enums["BuiltinOperator"].names)
    assert set(schema().options.values()) <= set(schema().tables) | set(schema().unions["BuiltinOptions2"].names)


@pytest.mark.parametrize("name", ["ADD", "CONV_2D", "CUMSUM", "GELU"])
def test_operators_are_numbered_for_old_readers_too(name: str) -> None:
    code = operator_code(name)
    assert operator_name(code) == name
    assert code["deprecated_builtin_code"] == min(schema().enums["BuiltinOperator"].numbers[name], 127)
