"""The rewritten float network with a file of grids beside it, for compilers that quantize by themselves.

The network is folded, rescaled and corrected, and its weights lie on their grids wherever a pass rounded them. Two
files of grids: ranges and bit widths of every tensor (`ranges`), and AIMET's encodings, version 1.0.0 (`encodings`),
which QAIRT's converter reads too. In both, a tensor's grid is applied where the tensor is made; activations that bound
it stand in front, as float operators.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..drafts import drafted_together
from ..errors import OutputRefused
from ..ir.model import Array, Graph, Model, Name, Node, QParams
from ..maths.affine import along_axis, quantize_bias
from ..ops.layers import as_layer
from .writer import parts, put, to_proto

BIAS_BITS = 32
Grids = Mapping[Name, QParams]
Beside = Literal["onnx-float", "encodings"]


def float_network(model: Model) -> tuple[Graph, Grids]:
    """The float network, and the grids of its activations, weights and biases by tensor.

    A bias is on its layer's accumulator grid, s_in·s_w, in 32 bits: where two layers read one bias, each gets a copy.
    Weights are cut where their grid ends, so that a reader without `narrow` grids finds nothing beyond.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> grid = QParams(np.float32(0.5), np.int32(0))
        >>> node, consts = Node("Conv", ("x", "w", "b"), ("y",)), {**tiny_graph().consts, "b": np.ones(1)}
        >>> model = Model(Graph((node,), consts, ("x",), ("y",)), qparams={"x": grid, "w": grid})
        >>> {name: (float(q.scale), q.bits) for name, q in float_network(model)[1].items()}
        {'x': (0.5, 8), 'w': (0.5, 8), 'b': (0.25, 32)}
    """
    graph, grids = model.graph, dict(model.qparams)
    nodes, consts = list[Node](), dict(graph.consts)
    taken = {*graph.inputs, *graph.consts, *graph.producer}
    for node in graph.nodes:
        layer = as_layer(graph, node)
        if layer is not None and layer.bias is not None and {layer.x, layer.weight} <= model.qparams.keys():
            scale = quantize_bias(graph.consts[layer.bias], model.qparams[layer.x], model.qparams[layer.weight])[1]
            name = layer.bias
            if name in grids and not np.array_equal(grids[name].scale, scale):
                while name in taken:
                    name += "_"
                taken.add(name)
                consts[name] = graph.consts[layer.bias]
                node = replace(node, inputs=tuple(name if i == layer.bias else i for i in node.inputs))
            zero = np.zeros(np.shape(scale), np.int32)
            grids[name] = QParams(scale, zero, BIAS_BITS, axis=0 if np.ndim(scale) else None)
        nodes.append(node)
    for name in consts.keys() & model.qparams.keys():
        consts[name] = _within(consts[name], model.qparams[name])
    return graph.with_nodes(nodes, consts), grids


def ranges(graph: Graph, grids: Grids) -> dict[str, Any]:
    """Ranges and bit widths of every tensor: real = scale·(q − zero_point), `min` and `max` the ends of the grid.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> ranges(tiny_graph(), {"x": grid})["tensors"][0]["max"]
        126.0
    """
    return {"tensors": [{"name": n, "kind": _kind(graph, n, grids[n]), **_range(grids[n])} for n in grids]}


def encodings(graph: Graph, grids: Grids) -> dict[str, Any]:
    """The grids as AIMET's encodings, version 1.0.0: real = scale·(q + offset), q from 0 to 2^bw − 1.

    A grid without its lowest integer (`narrow`) has it again here: the format knows no such grid.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> found = encodings(tiny_graph(), {"x": grid})["activation_encodings"][0]
        >>> found["bw"], found["scale"], found["offset"], found["enc_type"]
        (8, [0.5], [-3], 'PER_TENSOR')
    """
    sections: dict[str, list[dict[str, Any]]] = {"activation_encodings": [], "param_encodings": []}
    for name, q in grids.items():
        kind = "param_encodings" if name in graph.consts else "activation_encodings"
        sections[kind].append({"name": name, **_encoding(q)})
    return {"version": "1.0.0", **sections}


_BESIDE: Mapping[Beside, tuple[str, Callable[[Graph, Grids], dict[str, Any]]]] = {
    "onnx-float": (".ranges.json", ranges),
    "encodings": (".encodings", encodings),
}
"""Endings of the files of grids, and what makes them."""


def float_files(path: str | os.PathLike[str], format: Beside) -> tuple[Path, Path]:
    """(network, grids) of an export that is called by either file or by their name.

    Raises:
        EquintError: a name that no file can have.

    Example:
        >>> [file.name for file in float_files("out/net.onnx", "onnx-float")]
        ['net.onnx', 'net.ranges.json']
    """
    given, ending = Path(path), _BESIDE[format][0]
    name = given.name.removesuffix(".onnx").removesuffix(ending)
    if not name:
        raise OutputRefused(f"{path}: no name for the network; give one such as out/network.onnx")
    return given.with_name(f"{name}.onnx"), given.with_name(f"{name}{ending}")


def save_float(
    model: Model, path: str | os.PathLike[str], format: Beside, about: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write the float network and its grids; `about` goes in front of the grids.

    Raises:
        EquintError: an output cannot be written.
    """
    network, beside = float_files(path, format)
    graph, grids = float_network(model)
    described = {
        "producer": {"package": "equint", **about},
        "network": network.name,
        **_BESIDE[format][1](graph, grids),
    }
    text = json.dumps(described, indent=1, allow_nan=False) + "\n"
    proto = to_proto(graph)
    with drafted_together([beside, *parts(proto, network)]) as (draft, *drafts):
        draft.write_text(text, "utf-8")
        put(proto, *drafts)
    return network, beside


def _within(x: Array, q: QParams) -> Array:
    steps, zero = along_axis(q.steps, q.axis, x.ndim), along_axis(q.zero_point, q.axis, x.ndim)
    return np.clip(x, steps * (q.qmin - zero), steps * (q.qmax - zero)).astype(x.dtype)


def _kind(graph: Graph, name: Name, q: QParams) -> str:
    if name not in graph.consts:
        return "input" if name in graph.inputs else "activation"
    return "bias" if q.bits == BIAS_BITS else "weight"


def _range(q: QParams) -> dict[str, Any]:
    shape = np.shape(q.steps)
    zero = np.broadcast_to(q.zero_point, shape)
    ends = {end: q.steps.astype(np.float64) * (i - zero) for end, i in (("min", q.qmin), ("max", q.qmax))}
    numbers = {"scale": q.steps, "zero_point": zero, **ends}
    signed = {"bits": q.bits, "signed": q.signed, "narrow": q.narrow, "axis": q.axis if shape else None}
    return {**signed, **{key: np.asarray(value).tolist() for key, value in numbers.items()}}


def _encoding(q: QParams) -> dict[str, Any]:
    steps: Array = np.atleast_1d(np.asarray(q.steps))
    middle = 1 << (q.bits - 1)
    offset = -(np.broadcast_to(q.zero_point, steps.shape).astype(np.int64) + (middle if q.signed else 0))
    return {
        "dtype": "INT",
        "bw": q.bits,
        "enc_type": "PER_CHANNEL" if np.ndim(q.steps) else "PER_TENSOR",
        "is_sym": bool(np.all(offset == -middle)),
        "scale": steps.tolist(),
        "offset": offset.tolist(),
    }
