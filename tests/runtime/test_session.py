"""Sessions run what they are given, on what they are given, and say in one line what does not fit."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from equint.errors import EquintError
from equint.runtime.session import Session, random_inputs
from equint.samples.images import Run
from handwritten import network, normal
from nets import random_network, run, sample

W = normal(4, 3, 3, 3)
PROTO = network("a = Conv(x, w) b = Relu(a) y = Neg(b)", w=W)
X = normal(2, 3, 8, 8, scale=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(PROTO, path)
    return path


@pytest.mark.parametrize("optimized", [False, True])
def test_run(optimized: bool) -> None:
    for seed in range(5):
        proto = random_network(seed)
        x = sample(proto)
        (found,) = Session(proto, optimized).run(x).values()
        (wanted,) = run(proto, x)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_from_model_path_and_string(path: Path) -> None:
    y = Session(PROTO).run(X)["y"]
    for source in (path, str(path)):
        np.testing.assert_array_equal(Session(source).run(X)["y"], y)


def test_description() -> None:
    session = Session(PROTO)
    assert (session.inputs, session.outputs) == (("x",), ("y",))
    assert session.shapes == {"x": ["N", 3, 8, 8]}


@pytest.mark.parametrize("from_file", [False, True])
def test_taps(path: Path, from_file: bool) -> None:
    values = Session(path if from_file else PROTO, taps=["a", "b", "y"]).run(X)
    assert sorted(values) == ["a", "b", "y"]
    np.testing.assert_array_equal(values["b"], np.maximum(values["a"], 0))
    np.testing.assert_array_equal(values["y"], -values["b"])


def test_tapping_leaves_the_model_alone() -> None:
    before = PROTO.SerializeToString()
    Session(PROTO, taps=["a"])
    assert PROTO.SerializeToString() == before


def test_taps_survive_optimization() -> None:
    values = Session(PROTO, optimized=True, taps=["a"]).run(X)
    np.testing.assert_allclose(values["a"], Session(PROTO, taps=["a"]).run(X)["a"], atol=1e-5)


def test_plain_sessions_compute_what_the_graph_says() -> None:
    """Two roundings in a row, which the optimizer takes for one."""
    body = """q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z)
              r = QuantizeLinear(a, t, z) y = DequantizeLinear(r, t, z)"""
    proto = network(body, s=np.float32(0.5), t=np.float32(0.375), z=np.uint8(128))
    wanted = np.rint(np.rint(X / 0.5) * 0.5 / 0.375) * 0.375
    np.testing.assert_array_equal(Session(proto).run(X)["y"], wanted)
    assert (Session(proto, optimized=True).run(X)["y"] != wanted).any()


def test_several_inputs() -> None:
    proto = network("y = Add(x, z)", inputs="float[N,3] x, float[N,3] z", output="float[N,3] y")
    x, z = normal(2, 3), normal(2, 3, seed=2)
    np.testing.assert_array_equal(Session(proto).run({"z": z, "x": x})["y"], x + z)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(
        network("a = Conv(x, w) y = Relu(a)", w=W), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    y = Session(path).run(X)["y"]
    np.testing.assert_array_equal(np.maximum(Session(path, taps=["a"]).run(X)["a"], 0), y)


def one_line(error: pytest.ExceptionInfo[EquintError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_no_file(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "absent.onnx", "no such file"), (tmp_path, "is a folder")):
        for taps in ([], ["a"]):
            with pytest.raises(EquintError) as error:
                Session(path, taps=taps)
            one_line(error, str(path), problem)


@pytest.mark.parametrize("content", [b"", b"text", b"\x08"])
def test_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(EquintError) as error:
        Session(path)
    one_line(error, str(path), "cannot load")


def test_unknown_operator() -> None:
    with pytest.raises(EquintError) as error:
        Session(network("y = acme.Blur (x)"))
    one_line(error, "Blur")


def test_unknown_tap() -> None:
    with pytest.raises(EquintError) as error:
        Session(PROTO, taps=["nothing"])
    one_line(error, "nothing")


@pytest.mark.parametrize("x", [X[:, :2], X[0], X.astype(complex)], ids=["channels", "rank", "type"])
def test_input_that_does_not_fit(path: Path, x: object) -> None:
    with pytest.raises(EquintError) as error:
        Session(path).run(x)  # type: ignore[arg-type]
    one_line(error, str(path), "does not run on this input")


def test_what_fails_is_told_without_places_in_the_source() -> None:
    proto = network("y = Reshape(x, s)", output="float[] y", s=[-1, 7])
    with pytest.raises(EquintError) as error:
        Session(proto).run(X)
    one_line(error, "Reshape", "cannot be reshaped", "{-1,7}")
    assert not any(part in str(error.value) for part in ("onnxruntime_src", ".h:", "::", "ONNXRuntimeError"))


def test_rows_that_belong_together_are_not_cut() -> None:
    """A batch of two frames to a clip, and so of as many as one likes, but none of one."""
    session = Session(network("y = Reshape(x, s)", inputs="float[NT,3] x", output="float[] y", s=[-1, 2, 3]))
    for rows in (4, 2):
        x = np.arange(3.0 * rows).reshape(rows, 3)
        np.testing.assert_array_equal(session.run(x)["y"], x.reshape(-1, 2, 3))


def test_unknown_input() -> None:
    with pytest.raises(EquintError):
        Session(PROTO).run({"z": X})


def test_random_inputs() -> None:
    proto = network("y = Add(x, z)", inputs="float[N,3,H,32] x, float[N,1,1,1] z")
    found = random_inputs(Session(proto), 4)
    assert {name: a.shape for name, a in found.items()} == {"x": (4, 3, 64, 32), "z": (4, 1, 1, 1)}
    assert {a.dtype for a in found.values()} == {np.dtype(np.float32)}
    again, other = random_inputs(Session(proto), 4), random_inputs(Session(proto), 4, seed=1)
    np.testing.assert_array_equal(found["x"], again["x"])
    assert (found["x"] != other["x"]).any()
    assert Session(proto).run(found)["y"].shape == (4, 3, 64, 32)


def test_random_whole_numbers() -> None:
    body = "a = Cast <to = 1> (p) b = Cast <to = 1> (i) y = Add(a, b)"
    proto = network(body, inputs="uint8[N,500] p, int64[N,1] i", output="float[N,500] y")
    found = random_inputs(Session(proto), 20)
    assert (str(found["p"].dtype), int(found["p"].min()), int(found["p"].max())) == ("uint8", 0, 255)
    assert (str(found["i"].dtype), sorted(set(found["i"].ravel().tolist()))) == ("int64", [0, 1])


def test_lengths_are_those_of_the_rows_where_they_are_told() -> None:
    proto = network("y = Add(x, x)", inputs="float[N,T] x, int64[N] lengths, int64[N,1] i", output="float[N,T] y")
    found = random_inputs(Session(proto), 3, size=50, told=True)
    assert (found["x"].shape, found["lengths"].tolist()) == ((3, 50), [50, 50, 50])
    assert set(found["i"].ravel().tolist()) <= {0, 1}
    assert set(random_inputs(Session(proto), 3, size=50)["lengths"].tolist()) <= {0, 1}


def test_a_fixed_batch_runs_as_often_as_needed() -> None:
    """Exports for a fixed batch serve any number of samples."""
    proto = network("y = Conv(x, w)", inputs="float[2,3,8,8] x", w=normal(4, 3, 3, 3))
    free = network("y = Conv(x, w)", inputs="float[N,3,8,8] x", w=normal(4, 3, 3, 3))
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    for count in (6, 5, 1):
        np.testing.assert_allclose(Session(proto).run(x[:count])["y"], Session(free).run(x[:count])["y"], rtol=1e-6)


def test_what_a_fixed_batch_gives_as_one_number_stays_whole() -> None:
    proto = network("y = ReduceMax <keepdims = 0> (x)", inputs="float[4,3,8,8] x", output="float[] y")
    x = normal(3, 3, 8, 8, scale=1)
    assert Session(proto).run(x)["y"] == x.max()


def test_samples_that_do_not_go_together_run_alone() -> None:
    """A Reshape to one sample fails on several; a Softmax over all rows does not, and is wrong."""
    for body in ("a = Reshape(x, s) y = Softmax(a)", "a = Reshape(x, r) b = Softmax <axis = 0> (a) y = Reshape(b, t)"):
        proto = network(body, output="float[] y", s=[1, 192], r=[-1, 192], t=[-1, 3, 8, 8])
        alone = [Session(proto).run(X[k : k + 1])["y"] for k in range(2)]
        session = Session(proto)
        for _ in range(2):
            np.testing.assert_allclose(session.run(X)["y"], np.concatenate(alone), rtol=1e-5)
        assert session.together is False
    free = Session(network("y = Relu(x)"))
    free.run(X)
    assert free.together is True


def test_a_run_of_several_inputs_is_never_cut() -> None:
    proto = network("y = Add(x, s)", inputs="float[2,3] x, float[4,2,3] s", output="float[] y")
    fed = Run(x=np.ones((2, 3), np.float32), s=np.ones((4, 2, 3), np.float32))
    assert Session(proto).run(fed)["y"].shape == (4, 2, 3)


def test_numbers_become_of_the_type_that_is_read() -> None:
    proto = network("y = Cast <to = 1> (x)", inputs="uint8[N,4] x", output="float[N,4] y")
    for pixels in (np.array([[0, 1, 254, 255]]), np.array([[0.0, 1.0, 254.0, 255.0]])):
        assert Session(proto).run(pixels)["y"].tolist() == [[0, 1, 254, 255]]
    for wrong in (np.array([[0.5, 0, 0, 0]]), np.array([[-1, 0, 0, 0]]), np.array([[256, 0, 0, 0]])):
        with pytest.raises(EquintError, match="input x takes uint8"):
            Session(proto).run(wrong)
