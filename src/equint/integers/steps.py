"""The table of steps: everything that equint knows of an integer operator stands in its row of `STEPS`.

A tensor's integers are q, its zero point z, and x is q − z. Sums are exact. What makes an accumulator is requantized;
all else keeps the grid. Arrays of shape `(C,)` run along the channel axis, attribute `axis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Graph, Name, QParams, Shape
from ..maths.integer_functions import ROOTS
from . import accumulators as exact
from . import emit_moves as moves
from . import emit_reductions as wide
from . import emit_sums as integer
from . import floats as reals
from . import kernels as floats
from . import mistakes
from . import reductions as whole
from .accumulators import Span, groups_of, outputs_of
from .emit_moves import Move, as_named
from .mistakes import Rewritten, Variant
from .program import Program, Step

if TYPE_CHECKING:
    from .engine import Compiler, Proof
    from .maker import Maker


SMALL = ("uint8", "int8", "uint16", "int16", "int32")
"""Types in which bundles store small integers: the first that holds them all."""


@dataclass(frozen=True)
class Field:
    """An attribute or an array that steps of a kind have; `needs` says in words what `holds` tests.

    `stored` are types in which bundles store an array, the first that holds it, or else its own; `packed` ones are
    stored to the bit, or as a mask and what is not the zero point.
    """

    needs: str = ""
    holds: Callable[[Program, Step, Any], bool] = lambda program, step, value: True
    stored: tuple[str, ...] = ()
    packed: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Sums:
    """How a step is computed that makes an accumulator, which is then requantized.

    Attributes:
        exact: the accumulator less its bias, for x of its inputs: (step, inputs, what padding holds, whether the
            weight's zero point is subtracted).
        bound: the largest magnitude of its partial sums in any order, with the bias: `()` or `(C,)`; for the ends of x
            of each input and the shape of the first.
        integer, floats: the accumulator in ONNX's integer operators; in float kernels, exact where it is below 2^24,
            None where no float kernel computes it.
        reads_flipped: whether these are exact too if they read top − x instead of x, both within 0…top.
    """

    exact: Callable[[Step, Sequence[Array], int, bool], Array]
    bound: Callable[[Step, Sequence[Span], Shape | None], Array]
    integer: Callable[[Maker, Program, Step], Name]
    floats: Callable[[Compiler, Step], Name] | None = None
    reads_flipped: Callable[[Step, float], bool] = lambda step, top: False


@dataclass(frozen=True)
class Values:
    """How a step is computed that makes new values and no accumulator.

    `integer` in integer operators of ONNX; `floats` in the engine's float kernels where they are exact, else in those.
    """

    integer: Callable[[Maker, Program, Step], None]
    floats: Callable[[Compiler, Step], Proof]


@dataclass(frozen=True)
class Moves:
    """How a step is written that moves values, or chooses among them: in one form for integers and for floats."""

    form: Callable[[Move], None]


@dataclass(frozen=True)
class Floats:
    """How the engine computes a step in float; no integer operators do."""

    floats: Callable[[Compiler, Step], Proof]


@dataclass(frozen=True)
class StepKind:
    """What equint knows of one operator: what it computes and how, and the attributes and arrays that it has.

    `mistakes` are attributes of `Variant` by which a device's result may differ; `mistaken` is what such a device
    executes instead; a step with an accumulator is computed from that.
    """

    meaning: str
    work: Sums | Values | Moves | Floats
    attrs: Mapping[str, Field]
    arrays: Mapping[str, Field]
    mistakes: frozenset[str]
    mistaken: Callable[[Program, Step, Variant], Rewritten | None] = lambda program, step, variant: None


def _sums(meaning: str, work: Sums, attrs: Mapping[str, Field], arrays: Mapping[str, Field], *also: str) -> StepKind:
    open_to = {"rounding", "clamp", "shift", "input_zero", "output_zero", *also}
    return StepKind(meaning, work, {**attrs, "axis": _WHOLE}, arrays, frozenset(open_to))


def _relative(meaning: str, work: Sums, attrs: Mapping[str, Field], arrays: Mapping[str, Field]) -> StepKind:
    """Of differences: the input's zero point says nothing."""
    kind = _sums(meaning, work, attrs, arrays)
    return replace(kind, mistakes=kind.mistakes - {"input_zero"})


def _move(form: Callable[[Move], None], meaning: str = "as in ONNX; constant inputs are `Program.consts`") -> StepKind:
    return StepKind(meaning, Moves(form), {}, {}, frozenset())


def _are_whole(values: object, least: float = -inf) -> bool:
    every = values if isinstance(values, list | tuple) else [None]
    return all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in every)


def _for_each(step: Step, values: object, times: int = 1) -> bool:
    """Whether there are so many of them for each spatial dimension."""
    kernel = step.arrays["weight"].shape[2:] if "weight" in step.arrays else step.attrs["kernel_shape"]
    return isinstance(values, Sized) and isinstance(kernel, Sized) and len(values) == times * len(kernel) > 0


def _splits(step: Step, weight: Array) -> bool:
    plain = step.op == "Gemm"
    return (weight.ndim == 2 if plain else weight.ndim > 2) and weight.size > 0 and len(weight) % groups_of(step) == 0


def _are_axes(values: object) -> bool:
    return isinstance(values, list | tuple) and _are_whole(values, 0) and len({*values}) == len(values)


def _are_roots(table: Array) -> bool:
    return bool(np.all(table >= 1 << 14) and np.all(table <= 1 << 15))


def _are_counts(program: Program, step: Step, counts: Array) -> bool:
    return counts.ndim in (0, len(step.attrs["kernel_shape"])) and bool(np.all(counts > 0))


def _has_entries(program: Program, step: Step, table: Array) -> bool:
    q = program.grids[step.inputs[0]]
    return table.ndim in (1, 2) and table.shape[-1] == q.qmax - q.qmin + 1


_WHOLE = Field("a whole number", lambda program, step, v: _are_whole([v]))
_POSITIVE = Field("a whole number above 0", lambda program, step, v: _are_whole([v], 1))
_PADS = Field("2 whole numbers for each dimension", lambda program, step, v: _are_whole(v) and _for_each(step, v, 2))
_EACH = Field(
    "a whole number above 0 for each dimension", lambda program, step, v: _are_whole(v, 1) and _for_each(step, v)
)
_EXTRA = Field("a whole number for each dimension", lambda program, step, v: _are_whole(v, 0) and _for_each(step, v))
_CONV = {"strides": _EACH, "dilations": _EACH, "pads": _PADS, "group": _POSITIVE}


def _per_output(*stored: str) -> Field:
    one = "one, or one for each channel that the layer makes"
    return Field(one, lambda program, step, a: a.shape in ((), (outputs_of(step),)), stored)


def _per_channel(*stored: str) -> Field:
    return Field("one, or one for each channel", lambda program, step, a: a.ndim < 2, stored)


_LAYER = {
    "weight": Field("weights in whole groups", lambda program, step, a: _splits(step, a), SMALL, packed=True),
    "weight_zero_point": _per_output(*SMALL),
    "bias": _per_output("int32"),
}
_ROWS = Field("a row for each input", lambda program, step, a: a.ndim == 2 and len(a) == len(step.inputs))
_EACH_INPUT = Field("one for each input", lambda program, step, a: a.shape == (len(step.inputs),))
_ENTRIES = Field("an entry for each integer of the input's grid", _has_entries)
_SHARES = Field(
    "rows of integers ≥ 0 that sum to 2^bits",
    lambda program, step, a: a.ndim == 2 and bool(np.all(a >= 0) and np.all(a.sum(1) == 1 << step.attrs["bits"])),
)

_AXES = Field("whole numbers from 0 on, none twice", lambda program, step, v: _are_axes(v))
_FLAG = Field("0 or 1", lambda program, step, v: _are_whole([v], 0) and v <= 1)
_FROM_0 = Field("a whole number from 0 on", lambda program, step, v: _are_whole([v], 0))
_DISTANCES = Field(
    "an entry above 0 at 0, and one from 0 on for each distance on the input's grid",
    lambda program, step, a: a.ndim == 1 and _has_entries(program, step, a) and bool(np.all(a >= 0)) and a[0] > 0,
    ("int32",),
)
_ROOTS = Field("192 entries from 2^14 to 2^15", lambda program, step, a: a.shape == (ROOTS,) and _are_roots(a), SMALL)

STEPS: Mapping[str, StepKind] = {
    "Conv": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias; padding adds nothing; weight (O, I/G, *k)",
        Sums(exact.conv, exact.layer_bound, integer.conv, floats.conv, floats.reads_flipped),
        _CONV,
        _LAYER,
        *("bias", "padding", "weight_zero"),
    ),
    "ConvTranspose": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias; weight (I, O/G, *k)",
        Sums(exact.conv_transpose, exact.layer_bound, integer.conv_transpose, floats.conv_transpose),
        {**_CONV, "output_padding": _EXTRA},
        _LAYER,
        *("bias", "weight_zero"),
    ),
    "Gemm": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias over the last axis; weight (O, I)",
        Sums(exact.gemm, exact.layer_bound, integer.gemm, floats.gemm),
        {},
        _LAYER,
        *("bias", "weight_zero"),
    ),
    "Sum": _sums(
        "acc = Σ_k coefficients[k]·x_k + bias; coefficients (K, 1) or (K, C)",
        Sums(exact.weighted_sum, exact.weighted_sum_bound, integer.weighted_sum, floats.weighted_sum),
        {},
        {"coefficients": _ROWS, "bias": _per_channel("int32")},
        "bias",
    ),
    "ScaledSum": _sums(
        "acc = Σ_k signs[k]·round(x_k·2^left·multipliers[k]·2^(exponents[k] − 31)), rounded twice as LiteRT does",
        Sums(exact.scaled_sum, exact.scaled_sum_bound, integer.scaled_sum),
        {"left": _FROM_0},
        {"multipliers": _EACH_INPUT, "exponents": _EACH_INPUT, "signs": _EACH_INPUT},
    ),
    "Mul": _sums(
        "acc = x_a·x_b, broadcast as in ONNX",
        Sums(exact.product, exact.product_bound, integer.product, floats.product),
        {},
        {},
    ),
    "AveragePool": _sums(
        "acc = Σ x over the window, times reciprocals (*spatial), where windows that hold padding count fewer values",
        Sums(exact.average_pool, exact.average_pool_bound, integer.average_pool, floats.average_pool),
        {"kernel_shape": _EACH, "strides": _EACH, "pads": _PADS},
        {"reciprocals": Field(optional=True)},
        "padding",
    ),
    "GlobalAveragePool": _sums(
        "acc = Σ x over all positions",
        Sums(exact.global_pool, exact.global_pool_bound, integer.global_pool, floats.global_pool),
        {},
        {},
    ),
    "MatMul": _sums(
        "acc = Σ_k a_ik·b_kj, batched and broadcast as in ONNX",
        Sums(whole.matmul, whole.matmul_bound, wide.matmul, floats.matmul),
        {},
        {},
    ),
    "ReduceSum": _sums(
        "acc = Σ x over some axes",
        Sums(whole.reduce_sum, whole.reduce_sum_bound, wide.reduce_sum, floats.reduce_sum),
        {"axes": _AXES, "keepdims": _FLAG},
        {},
    ),
    "Div": _sums(
        "acc = ⌊2^20·x_a/x_b⌋, 2^21·x_a where x_b is 0, broadcast as in ONNX",
        Sums(whole.quotient, whole.quotient_bound, wide.quotient),
        {},
        {},
    ),
    "Softmax": _relative(
        "acc = ⌊2^20·e/Σ e⌋ along axis `over`, e = exponentials[max x − x]",
        Sums(whole.softmax, whole.softmax_bound, wide.softmax),
        {"over": _WHOLE},
        {"exponentials": _DISTANCES},
    ),
    "Normalize": _sums(
        "acc = gains·round(2^10·d/√w) + bias, d = N·x − S, w = max(1, N·Σ x² − S² + extra), 1/√w as `reciprocal_roots` "
        "says, over `axes`, or over each of `groups` of channels and all positions; S = Σ x where `centred`, else 0",
        Sums(whole.normalize, whole.normalize_bound, wide.normalize),
        {"axes": _AXES, "groups": _FROM_0, "count": _POSITIVE, "centred": _FLAG, "extra": _FROM_0},
        {"gains": _per_channel("int32"), "bias": _per_channel("int32"), "roots": _ROOTS},
        "bias",
    ),
    "WindowMean": StepKind(
        "q = Σ q / counts over the window, ties away from zero; counts, () or (*spatial), leave padding out",
        Values(integer.window_mean, floats.window_mean),
        {"kernel_shape": _EACH, "strides": _EACH, "pads": _PADS, "axis": _WHOLE},
        {"counts": Field("one above 0, or one for each position", _are_counts, ("int32",))},
        frozenset({"padding"}),
        mistakes.pools_zeros,
    ),
    "Interpolate": StepKind(
        "q = round(rows · q · columnsᵀ / 2^(2·bits)), the last two axes; rows (H', H), columns (W', W)",
        Values(moves.interpolate, floats.interpolate),
        {"bits": Field("a whole number from 1 to 30", lambda program, step, v: _are_whole([v], 1) and v <= 30)},
        {"rows": _SHARES, "columns": _SHARES},
        frozenset({"rounding"}),
        mistakes.rounded_otherwise,
    ),
    "Table": StepKind(
        "q = table[q − qmin] or table[c, q − qmin]: any function of one value",
        Values(moves.table, floats.table),
        {"axis": _WHOLE},
        {"table": _ENTRIES},
        frozenset(),
    ),
    "Clip": StepKind(
        "q = clamp(q, low, high)",
        Values(moves.clip, floats.clip),
        {"axis": _WHOLE},
        {"low": _per_channel(*SMALL), "high": _per_channel(*SMALL)},
        frozenset({"clamp"}),
        mistakes.unclamped,
    ),
    "Pad": StepKind(
        "as in ONNX, by the integer `value`",
        Moves(moves.pad),
        {"value": _WHOLE},
        {"pads": Field()},
        frozenset({"padding"}),
        mistakes.pads_zeros,
    ),
    "MaxPool": StepKind("as in ONNX", Moves(as_named), {}, {}, frozenset({"padding"}), mistakes.pools_zeros),
    "GlobalMaxPool": _move(moves.global_max_pool),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _move(wide.over_axes, "as in ONNX; `axes` are constants")),
    **dict.fromkeys(("Max", "Min"), _move(as_named, "as in ONNX, among integers of one grid")),
    "Where": StepKind(
        "q = q_a where q_x is `value`, else q_b; a and b on one grid",
        Moves(moves.choose),
        {"value": _WHOLE},
        {},
        frozenset(),
    ),
    "Float": StepKind(
        "`graph`, a float network, on real values of what is on a grid, for hardware that has floats too",
        Floats(reals.computed),
        {"graph": Field("a float network", lambda program, step, v: isinstance(v, Graph))},
        {},
        frozenset(),
    ),
    "Quantize": StepKind(
        "q = clamp(z + round(x / scale), qmin, qmax) of a real x, ties away from zero",
        Floats(reals.rounded),
        {},
        {},
        frozenset(),
    ),
    "Resize": _move(moves.resize, "as in ONNX, nearest values alone"),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _move(moves.blocks)),
    **dict.fromkeys(("Concat", "Reshape", "Flatten", "Transpose", "Slice", "Split"), _move(as_named)),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Identity", "Expand", "Gather", "Shape"), _move(as_named)),
}
MOVES = frozenset(op for op, kind in STEPS.items() if isinstance(kind.work, Moves))
"""Steps that move integers, or choose among them."""
LAYERS = frozenset(op for op, kind in STEPS.items() if "weight" in kind.arrays)
"""Steps with weights."""


def kind_of(step: Step) -> StepKind:
    """The step's row of the table.

    Raises:
        EquintError: there is none.

    Example:
        >>> kind_of(Step("Clip", "relu6", ("x",), ("y",))).meaning
        'q = clamp(q, low, high)'
    """
    if step.op not in STEPS:
        raise UnsupportedOperator(f"{step.label}: there is no integer operator {step.op!r}; lower the network again")
    return STEPS[step.op]


def bound(step: Step, grids: Mapping[Name, QParams], shapes: Mapping[Name, Shape]) -> Array:
    """Magnitude that no partial sum of the step's accumulator exceeds, in whatever order: int64, `()` or `(C,)`.

    Args:
        grids: of the step's inputs. shapes: of its first input, if it is known.

    Raises:
        EquintError: the step has no accumulator.

    Example:
        >>> arrays = {"weight": np.array([[3, 4]]), "weight_zero_point": np.array(0), "bias": np.array([-5])}
        >>> grid = QParams(np.float32(1), np.int32(0), signed=False)
        >>> bound(Step("Gemm", "fc", ("x",), ("y",), {"axis": -1}, arrays), {"x": grid}, {}).tolist()
        [1790]
    """
    work = kind_of(step).work
    if not isinstance(work, Sums):
        raise UnsupportedOperator(f"{step.label}: a {step.op} has no accumulator")
    zeros = ((grids[i], int(grids[i].zero_point)) for i in step.inputs)
    return work.bound(step, [(q.qmin - z, q.qmax - z) for q, z in zeros], shapes.get(step.inputs[0]))
