"""Results whose parts have grids of their own leave the program apart and are joined in float by whoever runs it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
from equint.errors import EquintError
from equint.hardware.target import target
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program
from equint.npu.bundle import load_bundle, save_bundle
from handwritten import Array, execute, network, normal

CONSTS: dict[str, Any] = {
    "w": normal(8, 3, 3, 3),
    "v": normal(4, 8, 1, 1, scale=15),
    "b": np.array([320.0, 320, 100, 100]),
    "u": normal(6, 8, 1, 1, seed=2),
    "s": np.array([0, -1, 64]),
}
BODY = """
    a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) boxes = Conv(r, v, b) l = Conv(r, u) p = Sigmoid(l)
    q = Reshape(boxes, s) scores = Reshape(p, s) j = Concat <axis = 1> (q, scores) y = Transpose <perm = [0, 2, 1]> (j)
"""
PROTO = network(BODY, output="float[N,A,B] y", **CONSTS)


def images(count: int, seed: int = 0) -> Array:
    return normal(count, 3, 8, 8, seed=seed, scale=1)


@pytest.fixture(scope="module")
def program() -> Program:
    return equint.quantize(PROTO, "wes", "npu-shift", data=images(32)).program


def test_each_part_is_an_output(program: Program) -> None:
    assert program.outputs == ("q", "scores")
    assert program.results == ("y",)
    assert [o.name for o in export_integer(program).graph.output] == ["q", "scores"]
    assert float(program.grids["scores"].scale) < 1 / 200 < float(program.grids["q"].scale)


def test_the_engine_gives_the_network_s_results(program: Program) -> None:
    x = images(8, seed=9)
    (wanted,) = execute(PROTO, x)
    found = Engine(program).real(x)
    assert list(found) == ["y"]
    for part in (slice(0, 4), slice(4, 10)):
        noise = np.square(wanted[..., part] - found["y"][..., part]).sum()
        assert 10 * np.log10(np.square(wanted[..., part]).sum() / noise) > 25


def test_a_bundle_keeps_how_they_are_joined(program: Program, tmp_path: Path) -> None:
    manifest, _ = save_bundle(program, tmp_path / "net")
    again, x = load_bundle(manifest), images(2, seed=9)
    assert again.results == ("y",)
    assert np.array_equal(Engine(again).real(x)["y"], Engine(program).real(x)["y"])


def test_a_result_that_needs_no_join_stays_as_it_is() -> None:
    proto = network(f"{BODY} z = Conv(r, t)", output="float[N,A,B] y, float[N,C,D,E] z", t=normal(2, 8, 1, 1), **CONSTS)
    program = equint.quantize(proto, "wes", "npu-shift", data=images(32)).program
    assert sorted(program.outputs) == ["q", "scores", "z"]
    assert list(Engine(program).real(images(2))) == list(program.results) == ["y", "z"]


def test_what_differs_too_much_and_is_picked_apart_again_is_refused() -> None:
    """On one grid all scores would be one value; the QDQ file joins in float, a program cannot."""
    body = (
        "a = Conv(x, v) b = Conv(x, w) c = Concat <axis = 1> (a, b)"
        " d = Gather <axis = 1> (c, p) e = Gather <axis = 1> (c, q) y = Sigmoid(d) z = Relu(e)"
    )
    picked: dict[str, Any] = {"p": np.array([6, 5, 4]), "q": np.array([3, 2, 1, 0])}
    weights: dict[str, Any] = {"v": 60 * normal(4, 3, 1, 1), "w": normal(3, 3, 1, 1)}
    proto = network(body, inputs="float[N,3,4,4] x", output="float[] y, float[] z", **weights, **picked)
    result = equint.quantize(proto, "cwq", "per-channel", data=normal(16, 3, 4, 4, scale=1.0))
    x = normal(8, 3, 4, 4, scale=1.0)
    (found, _), (wanted, _) = execute(result.proto, x), execute(proto, x)
    assert np.square(found - wanted).mean() < 0.01 * wanted.var()
    with pytest.raises(EquintError, match="a, b reach too differently far to be joined on one grid"):
        lower(result.model, target("per-channel"))
