"""The integer engine: runs a Program bit for bit, as fast as onnxruntime's float kernels allow.

A float32 holds integers up to 2^24, so a float convolution of integers whose sums stay below is exact, in whatever
order it adds. Requantization is then a product with the factor and the addition of 1.5·2^23, beyond which a float32
has no fraction left. Both can only rise with the accumulator; that they say what the program says is proven at the
accumulators on both sides of every threshold. Where it cannot be proven, integer operators run instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import UnusableData
from ..ir.model import Array, Name
from ..maths.float_proofs import nudge_of
from ..samples.presented import common_front, fits, in_batches
from .emit import emit, requantized
from .emit_moves import Move
from .joins import joiner
from .kernels import EXACT, MAGIC, RELU
from .maker import Maker
from .program import Program, Requantize, Step
from .steps import Moves, Sums, bound, kind_of
from .twice import dense_in_float64, holds_in_float64, in_float64

_KEPT = (  # optimizations that merge what must be rounded one by one, or take any padding for zeros
    ["ConvMulFusion", "ConvAddFusion", "ConvBNFusion", "MatMulScaleFusion", "MatMulAddFusion", "MatMulBNFusion"]
    + ["GemmSumFusion", "WeightBiasQuantization", "Pad_Fusion", "PadFusion"]
)


@dataclass(frozen=True)
class Proof:
    """How the engine computes one step, and why that is the program's arithmetic.

    `way` is "float" (float kernels, on integers that they hold), "mixed" (float sums, integer requantization),
    "integer" (integer operators), "moves" (nothing is computed) or "real" (in float, as the program says).
    """

    layer: str
    op: str
    way: str
    why: str


class Engine:
    """A program ready to run.

    Args:
        threads: 0 takes as many as there are cores.
        taps: further tensors to return, by name.

    Attributes:
        proof: how each step is computed.

    Raises:
        EquintError: a step of unknown kind, or a tap that the program does not have; the message names it.

    Example:
        >>> from ..ir.model import QParams
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> clip = Step("Clip", "clip", ("x",), ("y",), {"axis": 1}, {"low": np.array(3), "high": np.array(9)})
        >>> engine = Engine(Program((clip,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": (1, 3), "y": (1, 3)}))
        >>> engine.run(np.array([[1, 5, 20]], np.uint8))["y"].tolist()
        [[3, 5, 9]]
        >>> engine.real(np.array([[-1.0, 1.0, 2.5]]))["y"].tolist()
        [[0.0, 1.0, 2.5]]
    """

    def __init__(self, program: Program, threads: int = 0, taps: Sequence[Name] = ()) -> None:
        self.program, self.threads = program, threads
        known = {*program.inputs, *(o for step in program.steps for o in step.outputs)}
        for name in taps:
            if name not in known:
                raise UnusableData(f"{name}: the program has no such tensor; tap one of its steps' outputs")
        self.outputs = tuple(dict.fromkeys((*program.outputs, *taps)))
        compiled = Compiler(program, self.outputs)
        self.proof = tuple(compiled.step(step) for step in program.steps)
        for name in self.outputs:
            compiled.integers(name)
        made = (*program.inputs, *(o for step in program.steps for o in step.outputs))
        types = {n: program.storage(n) for n in made}
        passed = {o: compiled.maker.fresh(f"{o}_again") for o in self.outputs if o in program.inputs}
        for name, again in passed.items():
            compiled.maker.add("Identity", name, to=again)
        types |= {again: types[name] for name, again in passed.items()}
        self._names = [passed.get(o, o) for o in self.outputs]
        self._session = _session(compiled.maker.model(program, types, self._names).SerializeToString(), threads)

    def run(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of all outputs, and taps, for integers of the inputs (an array where there is one input).

        Raises:
            EquintError: an input is missing, or its integers are not of the shape, type or grid that the program has.
        """
        return self._several(self._ran, feeds)

    def _several(
        self, run: Callable[[Mapping[Name, Array]], dict[Name, Array]], feeds: Array | Mapping[Name, Array]
    ) -> dict[Name, Array]:
        """A fixed batch as often as needed; where it is free, all samples at once, or each alone if that fails."""
        given = {n: np.asarray(v) for n, v in self._given(feeds).items()}
        shapes = {n: self.program.shapes.get(n) for n in self.program.inputs}
        size = common_front([shape or () for shape in shapes.values()])
        count = common_front([v.shape for v in given.values()])
        if not count or not all(shape is None or fits(given[n].shape, shape) for n, shape in shapes.items()):
            return run(given)
        if size is not None:
            return in_batches(run, given, count, size)
        try:
            return run(given)
        except UnusableData:
            if count == 1:
                raise
            return in_batches(run, given, count, 1)

    def _ran(self, given: Mapping[Name, Array]) -> dict[Name, Array]:
        checked = {n: _checked(self.program, n, v) for n, v in given.items()}
        try:
            values = self._session.run(self._names, checked)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnusableData(f"{self.program.name}: does not run on this input ({reason})") from error
        return dict(zip(self.outputs, values, strict=True))

    def real(self, x: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Real results for real inputs: quantized, run, multiplied by their scales, and joined where that is float."""
        return self._several(self._real, x)

    def _real(self, given: Mapping[Name, Array]) -> dict[Name, Array]:
        grids = self.program.grids
        found = self._ran({n: self.program.quantized(n, v) if n in grids else v for n, v in given.items()})
        real = {n: self.program.real(n, v) if n in self.program.grids else v for n, v in found.items()}
        return real if self._join is None else {**self._join({**given, **real}), **self._tapped(real)}

    def _tapped(self, real: Mapping[Name, Array]) -> dict[Name, Array]:
        return {n: v for n, v in real.items() if n not in self.program.outputs}

    @cached_property
    def _join(self) -> Callable[[Mapping[Name, Array]], dict[Name, Array]] | None:
        return None if self.program.joins is None else joiner(self.program.joins)

    def trace(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of what every step writes."""
        return self._tracer.run(feeds)

    @cached_property
    def _tracer(self) -> Engine:
        return Engine(self.program, self.threads, [o for step in self.program.steps for o in step.outputs if o])

    def _given(self, feeds: Array | Mapping[Name, Array]) -> Mapping[Name, Array]:
        wanted = self.program.inputs
        given = feeds if isinstance(feeds, Mapping) else {wanted[0]: feeds} if len(wanted) == 1 else {}
        if set(given) != set(wanted):
            raise UnusableData(f"{self.program.name}: give its inputs {', '.join(wanted)} by name")
        return given


def _session(model: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_KEPT))


def _checked(program: Program, name: Name, value: Array) -> Array:
    grid, shape = program.grids.get(name), program.shapes.get(name)
    if grid is not None and value.dtype.kind not in "iu":
        raise UnusableData(f"{name}: the engine takes integers, not {value.dtype}; use real(), which quantizes")
    if shape is not None and (
        len(shape) != value.ndim
        or any(isinstance(n, int) and n != have for n, have in zip(shape, value.shape, strict=True))
    ):
        raise UnusableData(f"{name}: has shape {value.shape}; the program takes {tuple(shape)}")
    if grid is None:
        return value.astype(program.storage(name), copy=False)
    ends = np.iinfo(value.dtype)
    if (ends.min < grid.qmin or ends.max > grid.qmax) and value.size:
        low, high = int(value.min()), int(value.max())
        if low < grid.qmin or high > grid.qmax:
            raise UnusableData(
                f"{name}: holds {low} to {high}, but its grid {grid.qmin} to {grid.qmax}; quantize it first"
            )
    return value.astype(program.storage(name), copy=False)


def nudges(how: Requantize, program: Program, most: int) -> Array | None:
    """`nudge_of` for all channels of one side of a requantization: `()` or `(C,)`, or None where one has none.

    Both signs of a mantissa make the same products, of accumulators of either sign.
    """
    fields = (
        np.abs(how.mantissa.astype(np.int64)),
        how.right(program.mantissa_bits),
        how.low - how.zero_point,
        how.high - how.zero_point,
    )
    table = np.stack(np.broadcast_arrays(*(np.asarray(f, np.int64) for f in fields)), -1)
    rows, where = np.unique(table.reshape(-1, len(fields)), axis=0, return_inverse=True)
    rounding = how.rounding or program.rounding
    found = [nudge_of(m, r, low, high, most, rounding) if m else 0.0 for m, r, low, high in rows.tolist()]
    if None in found:
        return None
    return np.array(found, np.float32)[where].reshape(table.shape[:-1])


class Compiler:
    """Emits steps one by one; every tensor exists as integers, as floats that hold q − z, or as both."""

    def __init__(self, program: Program, wanted: Sequence[Name]) -> None:
        self.program, self.wanted = program, frozenset(wanted)
        names = [*program.inputs, *program.consts, *(o for s in program.steps for o in (*s.outputs, s.name))]
        self.maker = Maker(names)
        self.held = {*program.inputs, *program.consts}  # as integers, under their own name
        self.floats: dict[Name, Name] = {}
        self.flipped: dict[Name, tuple[Name, float]] = {}  # (high − q, high − z) of what is clamped at both ends
        self.readers: dict[Name, list[Step]] = {}
        for step in program.steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)

    def step(self, step: Step) -> Proof:
        """Emit one of them."""
        work = kind_of(step).work
        self.widened(step)
        if isinstance(work, Moves):
            return self.move(step, work)
        return self.sums(step, work) if isinstance(work, Sums) else work.floats(self, step)

    def widened(self, step: Step) -> None:
        """What has 16 bits is moved and clamped as floats, which hold it: few kernels take such integers."""
        if step.op not in ("Table", "Shape"):
            for name in (n for n in step.inputs if n in self.program.grids and self.program.grids[n].bits > 8):
                self.centred(name)

    def proven(self, step: Step, way: str, why: str) -> Proof:
        return Proof(step.name, step.op, way, why)

    def integers(self, name: Name) -> Name:
        """The tensor in the type that holds it."""
        if name and name not in self.held:
            self.held.add(name)
            zero = np.array(self.program.zero_point(name), self.program.storage(name))
            if zero.itemsize > 1:  # quantizers of this opset take bytes alone
                whole = self.maker.add("Add", self.centred(name), zero.astype(np.float32))
                self.maker.cast(whole, zero.dtype, to=name)
            else:
                self.maker.add("QuantizeLinear", self.centred(name), np.float32(1), zero, to=name)
        return name

    def centred(self, name: Name) -> Name:
        """The tensor as float32 of q − z."""
        if name not in self.floats:
            if name in self.flipped:
                below, top = self.flipped[name]
                self.floats[name] = self.maker.add("Sub", np.float32(top), below)
            else:
                zero = np.array(self.program.zero_point(name), self.program.storage(name))
                if zero.itemsize > 1:
                    whole = self.maker.cast(name, np.float32)
                    self.floats[name] = self.maker.add("Sub", whole, zero.astype(np.float32))
                else:
                    self.floats[name] = self.maker.add("DequantizeLinear", name, np.float32(1), zero)
        return self.floats[name]

    def named(self, name: Name) -> Name:
        """A name for a tensor's floats, which are about to be made."""
        self.floats[name] = self.maker.fresh(f"{name}_centred")
        return self.floats[name]

    def whole(self, step: Step, why: str) -> Proof:
        """The step in integer operators."""
        for name in step.inputs:
            self.integers(name)
        emit(self.maker, self.program, step)
        self.held.update(step.outputs)
        return self.proven(step, "integer", why)

    def move(self, step: Step, work: Moves) -> Proof:
        """A move of floats where its inputs are floats, and of integers where they are those."""
        program, maker = self.program, self.maker
        floats = self.floats.keys() | self.flipped.keys()
        if step.op == "Shape":
            inputs = [i if i in self.held else self.centred(i) for i in step.inputs]
            work.form(Move(maker, program, step, inputs, step.outputs, np.dtype(np.int64)))
            self.held.update(step.outputs)
        elif any(i in floats for i in step.inputs):
            inputs = [self.centred(i) if i in program.grids else i for i in step.inputs]
            outputs = [self.named(o) for o in step.outputs]
            work.form(Move(maker, program, step, inputs, outputs, np.dtype(np.float32)))
        else:
            self.whole(step, "")
        return self.proven(step, "moves", "integers are moved or chosen")

    def sums(self, step: Step, work: Sums) -> Proof:
        """A step with an accumulator, in float kernels as far as that is proven."""
        how = step.requantize
        if how is None:  # which is refused there
            return self.whole(step, "")
        if work.floats is None:
            return self.whole(step, "no float kernel computes it")
        if how.rounding == "half_away" and self.program.grids[step.outputs[0]].bits > 8:
            return dense_in_float64(self, step, how, work)
        top = int(bound(step, self.program.grids, self.program.shapes).max(initial=0))
        if top >= EXACT:
            return self.whole(step, f"sums up to {top} exceed 2^24")
        acc = work.floats(self, step)
        if len(how.sides) == 1 and holds_in_float64(how, self.program):
            in_float64(self, step, how, acc)
            return self.proven(step, "float", f"sums up to {top} are exact, float64 holds their products")
        found = [nudges(side, self.program, top) for side in how.sides]
        known = [nudge for nudge in found if nudge is not None]
        if len(known) < len(found):
            requantized(self.maker, self.program, step, self.maker.cast(acc, np.int64))
            self.held.update(step.outputs)
            return self.proven(step, "mixed", f"sums up to {top} are exact, their rounding is not proven")
        if len(known) > 1:
            self.bent(step, how, acc, known)
        else:
            self.requantize(step, how, acc, known[0])
        return self.proven(step, "float", f"sums up to {top} are exact, rounding is proven at every threshold")

    def requantize(self, step: Step, how: Requantize, acc: Name, nudge: Array) -> None:
        """q − z = clamp(((acc·factor + nudge) + MAGIC) − MAGIC)."""
        factor = (how.mantissa * 2.0 ** -how.right(self.program.mantissa_bits)).astype(np.float32)
        low, high = ((b - how.zero_point).astype(np.float32) for b in (how.low, how.high))
        nudged, n, add = bool(np.any(nudge)), self.channels(step), self.maker.add
        flip = bool(n) and low.size == high.size == 1 and low.item() == 0 and self.flippable(step, high.item())
        if n and low.size == high.size == 1:
            acc = add("Relu", acc) if flip else acc
            acc = self.pointwise(acc, n, factor, nudge if nudged else np.float32(MAGIC))
            acc = self.pointwise(acc, n, np.float32(1), np.float32(MAGIC)) if nudged else acc
        else:
            acc = add("Mul", acc, self.program.along(step, factor))
            acc = add("Add", acc, self.program.along(step, nudge)) if nudged else acc
            acc = add("Add", acc, np.float32(MAGIC))
        if flip:  # two cheap maxima, one of them within the layer's own convolution, instead of a clamp
            below = self.pointwise(acc, n, np.float32(-1), np.float32(MAGIC + high.item()), bounds=RELU)
            self.flipped[step.outputs[0]] = below, high.item()
        else:
            self.settle(step, acc, low, high)

    def bent(self, step: Step, how: Requantize, acc: Name, nudges: Sequence[Array]) -> None:
        """The same with another factor, and nudge, for accumulators below 0."""
        add, program, sides = self.maker.add, self.program, list[Name]()
        for side, nudge in zip(how.sides, nudges, strict=True):
            factor = (side.mantissa * 2.0 ** -side.right(program.mantissa_bits)).astype(np.float32)
            product = add("Mul", acc, program.along(step, factor))
            sides.append(add("Add", product, program.along(step, nudge)) if np.any(nudge) else product)
        chosen = add("Where", add("Less", acc, np.float32(0)), sides[1], sides[0])
        low, high = ((b - how.zero_point).astype(np.float32) for b in (how.low, how.high))
        self.settle(step, add("Add", chosen, np.float32(MAGIC)), low, high)

    def flippable(self, step: Step, top: float) -> bool:
        """Whether everything that reads the step's output can read top − (q − z) as well."""
        (y,), readers = step.outputs, self.readers.get(step.outputs[0], [])
        works = [kind_of(r).work for r in readers]
        return y not in self.wanted and all(
            isinstance(w, Sums) and w.reads_flipped(r, top) for r, w in zip(readers, works, strict=True)
        )

    def settle(self, step: Step, moved: Name, low: Array, high: Array) -> None:
        """q − z = clamp(moved − MAGIC)."""
        n, add, y = self.channels(step), self.maker.add, self.named(step.outputs[0])
        if n and low.size == high.size == 1:
            self.pointwise(moved, n, np.float32(1), np.float32(-MAGIC), y, (low.item(), high.item()))
            return
        acc, low, high = add("Sub", moved, np.float32(MAGIC)), *(self.program.along(step, b) for b in (low, high))
        if low.size == high.size == 1:
            add("Clip", acc, low, high, to=y)
        else:
            add("Min", add("Max", acc, low), high, to=y)

    def channels(self, step: Step) -> int:
        """Channels of an output whose steps are images; 0 for others."""
        shape = self.program.shapes.get(step.outputs[0], ())
        return shape[1] if len(shape) == 4 and isinstance(shape[1], int) and step.axis == 1 else 0

    def pointwise(
        self,
        x: Name,
        channels: int,
        weight: Array | np.generic,
        bias: Array | np.generic,
        to: Name = "",
        bounds: Sequence[float] = (),
    ) -> Name:
        """x·weight + bias per channel as a convolution, which stays in the layout of the others around it."""
        w = np.broadcast_to(np.float32(weight), channels).reshape(channels, 1, 1, 1)
        b = np.broadcast_to(np.float32(bias), channels)
        attrs: dict[str, Any] = {"group": channels, "kernel_shape": [1, 1]}
        if bounds == RELU:
            attrs |= {"domain": "com.microsoft", "activation": "Relu"}
        elif bounds:
            attrs |= {"domain": "com.microsoft", "activation": "Clip", "activation_params": list(bounds)}
        return self.maker.add("FusedConv" if bounds else "Conv", x, w, b, to=to, **attrs)
