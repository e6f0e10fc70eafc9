"""Bundles, golden vectors and .tflite files that cannot be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equint.npu.bundle import digest

from .case import Case, Fault, Make, Reader, both, crossed, removed
from .networks import FAST
from .structures import spoilt, whole_files


def _signed(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Changes a bundle's manifest and signs it anew, so that only what it says is wrong."""

    def make(folder: Path) -> None:
        path = folder / "bundle.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        manifest["sha256"] = digest(manifest)
        path.write_text(json.dumps(manifest))

    return make


def _unsigned(folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"conv1"', '"conv9"'))


def _at(*where: Any, value: Any) -> Make:
    def change(manifest: dict[str, Any]) -> None:
        at: Any = manifest
        for key in where[:-1]:
            at = at[key]
        at[where[-1]] = value

    return _signed(change)


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def _bundles() -> list[Fault]:
    conv, pool, gemm = ("steps", 0, "attrs"), ("steps", 2, "attrs"), ("steps", 4, "attrs")
    found: dict[str, Make] = {}
    values: dict[str, Any] = {
        "0": [0, 0],
        "negative": [-1, -1],
        "10^30": [10**30, 10**30],
        "10^9": [10**9, 10**9],
        "short": [1],
        "text": "x",
        "null": None,
        "true": True,
        "floats": [1.0, 1.0],
        "deep": _nested(900),
        "object": {"a": 1},
        "infinite": {"float": "inf"},
    }
    for key in ("strides", "dilations", "pads", "group", "axis"):
        found |= {f"conv1 {key} {what}": _at(*conv, key, value=value) for what, value in values.items()}
    for key in ("kernel_shape", "strides", "ceil_mode"):
        found |= {f"pool2 {key} {what}": _at(*pool, key, value=value) for what, value in list(values.items())[::3]}
    axes: list[Any] = ["x", 99, -99, 10**30, None, 1.5]
    found |= {f"gemm axis {v!r}": _at(*gemm, "axis", value=v) for v in axes}
    for key in ("mantissa", "exponent", "low", "high", "shift"):
        record: dict[str, Any] = {"dtype": "int64" if key == "mantissa" else "int32", "shape": []}
        numbers: list[Any] = [-1, 10**30, 1.5, "1", 2**31]
        for value in numbers:
            if (key, value) not in (("exponent", -1), ("mantissa", 2**31)):
                found[f"requantize {key} {value!r}"] = _at(
                    "steps", 0, "requantize", key, value={**record, "value": value}
                )
    for key in ("bits", "scale", "zero_point", "signed", "axis", "narrow"):
        numbers = [0, -1, 99, 10**30, "x", None, [1]]
        for value in numbers:
            if (key, value) not in (("axis", None), ("axis", 0), ("axis", -1)):
                found[f"grid {key} {value!r}"] = _at("grids", "r1", key, value=value)
    for scale in (0.0, -1.0, 1e-300, 10**400):
        told: dict[str, Any] = {"dtype": "float32", "shape": [], "value": scale}
        found[f"grid scale value {str(scale)[:12]}"] = _at("grids", "r1", "scale", value=told)
    for key in (
        "inputs",
        "outputs",
        "steps",
        "grids",
        "shapes",
        "consts",
        "target",
        "tensors",
        "name",
        "format",
        "version",
    ):
        numbers = [None, 3, "x", [], {}]
        for value in numbers:
            if not (key == "name" and value == "x") and not (key == "consts" and value == {}):
                found[f"{key} {value!r}"] = _at(key, value=value)
    found |= {
        "step of an unknown kind": _at("steps", 0, "op", value="Frobnicate"),
        "step that reads nothing": _at("steps", 1, "inputs", value=["gone"]),
        "step that reads itself": _at("steps", 1, "inputs", value=["r2"]),
        "step called escapes": both(_at("steps", 0, "name", value="\x1b[31m"), _at("steps", 0, "op", value="\x1b[31m")),
        "tensor that is not there": _at("steps", 0, "arrays", "weight", "tensor", value="gone"),
        "tensor of another shape": _at("steps", 0, "arrays", "weight", "shape", value=[6, 3, 3, 4]),
        "tensor of a huge shape": _at("steps", 0, "arrays", "weight", "shape", value=[10**9, 10**9, 3, 3]),
        "tensor of another type": _at("steps", 0, "arrays", "weight", "dtype", value="int8"),
        "tensor of an unknown type": _at("steps", 0, "arrays", "weight", "dtype", value="object"),
        "shape of another size": _at("shapes", "x", value=["N", 3, 11, 11]),
        "shape huge": _at("shapes", "x", value=["N", 3, 10**9, 10**9]),
        "not signed": _unsigned,
        "tensors gone": removed("bundle.safetensors"),
        "manifest gone": removed("bundle.json"),
    }
    unsaid = ("shapes {}",)  # which a bundle need not say
    return [Fault(what, make, ("bundle.",), "either" if what in unsaid else "refused") for what, make in found.items()]


def _tensors() -> list[Fault]:
    """Safetensors that are spoilt and that the manifest signs."""
    found = []
    for fault in [*whole_files("bundle.safetensors")[:13], *spoilt("bundle.safetensors", 12, 5, "either")]:

        def make(folder: Path, spoil: Make = fault.make) -> None:
            spoil(folder)
            blob = (folder / "bundle.safetensors").read_bytes()
            told = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
            _at("tensors", value=told)(folder)

        found.append(Fault(f"signed {fault.name}", make, ("bundle.",), fault.may))
    return found


def _vectors() -> list[Fault]:
    def told(change: Callable[[dict[str, Any]], Any]) -> Make:
        def make(folder: Path) -> None:
            path = folder / "golden" / "golden.json"
            manifest = json.loads(path.read_text())
            change(manifest)
            path.write_text(json.dumps(manifest))

        return make

    def saved(array: Any) -> Make:
        return lambda folder: np.save(folder / "golden/001_r1.npy", array, allow_pickle=True)

    found: dict[str, Make] = {
        "no golden.json": removed("golden/golden.json"),
        "no files": removed("golden"),
        "an input gone": removed("golden/000_x.npy"),
        "a tensor gone": removed("golden/001_r1.npy"),
        "a tensor of another shape": saved(np.zeros((1, 6, 8, 9), np.uint8)),
        "a tensor of floats": saved(np.zeros((1, 6, 8, 8), np.float32)),
        "a tensor of objects": saved(np.array([{}, None], object)),
        "a tensor empty": saved(np.zeros((0, 6, 8, 8), np.uint8)),
        "version 9": told(lambda m: m.__setitem__("version", 9)),
        "no tensors": told(lambda m: m.__setitem__("tensors", {})),
        "tensors a list": told(lambda m: m.__setitem__("tensors", [1])),
        "file outside": told(lambda m: m["tensors"]["r1"].__setitem__("file", "../../../etc/passwd")),
        "file a number": told(lambda m: m["tensors"]["r1"].__setitem__("file", 3)),
        "file null": told(lambda m: m["tensors"]["r1"].__setitem__("file", "a\x00b")),
        "shape text": told(lambda m: m["tensors"]["r1"].__setitem__("shape", "x")),
        "sha256 other": told(lambda m: m["tensors"]["r1"].__setitem__("sha256", "0" * 64)),
        "fingerprint other": told(lambda m: m.__setitem__("fingerprint", "0" * 64)),
    }
    faults = [Fault(what, make, ("golden",)) for what, make in found.items()]
    whole = [Fault(f.name, f.make, ("golden.json",)) for f in whole_files("golden/golden.json")]
    unread = ("file outside", "file a number", "file null")  # files are found by their tensors' numbers
    return [f if f.name not in unread else Fault(f.name, f.make, f.names, "either") for f in faults] + whole


def cases(seed: int) -> list[Case]:
    """All."""
    bundles = (
        Reader("golden", ("golden", "bundle.json", "-o", "vectors", "--data", "arrays.npz"), ("vectors",)),
        Reader("evaluate", ("evaluate", "bundle.json", "--card", "net.toml"), ()),
        Reader("sizes", ("sizes", "bundle.json"), ()),
        Reader("integer", ("export", "bundle.json", "-o", "out.onnx", "--format", "integer"), ("out.onnx",)),
    )
    vectors = (Reader("board", ("compare-board", "bundle.json", "dump", "--golden", "golden"), (), ""),)
    copied = [Fault(f.name, both(_copied, f.make), f.names, f.may) for f in _vectors()]
    found = crossed("bundle", _bundles(), bundles, 1) + crossed("bundle", _tensors(), bundles, 1)
    found += crossed("file", whole_files("bundle.json"), bundles, 1)
    found += crossed("golden", copied, vectors)
    found += [Case("golden/nothing dumped/board", ("compare-board", "bundle.json", "gone"), names=("gone",))]
    found += [Case("golden/no golden/board", vectors[0].command, _dumped, ("golden",))]
    lite = (
        Reader("quantize", ("quantize", "lite.tflite", "-o", "out.onnx", *FAST), ("out.onnx",), "lite.tflite"),
        Reader("inspect", ("inspect", "lite.tflite"), (), "lite.tflite"),
        Reader("export", ("export", "lite.tflite", "-o", "new", *FAST), ("new.json", "new.safetensors"), "lite.tflite"),
    )
    found += crossed("tflite", whole_files("lite.tflite"), lite, 1)
    found += crossed("tflite", spoilt("lite.tflite", 90, seed + 2), lite, 1)
    read = (Reader("read", ("quantize", "int8.tflite", "-o", "out.onnx", *FAST), (), "int8.tflite"),)
    whole = [Fault("quantized already", lambda folder: None, ("int8.tflite",))]
    return found + crossed("tflite", whole, read)


def _copied(folder: Path) -> None:
    import shutil

    shutil.copytree(folder / "golden", folder / "dump")


def _dumped(folder: Path) -> None:
    (folder / "golden").rename(folder / "dump")
