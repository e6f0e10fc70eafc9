"""Edits touch one node only, whatever it shares with others."""

from dataclasses import replace

import numpy as np

from equint.ir.edit import Editor
from equint.ir.model import Graph, Node

ONE = {"c": np.ones(2, np.float32)}


def test_a_shared_constant_is_copied() -> None:
    a, b = Node("Add", ("x", "c"), ("p",)), Node("Add", ("p", "c"), ("q",))
    graph = Graph((a, b), ONE, ("x",), ("q",))
    editor = Editor(graph)
    editor.edit(b, 1, lambda c: 5 * c)
    done = editor.done()
    assert [float(done.consts[node.inputs[1]][0]) for node in done.nodes] == [1.0, 5.0]
    assert graph.nodes == (a, b)
    assert float(graph.consts["c"][0]) == 1.0


def test_a_constant_read_twice_by_one_node_is_copied() -> None:
    node = Node("Sum", ("x", "c", "c"), ("y",))
    editor = Editor(Graph((node,), ONE, ("x",), ("y",)))
    editor.edit(node, 2, lambda c: 3 * c)
    (done,) = editor.done().nodes
    assert done.inputs[:2] == ("x", "c")
    assert float(editor.done().consts[done.inputs[2]][0]) == 3.0


def test_edits_of_one_place_add_up() -> None:
    node = Node("Add", ("x", "c"), ("y",))
    editor = Editor(Graph((node,), ONE, ("x",), ("y",)))
    editor.edit(node, 1, lambda c: c + 1)
    editor.edit(node, 1, lambda c: 10 * c)
    assert float(editor.done().consts["c"][0]) == 20.0


def test_missing_inputs_are_filled_and_dropped_constants_go() -> None:
    node, gone = Node("Conv", ("x", "w"), ("y",)), Node("Add", ("y", "c"), ("z",))
    graph = Graph((node, gone), {**ONE, "w": np.ones((1, 1, 1))}, ("x",), ("z",))
    editor = Editor(graph)
    editor.set(node, 2, np.zeros(1), "bias")
    editor.rename_output(node, "z")
    editor.swap(gone, [])
    done = editor.done()
    assert done.nodes == (Node("Conv", ("x", "w", "bias"), ("z",)),)
    assert set(done.consts) == {"w", "bias"}


def test_a_copy_of_a_node_means_the_node() -> None:
    node = Node("Add", ("x", "c"), ("y",))
    editor = Editor(Graph((node,), ONE, ("x",), ("y",)))
    editor.edit(replace(node), 1, lambda c: 2 * c)
    assert float(editor.done().consts["c"][0]) == 2.0
