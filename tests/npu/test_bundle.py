import hashlib
import json
import os
import struct
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from equint import quantize
from equint.errors import EquintError
from equint.hardware.target import target
from equint.integers.lower import lower
from equint.integers.program import Program, Requantize, Step
from equint.ir.model import QParams
from equint.npu import bundle
from equint.npu.bundle import digest, load_bundle, save_bundle, schema
from equint.npu.records import DTYPES
from equint.npu.sizes import network_sizes
from programs import assert_same, programs

Array = NDArray[Any]
FOLDER = os.environ.get("EQUINT_REAL", "")
SPARSE: Any = st.sampled_from(["auto", True, False])


def requantize(channels: int) -> Requantize:
    """Shifts 0, 1, 2 … and everything else in the widest type."""
    return Requantize(
        np.full((), 0xB504F333, np.int64),
        np.full((), -3, np.int64),
        np.arange(channels) % 16,
        3,
        np.full((), 0, np.int64),
        np.arange(channels, dtype=np.int32) + 100,
    )


def conv(weight: Array, zero: Array | int, name: str = "c", x: str = "x", y: str = "y") -> Step:
    arrays = {
        "weight": weight,
        "weight_zero_point": np.asarray(zero, weight.dtype),
        "bias": np.arange(len(weight), dtype=np.int32) - 1000,
    }
    attrs = {"strides": (1, 1), "dilations": [1, 1], "pads": [0, 1, 0, 1], "group": 1, "axis": 1}
    return Step("Conv", name, (x,), (y,), attrs, arrays, requantize(len(weight)))


GRID = QParams(np.array(0.1, np.float32), np.array(3, np.int32), 8, False)


def network(*steps: Step, **fields: Any) -> Program:
    """The steps in a row: the first reads x, the last makes y."""
    names = [steps[0].inputs[0], *(o for step in steps for o in step.outputs)]
    return Program(steps, (names[0],), (names[-1],), dict.fromkeys(names, GRID), **fields)


def weight_of(shape: tuple[int, ...], zeros: float, seed: int = 0) -> Array:
    """uint8 integers, the given share of them at the zero point 9."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 256, shape).astype(np.uint8)
    weight.flat[0] = 255
    return np.where(rng.random(shape) < zeros, np.uint8(9), weight)


def resigned(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and make its sum right again."""
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["sha256"] = digest(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(program=programs(), sparse=SPARSE)
def test_random_programs_come_back_as_they_were(program: Program, sparse: Any, tmp_path: Path) -> None:
    manifest, _ = save_bundle(program, tmp_path / "net", sparse)
    assert_same(load_bundle(manifest), program)


@pytest.mark.parametrize("sparse", ["auto", True, False])
def test_whatever_a_program_may_hold_comes_back(sparse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "check", lambda program: None)  # nothing could run this one
    rng = np.random.default_rng(1)
    transposed = Step(
        "ConvTranspose",
        "",
        ("h",),
        ("t",),
        {"group": 2, "axis": 1},
        {
            "weight": rng.integers(-8, 8, (4, 3, 2, 2)).astype(np.int8),
            "weight_zero_point": rng.integers(-8, 8, 6).astype(np.int8),
            "bias": np.array([1 << 40, *range(5)], np.int64),
        },
        requantize(6),
    )
    odd: dict[str, Any] = {
        "none": None, "text": "é\ud800", "bytes": b"\0\xff", "tuple": (1, (2.5, [])), "list": [True, -0.0],
        "nan": float("nan"), "inf": [float("-inf")], "array": np.array([[1, 2]], np.int16),
    }  # fmt: skip
    other = Step(
        "Table",
        "table",
        ("t", ""),
        ("y",),
        odd,
        {
            "strided": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
            "nan": np.float32("nan") + np.zeros((), np.float32),
            "empty": np.zeros((0, 3), np.uint16),
            "scalar": np.array(-0.0, np.float16),
            "large": np.array(2**64 - 1, np.uint64),
            "truths": np.array([True, False]),
        },
    )
    first = conv(rng.integers(0, 16, (4, 2, 3, 3)).astype(np.uint8), np.arange(4), x="x", y="h")
    program = network(first, transposed, other)
    wide = QParams(np.ones(3, np.float64), np.arange(3), 8, True, 0, np.arange(3), True)
    program = replace(
        program,
        grids={**program.grids, "wide": wide},
        shapes={"x": ("N", 2, None), "s": ()},
        consts={"k": np.array([[1, -2]]), "scalar": np.array(5)},
        rounding="truncate",
        mantissa_bits=31,
        target="mine",
        name="net é",
    )
    save_bundle(program, tmp_path / "net", sparse)
    assert_same(load_bundle(tmp_path / "net.safetensors"), program)


def test_arrays_are_packed_as_hardware_reads_them(tmp_path: Path) -> None:
    weight = np.arange(3 * 5, dtype=np.uint8).reshape(3, 5, 1, 1)
    manifest, file = save_bundle(network(conv(weight, 9)), tmp_path / "net", sparse=False)
    tensors = load_file(file)
    assert {n: (str(t.dtype), t.shape) for n, t in tensors.items()} == {
        "steps.0.weight": ("uint8", (8,)),  # 15 of four bits
        "steps.0.bias": ("int32", (3,)),
        "steps.0.requantize.shift": ("uint8", (2,)),
        "steps.0.requantize.high": ("uint8", (3,)),
    }
    assert tensors["steps.0.weight"].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0x0E]
    assert tensors["steps.0.requantize.shift"].tolist() == [0x10, 0x02]
    described = json.loads(manifest.read_text())
    assert described["target"]["weight_bits"] == 4
    assert described["steps"][0]["requantize"]["mantissa"] == {"dtype": "int64", "shape": [], "value": 0xB504F333}


def test_compounds_per_channel_take_32_and_8_bits(tmp_path: Path) -> None:
    step = conv(weight_of((3, 5, 1, 1), 0), 9)
    assert step.requantize is not None
    each = replace(step.requantize, mantissa=np.full(3, 1 << 31), exponent=np.array([-32, 0, 31]))
    _, file = save_bundle(network(replace(step, requantize=each)), tmp_path / "net")
    tensors = load_file(file)
    assert [
        str(tensors[f"steps.0.{role}"].dtype) for role in ("requantize.mantissa", "requantize.exponent", "weight")
    ] == [*("uint32", "int8", "uint8")]
    assert tensors["steps.0.weight"].shape == (3, 5, 1, 1)


def test_auto_takes_what_is_smaller_layer_by_layer(tmp_path: Path) -> None:
    thin, dense = weight_of((8, 32, 1, 1), 0.5), weight_of((8, 8, 1, 1), 0.01)
    program = network(conv(thin, 9, "thin", "x", "h"), conv(dense, 9, "dense", "h", "y"))
    manifest, file = save_bundle(program, tmp_path / "net")
    tensors = load_file(file)
    assert tensors["steps.0.weight.mask"].tolist() == np.packbits(thin.ravel() != 9, bitorder="little").tolist()
    assert tensors["steps.0.weight.values"].tolist() == thin[thin != 9].tolist()
    assert tensors["steps.1.weight"].tolist() == dense.tolist()
    record = json.loads(manifest.read_text())["steps"][0]["arrays"]["weight"]
    assert record["size"] == int(np.sum(thin != 9))
    assert_same(load_bundle(manifest), program)


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    program = network(conv(weight_of((4, 4, 3, 3), 0.5), 9))
    one, two = (save_bundle(program, tmp_path / name) for name in ("one", "two"))
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in two]
    assert not list(tmp_path.glob(".equint*"))


@pytest.mark.parametrize("called", ["v1_0.25", "v1_0.25.json", "v1_0.25.safetensors"])
def test_a_bundle_goes_by_its_name_or_either_file(called: str, tmp_path: Path) -> None:
    program = network(conv(weight_of((4, 4, 3, 3), 0.5), 9))
    files = save_bundle(program, tmp_path / called)
    assert [f.name for f in files] == ["v1_0.25.json", "v1_0.25.safetensors"]
    assert_same(load_bundle(tmp_path / called), program)


def test_both_files_or_none(tmp_path: Path) -> None:
    program = network(conv(weight_of((4, 4, 3, 3), 0.5), 9))
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(EquintError, match="is a folder"):
        save_bundle(program, tmp_path / "net")
    assert [f.name for f in tmp_path.iterdir()] == ["net.safetensors"]
    with pytest.raises(EquintError, match="no such folder"):
        save_bundle(program, tmp_path / "nowhere" / "net")
    with pytest.raises(EquintError, match="no name"):
        save_bundle(program, "")


def test_what_no_bundle_can_hold_is_refused_on_writing(tmp_path: Path) -> None:
    good = conv(weight_of((4, 4, 3, 3), 0.5), 9)
    assert good.requantize is not None
    steep = replace(good.requantize, shift=np.array([0, 16, 0, 0]))
    with pytest.raises(EquintError, match="c: shifts from 0 to 16 do not fit into 4 bits"):
        save_bundle(network(replace(good, requantize=steep)), tmp_path / "net")
    with pytest.raises(EquintError, match="c: attribute odd: bundles hold no set"):
        save_bundle(network(replace(good, attrs={"odd": {1}})), tmp_path / "net")
    with pytest.raises(EquintError, match="c: z: bundles hold no complex64 arrays"):
        save_bundle(network(replace(good, arrays={**good.arrays, "z": np.ones(2, np.complex64)})), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def outcome(path: Path) -> Program | str:
    """The program, or the one line that says why there is none."""
    try:
        return load_bundle(path)
    except EquintError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return str(error)


def sums(blob: bytes) -> dict[str, Any]:
    return {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A small bundle with one sparse and one dense layer."""
    thin, dense = weight_of((4, 8, 3, 3), 0.6), weight_of((2, 4, 1, 1), 0)
    return save_bundle(network(conv(thin, 9, "thin", "x", "h"), conv(dense, 9, "dense", "h", "y")), tmp_path / "net")


@pytest.fixture
def whole_files(saved: tuple[Path, Path]) -> list[bytes]:
    return [file.read_bytes() for file in saved]


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_bundle_is_refused_or_means_the_same(
    data: st.DataObject, saved: tuple[Path, Path], whole_files: list[bytes]
) -> None:
    for file, content in zip(saved, whole_files, strict=True):
        file.write_bytes(content)
    program = load_bundle(saved[0])
    file = data.draw(st.sampled_from(saved))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    damaged = whole[:at] if cut else whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    file.write_bytes(damaged)
    found = outcome(saved[0])
    if isinstance(found, Program):
        assert_same(found, program)
    else:
        assert str(saved[0].with_suffix("")) in found


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_forged_anywhere_is_refused_or_read(
    data: st.DataObject, saved: tuple[Path, Path], whole_files: list[bytes]
) -> None:
    saved[0].write_bytes(whole_files[0])
    junk = st.sampled_from([None, True, -1, 1 << 70, 0.5, "", "steps.0.bias", [], [1 << 31] * 3, {}, {"tuple": 3}])

    def forge(manifest: dict[str, Any]) -> None:
        here: Any = manifest
        while True:
            keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
            key = data.draw(st.sampled_from(keys))
            inner = here[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 4)) == 0:
                break
            here = inner
        if data.draw(st.booleans()) and isinstance(here, dict):
            del here[key]
        else:
            here[key] = data.draw(junk)

    resigned(saved[0], forge)
    found = outcome(saved[0])
    assert isinstance(found, Program) or str(saved[0].with_suffix("")) in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ('{"format": "equint.bundle", ', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no bundle"),
        ('{"format": "other"}', "no bundle"),
        ('{"format": "equint.bundle", "version": 2}', "version 2 where this equint reads 1; update equint"),
        ('{"format": "equint.bundle", "version": 1}', "'name' is a required property; write the bundle again"),
        ('{"format": "equint.bundle", "version": NaN}', "NaN is no number"),
        ("\ud83d", "no JSON"),
    ],
)
def test_what_is_no_manifest(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EquintError, match=message):
        load_bundle(tmp_path / "net")


def test_a_file_is_missing(saved: tuple[Path, Path]) -> None:
    saved[1].unlink()
    with pytest.raises(EquintError, match=r"net\.safetensors: no such file"):
        load_bundle(saved[0])
    saved[0].unlink()
    with pytest.raises(EquintError, match=r"net\.json: no such file"):
        load_bundle(saved[0])
    saved[0].mkdir()
    with pytest.raises(EquintError, match=r"net\.json: is a folder"):
        load_bundle(saved[0])


def test_a_changed_file_is_named(saved: tuple[Path, Path]) -> None:
    blob = bytearray(saved[1].read_bytes())
    blob[-1] ^= 1
    saved[1].write_bytes(blob)
    with pytest.raises(EquintError, match=r"net\.safetensors: not the tensors of net\.json \(SHA-256"):
        load_bundle(saved[0])
    saved[1].write_bytes(blob[:-1])
    with pytest.raises(EquintError, match=r"bytes where net\.json says"):
        load_bundle(saved[0])
    saved[0].write_text(saved[0].read_text().replace('"half_up"', '"truncate"'))
    with pytest.raises(EquintError, match=r"net\.json: was changed"):
        load_bundle(saved[0])


def test_tensors_that_do_not_fit_the_manifest(saved: tuple[Path, Path]) -> None:
    tensors = load_file(saved[1])

    def read(changed: dict[str, Array]) -> str:
        save_file(changed, saved[1])
        resigned(saved[0], lambda manifest: manifest.update(tensors=sums(saved[1].read_bytes())))
        with pytest.raises(EquintError) as error:
            load_bundle(saved[0])
        return str(error.value)

    weight = "steps.0.weight"
    assert "step 0 'thin': bias: tensor 'steps.0.bias' is missing" in read(
        {n: t for n, t in tensors.items() if n != "steps.0.bias"}
    )
    assert "step 1 'dense': weight: is uint8 (8,) where the manifest says uint8 (2, 4, 1, 1)" in read(
        {**tensors, "steps.1.weight": tensors["steps.1.weight"].ravel()}
    )
    assert "is float32" in read({**tensors, "steps.1.bias": tensors["steps.1.bias"].astype(np.float32)})
    assert "step 0 'thin': weight: a mask of 35 bytes is none of 288" in read(
        {**tensors, f"{weight}.mask": tensors[f"{weight}.mask"][:-1]}
    )
    assert "step 0 'thin': weight: is no sparse weight" in read(
        {**tensors, f"{weight}.values": tensors[f"{weight}.values"][:-1]}
    )
    assert "shift: 1 bytes are not 4 integers" in read(
        {**tensors, "steps.0.requantize.shift": tensors["steps.0.requantize.shift"][:1]}
    )


def test_tensors_that_are_no_safetensors(saved: tuple[Path, Path]) -> None:
    for blob in (b"", struct.pack("<Q", 2) + b"{]", struct.pack("<Q", 1 << 60), b"\x80\x04N."):
        saved[1].write_bytes(blob)
        resigned(saved[0], lambda manifest, blob=blob: manifest.update(tensors=sums(blob)))  # type: ignore[misc]
        with pytest.raises(EquintError, match=r"net\.safetensors: no safetensors file"):
            load_bundle(saved[0])


def test_what_no_engine_could_run_is_refused(saved: tuple[Path, Path]) -> None:
    whole = saved[0].read_text()

    def read(change: Callable[[dict[str, Any]], Any]) -> str:
        saved[0].write_text(whole)
        resigned(saved[0], lambda manifest: change(manifest) and None)
        with pytest.raises(EquintError) as error:
            load_bundle(saved[0])
        return str(error.value)

    assert "dense: reads h, which nothing before it makes" in read(lambda m: m["steps"].reverse() or 1)
    assert "nothing makes the result q" in read(lambda m: m.update(outputs=["q"]))
    assert "dense: a Conv needs array bias" in read(lambda m: m["steps"][1]["arrays"].pop("bias"))
    assert "dense: a Conv needs to be requantized" in read(lambda m: m["steps"][1].update(requantize=None))
    bias = {"dtype": "int32", "shape": [4], "tensor": "steps.0.bias"}
    assert "dense: bias of shape (4,): one, or one for each channel" in read(
        lambda m: m["steps"][1]["arrays"].update(bias=bias)
    )
    groups = read(lambda m: m["steps"][0]["attrs"].update(group=0))
    assert "thin: group = 0: a whole number above 0 is needed; write the bundle again" in groups


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m["steps"][1].update(op=3), "steps[1].op: 3 is not of type 'string'"),
        (lambda m: m["steps"][1]["requantize"].pop("low"), "steps[1].requantize: 'low' is a required property"),
        (lambda m: m["grids"]["x"].update(bits=40), "grids.x.bits: 40 is greater than the maximum of 16"),
        (lambda m: m["grids"]["x"].update(bits=8.0), "grids.x.bits: 8.0 is not of type 'integer'"),
        (lambda m: m["grids"]["x"].update(bits=True), "grids.x.bits: True is not of type 'integer'"),
        (
            lambda m: m["grids"]["x"].update(scale={"dtype": "int8"}),
            "grids.x.scale: 'shape' is a required property",
        ),
        (lambda m: m.update(surprise=1), "Additional properties are not allowed ('surprise' was unexpected)"),
        (lambda m: m["target"].update(rounding="up"), "target.rounding: 'up' is not one of ['half_up', "),
    ],
)
def test_a_manifest_that_does_not_fit_its_schema(
    change: Callable[[dict[str, Any]], Any], why: str, saved: tuple[Path, Path]
) -> None:
    resigned(saved[0], lambda manifest: change(manifest) and None)
    with pytest.raises(EquintError) as error:
        load_bundle(saved[0])
    assert str(error.value).startswith(f"{saved[0]}: {why}")
    assert str(error.value).endswith("; write the bundle again")


def test_messages_stay_short_whatever_is_in_a_manifest(saved: tuple[Path, Path]) -> None:
    resigned(saved[0], lambda manifest: manifest.update(inputs=["x" * 100_000, *range(1000)], outputs="\n" * 100_000))
    with pytest.raises(EquintError) as error:
        load_bundle(saved[0])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(saved[0]))


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(program=programs(), sparse=SPARSE)
def test_manifests_fit_the_published_schema(program: Program, sparse: Any, tmp_path: Path) -> None:
    manifest, _ = save_bundle(program, tmp_path / "net", sparse)
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(json.loads(manifest.read_text()))


def test_the_schema_lists_the_types_that_bundles_hold() -> None:
    assert tuple(schema()["$defs"]["dtype"]["enum"]) == DTYPES
    assert schema()["properties"]["version"] == {"const": 1}


@pytest.mark.skipif(not FOLDER, reason="EQUINT_REAL names no folder of real networks")
@pytest.mark.parametrize("card", ["resnet20_cifar10", "mobilenet_v1_025_96_vww"])
def test_trained_networks_come_back_and_take_as_many_bytes_as_counted(card: str, tmp_path: Path) -> None:
    network = Path(FOLDER) / tomllib.loads((Path(FOLDER) / f"{card}.toml").read_text())["model"]
    program = lower(quantize(network, target="npu-shift", recipe="lwq").model, target("npu-shift"))
    manifest, _ = save_bundle(program, tmp_path / "net")
    assert_same(load_bundle(manifest), program)
    _, file = save_bundle(program, tmp_path / "net", sparse=False)
    found = [t.nbytes for n, t in load_file(file).items() if n.endswith((".bias", ".weight"))]
    layers = network_sizes(program)["layers"]
    assert sum(found) == sum(row["lwq"] - 4 - 1 - 1 for row in layers)  # but for mantissa, exponent and zero point
