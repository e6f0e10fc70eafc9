"""What hardware accepts, as data: built-in targets, and users' own, read from TOML and checked key by key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from dataclasses import replace as with_fields
from datetime import date
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidTarget, UnknownName, meant
from ..files import check_keys, check_values, read_toml
from ..ir.model import QSpec
from ..maths.fixedpoint import Arithmetic, Mantissa, Rounding
from ..ops.table import OPERATORS, is_operator
from ..tflite.schema import schema

RuleName = Literal[
    "weight-type",
    "weight-zero-point",
    "weight-narrow",
    "weight-axis",
    "layer-width",
    "activation-type",
    "activation-zero-point",
    "bias",
    "integer-clamp",
    "power-of-two",
    "opset",
    "static-shapes",
    "ties",
    "fixed-grid",
    "float-layer",
    "layer-output",
    "float-operator",
    "litert-operator",
    "runtime",
]
"""What `lint` looks at; `lint.RULES` computes each."""
RuleLevel = Literal["error", "warning"]
FileFormat = Literal["qdq", "integer", "npu", "tflite", "onnx-float", "encodings"]


@dataclass(frozen=True)
class Rule:
    """What a file for a target must keep to.

    Attributes:
        level: an error where the hardware refuses, or computes in float or wrongly; a warning where that depends.
        source, date: the document that says so, and its day; least: the opset that rule "opset" asks for.
        why: what happens to a file that does not keep to it; in_float: whether the layer then computes in float.
    """

    rule: RuleName
    source: str
    date: str
    level: RuleLevel = "error"
    why: str = ""
    in_float: bool = False
    least: int = 0


@dataclass(frozen=True)
class Target:
    """The number formats and operators of one kind of hardware.

    Attributes:
        weight, activation: formats; the granularity of `weight` is the finest that the hardware takes.
        bias_bits: width of integer biases.
        channel_clip: whether an activation may be clamped to a bound per channel.
        integer_clamps: whether Min and Max may stand on integers, between QuantizeLinear and DequantizeLinear. Else
            activations that bound values inside the grid stay float operators, which runtimes fuse into the layer.
        integer_biases: whether biases are int32 at scale s_x·s_w behind DequantizeLinear; else float constants of
            the same values.
        float_between: whether recipes may leave what stands between layers in float, where that is better.
        integers_only: whether it runs nothing in float, so that every activation gets a grid.
        shift_bits: width of the shift that a weight's output channel may have, where granularity is "shift".
        mantissa_bits, exponent_bits: of the scale compound M·2^s that its integer operators multiply by.
        rounding: what they do with the bits that they drop.
        fused_activations: whether it applies activations (LeakyRelu, HardSwish, …) to a layer's sums before these are
            rounded.
        table_bits: to so many bits its integer operators round what they look up in the table of such an activation,
            where that has not two straight parts.
        mantissa: `nearest` to the scale compound, as published; or `provable`, within 2^-18 of it, with which float32
            kernels compute the same integers (`maths/fixedpoint.provable_compound`).
        arithmetic: of its integer operators: `plain` ones make one exact accumulator and round once; `litert` are those
            of LiteRT's kernels, with its multipliers (`maths/quantized_multiplier.py`).
        recipe: the built-in recipe that measured best for it (docs/accuracy.md); the default there.
        aliases: other names of it; audience: who it is for.
        operators: that it computes on integers, by their ONNX names; empty: all that equint makes integer. What only
            moves values (Reshape, Transpose, Slice, …), and activations that a quantizer replaces, need no entry.
        litert_operators: of .tflite files that it runs, by their names there; empty: all. Others are refused.
        litert_compiler: what compiles such files for it, to whose bounds on sizes they keep: `vela`.
        float_layers: nodes that stay float on it, by name or pattern, in networks that have them.
        ties: operators whose inputs and outputs must be on one grid.
        fixed: scale and zero point of the one grid that an operator's outputs may be on, by its ONNX name.
        formats: of files that it is delivered in; rules: what `lint` holds these to.
    """

    name: str
    description: str
    weight: QSpec
    activation: QSpec = field(default_factory=lambda: QSpec(8, signed=False, symmetric=False))
    bias_bits: int = 32
    channel_clip: bool = False
    float_between: bool = False
    integers_only: bool = False
    shift_bits: int = 0
    mantissa_bits: int = 32
    exponent_bits: int = 6
    rounding: Rounding = "half_up"
    mantissa: Mantissa = "provable"
    arithmetic: Arithmetic = "plain"
    fused_activations: bool = False
    table_bits: int = 10
    recipe: str = "optimal"
    integer_clamps: bool = True
    integer_biases: bool = True
    aliases: tuple[str, ...] = ()
    audience: str = ""
    operators: tuple[str, ...] = ()
    litert_operators: tuple[str, ...] = ()
    litert_compiler: Literal["", "vela"] = ""
    float_layers: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    formats: tuple[FileFormat, ...] = ("qdq",)
    rules: tuple[Rule, ...] = ()

    @property
    def mixes(self) -> bool:
        """Whether its programs may hold floats between integers: LiteRT converts them where the hardware runs that."""
        runs = not self.litert_operators or {"QUANTIZE", "DEQUANTIZE"} <= {*self.litert_operators}
        return self.arithmetic == "litert" and runs


TOLD = frozenset({"name", "description", "recipe", "aliases", "audience", "formats", "rules", "litert_operators"}) | {
    "litert_compiler"
}
"""Fields of a target that decide nothing about the integers of a network."""
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "shift_bits": (0, 8),
    "mantissa_bits": (2, 32),
    "exponent_bits": (2, 8),
    "table_bits": (8, 16),
}
_OPSETS = (1, 50)


def parse(table: Mapping[str, Any], label: str) -> Target:
    """A target from TOML's tables, every key and type checked.

    Raises:
        InvalidTarget: naming file and key, and what it may be.

    Example:
        >>> parse({"weight": {"symmetric": False}, "bias_bits": 16}, "dsp.toml").name
        'dsp'
        >>> parse({"weight": {"bit": 8}}, "dsp.toml")
        Traceback (most recent call last):
        equint.errors.InvalidTarget: dsp.toml: unknown key 'bit' in [weight]; known keys: bits, by_sign, \
granularity, narrow, power_of_two, signed, symmetric
    """
    known = {f.name for f in fields(Target)}
    check_keys(label, "the target", table, known, InvalidTarget)
    plain = {k: v for k, v in table.items() if k not in ("weight", "activation", "rules", "fixed")}
    check_values(label, "the target", plain, Target, InvalidTarget)
    for key in ("operators", "ties"):
        _check_operators(label, key, plain.get(key, []))
    for name in plain.get("litert_operators", []):
        if name not in schema().enums["BuiltinOperator"].numbers:
            raise InvalidTarget(
                f"{label}: litert_operators names {name!r}, which is no operator of LiteRT; write them as its"
                " schema does, such as CONV_2D"
            )
    for key, told in _FILL.items():
        texts = plain.get(key, "-")
        if not texts or not all(text.strip() for text in ([texts] if isinstance(texts, str) else texts)):
            raise InvalidTarget(f"{label}: {key} = {texts!r} is empty; {told}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    if "weight" not in table:
        raise InvalidTarget(f"{label}: nothing says how weights are stored; add [weight]")
    specs: dict[str, Any] = {key: _spec(label, key, table[key]) for key in ("weight", "activation") if key in table}
    for key, (least, most) in _BOUNDS.items():
        if not least <= plain.get(key, most) <= most:
            raise InvalidTarget(f"{label}: {key} = {plain[key]}; choose {least} to {most}")
    if plain.get("bias_bits", 32) not in (8, 16, 32):
        raise InvalidTarget(f"{label}: bias_bits = {plain['bias_bits']}; choose 8, 16 or 32")
    if (specs["weight"].granularity == "shift") != (plain.get("shift_bits", 0) > 0):
        raise InvalidTarget(f'{label}: weights of granularity "shift" and shift_bits go together; give both or neither')
    plain = {"name": Path(label).stem, "description": "", **plain}
    fixed = _fixed(label, table.get("fixed", {}))
    return Target(**plain, **specs, fixed=fixed, rules=_rules(label, table.get("rules", [])))


_FILL = {
    "name": "give the target a name of its own",
    "formats": 'say what it is delivered in, such as ["qdq"]',
    "aliases": "give other names or leave it out",
    "float_layers": "name layers or leave it out",
}
"""Keys that must hold something where they are given."""


def _check_operators(label: str, key: str, names: list[str]) -> None:
    for name in names:
        if not is_operator(name):
            near = get_close_matches(name, OPERATORS, 2)
            hint = f"did you mean {' or '.join(near)}?" if near else "write them as ONNX does, such as Conv"
            raise InvalidTarget(f"{label}: {key} names {name!r}, which is no operator of ONNX; {hint}")


def _spec(label: str, key: str, table: Any) -> QSpec:
    where = f"[{key}]"
    if not isinstance(table, Mapping):
        raise InvalidTarget(f"{label}: {key} = {table!r}; write it as a table, {where}")
    check_keys(label, where, table, {f.name for f in fields(QSpec)}, InvalidTarget)
    check_values(label, where, table, QSpec, InvalidTarget)
    spec = QSpec(**({} if key == "weight" else {"signed": False, "symmetric": False}) | dict(table))
    if not 2 <= spec.bits <= 16:
        raise InvalidTarget(f"{label}: bits = {spec.bits} in {where}; choose 2 to 16")
    if key == "activation" and spec.granularity != "tensor":
        raise InvalidTarget(f"{label}: activations have one scale per tensor; leave granularity out of {where}")
    if spec.by_sign and not (key == "activation" and spec.signed and spec.symmetric):
        raise InvalidTarget(f"{label}: by_sign is for signed, symmetric activations; leave it out of {where}")
    return spec


def _fixed(label: str, table: Any) -> dict[str, tuple[float, int]]:
    if not isinstance(table, Mapping):
        raise InvalidTarget(f"{label}: fixed = {table!r}; write it as a table, [fixed]")
    for key, pair in table.items():
        good = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], float) and type(pair[1]) is int
        if not good or not pair[0] > 0:
            raise InvalidTarget(f"{label}: {key} = {pair!r} in [fixed]; write a scale and a zero point, [0.0078125, 0]")
    return {key: (scale, zero) for key, (scale, zero) in table.items()}


def _rules(label: str, entries: Any) -> tuple[Rule, ...]:
    if not isinstance(entries, list):
        raise InvalidTarget(f"{label}: rules are tables; write [[rules]]")
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise InvalidTarget(f"{label}: rules are tables; write [[rules]]")
        check_keys(label, "[[rules]]", entry, {f.name for f in fields(Rule)}, InvalidTarget)
        check_values(label, "[[rules]]", entry, Rule, InvalidTarget)
        for key in ("rule", "source", "date"):
            if not entry.get(key):
                raise InvalidTarget(f"{label}: [[rules]] without {key}; every rule names its document and day")
        least, known = entry.get("least", 0), entry["rule"] == "opset"
        if known and not _OPSETS[0] <= least <= _OPSETS[1]:
            asked = f"choose {_OPSETS[0]} to {_OPSETS[1]}"
            raise InvalidTarget(f"{label}: least = {least} in [[rules]] of rule opset; {asked}")
        if least and not known:
            raise InvalidTarget(f"{label}: least in [[rules]] is of rule opset; leave it out of rule {entry['rule']}")
        try:
            date.fromisoformat(entry["date"])
        except ValueError as error:
            raise InvalidTarget(f"{label}: date = {entry['date']!r} in [[rules]]; write 2026-11-29") from error
    return tuple(Rule(**entry) for entry in entries)


def source(name: str) -> str:
    """The TOML of a built-in target, to copy and change."""
    return resources.files(__package__).joinpath("targets", f"{name}.toml").read_text("utf-8")


_NAMES = (
    *("onnxruntime", "per-tensor-symmetric", "openvino", "tensorrt", "qnn", "esp-dl", "tidl"),
    *("tflite-int8", "tflite-int8-per-tensor", "tflite-uint8", "tflite-int16", "ethos-u"),
    *("per-tensor", "per-tensor-clip", "npu-shift"),
)
TARGETS = tuple(parse(tomllib.loads(source(name)), name) for name in _NAMES)
"""The built-in targets; the first is the default."""


def is_built_in(on: Target) -> bool:
    """Whether a target is one that comes with equint, under any of its names; activations may be fused otherwise.

    Example:
        >>> is_built_in(target("per-channel")), is_built_in(with_fields(target("qnn"), bias_bits=16))
        (True, False)
    """
    alike = {"name": on.name, "fused_activations": on.fused_activations}
    return any(on.name in (t.name, *t.aliases) and with_fields(t, **alike) == on for t in TARGETS)  # type: ignore[arg-type]


def _own(found: Target, label: str) -> Target:
    """A target read from a file: none of its names may be a built-in one's, unless it is a copy of that."""
    for name in (found.name, *found.aliases):
        built_in = next((t for t in TARGETS if name in (t.name, *t.aliases)), None)
        if built_in is not None and built_in != found:
            key = "aliases" if name != found.name else "name"
            raise InvalidTarget(f"{label}: {key} = {name!r} is a built-in target's; give yours a name of its own")
    return found


def target(name: str | os.PathLike[str] | Target) -> Target:
    """A built-in target by one of its names, which it then has, or one read from a TOML file.

    Raises:
        EquintError: no target is called so, or the file cannot be used.

    Example:
        >>> [target(name).name for name in ("onnxruntime", "per-channel")]
        ['onnxruntime', 'per-channel']
    """
    if isinstance(name, Target):
        return name
    label = os.fspath(name)
    found = next((t for t in TARGETS if label in (t.name, *t.aliases)), None)
    if found is not None:
        return with_fields(found, name=label)
    path = Path(label)
    if path.suffix != ".toml":
        names = [n for t in TARGETS for n in (t.name, *t.aliases)]
        told = f"{meant(label, names)}choose {', '.join(names)} or a .toml file"
        raise UnknownName(f"unknown target {label!r}; {told}")
    return _own(parse(read_toml(path, "target file", InvalidTarget), label), label)
