"""Operators that call other subgraphs of a file, and custom ones that mobile networks are shipped with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .call import Call, reads
from .conversion import graph_of
from .draft import Draft, Value, channels_first, plain
from .read_layers import kernel_of, transposed
from .scope import Scope

if TYPE_CHECKING:
    from onnx import GraphProto

_DEEPEST = 8
_PADDINGS = {1: "SAME", 2: "VALID"}


@reads("IF")
def _if(call: Call) -> None:
    """A condition, and what the branches are given; constants stay constant in them."""
    given, made = [call.scope.value(i) for i in call.operator.inputs[1:]], len(call.operator.outputs)
    condition = call.plain(0)
    if call.value(0).rank:
        condition = call.add("Reshape", condition, call.const([], "scalar"))
    branches = [_branch(call, int(call.option(f"{which}_subgraph_index")), given) for which in ("then", "else")]
    attrs = {"then_branch": branches[0], "else_branch": branches[1]}
    for k, name in enumerate(call.draft.add("If", [condition], call.stem, made, **attrs)):
        call.give(name, k=k)


def _branch(call: Call, number: int, given: Sequence[Value]) -> GraphProto:
    """A subgraph as a branch, which reads what it is given from around it."""
    if call.scope.depth >= _DEEPEST:
        call.refuse("calls subgraphs that call subgraphs, deeper than is read")
    content = call.scope.content
    if not 0 < number < len(content.subgraphs):
        call.refuse(f"calls subgraph {number}, which is not there")
    inside = Scope(content, number, Draft(call.draft.taken), call.scope.depth + 1)
    if len(inside.graph.inputs) != len(given) or len(inside.graph.outputs) != len(call.operator.outputs):
        call.refuse(f"calls subgraph {number}, which takes or makes other tensors")
    for index, value in zip(inside.graph.inputs, given, strict=True):
        name = value.name if value.data is not None else call.draft.placed(value, plain(value.rank))
        inside.known[index] = replace(value, name=name, axes=plain(value.rank))
    return graph_of(inside)


@reads("CUSTOM Convolution2DTransposeBias")
def _transpose_conv_bias(call: Call) -> None:
    """MediaPipe's own: a TRANSPOSE_CONV of input, weight (out, h, w, in) and bias, that makes stride times the size.

    Its options are three numbers: padding (1: SAME, 2: VALID), stride of columns, stride of rows.
    """
    if len(call.operator.custom) < 12:
        call.refuse("lacks its options")
    kind, stride_w, stride_h = struct.unpack_from("<3i", call.operator.custom)
    if kind not in _PADDINGS:
        call.refuse(f"has padding {kind}")
    options = {"padding": _PADDINGS[kind], "stride_w": stride_w, "stride_h": stride_h}
    call = replace(call, operator=replace(call.operator, options=options))
    x, weight, axes = call.value(0), call.value(1), (3, 0, 1, 2)
    operands = [call.placed(weight, axes), call.plain(2) if call.has(2) else ""]
    transposed(call, x, kernel_of(call, weight, axes), call.dims()[1:-1], operands, channels_first(x.rank))
