"""Descent along gradients of functions of many variables: L-BFGS, which can be interrupted and goes on where it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from ..ir.model import Array

Function = Callable[[Array], tuple[float, Array]]

MEMORY = 10
"""Steps that tell the curvature."""
FALL, SLOPE = 1e-3, 0.9
"""What is enough of a step: the share of the fall that its slope promised, and the share of the slope that is left."""
TRIES = 20
"""Lengths of a step that are tried at most."""
LEAST = 1e-7
"""A step that makes so little less of a function's value is the last."""


class Descent:
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5), steps by the weak Wolfe conditions.

    Args:
        function: a value, and its gradient `(n,)`; a value that is not finite is none to go to.
        x: `(n,)` where to start.

    Attributes:
        x, value: the last point, and the function there.
        settled: whether no step is left that would pay.

    Example:
        >>> valley = lambda x: (float(np.sum([1.0, 100.0] * x**2)), 2 * np.array([1.0, 100.0]) * x)
        >>> descent = Descent(valley, np.array([3.0, 1.0]))
        >>> descent.run(30) < 30, abs(descent.x).round(3).tolist()
        (True, [0.0, 0.0])
    """

    def __init__(self, function: Function, x: Array) -> None:
        self.function, self.x, self.settled = function, x, False
        self.value, self.gradient = function(x)
        self.pairs = deque[tuple[Array, Array, float]](maxlen=MEMORY)

    def run(self, steps: int) -> int:
        """Take so many steps at most; how many were taken."""
        for number in range(steps):
            if self.settled or not self._step():
                self.settled = True
                return number
        return steps

    def _step(self) -> bool:
        direction = self._direction()
        slope = _dot(direction, self.gradient)
        if not slope < 0:  # the curvature remembered is no curvature
            self.pairs.clear()
            direction, slope = -self.gradient, -_dot(self.gradient, self.gradient)
        if slope == 0:
            return False
        length = 1.0 if self.pairs else min(1.0, 1.0 / float(np.sqrt(_dot(self.gradient, self.gradient))))
        found = self._searched(direction, slope, length)
        if found is None:
            again = bool(self.pairs)  # once more along the gradient
            self.pairs.clear()
            return again
        x, value, gradient = found
        moved, change = x - self.x, gradient - self.gradient
        curvature = _dot(moved, change)
        if curvature > 1e-10 * _dot(change, change):
            self.pairs.append((moved, change, curvature))
        pays = self.value - value > LEAST * max(abs(self.value), abs(value), 1.0)
        self.x, self.value, self.gradient = x, value, gradient
        return pays

    def _direction(self) -> Array:
        """−H·g, H being the inverse curvature that the last steps tell."""
        direction, shares = -self.gradient, list[float]()
        for moved, change, curvature in reversed(self.pairs):
            shares.append(_dot(moved, direction) / curvature)
            direction -= shares[-1] * change
        if self.pairs:
            _, change, curvature = self.pairs[-1]
            direction *= curvature / _dot(change, change)
        for (moved, change, curvature), share in zip(self.pairs, reversed(shares), strict=True):
            direction += (share - _dot(change, direction) / curvature) * moved
        return direction

    def _searched(self, direction: Array, slope: float, length: float) -> tuple[Array, float, Array] | None:
        """A point along a direction that falls enough, and where the slope has become flatter; None where none does."""
        low, high, best = 0.0, np.inf, None
        for _ in range(TRIES):
            x = self.x + length * direction
            value, gradient = self.function(x)
            if not np.isfinite(value) or value > self.value + FALL * length * slope:
                bend = value - self.value - length * slope  # of the parabola through both values and the first slope
                wanted = -slope * length**2 / (2 * bend) if np.isfinite(bend) and bend > 0 else 0.0
                high = length
            else:
                best = x, value, gradient
                if _dot(gradient, direction) >= SLOPE * slope:
                    return best
                low, wanted = length, 2 * length
            room = 0.1 * (high - low)
            length = wanted if np.isinf(high) else min(max(wanted, low + room), high - room)
        return best


def _dot(a: Array, b: Array) -> float:
    """Σ a·b in an order that does not hang on the processor, as that of linear algebra's kernels does."""
    return float(np.sum(a * b))
