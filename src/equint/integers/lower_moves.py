"""Steps that move integers or choose among them: the ONNX operators, with every attribute spelled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UnsupportedOperator
from ..graph import clamps
from ..ir.model import Array, Name, Node
from ..maths import interpolation
from ..maths.affine import dequantize
from ..ops.attributes import pad_widths
from ..ops.operator import Form
from .builder import Lowering, same
from .geometry import static, window
from .program import Step


def move(work: Lowering, node: Node) -> None:
    """Lower an operator that moves integers: the grid stays, or is changed behind it."""
    floats = work.graph.is_float(node.outputs[0])
    inputs = [i if i not in work.graph.consts else _shape_constant(work, node, i) for i in node.inputs]
    if not floats:
        if node.op == "Shape":
            work.grid(node.inputs[0], node.label)
        work.steps.append(Step(node.op, node.label, tuple(inputs), node.outputs, node.attrs))
        return
    moved(work, node, node.op, inputs, node.attrs)


def _shape_constant(work: Lowering, node: Node, name: Name) -> Name:
    value = work.graph.consts[name]
    if value.dtype.kind not in "iub":
        raise UnsupportedOperator(f"{node.label}: moves the constant {name} among activations; compute it otherwise")
    work.consts[name] = value.astype(np.int64)
    return name


def moved(
    work: Lowering,
    node: Node,
    op: str,
    inputs: Sequence[Name],
    attrs: Mapping[str, Any],
    arrays: Mapping[str, Array] | None = None,
) -> None:
    """A step that keeps its input's grid; behind it, each output on its own where it has one."""
    x = work.grid(inputs[0], node.label)
    last = {o: work.result(node, o, x) for o in node.outputs if o}
    raw = {o: name if same(q, x) and not merged else work.fresh(f"{o}_moved") for o, (name, q, merged) in last.items()}
    work.steps.append(Step(op, node.label, tuple(inputs), tuple(raw.values()), attrs, arrays or {}))
    for o, (name, q, merged) in last.items():
        work.grids[raw[o]] = x
        if raw[o] != name:
            work.shapes[raw[o]] = work.graph.shapes.get(o) or ()
            work.rescaled(node, raw[o], (q, merged), name)


def _concat(work: Lowering, node: Node) -> None:
    consts = work.graph.consts
    grids = [work.grid(i, node.label) for i in node.inputs if i not in consts]
    q = work.result(node, node.outputs[0], grids[0])[1]
    q = grids[0] if all(same(g, grids[0]) for g in grids) else q
    joined = [work.stored(i, consts[i], q) if i in consts else work.rescaled(node, i, (q, [])) for i in node.inputs]
    moved(work, node, "Concat", joined, node.attrs)


def _identity(work: Lowering, node: Node) -> None:
    moved(work, replace(node, outputs=node.outputs[:1]), "Identity", node.inputs[:1], {})


def _max_pool(work: Lowering, node: Node) -> None:
    if any(node.outputs[1:]):
        raise UnsupportedOperator(f"{node.label}: the indices of a MaxPool have no integer form; leave them out")
    kernel = tuple(node.attrs["kernel_shape"])
    found = window(node, kernel, work.graph.shapes.get(node.inputs[0]), whole=False)
    attrs: dict[str, Any] = {"kernel_shape": list(kernel), "strides": found.strides, "pads": found.pads}
    attrs |= {"dilations": found.dilations, "ceil_mode": int(node.attrs.get("ceil_mode", 0))}
    moved(work, replace(node, outputs=node.outputs[:1]), "MaxPool", node.inputs, attrs)


def _split(work: Lowering, node: Node) -> None:
    axis, inputs = int(node.attrs.get("axis", 0)), list(node.inputs)
    if len(inputs) < 2 or not inputs[1]:
        shapes = [work.graph.shapes.get(o) for o in node.outputs]
        parts = [s[axis] if s else None for s in shapes]
        if not all(isinstance(p, int) for p in parts):
            raise UnsupportedOperator(f"{node.label}: the sizes of its parts are not known; export with static shapes")
        inputs = [inputs[0], work.integers(f"{node.outputs[0]}_sizes", [int(p) for p in parts if p is not None])]
    elif inputs[1] in work.graph.consts:
        _shape_constant(work, node, inputs[1])
    moved(work, node, "Split", inputs, {"axis": axis})


def _pad(work: Lowering, node: Node) -> None:
    rank = work.graph.rank(node.inputs[0])
    widths = pad_widths(work.graph, node, rank) if rank else None
    given = node.inputs[2] if len(node.inputs) > 2 else ""
    value = work.graph.constant(given) if given else np.zeros(())
    if widths is None or value is None:
        raise UnsupportedOperator(f"{node.label}: its widths or value are computed; make them constants")
    x = work.grid(node.inputs[0], node.label)
    attrs: dict[str, Any] = {"value": int(clamps.on_grid(value.reshape(()), x))}
    mode = node.attrs.get("mode", "constant")
    attrs |= {} if mode == "constant" else {"mode": mode}
    pads = np.array([w[0] for w in widths] + [w[1] for w in widths], np.int64)
    moved(work, node, "Pad", node.inputs[:1], attrs, {"pads": pads})


def _resize(work: Lowering, node: Node) -> None:
    attrs = dict(node.attrs)
    mode, how = attrs.get("mode", "nearest"), attrs.get("coordinate_transformation_mode", "half_pixel")
    if how == "tf_crop_and_resize" or mode not in ("nearest", "linear") or attrs.get("antialias", 0):
        what = how if how == "tf_crop_and_resize" else "antialias" if attrs.get("antialias", 0) else mode
        raise UnsupportedOperator(f"{node.label}: Resize ({what}) has no integer form; use nearest or linear")
    x, *rest = [*node.inputs, "", "", ""][:4]
    if mode == "linear":
        _interpolate(work, node, how)
        return
    if "axes" in attrs or attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        shape = work.graph.shapes.get(node.outputs[0])
        if shape is None or not all(isinstance(s, int) for s in shape):
            raise UnsupportedOperator(f"{node.label}: Resize of some axes needs static shapes; export it with those")
        inputs = [x, "", "", work.integers(f"{node.outputs[0]}_sizes", [int(s) for s in shape if s is not None])]
    else:
        inputs = [x, "", *rest[1:]]
        for i in inputs:
            if i in work.graph.consts:
                value = work.graph.consts[i]
                work.consts[i] = value.astype(np.float32 if value.dtype.kind == "f" else np.int64)
    while not inputs[-1]:
        inputs.pop()
    keys = ("mode", "coordinate_transformation_mode", "nearest_mode")
    moved(work, node, "Resize", inputs, {"mode": mode, **{k: attrs[k] for k in keys if k in attrs}})


def _interpolate(work: Lowering, node: Node, how: str, bits: int = 11) -> None:
    x, y = node.inputs[0], node.outputs[0]
    before, after = work.graph.shapes.get(x), work.graph.shapes.get(y)
    if how not in interpolation.MODES:
        raise UnsupportedOperator(f"{node.label}: Resize ({how}) has no integer form; use nearest or half_pixel")
    if before is None or after is None or len(before) != 4 or len(after) != 4 or before[1] != after[1]:
        raise UnsupportedOperator(f"{node.label}: a linear Resize needs two spatial axes of known sizes")
    ins, outs = static(before, node.label), static(after, node.label)
    given = work.graph.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scales = [o / i for o, i in zip(outs, ins, strict=True)]
    if given is not None and given.size:
        scales = [float(s) for s in given.reshape(-1)[-2:]]
    if work.target.arithmetic == "litert":
        bits = interpolation.LITERT_BITS
        rows, columns = (interpolation.litert_matrix(o, i, how) for o, i in zip(outs, ins, strict=True))
    else:
        rows, columns = (interpolation.matrix(o, i, s, how, bits) for o, i, s in zip(outs, ins, scales, strict=True))
    moved(work, node, "Interpolate", [x], {"bits": bits, "mode": how}, {"rows": rows, "columns": columns})


def _choose(work: Lowering, node: Node) -> None:
    """A Where, by a constant mask or where an activation is a constant."""
    condition, *parts = node.inputs
    mask, equal = work.graph.constant(condition), work.graph.producer.get(condition)
    out, shape = node.outputs[0], work.graph.shapes.get(node.outputs[0]) or ()
    q = work.grid(out, node.label)
    if mask is not None:
        x, value = work.integers(condition, mask.astype(np.int64)), 1
    else:
        x, compared = ("", None) if equal is None else _compared(work, equal)
        if compared is None:
            raise UnsupportedOperator(f"{node.label}: its condition is computed otherwise than by Equal to one number")
        grid = work.grid(x, node.label)
        value = int(clamps.on_grid(compared, grid))
        if dequantize(np.asarray(value), grid) != compared.astype(np.float32):  # what no integer stands for
            work.rescaled(node, parts[1], (q, []), out)
            return
    consts = work.graph.consts
    sides = [work.stored(i, consts[i], q) if i in consts else work.rescaled(node, i, (q, [])) for i in parts]
    work.add("Where", node, (x, *sides), out, q, attrs={"value": value})
    work.shapes[out] = shape


def _compared(work: Lowering, equal: Node) -> tuple[Name, Array | None]:
    """The activation and the number that an Equal compares; no number where it is another comparison."""
    constants = [i for i in equal.inputs if i in work.graph.consts and work.graph.consts[i].size == 1]
    tensors = [i for i in equal.inputs if i not in work.graph.consts]
    if equal.op != "Equal" or equal.domain or len(constants) != 1 or len(tensors) != 1:
        return "", None
    return tensors[0], work.graph.consts[constants[0]].reshape(()).astype(np.float64)


def only_chooses(work: Lowering, node: Node) -> bool:
    """Whether a comparison is read by nothing but what chooses by it, which takes it in."""
    users = work.graph.users(node.outputs[0])
    return node.op == "Equal" and not node.domain and bool(users) and all(u.op == "Where" for u in users)


FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.MOVE: move,
    Form.CONCAT: _concat,
    Form.IDENTITY: _identity,
    Form.MAX_POOL: _max_pool,
    Form.SPLIT: _split,
    Form.PAD: _pad,
    Form.RESIZE: _resize,
    Form.CHOOSE: _choose,
}
"""How moves of activations are built."""
