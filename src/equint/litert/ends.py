"""The ends of a .tflite file: its inputs and outputs, their types and in which order their axes are."""

from __future__ import annotations

import numpy as np

from ..ir.model import Name, QParams
from .floats import read_real
from .layouts import Order, as_written, channels_last, stored
from .writer import Io, Writer


def entered(writer: Writer, name: Name, io: Io | None) -> int:
    """An input of the file, and what the network reads of it."""
    shape, order = writer.shape(name), entry_order(writer, name)
    if name not in writer.program.grids:
        made = writer.file.tensor(name, stored(shape, order), str(writer.program.storage(name)))
        writer.reals[name] = [(made, order)]
        return made
    own = writer.dtype(name)
    kind = _kind(io) or own
    if kind == own:
        return writer.made(name, order)
    grid = _converted(writer.grid(name), kind)
    outer = writer.file.tensor(name, stored(shape, order), kind, grid)
    writer.file.operator("QUANTIZE", [outer], [writer.made(name, order)])
    return outer


def entry_order(writer: Writer, name: Name) -> Order:
    """Images have their channels last: those of networks that have them there already stay as they are."""
    rank, readers = writer.rank(name), writer.readers.get(name, [])
    first = [0, *range(rank - 1, rank), *range(1, rank - 1)]
    already = bool(readers) and all(r.op == "Transpose" and list(r.attrs.get("perm", ())) == first for r in readers)
    return as_written(rank) if rank != 4 or already else channels_last(rank)


def exit_order(writer: Writer, name: Name) -> Order:
    """Images have their channels last, unless they lie in memory as the network has them."""
    rank = writer.rank(name)
    have = writer.place(name)[1] if name in writer.program.grids else writer.reals[name][0][1]
    return as_written(rank) if rank != 4 or have == as_written(rank) else channels_last(rank)


def left(writer: Writer, name: Name, io: Io | None) -> int:
    """An output of the file; one that is an input, too, or asked for twice, is a copy."""
    order = exit_order(writer, name)
    if name not in writer.program.grids:
        return read_real(writer, name, order)
    index = writer.read(name, order)
    own = writer.dtype(name)
    kind = _kind(io) or own
    if kind == own:
        return index
    grid = _converted(writer.grid(name), kind)
    outer = writer.file.tensor(f"{name}_{io}", stored(writer.shape(name), order), kind, grid)
    writer.file.operator("QUANTIZE" if grid is not None else "DEQUANTIZE", [index], [outer])
    return outer


def _kind(io: Io | None) -> str:
    return "float32" if io == "float" else io or ""


def _converted(grid: QParams, kind: str) -> QParams | None:
    """The same steps in the other type of a byte; floats have no grid."""
    if kind == "float32":
        return None
    moved = 0 if (kind == "int8") == grid.signed else -128 if kind == "int8" else 128
    return QParams(grid.scale, np.asarray(int(grid.zero_point) + moved, np.int32), grid.bits, kind == "int8")
