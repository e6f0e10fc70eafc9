"""A subgraph's operators, one after the other, become an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UnreadableModel
from ..ir.model import Name
from .call import CONVERSIONS, Call
from .content import Tensor
from .draft import onnx_type
from .read_spectra import COMPLEX, PARTS, both_parts
from .scope import Scope

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto


def graph_of(scope: Scope, inputs: Sequence[int] = ()) -> GraphProto:
    """A subgraph as an ONNX graph.

    Args:
        scope: knows the values that the subgraph is given.
        inputs: tensors that are the graph's inputs; what a branch reads lies around it.

    Raises:
        UnsupportedOperator: it names the operator and its number.
        UnreadableModel: operators and tensors that do not fit together.
    """
    from onnx import helper, numpy_helper

    convert(scope)
    draft, graph = scope.draft, scope.graph
    for index in graph.outputs:
        scope.output(index)
    nodes = [helper.make_node(n.op, n.inputs, n.outputs, n.outputs[0], **n.attrs) for n in draft.nodes]
    consts = [numpy_helper.from_array(array, name) for name, array in draft.consts.items()]
    told, made = (
        [_info(graph.tensors[index], scope.names[index]) for index in dict.fromkeys(indices)]
        for indices in (inputs, graph.outputs)
    )
    return helper.make_graph(nodes, "tflite", told, made, consts)


def convert(scope: Scope) -> None:
    """Writes all operators of a subgraph into its draft.

    Whatever a conversion trips over is a file that does not keep to the format.
    """
    for operator in scope.graph.operators:
        call = Call(operator, scope)
        conversion = CONVERSIONS.get(operator.kind)
        if conversion is None:
            call.refuse(f"is not read; {_instead(operator.kind)}")
        if not operator.outputs or min(operator.outputs) < 0:
            call.refuse("has no output")
        parted = any(i in scope.imaginary for i in operator.inputs)
        if parted and operator.kind not in COMPLEX:
            call.refuse("takes complex numbers, which it is not read with")
        scope.draft.made.clear()
        try:
            if parted and operator.kind in PARTS:
                both_parts(call, conversion)
            else:
                conversion(call)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            call.refuse(f"does not fit its tensors or options ({said}); export it again")


def _instead(kind: str) -> str:
    """What to do about an operator that is not read."""
    if kind in ("QUANTIZE", "FAKE_QUANT"):
        return "give the float model"
    if kind.startswith("CUSTOM"):
        return "export the network without custom operators, or cut it in front of this one"
    return "export the network without it, or as ONNX"


def _info(tensor: Tensor, name: Name) -> ValueInfoProto:
    """Sizes that the file leaves open are called after their axis; the first is the batch."""
    from onnx import helper

    if tensor.type == "COMPLEX64":
        raise UnreadableModel(f"{name} is complex, which is not read; export the network without it")
    sizes = [n if n is not None else "N" if axis == 0 else f"{name}_{axis}" for axis, n in enumerate(tensor.dims)]
    return helper.make_tensor_value_info(name, onnx_type(tensor.dtype), sizes)
