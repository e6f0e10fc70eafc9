"""Networks of hostile structure: names that terminals act on, functions in functions, chains, weights elsewhere."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .case import Case, Fault, Make, Reader, both, crossed, removed, written
from .networks import FAST, QUANTIZE, RANGED, READERS, STRICT, appended, edited

NAMES = {
    "escape": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "line end": "one\ntwo",
    "return": "one\rtwo",
    "bell": "\x07",
    "null": "a\x00b",
    "markup": "conv0[int8]",
    "closing markup": "x[/b]",
    "link markup": "[link=http://a.b]x[/link]",
    "right to left": "\u202egnp.exe",
    "c1 control": "\x9b31m",
    "emoji": "🦊" * 8,
    "wide": "ネットワーク",
    "surrogates": "\ud7ff\ufffd",
    "long": "n" * 70_000,
    "blank": " ",
    "dots": "../../../etc/passwd",
    "slash": "/",
    "percent": "%s%n{0}{name}",
    "quotes": "'\"`;$(reboot)",
}


def renamed(old: str, new: str) -> Callable[[ModelProto], None]:
    """Every node, tensor, input and output of this name is called otherwise."""

    def change(proto: ModelProto) -> None:
        for each in proto.graph.node:
            each.name = new if each.name == old else each.name
            for names in (each.input, each.output):
                for k, name in enumerate(names):
                    names[k] = new if name == old else name
        for values in (proto.graph.initializer, proto.graph.input, proto.graph.output):
            for value in values:
                value.name = new if value.name == old else value.name

    return change


def _names() -> list[Case]:
    """Odd names are no mistake: commands do their work, and what they print does no harm."""
    found: list[Case] = []
    for what, name in NAMES.items():
        for old in ("conv1", "r1", "w2", "x", "y"):
            data = _renamed_data if old == "x" else lambda folder: None
            change = both(edited(renamed(old, name)), data)
            faults = [Fault(f"{old} called {what}", change, (), "either")]
            found += crossed("name", faults, READERS[:11], 1, len(found))
            if what in ("escape", "line end", "c1 control", "closing markup", "long", "return"):
                spoilt = both(change, edited(_strides_0))
                found += crossed("name", [Fault(f"{old} called {what}, strides 0", spoilt)], STRICT, 1, len(found))
    for code in (b"conv1", b"w2", b"r1"):
        faults = [Fault(f"{code.decode()} not UTF-8", _bytes(code, b"\xff\xfe" + code[2:]))]
        found += crossed("name", faults, STRICT, 3, len(found))
    twice = edited(_all_the_same)
    none = edited(lambda p: [n.ClearField("name") for n in p.graph.node])
    odd = [Fault("all called the same", twice, (), "either"), Fault("all without a name", none, (), "accepted")]
    return found + crossed("name", odd, READERS[:11])


def _strides_0(proto: ModelProto) -> None:
    at = next(n for n in proto.graph.node if n.op_type == "MaxPool")
    next(a for a in at.attribute if a.name == "strides").ints[0] = 0


def _all_the_same(proto: ModelProto) -> None:
    for each in proto.graph.node:
        each.name = "same"


def _renamed_data(folder: Path) -> None:
    """Samples without labels: they are called x, whatever the input is called."""
    with np.load(folder / "arrays.npz") as arrays:
        samples = arrays["x"]
    np.savez(folder / "arrays.npz", x=samples)


def _bytes(old: bytes, new: bytes) -> Make:
    def make(folder: Path) -> None:
        path = folder / "net.onnx"
        path.write_bytes(path.read_bytes().replace(old, new))

    return make


def _functions() -> list[Fault]:
    def function(name: str, *calls: str, inner: str = "Relu") -> Any:
        """A function that calls others one after the other."""
        nodes, at = [], "a"
        for k, call in enumerate(calls):
            nodes.append(helper.make_node(call, [at], [f"t{k}"], f"{name}_{k}", domain="own"))
            at = f"t{k}"
        nodes.append(helper.make_node(inner, [at], ["b"], f"{name}_inner"))
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        return helper.make_function("own", name, ["a"], ["b"], nodes, sets)

    def using(*functions: Any, call: str) -> Make:
        def change(proto: ModelProto) -> None:
            proto.functions.extend(functions)
            proto.opset_import.append(helper.make_opsetid("own", 1))
            proto.graph.node.append(helper.make_node(call, ["y"], ["z"], "called", domain="own"))
            proto.graph.output[0].name = "z"

        return edited(change)

    doubling = [function("f0"), *(function(f"f{k}", f"f{k - 1}", f"f{k - 1}") for k in range(1, 27))]
    deep = [function("g0"), *(function(f"g{k}", f"g{k - 1}") for k in range(1, 1200))]
    return [
        Fault("function that calls itself", using(function("f", "f"), call="f"), ("f",)),
        Fault("functions that call each other", using(function("f", "g"), function("g", "f"), call="f")),
        Fault("functions doubling 26 deep", using(*doubling, call="f26"), ("function",)),
        Fault("functions 1,200 deep", using(*deep, call="g1199"), (), "either"),
        Fault("function that is not there", using(function("f", "h"), call="f"), (), "either"),  # of someone else
        Fault("function of a bad operator", using(function("f", inner="Frobnicate"), call="f"), ("Frobnicate",)),
        Fault("function defined twice", using(function("f"), function("f", inner="Tanh"), call="f"), (), "either"),
    ]


def chain(op: str, count: int, **attributes: Any) -> Make:
    """So many nodes one behind the other."""
    nodes, at = [], "y"
    for k in range(count):
        out = "z" if k == count - 1 else f"q{k}"
        nodes.append(helper.make_node(op, [at], [out], f"link{k}", **attributes))
        at = out
    return appended(nodes)


def _added(count: int, doubled: bool = False) -> Make:
    nodes, at = [], "y"
    for k in range(count):
        out = "z" if k == count - 1 else f"q{k}"
        nodes.append(helper.make_node("Add", [at, at if doubled else "k"], [out], f"sum{k}"))
        at = out
    return appended(nodes, [numpy_helper.from_array(np.full(4, 1e-6, np.float32), "k")])


def _nested(depth: int) -> Make:
    """If in If in If."""

    def body(level: int) -> Any:
        out = helper.make_tensor_value_info(f"o{level}", TensorProto.FLOAT, None)
        if level == depth:
            return helper.make_graph([helper.make_node("Identity", ["y"], [f"o{level}"])], f"b{level}", [], [out])
        inner = body(level + 1)
        made = helper.make_node("If", ["k"], [f"o{level}"], f"if{level}", then_branch=inner, else_branch=inner)
        return helper.make_graph([made], f"b{level}", [], [out])

    def make(folder: Path) -> None:
        branch = body(1)
        last = helper.make_node("If", ["k"], ["z"], "last", then_branch=branch, else_branch=branch)
        appended([last], [numpy_helper.from_array(np.array(True), "k")])(folder)

    return make


def _chains() -> list[Case]:
    faults = [
        Fault("5,000 Relus", chain("Relu", 5000), (), "either"),
        Fault("5,000 Identities", chain("Identity", 5000), (), "either"),
        Fault("5,000 Sigmoids", chain("Sigmoid", 5000), (), "either"),
        Fault("5,000 sums", _added(5000), (), "either"),
        Fault("120 doublings", _added(120, doubled=True), (), "either"),
        Fault("5,000 Flattens", chain("Flatten", 5000), (), "either"),
        Fault("If 12 deep", _nested(12), (), "either"),
        Fault("5,000 outputs", edited(lambda p: p.graph.output.extend([p.graph.output[0]] * 5000)), (), "either"),
    ]
    plain = ("quantize", "net.onnx", "-o", "out.onnx", "--recipe", "lwq", *RANGED)
    quick = (Reader("quantize", plain, ("out.onnx",)), STRICT[1], STRICT[4], STRICT[9])
    return crossed("chain", faults, quick, 2)


def _elsewhere() -> list[Fault]:
    """External data that are not there, not theirs, or have no end."""

    def told(**fields: str) -> Make:
        def change(proto: ModelProto) -> None:
            for entry in proto.graph.initializer[0].external_data:
                entry.value = fields.get(entry.key, entry.value)
            for key in fields.keys() - {e.key for e in proto.graph.initializer[0].external_data}:
                proto.graph.initializer[0].external_data.add(key=key, value=fields[key])

        return edited(change, "ext.onnx")

    faults = {
        "gone": removed("ext.bin"),
        "empty": written("ext.bin", b""),
        "cut off": written("ext.bin", b"1234" * 40),
        "a folder": both(removed("ext.bin"), lambda folder: (folder / "ext.bin").mkdir()),
        "a pipe": both(removed("ext.bin"), lambda folder: os.mkfifo(folder / "ext.bin")),
        "a link without end": both(removed("ext.bin"), linked("/dev/zero", "ext.bin")),
        "a link to itself": both(removed("ext.bin"), linked("ext.bin", "ext.bin")),
        "outside": told(location="../../../../etc/passwd"),
        "absolute": told(location="/etc/passwd"),
        "nowhere": told(location=""),
        "null": told(location="a\x00b"),
        "escape": told(location="\x1b[31m.bin"),
        "before its beginning": told(offset="-8"),
        "behind its end": told(offset="999999999"),
        "at no number": told(offset="eight"),
        "of huge length": told(length=str(10**15)),
        "of negative length": told(length="-4"),
        "of short length": told(length="3"),
    }
    return [Fault(f"weights {what}", make) for what, make in faults.items()]


def linked(target: str, file: str) -> Make:
    """A symbolic link."""
    return lambda folder: os.symlink(target, folder / file)


def whole_files(file: str) -> list[Fault]:
    """What can lie under any name in the place of what it should be."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "hello")
    contents: dict[str, bytes] = {
        "empty": b"",
        "one byte": b"\x00",
        "text": b"hello, this is no network\n",
        "JSON": b'{"a": 1}',
        "nested JSON": b"[" * 100_000,
        "zip": packed.getvalue(),
        "PNG head": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        "gzip head": b"\x1f\x8b\x08\x00",
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        "zeros": b"\x00" * 100_000,
        "ones": b"\xff" * 100_000,
        "noise": np.random.default_rng(1).bytes(50_000),
        "UTF-16": "hello".encode("utf-16"),
    }
    found = [Fault(f"{file} is {what}", written(file, content), (file,)) for what, content in contents.items()]
    gone = removed(file)
    places: dict[str, Make] = {
        "gone": gone,
        "a folder": both(gone, lambda folder: (folder / file).mkdir()),
        "a pipe": both(gone, lambda folder: os.mkfifo(folder / file)),
        "endless": both(gone, linked("/dev/zero", file)),
        "a link to itself": both(gone, linked(Path(file).name, file)),
        "a link to nothing": both(gone, linked("nothing", file)),
        "a terminal": both(gone, linked("/dev/tty", file)),
        "3 GB of zeros": lambda folder: os.truncate(folder / file, 3 * 10**9),
    }
    return found + [Fault(f"{file} is {what}", make, (file,)) for what, make in places.items()]


def spoilt(file: str, count: int, seed: int, may: Any = "either") -> list[Fault]:
    """A file cut off, and with bytes changed, at places drawn by a seed."""
    found = []
    for k in range(count):

        def make(folder: Path, k: int = k) -> None:
            path, rng = folder / file, np.random.default_rng((seed, k))
            content = bytearray(path.read_bytes())
            if k % 3 == 0:
                content = content[: int(rng.integers(1, len(content)))]
            else:
                for at in rng.integers(0, len(content), 1 if k % 3 == 1 else 9):
                    content[at] = int(rng.integers(256))
            path.write_bytes(bytes(content))

        found.append(Fault(f"{file} spoilt {k}", make, (file,), may))
    return found


def cases(seed: int) -> list[Case]:
    """All."""
    found = _names() + crossed("function", _functions(), STRICT, 3) + _chains()
    outside = (
        Reader("quantize", ("quantize", "ext.onnx", "-o", "out.onnx", *FAST), ("out.onnx",), "ext.onnx"),
        Reader("inspect", ("inspect", "ext.onnx"), (), "ext.onnx"),
        Reader("sizes", ("sizes", "ext.onnx"), (), "ext.onnx"),
        Reader("evaluate", ("evaluate", "ext.onnx", "--card", "net.toml"), (), "ext.onnx"),
    )
    found += crossed("weights", _elsewhere(), outside, 2)
    found += crossed("file", whole_files("net.onnx"), READERS, 4)
    found += crossed("bytes", spoilt("net.onnx", 60, seed), (QUANTIZE,))
    again = Reader("lint", ("lint", "int8.onnx"), (), "int8.onnx")
    compared = Reader("compare", ("compare", "net.onnx", "int8.onnx", "--data", "arrays.npz"), (), "int8.onnx")
    evaluated = ("evaluate", "int8.onnx", "--card", "net.toml", "--against", "net.onnx")
    quantized = (again, compared, Reader("evaluate", evaluated, (), "int8.onnx"))
    found += crossed("file", whole_files("int8.onnx"), quantized, 2)
    return found + crossed("bytes", spoilt("int8.onnx", 24, seed + 1), quantized, 1)
