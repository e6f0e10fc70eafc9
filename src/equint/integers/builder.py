"""The integer program in the making: grids, names, constants, and how accumulators become integers of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ..errors import EquintError, UnsupportedOperator
from ..graph import clamps
from ..graph.placement import Placement
from ..hardware.target import Target
from ..ir.fields import per_channel
from ..ir.model import Array, Graph, Model, Name, Node, QParams, QSpec, Shape
from ..maths.affine import choose_qparams, fake_quantize, quantize, storage
from ..maths.fixedpoint import FLOAT32_DIGITS, MOST_SHIFT, Rounding, compound, provable_compound, reduced, requantize
from ..maths.quantized_multiplier import LEAST, few_places, quantize_multiplier
from ..ops.activations import negative_slope
from .program import Requantize, Step

COEFFICIENT = (1 << 15) - 1
"""Largest magnitude of a sum's coefficients."""
SATURATES = 512
"""As many steps lie beyond every grid, whatever its zero point."""
Products = Literal["windows", "dense"]
"""Of a window's taps, or of rows with weights, whose sums LiteRT multiplies in float64."""
SUM = 1 << 24
"""What the accumulator of a sum stays below."""


@dataclass
class Lowering:
    """What has been lowered so far, and what every operator needs for it.

    Attributes:
        placement: its merged tensors never exist as integers, but for those of which a table makes what stands behind,
            nor do its inner ones, each within a function of one value.
        shapes: of tensors that only the program has.
        weight_scales: of layers, by what they make.
        raw: what exists in float, by the tensors of the graph, and where; types: what such tensors of the program hold.
        without_form: of nodes that are computed in float, why, by their labels.
    """

    model: Model
    target: Target
    placement: Placement
    grids: dict[Name, QParams]
    steps: list[Step] = field(default_factory=list)
    consts: dict[Name, Array] = field(default_factory=dict)
    shapes: dict[Name, Shape] = field(default_factory=dict)
    weight_scales: dict[Name, Array] = field(default_factory=dict)
    raw: dict[Name, Name] = field(default_factory=dict)
    types: dict[Name, str] = field(default_factory=dict)
    without_form: dict[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The float graph that is lowered."""
        return self.model.graph

    @property
    def merged(self) -> frozenset[Name]:
        """Tensors behind which an activation acts before they are rounded."""
        return self.placement.merged

    @cached_property
    def applied(self) -> Mapping[Name, Name]:
        """By what every operator that is applied to a layer's sums puts out, the tensor that these make."""
        return {o: name for name, nodes in self.placement.fused.items() for node in nodes for o in node.outputs}

    def slope(self, name: Name) -> Array | None:
        """By what accumulators below 0 are multiplied that make a tensor; None where they are as others."""
        nodes = self.placement.fused.get(name, ())
        return negative_slope(self.graph, nodes[0]) if nodes else None

    def looked_up(self, name: Name) -> bool:
        """Whether a layer's output is an index into the table of its activation."""
        return name in self.placement.fused and self.slope(name) is None

    def index_grid(self, name: Name, label: str) -> QParams:
        """The grid of such an index: as wide as the target's tables."""
        if name not in self.model.ranges:
            raise UnsupportedOperator(f"{label}: nothing tells the range of {name}; give data or an input range")
        known, spec = self.model.ranges[name], QSpec(self.target.table_bits, signed=False, symmetric=False)
        return choose_qparams(np.min(known.lo), np.max(known.hi), spec)

    def grid(self, name: Name, label: str) -> QParams:
        """The grid of an activation; an error where it has none."""
        if self.looked_up(name):
            return self.index_grid(name, label)
        q = self.grids.get(name)
        if q is None:
            if self.model.qparams.keys() <= self.graph.consts.keys():
                raise UnsupportedOperator(
                    f"{label}: activations are float; integer programs need them in 8 bits or fewer"
                )
            where = label if name in label else f"{label}: {name}"
            if name in self.model.ranges and not self.graph.integers_only:
                todo = "cut what reads it in float off the network"
                if "tflite" not in self.target.formats:
                    todo += ", or quantize for one of integers only, as npu-shift"
                raise UnsupportedOperator(f"{where} stays float on target {self.target.name}; {todo}")
            raise UnsupportedOperator(f"{where} stays float: nothing tells its range; give data or an input range")
        return self.narrow(q, label)

    def narrow(self, q: QParams, label: str) -> QParams:
        """The grid, if integer programs hold it."""
        if q.bits > self.widest:
            wide = ", or for tflite-int16" if self.target.arithmetic == "litert" else ""
            raise UnsupportedOperator(
                f"{label}: grid of {q.bits} bits; integer programs hold {self.widest} or fewer, quantize to those{wide}"
            )
        return q

    @property
    def wide(self) -> bool:
        """Whether activations have 16 bits, which LiteRT sums in 64."""
        return self.target.arithmetic == "litert" and self.target.activation.bits > 8

    @property
    def widest(self) -> int:
        """Most bits of a grid."""
        return 16 if self.wide else 8

    def result(self, node: Node, output: Name = "", given: QParams | None = None) -> tuple[Name, QParams, list[Node]]:
        """The tensor that a node makes as integers, its grid (or the given one), and the activations merged into it."""
        output = output or node.outputs[0]
        if self.looked_up(output):
            self.grids[output] = self.index_grid(output, node.label)
            return output, self.grids[output], []
        name = clamps.end(self.graph, self.merged, output)
        merged = clamps.chain(self.graph, self.merged, self.graph.producer[name]) if name != output else []
        if name not in self.grids and given is not None:
            return name, given, merged
        return name, self.grid(name, node.label), merged

    def tensors(self, node: Node) -> tuple[list[Name], list[Name]]:
        """The inputs that are integers, and those that are constants."""
        constant = [i for i in node.inputs if i in self.graph.consts]
        return [i for i in node.inputs if i and i not in constant], constant

    def constant(self, name: Name) -> Array:
        """A constant operand, as its grid holds it."""
        value = self.graph.consts[name]
        q = self.model.qparams.get(name)
        return np.asarray(value, np.float32) if q is None else fake_quantize(value, self.narrow(q, name))

    def operand(self, name: Name, value: Array, spec: QSpec) -> Name:
        """A constant tensor as integers, on its own grid where it has one."""
        q = self.model.qparams.get(name)
        q = choose_qparams(value.min(), value.max(), spec) if q is None else self.narrow(q, name)
        return self.stored(name, value, q)

    def stored(self, name: Name, value: Array, q: QParams) -> Name:
        """A constant as integers of a grid."""
        made = self.fresh(f"{name}_quantized")
        self.consts[made] = quantize(value, q).astype(storage(q))
        self.grids[made], self.shapes[made] = q, value.shape
        return made

    def differs_by_position(self, node: Node, value: Array) -> bool:
        """Whether a constant is no one number for each channel."""
        rank = self.graph.rank(node.outputs[0]) or value.ndim
        wide = [d - value.ndim for d, n in enumerate(value.shape) if n > 1]
        return len(wide) > 1 or (bool(wide) and wide[0] not in (-1, 1 - rank))

    def channels(self, node: Node, *values: Array, axes: Sequence[int] = (1, -1)) -> tuple[list[Array], int]:
        """Broadcast constants as `()` or `(C,)`, and the axis along which they all run."""
        rank = self.graph.rank(node.outputs[0])
        if rank is None and any(v.size > 1 for v in values):
            raise UnsupportedOperator(f"{node.label}: its rank is not known; export the network with shapes")
        aligned = [v.reshape((1,) * ((rank or v.ndim) - v.ndim) + v.shape) for v in values]
        for axis in axes:
            found = [
                a.reshape(()) if a.size == 1 else per_channel(a, axis, a.shape[axis]) if axis < a.ndim else None
                for a in aligned
            ]
            if all(f is not None for f in found):
                return [np.asarray(f) for f in found], axis
        raise UnsupportedOperator(
            f"{node.label}: a constant differs by position; integer programs take one number per channel"
        )

    def fresh(self, stem: Name) -> Name:
        """A name that nothing has yet."""
        taken = {*self.graph.consts, *self.graph.producer, *self.graph.inputs, *self.consts, *self.grids, *self.types}
        while stem in taken:
            stem += "_"
        return stem

    def integers(self, stem: Name, values: Sequence[int] | Array) -> Name:
        """A new constant."""
        name = self.fresh(stem)
        self.consts[name] = np.asarray(values, np.int64)
        return name

    def add(self, op: str, node: Node, inputs: Sequence[Name], output: Name, q: QParams, **given: Any) -> None:
        """A new step with one output, and that output's grid."""
        self.steps.append(Step(op, node.label, tuple(inputs), (output,), **given))
        self.grids[output] = q

    def requantize(
        self,
        node: Node,
        factor: Array,
        shift: Array,
        reach: Array,
        last: tuple[QParams, list[Node]],
        axis: int = 1,
        products: Products | None = None,
    ) -> Requantize:
        """From an accumulator within ±reach to a grid, at `factor` times 2^-shift; each `()` or `(C,)`.

        Channels so faint that they never move by more than a step get the smallest factor that there is; where every
        accumulator but 0 saturates, the largest does the same.

        Args:
            products: what these are sums of, which LiteRT adds in 64 bits where activations have 16.
        """
        if self.target.arithmetic == "litert":
            try:
                pairs = [quantize_multiplier(f) for f in np.ravel(factor).tolist()]
            except EquintError as error:
                raise UnsupportedOperator(f"{node.label}: {error}; the range of its result is too small") from error
            if products and self.wide:
                dense = products == "dense"
                pairs = pairs if dense else [(few_places(m), e) for m, e in pairs]
                rounding: Rounding = "half_away" if dense else "half_up"
                return self.multiplied(node, pairs, np.shape(factor), reach, last, axis, rounding)
            return self.multiplied(node, pairs, np.shape(factor), reach, last, axis)
        q, activations = last
        low, high, _ = self.clamp(node, q, activations, (axis,))
        zero = int(q.zero_point)
        target = self.target
        largest = 2.0 ** (min(FLOAT32_DIGITS, target.mantissa_bits) - 2)
        if largest * 2.0 ** -int(np.max(shift)) >= SATURATES:
            factor = np.minimum(factor, largest)
        room = min(FLOAT32_DIGITS, target.mantissa_bits) - np.frexp(factor)[1] + shift
        if np.min(room) < 1:
            raise UnsupportedOperator(
                f"{node.label}: scale compound {np.max(factor):.3g} is too large for a mantissa of "
                f"{target.mantissa_bits} bits; the range of its result is too small"
            )
        least = max(-(1 << (target.exponent_bits - 1)), target.mantissa_bits - MOST_SHIFT + int(np.max(shift)))
        faintest = math.ldexp(0.5, least)
        reach = reach if np.ndim(factor) else np.max(reach)
        factor = np.where(reach * faintest <= 1, np.maximum(factor, faintest), factor)
        span = int(low.min()) - zero, int(high.max()) - zero
        each = zip(np.ravel(factor).tolist(), np.ravel(reach).tolist(), strict=True)
        try:
            pairs = [_compound(target, f, shift, span, r) for f, r in each]
        except EquintError as error:
            raise UnsupportedOperator(f"{node.label}: {error}; its ranges or those of its input are unusual") from error
        mantissa, exponent = (np.array(a, np.int64).reshape(np.shape(factor)) for a in zip(*pairs, strict=True))
        made = Requantize(mantissa, exponent.astype(np.int32), shift.astype(np.int32), zero, low, high)
        made = self.bent(node, made, factor, reach, axis)
        self.check(node, made, int(np.max(reach)))
        return made

    def multiplied(
        self,
        node: Node,
        pairs: Sequence[tuple[int, int]],
        shape: tuple[int, ...],
        reach: Array,
        last: tuple[QParams, list[Node]],
        axis: int = 1,
        rounding: Rounding | None = None,
    ) -> Requantize:
        """The same by multipliers of LiteRT, `()` or `(C,)` of them; one that is 0 becomes one that leaves nothing."""
        q, activations = last
        low, high, _ = self.clamp(node, q, activations, (axis,))
        known = [(m, e) if m else (1, LEAST) for m, e in pairs]
        mantissa, exponent = (np.array(a, np.int64).reshape(shape) for a in zip(*known, strict=True))
        zero = np.zeros((), np.int32)
        made = Requantize(mantissa, exponent.astype(np.int32), zero, int(q.zero_point), low, high, rounding=rounding)
        self.check(node, made, int(np.max(reach)))
        return made

    def bent(self, node: Node, made: Requantize, factor: Array, reach: Array, axis: int) -> Requantize:
        """With other factors for accumulators below 0, where the activation behind the node has another slope there."""
        slope = self.slope(node.outputs[0])
        if slope is None:
            return made
        (slopes,), _ = self.channels(self.placement.fused[node.outputs[0]][0], slope.astype(np.float64), axes=(axis,))
        factors, reaches = np.broadcast_arrays(np.abs(slopes) * factor, reach)
        shifts = np.broadcast_to(made.shift, factors.shape) if factors.ndim else made.shift
        unmoved = factors * reaches * 2.0 ** -np.min(made.shift) < 0.5  # all that is below 0 becomes 0
        span = int(made.low.min()) - made.zero_point, int(made.high.max()) - made.zero_point
        pairs = []
        for k in np.ndindex(factors.shape):
            each = (float(factors[k]), np.asarray(shifts[k] if factors.ndim else shifts), span, int(reaches[k]))
            try:
                pairs.append((0, 0) if unmoved[k] else _compound(self.target, *each))
            except EquintError as error:
                raise UnsupportedOperator(f"{node.label}: {error}; its slope below 0 is unusual") from error
        mantissa, exponent = (np.array(a, np.int64).reshape(factors.shape) for a in zip(*pairs, strict=True))
        signs = np.where(slopes < 0, -1, 1)
        return replace(made, mantissa_below=mantissa * signs, exponent_below=exponent.astype(np.int32))

    def clamp(self, node: Node, q: QParams, activations: list[Node], axes: Sequence[int]) -> tuple[Array, Array, int]:
        """The integers between which activations keep a grid: `()` or `(C,)`, and along which of the axes."""
        (low, high), axis = self.channels(node, *clamps.bounds(self.graph, q, activations), axes=axes)
        return low.astype(np.int32), high.astype(np.int32), axis

    def check(self, node: Node, how: Requantize, reach: int) -> None:
        """Refuse what 64 bits do not compute."""
        for side in how.sides:
            right = side.right(self.target.mantissa_bits)
            if right.max() > MOST_SHIFT or right.min() < 1:
                worst = right.max() if right.max() > MOST_SHIFT else right.min()
                raise UnsupportedOperator(
                    f"{node.label}: its product is shifted right by {worst} places, 1 to {MOST_SHIFT} are possible; "
                    "its scales, or shifts, are too far apart"
                )
            mantissa = np.asarray(side.mantissa)
            if side.rounding == "half_away" and self.wide:
                continue  # float64 holds its sums, and multiplies them
            if side.rounding == "half_up":  # with trailing zeros
                mantissa, right = reduced(mantissa, right, least=1)
            try:
                requantize(np.asarray(reach), mantissa, right, side.rounding or self.target.rounding)
            except EquintError as error:
                raise UnsupportedOperator(f"{node.label}: {error}; use fewer bits for weights") from error

    def weighted(
        self,
        node: Node,
        inputs: Sequence[Name],
        output: Name,
        last: tuple[QParams, list[Node]],
        factors: Sequence[Array],
        offset: Array,
    ) -> None:
        """Σ factor_k·(q_k − z_k) + offset in steps of the output's grid, as a Sum at a common power of two."""
        if self.target.arithmetic == "litert":
            self.scaled(node, inputs, output, last, factors, offset)
            return
        (*parts, offset), axis = self.channels(node, *factors, offset)
        low, high, _ = self.clamp(node, last[0], last[1], (axis,))
        far = [farthest(self.grid(i, node.label)) for i in inputs]
        total = sum(float(np.max(np.abs(f))) * r for f, r in zip(parts, far, strict=True))
        total += float(np.max(np.abs(offset)))
        digits = self.target.mantissa_bits
        most = min((1 << (self.target.exponent_bits - 1)) + 1, MOST_SHIFT + 1 - digits)
        largest = max(float(np.max(np.abs(f))) for f in parts)
        places = min(most, power(COEFFICIENT, largest), power(SUM - sum(far) - 1, total))
        if places < max(2 - (1 << (self.target.exponent_bits - 1)), 2 - digits):
            raise UnsupportedOperator(
                f"{node.label}: its inputs or constants are too large for its result; check its ranges"
            )
        coefficients = np.rint(np.ldexp(np.stack(np.broadcast_arrays(*map(np.atleast_1d, parts))), places))
        bias = np.rint(np.ldexp(offset, places)).astype(np.int32)
        arrays = {"coefficients": coefficients.astype(np.int32), "bias": bias}
        mantissa, exponent = np.asarray(1 << (digits - 1), np.int64), np.asarray(1 - places, np.int32)
        how = Requantize(mantissa, exponent, np.zeros((), np.int32), int(last[0].zero_point), low, high)
        how = self.bent(node, how, np.ldexp(1.0, -places), np.ldexp(total, places) + sum(far) + 1, axis)
        self.add("Sum", node, inputs, output, last[0], attrs={"axis": axis}, arrays=arrays, requantize=how)

    def scaled(
        self,
        node: Node,
        inputs: Sequence[Name],
        output: Name,
        last: tuple[QParams, list[Node]],
        factors: Sequence[Array],
        offset: Array,
    ) -> None:
        """One tensor on another grid, as LiteRT's QUANTIZE does it: its multiplier alone."""
        if len(inputs) != 1 or np.size(factors[0]) != 1 or np.any(offset) or not np.all(factors[0] > 0):
            raise UnsupportedOperator(f"{node.label}: LiteRT has no operator that adds and scales so; replace it")
        axis = -1 if (self.graph.rank(node.outputs[0]) or 2) < 2 else 1
        reach = np.asarray(farthest(self.grid(inputs[0], node.label)))
        how = self.requantize(node, np.reshape(factors[0], ()), np.zeros((), np.int32), reach, last, axis)
        arrays = {"coefficients": np.ones((1, 1), np.int32), "bias": np.zeros((), np.int32)}
        self.add("Sum", node, inputs, output, last[0], attrs={"axis": axis}, arrays=arrays, requantize=how)

    def rescaled(self, node: Node, name: Name, last: tuple[QParams, list[Node]], output: Name = "") -> Name:
        """A tensor on another grid, or behind activations, under a name of its own where that changes it."""
        x, (q, activations) = self.grid(name, node.label), last
        if not output and same(x, q):
            return name
        made = output or self.fresh(f"{name}_rescaled")
        if same(x, q):
            self.clipped(node, name, made, q, activations)
        else:
            self.weighted(node, [name], made, last, [np.asarray(float(x.scale) / float(q.scale))], np.zeros(()))
        self.shapes[made] = self.graph.shapes.get(name) or self.shapes.get(name) or ()
        return made

    def clipped(self, node: Node, name: Name, output: Name, q: QParams, activations: list[Node]) -> None:
        """Activations between two tensors of one grid."""
        low, high, axis = self.clamp(node, q, activations, (1, -1))
        self.add("Clip", node, [name], output, q, attrs={"axis": axis}, arrays={"low": low, "high": high})


def same(a: QParams, b: QParams) -> bool:
    """Whether two grids per tensor hold the same values."""
    return all(float(getattr(a, k)) == float(getattr(b, k)) for k in ("scale", "zero_point", "qmin", "qmax"))


def farthest(q: QParams) -> int:
    """The largest |q − z| of a grid."""
    return max(q.qmax - int(q.zero_point), int(q.zero_point) - q.qmin)


def _compound(target: Target, factor: float, shift: Array, span: tuple[int, int], reach: int) -> tuple[int, int]:
    """Mantissa and exponent; where float32 cannot tell the accumulators apart, the nearest of as many digits."""
    bits, exponent_bits = target.mantissa_bits, target.exponent_bits
    if target.mantissa == "nearest":
        return compound(factor, bits, exponent_bits)
    farthest_threshold = max(-span[0], span[1]) / factor * 2.0 ** int(np.max(shift))
    if min(reach, farthest_threshold) <= 1 << FLOAT32_DIGITS or bits <= FLOAT32_DIGITS:
        return provable_compound(factor, shift, *span, reach, bits, exponent_bits, target.rounding)
    mantissa, exponent = compound(factor, FLOAT32_DIGITS, exponent_bits)
    return mantissa << (bits - FLOAT32_DIGITS), exponent


def power(limit: float, value: float) -> int:
    """The largest F with value·2^F ≤ limit."""
    return math.frexp(limit / value)[1] - 1 if value else MOST_SHIFT
