"""What hardware refuses of a quantized network, computes in float, or computes wrongly: rules over a description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..files import Facts, jsonable
from ..ir.model import Array, Name, QParams, QSpec, Shape
from ..maths.affine import storage
from ..ops.listed import is_listed, is_named
from ..tflite.names import onnx_name
from .target import Rule, RuleName, Target


@dataclass(frozen=True)
class Grid:
    """How a file stores a tensor: real = scale·(q − zero_point), `()` or `(C,)` along `axis`."""

    scale: Array
    zero_point: Array
    dtype: str
    axis: int | None = None

    def equals(self, other: Grid) -> bool:
        """Whether integers of one mean the same on the other."""
        same = self.dtype == other.dtype and self.axis == other.axis
        return same and np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)


NO_INTEGER_FORM = "it has no integer form"
"""Why a layer computes in float that nothing can quantize."""


@dataclass(frozen=True)
class LayerForm:
    """An operator that multiplies and adds, as a file has it; `op` is its name there.

    Attributes:
        work: multiply-accumulates for one sample.
        x, weight, bias, y: grids; None where a value is float or is not there. `weight` is of a constant.
        lowest: smallest integer of the weight; out_axis: the axis of its output channels.
        biased: whether a bias is added; why_float: empty where it computes on integers.
    """

    node: str
    op: str
    work: int = 0
    x: Grid | None = None
    weight: Grid | None = None
    bias: Grid | None = None
    y: Grid | None = None
    lowest: int = 0
    out_axis: int | None = None
    biased: bool = False
    why_float: str = ""


@dataclass(frozen=True)
class Description:
    """A quantized file, as far as rules look at it.

    Attributes:
        opset: of an ONNX file; None of others.
        inputs: their shapes; activations: the grid of every tensor that is no constant.
        clamps: Min and Max on integers, by node; alike: the grids that an operator reads and makes, by node.
        integers, floats: nodes beside layers that compute on integers, or in float, by operator.
        made: the grid of what an operator makes, by node, beside layers.
        litert: all operators of a .tflite file but conversions at its ends, by their names there.
    """

    opset: int | None
    inputs: Mapping[Name, Shape | None]
    activations: Mapping[Name, Grid]
    layers: tuple[LayerForm, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    alike: Mapping[str, tuple[str, tuple[Grid, ...]]] = field(default_factory=dict)
    integers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    made: Mapping[str, tuple[str, Grid]] = field(default_factory=dict)
    litert: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def share(self, layer: LayerForm) -> float:
        """A layer's share of all multiply-accumulates."""
        return layer.work / self.work

    @property
    def work(self) -> int:
        """All multiply-accumulates; 1 where there are none."""
        return max(sum(layer.work for layer in self.layers), 1)


@dataclass(frozen=True)
class Machine:
    """Where a file is to run, if it runs here: the onnxruntime that is installed, and whether the CPU has AMX."""

    onnxruntime: tuple[int, ...] = ()
    amx: bool = False

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        try:
            installed = tuple(int(part) for part in version("onnxruntime").split(".")[:2])
        except (PackageNotFoundError, ValueError):
            installed = ()
        cpu = Path("/proc/cpuinfo")
        return cls(installed, cpu.is_file() and "amx_int8" in cpu.read_text("utf-8", "replace"))


@dataclass(frozen=True)
class Finding:
    """A rule that a file does not keep to: where, what is wrong, why that matters, what to do, and who says so.

    Attributes:
        float_share: share of all multiply-accumulates that are done in float for it.
    """

    level: str
    rule: str
    at: str
    what: str
    why: str
    todo: str
    source: str
    date: str
    float_share: float = 0.0

    def __str__(self) -> str:
        place = f" [{self.at}]" if self.at else ""
        return f"{self.rule}{place}: {self.what}: {self.why}; {self.todo} ({self.source}, {self.date})"


TargetFrom = Literal["asked", "file", "assumed"]


@dataclass(frozen=True)
class Findings(Facts):
    """What `lint` found in a file.

    Attributes:
        target: whom the file is for; integer_share: share of multiply-accumulates that integers do.
        ruled: whether the target has rules at all: else nothing was looked for.
        target_from: who named the target: whoever asked, the file itself, or nobody: then it is assumed.
    """

    target: str
    integer_share: float
    findings: tuple[Finding, ...] = ()
    ruled: bool = True
    target_from: TargetFrom = "asked"

    def __repr__(self) -> str:
        errors = sum(finding.level == "error" for finding in self.findings)
        return f"Findings(target={self.target!r}, errors={errors}, warnings={len(self.findings) - errors})"

    @property
    def clean(self) -> bool:
        """Whether nothing found is an error."""
        return not any(finding.level == "error" for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        about = {"target": self.target, "clean": self.clean, "ruled": self.ruled, "target_from": self.target_from}
        about |= {"integer_share": round(self.integer_share, 4)}
        return jsonable({**about, "findings": [asdict(finding) for finding in self.findings]})  # type: ignore[no-any-return]


Found = Iterator[tuple[str, str, str]]
"""Where, what is wrong, and what to do."""


def lint(description: Description, on: Target, machine: Machine | None = None) -> Findings:
    """Hold a file to the rules of a target.

    Example:
        >>> from .target import target
        >>> grid = Grid(np.array(0.1), np.array(3, np.int8), "int8")
        >>> file = Description(17, {}, {"x": grid}, (LayerForm("conv", "Conv", 9, grid, grid),))
        >>> lint(file, target("per-tensor-symmetric")).findings[0].what
        'zero point 3 of its weight'
    """
    machine = machine or Machine()
    found, shares = list[Finding](), {layer.node: description.share(layer) for layer in description.layers}
    for rule in on.rules:
        for at, what, todo in RULES[rule.rule](description, on, rule, machine):
            said = (rule.level, rule.rule, at, what, rule.why, todo, rule.source, rule.date)
            found.append(Finding(*said, shares.get(at, 0.0) if rule.in_float else 0.0))
    found.sort(key=lambda finding: finding.level != "error")
    floats = {finding.at for finding in found if finding.float_share}
    layers = (layer for layer in description.layers if not _why_float(layer, on))
    integers = (layer.work for layer in layers if layer.node not in floats)
    return Findings(on.name, sum(integers) / description.work, tuple(found), bool(on.rules))


REQUANTIZE = "quantize for this target"
LEAVE = "leave it to a processor that has floats, or replace it"


UNLISTED = "it has no integer form there"
"""Why a layer computes in float that a target's `operators` leave out."""


def _why_float(layer: LayerForm, on: Target) -> str:
    """Why a layer computes in float on a target, or not on it; empty where it does on integers."""
    runs = layer.op == onnx_name(layer.op) or is_litert(layer.op, on)
    return layer.why_float if runs and is_listed(onnx_name(layer.op), on.operators) else UNLISTED


def is_litert(operator: str, on: Target) -> bool:
    """Whether a target runs an operator of .tflite files.

    Example:
        >>> from .target import target
        >>> is_litert("GATHER", target("tflite-int8")), is_litert("GATHER", target("ethos-u"))
        (True, False)
    """
    return not on.litert_operators or operator in on.litert_operators


def _few(nodes: Sequence[str]) -> str:
    return f"{', '.join(nodes[:2])}{f' and {len(nodes) - 2} more' if len(nodes) > 2 else ''}"


def _weights(d: Description) -> Iterator[tuple[LayerForm, Grid]]:
    return ((layer, layer.weight) for layer in d.layers if layer.weight is not None)


def _stored(spec: QSpec) -> str:
    return str(storage(QParams(np.ones(()), np.zeros(()), spec.bits, spec.signed)))


def _weight_type(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    wanted, told = _stored(on.weight), any(other.rule == "layer-width" for other in on.rules)
    for layer, weight in _weights(d):
        if weight.dtype != wanted and not (told and _is_wide(weight)):
            yield layer.node, f"{weight.dtype} weights, not {wanted}", f"store them as {wanted}: {REQUANTIZE}"


def _weight_zero_point(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer, weight in _weights(d):
        if np.any(weight.zero_point):
            worst = int(weight.zero_point.flat[int(np.argmax(np.abs(weight.zero_point.astype(np.int64))))])
            yield layer.node, f"zero point {worst} of its weight", f"quantize weights symmetrically: {REQUANTIZE}"


def _weight_narrow(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer, weight in _weights(d):
        if weight.dtype.startswith("int") and layer.lowest == -(1 << (int(weight.dtype[3:]) - 1)):
            yield layer.node, f"its weight holds {layer.lowest}", f"leave {layer.lowest} out: {REQUANTIZE}"


def _weight_axis(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer, weight in _weights(d):
        if weight.scale.size == 1:
            continue
        if on.weight.granularity == "tensor":
            yield layer.node, f"{weight.scale.size} scales for one weight", f"give it one: {REQUANTIZE}"
        elif layer.out_axis is not None and weight.axis != layer.out_axis:
            what = f"scales along axis {weight.axis} of its weight, whose output channels lie along {layer.out_axis}"
            yield layer.node, what, "scale output channels"


def _is_wide(grid: Grid | None) -> bool:
    return grid is not None and grid.dtype in ("int16", "uint16")


def _layer_width(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        sides = {"weight": layer.weight, "activation": layer.x}
        for what, grid in () if layer.why_float else sides.items():
            if grid is not None and _is_wide(grid):
                yield layer.node, f"{grid.dtype} {what}s", f"fewer --{what}-bits, or a looser --max-drop"
                break


def _activation_type(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    wanted = [_stored(on.activation)]
    wanted += [_stored(replace(on.activation, signed=False))] if on.activation.by_sign else []
    for name, grid in d.activations.items():
        if grid.dtype not in wanted:
            yield name, f"a tensor of {grid.dtype}, not {' or '.join(wanted)}", REQUANTIZE
        elif grid.scale.size > 1:
            yield name, f"{grid.scale.size} scales for one activation", f"give it one: {REQUANTIZE}"


def _activation_zero_point(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for name, grid in d.activations.items():
        if np.any(grid.zero_point):
            yield name, f"zero point {int(grid.zero_point.flat[0])}", f"quantize symmetrically: {REQUANTIZE}"


def _bias(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    sums = ("int32", "int64") if d.litert and on.activation.bits == 16 else ("int32",)
    for layer in d.layers:
        if not layer.biased or layer.why_float:
            continue
        bias = layer.bias
        if not on.integer_biases:
            if bias is not None:
                yield layer.node, f"its bias is {bias.dtype} behind DequantizeLinear", "store it as a float constant"
        elif bias is None:
            todo = "store it as int32 at scale s_x·s_w" + ("" if d.litert else " behind DequantizeLinear")
            yield layer.node, "its bias is float", todo
        elif bias.dtype not in sums or np.any(bias.zero_point):
            yield layer.node, f"its bias is {bias.dtype}, zero point {int(bias.zero_point.flat[0])}", "store int32, 0"
        elif layer.x is not None and layer.weight is not None:
            wanted = layer.x.scale.astype(np.float64) * layer.weight.scale
            off = np.max(np.abs(bias.scale / np.where(wanted > 0, wanted, 1.0) - 1))
            if off > 1e-5:
                yield layer.node, f"the scale of its bias is {off:.0%} off s_x·s_w", "store it at scale s_x·s_w"


def _integer_clamp(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    if not on.integer_clamps or rule.level == "warning":
        for node, op in d.clamps.items():
            yield node, f"{op} on integers, between QuantizeLinear and DequantizeLinear", "bound the values in front"


def _power_of_two(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    weights = {layer.node: grid for layer, grid in _weights(d)} if on.weight.power_of_two else {}
    activations = d.activations if on.activation.power_of_two else {}
    for name, grid in [*weights.items(), *activations.items()]:
        odd = np.ravel(grid.scale)[np.ravel(np.frexp(grid.scale)[0] != 0.5)]
        if odd.size:
            yield name, f"scale {odd[0]:.6g} is no power of two", REQUANTIZE


def _opset(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    if d.opset is not None and d.opset < rule.least:
        yield "", f"opset {d.opset}, and {rule.least} is asked for", "convert the network with onnx.version_converter"


def _static_shapes(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for name, shape in d.inputs.items():
        if shape is None or not all(isinstance(n, int) for n in shape):
            free = "unknown" if shape is None else ", ".join("?" if n is None else str(n) for n in shape)
            todo = "fix it (python -m onnxruntime.tools.make_dynamic_shape_fixed)"
            todo = "convert the network with a fixed size" if d.litert else todo
            yield name, f"shape ({free}) is not fixed", todo


def _ties(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for node, (op, grids) in d.alike.items():
        if onnx_name(op) in on.ties and any(not grid.equals(grids[0]) for grid in grids):
            steps = ", ".join(f"{float(np.ravel(grid.scale)[0]):.4g}" for grid in grids)
            yield node, f"{op} between grids that differ (scales {steps})", f"give all of them one grid: {REQUANTIZE}"


def _fixed_grid(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for node, (op, grid) in d.made.items():
        scale, zero = on.fixed.get(onnx_name(op), (0.0, 0))
        same = grid.scale.size == 1 and abs(float(grid.scale) / scale - 1) < 1e-6 if scale else True
        if not same or (scale and int(np.ravel(grid.zero_point)[0]) != zero):
            has = f"scale {float(np.ravel(grid.scale)[0]):.6g}, zero point {int(np.ravel(grid.zero_point)[0])}"
            yield node, f"{op} gives {has}, not {scale:.6g}, {zero}", REQUANTIZE


def _float_layer(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        why = _why_float(layer, on)
        if why and not is_named(layer.node, on.float_layers):
            todo = "quantize it" if why not in (UNLISTED, NO_INTEGER_FORM) else LEAVE
            yield layer.node, f"{layer.op} has {100 * d.share(layer):.1f} % of all work, and {why}", todo


def _layer_output(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        if layer.y is None and not layer.why_float and layer.op == "Conv":
            what = f"nothing rounds the output of a layer with {100 * d.share(layer):.1f} % of all work"
            yield layer.node, what, "put QuantizeLinear behind it, or behind the Relu or Clip that alone reads it"


def _float_operator(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for op, every in d.floats.items():
        left = [node for node in every if not is_named(node, on.float_layers)]
        if left:
            yield _few(left), f"{op} computes in float", LEAVE
    for op, nodes in d.integers.items():
        if not is_listed(onnx_name(op), on.operators):
            yield nodes[0], f"{op} has no integer form there ({len(nodes)} nodes)", LEAVE


def _litert_operator(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for op, nodes in d.litert.items():
        if not is_litert(op, on):
            yield _few(nodes), f"it does not run {op}", "replace it, or leave it to a CPU"


def _runtime(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    products = [layer for layer in d.layers if layer.weight is not None and layer.weight.dtype == "int8"]
    if products and machine.amx and (1, 21) <= machine.onnxruntime < (1, 25):
        number = ".".join(map(str, machine.onnxruntime))
        yield "", f"onnxruntime {number} computes int8 products wrongly on this CPU, which has AMX", "install 1.25"


RULES: Mapping[RuleName, Callable[[Description, Target, Rule, Machine], Found]] = {
    "weight-type": _weight_type,
    "weight-zero-point": _weight_zero_point,
    "weight-narrow": _weight_narrow,
    "weight-axis": _weight_axis,
    "layer-width": _layer_width,
    "activation-type": _activation_type,
    "activation-zero-point": _activation_zero_point,
    "bias": _bias,
    "integer-clamp": _integer_clamp,
    "power-of-two": _power_of_two,
    "opset": _opset,
    "static-shapes": _static_shapes,
    "ties": _ties,
    "fixed-grid": _fixed_grid,
    "float-layer": _float_layer,
    "layer-output": _layer_output,
    "float-operator": _float_operator,
    "litert-operator": _litert_operator,
    "runtime": _runtime,
}
"""Everything that is looked at, by the names that targets use."""
