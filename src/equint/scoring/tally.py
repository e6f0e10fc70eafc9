"""Running sums over batches: hits on labels, closeness to the float original, and what both tell of other samples."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..ir.model import Array, Name
from ..maths import chance
from ..maths.chance import Interval


def _floats() -> array[float]:
    return array("d")


@dataclass
class Tally:
    """Sums of hits, equal decisions, and, by output, signal and noise.

    Of each sample are kept: whether it was right, the share of its decisions that are the float network's, and, by
    output, the powers of signal and noise, one behind the other.
    """

    samples: int = 0
    labelled: int = 0
    classes: int = 0
    top1: int = 0
    top5: int = 0
    decisions: int = 0
    agreed: int = 0
    right: bytearray = field(default_factory=bytearray)
    alike: array[float] = field(default_factory=_floats)
    powers: dict[Name, array[float]] = field(default_factory=dict)
    signal: dict[Name, float] = field(default_factory=dict)
    noise: dict[Name, float] = field(default_factory=dict)
    dot: dict[Name, float] = field(default_factory=dict)
    energy: dict[Name, float] = field(default_factory=dict)

    def add_labels(self, scores: Array, labels: Array) -> None:
        """Count top-1 and top-5 hits of `(N, classes)` scores. Raises EquintError: no such scores, or other labels."""
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise UnusableData(f"labels of shape {labels.shape}, {labels.dtype}; give one whole number per sample")
        if labels.min(initial=0) < 0:
            raise UnusableData(f"labels hold {labels.min()}; classes are numbered from 0; correct the labels")
        if scores.ndim != 2 or labels.max(initial=0) >= scores.shape[1]:
            raise UnusableData(
                f"output of shape {scores.shape} does not classify labels up to {labels.max(initial=0)}; correct the "
                "labels"
            )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        self.labelled += len(labels)
        self.classes = scores.shape[1]
        self.right += bytes((best[:, 0] == labels).tolist())
        self.top1 += int(np.sum(best[:, 0] == labels))
        self.top5 += int(np.sum(best == labels[:, None]))

    def add_reference(
        self, outputs: Mapping[Name, Array], reference: Mapping[Name, Array], decides: bool = True, count: int = 1
    ) -> None:
        """Compare outputs with the float network's; where it `decides` among classes, their choices too.

        Args:
            count: samples of the batch: outputs that hold so many rows, or a multiple, are told apart by them.

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
            self.alike.extend(same.reshape(_rows(same, count), -1).mean(1).tolist())
        for name, clean in reference.items():
            a, b = clean.astype(np.float64).ravel(), outputs[name].astype(np.float64).ravel()
            products = ((a, a), (b - a, b - a), (a, b), (b, b))
            tables = (self.signal, self.noise, self.dot, self.energy)
            sums = zip(tables, (np.sum(x * y) for x, y in products), strict=True)  # BLAS adds as its threads are
            for table, value in sums:
                table[name] = table.get(name, 0.0) + float(value)
            each = [np.square(v).reshape(_rows(clean, count), -1).sum(1) for v in (a, b - a)]
            self.powers.setdefault(name, _floats()).extend(np.stack(each, 1).ravel().tolist())

    def merge(self, other: Tally) -> None:
        """Add what was counted behind this.

        Example:
            >>> first, second = Tally(samples=2, signal={"y": 1.0}), Tally(samples=3, signal={"y": 0.5})
            >>> first.merge(second)
            >>> first.samples, first.signal
            (5, {'y': 1.5})
        """
        for counted in ("samples", "labelled", "top1", "top5", "decisions", "agreed", "right", "alike"):
            setattr(self, counted, getattr(self, counted) + getattr(other, counted))
        self.classes = self.classes or other.classes
        for summed in ("signal", "noise", "dot", "energy"):
            mine: dict[Name, float] = getattr(self, summed)
            for name, value in getattr(other, summed).items():
                mine[name] = mine.get(name, 0.0) + value
        for name, each in other.powers.items():
            self.powers.setdefault(name, _floats()).extend(each)

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

    def intervals(self) -> dict[str, Interval]:
        """Where agreement (per cent) and the SQNR of the worst output (dB) lie on other samples, in 95 % of cases.

        What one sample alone, or samples that cannot be told apart, do not tell is left out.
        """
        found = dict[str, Interval | None]()
        if self.samples and self.samples == len(self.alike) == self.decisions:
            found["agreement"] = chance.share(self.agreed, self.samples)
        elif self.samples and self.samples == len(self.alike):
            spread = chance.mean(np.asarray(self.alike)) if min(self.alike) < 1 else chance.share(*[self.samples] * 2)
            found["agreement"] = None if spread is None else Interval(max(spread.low, 0.0), min(spread.high, 1.0))
        found = {key: None if i is None else Interval(100 * i.low, 100 * i.high) for key, i in found.items()}
        if self.signal:
            worst = min(self.signal, key=lambda name: _decibels(self.signal[name], self.noise[name]))
            signal, noise = np.asarray(self.powers[worst]).reshape(-1, 2).T[:, :, None]
            found["sqnr_db"] = chance.sqnr(signal, noise) if len(signal) == self.samples else None
        return {key: interval for key, interval in found.items() if interval is not None}

    @property
    def guessed(self) -> bool:
        """Whether it hits labels no better than guessing would."""
        return self.labelled > 0 and chance.guessed(self.top1, self.labelled, self.classes)

    def turned(self, original: Tally) -> tuple[int, int]:
        """How many samples are wrong now and were right in the float network, and the other way round."""
        now, before = np.asarray(self.right, bool), np.asarray(original.right, bool)
        return int(np.sum(before & ~now)), int(np.sum(now & ~before))


def _rows(value: Array, count: int) -> int:
    """How many samples can be told apart in an output of a batch of `count`: all or none."""
    return count if value.ndim and len(value) % count == 0 else 1


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-300) / noise)) if noise else float("inf")
