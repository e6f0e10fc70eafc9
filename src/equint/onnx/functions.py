"""Local functions of a file put in the place of their calls, bounded: a few can call one another without end."""

from __future__ import annotations

from onnx import FunctionProto, ModelProto, NodeProto

from ..errors import UnreadableModel, reason

MOST_NODES, DEEPEST = 200_000, 100
"""Nodes that functions may grow to, and how deep one may call another."""
_Key = tuple[str, str]


def inlined(proto: ModelProto, label: str) -> ModelProto:
    """The model without local functions.

    Raises:
        UnreadableModel: naming the function that calls itself, calls too deep or grows too large.

    Example:
        >>> from onnx import helper
        >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [], [])
        >>> len(inlined(helper.make_model(graph), "net.onnx").graph.node)
        1
    """
    if not proto.functions:
        return proto
    from onnx import inliner

    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes = _sizes(functions, label)
    total, last = 0.0, None
    for node in proto.graph.node:
        size, depth = sizes.get(_key(node), (1, 0))
        total, last = total + size, node if size > 1 else last
        if total > MOST_NODES or depth > DEEPEST:
            many = f"{total:.3g} nodes, of {MOST_NODES} at most" if total > MOST_NODES else f"{depth} calls deep"
            called = (last or node).op_type
            raise UnreadableModel(f"{label}: function {called} becomes {many}; export it without local functions")
    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:
        raise UnreadableModel(
            f"{label}: its local functions cannot be put in place ({reason(error)}); export it without them"
        ) from error


def _key(node: NodeProto) -> _Key:
    return (node.domain, node.op_type)


def _sizes(functions: dict[_Key, FunctionProto], label: str) -> dict[_Key, tuple[float, int]]:
    """(nodes, depth) of each function with all that it calls; without recursion, whoever calls whom."""
    found = dict[_Key, tuple[float, int]]()
    for first in functions:
        path = [first]
        while path:
            calls = [_key(node) for node in functions[path[-1]].node if _key(node) in functions]
            waiting = next((key for key in calls if key not in found), None)
            if waiting is None:
                own = len(functions[path[-1]].node) - len(calls)
                size = own + sum(found[key][0] for key in calls)
                found[path.pop()] = max(size, 1.0), 1 + max((found[key][1] for key in calls), default=0)
            elif waiting in path:
                raise UnreadableModel(f"{label}: function {waiting[1]} calls itself; export it without local functions")
            else:
                path.append(waiting)
    return found
