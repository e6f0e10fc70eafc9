"""What programs for hardware with floats compute in them: whole operators between integers, and integers of floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..ir.model import Name
from ..onnx.writer import to_proto
from .maker import Maker
from .program import Step

if TYPE_CHECKING:
    from .engine import Compiler, Proof

_AXES_AS_INPUTS = 18
"""From this opset on, reductions read their axes."""
_WITH_AXES = frozenset(
    f"Reduce{kind}" for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
)


def computed(compiler: Compiler, step: Step) -> Proof:
    """Float operators on real values: q − z of what is on a grid, times its scale."""
    graph = step.attrs["graph"]
    names = {inside: _real(compiler, name) for inside, name in zip(graph.inputs, step.inputs, strict=True)}
    inlined(compiler.maker, to_proto(graph), names | dict(zip(graph.outputs, step.outputs, strict=True)))
    compiler.held.update(step.outputs)
    return compiler.proven(step, "real", "it is computed in float")


def _real(compiler: Compiler, name: Name) -> Name:
    grid = compiler.program.grids.get(name)
    if grid is None:
        return name
    return compiler.maker.add("Mul", compiler.centred(name), np.asarray(grid.scale, np.float32))


def rounded(compiler: Compiler, step: Step) -> Proof:
    """q = clamp(z + round(x/scale), qmin, qmax), ties away from zero: QUANTIZE."""
    (x,), (y,), add = step.inputs, step.outputs, compiler.maker.add
    grid, zero = compiler.program.grids[y], compiler.program.zero_point(y)
    v = compiler.maker.cast(add("Div", x, np.asarray(grid.scale, np.float32)), np.float64)
    near = add("Mul", add("Sign", v), add("Floor", add("Add", add("Abs", v), np.float64(0.5))))
    ends = (np.float64(end - zero) for end in (grid.qmin, grid.qmax))
    compiler.maker.cast(add("Clip", near, *ends), np.float32, to=compiler.named(y))
    return compiler.proven(step, "real", "reals are rounded to integers")


def inlined(maker: Maker, proto: ModelProto, names: Mapping[Name, Name]) -> None:
    """The nodes of a model among those of a maker.

    Args:
        names: what its inputs and outputs are called there; all else gets fresh names.
    """
    opset = next(o.version for o in proto.opset_import if not o.domain)
    maker.opset = max(maker.opset, opset)
    known = dict(names)
    for tensor in proto.graph.initializer:
        known[tensor.name] = maker.const(numpy_helper.to_array(tensor), tensor.name)
    for node in proto.graph.node:
        made = helper.make_node(node.op_type, [], [], maker.fresh(f"{node.output[0]}_node"), domain=node.domain or None)
        made.attribute.extend(node.attribute)
        made.input.extend(known[i] if i else "" for i in node.input)
        for output in node.output:
            if output and output not in known:
                known[output] = maker.fresh(output)
            made.output.append(known[output] if output else "")
        if opset < _AXES_AS_INPUTS and not node.domain:
            _modern(maker, made)
        maker.nodes.append(made)


def _modern(maker: Maker, node: NodeProto) -> None:
    """A node of an older opset as this one has it."""
    if node.op_type in _WITH_AXES:
        axes = next((a for a in node.attribute if a.name == "axes"), None)
        if axes is not None:
            node.input.append(maker.const(np.array(axes.ints, np.int64)))
            node.attribute.remove(axes)
    elif node.op_type == "Split" and len(node.input) < 2:
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
