"""Networks that cannot be, or that nobody expects: spoilt nodes, constants, inputs and names, over all commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .case import Case, Fault, Make, Reader, crossed

RANGED = ("--input-range", "0", "1")
FAST = (*RANGED, "--effort", "fast")
QUANTIZE = Reader("quantize", ("quantize", "net.onnx", "-o", "out.onnx", *FAST), ("out.onnx",), "net.onnx")
READERS = (
    QUANTIZE,
    Reader("inspect", ("inspect", "net.onnx"), (), "net.onnx"),
    Reader("explain", ("explain", "net.onnx", *RANGED), (), "net.onnx"),
    Reader("calibrate", ("calibrate", "net.onnx", "-o", "out.npz", "--data", "arrays.npz"), ("out.npz",), "net.onnx"),
    Reader("export", ("export", "net.onnx", "-o", "new", "--recipe", "lwq", *FAST), ("new.json", "new.safetensors")),
    Reader("tflite", ("quantize", "net.onnx", "-o", "out.tflite", *FAST), ("out.tflite",), "net.onnx"),
    Reader("sqnr", ("sqnr", "net.onnx", *RANGED), (), "net.onnx"),
    Reader("diagnose", ("diagnose", "net.onnx", *RANGED, "--recipe", "lwq"), (), "net.onnx"),
    Reader("golden", ("golden", "net.onnx", "-o", "vectors", *RANGED, "--recipe", "lwq"), ("vectors",), "net.onnx"),
    Reader("sizes", ("sizes", "net.onnx"), (), "net.onnx"),
    Reader("report", ("report", "net.onnx", "-o", "out.html", "--recipe", "lwq", *RANGED), ("out.html",), "net.onnx"),
    Reader("evaluate", ("evaluate", "net.onnx", "--card", "net.toml"), (), "net.onnx"),
    Reader("compare", ("compare", "net.onnx", "int8.onnx", "--data", "arrays.npz"), (), "net.onnx"),
    Reader("lint", ("lint", "net.onnx"), (), "net.onnx"),
    Reader(
        "data", ("quantize", "net.onnx", "-o", "out.onnx", "--data", "arrays.npz", "--effort", "fast"), ("out.onnx",)
    ),
    Reader("auto", ("auto", "net.onnx", "-o", "out.onnx"), ("out.onnx", "out.int8.html"), "net.onnx"),
    Reader("card", ("card", "net.onnx", "--data", "data.npz", "-o", "out.toml"), ("out.toml",), "net.onnx"),
)
STRICT = READERS[:11]
"""Those that read a network whole; the others leave some of it to onnxruntime."""


def edited(change: Callable[[ModelProto], Any], file: str = "net.onnx") -> Make:
    """Changes a network's file."""

    def make(folder: Path) -> None:
        proto = onnx.load(folder / file, load_external_data=False)
        change(proto)
        (folder / file).write_bytes(proto.SerializeToString())

    return make


def node(proto: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(n for n in proto.graph.node if n.name == name)
    return found


def attribute(where: str, key: str, value: Any) -> Make:
    """Gives a node an attribute in place of what it had."""

    def change(proto: ModelProto) -> None:
        at = node(proto, where)
        kept = [a for a in at.attribute if a.name != key]
        del at.attribute[:]
        at.attribute.extend([*kept, helper.make_attribute(key, value)])

    return edited(change)


def constant(name: str, value: Any) -> Make:
    """Gives a constant another value."""

    def change(proto: ModelProto) -> None:
        k = next(k for k, t in enumerate(proto.graph.initializer) if t.name == name)
        proto.graph.initializer[k].CopyFrom(numpy_helper.from_array(np.asarray(value), name))

    return edited(change)


def tensor(name: str, change: Callable[[TensorProto], Any]) -> Make:
    """Changes how a constant is stored."""
    return edited(lambda proto: change(next(t for t in proto.graph.initializer if t.name == name)))


def appended(nodes: Sequence[NodeProto], consts: Sequence[TensorProto] = (), rank: int = 2) -> Make:
    """Puts nodes behind the network; they read y and the last gives z."""

    def change(proto: ModelProto) -> None:
        proto.graph.node.extend(nodes)
        proto.graph.initializer.extend(consts)
        del proto.graph.output[:]
        proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * rank))

    return edited(change)


def fed(op: str, inputs: Sequence[Any], **attributes: Any) -> Make:
    """Puts one node behind the network: it reads y and constants."""
    consts = [numpy_helper.from_array(np.asarray(v), f"k{i}") for i, v in enumerate(inputs)]
    made = helper.make_node(op, ["y", *(c.name for c in consts)], ["z"], "last", **attributes)
    return appended([made], consts)


def _windows() -> list[Fault]:
    """Attributes of windows, each in the ways in which it can be wrong."""
    found = []
    values: dict[str, Any] = {
        "zero": [0, 0],
        "negative": [-1, -1],
        "short": [1],
        "long": [1, 1, 1, 1, 1, 1, 1],
        "huge": [10**9, 10**9],
        "endless": [2**62, 2**62],
        "empty": [],
        "float": [1.5, 1.5],
        "text": "two",
        "single": 3,
    }
    for where, keys in (("conv1", ("strides", "dilations", "kernel_shape")), ("pool2", ("strides", "kernel_shape"))):
        for key in keys:
            for what, value in values.items():
                if what == "empty":  # ONNX cannot tell an empty list from one that is not given, but for its type
                    continue
                told = (where,) if key == "kernel_shape" else (where, key)  # others no longer fit it
                found.append(Fault(f"{where} {key} {what}", attribute(where, key, value), told))
    four = {"negative": [-1] * 4, "short": [1, 1], "huge": [10**9] * 4, "endless": [2**61] * 4, "float": [0.5] * 4}
    found += [Fault(f"conv2 pads {w}", attribute("conv2", "pads", v), ("conv2", "pads")) for w, v in four.items()]
    for value in ("SIDEWAYS", "same_upper", "", "\x1b[31m"):
        found.append(Fault(f"auto_pad {value!r}", attribute("conv1", "auto_pad", value), ("conv1", "auto_pad")))
    for value in (0, -1, 4, 2**40):
        found.append(Fault(f"group {value}", attribute("conv2", "group", value), ("conv2",)))
    return found


def _operators() -> list[Fault]:
    """Nodes: kinds, inputs, outputs and attributes that there are not."""
    found = []
    for kind in ("", "Frobnicate", "conv", "Conv ", "\x1b[31mConv", "[bold]Conv[/]", "K" * 5000):
        found.append(Fault(f"operator {kind[:20]!r}", _kind(kind), ("conv1",)))

    def change(what: str, work: Callable[[ModelProto], Any], *names: str) -> None:
        found.append(Fault(what, edited(work), names))

    change("no inputs", lambda p: node(p, "conv1").ClearField("input"), "conv1")
    change("no outputs", lambda p: node(p, "conv1").ClearField("output"), "conv1")
    change("one input", lambda p: node(p, "conv1").input.pop(), "conv1")
    change("many inputs", lambda p: node(p, "conv1").input.extend(["w1"] * 9), "conv1")
    change("many outputs", lambda p: node(p, "relu1").output.extend(["q", "r"]), "relu1")
    change(
        "unknown attribute", lambda p: node(p, "relu1").attribute.append(helper.make_attribute("k", 1)), "relu1", "k"
    )
    change("reads nothing", lambda p: node(p, "conv2").input.__setitem__(0, "gone"), "conv2", "gone")
    change("reads itself", lambda p: node(p, "relu1").input.__setitem__(0, "r1"), "relu1")
    change("reads what comes later", lambda p: node(p, "conv2").input.__setitem__(0, "f"), "conv2")
    change("made twice", lambda p: node(p, "relu2").output.__setitem__(0, "r1"), "r1")
    change("made over the input", lambda p: node(p, "relu2").output.__setitem__(0, "x"), "x")
    change("made over a weight", lambda p: node(p, "relu2").output.__setitem__(0, "w1"), "w1")
    change("empty output", lambda p: node(p, "relu1").output.__setitem__(0, ""), "r1")
    change("empty input", lambda p: node(p, "relu1").input.__setitem__(0, ""), "relu1")
    change("Constant without value", lambda p: p.graph.node.append(helper.make_node("Constant", [], ["k"], "c")), "c")
    change("Constant without output", lambda p: p.graph.node.append(_constant([])), "c")
    change("Constant with two", lambda p: p.graph.node.append(_constant(["k", "l"])), "c")
    change("no nodes", lambda p: p.graph.ClearField("node"))
    change("no graph", lambda p: p.ClearField("graph"))
    for key, value in (("transB", 0), ("transA", 1), ("alpha", float("nan")), ("beta", float("inf")), ("alpha", "one")):
        found.append(Fault(f"gemm {key} {value}", attribute("gemm", key, value), ("gemm",)))
    norms: list[tuple[str, Any]] = [("epsilon", v) for v in (float("nan"), -1e9, float("inf"))]
    for key, odd in [*norms, ("momentum", [1, 2])]:
        found.append(Fault(f"norm1 {key} {odd}", attribute("norm1", key, odd), ("norm1",)))
    return found


def _kind(kind: str) -> Make:
    return edited(lambda proto: setattr(node(proto, "conv1"), "op_type", kind))


def _constant(outputs: Sequence[str]) -> NodeProto:
    return helper.make_node("Constant", [], outputs, "c", value_float=1.0)


def _constants() -> list[Fault]:
    """Weights and other constants that are damaged, of a wrong shape or type, or not finite."""
    rng = np.random.default_rng(0)
    bad = np.zeros((6, 3, 3, 3), np.float32)
    nan, infinite = bad.copy(), bad.copy()
    nan[0, 0, 0, 0], infinite[1] = np.nan, np.inf
    wrong: dict[str, tuple[str, Any, tuple[str, ...]]] = {
        "weights NaN": ("w1", nan, ("w1",)),
        "weights infinite": ("w1", infinite, ("w1",)),
        "weights of rank 3": ("w1", bad[0], ("conv1",)),
        "weights of rank 0": ("w1", np.float32(1), ("conv1",)),
        "weights of another channel count": ("w1", bad[:, :2], ("conv1",)),
        "weights without outputs": ("w1", bad[:0], ("conv1",)),
        "weights without inputs": ("w1", bad[:, :0], ("conv1",)),
        "weights without taps": ("w1", bad[..., :0], ("conv1",)),
        "weights double": ("w1", bad.astype(np.float64), ("conv1",)),
        "weights half": ("w1", bad.astype(np.float16), ("conv1",)),
        "weights int64": ("w1", bad.astype(np.int64), ("conv1",)),
        "weights bool": ("w1", bad.astype(bool), ("conv1",)),
        "weights text": ("w1", np.full((6, 3, 3, 3), "one"), ("conv1",)),
        "BatchNorm scale short": ("g1", np.ones(5, np.float32), ("norm1",)),
        "BatchNorm scale of rank 2": ("g1", np.ones((6, 1), np.float32), ("norm1",)),
        "BatchNorm bias long": ("b1", np.ones(7, np.float32), ("norm1",)),
        "BatchNorm mean empty": ("m1", np.ones(0, np.float32), ("norm1",)),
        "BatchNorm variance negative": ("v1", -np.ones(6, np.float32), ("norm1",)),
        "BatchNorm variance NaN": ("v1", np.full(6, np.nan, np.float32), ("v1",)),
        "BatchNorm mean infinite": ("m1", np.full(6, -np.inf, np.float32), ("m1",)),
        "BatchNorm mean int": ("m1", np.zeros(6, np.int32), ("norm1",)),
        "classifier of another size": ("w3", rng.normal(size=(4, 95)).astype(np.float32), ("gemm",)),
        "classifier bias long": ("b3", np.ones(5, np.float32), ("gemm",)),
        "classifier weights of rank 3": ("w3", np.ones((4, 96, 1), np.float32), ("gemm",)),
    }
    found = [Fault(what, constant(n, value), names) for what, (n, value, names) in wrong.items()]
    stored: dict[str, Callable[[TensorProto], Any]] = {
        "type 99": lambda t: setattr(t, "data_type", 99),
        "type 0": lambda t: setattr(t, "data_type", 0),
        "bytes short": lambda t: setattr(t, "raw_data", t.raw_data[:-3]),
        "bytes long": lambda t: setattr(t, "raw_data", t.raw_data + b"1234"),
        "no bytes": lambda t: t.ClearField("raw_data"),
        "dims negative": lambda t: t.dims.__setitem__(0, -6),
        "dims huge": lambda t: t.dims.__setitem__(0, 10**15),
        "dims overflow": lambda t: t.dims.extend([2**62, 2**62]),
        "floats and bytes": lambda t: t.float_data.extend([1.0] * 7),
        "no name": lambda t: t.ClearField("name"),
        "renamed": lambda t: setattr(t, "name", "other"),
    }
    renamed = ("no name", "renamed")
    odd = ("floats and bytes",)  # of which ONNX reads the bytes
    for what, change in stored.items():
        may: Any = "either" if what in odd else "refused"
        found.append(Fault(f"stored {what}", tensor("w1", change), ("conv1" if what in renamed else "w1",), may))
    twice = edited(lambda p: p.graph.initializer.append(numpy_helper.from_array(bad * 2 + 1, "w1")))
    return [*found, Fault("constant twice", twice, ("w1",))]


def _ends() -> list[Fault]:
    """Inputs, outputs, operator sets and versions."""
    found: list[Fault] = []

    def change(what: str, work: Callable[[ModelProto], Any], *names: str, may: Any = "refused") -> None:
        found.append(Fault(what, edited(work), names, may))

    def shaped(*sizes: Any, kind: int = TensorProto.FLOAT) -> Callable[[ModelProto], Any]:
        return lambda p: p.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, sizes))

    change("no input", lambda p: p.graph.ClearField("input"))
    change("no output", lambda p: p.graph.ClearField("output"))
    change("input twice", lambda p: p.graph.input.append(p.graph.input[0]), "x")
    change("output twice", lambda p: p.graph.output.append(p.graph.output[0]), "y", may="either")
    change("output that nothing makes", lambda p: setattr(p.graph.output[0], "name", "gone"), "gone")
    change("output without name", lambda p: setattr(p.graph.output[0], "name", ""))
    change("input without name", lambda p: setattr(p.graph.input[0], "name", ""))
    change("input without shape", lambda p: p.graph.input[0].type.tensor_type.ClearField("shape"), "x")
    change("input without type", lambda p: p.graph.input[0].ClearField("type"), "x")
    change("input of rank 0", shaped(), "x")
    change("input of rank 3", shaped(3, 8, 8), "x")
    change("input of rank 5", shaped("N", 3, 8, 8, 8), "x")
    change("input of 5 channels", shaped("N", 5, 8, 8), "x")
    # 0 and less stand for a size that is free with some exporters
    change("input of 0 channels", shaped("N", 0, 8, 8), may="either")
    change("input of size 0", shaped("N", 3, 0, 8), may="either")
    change("input of negative size", shaped("N", 3, -8, 8), may="either")
    change("input of huge size", shaped("N", 3, 10**9, 10**9), "x")
    change("input of another size", shaped("N", 3, 9, 12), "gemm")
    change("input of batch 0", shaped(0, 3, 8, 8), may="either")
    change("input of huge batch", shaped(10**9, 3, 8, 8), "x")
    change("input of texts", shaped("N", 3, 8, 8, kind=TensorProto.STRING), "x")
    change("input of truths", shaped("N", 3, 8, 8, kind=TensorProto.BOOL), "x")
    change("input of doubles", shaped("N", 3, 8, 8, kind=TensorProto.DOUBLE), "x")
    change("input of type 77", lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 77), "x")
    for version in (999, 0, -3, 6, 2**40):
        found.append(Fault(f"opset {version}", _versioned(version, opset=True), ("opset",)))
    change("no opset", lambda p: p.ClearField("opset_import"))
    change("opset twice", lambda p: p.opset_import.append(helper.make_opsetid("", 11)), may="either")
    for version in (0, 999, 2**40):
        found.append(Fault(f"ir version {version}", _versioned(version, opset=False), (), "either"))
    return found


def _versioned(version: int, opset: bool) -> Make:
    def change(proto: ModelProto) -> None:
        if opset:
            proto.opset_import[0].version = version
        else:
            proto.ir_version = version

    return edited(change)


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


def _behind() -> list[Fault]:
    """Operators behind the network whose constants say what cannot be, or ask for more memory than there is."""
    ints: Any = _ints
    huge = [
        helper.make_node("ConstantOfShape", ["k0"], ["k1"], "bomb"),
        helper.make_node("Add", ["y", "k1"], ["z"], "last"),
    ]
    nodes = {
        "Gather out of range": fed("Gather", [ints(99)], axis=1),
        "Gather of axis 9": fed("Gather", [ints(0)], axis=9),
        "Reshape to another size": fed("Reshape", [ints(-1, 7)]),
        "Reshape to huge": fed("Reshape", [ints(10**9, 10**9)]),
        "Reshape with two -1": fed("Reshape", [ints(-1, -1)]),
        "Reshape to -5": fed("Reshape", [ints(-5, 4)]),
        "Transpose of axes twice": fed("Transpose", [], perm=[0, 0]),
        "Transpose of too many axes": fed("Transpose", [], perm=[0, 1, 2, 3]),
        "Softmax of axis 9": fed("Softmax", [], axis=9),
        "Concat of axis 9": fed("Concat", [np.ones((1, 4), np.float32)], axis=9),
        "Concat of other shapes": fed("Concat", [np.ones((1, 4, 2), np.float32)], axis=1),
        "Squeeze of size 4": fed("Squeeze", [ints(1)]),
        "Unsqueeze of axis 9": fed("Unsqueeze", [ints(9)]),
        "Slice by steps of 0": fed("Slice", [ints(0), ints(2), ints(1), ints(0)]),
        "Slice of axis 9": fed("Slice", [ints(0), ints(2), ints(9)]),
        "Pad below nothing": fed("Pad", [ints(0, -9, 0, -9)]),
        "Pad by huge": fed("Pad", [ints(0, 10**10, 0, 10**10)]),
        "Pad of wrong length": fed("Pad", [ints(1, 1, 1)]),
        "Tile by huge": fed("Tile", [ints(1, 10**11)]),
        "Expand to huge": fed("Expand", [ints(10**6, 10**6, 4)]),
        "Split into 3 of 4": appended(
            [
                helper.make_node("Split", ["y", "k0"], ["a", "b"], "last", axis=1),
                helper.make_node("Add", ["a", "b"], ["z"], "sum"),
            ],
            [numpy_helper.from_array(ints(3, 3), "k0")],
        ),
        "MatMul of other sizes": fed("MatMul", [np.ones((5, 5), np.float32)]),
        "Add of other sizes": fed("Add", [np.ones((1, 3), np.float32)]),
        "Add of integers": fed("Add", [np.ones((1, 4), np.int64)]),
        "ConstantOfShape of 10^12": appended(huge, [numpy_helper.from_array(ints(10**6, 10**6), "k0")]),
        "ConstantOfShape of 8 GB": appended(huge, [numpy_helper.from_array(ints(2 * 10**9, 1), "k0")]),
        "Resize by huge": fed("Resize", [np.array([], np.float32), np.array([1, 10**9], np.float32)]),
        "Clip from 3 to 1": fed("Clip", [np.float32(3), np.float32(1)]),
        "Cast to type 99": fed("Cast", [], to=99),
        "ReduceMean of axis 9": fed("ReduceMean", [], axes=[9]),
        "ArgMax of axis 9": fed("ArgMax", [], axis=9),
        "OneHot of huge depth": fed("OneHot", [ints(10**12), np.array([0, 1], np.float32)]),
        "TopK of 99": fed("TopK", [ints(99)]),
        "Einsum of nonsense": fed("Einsum", [], equation="ab->[ab"),
        "PRelu of other sizes": fed("PRelu", [np.ones(7, np.float32)]),
        "Range without end": appended(
            [
                helper.make_node("Range", ["k0", "k1", "k2"], ["r"], "range"),
                helper.make_node("Add", ["y", "r"], ["z"], "last"),
            ],
            [numpy_helper.from_array(np.asarray(v, np.float32), f"k{i}") for i, v in enumerate((0, 1e12, 1))],
        ),
    }
    odd = ("Clip from 3 to 1",)
    return [Fault(k, make, (), "either" if k in odd else "refused") for k, make in nodes.items()]


def cases() -> list[Case]:
    """All."""
    found = crossed("network", _windows(), STRICT, 2)
    found += crossed("network", _operators(), STRICT, 3, 1)
    found += crossed("network", _constants(), STRICT, 2, 2)
    found += crossed("network", _ends(), STRICT, 3, 3)
    found += crossed("network", _behind(), STRICT, 2, 4)
    loose = [*_windows()[::4], *_operators()[::3], *_constants()[::3], *_ends()[::3], *_behind()[::4]]
    loosely = [Fault(f.name, f.make, (), "either") for f in loose]  # onnxruntime may take what it is
    return found + crossed("network", loosely, READERS[11:], 1)
