"""Cases without end, each by its number: networks grown at random, and cards, bundles and statistics bent at random."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from equint.ir.model import Array

from .case import Case
from .figures import as_stated
from .grown import network

COUNT = 64
"""Samples that a network is quantized with, and fresh ones that it is measured on."""
RECIPES = ("", "", "lwq", "cwq", "cwq-bc", "dfq", "optimal")
TARGETS = ("", "", "per-tensor-symmetric", "per-tensor", "openvino", "tensorrt", "qnn", "per-tensor-clip")
Rng = np.random.Generator


def fuzzed(seed: int, count: int = 1 << 62) -> Iterator[Case]:
    """So many cases; the k-th of a seed is always the same."""
    kinds: tuple[Callable[[Rng, str], Case], ...] = (*[_network] * 7, _card, _bundle, _statistics)
    for k in range(count):
        yield kinds[k % len(kinds)](np.random.default_rng((seed, k)), f"{seed}-{k}")


def _network(rng: Rng, number: str) -> Case:
    command = ["quantize", "grown.onnx", "-o", "out.onnx", "--json"]
    for option, names in (("--recipe", RECIPES), ("--target", TARGETS)):
        command += [option, name] if (name := names[rng.integers(len(names))]) else []
    fast = bool(rng.random() < 0.3)
    command += ["--effort", "fast"] if fast else []
    command += ["--force"] if rng.random() < 0.7 else []
    centre, spread, way = float(rng.normal(0, 0.5)), float(10 ** rng.uniform(-1, 1)), int(rng.integers(4))
    proto = network(rng, int(rng.integers(1, 16)))
    if way == 0 and len(proto.graph.input) == 1:
        command += ["--input-range", str(centre - 3 * spread), str(centre + 3 * spread)]
    elif way:
        command += ["--data", "given.npz"]

    def make(folder: Path) -> None:
        onnx.save(proto, folder / "grown.onnx")
        sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim[1:]] for i in proto.graph.input}
        for name in ("given", "fresh"):
            drawn = {n: _drawn(rng, [COUNT, *shape], centre, spread) for n, shape in sizes.items()}
            np.savez(folder / f"{name}.npz", **(drawn if name == "fresh" or len(drawn) > 1 else {"x": drawn["in0"]}))

    check = partial(as_stated, judged=fast and "--data" in command)
    return Case(f"fuzz network/{number}", command, make, may="either", writes=("out.onnx",), verify=check)


def _drawn(rng: Rng, shape: list[int], centre: float, spread: float) -> Array:
    return np.clip(rng.normal(centre, spread, shape), centre - 3 * spread, centre + 3 * spread).astype(np.float32)


def _card(rng: Rng, number: str) -> Case:
    def make(folder: Path) -> None:
        table = bent(rng, tomllib.loads((folder / "net.toml").read_text()))
        (folder / "net.toml").write_text(_toml(table), "utf-8", "surrogatepass")

    command = ("quantize", "net.onnx", "--card", "net.toml", "--images", "8", "--effort", "fast", "-o", "out.onnx")
    return Case(f"fuzz card/{number}", command, make, may="either", writes=("out.onnx",), verify=_runs)


def _bundle(rng: Rng, number: str) -> Case:
    def make(folder: Path) -> None:
        if rng.random() < 0.7:
            table = bent(rng, json.loads((folder / "bundle.json").read_text()))
            (folder / "bundle.json").write_text(json.dumps(table))
        else:
            _turned(rng, folder / "bundle.safetensors")

    command = ("export", "bundle.json", "--format", "integer", "-o", "out.onnx")
    return Case(f"fuzz bundle/{number}", command, make, may="either", writes=("out.onnx",), verify=_loads)


def _statistics(rng: Rng, number: str) -> Case:
    def make(folder: Path) -> None:
        with np.load(folder / "stats.npz", allow_pickle=False) as file:
            arrays = dict(file)
        name = list(arrays)[rng.integers(len(arrays))]
        if name == "header":
            table = bent(rng, json.loads(arrays[name].tobytes()))
            arrays[name] = np.frombuffer(json.dumps(table).encode(), np.uint8)
        else:
            arrays[name] = _bent_array(rng, arrays[name])
        np.savez(folder / "stats.npz", **arrays)

    command = ("quantize", "net.onnx", "--data", "stats.npz", "--effort", "fast", "-o", "out.onnx")
    return Case(f"fuzz statistics/{number}", command, make, may="either", writes=("out.onnx",), verify=_runs)


def _runs(folder: Path, out: str) -> None:
    from .verified import _runs as runs

    runs(folder / "out.onnx", folder / "net.onnx", near=False)


def _loads(folder: Path, out: str) -> None:
    onnx.checker.check_model(folder / "out.onnx")


ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63 - 1, -(2**63), 0.5, -0.0, 1e300, -1e300, 1e-320, float("inf"), float("nan"), True, False),
    *("", "x", "\x1b[31m", "../x", "ä" * 50, "0", [], {}, [[]], [0] * 500, ["x"], {"x": 1}, [1e300, -1e300]),
)


def bent(rng: Rng, tree: Any) -> Any:
    """Tables and lists with one to three things of them replaced, left out, doubled, or in another's place."""
    for _ in range(rng.integers(1, 4)):
        at = list(_places(tree))
        if not at:
            return tree
        (holder, key), (other, place) = at[rng.integers(len(at))], at[rng.integers(len(at))]
        way = rng.integers(5)
        if way == 0:
            del holder[key]
        elif way == 1:
            holder[key] = deepcopy(other[place])
        elif way == 2 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * (2, -1, 10, 0.5, 1e6)[rng.integers(5)]
        elif way == 3 and isinstance(holder[key], str):
            holder[key] = holder[key][: len(holder[key]) // 2] + "q"
        else:
            holder[key] = deepcopy(ODD[rng.integers(len(ODD))])
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _bent_array(rng: Rng, array: Array) -> Array:
    way = rng.integers(6)
    if way == 0 or not array.size:
        return array[:-1] if array.ndim else array.reshape(1)
    if way == 1:
        return array.astype(("float32", "int8", "complex64", "U8")[rng.integers(4)])
    if way == 2:
        return array.reshape(1, *array.shape)
    found = array.copy()
    odd = (0, -1, 1e30, -1e30, np.inf, np.nan) if found.dtype.kind == "f" else (0, -1, 2**62, -(2**62))
    with np.errstate(all="ignore"):
        found.reshape(-1)[rng.integers(found.size)] = np.asarray(odd[rng.integers(len(odd))]).astype(found.dtype)
    return found


def _turned(rng: Rng, path: Path) -> None:
    """Some bytes of a file are others."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 5)):
        content[rng.integers(len(content))] = rng.integers(256)
    path.write_bytes(content)


def _toml(table: Any) -> str:
    """TOML of tables, as far as it has values of such kinds."""
    return "\n".join(f"{_key(key)} = {_value(value)}" for key, value in table.items()) + "\n"


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("\\u001b", "\\u001B")
