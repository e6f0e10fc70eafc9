"""Normalizations, lengths and shares that exporters write in several operators, as the one that each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..ir.model import Array, Graph, Name, Node, Shape
from ..ops.attributes import clip_bounds, reduced_axes
from .fusions import Parts

FEW = 1e-6
"""What a length is bounded by that only keeps zeros from being divided by zeros."""
SHARES = 13
"""The first opset whose Softmax is along one axis."""


def put_together(graph: Graph) -> Graph:
    """The same network with each such function as one operator, whichever opset that came with.

    Only where nothing else reads what stands between. `onnx/newer.py` takes apart again what an opset has not.

    Example:
        >>> nodes = [
        ...     Node("ReduceMean", ("x",), ("m",), {"axes": [-1]}),
        ...     Node("Sub", ("x", "m"), ("c",)),
        ...     Node("Mul", ("c", "c"), ("s",)),
        ...     Node("ReduceMean", ("s",), ("v",), {"axes": [-1]}),
        ...     Node("Add", ("v", "e"), ("w",)),
        ...     Node("Sqrt", ("w",), ("d",)),
        ...     Node("Div", ("c", "d"), ("y",)),
        ... ]
        >>> shapes = dict.fromkeys("xcsy", ("N", 8)) | dict.fromkeys("mvwd", ("N", 1))
        >>> [n.op for n in put_together(Graph(nodes, {"e": np.ones(1, np.float32)}, ("x",), ("y",), shapes)).nodes]
        ['LayerNormalization']
    """
    made, gone, consts = dict[Name, list[Node]](), set[Name](), dict[Name, Array]()
    for node in reversed(graph.nodes):  # the last operators of a function first: those with its gains and biases
        if node.domain or len(node.outputs) != 1 or node.outputs[0] in gone:
            continue
        for whole in _wholes(graph, node):
            inner, parts = _inner(graph, node, whole.x), Parts(graph, node)
            if inner is not None and _write(parts, whole):
                made[node.outputs[0]], gone, consts = parts.nodes, gone | inner, consts | parts.consts
                break
    if not made:
        return graph
    kept = (n for n in graph.nodes if n.outputs[0] not in gone)
    return graph.with_nodes([part for n in kept for part in made.get(n.outputs[0], [n])], consts)


@dataclass(frozen=True)
class _Whole:
    """gain·(x − mean)/√(mean of squares + epsilon) + bias; x over its length; or shares of a whole.

    Attributes:
        axes: along which x is taken together; of all positions of `groups` of channels where that is not 0.
        centred: whether the mean is subtracted.
        gain, bias: with as many dimensions as x.
    """

    x: Name
    axes: tuple[int, ...]
    kind: Literal["norm", "length", "shares"] = "norm"
    centred: bool = True
    epsilon: float = 0.0
    groups: int = 0
    gain: Array | None = None
    bias: Array | None = None


def _wholes(graph: Graph, node: Node) -> Iterator[_Whole]:
    """What a node may be the last operator of, the longest first."""
    for x, value in _with_constant(graph, node, "Add"):
        for found in _scaled(graph, graph.producer.get(x)):
            bias = _fitted(graph, found, value)
            if bias is not None:
                yield replace(found, bias=bias if found.bias is None else found.bias + bias)
    yield from _scaled(graph, node)


def _scaled(graph: Graph, node: Node | None) -> Iterator[_Whole]:
    """What is normalized, with what it is multiplied by."""
    for x, value in _with_constant(graph, node, "Mul"):
        for found in _bare(graph, graph.producer.get(x)):
            gain = _fitted(graph, found, value)
            if gain is not None:
                bias = None if found.bias is None else found.bias * gain
                yield replace(found, gain=gain if found.gain is None else found.gain * gain, bias=bias)
    yield from _bare(graph, node)


def _fitted(graph: Graph, found: _Whole, value: Array) -> Array | None:
    """A constant with as many dimensions as what it is applied to, whose shape it leaves."""
    shape = graph.shapes.get(found.x, ())
    if found.kind != "norm" or value.ndim > len(shape) or value.dtype.kind != "f":
        return None
    whole = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    return whole if all(n in (1, m) for n, m in zip(whole.shape, shape, strict=True)) else None


def _bare(graph: Graph, node: Node | None) -> Iterator[_Whole]:
    for a, root in _quotients(graph, node):
        yield from _divided(graph, a, root)
        yield from _shares(graph, a, root)
    grouped = _grouped(graph, node)
    if grouped is not None:
        yield grouped


def _quotients(graph: Graph, node: Node | None) -> Iterator[tuple[Name, tuple[Name, float]]]:
    """What a node divides, and what by: a power of a tensor."""
    if node is None or node.domain:
        return
    if node.op == "Div":
        yield node.inputs[0], (node.inputs[1], 1.0)
    for a, b in _orders(node) if node.op == "Mul" else ():
        made = graph.producer.get(b)
        if made is None or made.domain:
            continue
        if made.op == "Reciprocal" or (made.op == "Div" and _number(graph, made.inputs[0]) == 1):
            yield a, (made.inputs[-1], 1.0)
        if made.op == "Pow" and _number(graph, made.inputs[1]) == -0.5:
            yield a, (made.inputs[0], 0.5)


def _divided(graph: Graph, a: Name, by: tuple[Name, float]) -> Iterator[_Whole]:
    """What is divided by the root of its mean or summed squares."""
    name, power = by
    square = name if power == 0.5 else _root(graph, name)
    for stat, epsilon in _added(graph, square):
        squares = _reduced(graph, stat, "ReduceMean")
        if squares is not None and _same(graph, _squared(graph, squares[0]), a):
            x = _centred(graph, a, squares[1])
            yield _Whole(x or a, squares[1], centred=x is not None, epsilon=epsilon)
        squares = _reduced(graph, stat, "ReduceSum")
        if squares is not None and _same(graph, _squared(graph, squares[0]), a):
            yield from _of_length(graph, a, squares[1], epsilon)
    length = _reduced(graph, _unbounded(graph, name), "ReduceL2") if power == 1 else None
    if length is not None and _same(graph, length[0], a):
        yield from _of_length(graph, a, length[1], 0.0)
    root = _root(graph, _unbounded(graph, name)) if power == 1 else None
    squares = _reduced(graph, root, "ReduceSum")
    if squares is not None and _same(graph, _squared(graph, squares[0]), a):
        yield from _of_length(graph, a, squares[1], 0.0)


def _of_length(graph: Graph, x: Name, axes: tuple[int, ...], epsilon: float) -> Iterator[_Whole]:
    """x/√(Σx² + ε), which is x/√(mean of squares + ε/n)/√n."""
    shape = graph.shapes.get(x, ())
    sizes = [shape[a] for a in axes if a < len(shape)]
    if len(sizes) != 1 or not isinstance(sizes[0], int):
        return
    if epsilon == 0:
        yield _Whole(x, axes, "length")
    else:
        gain = np.full((1,) * len(shape), sizes[0] ** -0.5)
        yield _Whole(x, axes, centred=False, epsilon=epsilon / sizes[0], gain=gain)


def _shares(graph: Graph, a: Name, by: tuple[Name, float]) -> Iterator[_Whole]:
    """Exponentials over their sum: what is subtracted from all of them first changes nothing."""
    total, made = _reduced(graph, by[0], "ReduceSum"), graph.producer.get(a)
    exponential = made is not None and made.op == "Exp" and not made.domain
    if total is None or made is None or not exponential or len(total[1]) != 1 or by[1] != 1 or graph.opset < SHARES:
        return
    if _same(graph, total[0], a):
        z = made.inputs[0]
        before = graph.producer.get(z)
        greatest = None if before is None or before.op != "Sub" else _reduced(graph, before.inputs[1], "ReduceMax")
        if before is not None and greatest is not None and greatest == (before.inputs[0], total[1]):
            yield _Whole(before.inputs[0], total[1], "shares")
        yield _Whole(z, total[1], "shares")


def _grouped(graph: Graph, node: Node | None) -> _Whole | None:
    """A GroupNormalization as an InstanceNormalization between two Reshapes."""
    inner = None if node is None or node.op != "Reshape" or node.domain else graph.producer.get(node.inputs[0])
    if node is None or inner is None or inner.op != "InstanceNormalization" or inner.domain:
        return None
    scale, bias, first = *(graph.constant(i) for i in inner.inputs[1:3]), graph.producer.get(inner.inputs[0])
    if scale is None or bias is None or first is None or first.op != "Reshape" or first.domain:
        return None
    x, between, after = (graph.shapes.get(n, ()) for n in (first.inputs[0], first.outputs[0], node.outputs[0]))
    channels = x[1] if len(x) > 2 else None
    kept = None not in x and after == x and len(between) == 3 and between[:2] == (x[0], scale.size)
    if not kept or not isinstance(channels, int) or channels % scale.size:
        return None
    column = (1, channels, *[1] * (len(x) - 2))
    gain, offset = (np.repeat(a, channels // scale.size).reshape(column) for a in (scale, bias))
    axes, epsilon = tuple(range(2, len(x))), float(inner.attrs.get("epsilon", 1e-5))
    return _Whole(first.inputs[0], axes, epsilon=epsilon, groups=scale.size, gain=gain, bias=offset)


def _orders(node: Node) -> Iterator[tuple[Name, Name]]:
    if len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


def _with_constant(graph: Graph, node: Node | None, op: str) -> Iterator[tuple[Name, Array]]:
    """The activation and the constant that an operator of two inputs has."""
    for x, name in _orders(node) if node is not None and node.op == op and not node.domain else ():
        value = graph.constant(name)
        if value is not None and x not in graph.consts:
            yield x, value


def _number(graph: Graph, name: Name) -> float | None:
    value = graph.constant(name)
    return None if value is None or value.size != 1 or value.dtype.kind not in "fi" else float(value.reshape(()))


def _added(graph: Graph, name: Name | None) -> Iterator[tuple[Name, float]]:
    """A tensor without the number that is added to it, and that."""
    node = None if name is None else graph.producer.get(name)
    for x, value in _with_constant(graph, node, "Add"):
        if value.size == 1 and float(value.reshape(())) >= 0:
            yield x, float(value.reshape(()))
    if name is not None:
        yield name, 0.0


def _unbounded(graph: Graph, name: Name) -> Name:
    """A length, without what makes it as large as what it divides, and keeps it from being 0."""
    while (node := graph.producer.get(name)) is not None and not node.domain:
        if node.op == "Expand":
            name = node.inputs[0]
            continue
        least = clip_bounds(graph, node)[0] if node.op == "Clip" and len(node.inputs) < 3 else None
        if least is not None and least.size == 1 and 0 < least <= FEW:
            name = node.inputs[0]
            continue
        bounded = [x for x, v in _with_constant(graph, node, "Max") if v.size == 1 and 0 < float(v.max()) <= FEW]
        if not bounded:
            break
        name = bounded[0]
    return name


def _squared(graph: Graph, name: Name) -> Name | None:
    """What a tensor is the square of."""
    node = graph.producer.get(name)
    if node is None or node.domain or node.op not in ("Pow", "Mul"):
        return None
    twice = _number(graph, node.inputs[1]) == 2 if node.op == "Pow" else _same(graph, *node.inputs)
    return node.inputs[0] if twice else None


def _root(graph: Graph, name: Name | None) -> Name | None:
    """What a tensor is the square root of."""
    node = None if name is None else graph.producer.get(name)
    if node is None or node.domain or node.op not in ("Pow", "Sqrt"):
        return None
    return node.inputs[0] if node.op == "Sqrt" or _number(graph, node.inputs[1]) == 0.5 else None


def _centred(graph: Graph, name: Name, axes: tuple[int, ...]) -> Name | None:
    """What a tensor is, less its mean along some axes."""
    node = graph.producer.get(name)
    mean = None if node is None or node.op != "Sub" or node.domain else _reduced(graph, node.inputs[1], "ReduceMean")
    return node.inputs[0] if node is not None and mean == (node.inputs[0], axes) else None


def _same(graph: Graph, a: Name | None, b: Name | None) -> bool:
    """Whether two tensors are one, or computed alike of the same."""
    if a is None or b is None or a == b:
        return a == b and a is not None
    one, other = graph.producer.get(a), graph.producer.get(b)
    if one is None or other is None or one.op not in ("Sub", "Exp", "ReduceMean", "ReduceMax"):
        return False
    if (one.op, one.domain, one.attrs) != (other.op, other.domain, other.attrs) or len(one.inputs) != len(other.inputs):
        return False
    return all(_same(graph, *pair) or _equal(graph, *pair) for pair in zip(one.inputs, other.inputs, strict=True))


def _equal(graph: Graph, a: Name, b: Name) -> bool:
    x, y = graph.constant(a), graph.constant(b)
    return x is not None and y is not None and np.array_equal(x, y)


def _reduced(graph: Graph, name: Name | None, op: str) -> tuple[Name, tuple[int, ...]] | None:
    """What a tensor is reduced from, and along which axes, all of which are left."""
    node = None if name is None else graph.producer.get(name)
    if node is None or node.domain or node.op != op or not node.attrs.get("keepdims", 1):
        return None
    rank = graph.rank(node.inputs[0])
    axes = None if rank is None else reduced_axes(graph, node, rank)
    return None if axes is None else (node.inputs[0], tuple(sorted(axes)))


def _inner(graph: Graph, end: Node, x: Name) -> frozenset[Name] | None:
    """What is made between a tensor and an operator that hangs on it alone; None where others read of it."""
    nodes, stack = list[Node](), [end]
    while stack:
        node = stack.pop()
        if any(node is other for other in nodes):
            continue
        nodes.append(node)
        for name in node.reads:
            maker = graph.producer.get(name)
            if name == x or name in graph.consts:
                continue
            if maker is None:
                return None
            stack.append(maker)
    inner = {name for node in nodes for name in node.outputs if name} - {*end.outputs}
    readers = (user for name in inner for user in graph.users(name))
    alone = all(any(user is node for node in nodes) for user in readers)
    return frozenset(inner) if alone and not inner & {*graph.outputs} else None


def _write(parts: Parts, whole: _Whole) -> bool:
    """The operator that a function is; False where there is none of its kind."""
    shape = parts.graph.shapes.get(whole.x)
    if shape is None:
        return False
    if whole.kind != "norm":
        op, attrs = ("Softmax", {}) if whole.kind == "shares" else ("LpNormalization", {"p": 2})
        parts.add(op, whole.x, last=True, axis=whole.axes[0] - len(shape), **attrs)
        return True
    varies = {d for a in (whole.gain, whole.bias) if a is not None for d, n in enumerate(a.shape) if n > 1}
    if whole.groups or (whole.centred and whole.axes == tuple(range(2, len(shape))) and varies == {1}):
        return _of_channels(parts, whole, shape) if varies <= {1} else False
    if not varies <= {*whole.axes}:
        return False
    if whole.axes == tuple(range(whole.axes[0], len(shape))):
        return _of_last(parts, whole, whole.x, [shape[a] for a in whole.axes], last=True)
    if len(whole.axes) > 1:
        return False
    (axis,) = whole.axes
    there = [d for d in range(len(shape)) if d != axis] + [axis]
    back = [there.index(d) for d in range(len(shape))]
    if not isinstance(shape[axis], int):
        return False
    turned = parts.add("Transpose", whole.x, perm=there)
    _of_last(parts, whole, turned, [shape[axis]], last=False)
    parts.add("Transpose", parts.nodes[-1].outputs[0], last=True, perm=back)
    return True


def _of_channels(parts: Parts, whole: _Whole, shape: Shape) -> bool:
    channels = shape[1]
    if not isinstance(channels, int):
        return False
    pairs = ((whole.gain, 1.0), (whole.bias, 0.0))
    gain, bias = (np.full(channels, d) if a is None else np.broadcast_to(a.reshape(-1), (channels,)) for a, d in pairs)
    op, attrs = ("GroupNormalization", {"num_groups": whole.groups}) if whole.groups else ("InstanceNormalization", {})
    parts.add(op, whole.x, parts.const(gain), parts.const(bias), last=True, epsilon=whole.epsilon, **attrs)
    return True


def _of_last(parts: Parts, whole: _Whole, x: Name, sizes: list[int | str | None], last: bool) -> bool:
    known = [n for n in sizes if isinstance(n, int)]
    if len(known) < len(sizes):
        return False

    def constant(value: Array | None, default: float) -> Name:
        axes = tuple(d for d in range(0 if value is None else value.ndim) if d not in whole.axes)
        cut = np.asarray(default) if value is None else value.squeeze(axes)
        return parts.const(np.broadcast_to(cut, known))

    op = "LayerNormalization" if whole.centred else "RMSNormalization"
    if whole.bias is not None and not whole.centred:
        y = parts.add(op, x, constant(whole.gain, 1.0), axis=-len(known), epsilon=whole.epsilon)
        parts.add("Add", y, constant(whole.bias, 0.0), last=last)
        return True
    bias = "" if whole.bias is None else constant(whole.bias, 0.0)
    parts.add(op, x, constant(whole.gain, 1.0), bias, last=last, axis=-len(known), epsilon=whole.epsilon)
    return True
