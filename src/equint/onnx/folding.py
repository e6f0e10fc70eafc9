"""Constants worked out while reading: shape arithmetic, and everything that depends on constants alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..ir.model import Array, Dim, Graph, Name, Node, frozen
from ..ops.attributes import element_count
from .writer import to_proto

FOLDABLE_BYTES, GROWN_BYTES = 1 << 28, 1 << 24
"""Constants above the first are not folded; nor do small ones grow into larger ones than the second."""
_NEVER_FOLDED = frozenset(
    ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"]
)


def folded(graph: Graph) -> Graph:
    """Evaluate every node that depends on constants alone, and Shapes that are known.

    Example:
        >>> shape = Node("Shape", ("x",), ("s",))
        >>> folded(Graph((shape,), {}, ("x",), ("s",), {"x": (2, 3)})).consts["s"].tolist()
        [2, 3]
    """
    consts = dict(graph.consts)
    nodes: list[Node] = []
    partial: dict[Name, list[Dim]] = {}
    for node in graph.nodes:
        value = _static_shape(graph, node, consts, partial)
        if (
            value is None
            and node.inputs
            and all(i in consts for i in node.reads)
            and not (node.domain or node.captured or node.op in _NEVER_FOLDED)
        ):
            value = _evaluate(node, consts, graph)
        if value is None:
            target = _target(graph, node, consts, partial)
            if target is not None:
                name = graph.fresh(f"{node.outputs[0]}_shape")
                consts[name] = frozen(np.asarray(target, np.int64))
                node = replace(node, inputs=(node.inputs[0], name))
            nodes.append(node)
        else:
            consts.update((n, frozen(v)) for n, v in zip(node.outputs, value, strict=True) if n)
    return graph.with_nodes(nodes, consts)


def _static_shape(
    graph: Graph, node: Node, consts: Mapping[Name, Array], partial: dict[Name, list[Dim]]
) -> list[Array] | None:
    """Shape, and Gather or Slice of a Shape, where the sizes asked for are known although others are not."""
    if node.domain:
        return None
    sizes: list[Dim] | None = None
    if node.op == "Shape" and (shape := graph.shapes.get(node.inputs[0])) is not None:
        sizes = list(shape)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    elif node.op in ("Gather", "Slice") and node.inputs[0] in partial:
        rest = [consts.get(i) for i in node.inputs[1:]]
        if any(r is None for r in rest):
            return None
        index = np.arange(len(partial[node.inputs[0]]))
        if node.op == "Gather":
            picked = index[np.asarray(rest[0])]
        else:
            step = int(np.asarray(rest[3]).item()) if len(rest) > 3 else 1
            picked = index[int(np.asarray(rest[0]).item()) : int(np.asarray(rest[1]).item()) : step]
        sizes = [partial[node.inputs[0]][int(k)] for k in picked.reshape(-1)]
        if sizes and all(isinstance(s, int) for s in sizes):
            return [np.asarray(sizes, np.int64).reshape(picked.shape)]
        partial[node.outputs[0]] = sizes
        return None
    elif node.op in ("Unsqueeze", "Squeeze", "Cast", "Identity") and node.inputs[0] in partial:
        partial[node.outputs[0]] = partial[node.inputs[0]]
        return None
    elif node.op == "Concat" and all(i in partial or i in consts for i in node.inputs):
        known = (partial[i] if i in partial else consts[i].reshape(-1).tolist() for i in node.inputs)
        partial[node.outputs[0]] = [s for sizes_ in known for s in sizes_]
        return None
    if sizes is None:
        return None
    partial[node.outputs[0]] = sizes
    return [np.asarray(sizes, np.int64)] if sizes and all(isinstance(s, int) for s in sizes) else None


def _target(
    graph: Graph, node: Node, consts: Mapping[Name, Array], partial: Mapping[Name, list[Dim]]
) -> list[int] | None:
    """The constant that says what a Reshape's computed target does, where that keeps the batch: [0, sizes…]."""
    if node.op != "Reshape" or node.domain or node.inputs[1] in consts:
        return None
    before, dims = graph.shapes.get(node.inputs[0]), partial.get(node.inputs[1])
    if not before or not dims or not isinstance(before[0], str) or dims[0] != before[0]:
        return None
    rest = [d for d in dims[1:] if isinstance(d, int) and d != 0]
    return [0, *rest] if len(rest) == len(dims) - 1 else None


def _evaluate(node: Node, consts: Mapping[Name, Array], graph: Graph) -> list[Array] | None:
    size = sum(consts[i].nbytes for i in node.reads)
    if size > FOLDABLE_BYTES or _grows(graph, node, consts, size):
        return None
    from onnx.reference import ReferenceEvaluator

    proto = to_proto(Graph((node,), {i: consts[i] for i in node.reads}, (), node.outputs, opset=graph.opset))
    try:
        return [np.asarray(v) for v in ReferenceEvaluator(proto).run(None, {})]
    except Exception:  # an operator that the reference cannot run simply stays in the graph
        return None


def _grows(graph: Graph, node: Node, consts: Mapping[Name, Array], size: int) -> bool:
    """Whether folding would make a large constant out of a small one, as ConstantOfShape and Expand can."""
    limit = max(GROWN_BYTES, 4 * size)
    if node.op == "ConstantOfShape":
        return 8 * float(np.prod(consts[node.inputs[0]].astype(np.float64))) > limit
    counts = [element_count(graph.shapes.get(o, ())) for o in node.outputs if o]
    return 8 * sum(count or 0 for count in counts) > limit


def static_reshapes(graph: Graph) -> Graph:
    """Reshapes to computed shapes made constant where inference knows all sizes, or all but a kept batch's.

    Example:
        >>> shapes = {"x": ("N", 2, 3), "y": (None, 6)}
        >>> graph = static_reshapes(Graph((Node("Reshape", ("x", "s"), ("y",)),), {}, ("x", "s"), ("y",), shapes))
        >>> graph.consts[graph.nodes[0].inputs[1]].tolist()
        [0, 6]
    """
    nodes: list[Node] = []
    consts: dict[Name, Array] = {}
    for node in graph.nodes:
        target = None if node.domain or node.op != "Reshape" else _inferred_target(graph, node)
        if target is not None:
            name = graph.fresh(f"{node.outputs[0]}_shape")
            consts[name] = np.asarray(target, np.int64)
            node = replace(node, inputs=(node.inputs[0], name))
        nodes.append(node)
    return graph.with_nodes(nodes, consts) if consts else graph


def _inferred_target(graph: Graph, node: Node) -> list[Dim] | None:
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if node.inputs[1] in graph.consts or not before or not after:
        return None
    if element_count(after) is not None:
        return list(after)
    inner = element_count(after[1:])
    return [0, *after[1:]] if inner is not None and inner == element_count(before[1:]) else None
