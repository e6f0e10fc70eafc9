"""What the graph holds wider than ONNX is lowered; files appear whole or not at all."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from hypothesis import given, settings

from equint.errors import EquintError
from equint.ir.model import Graph, Node
from equint.onnx.reader import read
from equint.onnx.writer import save_proto, to_proto
from equint.ops.layers import tiny_graph
from handwritten import Array, assert_same, execute, network, normal, operators
from nets import networks

X = normal(2, 3, 4, 4, scale=3)


def clip(low: Array | None, high: Array | None) -> onnx.ModelProto:
    consts = {n: a for n, a in (("low", low), ("high", high)) if a is not None}
    inputs = ("x", "low" if low is not None else "", *(["high"] if high is not None else []))
    shape = ("N", 3, 4, 4)
    return to_proto(Graph((Node("Clip", inputs, ("y",)),), consts, ("x",), ("y",), {"x": shape, "y": shape}))


def channels(*values: float) -> Array:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (np.float32(0), channels(1, 2, 3), ["Relu", "Min"]),
        (channels(0, 0, 0), channels(1, 2, 3), ["Relu", "Min"]),
        (channels(-1, 0, 1), channels(1, 2, 3), ["Max", "Min"]),
        (channels(-1, 0, 1), np.float32(2), ["Max", "Min"]),
        (None, channels(1, 2, 3), ["Min"]),
        (channels(-1, 0, 1), None, ["Max"]),
        (np.float32(0), np.float32(6), ["Clip"]),
    ],
)
def test_clip_per_channel(low: Array | None, high: Array | None, expected: list[str]) -> None:
    proto = clip(low, high)
    onnx.checker.check_model(proto, full_check=True)
    assert operators(proto.graph.node) == expected
    wanted = np.clip(X, -np.inf if low is None else low, np.inf if high is None else high)
    np.testing.assert_array_equal(execute(proto, X)[0], wanted)


def test_matmul_with_bias() -> None:
    w, b, x = normal(3, 5), normal(5), normal(2, 4, 3, scale=1)
    shapes = {"x": ("N", 4, 3), "y": ("N", 4, 5)}
    proto = to_proto(Graph((Node("MatMul", ("x", "w", "b"), ("y",)),), {"w": w, "b": b}, ("x",), ("y",), shapes))
    assert operators(proto.graph.node) == ["MatMul", "Add"]
    np.testing.assert_allclose(execute(proto, x)[0], x @ w + b, rtol=1e-5, atol=1e-6)


def test_names_made_here_are_free() -> None:
    """A value that already has the name that lowering would choose."""
    nodes = (Node("Relu", ("x",), ("y_product",)), Node("MatMul", ("y_product", "w", "b"), ("y",)))
    consts = {"w": normal(3, 5), "b": normal(5)}
    shapes = {"x": ("N", 4, 3), "y": ("N", 4, 5)}
    onnx.checker.check_model(to_proto(Graph(nodes, consts, ("x",), ("y",), shapes)), full_check=True)


@pytest.mark.parametrize("op", ["Clip", "MatMul"])
def test_unnamed_nodes_get_names_of_their_own(op: str) -> None:
    """onnxruntime refuses two nodes of one name."""
    consts: dict[str, Any] = {"lo": np.float32(0), "hi": channels(1, 2, 3), "w": normal(4, 4), "b": normal(4)}
    rest = ("lo", "hi") if op == "Clip" else ("w", "b")
    nodes = (Node(op, ("x", *rest), ("h",)), Node(op, ("h", *rest), ("y",)))
    shapes = dict.fromkeys("xhy", ("N", 3, 4, 4))
    (y,) = execute(to_proto(Graph(nodes, {n: consts[n] for n in rest}, ("x",), ("y",), shapes)), X)
    assert y.shape == X.shape


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(networks())
def test_reading_back_changes_nothing(proto: onnx.ModelProto) -> None:
    once = to_proto(read(proto).graph)
    assert to_proto(read(once).graph) == once


def test_attributes_of_every_kind() -> None:
    """Also the awkward ones: an empty list, a tensor, a string, a list of strings."""
    attrs = {
        "i": 2,
        "f": 0.5,
        "s": "text",
        "none": [],
        "ints": [1, 2],
        "floats": [0.5, 2.0],
        "strings": ["a", "b"],
        "t": onnx.numpy_helper.from_array(np.arange(3), "t"),
    }
    odd = Node("Odd", ("x",), ("y",), attrs, domain="acme")
    graph = Graph((odd,), {}, ("x",), ("y",), {"x": (1,)}, domains={"acme": 1})
    again = read(to_proto(graph)).graph.nodes[0]
    assert {**again.attrs, "t": 0} == {**attrs, "t": 0}


# Files


@pytest.fixture
def proto() -> onnx.ModelProto:
    return network("y = Conv(x, w)", w=normal(32, 3, 3, 3))


def test_save(proto: onnx.ModelProto, tmp_path: Path) -> None:
    for path in (tmp_path / "net.onnx", str(tmp_path / "other.onnx")):
        save_proto(proto, path)
        assert onnx.load(path) == proto
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "other.onnx"}


def test_save_over_an_older_file(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08 old")
    save_proto(proto, path)
    assert onnx.load(path) == proto


def test_save_under_a_bare_name(proto: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_proto(proto, "net.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_external_data(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save_proto(proto, path, external_above=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert path.stat().st_size < 1000 < (tmp_path / "net.onnx.data").stat().st_size
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = normal(2, 3, 8, 8, scale=1)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], execute(proto, x)[0], rtol=1e-4, atol=1e-5)
    assert_same(proto, to_proto(read(path).graph))


def test_external_data_leaves_the_model_alone(proto: onnx.ModelProto, tmp_path: Path) -> None:
    before = proto.SerializeToString()
    save_proto(proto, tmp_path / "net.onnx", external_above=1000)
    assert proto.SerializeToString() == before


def test_external_data_twice(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for _ in range(2):
        save_proto(proto, path, external_above=1000)
    assert_same(proto, to_proto(read(path).graph))


def unwritable(proto: onnx.ModelProto, path: Path) -> str:
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else None
    with pytest.raises(EquintError) as caught:
        save_proto(proto, path)
    assert (sorted(path.parent.iterdir()) if path.parent.is_dir() else None) == before
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_folder_missing(proto: onnx.ModelProto, tmp_path: Path) -> None:
    unwritable(proto, tmp_path / "absent" / "net.onnx")


def test_folder_as_target(proto: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    assert "folder" in unwritable(proto, tmp_path / "net.onnx")


def test_file_as_folder(proto: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    unwritable(proto, tmp_path / "file" / "net.onnx")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_not_writable(proto: onnx.ModelProto, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        unwritable(proto, tmp_path / "net.onnx")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("external_above", [1 << 30, 1000])
def test_failure_midway_keeps_the_old_file(
    proto: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external_above: int
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08 old")

    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if Path(source).parent.name == "new":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(EquintError, match="No space left on device"):
        save_proto(proto, path, external_above)
    assert path.read_bytes() == b"\x08 old"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_special_files_and_links_survive(tmp_path: Path) -> None:
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.onnx", tmp_path / "real.onnx"
    os.mkfifo(pipe)
    link.symlink_to(real)
    with pytest.raises(EquintError, match="no regular file"):
        save_proto(to_proto(tiny_graph()), pipe)
    assert pipe.is_fifo()
    save_proto(to_proto(tiny_graph()), link)
    assert link.is_symlink()
    onnx.checker.check_model(onnx.load(real))


def test_a_name_that_no_folder_takes(tmp_path: Path) -> None:
    with pytest.raises(EquintError, match="cannot write"):
        save_proto(to_proto(tiny_graph()), tmp_path / ("n" * 300))
