"""Fold BatchNormalization, and multiplications and additions by constants, into the layers beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.gaps import gaps
from ..graph.moments import propagate
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Model, Moments, Name, Node
from ..ir.weights import Layer
from ..ops.layers import as_layer, bias_of, pads_zero, still_corrected
from ..ops.moves import MOVES
from ..ops.operator import Unknown
from ..ops.table import op_of
from . import Keeps, Stage

Affine = tuple[Array, Array]


@dataclass(frozen=True)
class FoldBatchnorm:
    """y = γ·(x − μ)/√(σ² + ε) + β becomes part of a layer's weights; β and |γ| are kept as moments.

    Behind Conv, ConvTranspose, Gemm or MatMul, or behind what only moves their channels: W' = W·a, b' = b·a + c, with
    a = γ/√(σ² + ε) and c = β − μ·a per output channel. In front of a layer that pads nothing: W' = W·a,
    b' = b + Σ W·c per input channel. Anywhere else: a depthwise 1×1 convolution (Mul and Add on two dimensions).
    Constant Mul, Div, Add and Sub per channel fold behind layers in the same way.

    Afterwards the moments of every tensor are propagated from the BatchNorms and the network's input.
    """

    keeps: ClassVar[Keeps] = Keeps.FUNCTION
    stage: ClassVar[Stage] = Stage.BEFORE

    def __call__(self, model: Model) -> Model:
        moments = {**model.moments, **_known_moments(model.graph)}
        folded = {"behind a layer": 0, "before a layer": 0, "as depthwise": 0, "as Mul and Add": 0, "constants": 0}
        skipped = list[Event]()
        graph = _fold_behind(model.graph, moments, folded)
        graph = _fold_through_moves(graph, folded)
        graph = _fold_before(graph, folded)
        graph = _stand_alone(graph, folded, skipped)
        moments = {n: m for n, m in moments.items() if n in graph.producer or n in graph.inputs}
        moments = propagate(graph, moments)
        event = Event(EventKind.BATCHNORM_FOLDED, "", {k: v for k, v in folded.items() if v}, "fold_batchnorm")
        result = replace(model, graph=graph, moments=moments, corrected=still_corrected(model, graph))
        return result.noted(event, *skipped, *gaps(result, "moments", "fold_batchnorm"))


def batchnorm_affine(graph: Graph, node: Node) -> Affine | None:
    """(a, c) of an inference-time BatchNormalization, per channel, float64; None where not constant."""
    if node.op != "BatchNormalization" or node.domain or node.attrs.get("training_mode", 0):
        return None
    values = [graph.constant(i) for i in node.inputs[1:5]]
    if any(v is None for v in values) or any(node.outputs[1:]):
        return None
    gamma, beta, mean, var = (np.asarray(v, np.float64) for v in values)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = gamma / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
    return a, beta - mean * a


def _known_moments(graph: Graph) -> dict[Name, Moments]:
    """What each BatchNorm knows: β, |γ| of its output; μ, σ of its input where that is no layer's output."""
    known: dict[Name, Moments] = {}
    for node in graph.nodes:
        rank = graph.rank(node.outputs[0]) if batchnorm_affine(graph, node) is not None else None
        if rank is None:
            continue
        gamma, beta, mean, var = (aligned(np.asarray(graph.consts[i], np.float64), 1, rank) for i in node.inputs[1:5])
        var = np.maximum(var, 0)
        shrink = np.sqrt(var / (var + node.attrs.get("epsilon", 1e-5)))
        known[node.outputs[0]] = Moments(beta, np.abs(gamma) * shrink, "batchnorm")
        known.setdefault(node.inputs[0], Moments(mean, np.sqrt(var), "batchnorm"))
    return known


def _constant_affine(graph: Graph, node: Node, channels: int, rank: int, axis: int) -> Affine | None:
    """(a, c) of a Mul, Div, Add or Sub by a constant per channel."""
    if node.op not in ("Mul", "Div", "Add", "Sub") or node.domain or len(node.inputs) != 2:
        return None
    side = next((k for k in (0, 1) if node.inputs[k] in graph.consts), None)
    if side is None or (node.op == "Div" and side == 0):
        return None
    value = np.asarray(graph.consts[node.inputs[side]], np.float64)
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) > rank or any(n != 1 for d, n in enumerate(shape) if d != axis % rank):
        return None
    if value.size not in (1, channels):
        return None
    value = np.broadcast_to(value.reshape(-1), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op in ("Mul", "Div"):
        with np.errstate(divide="ignore"):  # what is not finite is not folded
            return (value if node.op == "Mul" else 1 / value), zero
    if node.op == "Add":
        return one, value
    return (-one, value) if side == 0 else (one, -value)


def _fold_behind(graph: Graph, moments: dict[Name, Moments], folded: dict[str, int]) -> Graph:
    """Fold all affine operators that one after the other alone read a layer; moments of its output move with it."""
    editor = Editor(graph)
    for node in graph.nodes:
        layer = as_layer(graph, node)
        name, whole = layer.y if layer else "", None
        while layer is not None and (behind := _affine_behind(graph, layer, name)) is not None:
            user, affine, kind = behind
            together = affine if whole is None else (affine[0] * whole[0], affine[0] * whole[1] + affine[1])
            if not all(np.all(np.isfinite(v)) for v in together):
                break
            before, whole = name, together
            name = user.outputs[0]
            rank = graph.rank(before)
            if kind == "constants" and before in moments and rank is not None:
                a, c = (aligned(v, layer.y_axis, rank) for v in affine)
                known = moments[before]
                moments[name] = replace(known, mean=a * known.mean + c, std=np.abs(a) * known.std)
            editor.swap(user, [])
            folded[kind] += 1
        if layer is not None and whole is not None:
            _scale_output(graph, editor, layer, *whole)
            editor.rename_output(node, name)
    return editor.done()


def _affine_behind(graph: Graph, layer: Layer, name: Name) -> tuple[Node, Affine, str] | None:
    """What alone reads a layer's output, or what was folded of it, if that is affine: as (a, c), and of which kind."""
    users = graph.users(name)
    if len(users) != 1 or name in graph.outputs:
        return None
    _, outputs = layer.channels(graph.consts[layer.weight])
    affine, rank = batchnorm_affine(graph, users[0]) if layer.y_axis == 1 else None, graph.rank(name)
    if affine is not None:
        return users[0], affine, "behind a layer"
    affine = None if rank is None else _constant_affine(graph, users[0], outputs, rank, layer.y_axis)
    return None if affine is None else (users[0], affine, "constants")


def _fold_through_moves(graph: Graph, folded: dict[str, int]) -> Graph:
    """BatchNorm behind a layer whose output was only moved: each of the layer's channels goes to one of its own.

    Tensors on the way hold other values than before, so they get other names: who compares by name compares the same.
    """
    editor, renamed = Editor(graph), dict[Name, Name]()
    for node in graph.nodes:
        layer = as_layer(graph, node)
        rank = None if layer is None else graph.rank(layer.y)
        if layer is None or rank is None:
            continue
        count = layer.channels(graph.consts[layer.weight])[1]
        found = _moved_to(graph, layer.y, aligned(np.arange(count), layer.y_axis, rank))
        if found is None:
            continue
        moves, norm, ids = found
        affine = batchnorm_affine(graph, norm)
        if affine is None or ids.ndim < 2 or not all(np.all(np.isfinite(v)) for v in affine):
            continue
        own = [_by_channel(aligned(v, 1, ids.ndim), ids, count) for v in affine]
        if own[0] is None or own[1] is None:
            continue
        _scale_output(graph, editor, layer, own[0], own[1])
        editor.swap(norm, [])
        for made, read in zip((node, *moves), moves, strict=False):
            old = made.outputs[0]
            renamed[old] = graph.fresh(f"{old}_normalized")
            editor.rename_output(made, renamed[old])
            editor.rename_input(read, old, renamed[old])
        editor.rename_output(moves[-1], norm.outputs[0])
        folded["behind a layer"] += 1
    done = editor.done()
    shapes = {new: graph.shapes[old] for old, new in renamed.items() if old in graph.shapes}
    dtypes = {new: graph.dtypes[old] for old, new in renamed.items() if old in graph.dtypes}
    return replace(done, shapes={**done.shapes, **shapes}, dtypes={**done.dtypes, **dtypes})


def _moved_to(graph: Graph, name: Name, ids: Array) -> tuple[list[Node], Node, Array] | None:
    """The moves that alone read one another, the BatchNorm behind them, and where channels have gone."""
    moves = list[Node]()
    while len(users := graph.users(name)) == 1 and name not in graph.outputs:
        (user,) = users
        if user.op == "BatchNormalization" and not user.domain:
            return (moves, user, ids) if moves else None
        facet = op_of(user).fields
        if user.domain or user.op not in MOVES or isinstance(facet, Unknown) or len(user.outputs) != 1:
            return None
        moved = facet(graph, user, ids, -1)
        if moved is None or np.any(moved[0] < 0):
            return None
        moves.append(user)
        name, ids = user.outputs[0], moved[0]
    return None


def _by_channel(values: Array, ids: Array, count: int) -> Array | None:
    """`(count,)` values of a layer's channels from those at the places they went to; None where places disagree."""
    shape = np.broadcast_shapes(values.shape, ids.shape)
    values, ids = np.broadcast_to(values, shape), np.broadcast_to(ids, shape)
    own = np.full(count, np.nan)
    own[ids] = values
    return own if np.array_equal(own[ids], values) and not np.any(np.isnan(own)) else None


def _scale_output(graph: Graph, editor: Editor, layer: Layer, a: Array, c: Array) -> None:
    weight = graph.consts[layer.weight]
    view = layer.unpack(weight).astype(np.float64)
    g, o, _, _ = view.shape
    scaled = layer.pack((view * a.reshape(g, o, 1, 1)).astype(weight.dtype), weight.shape)
    shifted = bias_of(graph, layer).astype(np.float64) * a + c
    editor.set_weight(layer, scaled)
    if np.any(shifted) or layer.bias:
        editor.set_bias(layer, shifted.astype(weight.dtype))


def _fold_before(graph: Graph, folded: dict[str, int]) -> Graph:
    """BatchNorm whose every reader is a layer that pads nothing (or whose padding stays exact)."""
    editor = Editor(graph)
    for node in graph.nodes:
        affine = batchnorm_affine(graph, node)
        users = graph.users(node.outputs[0])
        if affine is None or not users or node.outputs[0] in graph.outputs:
            continue
        readers = [as_layer(graph, user) for user in users]
        exact = all(
            t is not None and t.x_axis in (1, -1) and (not pads_zero(t) or not np.any(affine[1])) for t in readers
        )
        ranked = all(t is None or t.x_axis == 1 or graph.rank(t.x) == 2 for t in readers)
        if not exact or not ranked:
            continue
        for layer in readers:
            if layer is not None:
                _scale_input(graph, editor, layer, *affine)
                editor.rename_input(layer.node, node.outputs[0], node.inputs[0])
        editor.swap(node, [])
        folded["before a layer"] += 1
    return editor.done()


def _scale_input(graph: Graph, editor: Editor, layer: Layer, a: Array, c: Array) -> None:
    weight = graph.consts[layer.weight]
    view = layer.unpack(weight).astype(np.float64)
    g, o, i, _ = view.shape
    scaled = layer.pack((view * a.reshape(g, 1, i, 1)).astype(weight.dtype), weight.shape)
    extra = np.einsum("goik,gi->go", view, c.reshape(g, i)).reshape(-1)
    editor.set_weight(layer, scaled)
    if np.any(extra) or layer.bias:
        editor.set_bias(layer, (bias_of(graph, layer).astype(np.float64) + extra).astype(weight.dtype))


def _stand_alone(graph: Graph, folded: dict[str, int], skipped: list[Event]) -> Graph:
    """What is left becomes a depthwise 1×1 convolution, whose weights can be quantized and equalized."""
    editor = Editor(graph)
    for node in graph.nodes:
        if node.op != "BatchNormalization" or node.domain:
            continue
        affine, rank = batchnorm_affine(graph, node), graph.rank(node.inputs[0])
        if affine is None or rank is None or rank < 2:
            why = "training mode, computed statistics or unknown rank"
            skipped.append(Event(EventKind.BATCHNORM_LEFT, node.label, {"why": why}, "fold_batchnorm"))
            continue
        a, c = (v.astype(np.float32) for v in affine)
        stem = node.outputs[0]
        if 3 <= rank <= 5:
            w = editor.add_const(f"{stem}_weight", a.reshape(-1, 1, *[1] * (rank - 2)))
            b = editor.add_const(f"{stem}_bias", c)
            attrs = {"group": a.size, "kernel_shape": [1] * (rank - 2)}
            editor.swap(node, [Node("Conv", (node.inputs[0], w, b), node.outputs, attrs, node.name)])
            folded["as depthwise"] += 1
        else:
            w = editor.add_const(f"{stem}_scale", aligned(a, 1, rank))
            b = editor.add_const(f"{stem}_shift", aligned(c, 1, rank))
            scaled = graph.fresh(f"{stem}_scaled")
            editor.swap(node, [Node("Mul", (node.inputs[0], w), (scaled,)), Node("Add", (scaled, b), node.outputs)])
            folded["as Mul and Add"] += 1
    return editor.done()
