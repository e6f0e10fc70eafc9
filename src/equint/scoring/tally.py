"""Running sums over batches: hits on labels, closeness to the float original; nothing is kept per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..ir.model import Array, Name


@dataclass
class Tally:
    """Sums of hits, equal decisions, and, by output, signal and noise."""

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
        """Count top-1 and top-5 hits of `(N, classes)` scores. Raises EquintError: no such scores, or other labels."""
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise UnusableData(f"labels of shape {labels.shape}, {labels.dtype}; give one whole number per sample")
        if labels.min(initial=0) < 0:
            raise UnusableData(f"labels hold {labels.min()}; classes are numbered from 0; correct y")
        if scores.ndim != 2 or labels.max(initial=0) >= scores.shape[1]:
            raise UnusableData(
                f"output of shape {scores.shape} does not classify labels up to {labels.max(initial=0)}; correct y"
            )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        self.labelled += len(labels)
        self.top1 += int(np.sum(best[:, 0] == labels))
        self.top5 += int(np.sum(best == labels[:, None]))

    def add_reference(
        self, outputs: Mapping[Name, Array], reference: Mapping[Name, Array], decides: bool = True
    ) -> None:
        """Compare outputs with the float network's; where it `decides` among classes, their choices too.

        Raises:
            EquintError: the networks' outputs differ in name or shape.
        """
        missing = next((n for n in reference if n not in outputs or outputs[n].shape != reference[n].shape), None)
        if missing is not None:
            raise UnusableData(f"the two networks differ in output {missing}; compare a network with its own original")
        first = next(iter(reference))
        if decides and reference[first].ndim >= 2 and reference[first].shape[1] > 1:
            numbers = reference[first].dtype.kind in "iu"  # decided already, inside the network
            mine, theirs = (v[first] if numbers else v[first].argmax(1) for v in (outputs, reference))
            same = mine == theirs
            self.decisions += same.size
            self.agreed += int(same.sum())
        for name, clean in reference.items():
            a, b = clean.astype(np.float64).ravel(), outputs[name].astype(np.float64).ravel()
            sums = ((self.signal, a @ a), (self.noise, (b - a) @ (b - a)), (self.dot, a @ b), (self.energy, b @ b))
            for table, value in sums:
                table[name] = table.get(name, 0.0) + float(value)

    def results(self) -> dict[str, Any]:
        """Everything measured, in per cent and dB: of the worst output, and by output as `outputs`."""
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
