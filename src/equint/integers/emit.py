"""Export as integers only: a Program as ONNX without one float tensor, for runtimes and NPUs that have none.

Sums are made by ConvInteger and MatMulInteger, requantization is a multiplication and a shift in 64 bits.
"""

from __future__ import annotations

import json
from functools import partial

import numpy as np
from onnx import ModelProto, checker, helper

from ..errors import UnreadableModel, UnsupportedOperator, reason
from ..ir.model import Array, Name
from ..maths.affine import storage
from ..maths.fixedpoint import reduced
from .emit_moves import Move
from .maker import Maker
from .program import Program, Requantize, Step
from .steps import Floats, Moves, Sums, bound, kind_of


def export_integer(program: Program) -> ModelProto:
    """The program as an ONNX model of integer operators; tensors keep their names.

    The grids of inputs, outputs and activations are in the metadata as JSON, under "equint.grids", and the target's
    name under "equint.target".

    Raises:
        EquintError: a step that cannot be written, or a sum beyond 32 bits; the message names the layer.

    Example:
        >>> from ..ir.model import QParams
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> clip = Step("Clip", "clip", ("x",), ("y",), {"axis": 1}, {"low": np.array(3), "high": np.array(9)})
        >>> program = Program((clip,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": ("N", 2), "y": ("N", 2)})
        >>> [node.op_type for node in export_integer(program).graph.node]
        ['Clip']
    """
    maker = Maker([*program.grids, *program.consts, *(o for s in program.steps for o in (*s.outputs, s.name))])
    for step in program.steps:
        emit(maker, program, step)
    proto = maker.model(program, {n: storage(q) for n, q in program.grids.items()}, program.outputs)
    grids = {
        name: {"scale": repr(float(q.scale)), "zero_point": int(q.zero_point), "bits": q.bits, "signed": q.signed}
        for name, q in program.grids.items()
    }
    helper.set_model_props(proto, {"equint.grids": json.dumps(grids), "equint.target": program.target})
    try:
        checker.check_model(proto, full_check=True)
    except Exception as error:
        raise UnreadableModel(
            f"{program.name}: its steps do not fit together ({reason(error)}); make it again"
        ) from error
    return proto


def emit(maker: Maker, program: Program, step: Step) -> None:
    """Add the nodes that compute the step's outputs from its inputs, all in the types that hold them."""
    work = kind_of(step).work
    if isinstance(work, Sums):
        acc = maker.cast(work.integer(maker, program, step), np.int64)
        requantized(maker, program, step, acc)
    elif isinstance(work, Moves):
        work.form(Move(maker, program, step, step.inputs, step.outputs, program.storage(step.outputs[0])))
    elif isinstance(work, Floats):
        raise UnsupportedOperator(f"{step.label}: is computed in float, for which networks of integers have no place")
    else:
        work.integer(maker, program, step)


def requantized(maker: Maker, program: Program, step: Step, acc: Name) -> None:
    """The step's output from its accumulator, an int64 tensor; an error where 64 bits do not hold its products."""
    how = step.requantize
    if how is None:
        raise UnsupportedOperator(f"{step.name}: {step.op} has no requantization; lower the network again")
    reach, terms = _whole(bound(step, program.grids, program.shapes)), list[Name]()
    for side, ends in zip(how.sides, ("Max", "Min"), strict=False):  # of two sides one is 0
        mantissa, right = _factors(side, program)
        part = acc if len(how.sides) == 1 else maker.add(ends, acc, np.int64(0))
        product, limit = maker.add("Mul", part, program.along(step, mantissa.astype(np.int64))), reach * abs(mantissa)
        shaped = partial(program.along, step)
        rounding = how.rounding or program.rounding
        terms.append(maker.rounded_shift(product, right, limit, rounding, shaped, step.name))
    zero, low, high = (np.asarray(a, np.int64) for a in (how.zero_point, how.low, how.high))
    q = maker.total(terms)
    q = maker.add("Max", maker.add("Add", q, zero), program.along(step, low))
    q = maker.add("Min", q, program.along(step, high))
    maker.cast(q, program.storage(step.outputs[0]), step.outputs[0])


def _factors(how: Requantize, program: Program) -> tuple[Array, Array]:
    """(mantissa, right) as Python's integers, with as few bits as the factor needs where it rounds once."""
    mantissa, right = np.broadcast_arrays(how.mantissa.astype(np.int64), how.right(program.mantissa_bits))
    if (how.rounding or program.rounding) != "double":
        mantissa, right = reduced(mantissa, right, least=1)
    return _whole(mantissa), _whole(right)


def _whole(values: Array) -> Array:
    return np.atleast_1d(np.asarray(values, np.int64)).astype(object)
