"""Spectra: a Fourier transform as a matrix product, and complex numbers as two values, real and imaginary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.model import Array, Name
from .call import Call, broadcast, reads
from .draft import Value, plain

PARTS = frozenset({"SQUEEZE", "RESHAPE", "EXPAND_DIMS", "TRANSPOSE"})
"""Operators that do the same to both parts of complex numbers."""
COMPLEX = PARTS | {"CAST", "REAL", "IMAG", "COMPLEX_ABS"}
"""Operators that take complex numbers."""


def fourier(size: int, given: int) -> tuple[Array, Array]:
    """The matrices of a transform of real values: (given, size/2 + 1) each, for real and imaginary parts.

    X_k = Σ_n x_n·exp(−2πi·kn/size); what is given beyond `size` is left out, what lacks is zero.

    Example:
        >>> real, imaginary = fourier(4, 4)
        >>> real.astype(int).tolist()
        [[1, 1, 1], [1, 0, -1], [1, -1, 1], [1, 0, -1]]
    """
    n, k = np.arange(given)[:, None], np.arange(size // 2 + 1)
    angles = 2 * np.pi * (n * k % size) / size
    real, imaginary = np.cos(angles), -np.sin(angles)
    real[size:], imaginary[size:] = 0, 0
    return np.round(real, 15).astype(np.float32), np.round(imaginary, 15).astype(np.float32)


@reads("RFFT2D")
def _rfft2d(call: Call) -> None:
    """Of rows: the axis in front of them has size 1, as converters leave it."""
    x, sizes = call.value(0), call.ints(1)
    if x.rank < 2 or len(sizes) != 2 or sizes[0] != 1 or x.dims[-2] != 1 or not x.dims[-1]:
        call.refuse(f"transforms {list(x.dims)} by {sizes}; only single rows of known length are read")
    if not 1 < sizes[1] <= 1 << 14 or x.dims[-1] > 1 << 14:
        call.refuse(f"transforms {x.dims[-1]} values by {sizes[1]}")
    name, matrices = call.plain(0), fourier(sizes[1], x.dims[-1])
    real, imaginary = (call.add("MatMul", name, call.const(m, "fourier", np.float32)) for m in matrices)
    _give_parts(call, Value(real, plain(x.rank), call.dims(), "float32"), imaginary)


def _give_parts(call: Call, real: Value, imaginary: Name) -> None:
    index = call.operator.outputs[0]
    call.scope.known[index] = real
    call.scope.imaginary[index] = Value(imaginary, real.axes, real.dims, "float32")


def both_parts(call: Call, convert: Callable[[Call], None]) -> None:
    """Converts an operator that does the same to both parts of complex numbers."""
    scope, (source, result) = call.scope, (call.operator.inputs[0], call.operator.outputs[0])
    real, own = scope.value(source), scope.names[result]
    scope.known[source], scope.names[result] = scope.imaginary[source], scope.draft.fresh(f"{own}/imaginary")
    convert(call)
    scope.imaginary[result] = scope.known[result]
    scope.known[source], scope.names[result] = real, own
    convert(call)


@reads("REAL")
def _real(call: Call) -> None:
    x = call.value(0)
    call.same(x, x.axes)


@reads("IMAG")
def _imag(call: Call) -> None:
    x = call.scope.imaginary[call.operator.inputs[0]]
    call.same(x, x.axes)


@reads("COMPLEX_ABS")
def _complex_abs(call: Call) -> None:
    """√(real² + imaginary²)."""
    (real, imaginary), axes = broadcast(call, [call.value(0), call.scope.imaginary[call.operator.inputs[0]]])
    squares = [call.add("Mul", part, part) for part in (real, imaginary)]
    call.give(call.add("Sqrt", call.add("Add", *squares)), axes)
