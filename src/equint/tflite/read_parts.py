"""Parts of tensors, and tensors put together of parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.model import Name
from .call import Call, reads
from .draft import Value, plain, without
from .read_shapes import inserted, squeezed

_END = np.iinfo(np.int64).max


@reads("CONCATENATION")
def _concatenation(call: Call) -> None:
    values = [v for v in call.values() if v.data is None or v.data.size]
    order = next((v.axes for v in values if v.data is None and v.axes != plain(v.rank)), plain(values[0].rank))
    axis = call.axis(int(call.option("axis")), len(order))
    names = [call.placed(value, order) for value in values]
    call.give(call.add("Concat", *names, axis=order.index(axis)), order)


@reads("PACK")
def _pack(call: Call) -> None:
    values, rank = call.values(), call.value(0).rank
    axis = call.axis(int(call.option("axis")), rank + 1)
    if all(v.data is not None for v in values):
        return call.give_data(np.stack([np.asarray(v.data) for v in values], axis))
    axes = call.const([axis], "axes")
    raised = [call.add("Unsqueeze", call.placed(value, plain(rank)), axes) for value in values]
    return call.give(call.add("Concat", *raised, axis=axis))


@reads("UNPACK")
def _unpack(call: Call) -> None:
    x = call.value(0)
    axis = call.axis(int(call.option("axis")), x.rank)
    count = len(call.operator.outputs)
    parts = _parts(call, x, axis, [1] * count)
    for k, part in enumerate(parts):
        made = call.add("Squeeze", part, call.const([x.at(axis)], "axes"))
        call.give(made, without(x.axes, [axis]), k)


@reads("SPLIT")
def _split(call: Call) -> None:
    x, count = call.value(1), len(call.operator.outputs)
    axis = call.axis(call.ints(0)[0], x.rank)
    if (size := x.dims[axis]) is None or size % count:
        call.refuse(f"splits {size} into {count}")
    _give_parts(call, x, axis, [size // count] * count)


@reads("SPLIT_V")
def _split_v(call: Call) -> None:
    x, sizes = call.value(0), call.ints(1)
    axis = call.axis(call.ints(2)[0], x.rank)
    size = x.dims[axis]
    if -1 in sizes and size is not None:
        sizes[sizes.index(-1)] = size - sum(n for n in sizes if n >= 0)
    if min(sizes) < 0 or size not in (None, sum(sizes)) or len(sizes) != len(call.operator.outputs):
        call.refuse(f"splits {size} into {sizes}")
    _give_parts(call, x, axis, sizes)


def _give_parts(call: Call, x: Value, axis: int, sizes: Sequence[int]) -> None:
    for k, part in enumerate(_parts(call, x, axis, sizes)):
        call.give(part, x.axes, k)


def _parts(call: Call, x: Value, axis: int, sizes: Sequence[int]) -> tuple[Name, ...]:
    """Parts of a value along an axis."""
    name = call.own(x)
    if len(sizes) == 1:
        return (call.add("Identity", name),)
    operands = [name, call.const(sizes, "sizes")]
    return call.draft.add("Split", operands, call.stem, len(sizes), axis=x.at(axis))


@reads("SLICE")
def _slice(call: Call) -> None:
    """From `begin`, `size` long; -1: to the end."""
    x = call.value(0)
    begin, size = call.value(1).data, call.value(2).data
    if begin is None or size is None:
        return _computed_slice(call)
    starts = [int(n) for n in begin.reshape(-1)]
    ends = [_END if n < 0 else s + int(n) for s, n in zip(starts, size.reshape(-1), strict=True)]
    return call.give(cut(call, x, starts, ends, [1] * x.rank), x.axes)


def _computed_slice(call: Call) -> None:
    """Ends are begin + size, and where that is -1, far away."""
    begin, size = call.indices(1), call.indices(2)
    far = call.const(1 << 31, "far")
    ends = call.add("Where", call.add("Less", size, call.const(0, "none")), far, call.add("Add", begin, size))
    call.give(call.add("Slice", call.plain(0), begin, ends))


def cut(call: Call, x: Value, starts: Sequence[int], ends: Sequence[int], steps: Sequence[int]) -> Name:
    """A part of a value in its own order of axes; bounds in the file's."""
    whole = [(0, _END, 1) if s > 0 else (-1, -_END, s) for s in steps]
    axes = [a for a, each in enumerate(zip(starts, ends, steps, strict=True)) if each != whole[a]]
    axes = [
        a for a in axes if not (starts[a] == 0 and steps[a] == 1 and x.dims[a] is not None and ends[a] == x.dims[a])
    ]
    name = call.own(x)
    if not axes:
        return name
    picked = [[values[a] for a in axes] for values in (starts, ends)] + [
        [x.at(a) for a in axes],
        [steps[a] for a in axes],
    ]
    operands = [call.const(values, what) for values, what in zip(picked, ("from", "to", "axes", "steps"), strict=True)]
    return call.add("Slice", name, *operands)


@reads("STRIDED_SLICE")
def _strided_slice(call: Call) -> None:
    """x[begin:end:stride] of each axis, with masks of axes that are whole, new, or dropped."""
    x = call.value(0)
    strides = call.ints(3)
    if call.option("ellipsis_mask") or call.option("offset"):
        call.refuse("has an ellipsis or offsets, which are not read")
    masks = {what: _bits(call, f"{what}_mask", len(strides)) for what in ("begin", "end", "new_axis", "shrink_axis")}
    begin, end = call.value(1).data, call.value(2).data
    kept = [k for k in range(len(strides)) if not masks["new_axis"][k]]
    if len(kept) > x.rank or 0 in strides:
        call.refuse(f"has strides {strides} of {x.rank} axes")
    gone = [a for a, k in enumerate(kept) if masks["shrink_axis"][k]]
    if begin is None or end is None:
        name, axes = _computed_bounds(call, kept, gone, strides, masks["begin"], masks["end"]), plain(x.rank)
    else:
        starts, ends, steps = [0] * x.rank, [_END] * x.rank, [1] * x.rank
        for a, k in enumerate(kept):
            steps[a] = strides[k]
            backwards = strides[k] < 0
            starts[a] = (-1 if backwards else 0) if masks["begin"][k] else int(begin[k])
            ends[a] = (-_END if backwards else _END) if masks["end"][k] else int(end[k])
            if a in gone:  # one place, whatever its end says
                starts[a] = int(begin[k]) if not masks["begin"][k] else 0
                ends[a], steps[a] = starts[a] + 1 if starts[a] != -1 else _END, 1
        name, axes = cut(call, x, starts, ends, steps), x.axes
    value = Value(name, axes, (None,) * x.rank, x.dtype)
    name, axes = squeezed(call, value, gone), without(axes, gone)
    for k in (k for k in range(len(strides)) if masks["new_axis"][k]):
        at = k - sum(masks["shrink_axis"][j] for j in range(k))
        name, axes = inserted(call, Value(name, axes, (None,) * len(axes), x.dtype), at)
    return call.give(name, axes)


def _bits(call: Call, mask: str, count: int) -> list[bool]:
    return [bool(int(call.option(mask, 0)) >> k & 1) for k in range(count)]


def _computed_bounds(
    call: Call, kept: list[int], gone: list[int], strides: list[int], begins: list[bool], ends: list[bool]
) -> Name:
    """A Slice whose bounds are computed: those of masked axes are far away."""
    if any(strides[k] < 0 for k in kept) or len(kept) != len(strides):
        call.refuse("computes where it begins or ends")
    count = len(strides)
    starts = _masked(call, call.indices(1), begins, 0)
    stops = _masked(call, call.indices(2), ends, 1 << 31)
    if gone:  # one place, whatever its end says
        one = call.add("Add", starts, call.const(1, "one"))
        stops = call.add("Where", call.const([k in gone for k in range(count)], "dropped", bool), one, stops)
    axes, steps = call.const(range(count), "axes"), call.const(strides, "steps")
    return call.add("Slice", call.plain(0), starts, stops, axes, steps)


def _masked(call: Call, name: Name, mask: list[bool], value: int) -> Name:
    if not any(mask):
        return name
    return call.add("Where", call.const(mask, "mask", bool), call.const(value, "whole"), name)


@reads("REVERSE_V2")
def _reverse(call: Call) -> None:
    x = call.value(0)
    turned = {call.axis(axis, x.rank) for axis in call.ints(1)}
    steps = [-1 if a in turned else 1 for a in range(x.rank)]
    starts, ends = [-1 if s < 0 else 0 for s in steps], [-_END if s < 0 else _END for s in steps]
    axes = [a for a in range(x.rank) if a in turned]
    operands = [[starts[a] for a in axes], [ends[a] for a in axes], [x.at(a) for a in axes], [-1] * len(axes)]
    if not axes:
        return call.give(call.add("Identity", call.own(x)), x.axes)
    names = [call.const(v, what) for v, what in zip(operands, ("from", "to", "axes", "steps"), strict=True)]
    return call.give(call.add("Slice", call.own(x), *names), x.axes)


@reads("REVERSE_SEQUENCE")
def _reverse_sequence(call: Call) -> None:
    batch, time = int(call.option("batch_dim", 0)), int(call.option("seq_dim"))
    if {batch, time} != {0, 1}:
        call.refuse(f"turns axis {time} of batches on axis {batch}; only axes 0 and 1 are read")
    made = call.add("ReverseSequence", call.plain(0), call.indices(1), batch_axis=batch, time_axis=time)
    call.give(made)


@reads("GATHER")
def _gather(call: Call) -> None:
    x, places = call.value(0), call.value(1)
    axis, batch = call.axis(int(call.option("axis", 0)), x.rank), int(call.option("batch_dims", 0))
    batch = batch + places.rank if batch < 0 else batch
    if batch == 0:
        return call.give(call.add("Gather", call.plain(0), call.indices(1), axis=axis))
    if batch != axis:
        call.refuse(f"has {batch} batch axes in front of axis {axis}")
    last = call.add("Unsqueeze", call.indices(1), call.const([-1], "last"))
    return call.give(call.add("GatherND", call.plain(0), last, batch_dims=batch))


@reads("GATHER_ND")
def _gather_nd(call: Call) -> None:
    call.give(call.add("GatherND", call.plain(0), call.indices(1)))


@reads("SCATTER_ND")
def _scatter_nd(call: Call) -> None:
    """Places, values, shape; what meets in a place is added up."""
    dtype = call.value(1).dtype
    zeros = call.add("Expand", call.const(0, "zero", dtype), call.indices(2))
    call.give(call.add("ScatterND", zeros, call.indices(0), call.plain(1), reduction="add"))


@reads("ONE_HOT")
def _one_hot(call: Call) -> None:
    """Places, depth, the value there and that elsewhere."""
    pair = [call.add("Reshape", call.plain(k), call.const([1], "one")) for k in (3, 2)]
    values = call.add("Concat", *pair, axis=0)
    depth = call.add("Reshape", call.indices(1), call.const([], "scalar"))
    call.give(call.add("OneHot", call.indices(0), depth, values, axis=int(call.option("axis", -1))))


@reads("WHERE")
def _where(call: Call) -> None:
    """Places of what is true, one a row."""
    found = call.add("NonZero", call.plain(0))
    call.give(call.add("Transpose", found, perm=[1, 0]))
