"""Distillation: its loss by hand, its pictures, and that training finds biases that were taken away."""

from collections.abc import Sequence

import numpy as np
import pytest

from equint.ir.model import Array, Graph, Node
from equint.ops.layers import tiny_graph
from equint.samples.images import Samples
from equint.torch.distill import Plan, augmented, distance, distill

torch = pytest.importorskip("torch", reason="needs the extra equint[torch]")


def test_scores_are_compared_softened() -> None:
    """T²·KL(softmax(t/T) ‖ softmax(y/T)), averaged over the batch."""
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))

    def softened(x: Array) -> Array:
        e: Array = np.exp(x / 2.0)
        return np.asarray(e / e.sum(1, keepdims=True))

    p, q = softened(t), softened(y)
    wanted = 4 * (p * np.log(p / q)).sum(1).mean()
    assert float(distance(torch.tensor(y), torch.tensor(t), 2.0)) == pytest.approx(wanted)


def test_probabilities_are_taken_back_to_scores() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    other = scores + torch.tensor([0.3, -0.2, 0.1])
    by_scores = distance(other, scores, 4.0)
    by_probabilities = distance(other.softmax(1), scores.softmax(1), 4.0)
    assert float(by_probabilities) == pytest.approx(float(by_scores), rel=1e-4)


def test_other_outputs_by_their_error_over_power() -> None:
    t = torch.full((2, 1, 3, 3), 2.0)
    assert float(distance(t + 0.2, t, 4.0)) == pytest.approx(0.01)


def test_pictures_are_moved_and_mirrored_but_keep_their_values() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3, 28, 28)).astype(np.float32)
    moved = augmented(x, rng)
    assert moved.shape == x.shape
    for before, after in zip(x, moved, strict=True):
        assert set(np.unique(after)) <= set(np.unique(before))
        middle = before[:, 10:18, 10:18]  # shifts are at most 2: the middle is still there somewhere, maybe mirrored
        windows = [after[:, y : y + 8, z : z + 8] for y in range(8, 13) for z in range(8, 13)]
        assert any(np.array_equal(w, m) for w in windows for m in (middle, middle[:, :, ::-1]))


def test_features_stay_as_they_are() -> None:
    x = np.ones((4, 12), np.float32)
    assert augmented(x, np.random.default_rng(0)) is x


def chain(bias: Sequence[float]) -> Graph:
    """A pointwise convolution with a bias."""
    consts = {
        "w": np.array([[[[1.0]], [[0.5]]], [[[-1.0]], [[2.0]]]], np.float32),
        "b": np.asarray(bias, dtype=np.float32),
    }
    node = Node("Conv", ("x", "w", "b"), ("y",), {"kernel_shape": [1, 1]})
    return Graph((node,), consts, ("x",), ("y",), {"x": ("N", 2, 4, 4), "y": ("N", 2, 4, 4)})


@pytest.mark.slow
def test_a_lost_bias_is_found_again() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2, 4, 4)).astype(np.float32)
    plan = Plan(steps=200, rate=0.05, augment=False)
    found = distill(chain([0.0, 0.0]), {"b": 1.0}, chain([0.7, -0.4]), Samples.of(x), plan)
    np.testing.assert_allclose(found.values["b"], [0.7, -0.4], atol=0.02)
    assert found.after < 1e-3 * found.before
    assert found.images == 40


def test_what_is_right_is_left_alone() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2, 4, 4)).astype(np.float32)
    found = distill(chain([0.7, -0.4]), {"b": 1.0}, chain([0.7, -0.4]), Samples.of(x), Plan(steps=20))
    assert found.step == 0
    np.testing.assert_array_equal(found.values["b"], np.asarray([0.7, -0.4], np.float32))


def test_the_same_seed_gives_the_same_biases() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2, 4, 4)).astype(np.float32)
    once, again = (
        distill(chain([0.0, 0.0]), {"b": 1.0}, chain([0.7, -0.4]), Samples.of(x), Plan(steps=15)) for _ in range(2)
    )
    np.testing.assert_array_equal(once.values["b"], again.values["b"])


def test_steps_are_told() -> None:
    told: list[tuple[int, int]] = []
    x = Samples.of(np.ones((4, 4, 4, 4), np.float32))
    biased = tiny_graph().with_consts({"b": np.zeros(4, np.float32)})
    node = Node("Conv", ("x", "w", "b"), ("y",), biased.nodes[0].attrs)
    graph = Graph((node,), biased.consts, ("x",), ("y",), biased.shapes)
    distill(graph, {"b": 1.0}, tiny_graph(), x, Plan(steps=3), progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_networks_see_as_many_samples_as_they_take(batch: int | None) -> None:
    """A Reshape that says how many samples there are: a lost bias is found again all the same."""
    rng = np.random.default_rng(0)
    shape = Node("Reshape", ("x", "s"), ("r",))
    consts = {"w": rng.normal(size=(6, 3)).astype(np.float32), "s": np.array([batch or -1, 6])}
    nodes, lost = (shape, Node("Gemm", ("r", "w", "b"), ("y",))), np.array([1, 0, -1], np.float32)
    graphs = [Graph(nodes, {**consts, "b": b * lost}, ("x",), ("y",)) for b in (0, 1)]
    images = Samples(lambda: [rng.normal(size=(10, 2, 3)).astype(np.float32)] * 3, batch=batch)
    plan = Plan(steps=60, batch=6, rate=0.1, features=0.0, augment=False)
    found = distill(graphs[0], {"b": 1.0}, graphs[1], images, plan)
    assert found.images == 30
    assert found.after < 0.2 * found.before
