"""Pools, sizes of pictures, reductions along axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.model import Name
from .call import Call, reads
from .draft import Axes, without
from .windows import padding

_FIRST: Axes = (0, 3, 1, 2)
_REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd", "REDUCE_ANY": "ReduceMax", "REDUCE_ALL": "ReduceMin",
}  # fmt: skip


def _windows(call: Call) -> dict[str, Any]:
    kernel = [int(call.option("filter_height")), int(call.option("filter_width"))]
    strides = [int(call.option("stride_h")), int(call.option("stride_w"))]
    x = call.value(0)
    if x.rank != 4 or min(kernel + strides) < 1:
        call.refuse(f"has windows {kernel} in strides {strides} on {x.rank} axes")
    return {"kernel_shape": kernel, "strides": strides} | padding(call.option("padding"), x.dims[1:3], kernel, strides)


@reads("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(call: Call) -> None:
    """What is padded does not count."""
    op = "MaxPool" if call.operator.kind == "MAX_POOL_2D" else "AveragePool"
    call.give(call.add(op, call.placed(call.value(0), _FIRST), **_windows(call)), _FIRST)


@reads("L2_POOL_2D")
def _l2_pool(call: Call) -> None:
    """√ of the mean square."""
    x = call.placed(call.value(0), _FIRST)
    call.give(call.add("Sqrt", call.add("AveragePool", call.add("Mul", x, x), **_windows(call))), _FIRST)


@reads("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def _resize(call: Call) -> None:
    """To given sizes: x_in = x_out·in/out, or between the middles of pixels, or with corners on corners.

    Nearest neighbours: ⌊x_out·in/out⌋, of middles ⌊(x_out + ½)·in/out⌋; with corners on corners halves are rounded up.
    """
    bilinear = call.operator.kind == "RESIZE_BILINEAR"
    corners, middles = call.option("align_corners", False), call.option("half_pixel_centers", False)
    mode = "align_corners" if corners else "half_pixel" if middles else "asymmetric"
    attrs: dict[str, Any] = {"coordinate_transformation_mode": mode, "mode": "linear" if bilinear else "nearest"}
    if not bilinear:
        attrs["nearest_mode"] = "round_prefer_ceil" if corners or middles else "floor"
    x = call.value(0)
    name, sizes = call.placed(x, _FIRST), call.value(1).data
    if sizes is not None and None not in (x.dims[0], x.dims[3]):
        target = call.const([x.dims[0], x.dims[3], *call.ints(1)], "sizes")
    else:
        front = call.add("Slice", call.add("Shape", name), call.const([0], "from"), call.const([2], "to"))
        target = call.add("Concat", front, call.indices(1), axis=0)
    call.give(call.add("Resize", name, "", "", target, **attrs), _FIRST)


@reads("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def _blocks(call: Call) -> None:
    """Channels lie as (row in block, column in block, channel), as in ONNX's DCR."""
    op = "DepthToSpace" if call.operator.kind == "DEPTH_TO_SPACE" else "SpaceToDepth"
    size = int(call.option("block_size"))
    if size < 1:
        call.refuse(f"has blocks of {size}")
    call.give(call.add(op, call.placed(call.value(0), _FIRST), blocksize=size), _FIRST)


@reads(*_REDUCTIONS)
def _reduce(call: Call) -> None:
    x, kind = call.value(0), call.operator.kind
    gone = sorted({call.axis(axis, x.rank) for axis in call.ints(1)})
    name, axes = call.own(x), [x.at(axis) for axis in gone]
    kept = bool(call.option("keep_dims", False))
    logical = kind in ("REDUCE_ANY", "REDUCE_ALL")
    name = call.cast(name, "int32") if logical else name
    if not gone:
        made = call.add("Identity", name)
    elif kind == "SUM":
        made = call.add("ReduceSum", name, call.const(axes, "axes"), keepdims=int(kept))
    else:
        made = call.add(_REDUCTIONS[kind], name, axes=axes, keepdims=int(kept))
    made = call.cast(made, "bool") if logical else made
    call.give(made, x.axes if kept or not gone else without(x.axes, gone))


@reads("ARG_MAX", "ARG_MIN")
def _arg(call: Call) -> None:
    x, op = call.value(0), "ArgMax" if call.operator.kind == "ARG_MAX" else "ArgMin"
    axis = call.axis(call.ints(1)[0], x.rank)
    made = call.add(op, call.own(x), axis=x.at(axis), keepdims=0)
    call.give(_as_output(call, made), without(x.axes, [axis]))


@reads("TOPK_V2")
def _top_k(call: Call) -> None:
    """Along the last axis: values and where they lie."""
    count = call.add("Reshape", call.indices(1), call.const([1], "one"))
    values, places = call.draft.add("TopK", [call.plain(0), count], call.stem, 2)
    call.give(_as_output(call, places, 1), k=1)
    call.give(values)


@reads("CUMSUM")
def _cumsum(call: Call) -> None:
    x = call.value(0)
    axis = call.const(x.at(call.axis(call.ints(1)[0], x.rank)), "axis")
    flags = {key: int(call.option(key, False)) for key in ("exclusive", "reverse")}
    call.give(call.add("CumSum", call.own(x), axis, **flags), x.axes)


def _as_output(call: Call, name: Name, k: int = 0) -> Name:
    """Whole numbers of 64 bits, of which ONNX makes its indices, in the type that the file says."""
    dtype = call.scope.graph.tensors[call.operator.outputs[k]].dtype
    return name if dtype == "int64" else call.cast(name, dtype)


@reads("SHAPE")
def _shape(call: Call) -> None:
    x = call.value(0)
    if all(n is not None for n in x.dims):
        return call.give_data(np.array(x.dims))
    return call.give(_as_output(call, call.add("Shape", call.plain(0))))


@reads("RANK")
def _rank(call: Call) -> None:
    call.give_data(np.array(call.value(0).rank))
