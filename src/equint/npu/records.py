"""An integer network as records of a manifest and packed tensors, and back."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import EquintError, UnreadableModel
from ..integers.accumulators import stored_zero_point
from ..integers.program import Program, Requantize, Step
from ..integers.steps import SMALL, STEPS, Field
from ..ir.model import Array, Graph, Node, QParams, frozen
from .sparse import Sparse, pack, pack_bits, unpack, unpack_bits, weight_bits

AGAIN = "write the bundle again"
DTYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "bool"),
)
"""Types that a bundle may hold."""
_REQUANTIZE = {"mantissa": ("uint32",), "exponent": ("int8",), "low": SMALL, "high": SMALL}
"""Types in which the arrays of a requantization are stored, where one of them holds it; others keep theirs."""
_BELOW = {"mantissa_below": ("uint32",), "exponent_below": ("int8",)}
"""The same of those that only some have."""
_FORMAT = ("rounding", "mantissa_bits", "exponent_bits", "shift_bits")
Record = dict[str, Any]


def encode(program: Program, sparse: Literal["auto"] | bool) -> tuple[Record, dict[str, Array]]:
    """What a manifest says of the program, and the tensors by name."""
    writer = _Writer(program.shift_bits, weight_bits(program), sparse)
    formats = {key: getattr(program, key) for key in _FORMAT}
    target = {"name": program.target, **formats, "weight_bits": writer.bits}
    described: Record = {
        "name": program.name,
        "target": target,
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "grids": {name: writer.grid(k, name, q) for k, (name, q) in enumerate(program.grids.items())},
        "shapes": {n: [d if d is None or isinstance(d, str) else int(d) for d in s] for n, s in program.shapes.items()},
        "consts": {name: writer.array(a, f"consts.{k}", name) for k, (name, a) in enumerate(program.consts.items())},
        "steps": [writer.step(k, step) for k, step in enumerate(program.steps)],
    }
    if program.joins is not None:
        described["joins"] = writer.joins(program.joins)
    return described, writer.tensors


class _Writer:
    def __init__(self, shift_bits: int, bits: int, sparse: Literal["auto"] | bool) -> None:
        self.shift_bits, self.bits, self.sparse = shift_bits, bits, sparse
        self.tensors: dict[str, Array] = {}

    def step(self, k: int, step: Step) -> Record:
        at, name = f"steps.{k}", step.label
        arrays = {}
        for role, array in step.arrays.items():
            field, where = _field(step, role), f"{at}.{role}"
            if field.packed:
                arrays[role] = self.weight(step, where, field.stored)
            else:
                arrays[role] = self.array(array, where, f"{name}: {role}", field.stored)
        return {
            "op": step.op,
            "name": step.name,
            "inputs": list(step.inputs),
            "outputs": list(step.outputs),
            "attrs": {key: _plain(value, f"{name}: attribute {key}") for key, value in step.attrs.items()},
            "arrays": arrays,
            "requantize": step.requantize and self.requantize(step.requantize, f"{at}.requantize", name),
        }

    def joins(self, part: Graph) -> Record:
        """Float operators of ONNX behind the program."""
        nodes = [
            {
                "op": node.op,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "attrs": {key: _plain(value, f"{node.label}: attribute {key}") for key, value in node.attrs.items()},
            }
            for node in part.nodes
        ]
        consts = {n: self.array(a, f"joins.{k}", n) for k, (n, a) in enumerate(part.consts.items())}
        ends = {"inputs": list(part.inputs), "outputs": list(part.outputs), "opset": part.opset}
        return {**ends, "consts": consts, "nodes": nodes}

    def requantize(self, r: Requantize, at: str, name: str) -> Record:
        records: Record = {
            key: self.array(getattr(r, key), f"{at}.{key}", name, types)
            for key, types in {**_REQUANTIZE, **_BELOW}.items()
            if getattr(r, key) is not None
        }
        shift = np.asarray(r.shift)
        least, most = int(shift.min(initial=0)), int(shift.max(initial=0))
        if least < 0 or most >= 1 << self.shift_bits:
            raise UnreadableModel(f"{name}: shifts from {least} to {most} do not fit into {self.shift_bits} bits")
        packed = shift.ndim and self.shift_bits
        at = f"{at}.shift"
        records["shift"] = self.packed(shift, self.shift_bits, at) if packed else self.array(shift, at, name, ("int8",))
        return {**records, "zero_point": int(r.zero_point)}

    def grid(self, k: int, name: str, q: QParams) -> Record:
        at = f"grids.{k}"
        return {
            "scale": self.array(q.scale, f"{at}.scale", name),
            "zero_point": self.array(q.zero_point, f"{at}.zero_point", name),
            "bits": int(q.bits),
            "signed": bool(q.signed),
            "axis": None if q.axis is None else int(q.axis),
            "shift": None if q.shift is None else self.array(q.shift, f"{at}.shift", name),
            "narrow": bool(q.narrow),
        }

    def array(self, array: Array, at: str, where: str, types: Sequence[str] = ()) -> Record:
        """A number as it is; other arrays in the first of the types that holds them, or else their own."""
        array = np.asarray(array)
        record: Record = {"dtype": str(array.dtype), "shape": list(array.shape)}
        if record["dtype"] not in DTYPES:
            raise UnreadableModel(f"{where}: bundles hold no {array.dtype} arrays")
        if array.ndim == 0 and array.dtype.kind != "b" and np.isfinite(array):
            return {**record, "value": array.item()}
        self.tensors[at] = _narrowed(array, types)
        return {**record, "tensor": at}

    def packed(self, array: Array, bits: int, at: str) -> Record:
        self.tensors[at] = pack_bits(array, bits)
        signed = bool(array.min(initial=0) < 0)
        return {"dtype": str(array.dtype), "shape": list(array.shape), "tensor": at, "bits": bits, "signed": signed}

    def weight(self, step: Step, at: str, types: Sequence[str]) -> Record:
        weight = step.arrays["weight"]
        if self.sparse is not False:
            zero = stored_zero_point(step, step.arrays["weight_zero_point"], weight.shape)
            packed = pack(weight, zero, self.bits)
            if self.sparse is True or packed.nbytes < -(-weight.size * self.bits // 8):
                self.tensors[f"{at}.mask"], self.tensors[f"{at}.values"] = packed.mask, packed.values
                record = {"dtype": packed.dtype, "shape": list(packed.shape), "bits": self.bits}
                stored = {"signed": packed.signed, "mask": f"{at}.mask", "tensor": f"{at}.values", "size": packed.size}
                return {**record, **stored}
        if self.bits in (8, 16):
            return self.array(weight, at, step.name, types)
        return self.packed(weight, self.bits, at)


def _field(step: Step, role: str) -> Field:
    return STEPS[step.op].arrays.get(role, Field()) if step.op in STEPS else Field()


def _narrowed(array: Array, candidates: Iterable[str]) -> Array:
    for candidate in candidates:
        if array.dtype.kind in "iu" and np.can_cast(candidate, array.dtype):
            ends = np.iinfo(candidate)
            if ends.min <= int(array.min(initial=0)) and int(array.max(initial=0)) <= ends.max:
                return array.astype(candidate)
    return array


def _plain(value: Any, where: str) -> Any:
    """An attribute as JSON; what JSON does not have becomes an object with one key that says what it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_plain(v, where) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(v, where) for v in value]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        return {"array": _plain(value.tolist(), where), "dtype": str(value.dtype), "shape": list(value.shape)}
    raise UnreadableModel(f"{where}: bundles hold no {type(value).__name__}")


def decode(described: Record, tensors: Mapping[str, Array], manifest: Path, file: Path) -> Program:
    """The program of a manifest that fits the schema.

    Args:
        manifest, file: how messages call the manifest and the tensors.

    Raises:
        EquintError: a tensor is missing or is not what its record says.

    Example:
        >>> program = Program((), ("x",), ("x",), {})
        >>> decode(*encode(program, sparse=False), Path("net.json"), Path("net.safetensors")) == program
        True
    """
    return _Reader(manifest, file, tensors).program(described)


class _Reader:
    def __init__(self, manifest: Path, file: Path, tensors: Mapping[str, Array]) -> None:
        self.manifest, self.file, self.tensors = manifest, file, tensors

    def program(self, described: Record) -> Program:
        steps = tuple(self.step(k, record) for k, record in enumerate(described["steps"]))
        target = described["target"]
        return Program(
            steps,
            tuple(described["inputs"]),
            tuple(described["outputs"]),
            {name: self.grid(name, record) for name, record in described["grids"].items()},
            {name: tuple(dims) for name, dims in described["shapes"].items()},
            {name: self.array(record, f"constant {name}") for name, record in described["consts"].items()},
            **{key: target[key] for key in _FORMAT},
            target=target["name"],
            name=described["name"],
            joins=self.joins(described["joins"]) if "joins" in described else None,
        )

    def joins(self, record: Record) -> Graph:
        nodes = []
        for node in record["nodes"]:
            attrs = {k: self.attribute(v, f"{node['op']}: attribute {k}") for k, v in node["attrs"].items()}
            nodes.append(Node(node["op"], tuple(node["inputs"]), tuple(node["outputs"]), attrs))
        consts = {name: self.array(a, f"constant {name}") for name, a in record["consts"].items()}
        ends = tuple(record["inputs"]), tuple(record["outputs"])
        return Graph(tuple(nodes), consts, *ends, opset=record["opset"])

    def step(self, k: int, record: Record) -> Step:
        at = f"step {k} {record['name'] or record['op']!r}"
        attrs = {key: self.attribute(value, f"{at}: attribute {key}") for key, value in record["attrs"].items()}
        step = Step(record["op"], record["name"], tuple(record["inputs"]), tuple(record["outputs"]), attrs)
        arrays: dict[str, Array] = {}
        for role in sorted(record["arrays"], key=lambda role: _field(step, role).packed):  # which needs its zero point
            zero = arrays.get("weight_zero_point", np.zeros((), np.int32))
            arrays[role] = self.array(record["arrays"][role], f"{at}: {role}", step, zero)
        how = record["requantize"]
        keys = ("mantissa", "exponent", "shift", "low", "high", *(key for key in _BELOW if key in (how or ())))
        parts: dict[str, Any] = {key: self.array(how[key], f"{at}: {key}") for key in keys} if how else {}
        requantize = how and Requantize(zero_point=how["zero_point"], **parts)
        return replace(step, arrays={role: arrays[role] for role in record["arrays"]}, requantize=requantize)

    def grid(self, name: str, record: Record) -> QParams:
        scale, zero = (self.array(record[key], f"grid of {name}: {key}") for key in ("scale", "zero_point"))
        shift = record["shift"] and self.array(record["shift"], f"grid of {name}: shift")
        return QParams(scale, zero, record["bits"], record["signed"], record["axis"], shift, record["narrow"])

    def array(self, record: Record, at: str, step: Step | None = None, zero: Array | None = None) -> Array:
        """The array of a record; a sparse one needs its step and the zero point of the step's weights."""
        try:
            return frozen(self.unpacked(record, step, zero))
        except (EquintError, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise UnreadableModel(f"{self.file}: {at}: {error}; {AGAIN}") from error

    def unpacked(self, record: Record, step: Step | None, zero: Array | None) -> Array:
        dtype, shape = np.dtype(record["dtype"]), tuple(record["shape"])
        if "value" in record:
            return _number(record["value"], dtype)
        stored = self.tensor(record["tensor"])
        if "bits" not in record:
            if stored.shape != shape or not np.can_cast(stored.dtype, dtype):
                raise UnreadableModel(f"is {stored.dtype} {stored.shape} where the manifest says {dtype} {shape}")
            return stored.astype(dtype)
        if stored.dtype != np.uint8 or dtype.kind not in "iu":
            raise UnreadableModel(f"is {stored.dtype} for {dtype} where bytes of packed integers belong")
        bits, signed = record["bits"], record["signed"]
        if "mask" not in record:
            return unpack_bits(stored, bits, math.prod(shape), signed).astype(dtype).reshape(shape)
        mask = self.tensor(record["mask"])
        if step is None or zero is None or mask.dtype != np.uint8 or record["size"] != stored.size:
            raise UnreadableModel("is no sparse weight")
        spread = stored_zero_point(step, zero, shape)
        return unpack(Sparse(mask, stored, spread, shape, bits, signed, record["dtype"]))

    def tensor(self, name: str) -> Array:
        found = self.tensors.get(name)
        if found is None:
            raise UnreadableModel(f"tensor {name!r} is missing")
        return found

    def attribute(self, value: Any, at: str) -> Any:
        if isinstance(value, list):
            return [self.attribute(v, at) for v in value]
        if not isinstance(value, dict):
            return value
        try:
            if value.keys() == {"tuple"}:
                return tuple(self.attribute(v, at) for v in value["tuple"])
            if value.keys() == {"bytes"}:
                return base64.b64decode(value["bytes"], validate=True)
            if value.keys() == {"float"}:
                return float(value["float"])
            if value.keys() == {"array", "dtype", "shape"}:
                array = np.array(self.attribute(value["array"], at), value["dtype"])
                return frozen(array.reshape(value["shape"]))
        except (ValueError, TypeError, OverflowError) as error:
            raise UnreadableModel(f"{self.manifest}: {at}: {error}; {AGAIN}") from error
        raise UnreadableModel(f"{self.manifest}: {at}: is nothing that attributes are; {AGAIN}")


def _number(value: float, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        found = np.asarray(value, dtype)
    if isinstance(value, bool) or dtype.kind == "b" or found.item() != value:
        raise UnreadableModel(f"{value} is no {dtype}")
    return found
