"""LSTM, GRU and RNN in float, step by step: LiteRT's own keep their state from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.model import Array, Node
from .float_layers import dense
from .floats import NONE, FloatForm, Floats

MOST_STEPS = 512
"""Steps, in both directions together, that are written one by one."""
_DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Layer:
    """One direction: weights (G·H, I) and (G·H, H), biases (G·H,) of each."""

    node: Node
    weight: Array
    recurrent: Array
    bias: Array
    recurrent_bias: Array

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.recurrent.shape[1])


State = tuple[int, ...]
"""Tensors (B, H): h, and c of an LSTM."""


def _add(f: Floats, a: int, b: int) -> int:
    return f.apply("ADD", [a, b], **NONE)


def _mul(f: Floats, a: int, b: int) -> int:
    return f.apply("MUL", [a, b], **NONE)


def _parts(f: Floats, x: int, count: int) -> list[int]:
    rows, width = f.file.tensors[x]["shape"]
    made = [f.temporary("gate", (rows, width // count)) for _ in range(count)]
    f.file.operator("SPLIT", [f.ints32("axis", 1), x], made, 1, num_splits=count)
    return made


def _product(f: Floats, h: int, weight: Array, bias: Array | None = None) -> int:
    return dense(f, h, weight, bias, f.temporary("state", (f.file.tensors[h]["shape"][0], len(weight))))


def _lstm(f: Floats, layer: Layer, x: int, state: State) -> State:
    h, c = state
    i, o, forget, new = _parts(f, _add(f, x, _product(f, h, layer.recurrent, layer.recurrent_bias)), 4)
    i, o, forget = (f.apply("LOGISTIC", [gate]) for gate in (i, o, forget))
    c = _add(f, _mul(f, forget, c), _mul(f, i, f.apply("TANH", [new])))
    return _mul(f, o, f.apply("TANH", [c])), c


def _gru(f: Floats, layer: Layer, x: int, state: State) -> State:
    (h,), n = state, layer.hidden
    whole = bool(layer.node.attrs.get("linear_before_reset", 0))
    xs = _parts(f, x, 3)
    hs = _parts(f, _product(f, h, layer.recurrent[: 2 * n], layer.recurrent_bias[: 2 * n]), 2)
    z, r = (f.apply("LOGISTIC", [_add(f, a, b)]) for a, b in zip(xs[:2], hs, strict=True))
    weight, bias = layer.recurrent[2 * n :], layer.recurrent_bias[2 * n :]
    given = _mul(f, r, _product(f, h, weight, bias)) if whole else _product(f, _mul(f, r, h), weight, bias)
    new = f.apply("TANH", [_add(f, xs[2], given)])
    return (_add(f, new, _mul(f, z, f.apply("SUB", [h, new], **NONE))),)


def _rnn(f: Floats, layer: Layer, x: int, state: State) -> State:
    return (f.apply("TANH", [_add(f, x, _product(f, state[0], layer.recurrent, layer.recurrent_bias))]),)


_CELLS: Mapping[str, Callable[[Floats, Layer, int, State], State]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def _check(f: Floats, node: Node, steps: int, directions: int) -> None:
    names = [a.decode() if isinstance(a, bytes) else a for a in node.attrs.get("activations", [])]
    other = bool(names) and names != _DEFAULT[node.op] * directions
    further = [k for k in (4, 7) if k < len(node.inputs) and node.inputs[k]]
    if other or further or node.attrs.get("clip") or node.attrs.get("input_forget", 0) or node.attrs.get("layout", 0):
        raise f.refuse(
            node, f"{node.op} with lengths, peepholes, other activations, a clip or another layout is not written"
        )
    if steps * directions > MOST_STEPS:
        raise f.refuse(node, f"{node.op} of {steps} steps: up to {MOST_STEPS} are written; give it shorter samples")


def recurrent(f: Floats, node: Node) -> None:
    """Every step in operators of its own."""
    x = node.inputs[0]
    steps, batch, _ = f.shape(x)
    weight, again, biases = f.constant(node, 1), f.constant(node, 2), f.constant(node, 3)
    if weight is None or again is None:
        raise f.refuse(node, "its weights are computed; make them constants")
    directions, rows = weight.shape[:2]
    _check(f, node, steps, directions)
    both = np.zeros((directions, 2 * rows)) if biases is None else biases
    first = directions == 1 and node.attrs.get("direction", "forward") in ("reverse", b"reverse")
    reverse = [first, True][:directions]
    results = []
    for d in range(directions):
        layer = Layer(node, weight[d], again[d], both[d][:rows], both[d][rows:])
        results.append(_run(f, layer, f.read(x), _initial(f, node, d, batch, layer.hidden), reverse[d]))
    _give(f, node, results, batch, layer.hidden)


def _initial(f: Floats, node: Node, direction: int, batch: int, hidden: int) -> State:
    """The state before the first step: zeros where none is given."""
    made = list[int]()
    for k in (5, 6)[: 2 if node.op == "LSTM" else 1]:
        name = node.inputs[k] if k < len(node.inputs) else ""
        if not name:
            made.append(f.file.constant("zeros", np.zeros((batch, hidden), np.float32)))
            continue
        size = f.shape(name)[0]
        part = f.temporary(name, (batch, hidden))
        if size == 1:
            f.writer.reshape(f.read(name), part)
        else:
            f.op("GATHER", [f.read(name), f.ints32("direction", direction)], part, axis=0)
        made.append(part)
    return tuple(made)


def _run(f: Floats, layer: Layer, x: int, state: State, reverse: bool) -> tuple[list[int], State]:
    """States h of all steps in the order of time, and the last state."""
    steps, batch, _ = f.file.tensors[x]["shape"]
    rows = len(layer.weight)
    every = dense(f, x, layer.weight, layer.bias, f.temporary("inputs", (steps, batch, rows)))
    each = [f.temporary("input", (1, batch, rows)) for _ in range(steps)]
    f.file.operator("SPLIT", [f.ints32("axis", 0), every], each, 1, num_splits=steps)
    made = list[int]()
    for k in range(steps)[:: -1 if reverse else 1]:
        flat = f.temporary("input", (batch, rows))
        f.writer.reshape(each[k], flat)
        state = _CELLS[layer.node.op](f, layer, flat, state)
        made.append(state[0])
    return made[:: -1 if reverse else 1], state


def _give(f: Floats, node: Node, results: list[tuple[list[int], State]], batch: int, hidden: int) -> None:
    """Y (T, D, B, H), and the last h and c (D, B, H)."""
    y, *lasts = (*node.outputs, "", "")[:3]
    if y:
        _joined(f, y, [states[t] for t in range(len(results[0][0])) for states, _ in results])
    for k, name in enumerate(lasts):
        if name:
            _joined(f, name, [state[k] for _, state in results])


def _joined(f: Floats, name: str, parts: list[int]) -> None:
    """Matrices (B, H) behind one another."""
    if len(parts) == 1:
        f.writer.reshape(parts[0], f.made(name))
        return
    rows, width = f.file.tensors[parts[0]]["shape"]
    whole = f.temporary(name, (len(parts) * rows, width))
    f.op("CONCATENATION", parts, whole, axis=0, **NONE)
    f.writer.reshape(whole, f.made(name))


FORMS: Mapping[str, FloatForm] = dict.fromkeys(_CELLS, recurrent)
