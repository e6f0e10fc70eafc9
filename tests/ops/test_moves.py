"""A field travels through an operator as the tensor that it stands for does in onnxruntime or numpy."""

from dataclasses import replace
from math import prod
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import ArrayLike, NDArray

from equint.ir.model import Array, Graph, Node, Range
from equint.onnx.reader import read
from equint.ops.attributes import pad_widths
from equint.ops.moves import MOVES, stacked
from equint.ops.operator import Unknown
from handwritten import execute, network

BIG = np.iinfo(np.int64).max
MOVED: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, ArrayLike]]] = {
    # operator, shape of the input, shape of the field, integer constants
    "reshape, split channels": ("Reshape(x, s)", (2, 6, 4, 4), (1, 6, 1, 1), {"s": [0, 2, 3, 4, 4]}),
    "reshape, join channels": ("Reshape(x, s)", (2, 2, 3, 4, 4), (1, 2, 3, 1, 1), {"s": [0, 6, 4, 4]}),
    "reshape, join positions": ("Reshape(x, s)", (2, 6, 4, 4), (1, 6, 1, 1), {"s": [0, 0, -1]}),
    "reshape, drop ones": ("Reshape(x, s)", (2, 6, 1, 1), (1, 6, 1, 1), {"s": [0, -1]}),
    "reshape, add ones": ("Reshape(x, s)", (2, 6), (1, 6), {"s": [0, 6, 1, 1]}),
    "reshape, mix": ("Reshape(x, s)", (2, 6, 4, 4), (1, 6, 1, 1), {"s": [0, 8, 12]}),
    "flatten": ("Flatten(x)", (2, 6, 4, 3), (1, 6, 1, 1), {}),
    "transpose": ("Transpose <perm = [0, 2, 3, 1]> (x)", (2, 6, 4, 3), (1, 6, 1, 1), {}),
    "transpose, reverse": ("Transpose(x)", (2, 6, 4), (1, 6, 1), {}),
    "squeeze": ("Squeeze(x, s)", (2, 6, 1, 1), (1, 6, 1, 1), {"s": [2, 3]}),
    "squeeze from behind": ("Squeeze(x, s)", (2, 6, 1, 4), (1, 6, 1, 1), {"s": [-2]}),
    "unsqueeze": ("Unsqueeze(x, s)", (2, 6), (1, 6), {"s": [1, 3]}),
    "slice": ("Slice(x, a, b, d)", (2, 6, 4, 4), (1, 6, 1, 1), {"a": [1, 1], "b": [4, BIG], "d": [1, 2]}),
    "slice, negative": ("Slice(x, a, b, d, t)", (2, 6, 4), (1, 6, 1), {"a": [-1], "b": [-BIG], "d": [-2], "t": [-2]}),
    "slice, no axes": ("Slice(x, a, b)", (2, 6, 4), (1, 6, 1), {"a": [0, 2], "b": [2, -1]}),
    "slice, positions": ("Slice(x, a, b, d)", (2, 6, 4), (1, 6, 1), {"a": [1], "b": [2], "d": [2]}),
    "split": ("Split <axis = 1> (x, s)", (2, 6, 4, 4), (1, 6, 1, 1), {"s": [1, 5]}),
    "split, positions": ("Split <axis = -1> (x, s)", (2, 6, 4, 4), (1, 6, 1, 1), {"s": [1, 3]}),
    "pad channels": ("Pad(x, p)", (2, 3, 4), (1, 3, 1), {"p": [0, 1, 0, 0, 2, 0]}),
    "pad channels, field of one": ("Pad(x, p)", (2, 3, 4), (1, 1, 1), {"p": [0, 1, 0, 0, 2, 0]}),
    "pad groups": ("Pad(x, p)", (2, 2, 3), (1, 2, 3), {"p": [0, 0, 1, 0, 0, 0]}),
    "pad, reflect": ('Pad <mode = "reflect"> (x, p)', (2, 3, 4), (1, 3, 1), {"p": [0, 0, 1, 0, 0, 2]}),
    "expand": ("Expand(x, s)", (2, 6, 1, 1), (1, 6, 1, 1), {"s": [1, 6, 4, 4]}),
    "expand, more axes": ("Expand(x, s)", (6, 1), (6, 1), {"s": [2, 6, 3]}),
    "gather": ("Gather <axis = 1> (x, i)", (2, 6, 4), (1, 6, 1), {"i": [4, -1, 0, 4]}),
    "gather one": ("Gather <axis = 1> (x, i)", (2, 6, 4), (1, 6, 1), {"i": 3}),
    "gather positions": ("Gather <axis = 2> (x, i)", (2, 6, 4), (1, 6, 1), {"i": [0, 0, 1]}),
    "gather a position": ("Gather <axis = -1> (x, i)", (2, 6, 4), (1, 6, 1), {"i": 2}),
}


def moved(graph: Graph, node: Node, field: Array, fill: float = 0) -> list[Array] | None:
    fields = MOVES[node.op].fields
    assert not isinstance(fields, Unknown)
    return fields(graph, node, field, fill)


def numbered(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A field with another number everywhere, none of them 0."""
    return np.arange(1, prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("case", MOVED)
def test_moves_as_onnxruntime_moves(case: str) -> None:
    body, size, shape, ints = MOVED[case]
    consts: dict[str, Any] = {name: np.asarray(value, np.int64) for name, value in ints.items()}
    dims = ",".join("N" if d == 0 and shape[0] == 1 else str(n) for d, n in enumerate(size))
    outputs = ["y", "z"] if body.startswith("Split") else ["y"]
    typed = ", ".join(f"float[] {o}" for o in outputs)
    proto = network(f"{', '.join(outputs)} = {body}", inputs=f"float[{dims}] x", output=typed, **consts)
    graph = read(proto).graph
    field = numbered(shape)
    found = moved(graph, graph.nodes[0], field)
    assert found is not None
    wanted = execute(proto, np.ascontiguousarray(np.broadcast_to(field, size)))
    for f, w in zip(found, wanted, strict=True):
        assert f.ndim == w.ndim
        np.testing.assert_array_equal(np.broadcast_to(f, w.shape), w)


def test_channel_shuffle() -> None:
    proto = network(
        "a = Reshape(x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) y = Reshape(b, t)",
        inputs="float[N,6,2,2] x", s=[0, 2, 3, 2, 2], t=[0, 6, 2, 2],
    )  # fmt: skip
    graph = read(proto).graph
    field = numbered((1, 6, 1, 1))
    for node in graph.nodes:
        (field,) = moved(graph, node, field) or []
    assert field.reshape(-1).tolist() == [1, 4, 2, 5, 3, 6]
    assert field.shape == (1, 6, 1, 1)


@st.composite
def regroupings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Two shapes that hold the same numbers, the first of them with the axes along which a field varies."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5))

    def joined() -> tuple[int, ...]:
        cuts = sorted(draw(st.sets(st.integers(1, len(sizes)), max_size=len(sizes))) | {len(sizes)})
        return tuple(prod(sizes[a:b]) for a, b in zip([0, *cuts], cuts, strict=False))

    before = joined()
    return before, joined(), tuple(n if draw(st.booleans()) else 1 for n in before)


@settings(max_examples=100)
@given(regroupings(), st.booleans())
def test_reshapes_as_numpy_reshapes(case: tuple[tuple[int, ...], ...], batch: bool) -> None:
    before, after, varies = case
    name, n = (("N",), (5,)) if batch else ((), ())
    one = (1,) * batch
    node = Node("Reshape", ("x", "s"), ("y",))
    graph = Graph((node,), {}, ("x",), ("y",), {"x": (*name, *before), "y": (*name, *after)})
    field = numbered((*one, *varies))
    found = moved(graph, node, field)
    assert found is not None
    wanted = np.broadcast_to(field, (*n, *before)).reshape((*n, *after))
    assert found[0].ndim == wanted.ndim
    np.testing.assert_array_equal(np.broadcast_to(found[0], wanted.shape), wanted)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("N", 6, "H", "W"), ("N", None)),
        (("N", 6, 4), ("M", 3, 4)),
        (("N", 6, 4, 4), ("N", "A", "B")),
        (None, ("N", 6)),
    ],
)
def test_a_reshape_of_unknown_sizes_is_not_guessed(before: Any, after: Any) -> None:
    node = Node("Reshape", ("x", "s"), ("y",))
    shapes = {k: s for k, s in {"x": before, "y": after}.items() if s is not None}
    field = numbered((1, 6, 1, 1)[: len(before or "four")])
    assert moved(Graph((node,), {}, ("x",), ("y",), shapes), node, field) is None


def test_a_reshape_to_a_single_number() -> None:
    graph = Graph((Node("Reshape", ("x", "s"), ("y",)),), {}, ("x",), ("y",), {"x": (1, 1), "y": ()})
    found = moved(graph, graph.nodes[0], np.array([[7.0]]))
    assert found is not None
    assert (found[0].shape, float(found[0])) == ((), 7.0)


def test_padding_holds_the_filling() -> None:
    node = Node("Pad", ("x", "p"), ("y",))
    graph = Graph((node,), {"p": np.array([0, 1, 2, 0, 1, 0])}, ("x",), ("y",), {"x": ("N", 2, 4), "y": ("N", 4, 6)})
    (field,) = moved(graph, node, numbered((1, 2, 1)), fill=-1) or []
    assert field.reshape(-1).tolist() == [-1, 1, 2, -1]
    assert pad_widths(graph, node, 3) == [(0, 0), (1, 1), (2, 0)]


@pytest.mark.parametrize(
    ("axis", "shapes", "fields"),
    [
        (1, [(2, 3, 4, 4), (2, 2, 4, 4)], [(1, 3, 1, 1), (1, 2, 1, 1)]),
        (1, [(2, 3, 4, 4), (2, 2, 4, 4)], [(1, 3, 1, 1), (1, 1, 1, 1)]),
        (-1, [(2, 3, 4), (2, 3, 5)], [(1, 3, 1), (1, 3, 1)]),
        (2, [(2, 3, 4), (2, 3, 5)], [(1, 3, 4), (1, 3, 1)]),
        (1, [(2, 3, 4), (2, 2, 4), (2, 1, 4)], [(1, 3, 4), (1, 1, 1), (1, 1, 4)]),
    ],
)
def test_stacks_as_numpy_concatenates(axis: int, shapes: list[tuple[int, ...]], fields: list[tuple[int, ...]]) -> None:
    names = [f"x{k}" for k in range(len(shapes))]
    node = Node("Concat", tuple(names), ("y",), {"axis": axis})
    graph = Graph((node,), {}, tuple(names), ("y",), {n: ("N", *s[1:]) for n, s in zip(names, shapes, strict=True)})
    parts = [numbered(f) + 100 * k for k, f in enumerate(fields)]
    found = stacked(graph, node, parts)
    assert found is not None
    wanted = np.concatenate([np.broadcast_to(f, s) for f, s in zip(parts, shapes, strict=True)], axis)
    np.testing.assert_array_equal(np.broadcast_to(found, wanted.shape), wanted)
    assert stacked(replace(graph, shapes={}), node, parts) is None or axis == -1


def test_equal_constants_stack_without_known_sizes() -> None:
    node = Node("Concat", ("a", "b"), ("y",), {"axis": 1})
    ones = np.ones((1, 1, 1, 1))
    assert stacked(Graph((node,), {}, ("a", "b"), ("y",)), node, [ones, ones]) is ones


def test_a_computed_pick_can_be_any_row() -> None:
    """The moments and ends of all rows of a table together, as numpy has them of many draws."""
    rng = np.random.default_rng(0)
    table, index = rng.normal(size=(10, 8)).astype(np.float32), rng.integers(0, 10, 100_000)
    graph = read(network("y = Gather(t, i)", inputs="int64[N] i", output="float[N,8] y", t=table)).graph
    picked = table[index].astype(np.float64)
    facets: Any = MOVES["Gather"]
    (bound,) = facets.bound(graph, graph.nodes[0], [Range(table, table), None])
    np.testing.assert_array_equal(bound.lo, picked.min(0, keepdims=True))
    np.testing.assert_array_equal(bound.hi, picked.max(0, keepdims=True))
    ((mean, std),) = facets.moments(graph, graph.nodes[0], [(table, np.zeros(1)), None])
    np.testing.assert_allclose(mean, picked.mean(0, keepdims=True), atol=0.02)
    np.testing.assert_allclose(std, picked.std(0, keepdims=True), atol=0.02)
