"""Knowledge distillation: train a quantized network's biases until it answers as its float original does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import Shelf
from ..ir.model import Array, Graph, Name, View
from ..ops.lazy_torch import functional, torch
from ..samples.images import Run, Samples
from .executor import module

if TYPE_CHECKING:
    from torch import Tensor

SHIFT = 14
"""Augmented pictures are moved by up to this fraction of their size."""
CHECKS = 10
"""How often the held-out images are looked at."""
WARM_UP = 10
"""Steps until the learning rate is reached."""


@dataclass(frozen=True)
class Plan:
    """How to train: `steps` of `batch` images, `rate` relative to how far a layer's outputs spread.

    Attributes:
        temperature: logits are divided by it before they are compared.
        features: weight of the mean error of inner tensors beside that of the outputs.
        held_out: the share of the images that only tells whether training helps.
        augment: whether pictures are mirrored and shifted at random.
    """

    steps: int = 300
    batch: int = 8
    rate: float = 1e-2
    temperature: float = 4.0
    features: float = 30.0
    held_out: float = 0.2
    augment: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Distilled:
    """The trained constants; the loss on the held-out images before and after; the step of the best one."""

    values: Mapping[Name, Array]
    before: float
    after: float
    step: int
    images: int


def distill(
    student: Graph,
    biases: Mapping[Name, float],
    teacher: Graph,
    images: Samples,
    plan: Plan,
    views: Mapping[Name, View] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Distilled:
    """Train constants of `student` so that its outputs come near those of `teacher` on the images.

    The loss is that of Hinton et al. (2015) for scores of classes: T²·KL(softmax(t/T) ‖ softmax(y/T)); for all other
    outputs the mean squared error over the signal's power. To it comes the error of inner tensors over their variance,
    averaged over them: it tells every layer its own target, where outputs alone tell little. Adam with a rate that
    falls as a cosine, straight-through gradients. Of all states that were checked the one with the least held-out loss
    is returned: that of the start where nothing was better.

    Args:
        student: a quantized graph, from `equint.onnx.qdq.qdq_graph`.
        biases: the constants to train, and how far what they are added to spreads.
        views: inner tensors to compare, and how the teacher's values become the student's.
        progress: called with the number of steps done and the number of all.

    Raises:
        EquintError: torch is missing, images that do not fit the network, or operators that torch cannot run.
    """
    views = views or {}
    net = module(replace(student, outputs=(*student.outputs, *views)), tuple(biases))
    original = module(replace(teacher, outputs=(*teacher.outputs, *views)))
    maps = [tuple(torch.tensor(np.asarray(a, np.float32)) for a in (v.scale, v.offset)) for v in views.values()]
    names: Mapping[Name, str] = net.names  # type: ignore[assignment]
    parameters = {name: net.get_parameter(names[name]) for name in biases}
    rng, samples = np.random.default_rng(plan.seed), _Samples(images, student.inputs)
    order = rng.permutation(len(samples))
    hold = int(plan.held_out * len(order))
    held, shown = (order[:hold], order[hold:]) if hold else (order, order)

    def loss(feeds: Sequence[Mapping[Name, Array]]) -> Tensor:
        return torch.stack([part(feed) for feed in feeds]).mean()

    def part(feed: Mapping[Name, Array]) -> Tensor:
        inputs = [torch.from_numpy(feed[n]) for n in student.inputs]
        with torch.no_grad():
            wanted = _several(original(*inputs))
        found = _several(net(*inputs))
        count = len(student.outputs)
        parts = [distance(y, t, plan.temperature) for y, t in zip(found[:count], wanted[:count], strict=True)]
        inner = [
            relative(y, t / scale - offset)
            for y, t, (scale, offset) in zip(found[count:], wanted[count:], maps, strict=True)
        ]
        total = torch.stack(parts).sum()
        return total + plan.features * torch.stack(inner).mean() if inner else total

    def check() -> float:
        with torch.no_grad():
            parts = [held[k : k + plan.batch] for k in range(0, len(held), plan.batch)]
            return sum(float(loss(samples.batch(p))) * len(p) for p in parts) / len(held)

    def state() -> dict[Name, Array]:
        return {name: p.detach().numpy().copy() for name, p in parameters.items()}

    best = before = check()
    step, values = 0, state()
    optimizer = torch.optim.Adam([{"params": [p], "lr": plan.rate * biases[n]} for n, p in parameters.items()])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: _course(k, plan.steps))
    for k, chosen in zip(range(1, plan.steps + 1), _batches(shown, plan.batch, rng), strict=False):
        feeds = samples.batch(chosen)
        optimizer.zero_grad()
        if plan.augment:
            feeds = [{n: augmented(v, rng) for n, v in feed.items()} for feed in feeds]
        error: Any = loss(feeds)
        error.backward()
        optimizer.step()
        schedule.step()
        if k % max(plan.steps // CHECKS, 1) == 0 or k == plan.steps:
            now = check()
            if now < best:
                best, step, values = now, k, state()
        if progress is not None:
            progress(k, plan.steps)
    return Distilled(values, before, best, step, len(order))


def distance(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """How far outputs are from the teacher's, averaged over the batch."""
    if wanted.ndim != 2 or wanted.shape[1] < 2:
        power = wanted.square().mean() + 1e-12
        return (found - wanted).square().mean() / power
    if bool(((wanted >= 0).all(1) & ((wanted.sum(1) - 1).abs() < 1e-3)).all()):  # probabilities: back to logits
        found, wanted = (x.clamp_min(1e-8).log() for x in (found, wanted))
    near, far = (functional.log_softmax(x / temperature, 1) for x in (found, wanted))
    divergence: Tensor = functional.kl_div(near, far, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of an inner tensor over the teacher's variance."""
    return (found - wanted).square().mean() / (wanted.var() + 1e-3 * wanted.square().mean() + 1e-12)


def _several(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def augmented(batch: Array, rng: np.random.Generator) -> Array:
    """Pictures mirrored at random and shifted by up to 1/SHIFT of their size, their edges repeated; else unchanged."""
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        return batch
    height, width = batch.shape[2:]
    y, x = height // SHIFT, width // SHIFT
    wide = np.pad(batch, ((0, 0), (0, 0), (y, y), (x, x)), mode="edge")
    made = []
    for k in range(len(batch)):
        top, left = rng.integers(0, 2 * y + 1), rng.integers(0, 2 * x + 1)
        one = wide[k, :, top : top + height, left : left + width]
        made.append(one[:, :, ::-1] if rng.random() < 0.5 else one)
    return np.ascontiguousarray(np.stack(made))


class _Samples:
    """Single samples on disk, to be drawn in any order."""

    def __init__(self, images: Samples, inputs: Sequence[Name]) -> None:
        self.shelves, self.size = {name: Shelf() for name in inputs}, images.batch
        for feed in images:
            named = feed if isinstance(feed, Mapping) else {inputs[0]: feed}
            for name, shelf in self.shelves.items():
                value = named[name]
                for sample in [value] if isinstance(feed, Run) else np.split(value, len(value)):
                    shelf.append(sample)

    def __len__(self) -> int:
        return len(next(iter(self.shelves.values())))

    def batch(self, chosen: Sequence[int] | Array) -> list[dict[Name, Array]]:
        """Feeds of the chosen samples: one, or as many as a network needs that takes only so many at once."""
        size = self.size or len(chosen)
        parts = [[*chosen[k : k + size]] for k in range(0, len(chosen), size)]
        return [self._feed([*part, *[part[-1]] * ((self.size or 0) - len(part))]) for part in parts]

    def _feed(self, chosen: Sequence[int]) -> dict[Name, Array]:
        rows = {name: [shelf[int(k)] for k in chosen] for name, shelf in self.shelves.items()}
        return {name: np.array(row[0]) if len(row) == 1 else np.concatenate(row) for name, row in rows.items()}


def _batches(order: Array, size: int, rng: np.random.Generator) -> Iterator[Array]:
    while True:
        mixed = rng.permutation(order)
        for k in range(0, max(len(mixed) - size, 0) + 1, size):
            yield mixed[k : k + size]


def _course(step: int, steps: int) -> float:
    """Share of the learning rate at a step: up in a straight line, then down as a cosine."""
    return float(min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / steps)))
