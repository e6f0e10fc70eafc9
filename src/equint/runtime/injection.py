"""Errors put into a float network while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..ir.model import Array, Graph, Name, Node
from ..onnx.probes import added, within
from ..onnx.writer import to_proto
from ..samples.images import Run
from .session import Session

Bounds = tuple[float, float] | None


class Injector:
    """A float network that errors can be added to.

    Args:
        graph: float. tensors: those that take errors, with what each is clipped to once it has one, or None.
        places: what `run` puts out; the outputs, if left out.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> noisy = Injector(tiny_graph(), {"x": None, "y": (0.0, 10.0)})
        >>> feed = {"x": np.ones((1, 4, 4, 4), np.float32)}
        >>> [round(float(noisy.run(feed, {"x": level * feed["x"]})["y"].max()), 3) for level in (0.0, 0.1, 0.5)]
        [9.0, 9.9, 10.0]
    """

    def __init__(self, graph: Graph, tensors: Mapping[Name, Bounds], places: Sequence[Name] = ()) -> None:
        made = {name: bounds for name, bounds in tensors.items() if name in graph.producer}
        clean = {name: graph.fresh(f"clean_{k}") for k, name in enumerate(made)}
        self._errors = {name: graph.fresh(f"error_{k}") for k, name in enumerate(made)}
        nodes, consts = list[Node](), dict(graph.consts)
        for node in graph.nodes:
            nodes.append(replace(node, outputs=tuple(clean.get(o, o) for o in node.outputs)))
            for o in node.outputs:
                if o in clean and (bounds := made[o]) is not None:
                    moved, low, high = (graph.fresh(f"{clean[o]}_{kind}") for kind in ("moved", "low", "high"))
                    consts |= {n: np.asarray(end, np.float32) for n, end in zip((low, high), bounds, strict=True)}
                    nodes += [added(clean[o], self._errors[o], moved), within(moved, low, high, o)]
                elif o in clean:
                    nodes.append(added(clean[o], self._errors[o], o))
        types = {error: graph.dtypes.get(name, "float32") for name, error in self._errors.items()}
        noisy = replace(
            graph,
            nodes=tuple(nodes),
            consts=consts,
            inputs=(*graph.inputs, *self._errors.values()),
            outputs=tuple(dict.fromkeys(places or graph.outputs)),
            shapes={name: shape for name, shape in graph.shapes.items() if name in (*graph.inputs, *graph.outputs)},
            dtypes={**graph.dtypes, **types},
        )
        self._none = {error: np.zeros(1, np.dtype(kind)) for error, kind in types.items()}
        self._noisy = Session(to_proto(noisy), optimized=True, lean=True)

    def run(self, feed: Mapping[Name, Array], errors: Mapping[Name, Array]) -> dict[Name, Array]:
        """What the places are on one sample where `errors` are added to tensors by name."""
        given, added = dict(feed), dict(self._none)
        for name, error in errors.items():
            if name in self._errors:
                added[self._errors[name]] = error.astype(self._none[self._errors[name]].dtype)
            else:
                given[name] = (given[name] + error).astype(given[name].dtype)
        return dict(self._noisy.run(Run({**given, **added})))
