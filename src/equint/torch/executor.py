"""Run a graph in torch, float or quantized, with gradients."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EquintError, UnsupportedOperator
from ..ir.model import Array, Graph, Name, Node
from ..ops.lazy_torch import torch
from ..ops.operator import Unknown
from ..ops.table import op_of

if TYPE_CHECKING:
    from torch import Tensor

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Step:
    """One operator ready to run, and the values that nothing needs behind it."""

    node: Node
    attrs: Mapping[str, Any]
    done: tuple[Name, ...]


def module(graph: Graph, trainable: Iterable[Name] = ()) -> torch.nn.Module:
    """The graph as a torch module: inputs in the graph's order in, one tensor or a tuple of them out.

    What depends on constants alone (dequantized weights too) is computed once. Constants are buffers; those
    that are to be trained are parameters.

    Args:
        graph: a float network, or a quantized one from `equint.onnx.qdq.qdq_graph`.
        trainable: float constants, of the graph or computed from its constants, that become parameters.

    Raises:
        EquintError: torch is missing, an operator or attribute that cannot run there, or `trainable` names
            what is no constant; while running, inputs that do not fit.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> y = module(tiny_graph())(torch.ones(1, 4, 4, 4))  # doctest: +SKIP
    """
    made: torch.nn.Module = _executor()(graph, tuple(trainable))
    return made


def steps(graph: Graph) -> tuple[Step, ...]:
    """The graph's operators with checked attributes, each with the values it is the last to read."""
    last = {i: k for k, node in enumerate(graph.nodes) for i in node.reads if i not in graph.outputs}
    done: list[list[Name]] = [[] for _ in graph.nodes]
    for name, k in last.items():
        done[k].append(name)
    return tuple(Step(n, _attributes(graph, n), tuple(d)) for n, d in zip(graph.nodes, done, strict=True))


def _attributes(graph: Graph, node: Node) -> Mapping[str, Any]:
    """The node's attributes as its operator takes them in torch."""
    run = op_of(node).torch
    if isinstance(run, Unknown):
        kind = f"{node.domain}::{node.op}" if node.domain else node.op
        raise UnsupportedOperator(
            f"{kind} {node.label}: an operator that equint cannot run in torch; replace it, or use onnxruntime"
        )
    attrs = {key.lower(): value for key, value in node.attrs.items()}
    if node.op == "Split":
        attrs["outputs"] = len(node.outputs)
    if node.op == "QuantizeLinear":
        attrs["qmin"], attrs["qmax"] = _grid(graph, node)
    known = {p.name for p in inspect.signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY}
    unknown = next((a for a in attrs if a not in known), None)
    if unknown is not None:
        raise UnsupportedOperator(
            f"{node.op} {node.label}: attribute {unknown} cannot be run in torch; use onnxruntime"
        )
    return attrs


def _grid(graph: Graph, node: Node) -> tuple[int, int]:
    """The integers that a QuantizeLinear's type holds."""
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if zero is None or zero.dtype.kind not in "iu":
        raise UnsupportedOperator(
            f"QuantizeLinear {node.label}: a zero point that is no constant integer; use onnxruntime"
        )
    ends = np.iinfo(zero.dtype)
    return int(ends.min), int(ends.max)


def _carried(graph: Graph) -> dict[Name, Array]:
    """The graph's constants with quantized integers as floats, whose gradients torch can compute."""

    def is_quantized(name: Name, array: Array) -> bool:
        small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
        return small or (array.dtype == np.int32 and any(u.op in _QUANTIZERS for u in graph.users(name)))

    return {n: a.astype(np.float32) if is_quantized(n, a) else a for n, a in graph.consts.items()}


@cache
def _executor() -> Any:
    class Executor(torch.nn.Module):
        """A graph in torch; `names` says which buffer or parameter holds which constant."""

        def __init__(self, graph: Graph, trainable: tuple[Name, ...]) -> None:
            super().__init__()
            self.graph, self.trainable = graph, trainable
            every = steps(graph)
            with torch.no_grad():
                values = {n: torch.tensor(a) for n, a in _carried(graph).items() if a.dtype.kind in "fiub"}
                rest = []
                for step in every:
                    if all(i in values and i not in trainable for i in step.node.reads):
                        values |= _computed(step, values)
                    else:
                        rest.append(step)
            self.steps = tuple(rest)
            self.names: dict[Name, str] = {}
            used = {i for step in rest for i in step.node.reads} | {*graph.outputs, *trainable}
            for name in (n for n in values if n in used):
                self._keep(name, values[name])
            missing = next((n for n in trainable if n not in self.names or not values[n].is_floating_point()), None)
            if missing is not None:
                raise UnsupportedOperator(f"{missing} cannot be trained: it is no float constant of the network")

        def _keep(self, name: Name, value: Tensor) -> None:
            stem = key = re.sub(r"\W", "_", name) + "_"  # such that no attribute of a module has the name
            while key in self.names.values():
                key = f"{stem}{len(self.names)}"
            self.names[name] = key
            if name in self.trainable:
                self.register_parameter(key, torch.nn.Parameter(value))
            else:
                self.register_buffer(key, value)

        def forward(self, *inputs: Tensor) -> Any:
            if len(inputs) != len(self.graph.inputs):
                asked = ", ".join(self.graph.inputs)
                raise UnsupportedOperator(
                    f"{len(inputs)} inputs given; the network has {len(self.graph.inputs)}: {asked}"
                )
            values = {name: getattr(self, key) for name, key in self.names.items()}
            values.update(zip(self.graph.inputs, inputs, strict=True))
            for step in self.steps:
                values.update(_computed(step, values))
                for name in step.done:
                    values.pop(name, None)
            found = tuple(values[o] for o in self.graph.outputs)
            return found[0] if len(found) == 1 else found

        def __reduce__(self) -> Any:
            return module, (self.graph, self.trainable), self.__dict__

    return Executor


def _computed(step: Step, values: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    node, run = step.node, op_of(step.node).torch
    assert not isinstance(run, Unknown)  # `steps` refused it
    try:
        found = run(*(values[i] if i else None for i in node.inputs), **step.attrs)
    except (EquintError, RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedOperator(f"{node.op} {node.label} does not run in torch: {reason}") from error
    outputs = found if isinstance(found, tuple) else (found,)
    wanted = [o for o in node.outputs if o]
    if len(wanted) > len(outputs):
        raise UnsupportedOperator(
            f"{node.op} {node.label}: only its first output can be computed in torch; use onnxruntime"
        )
    return dict(zip(node.outputs, outputs, strict=False))
