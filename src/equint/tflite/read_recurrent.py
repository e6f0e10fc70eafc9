"""Recurrent layers, which begin with states of zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.model import Array
from .call import Call, reads

_TFLITE, _ONNX = "ifco", "iofc"  # gates in the order of each: input, forget, cell, output
_WEIGHTS, _RECURRENT, _BIASES = 1, 5, 12
_REFUSED = {
    9: "peepholes", 10: "peepholes", 11: "peepholes", 16: "a projection", 17: "a projection",
    20: "a norm", 21: "a norm", 22: "a norm", 23: "a norm",
}  # fmt: skip


@reads("UNIDIRECTIONAL_SEQUENCE_LSTM")
def _lstm(call: Call) -> None:
    """Input, four weights of it, four of the state, peepholes, four biases, projection, states, norms."""
    for k, what in _REFUSED.items():
        if call.has(k):
            call.refuse(f"has {what}, which are not read")
    if call.option("fused_activation_function") != "TANH":
        call.refuse(f"has the activation {call.option('fused_activation_function')}; TANH is read")
    weight, recurrent, bias = (_gates(call, first) for first in (_WEIGHTS, _RECURRENT, _BIASES))
    units, by_time = weight.shape[0] // 4, bool(call.option("time_major", False))
    names = [
        call.const(array[None], what, np.float32)
        for array, what in ((weight, "W"), (recurrent, "R"), (np.concatenate([bias, 0 * bias]), "B"))
    ]
    x = call.value(0)  # (time, batch, in) for ONNX
    axes = (0, 1, 2) if by_time else (1, 0, 2)
    if x.rank != 3:
        call.refuse(f"takes an input of {x.rank} axes")
    _check_clip(call, x.dims[axes[0]])
    made, *_ = call.draft.add("LSTM", [call.placed(x, axes), *names], call.stem, hidden_size=units)
    plain = call.add("Squeeze", made, call.const([1], "axes"))
    call.give(plain, axes, activated=True)  # inside the cell


def _check_clip(call: Call, steps: int | None) -> None:
    """Refuses a bound of the cell that it can reach: in every step |c| ≤ |f·c| + |i·tanh g| grows by less than 1."""
    clip = float(call.option("cell_clip", 0.0))
    if clip and (steps is None or steps > clip):
        call.refuse(f"has a cell_clip of {clip:g}, which {steps or 'as many'} steps can reach; it is not read")


def _gates(call: Call, first: int) -> Array:
    """Four constants of the gates, one behind the other as ONNX has them."""
    parts: Sequence[Array] = [call.data(first + _TFLITE.index(gate)) for gate in _ONNX]
    return np.concatenate(parts)
