"""How good a network is: accuracy on labels, agreement and SQNR against its float original."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import EquintError
from ..model import Array, Name
from .data import Card, batches


@dataclass
class Tally:
    """Running sums over batches; nothing is kept per sample."""

    samples: int = 0
    labelled: int = 0
    top1: int = 0
    top5: int = 0
    decisions: int = 0
    agreed: int = 0
    signal: dict[Name, float] = field(default_factory=dict)
    noise: dict[Name, float] = field(default_factory=dict)
    dot: dict[Name, float] = field(default_factory=dict)
    energy: dict[Name, float] = field(default_factory=dict)

    def add_labels(self, scores: Array, labels: Array) -> None:
        """Count top-1 and top-5 hits of `(N, classes)` scores."""
        if scores.ndim != 2 or labels.max(initial=0) >= scores.shape[1] or labels.min(initial=0) < 0:
            raise EquintError(f"output of shape {scores.shape} does not classify labels up to {labels.max(initial=0)}")
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        self.labelled += len(labels)
        self.top1 += int(np.sum(best[:, 0] == labels))
        self.top5 += int(np.sum(best == labels[:, None]))

    def add_reference(
        self, outputs: Mapping[Name, Array], reference: Mapping[Name, Array], decides: bool = True
    ) -> None:
        """Compare outputs with the float network's; where it `decides` among classes, their choices too."""
        missing = next((n for n in reference if n not in outputs or outputs[n].shape != reference[n].shape), None)
        if missing is not None:
            raise EquintError(f"the two networks differ in output {missing}; compare a network with its own original")
        first = next(iter(reference))
        if decides and reference[first].ndim >= 2 and reference[first].shape[1] > 1:
            same = outputs[first].argmax(1) == reference[first].argmax(1)
            self.decisions += same.size
            self.agreed += int(same.sum())
        for name, clean in reference.items():
            a, b = clean.astype(np.float64).ravel(), outputs[name].astype(np.float64).ravel()
            sums = ((self.signal, a @ a), (self.noise, (b - a) @ (b - a)), (self.dot, a @ b), (self.energy, b @ b))
            for table, value in sums:
                table[name] = table.get(name, 0.0) + float(value)

    def results(self) -> dict[str, Any]:
        """Everything measured, in per cent and dB."""
        found: dict[str, Any] = {"samples": self.samples}
        if self.labelled:
            found |= {"top1": 100 * self.top1 / self.labelled, "top5": 100 * self.top5 / self.labelled}
        if self.decisions:
            found["agreement"] = 100 * self.agreed / self.decisions
        if self.signal:
            decibels = {n: _decibels(self.signal[n], self.noise[n]) for n in self.signal}
            cosines = {n: self.dot[n] / max((self.signal[n] * self.energy[n]) ** 0.5, 1e-300) for n in self.signal}
            found |= {"sqnr_db": min(decibels.values()), "cosine": min(cosines.values()), "outputs": decibels}
        return found


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-300) / noise)) if noise else float("inf")


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    card: Card,
    against: str | os.PathLike[str] | None = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run a network over data and measure it.

    Args:
        model: ONNX file, float or quantized; or a bundle for NPUs, which the integer engine runs.
        data: .npz, .npy or folder of pictures, prepared as `card` says.
        against: the float original, for agreement, SQNR and cosine similarity.
        optimized: run as deployed, with onnxruntime's optimizations; off is the reference simulation.
        progress: called with the number of samples done.

    Returns:
        samples; top1 and top5 in per cent where there are labels; agreement in per cent, sqnr_db and cosine
        (of the worst output) against the original.

    Raises:
        EquintError: files that cannot be read, shapes that do not fit, or nothing to measure.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> card = Card("gray", (0.0,), (16.0,))
        >>> evaluate(model_path(), data_path(), card, limit=50)["samples"]
        50
    """
    from ..runtime.session import Session

    run, results = _opened(model, optimized)
    reference = Session(against, optimized=True) if against is not None else None
    tally = Tally()
    for x, labels in batches(data, card, limit=limit):
        outputs = run(x)
        tally.samples += len(x)
        if labels is not None and card.task == "classification":
            tally.add_labels(outputs[results[0]], labels)
        elif reference is None:
            raise EquintError(
                f"{data}: no labels of classes (task {card.task}); give --against FLOAT.onnx to compare with"
            )
        if reference is not None:
            tally.add_reference(outputs, reference.run(x), card.task in ("classification", "segmentation"))
        if progress is not None:
            progress(tally.samples)
    return tally.results()


def _opened(
    model: str | os.PathLike[str], optimized: bool
) -> tuple[Callable[[Array], Mapping[Name, Array]], tuple[Name, ...]]:
    """What gives a network's real outputs for a batch, and their names."""
    if os.fspath(model).endswith((".json", ".safetensors")):
        from ..npu.bundle import load_bundle
        from ..runtime.integer import Engine

        engine = Engine(load_bundle(model))
        return engine.real, engine.outputs
    from ..runtime.session import Session

    session = Session(model, optimized)
    return session.run, session.outputs
