"""What hardware refuses of a quantized network, computes in float, or computes wrongly: rules over a description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..files import Facts, jsonable
from ..ir.model import Array, Name, QParams, QSpec, Shape
from ..maths.affine import storage
from ..ops.listed import is_listed, is_named
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
    """An operator that multiplies and adds, as a file has it.

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
        inputs: their shapes; activations: the grid of every tensor that is no constant.
        clamps: Min and Max on integers, by node; alike: the grids that an operator reads and makes, by node.
        integers, floats: nodes beside layers that compute on integers, or in float, by operator.
    """

    opset: int
    inputs: Mapping[Name, Shape | None]
    activations: Mapping[Name, Grid]
    layers: tuple[LayerForm, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    alike: Mapping[str, tuple[str, tuple[Grid, ...]]] = field(default_factory=dict)
    integers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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

    def in_integers(self) -> Findings:
        """The same of a file whose every operator is of integers: nothing that its QDQ form leaves float counts.

        Example:
            >>> found = Finding("warning", "float-operator", "s", "Sigmoid computes in float", "", "", "", "")
            >>> Findings("tflite-int8", 1.0, (found,)).in_integers().findings
            ()
        """
        left = tuple(f for f in self.findings if f.rule not in ("float-layer", "float-operator"))
        return replace(self, integer_share=1.0, findings=left)

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
    layers = (layer for layer in description.layers if not layer.why_float and is_listed(layer.op, on.operators))
    integers = (layer.work for layer in layers if layer.node not in floats)
    return Findings(on.name, sum(integers) / description.work, tuple(found), bool(on.rules))


REQUANTIZE = "quantize for this target"
LEAVE = "leave it to a processor that has floats, or replace it"


UNLISTED = "it has no integer form there"
"""Why a layer computes in float that a target's `operators` leave out."""


def _weights(d: Description) -> Iterator[tuple[LayerForm, Grid]]:
    return ((layer, layer.weight) for layer in d.layers if layer.weight is not None)


def _stored(spec: QSpec) -> str:
    return str(storage(QParams(np.ones(()), np.zeros(()), spec.bits, spec.signed)))


def _weight_type(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    wanted = _stored(on.weight)
    for layer, weight in _weights(d):
        if weight.dtype != wanted:
            yield layer.node, f"{weight.dtype} weights, not {wanted}", f"store them as {wanted}: {REQUANTIZE}"


def _weight_zero_point(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer, weight in _weights(d):
        if np.any(weight.zero_point):
            worst = int(weight.zero_point.flat[int(np.argmax(np.abs(weight.zero_point.astype(np.int64))))])
            yield layer.node, f"zero point {worst} of its weight", f"quantize weights symmetrically: {REQUANTIZE}"


def _weight_narrow(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer, weight in _weights(d):
        if np.issubdtype(np.dtype(weight.dtype), np.signedinteger) and layer.lowest == np.iinfo(weight.dtype).min:
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


def _activation_type(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    wanted = _stored(on.activation)
    for name, grid in d.activations.items():
        if grid.dtype != wanted:
            yield name, f"a tensor of {grid.dtype}, not {wanted}", REQUANTIZE


def _activation_zero_point(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for name, grid in d.activations.items():
        if np.any(grid.zero_point):
            yield name, f"zero point {int(grid.zero_point.flat[0])}", f"quantize symmetrically: {REQUANTIZE}"


def _bias(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        if not layer.biased or layer.why_float:
            continue
        bias = layer.bias
        if not on.integer_biases:
            if bias is not None:
                yield layer.node, f"its bias is {bias.dtype} behind DequantizeLinear", "store it as a float constant"
        elif bias is None:
            yield layer.node, "its bias is float", "store it as int32 at scale s_x·s_w behind DequantizeLinear"
        elif bias.dtype != "int32" or np.any(bias.zero_point):
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
    if d.opset < rule.least:
        yield "", f"opset {d.opset}, and {rule.least} is asked for", "convert the network with onnx.version_converter"


def _static_shapes(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for name, shape in d.inputs.items():
        if shape is None or not all(isinstance(n, int) for n in shape):
            free = "unknown" if shape is None else ", ".join(str(n) for n in shape)
            todo = "fix it (python -m onnxruntime.tools.make_dynamic_shape_fixed)"
            yield name, f"shape ({free}) is not fixed", todo


def _ties(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for node, (op, grids) in d.alike.items():
        if op in on.ties and any(not grid.equals(grids[0]) for grid in grids):
            steps = ", ".join(f"{float(np.ravel(grid.scale)[0]):.4g}" for grid in grids)
            yield node, f"{op} between grids that differ (scales {steps})", f"give all of them one grid: {REQUANTIZE}"


def _float_layer(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        why = layer.why_float if is_listed(layer.op, on.operators) else UNLISTED
        if why and not is_named(layer.node, on.float_layers):
            todo = "quantize it" if why not in (UNLISTED, NO_INTEGER_FORM) else LEAVE
            yield layer.node, f"{layer.op} has {d.share(layer):.1%} of all work, and {why}", todo


def _layer_output(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for layer in d.layers:
        if layer.y is None and not layer.why_float and layer.op == "Conv":
            what = f"nothing rounds the output of a layer with {d.share(layer):.1%} of all work"
            yield layer.node, what, "put QuantizeLinear behind it, or behind the Relu or Clip that alone reads it"


def _float_operator(d: Description, on: Target, rule: Rule, machine: Machine) -> Found:
    for op, every in d.floats.items():
        left = [node for node in every if not is_named(node, on.float_layers)]
        few = f"{', '.join(left[:2])}{f' and {len(left) - 2} more' if len(left) > 2 else ''}"
        if left:
            yield few, f"{op} computes in float", LEAVE
    for op, nodes in d.integers.items():
        if not is_listed(op, on.operators):
            yield nodes[0], f"{op} has no integer form there ({len(nodes)} nodes)", LEAVE


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
    "activation-type": _activation_type,
    "activation-zero-point": _activation_zero_point,
    "bias": _bias,
    "integer-clamp": _integer_clamp,
    "power-of-two": _power_of_two,
    "opset": _opset,
    "static-shapes": _static_shapes,
    "ties": _ties,
    "float-layer": _float_layer,
    "layer-output": _layer_output,
    "float-operator": _float_operator,
    "runtime": _runtime,
}
"""Everything that is looked at, by the names that targets use."""
