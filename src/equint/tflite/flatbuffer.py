"""Tables of a .tflite file as plain values, read and written by the schema.

A table is a `dict` of its fields by name. Numbers are numbers, vectors of them NumPy arrays, enums the names of their
values, vectors of tables lists, and a union the pair of its table's name and that table. What a file leaves out is the
schema's default: None for a table, a union or a string, an empty vector for a vector.

Files come from anywhere, so nothing in one is believed: every place and length is checked before it is used, tables
nest as deep as the schema and no deeper, and a file whose tables share bytes, so that little of it is much to read, is
refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutputRefused, UnreadableModel
from ..ir.model import Array
from .schema import ALIGNMENT, IDENTIFIERS, NUMBERS, Enum, Field, schema

if TYPE_CHECKING:
    from flatbuffers import Builder

Values = dict[str, Any]
"""A table: its fields by name."""
MOST = 2**31 - 64
"""Bytes that a file may have: places in it are counted in 31 bits."""
_TO_READ = 4  # bytes that are read for each byte of a file; a file in which nothing is shared needs less than one
_SPARE = 4096


def unpack(data: bytes, label: str = "model", root: str = "Model") -> Values:
    """A file's tables.

    Args:
        data: the whole file. Vectors of numbers are views of it.
        label: what messages call the file.
        root: the table that the file begins with.

    Raises:
        UnreadableModel: no .tflite file, truncated, damaged, or newer than the schema.

    Example:
        >>> file = pack({"version": 3, "description": "empty", "buffers": [{}]})
        >>> found = unpack(file)
        >>> found["description"], found["subgraphs"], [buffer["data"].size for buffer in found["buffers"]]
        ('empty', [], [0])
        >>> unpack(file[:40], "cut.tflite")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: cut.tflite: damaged or truncated (Model.description); copy or export it again
    """
    if len(data) < 8 or data[4:8] != IDENTIFIERS[root]:
        raise UnreadableModel(f"{label}: not a TFLite model; export it again")
    return _Reader(data, label).table(0, root, root)


class _Reader:
    """Reads one file; counts what it reads, so that a small file cannot keep it long."""

    def __init__(self, data: bytes, label: str) -> None:
        self.data, self.label, self.schema = data, label, schema()
        self.left = _TO_READ * len(data) + _SPARE

    def table(self, at: int, name: str, where: str) -> Values:
        """The table that the offset at `at` leads to."""
        start = self.forward(at, where)
        numbers = start - self.number("<i", start, where)
        size = self.number("<H", numbers, where)
        self.spend(8 + size, where)
        if size < 4 or size % 2 or numbers + size > len(self.data):
            raise self.damaged(where)
        count = size // 2 - 2
        places = struct.unpack_from(f"<{count}H", self.data, numbers + 4)
        values: Values = {}
        for field in self.schema.tables.get(name, ()):
            found = [start + places[s] if s < count and places[s] else 0 for s in (field.slot, field.slot + 1)]
            values[field.name] = self.field(field, found[0], found[1], f"{where}.{field.name}")
        return values

    def field(self, field: Field, at: int, second: int, where: str) -> Any:
        """What a field holds; 0 is the place of what is left out."""
        if field.type in self.schema.unions:
            return self.union(self.schema.unions[field.type], at, second, where)
        if field.many:
            return self.vector(field.type, at, where)
        if field.type in NUMBERS:
            return self.array(NUMBERS[field.type], at, 1, where)[0].item() if at else field.default
        if field.type in self.schema.enums:
            enum = self.schema.enums[field.type]
            number = self.array(NUMBERS[enum.base], at, 1, where)[0].item() if at else 0
            return self.named(enum, number, where) if at else field.default
        if not at:
            return None
        return self.string(at, where) if field.type == "string" else self.table(at, field.type, where)

    def union(self, union: Enum, at: int, second: int, where: str) -> tuple[str, Values] | None:
        kind = self.named(union, self.number("<B", at, where), where) if at else "NONE"
        if kind == "NONE" or not second:
            return None
        return kind, self.table(second, kind, f"{where} ({kind})")

    def vector(self, kind: str, at: int, where: str) -> Any:
        if kind in NUMBERS:
            if not at:
                return np.zeros(0, NUMBERS[kind])
            start = self.forward(at, where)
            return self.array(NUMBERS[kind], start + 4, self.number("<I", start, where), where)
        if not at:
            return []
        start = self.forward(at, where)
        count = self.number("<I", start, where)
        self.spend(4 * count, where)
        places = [(start + 4 + 4 * i, f"{where}[{i}]") for i in range(count)]
        return [self.string(*at) if kind == "string" else self.table(at[0], kind, at[1]) for at in places]

    def string(self, at: int, where: str) -> str:
        start = self.forward(at, where)
        text = self.array("u1", start + 4, self.number("<I", start, where), where)
        self.spend(text.size, where)
        return text.tobytes().decode("utf-8", "replace")

    def array(self, dtype: str, at: int, count: int, where: str) -> Array:
        if at + np.dtype(dtype).itemsize * count > len(self.data):
            raise self.damaged(where)
        return np.frombuffer(self.data, dtype, count, at)

    def forward(self, at: int, where: str) -> int:
        """Where the offset at a place leads: offsets are not negative, and 0 leads nowhere."""
        offset = self.number("<I", at, where)
        if not offset:
            raise self.damaged(where)
        return at + offset

    def number(self, form: str, at: int, where: str) -> int:
        try:
            if at < 0:
                raise self.damaged(where)
            return int(struct.unpack_from(form, self.data, at)[0])
        except struct.error as error:
            raise self.damaged(where) from error

    def named(self, enum: Enum, number: int, where: str) -> str:
        if not 0 <= number < len(enum.names):
            raise UnreadableModel(
                f"{self.label}: {where} is {number}, which the schema that equint knows does not name; "
                "export it with an older version"
            )
        return enum.names[number]

    def spend(self, read: int, where: str) -> None:
        self.left -= read
        if self.left < 0:
            raise self.damaged(where)

    def damaged(self, where: str) -> UnreadableModel:
        return UnreadableModel(f"{self.label}: damaged or truncated ({where}); copy or export it again")


def pack(values: Mapping[str, Any], root: str = "Model") -> bytes:
    """A file of plain values, in the form in which `unpack` gives them; what is left out is the schema's default.

    Args:
        values: fields by name. Vectors of numbers may be sequences or arrays, empty ones are left out, and the data
            of a Buffer may be any array, whose bytes are written. A Model's buffer 0 is empty, for tensors that have
            no constant.

    Raises:
        OutputRefused: more than 2 GB.
        ValueError: a field, a union's table or an enum's value that the schema does not name, or a buffer 0 with data.

    Example:
        >>> tensor = {"shape": [2], "type": "FLOAT32", "buffer": 1, "name": "w"}
        >>> options = ("SoftmaxOptions", {"beta": 1.0})
        >>> graph = {"tensors": [tensor], "operators": [{"inputs": [0], "outputs": [0], "builtin_options": options}]}
        >>> buffers = [{}, {"data": np.float32([1, 2])}]
        >>> found = unpack(pack({"version": 3, "subgraphs": [graph], "buffers": buffers}))
        >>> found["subgraphs"][0]["operators"][0]["builtin_options"]
        ('SoftmaxOptions', {'beta': 1.0})
        >>> found["buffers"][1]["data"].view("<f4").tolist()
        [1.0, 2.0]
    """
    import flatbuffers

    buffers = [np.asarray(buffer.get("data", ())) for buffer in values.get("buffers", ())] if root == "Model" else []
    if buffers and buffers[0].size:
        raise ValueError("buffer 0 holds data: it is for tensors that have none")
    size = sum(data.nbytes + 2 * ALIGNMENT for data in buffers)
    try:
        if size > MOST:
            raise OverflowError
        builder = flatbuffers.Builder(min(size + 65536, MOST))
        builder.Finish(_table(builder, values, root), file_identifier=IDENTIFIERS[root])
        return bytes(builder.Output())
    except (OverflowError, flatbuffers.builder.BuilderSizeError) as error:
        raise OutputRefused("a TFLite file holds at most 2 GB, and this network needs more") from error


def _table(builder: Builder, values: Mapping[str, Any], name: str) -> int:
    known = schema()
    if name not in known.tables:
        raise ValueError(f"the schema has no table {name}")
    fields = known.tables[name]
    if odd := set(values) - {field.name for field in fields}:
        raise ValueError(f"{name} has no field {', '.join(sorted(odd))}")
    given = {field: values[field.name] for field in fields if not _left_out(field, values.get(field.name))}
    placed = {field: _placed(builder, field, value, name) for field, value in given.items() if _lies_apart(field)}
    builder.StartObject(sum(2 if field.type in known.unions else 1 for field in fields))
    for field, value in given.items():
        if field.type in known.unions:
            _number(builder, "ubyte", field.slot, _numbered(known.unions[field.type], value[0]), 0)
            builder.PrependUOffsetTRelativeSlot(field.slot + 1, placed[field], 0)
        elif field in placed:
            builder.PrependUOffsetTRelativeSlot(field.slot, placed[field], 0)
        elif field.type in known.enums:
            enum = known.enums[field.type]
            _number(builder, enum.base, field.slot, _numbered(enum, value), enum.numbers[field.default])
        else:
            _number(builder, field.type, field.slot, value, field.default)
    return int(builder.EndObject())


def _left_out(field: Field, value: Any) -> bool:
    """Whether a field is not written: LiteRT takes an empty vector of bytes for options that are there."""
    return value is None or (field.many and field.type in NUMBERS and not np.size(value))


def _lies_apart(field: Field) -> bool:
    return field.many or not (field.type in NUMBERS or field.type in schema().enums)


def _placed(builder: Builder, field: Field, value: Any, table: str) -> int:
    """Where a vector, a string or a table lies, which must be written before what refers to it."""
    if field.type in schema().unions:
        return _table(builder, value[1], value[0])
    if not field.many:
        return int(builder.CreateString(value)) if field.type == "string" else _table(builder, value, field.type)
    if field.type in NUMBERS:
        return _vector(builder, field.type, value, ALIGNMENT if table == "Buffer" else 1)
    text = field.type == "string"
    places = [int(builder.CreateString(v)) if text else _table(builder, v, field.type) for v in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _vector(builder: Builder, kind: str, value: Any, alignment: int) -> int:
    dtype = np.dtype(NUMBERS[kind])
    array = np.asarray(value)
    data = array.astype(array.dtype.newbyteorder("<")).tobytes() if alignment > 1 else array.astype(dtype).tobytes()
    builder.StartVector(dtype.itemsize, len(data) // dtype.itemsize, max(alignment, dtype.itemsize))
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
    return int(builder.EndVector())


def _number(builder: Builder, kind: str, slot: int, value: Any, default: Any) -> None:
    from flatbuffers import number_types

    names = {"bool": "Bool", "byte": "Int8", "ubyte": "Uint8", "ushort": "Uint16", "int": "Int32", "uint": "Uint32"}
    names |= {"long": "Int64", "ulong": "Uint64", "float": "Float32"}
    builder.PrependSlot(getattr(number_types, f"{names[kind]}Flags"), slot, value, default)


def _numbered(enum: Enum, name: str) -> int:
    if name not in enum.numbers:
        raise ValueError(f"the schema has no {name} among {', '.join(enum.names[:4])}, …")
    return enum.numbers[name]
