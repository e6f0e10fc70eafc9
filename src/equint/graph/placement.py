"""Which tensors become integers, and which of them must share one grid."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..ir.model import Graph, Name, Node
from ..ops.activations import clamps, is_clamp, negative_slope
from ..ops.curves import curve_of
from ..ops.exact import exact
from ..ops.layers import as_layer, layers_inside
from ..ops.listed import is_named, left_to_floats, on_integers
from ..ops.moves import JOINS, MOVES, PICKS
from ..ops.operator import Form, Grid, Unknown
from ..ops.pointwise import inner_values, is_pointwise, operands
from ..ops.pools import overshoots
from ..ops.table import ignores_values, op_of


@dataclass(frozen=True)
class Placement:
    """What becomes integer.

    Attributes:
        classes: tensors that share a grid, each tuple in topological order.
        merged: tensors that never exist as integers: what stands between a layer and its activation.
        operands: constants added or multiplied, which become integers too.
        fused: of merged tensors that a layer makes, what hardware applies to its sums, as in `applied`.
        inner: tensors inside functions of one value in several operators, by tensor: that value.
    """

    classes: tuple[tuple[Name, ...], ...]
    merged: frozenset[Name]
    operands: tuple[Name, ...]
    fused: Mapping[Name, tuple[Node, ...]] = field(default_factory=dict)
    inner: Mapping[Name, Name] = field(default_factory=dict)

    @property
    def clamped(self) -> frozenset[Name]:
        """Merged tensors of which a quantizer's saturation makes what stands behind."""
        gates = (o for nodes in self.fused.values() for node in nodes[:-1] for o in node.outputs)
        return self.merged - {*self.fused, *gates}


def place(graph: Graph, apart: Collection[Name] = ()) -> Placement:
    """Decide it for a graph; joins whose outputs are `apart` (`graph/ties.py`) tie no grids."""
    fused = {
        node.outputs[0]: nodes for node in graph.nodes if node.outputs and (nodes := applied(graph, node.outputs[0]))
    }
    merged = _merged(graph)
    alone = [node for nodes in fused.values() for node in nodes]
    inner = inner_values(graph, lambda n: n in alone or (is_clamp(graph, n) and n.inputs[0] in merged))
    between = inner.keys() | (frozenset() if graph.integers_only else exact(graph))
    passed_over = merged | float_joins(graph, apart) | between
    everywhere = _everywhere(graph) if graph.integers_only else frozenset()
    kept = [n for n in _activations(graph) if n not in passed_over]
    wanted = [n for n in kept if n in everywhere or _works(graph, n, merged, between)]
    parent = {n: n for n in wanted}

    def root(n: Name) -> Name:
        while parent[n] != n:
            n = parent[n]
        return n

    for node in graph.nodes:
        grid = grid_of(graph, node)
        if not (grid.keeps or node.op in graph.tied) or node.outputs[0] in apart:
            continue
        tied = [*node.outputs, *(node.inputs if grid.ties else node.inputs[:1])]
        known = [root(n) for n in tied if n in parent]
        for n in known[1:]:
            parent[root(n)] = root(known[0])
    classes: dict[Name, list[Name]] = {}
    for n in wanted:
        classes.setdefault(root(n), []).append(n)
    rounded = {*parent, *merged}
    constants = (
        n for n in graph.nodes if grid_of(graph, n).constants and n.outputs[0] in rounded and not _is_piece(n, inner)
    )
    numbers = [i for node in constants for i in node.inputs if i in graph.consts and graph.is_float(i)]
    return Placement(tuple(map(tuple, classes.values())), merged, tuple(dict.fromkeys(numbers)), fused, inner)


def grid_of(graph: Graph, node: Node) -> Grid:
    """How integers travel through a node; not at all where that is not known, or where it leaves its input's range.

    Nor do they where the hardware does not compute it on integers; a quantizer's saturation needs no operator.
    """
    grid = op_of(node).grid
    if isinstance(grid, Unknown) or overshoots(node):
        return Grid()
    return grid if on_integers(graph, node) else Grid(fused=grid.fused)


def kept_float(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Nodes that are not left to integers on this hardware although equint could make them so, and why."""
    known = replace(graph, operators=(), float_layers=())
    for node in graph.nodes:
        if on_integers(graph, node) or not any(graph.is_float(o) for o in node.outputs if o):
            continue
        grid = grid_of(known, node)
        takes = graph.integers_only and not is_clamp(graph, node) and not isinstance(op_of(node).steps, Unknown)
        if as_layer(graph, node) is not None or grid.integer or grid.keeps or grid.ties or takes:
            named = "the target's float_layers name it" if is_named(node.label, graph.float_layers) else ""
            logged = LOGGED if left_to_floats(graph, node) else ""
            yield node, named or logged or "the target's operators leave it out"


LOGGED = "a logarithm is taken of its result, of which rounded weights may leave nothing above 0"


def keeps_grid(graph: Graph, node: Node) -> bool:
    """Whether the node's outputs hold only values of its first input, or between them."""
    grid = grid_of(graph, node)
    return grid.keeps and not grid.ties


def fused(graph: Graph, name: Name) -> tuple[Node, ...]:
    """The operators behind a layer's output that act before it is rounded, first to last.

    Those are clamps, which its quantizer replaces, and what hardware applies to its sums (`applied`).

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> conv = tiny_graph().nodes[0]
        >>> clip = Node("Relu", ("y",), ("r",))
        >>> [node.op for node in fused(Graph((conv, clip), tiny_graph().consts, ("x",), ("r",)), "y")]
        ['Relu']
    """
    nodes, merged = list[Node](), _merged_before(graph, name)
    while (node := graph.producer.get(name)) is not None and _merges(graph, node, merged):
        nodes.append(graph.users(name)[0])
        merged.add(name)
        name = nodes[-1].outputs[0]
    return tuple(nodes)


def applied(graph: Graph, name: Name) -> tuple[Node, ...]:
    """What hardware applies to the sums of which a tensor is made, before they are rounded; empty where it does not.

    That is an activation which alone reads the tensor, or its product with it, as in Swish written in pieces; but only
    where the result is rounded too: what stays float is rounded once as it is.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> conv, leaky = tiny_graph().nodes[0], Node("LeakyRelu", ("y",), ("r",))
        >>> graph = Graph((conv, leaky), tiny_graph().consts, ("x",), ("r",), fuses=True)
        >>> [node.op for node in applied(graph, "y")]
        ['LeakyRelu']
    """
    made, users = graph.producer.get(name), graph.users(name)
    if not graph.fuses or made is None or name in graph.outputs or not users or not _sums(graph, made):
        return ()
    nodes, first = users, users[0]
    curve = curve_of(graph, first)
    if not grid_of(graph, first).applied or first.inputs[0] != name:
        return ()
    if curve is None and (negative_slope(graph, first) is None or len(users) > 1):
        return ()
    if len(users) > 1:
        gate, product = first.outputs[0], users[1]
        alone = len(users) == 2 and graph.users(gate) == (product,) and gate not in graph.outputs
        if (
            not alone
            or not (op_of(product).multiplies and on_integers(graph, product))
            or {*product.inputs} != {name, gate}
        ):
            return ()
    return nodes if _is_worker(graph, nodes[-1]) or _read_as_integers(graph, nodes[-1].outputs[0]) else ()


def _sums(graph: Graph, node: Node) -> bool:
    """Whether a node makes sums in integers, and requantizes them."""
    return op_of(node).steps in _SUMS and _is_worker(graph, node) and not _of_one_value(graph, node)


_SUMS = (Form.LAYER, Form.SUM, Form.PRODUCT, Form.AVERAGE_POOL, Form.GLOBAL_AVERAGE)


def _read_as_integers(graph: Graph, name: Name, inner: Collection[Name] = ()) -> bool:
    """Whether something but what makes `inner` values computes on a tensor's integers, or on what they are moved to."""
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        for user in (u for u in graph.users(name) if name in u.inputs and not _is_piece(u, inner)):
            if _is_worker(graph, user):
                return True
            moved = [o for o in user.outputs if o and o not in seen] if keeps_grid(graph, user) else []
            waiting += moved
            seen.update(moved)
    return False


def stored_as(graph: Graph, name: Name) -> Name:
    """The tensor that holds a layer's output as integers: behind the activations that are `fused`."""
    behind = fused(graph, name)
    return behind[-1].outputs[0] if behind else name


def leaving(graph: Graph, picks: bool = False) -> frozenset[Name]:
    """Tensors of which nothing but network outputs is made, by moving and joining them; or parts are picked (`picks`).

    Example:
        >>> join = Node("Concat", ("a", "b"), ("y",), {"axis": 1})
        >>> sorted(leaving(Graph((join,), {}, ("a", "b"), ("y",))))
        ['a', 'b', 'y']
    """
    found = set[Name]()
    for name in reversed(_activations(graph)):
        users = [user for user in graph.users(name) if not ignores_values(op_of(user))]
        ends = (_only_moves(user, found) or (picks and _picks(user)) for user in users)
        if (users or name in graph.outputs) and all(ends):
            found.add(name)
    return frozenset(found)


def float_joins(graph: Graph, apart: Collection[Name]) -> frozenset[Name]:
    """What joins that are `apart` and end in outputs or picks put out, and what is moved of it: all stay float."""
    leaves, found = leaving(graph, picks=not graph.integers_only), set[Name]()
    for node in graph.nodes:
        behind = (_only_moves(node, leaves) or _picks(node)) and node.inputs[0] in found
        if behind or (node.outputs[0] in leaves and node.outputs[0] in apart):
            found.update(o for o in node.outputs if o in leaves)
    return frozenset(found)


def _picks(node: Node) -> bool:
    """Whether it picks parts of its input, each of which may have a grid of its own."""
    return not node.domain and node.op in PICKS


def _only_moves(node: Node, leaving: Collection[Name]) -> bool:
    moves = not node.domain and (node.op in MOVES or node.op in JOINS)
    return moves and all(o in leaving for o in node.outputs if o)


def borders(graph: Graph) -> Mapping[str, list[Name]]:
    """Operators that stay float, by kind: everything equint does not turn into integers, also what is `kept_float`."""
    found: dict[str, list[Name]] = {}
    for node in graph.nodes:
        grid = grid_of(graph, node)
        known = _is_worker(graph, node) or grid.keeps or grid.fused or ignores_values(op_of(node))
        known |= graph.integers_only and on_integers(graph, node) and not isinstance(op_of(node).steps, Unknown)
        if not known and any(graph.is_float(o) for o in node.outputs):
            found.setdefault(f"{node.domain}::{node.op}" if node.domain else node.op, []).append(node.label)
    return found


def bodies(graph: Graph) -> list[tuple[Node, int]]:
    """Operators with subgraphs, and how many convolutions and matrix products these hold: they are not looked into."""
    counts = ((node, layers_inside(node)) for node in graph.nodes)
    return [(node, count) for node, count in counts if count]


def _activations(graph: Graph) -> list[Name]:
    """What may be integers: single numbers stay as they are, doubles and halfs too, which no QuantizeLinear takes."""
    return [n for n in valued(graph) if graph.dtypes.get(n, "float32") == "float32" and graph.rank(n) != 0]


def valued(graph: Graph) -> tuple[Name, ...]:
    """The tensors that hang on what the inputs hold, and not on constants and sizes alone, in topological order.

    Example:
        >>> nodes = Node("Relu", ("x",), ("y",)), Node("Shape", ("y",), ("s",)), Node("Cast", ("s",), ("sizes",))
        >>> valued(Graph(nodes, {}, ("x",), ("y", "sizes")))
        ('x', 'y')
    """
    found = dict.fromkeys(graph.inputs)
    for node in graph.nodes:
        if not ignores_values(op_of(node)) and any(i in found for i in node.reads):
            found |= dict.fromkeys(o for o in node.outputs if o)
    return tuple(found)


def _is_worker(graph: Graph, node: Node) -> bool:
    grid = grid_of(graph, node)
    layer = as_layer(graph, node) is not None and on_integers(graph, node)
    return layer or (grid.integer and (grid.layer or not graph.layers_only))


def _of_one_value(graph: Graph, node: Node) -> bool:
    """Whether a node computes a function of one value: with others of the same it is one, rounded at its ends alone."""
    return is_pointwise(graph, node) and len(operands(graph, node)) == 1


def _is_piece(node: Node, inner: Collection[Name]) -> bool:
    """Whether a node is part of a function in several operators, between which nothing is rounded."""
    return any(name in inner for name in (*node.inputs, *node.outputs))


def _merged(graph: Graph) -> frozenset[Name]:
    """Outputs of all nodes that merge; each is asked once, from the first to the last."""
    found = set[Name]()
    for node in graph.nodes:
        if node.outputs and _merges(graph, node, found):
            found.add(node.outputs[0])
    return frozenset(found)


def _merged_before(graph: Graph, name: Name) -> set[Name]:
    """Tensors that merge in front of a tensor, as far as clamps reach."""
    clamps_before, found = list[Node](), set[Name]()
    node = graph.producer.get(name)
    while node is not None and is_clamp(graph, node) and (node := graph.producer.get(node.inputs[0])) is not None:
        clamps_before.append(node)
    for node in reversed(clamps_before):
        if _merges(graph, node, found):
            found.add(node.outputs[0])
    return found


def _merges(graph: Graph, node: Node, merged: Collection[Name]) -> bool:
    """Whether the node's output is read by one activation alone which the quantizer replaces, or hardware applies.

    Args:
        merged: the same of what stands before.
    """
    out = node.outputs[0] if node.outputs else ""
    users = graph.users(out)
    if applied(graph, out) or (node.inputs and node in applied(graph, node.inputs[0])[:-1]):
        return True
    if len(users) != 1 or out in graph.outputs or not is_clamp(graph, users[0]):
        return False
    if _of_one_value(graph, node) and not clamps(node) and (graph.integers_only or not _is_applied(graph, node)):
        return False  # both are one function
    return _is_worker(graph, node) or (is_clamp(graph, node) and node.inputs[0] in merged)


def _is_applied(graph: Graph, node: Node) -> bool:
    return any(node in applied(graph, name) for name in node.inputs)


def _acts(graph: Graph, node: Node) -> bool:
    """Whether the node is an activation that may act before a layer's sums are rounded."""
    return is_clamp(graph, node) or (graph.fuses and grid_of(graph, node).applied)


def _everywhere(graph: Graph) -> frozenset[Name]:
    """All activations but those that are only moved, and so have the grid of what they are moved from."""
    moved = (o for node in graph.nodes if keeps_grid(graph, node) for o in node.outputs)
    return frozenset(_activations(graph)).difference(moved)


def _works(graph: Graph, name: Name, merged: frozenset[Name], inner: Collection[Name]) -> bool:
    node = graph.producer.get(name)
    if node is not None and _is_piece(node, inner):
        return _read_as_integers(graph, name, inner) or (name in graph.outputs and _is_worker(graph, node))
    if node is not None and (_is_worker(graph, node) or (_acts(graph, node) and node.inputs[0] in merged)):
        return True
    # what a subgraph reads is integer where it is a move of integers: onnxruntime (1.32) would pass the grid on into it
    # and abort (QDQPropagationTransformer)
    inside = node is not None and keeps_grid(graph, node) and any(name in user.captured for user in graph.users(name))
    users = (user for user in graph.users(name) if name in user.inputs and not _is_piece(user, inner))
    return inside or any(_is_worker(graph, user) for user in users)
