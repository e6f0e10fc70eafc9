import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from equint.ir.model import Array
from equint.maths.descent import Descent


def rosenbrock(x: Array) -> tuple[float, Array]:
    return float(rosen(x)), np.asarray(rosen_der(x))


def test_it_finds_the_floor_of_a_narrow_valley() -> None:
    """Rosenbrock's function is 0 at (1, …, 1) alone."""
    descent = Descent(rosenbrock, np.full(10, -1.2))
    assert descent.run(500) < 500
    assert descent.value == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(descent.x, 1, atol=1e-3)


def test_a_quadratic_takes_few_steps() -> None:
    """20 variables, curvatures over three decades: the minimum is where numpy solves it to be."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    matrix, vector = basis @ np.diag(np.logspace(0, 3, 20)) @ basis.T, rng.normal(size=20)
    descent = Descent(lambda x: (float(x @ matrix @ x / 2 - vector @ x), matrix @ x - vector), np.zeros(20))
    assert descent.run(200) <= 100
    solved = np.linalg.solve(matrix, vector)
    assert descent.value == pytest.approx(-vector @ solved / 2, abs=1e-5)


def test_an_interrupted_descent_goes_on_as_if_it_had_not_been() -> None:
    once, parts = Descent(rosenbrock, np.zeros(4)), Descent(rosenbrock, np.zeros(4))
    once.run(20)
    for _ in range(4):
        parts.run(5)
    np.testing.assert_array_equal(once.x, parts.x)


def test_values_that_are_not_finite_are_gone_around() -> None:
    """x − log x, infinite from 0 on: its minimum is at 1, the first step along its slope far behind 0."""

    def barrier(x: Array) -> tuple[float, Array]:
        if x[0] <= 0:
            return float("inf"), np.zeros(1)
        return float(1000 * (x[0] - np.log(x[0]))), 1000 * (1 - 1 / x)

    descent = Descent(barrier, np.array([0.01]))
    descent.run(100)
    assert descent.x[0] == pytest.approx(1, abs=1e-2)


def test_the_floor_itself_is_settled_at_once() -> None:
    descent = Descent(lambda x: (float(x @ x), 2 * x), np.zeros(3))
    assert descent.run(10) == 0
    assert descent.settled
