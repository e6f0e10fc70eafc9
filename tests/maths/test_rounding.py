"""Second-order rounding against brute force."""

from itertools import product

import numpy as np
import pytest

from equint.ir.model import Array
from equint.maths.rounding import as_strong, fit_error, output_error, regressed, second_order, uncertainty


def problem(seed: int, rows: int = 6, n: int = 6) -> tuple[Array, Array]:
    """Weights in steps, and second moments of inputs that have much in common."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(400, n)) + 2 * rng.normal(size=(400, 1)) * rng.uniform(0.5, 1.5, n)
    return rng.normal(scale=1.5, size=(rows, n)), inputs.T @ inputs / 400


def exhaustive(weights: Array, moments: Array, lo: int, hi: int) -> Array:
    """The least error of every row: all integers within two steps are tried."""
    best = []
    for row in weights:
        near = [[q for q in range(lo, hi + 1) if abs(q - w) < 2 or q in (lo, hi)] for w in row]
        errors = np.array(list(product(*near)), np.float64) - row
        best.append(output_error(errors, moments).min())
    return np.array(best)


def test_it_comes_near_to_the_best_there_is() -> None:
    total = np.zeros(3)
    for seed in range(20):
        weights, moments = problem(seed)
        damped = moments + 0.01 * np.trace(moments) / 6 * np.eye(6)
        found, nearest = second_order(weights, moments, -4, 4), np.clip(np.rint(weights), -4, 4)
        reached, plain = (output_error(q - weights, damped) for q in (found, nearest))
        best = exhaustive(weights, damped, -4, 4)
        assert np.all(reached >= best - 1e-9), "the oracle is at fault"
        assert np.all(reached <= plain + 1e-9)
        total += reached.sum(), plain.sum(), best.sum()
    assert total[0] < total[2] + 0.1 * (total[1] - total[2])


@pytest.mark.parametrize("sweeps", [0, 2])
def test_groups_and_blocks_are_as_one_by_one(sweeps: int) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 500, 150)) @ rng.normal(size=(3, 150, 150))
    moments, weights = inputs.swapaxes(1, 2) @ inputs / 500, rng.normal(scale=3, size=(3, 4, 150))
    found = second_order(weights, moments, -8, 7, sweeps=sweeps)
    alone = [
        second_order(w[None], m, -8, 7, sweeps=sweeps)[0] for m, ws in zip(moments, weights, strict=True) for w in ws
    ]
    assert np.array_equal(found.reshape(12, 150), np.array(alone))
    assert found.min() >= -8
    assert found.max() <= 7


def test_it_is_optimal_brain_surgery_one_by_one() -> None:
    """Eq. 2 and 3 of GPTQ as printed: round one, let the others make up for it, take its row out of the inverse."""
    weights, moments = problem(3, rows=4, n=7)
    h = moments + 0.01 * np.trace(moments) / 7 * np.eye(7)
    free, inverse, wanted = weights.copy(), np.linalg.inv(h), np.zeros_like(weights)
    for k in range(7):
        wanted[:, k] = np.clip(np.rint(free[:, k]), -4, 4)
        free = free - ((free[:, k] - wanted[:, k]) / inverse[k, k])[:, None] * inverse[k]
        inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    found = second_order(weights, moments, -4, 4, sweeps=0)
    nearest = np.clip(np.rint(weights), -4, 4)
    worse = output_error(wanted - weights, h) >= output_error(nearest - weights, h)
    assert not worse.all()
    assert np.array_equal(found, np.where(worse[:, None], nearest, wanted))


def test_independent_inputs_are_rounded_to_nearest() -> None:
    weights = np.random.default_rng(1).normal(scale=3, size=(5, 9))
    assert np.array_equal(second_order(weights, np.diag(np.arange(9.0)), -4, 3), np.clip(np.rint(weights), -4, 3))


@pytest.mark.parametrize("moments", [np.zeros((4, 4)), np.ones((4, 4)), np.diag([0.0, 1.0, 1.0, 0.0])])
def test_moments_that_have_no_inverse(moments: Array) -> None:
    found = second_order(np.array([[0.4, 0.4, 0.4, 0.4]]), moments, -8, 7)
    assert found.sum() in (0, 2)
    assert (found.sum() == 2) == (moments.sum() == 16)


def test_others_make_up_for_what_saturates() -> None:
    moments = np.full((3, 3), 0.95) + 0.05 * np.eye(3)
    found = second_order(np.array([[5.0, 0.0, 0.0]]), moments, -2, 3)
    assert found.sum() == 5


def noisy(seed: int = 0) -> tuple[Array, Array, Array]:
    """Inputs, the same as a quantized network sees them, and weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3000, 5)) @ rng.normal(size=(5, 5))
    return (
        x,
        x @ (np.eye(5) + 0.1 * rng.normal(size=(5, 5))) + 0.3 * rng.normal(size=(3000, 5)),
        rng.normal(size=(4, 5)),
    )


def test_weights_are_fitted_by_least_squares() -> None:
    x, seen, weights = noisy()
    wanted = np.linalg.lstsq(seen, x @ weights.T, rcond=None)[0].T
    found = regressed(weights, seen.T @ seen / 3000, weights @ x.T @ seen / 3000, 0.0)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_the_ridge_holds_weights_where_they_were(ridge: float) -> None:
    x, seen, weights = noisy()
    h, made = seen.T @ seen / 3000, weights @ x.T @ seen / 3000
    held = np.sqrt(ridge * np.trace(h) / 5 * 3000) * np.eye(5)  # rows that ask for the weights themselves
    wanted = np.linalg.lstsq(np.vstack([seen, held]), np.vstack([x, held]) @ weights.T, rcond=None)[0].T
    np.testing.assert_allclose(regressed(weights, h, made, ridge), wanted, atol=1e-9)
    assert regressed(weights, h, made, np.inf) is weights


def test_nothing_is_fitted_to_inputs_that_do_not_move() -> None:
    weights = np.ones((2, 3))
    assert np.array_equal(regressed(weights, np.zeros((3, 3)), np.zeros((2, 3)), 0.1), weights)


def test_the_error_of_a_fit_is_that_of_its_outputs() -> None:
    x, seen, weights = noisy()
    other = weights + 0.1
    h, made = seen.T @ seen / 3000, weights @ x.T @ seen / 3000
    wanted = np.square(seen @ other.T - x @ weights.T).sum(1).mean() - np.square(x @ weights.T).sum(1).mean()
    np.testing.assert_allclose(fit_error(other, h, made), wanted)


def test_shrinkage_is_nearer_to_the_truth_than_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    truth = np.diag(np.linspace(0.5, 1.5, 30))
    for rows in (10, 30, 100):
        measured, shrunk = 0.0, 0.0
        for _ in range(50):
            drawn = rng.normal(size=(rows, 30)) @ np.sqrt(truth)
            h = drawn.T @ drawn / rows
            damping = float(uncertainty(h, rows))
            mixed = (h + damping * np.trace(h) / 30 * np.eye(30)) / (1 + damping)
            measured, shrunk = measured + np.square(h - truth).sum(), shrunk + np.square(mixed - truth).sum()
        assert shrunk < 0.3 * measured


def test_a_fit_to_noisy_inputs_keeps_its_strength() -> None:
    """x̂ = x + noise: least squares shrinks w by 1/(1 + noise power), which is given back: x·w has its slope again."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20000, 3))
    seen = x + rng.normal(size=x.shape)
    weights = np.array([[1.0, -2.0, 0.5]])
    covariance, made = seen.T @ seen / len(x), weights @ x.T @ seen / len(x)
    fitted = regressed(weights, covariance, made, 0.0)
    np.testing.assert_allclose(fitted, weights / 2, atol=0.05)
    strong = as_strong(fitted, weights, made)
    slopes = [np.polyfit(x @ weights[0], seen @ w[0], 1)[0] for w in (weights, fitted, strong)]
    assert slopes == pytest.approx([1, 0.5, 1], abs=0.05)
