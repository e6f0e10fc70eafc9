"""The table of steps: everything that equint knows of an integer operator stands in its row of `STEPS`.

A tensor's integers are q, its zero point z, and x is q − z. Sums are exact. What makes an accumulator is requantized;
all else keeps the grid. Arrays of shape `(C,)` run along the channel axis, attribute `axis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import EquintError
from ..ir.model import Array, Name, QParams, Shape
from . import accumulators, emit_moves, emit_sums, emit_values, kernels, mistakes
from .accumulators import Span
from .emit_moves import Move, as_named, through_int32
from .mistakes import Rewritten, Variant
from .program import Program, Step
from .rules import SMALL, Held, Rule, at_least, channels, entries, matrix, outputs, per_dimension, rows, weight, whole

if TYPE_CHECKING:
    from .compiler import Compiler, Proof
    from .maker import Maker


@dataclass(frozen=True)
class Sums:
    """How a step is computed that makes an accumulator, which is then requantized.

    Attributes:
        exact: the accumulator less its bias, for x of its inputs: (step, inputs, what padding holds, whether the
            weight's zero point is subtracted).
        bound: the largest magnitude of its partial sums in any order, with the bias: `()` or `(C,)`; for the ends of x
            of each input and the shape of the first.
        integer: the accumulator in integer operators of ONNX.
        floats: the accumulator in the engine's float kernels, exact where the bound is below 2^24.
        reads_flipped: whether these are exact too if they read top − x instead of x, both within 0…top.
    """

    exact: Callable[[Step, Sequence[Array], int, bool], Array]
    bound: Callable[[Step, Sequence[Span], Shape | None], Array]
    integer: Callable[[Maker, Program, Step], Name]
    floats: Callable[[Compiler, Step], Name]
    reads_flipped: Callable[[Step, float], bool] = lambda step, top: False


@dataclass(frozen=True)
class Values:
    """How a step is computed that makes new values and no accumulator.

    Attributes:
        integer: in integer operators of ONNX.
        floats: in the engine's float kernels where they are exact, else in integer operators.
    """

    integer: Callable[[Maker, Program, Step], None]
    floats: Callable[[Compiler, Step], Proof]


@dataclass(frozen=True)
class Moves:
    """How a step is written that moves values, or chooses among them: in one form for integers and for floats."""

    form: Callable[[Move], None]


@dataclass(frozen=True)
class StepKind:
    """What equint knows of one operator.

    Attributes:
        meaning: what it computes.
        work: how it is computed.
        attrs: attributes that it must have, and what they must be.
        arrays: constants by role: what they must be, and how bundles store them.
        mistakes: attributes of `Variant` by which a device's result may differ.
        mistaken: what a mistaken device executes instead; a step with an accumulator is computed from that.
    """

    meaning: str
    work: Sums | Values | Moves
    attrs: Mapping[str, Rule]
    arrays: Mapping[str, Held]
    mistakes: frozenset[str]
    mistaken: Callable[[Program, Step, Variant], Rewritten | None] = lambda program, step, variant: None


def _sums(meaning: str, work: Sums, attrs: Mapping[str, Rule], arrays: Mapping[str, Held], *also: str) -> StepKind:
    """A kind of step whose accumulator is requantized."""
    open_to = {"rounding", "clamp", "shift", "input_zero", "output_zero", *also}
    return StepKind(meaning, work, {**attrs, "axis": whole}, arrays, frozenset(open_to))


def _move(
    form: Callable[[Move], None] = as_named, meaning: str = "as in ONNX; constant inputs are `Program.consts`"
) -> StepKind:
    """A kind of step in which a device can hardly be mistaken."""
    return StepKind(meaning, Moves(form), {}, {}, frozenset())


_LAYER = {"weight": weight, "weight_zero_point": outputs(*SMALL), "bias": outputs("int32")}
_WINDOW = {"strides": per_dimension(1, least=1), "pads": per_dimension(2)}
_CONV = {**_WINDOW, "dilations": per_dimension(1, least=1), "group": at_least(1)}

STEPS: Mapping[str, StepKind] = {
    "Conv": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias; padding adds nothing; weight (O, I/G, *k)",
        Sums(accumulators.conv, accumulators.layer_bound, emit_sums.conv, kernels.conv, kernels.reads_flipped),
        _CONV,
        _LAYER,
        *("bias", "padding", "weight_zero"),
    ),
    "ConvTranspose": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias; weight (I, O/G, *k)",
        Sums(accumulators.conv_transpose, accumulators.layer_bound, emit_sums.conv_transpose, kernels.conv_transpose),
        {**_CONV, "output_padding": per_dimension(1)},
        _LAYER,
        *("bias", "weight_zero"),
    ),
    "Gemm": _sums(
        "acc = Σ x·(weight − weight_zero_point) + bias over the last axis; weight (O, I)",
        Sums(accumulators.gemm, accumulators.layer_bound, emit_sums.gemm, kernels.gemm),
        {},
        _LAYER,
        *("bias", "weight_zero"),
    ),
    "Sum": _sums(
        "acc = Σ_k coefficients[k]·x_k + bias; coefficients (K, 1) or (K, C)",
        Sums(accumulators.weighted_sum, accumulators.weighted_sum_bound, emit_sums.weighted_sum, kernels.weighted_sum),
        {},
        {"coefficients": rows, "bias": channels("int32")},
        "bias",
    ),
    "Mul": _sums(
        "acc = x_a·x_b, broadcast as in ONNX",
        Sums(accumulators.product, accumulators.product_bound, emit_sums.product, kernels.product),
        {},
        {},
    ),
    "AveragePool": _sums(
        "acc = Σ x over the window, times reciprocals (*spatial), where windows that hold padding count fewer values",
        Sums(accumulators.average_pool, accumulators.average_pool_bound, emit_sums.average_pool, kernels.average_pool),
        {"kernel_shape": per_dimension(1, least=1), **_WINDOW},
        {"reciprocals": Held(needed=False)},
        "padding",
    ),
    "GlobalAveragePool": _sums(
        "acc = Σ x over all positions",
        Sums(
            accumulators.global_average_pool,
            accumulators.global_average_pool_bound,
            emit_sums.global_average_pool,
            kernels.global_average_pool,
        ),
        {},
        {},
    ),
    "Interpolate": StepKind(
        "q = round(rows · q · columnsᵀ / 2^(2·bits)), the last two axes; rows (H', H), columns (W', W), all ≥ 0, each "
        "row of either summing to 2^bits",
        Values(emit_values.interpolate, kernels.interpolate),
        {"bits": at_least(0)},
        {"rows": matrix, "columns": matrix},
        frozenset({"rounding"}),
        mistakes.rounded_otherwise,
    ),
    "Table": StepKind(
        "q = table[q − qmin] or table[c, q − qmin]: any function of one value",
        Values(emit_values.table, kernels.table),
        {"axis": whole},
        {"table": entries},
        frozenset(),
    ),
    "Clip": StepKind(
        "q = clamp(q, low, high)",
        Values(emit_values.clip, kernels.clip),
        {"axis": whole},
        {"low": channels(*SMALL), "high": channels(*SMALL)},
        frozenset({"clamp"}),
        mistakes.unclamped,
    ),
    "Pad": StepKind(
        "as in ONNX, by the integer `value`",
        Moves(through_int32(emit_moves.pad)),
        {"value": whole},
        {"pads": Held()},
        frozenset({"padding"}),
        mistakes.pads_zeros,
    ),
    "MaxPool": StepKind("as in ONNX", Moves(emit_moves.max_pool), {}, {}, frozenset({"padding"}), mistakes.pools_zeros),
    "GlobalMaxPool": _move(through_int32(emit_moves.global_max_pool)),
    "Resize": _move(through_int32(emit_moves.resize), "as in ONNX, nearest values alone"),
    "DepthToSpace": _move(emit_moves.blocks),
    "SpaceToDepth": _move(emit_moves.blocks),
    **dict.fromkeys(("Concat", "Reshape", "Flatten", "Transpose", "Slice", "Split", "Squeeze"), _move()),
    **dict.fromkeys(("Unsqueeze", "Identity", "Expand", "Gather", "Shape"), _move()),
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
        raise EquintError(f"{step.label}: there is no integer operator {step.op!r}; lower the network again")
    return STEPS[step.op]


def bound(step: Step, grids: Mapping[Name, QParams], shapes: Mapping[Name, Shape]) -> Array:
    """Magnitude that no partial sum of the step's accumulator exceeds, in whatever order: int64, `()` or `(C,)`.

    Args:
        grids: of the step's inputs. shapes: of its first input, if it is known.

    Raises:
        EquintError: the step has no accumulator.

    Example:
        >>> import numpy as np
        >>> arrays = {"weight": np.array([[3, 4]]), "weight_zero_point": np.array(0), "bias": np.array([-5])}
        >>> grid = QParams(np.float32(1), np.int32(0), signed=False)
        >>> bound(Step("Gemm", "fc", ("x",), ("y",), {"axis": -1}, arrays), {"x": grid}, {}).tolist()
        [1790]
    """
    work = kind_of(step).work
    if not isinstance(work, Sums):
        raise EquintError(f"{step.label}: a {step.op} has no accumulator")
    zeros = ((grids[i], int(grids[i].zero_point)) for i in step.inputs)
    return work.bound(step, [(q.qmin - z, q.qmax - z) for q, z in zeros], shapes.get(step.inputs[0]))
