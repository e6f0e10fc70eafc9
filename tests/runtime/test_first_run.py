"""What one sample shows of a network: the sizes that numpy would give its tensors, and whether samples go together."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from equint.ir.model import Graph, Shape
from equint.onnx.reader import read
from equint.runtime.first_run import first_run, fitting, rows_of_a_sample
from equint.samples.images import Run, Samples
from handwritten import network, normal

X = normal(1, 3, 8, 8, scale=1)
W = normal(4, 3, 3, 3)


def hidden(proto: ModelProto) -> Graph:
    """A network as read, but with the shapes of its inputs alone."""
    graph = read(proto).graph
    return Graph(
        graph.nodes, graph.consts, graph.inputs, graph.outputs, {n: graph.shapes[n] for n in graph.inputs}, graph.dtypes
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel tells no peaks")
def test_no_tensor_waits_for_its_size_to_be_told() -> None:
    """24 tensors of 4 MiB a sample, of which two are needed at a time."""

    def megabytes(kind: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(kind))

    steps = " ".join(f"t{k + 1} = Conv(t{k}, w)" for k in range(24))
    body, takes = f"t0 = Relu(x) {steps} y = Relu(t24)", "float[N,4,512,512] x"
    graph = read(network(body, inputs=takes, w=normal(4, 4, 1, 1))).graph
    x = np.zeros((1, 4, 512, 512), np.float32)
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    assert first_run(graph, x).shapes["t9"] == ("N", 4, 512, 512)
    assert megabytes("VmHWM") - before < 24 * 4


def test_all_sizes_are_those_of_the_run() -> None:
    graph = hidden(network("a = Conv(x, w) b = Reshape(a, s) y = Transpose <perm = [0, 2, 1]> (b)", w=W, s=[0, 4, 36]))
    found = first_run(graph, X)
    assert found.shapes == {"a": ("N", 4, 6, 6), "b": ("N", 4, 36), "y": ("N", 36, 4)}
    assert (found.batch, found.settled) == (None, True)


@pytest.mark.parametrize(
    ("size", "inputs", "fed"), [("[1, 144]", "float[N,3,8,8] x", 1), ("[1, 144]", "float[1,3,8,8] x", 1)]
)
def test_a_reshape_to_one_takes_single_samples(size: str, inputs: str, fed: int) -> None:
    body = "a = Conv(x, w) b = Reshape(a, s) y = Gemm(b, v)"
    proto = network(body, inputs=inputs, output="float[] y", w=W, s=[1, 144], v=normal(144, 5))
    found = first_run(hidden(proto), X)
    assert found.batch == 1
    assert found.shapes["b"] == (1, 144)
    assert found.shapes.get("x", (1, 3, 8, 8)) == (1, 3, 8, 8)  # whatever the input says


def test_samples_that_are_mixed_do_not_go_together() -> None:
    """Rows of all samples meet in one Softmax: it runs on any number, and says something else of each."""
    body = "a = Conv(x, w) b = Reshape(a, s) y = Softmax <axis = 0> (b)"
    assert first_run(hidden(network(body, output="float[] y", w=W, s=[-1, 144])), X).batch == 1
    assert first_run(hidden(network(body.replace("0", "1"), output="float[] y", w=W, s=[-1, 144])), X).batch is None


def test_time_first_outputs_do_not_go_together() -> None:
    proto = network("a = Conv(x, w) y = Transpose <perm = [3, 0, 1, 2]> (a)", w=W)
    found = first_run(hidden(proto), X)
    assert found.batch == 1
    assert found.shapes["y"] == (6, "N", 4, 6)  # and yet the batch is free


def test_free_sizes_stay_free() -> None:
    """Doubled, they are another number; what does not follow them is known."""
    body = "a = Conv(x, w) b = GlobalAveragePool(a) c = Reshape(b, s) y = Gemm(c, v)"
    proto = network(body, inputs="float[N,3,H,W] x", output="float[] y", w=W, s=[0, -1], v=normal(4, 5))
    shapes = first_run(hidden(proto), X).shapes
    assert shapes["a"] == ("N", 4, None, None)
    assert shapes["c"] == ("N", 4)


def test_a_size_that_cannot_be_another_is_not_settled() -> None:
    proto = network("y = Add(x, k)", inputs="float[N,3,H,8] x", k=normal(1, 1, 8, 8, scale=1))
    found = first_run(hidden(proto), X)
    assert not found.settled
    assert found.shapes["y"] == ("N", 3, 8, 8)


def test_counts_that_hang_on_values_are_no_sizes() -> None:
    body = "n = NonZero(x) y = Cast <to = 1> (n)"
    found = first_run(hidden(network(body, inputs="float[1,3,8,8] x", output="float[] y")), X)
    assert found.shapes["y"] == (None, None)


def test_states_and_scalars() -> None:
    proto = network("a = Add(x, s) y = Mul(a, r)", inputs="float[N,4] x, float[2,N,4] s, float r", output="float[] y")
    shown = Run(x=np.ones((1, 4), np.float32), s=np.ones((2, 1, 4), np.float32), r=np.array(2, np.float32))
    wanted: Shape = (2, "N", 4)
    found = first_run(hidden(proto), shown)
    assert (found.batch, found.shapes["y"][0], found.shapes["y"][2]) == (1, wanted[0], wanted[2])
    assert not isinstance(found.shapes["y"][1], int)


@pytest.mark.parametrize("frames", [2, 3, 5, 7, 16])
def test_what_a_batch_is_made_of(frames: int) -> None:
    """Of 7 nobody would think; made-up samples are put together to as many rows as make one."""
    graph = hidden(network("y = Reshape(x, s)", inputs="float[NT,3] x", output="float[] y", s=[-1, frames, 3]))
    found = rows_of_a_sample(graph, np.ones((1, 3), np.float32))
    assert found == (None if frames == 7 else frames)
    rows = normal(40, 3)
    made = fitting(graph, lambda size: Samples.of(rows))
    if found is None:
        assert made is None
        return
    runs = [run["x"] for run in made or () if isinstance(run, Run)]
    assert [len(run) for run in runs] == [frames] * (40 // frames)
    np.testing.assert_array_equal(np.concatenate(runs), rows[: 40 // frames * frames])


def test_a_batch_that_is_none_has_no_such_rows() -> None:
    for inputs in ("float[4,3] x", "float[N,3] x, float[2,N] s"):
        graph = hidden(network("y = Reshape(x, k)", inputs=inputs, output="float[] y", k=[-1, 4, 3]))
        assert rows_of_a_sample(graph, {n: np.ones((1, 3), np.float32) for n in graph.inputs}) is None
