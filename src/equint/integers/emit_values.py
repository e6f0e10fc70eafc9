"""Functions of single values, and interpolation, in integer operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .program import Program, Step

if TYPE_CHECKING:
    from .maker import Maker


def interpolate(maker: Maker, program: Program, step: Step) -> None:
    """Two products and one rounding in 64 bits."""
    q, right = program.grids[step.inputs[0]], 2 * int(step.attrs["bits"])
    rows, columns = (step.arrays[k].astype(np.int64) for k in ("rows", "columns"))
    wide = maker.add("MatMul", maker.add("MatMul", rows, maker.cast(step.inputs[0], np.int64)), columns.T)
    limit = np.array([max(-q.qmin, q.qmax) << right], object)
    near = maker.rounded_shift(wide, np.array([right], object), limit, program.rounding, lambda a: a, step.name)
    maker.cast(near, program.storage(step.outputs[0]), step.outputs[0])


def table(maker: Maker, program: Program, step: Step) -> None:
    """A Gather from the table, or from the tables of all channels one behind the other."""
    table, first = step.arrays["table"], program.grids[step.inputs[0]].qmin
    offset = np.asarray(-first, np.int32)
    if table.ndim == 2:
        starts = np.arange(len(table), dtype=np.int32) * np.int32(table.shape[1]) - np.int32(first)
        offset = program.along(step, starts)
    index = maker.cast(step.inputs[0], np.int32)
    index = maker.add("Add", index, offset) if np.any(offset) else index
    values = table.reshape(-1).astype(program.storage(step.outputs[0]))
    maker.add("Gather", values, index, to=step.outputs[0], axis=0)


def clip(maker: Maker, program: Program, step: Step) -> None:
    """A Clip of bytes; Max and Min where the bounds differ by channel, or are wider."""
    (x,), (y,), low, high = step.inputs, step.outputs, step.arrays["low"], step.arrays["high"]
    kind = program.storage(y)
    if low.size == high.size == 1 and kind.itemsize == 1:
        maker.add("Clip", x, low.reshape(()).astype(kind), high.reshape(()).astype(kind), to=y)
        return
    low, high = (program.along(step, b).astype(np.int32) for b in (low, high))
    maker.cast(maker.add("Min", maker.add("Max", maker.cast(x, np.int32), low), high), kind, y)
