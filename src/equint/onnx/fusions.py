"""Operators that onnxruntime's optimizer makes of several of ONNX's, taken apart again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import pi, sqrt
from typing import Any

import numpy as np

from ..ir.model import Array, Graph, Name, Node

DOMAIN = "com.microsoft"
LAYER_NORMALIZATION = 17
"""The first opset that has a LayerNormalization."""


def taken_apart(graph: Graph) -> Graph:
    """The same network with what onnxruntime has fused as the operators it was; what is not known stays.

    Example:
        >>> fused = Node("FusedConv", ("x", "w"), ("y",), {"activation": "Relu"}, domain="com.microsoft")
        >>> [n.op for n in taken_apart(Graph((fused,), {"w": np.ones((1, 1, 1, 1))}, ("x",), ("y",))).nodes]
        ['Conv', 'Relu']
    """
    if all(node.domain != DOMAIN for node in graph.nodes):
        return graph
    nodes, consts = list[Node](), dict[Name, Array]()
    for node in graph.nodes:
        parts = Parts(replace(graph, consts={**graph.consts, **consts}), node)
        known = _FUSED.get(node.op) if node.domain == DOMAIN else None
        if known is not None and known(parts):
            nodes += parts.nodes
            consts |= parts.consts
        else:
            nodes.append(node)
    left = {node.domain for node in nodes}
    domains = {d: v for d, v in graph.domains.items() if d in left}
    return replace(graph.with_nodes(nodes, consts), domains=domains)


@dataclass
class Parts:
    """The operators that one is made of, in the making; the last to be added makes its output."""

    graph: Graph
    node: Node
    nodes: list[Node] = field(default_factory=list)
    consts: dict[Name, Array] = field(default_factory=dict)

    def input(self, position: int) -> Name:
        return self.node.inputs[position] if len(self.node.inputs) > position else ""

    def attr(self, key: str, default: Any) -> Any:
        return self.node.attrs.get(key, default)

    def const(self, value: float | Sequence[int] | Array, kind: type = np.float32) -> Name:
        name = self.graph.fresh(f"{self.node.outputs[0]}_constant_{len(self.consts)}")
        self.consts[name] = np.asarray(value, kind)
        return name

    def add(self, op: str, *inputs: Name, last: bool = False, **attrs: Any) -> Name:
        y = self.node.outputs[0]
        out = y if last else self.graph.fresh(f"{y}_part_{len(self.nodes)}")
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        name = self.node.name and (self.node.name if last else f"{self.node.name}_part_{len(self.nodes)}")
        self.nodes.append(Node(op, inputs, (out,), attrs, name))
        return out


_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
"""Activations that are fused, and the attributes that their parameters are."""


def _activated(parts: Parts, x: Name, params: Sequence[float]) -> bool:
    """The activation that a fused operator ends with."""
    kind = parts.attr("activation", "")
    if not kind:
        parts.nodes[-1] = replace(parts.nodes[-1], outputs=parts.node.outputs[:1])
    elif kind == "Clip" and len(params) == 2:
        parts.add("Clip", x, *(parts.const(p) for p in params), last=True)
    elif kind in _ACTIVATIONS:
        parts.add(kind, x, last=True, **dict(zip(_ACTIVATIONS[kind], params, strict=False)))
    else:
        return False
    return True


def _conv(parts: Parts) -> bool:
    attrs = {k: v for k, v in parts.node.attrs.items() if not k.startswith("activation")}
    x = parts.add("Conv", *(parts.input(k) for k in range(3)), **attrs)
    if parts.input(3):
        x = parts.add("Add", x, parts.input(3))
    return _activated(parts, x, list(parts.attr("activation_params", ())))


def _gemm(parts: Parts) -> bool:
    attrs = {k: v for k, v in parts.node.attrs.items() if not k.startswith("activation")}
    x = parts.add("Gemm", *(parts.input(k) for k in range(3)), **attrs)
    given = [parts.attr(f"activation_{key}", None) for key in ("alpha", "beta")]
    return _activated(parts, x, [float(p) for p in given if p is not None])


def _matmul(parts: Parts) -> bool:
    if parts.attr("transBatchA", 0) or parts.attr("transBatchB", 0):
        return False
    sides = list[Name]()
    for name, key in zip(parts.node.inputs, ("transA", "transB"), strict=True):
        turned = _turned(parts, name) if parts.attr(key, 0) else name
        if turned is None:
            return False
        sides.append(turned)
    alpha = float(parts.attr("alpha", 1.0))
    if alpha == 1:
        parts.add("MatMul", *sides, last=True)
    else:
        parts.add("Mul", parts.add("MatMul", *sides), parts.const(alpha), last=True)
    return True


def _turned(parts: Parts, name: Name) -> Name | None:
    """The last two axes exchanged; None where the rank is not known."""
    constant, rank = parts.graph.constant(name), parts.graph.rank(name)
    if constant is not None:
        return name if constant.ndim < 2 else parts.const(np.swapaxes(constant, -1, -2).copy(), constant.dtype.type)
    if rank is None or rank < 2:
        return name if rank == 1 else None
    return parts.add("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _gelu(parts: Parts) -> bool:
    """x·(1 + erf(x/√2))/2, behind a bias where there is one."""
    x = parts.add("Add", *parts.node.inputs) if parts.node.op == "BiasGelu" else parts.input(0)
    gate = parts.add("Erf", parts.add("Div", x, parts.const(sqrt(2))))
    return _half(parts, x, gate)


def _fast_gelu(parts: Parts) -> bool:
    """x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2."""
    x = parts.add("Add", *parts.node.inputs[:2]) if parts.input(1) else parts.input(0)
    cube = parts.add("Mul", parts.add("Pow", x, parts.const(3.0)), parts.const(0.044715))
    gate = parts.add("Tanh", parts.add("Mul", parts.add("Add", x, cube), parts.const(sqrt(2 / pi))))
    return _half(parts, x, gate)


def _half(parts: Parts, x: Name, gate: Name) -> bool:
    both = parts.add("Mul", x, parts.add("Add", gate, parts.const(1.0)))
    parts.add("Mul", both, parts.const(0.5), last=True)
    return True


def _quick_gelu(parts: Parts) -> bool:
    x = parts.input(0)
    gate = parts.add("Sigmoid", parts.add("Mul", x, parts.const(float(parts.attr("alpha", 1.702)))))
    parts.add("Mul", x, gate, last=True)
    return True


def _skip_norm(parts: Parts) -> bool:
    """LayerNormalization of a sum, which may be a result of its own."""
    if parts.graph.opset < LAYER_NORMALIZATION or any(parts.node.outputs[1:3]):
        return False
    x = parts.add("Add", parts.input(0), parts.input(1))
    if parts.input(4):
        x = parts.add("Add", x, parts.input(4))
    attrs = {"axis": -1, "epsilon": float(parts.attr("epsilon", 1e-12))}
    parts.add("LayerNormalization", x, parts.input(2), parts.input(3), last=True, **attrs)
    if len(parts.node.outputs) > 3 and parts.node.outputs[3]:
        parts.nodes.insert(-1, Node("Identity", (x,), (parts.node.outputs[3],)))
    return True


_FUSED: Mapping[str, Callable[[Parts], bool]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_norm,
}
"""How each is taken apart; False where its node says what is not known."""
