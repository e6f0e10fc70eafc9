"""What tables, operators and numbers a .tflite file is made of: `schema.txt`, `metadata.txt`, which people can read.

Names are spelled as in the schema that LiteRT publishes; the FlatBuffers format itself is `flatbuffer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every .tflite file."""
IDENTIFIERS = {"Model": IDENTIFIER, "ModelMetadata": b"M001"}
"""The same of what begins with each table."""
VERSION = 3
ALIGNMENT = 16
"""Bytes of which a buffer's place in the file is a multiple."""
NUMBERS = {
    "bool": "?",
    "byte": "i1",
    "ubyte": "u1",
    "ushort": "<u2",
    "int": "<i4",
    "uint": "<u4",
    "long": "<i8",
    "ulong": "<u8",
    "float": "<f4",
}
"""NumPy's name of each of the schema's number types; files are little-endian."""
DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "BOOL": "bool",
    "COMPLEX64": "complex64",
}
"""NumPy's name of each TensorType whose values lie in whole bytes, one behind the other."""
_ONE_BYTE = 127  # an operator's number was one byte once, and older readers look there still


@dataclass(frozen=True)
class Field:
    """One field of a table.

    Attributes:
        type: a number's, an enum's, a union's or a table's name, or `string`.
        slot: its number in the table; a union takes the next too, for where its table is.
        many: whether it holds a vector.
        default: of a number or an enum, what it is where the file leaves it out.
    """

    name: str
    type: str
    slot: int
    many: bool = False
    default: Any = None


@dataclass(frozen=True)
class Enum:
    """Names of numbers from 0, or of a union's tables from 1.

    Attributes:
        base: type of the number.
    """

    base: str
    names: tuple[str, ...]

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each name."""
        return {name: number for number, name in enumerate(self.names)}


@dataclass(frozen=True)
class Schema:
    """All that may stand in a file.

    Attributes:
        tables: fields of each table in order.
        enums: names of numbers; `BuiltinOperator` is one of them.
        unions: tables of each union, counted from 1: the first name is `NONE`.
        options: the table of each operator's options, for operators that have one.

    Example:
        >>> known = schema()
        >>> known.enums["BuiltinOperator"].numbers["HARD_SWISH"], known.options["MEAN"]
        (117, 'ReducerOptions')
        >>> [(f.name, f.type, f.slot, f.default) for f in known.tables["SoftmaxOptions"]]
        [('beta', 'float', 0, 0.0)]
    """

    tables: Mapping[str, tuple[Field, ...]]
    enums: Mapping[str, Enum]
    unions: Mapping[str, Enum]
    options: Mapping[str, str]

    def union_of(self, operator: str) -> str:
        """The field of an Operator in which its options stand.

        Example:
            >>> schema().union_of("ADD"), schema().union_of("DILATE")
            ('builtin_options', 'builtin_options_2')
        """
        second = self.options.get(operator) in self.unions["BuiltinOptions2"].names
        return "builtin_options_2" if second else "builtin_options"


@lru_cache(maxsize=1)
def schema() -> Schema:
    """The schema, read once."""
    folder = resources.files(__package__)
    text = "".join(folder.joinpath(name).read_text("utf-8") for name in ("schema.txt", "metadata.txt"))
    enums, unions, tables = dict[str, Enum](), dict[str, Enum](), dict[str, str]()
    options: dict[str, str] = {}
    for head, body in _entries(text):
        kind, *named = head.split()
        if kind == "enum":
            enums[named[0]] = Enum(named[1], tuple(body.split()))
        elif kind == "union":
            unions[named[0]] = Enum("ubyte", ("NONE", *body.split()))
        elif kind == "table":
            tables[named[0]] = body
        elif kind == "empty":
            tables |= dict.fromkeys(body.split(), "")
        else:
            pairs = [entry.split() for entry in body.split(",")]
            enums["BuiltinOperator"] = Enum("int", tuple(name for name, _ in pairs))
            options = {name: table for name, table in pairs if table != "-"}
    fields = {name: tuple(_fields(body.split(","), enums, unions)) for name, body in tables.items()}
    return Schema(fields, enums, unions, options)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Heads and bodies; lines that are indented go on from the line before."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\n ", " ")
    for line in joined.splitlines():
        head, _, body = line.partition(":")
        yield head, body.strip()


def _fields(entries: Iterable[str], enums: Mapping[str, Enum], unions: Mapping[str, Enum]) -> Iterator[Field]:
    slot = 0
    for entry in entries:
        if not entry:
            continue
        name, kind = entry.split()
        kind, _, default = kind.partition("=")
        many, kind = kind.startswith("["), kind.strip("[]")
        value: Any = None
        if kind in enums:
            value = default or enums[kind].names[0]
        elif kind in NUMBERS:
            value = default == "true" if kind == "bool" else (float if kind == "float" else int)(default or 0)
        yield Field(name, kind, slot, many, None if many else value)
        slot += 2 if kind in unions else 1


def operator_name(code: Mapping[str, Any]) -> str:
    """What operator an OperatorCode stands for.

    Example:
        >>> operator_name({"deprecated_builtin_code": 3, "builtin_code": "ADD"})  # as older writers left it
        'CONV_2D'
    """
    operators = schema().enums["BuiltinOperator"]
    old = int(code["deprecated_builtin_code"])
    return operators.names[old] if 0 < old < _ONE_BYTE else str(code["builtin_code"])


def operator_code(name: str, version: int = 1) -> dict[str, Any]:
    """The OperatorCode of an operator, where older readers look too.

    Example:
        >>> operator_code("GELU", 2)
        {'deprecated_builtin_code': 127, 'version': 2, 'builtin_code': 'GELU'}
    """
    number = schema().enums["BuiltinOperator"].numbers[name]
    return {"deprecated_builtin_code": min(number, _ONE_BYTE), "version": version, "builtin_code": name}
