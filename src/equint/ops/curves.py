"""Functions of one value: each is told by its formula alone, from which everything else follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.model import Array, Graph, Name, Node, Range
from ..maths import gaussian
from ..maths.special import erf, expit, ndtr
from .lazy_torch import functional
from .operator import Backward, Form, Gained, Grid, Operator, Pair, Rule, Scales, Unknown, by_name

Function = Callable[[Array], Array]
POINTS = 129
"""Values between its input's ends at which a function is looked at for its own."""
TINY = 1e-30


def hard_sigmoid(alpha: float, beta: float) -> Function:
    """max(0, min(1, αx + β))."""
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _pow(graph: Graph, node: Node) -> Function | None:
    """x^c for one constant c; negative x count as 0 unless c is whole."""
    exponent = graph.constant(node.inputs[1])
    if exponent is None or exponent.size != 1:
        return None
    c = float(exponent.reshape(()))
    floor = -np.inf if c == round(c) and c > 0 else TINY if c < 0 else 0.0
    return lambda x: np.maximum(x, floor) ** c


def _gelu(graph: Graph, node: Node) -> Function:
    if node.attrs.get("approximate", "none") in ("tanh", b"tanh"):
        return lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return lambda x: x * ndtr(x)


ACTIVATIONS = ("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Mish", "Gelu", "Elu", "Softplus")
"""Those that stand behind layers, and that some hardware applies to their sums."""
_STEPS = Unknown("it steps: no slope tells what noise becomes")
_BENDS = Unknown("it bends values: a channel scale in front is another function")


def curve_of(graph: Graph, node: Node | None) -> Function | None:
    """The function that a node applies to every value of its first input; None if it does not, or is not known."""
    operator = None if node is None or node.domain else CURVES.get(node.op)
    return None if operator is None or operator.curve is None or node is None else operator.curve(graph, node)


def self_gated(graph: Graph, node: Node) -> tuple[Function, Name, Name] | None:
    """x · f(x), as in SiLU and hand-written HardSwish: the whole function, x, and the gate f(x); None otherwise."""
    for gate, x in (node.inputs[:2], node.inputs[1::-1]):
        made_by = graph.producer.get(gate)
        f = curve_of(graph, made_by)
        if f is not None and made_by is not None and made_by.inputs[0] == x:
            return _times_argument(f), x, gate
    return None


def _times_argument(f: Function) -> Function:
    return lambda x: x * f(x)


def moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    """E[f(z)] and its spread, z ~ N(mean, std²)."""
    f = curve_of(graph, node)
    return None if f is None or operands[0] is None else [gaussian.through(f, *operands[0])]


def image(f: Function, known: Range) -> Range:
    """Lowest and highest value of f over a range, channel by channel."""
    values = f(np.linspace(known.lo, known.hi, POINTS))
    return Range(values.min(0), values.max(0))


def gain(node: Node, at: Backward) -> Gained | None:
    """E[f'(z)²] times the gain behind; what only gates its own input is counted where the two meet."""
    x, y = node.inputs[0], node.outputs[0]
    f, users = curve_of(at.graph, node), at.graph.users(y)
    if f is None or x not in at.moments:
        return None if f is None else []
    if len(users) == 1 and users[0].op == "Mul" and self_gated(at.graph, users[0]) is not None:
        return []
    m = at.moments[x]
    return [(x, at.behind[y] * gaussian.squared_slope(f, m.mean, m.std))]


def _curve(
    name: str,
    function: Callable[[Graph, Node], Function | None] | Function,
    torch: Callable[..., Any],
    limits: tuple[float, float] | None = None,
    attributes: bool = False,
    stepped: bool = False,
    homogeneous: bool = False,
) -> Operator:
    """`function` of one value, or of a graph and a node where `attributes` shape it; `limits` that its outputs keep.

    `stepped`: without a slope. `homogeneous`: f(s·x) = s·f(x) for s > 0, so that channel scales pass.
    """
    made: Any = function
    given = made if attributes else lambda graph, node: made

    def bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
        f = given(graph, node)
        if ranges and ranges[0] is not None and f is not None:
            return [image(f, ranges[0])]
        return None if limits is None else [Range(np.full(1, limits[0]), np.full(1, limits[1]))]

    scales = Scales(Rule.PASSES) if homogeneous else _BENDS
    back = _STEPS if stepped else gain
    grid = Grid(applied=name in ACTIVATIONS)
    return Operator(name, moments, bound, back, scales, grid, Form.TABLE, torch, curve=given)


CURVES = by_name(
    _curve("Sigmoid", expit, lambda x: x.sigmoid(), (0.0, 1.0)),
    _curve("Tanh", np.tanh, lambda x: x.tanh(), (-1.0, 1.0)),
    _curve(
        "HardSigmoid",
        lambda graph, node: hard_sigmoid(node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)),
        lambda x, *, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0, 1),
        (0.0, 1.0),
        attributes=True,
    ),
    _curve("HardSwish", lambda x: x * hard_sigmoid(1 / 6, 0.5)(x), lambda x: functional.hardswish(x)),
    _curve(
        "Swish",
        lambda graph, node: lambda x: x * expit(node.attrs.get("alpha", 1.0) * x),
        lambda x, *, alpha=1.0: x * (alpha * x).sigmoid(),
        attributes=True,
    ),
    _curve("Mish", lambda x: x * np.tanh(np.logaddexp(0, x)), lambda x: functional.mish(x)),
    _curve(
        "Gelu", _gelu, lambda x, *, approximate="none": functional.gelu(x, approximate=approximate), attributes=True
    ),
    _curve(
        "Elu",
        lambda graph, node: lambda x: np.where(x > 0, x, node.attrs.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
        lambda x, *, alpha=1.0: functional.elu(x, alpha),
        attributes=True,
    ),
    _curve("Softplus", lambda x: np.logaddexp(0, x), lambda x: functional.softplus(x)),
    _curve("Erf", erf, lambda x: x.erf(), (-1.0, 1.0)),
    _curve("Exp", lambda x: np.exp(np.minimum(x, 80)), lambda x: x.exp()),
    _curve("Log", lambda x: np.log(np.maximum(x, TINY)), lambda x: x.log()),
    _curve("Sqrt", lambda x: np.sqrt(np.maximum(x, 0)), lambda x: x.sqrt()),
    _curve("Pow", _pow, lambda a, b: a**b, attributes=True),
    _curve("Abs", np.abs, lambda x: x.abs(), homogeneous=True),
    _curve("Neg", np.negative, lambda x: -x, homogeneous=True),
    _curve("Reciprocal", lambda x: 1 / x, lambda x: x.reciprocal()),
    _curve("Floor", np.floor, lambda x: x.floor(), stepped=True),
    _curve("Ceil", np.ceil, lambda x: x.ceil(), stepped=True),
)
