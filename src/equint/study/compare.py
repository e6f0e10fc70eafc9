"""Layer by layer: how far a quantized network's tensors are from its float original's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..files import jsonable
from ..ir.model import Array, Name
from ..maths.chance import sqnr
from ..onnx.qdq import input_spans, views_of
from ..onnx.reader import load_proto
from ..runtime.first_run import ROWS
from ..runtime.session import Session, Source, random_inputs
from ..samples.generated import SIZES, tried_sizes
from ..samples.images import Feed, length
from ..samples.presented import checked, inputs_alone
from ..scoring.verdicts import Verdict, of_sqnr, on_made_up, verdict

CLASSES = 100_000
"""An output of more numbers a sample is no row of scores."""


@dataclass(frozen=True)
class TensorNoise:
    """One tensor's SQNR in dB, its largest float magnitude, and the operator that makes it.

    `not_finite` of its values are NaN or infinite in either network; its SQNR is NaN then. `likely_db`: where the SQNR
    lies on other samples, in 95 % of cases, None where the `samples` do not tell; `result`: whether it is an output, of
    so many numbers a sample.
    """

    tensor: Name
    op: str
    sqnr_db: float
    peak: float
    not_finite: int = 0
    samples: int = 0
    likely_db: tuple[float, float] | None = None
    result: int = 0


@dataclass(frozen=True)
class Comparison:
    """What a quantized network's tensors lost, in its own order; warnings: what speaks against the samples."""

    tensors: tuple[TensorNoise, ...]
    data: str = ""
    task: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """By the worst of the network's outputs, on the samples that were compared; on random ones, roughly."""
        outputs = [t for t in self.tensors if t.result] or list(self.tensors)
        worst = min(outputs, key=lambda t: (not np.isnan(t.sqnr_db), t.sqnr_db))
        task = self.task or ("classification" if len(outputs) == 1 and 1 < worst.result <= CLASSES else "features")
        if np.isnan(worst.sqnr_db):
            return verdict(task, {"sqnr_db": worst.sqnr_db})
        if not self.data:
            return on_made_up(task, worst.sqnr_db, worst.samples)
        return of_sqnr(task, worst.sqnr_db, worst.likely_db, worst.samples)

    def __repr__(self) -> str:
        worst = min((t.sqnr_db for t in self.tensors), key=lambda db: (not np.isnan(db), db))
        return f"Comparison(tensors={len(self.tensors)}, worst={worst:.1f} dB)"

    def facts(self) -> list[dict[str, Any]]:
        """One row for each tensor, ready for JSON."""
        return [jsonable(asdict(t)) for t in self.tensors]


def compare(
    original: Source,
    quantized: Source,
    feeds: Iterable[Array | Mapping[Name, Array]] | None = None,
    label: str = "data",
    progress: Callable[[int], None] | None = None,
    watch: Callable[[Feed], None] | None = None,
) -> tuple[TensorNoise, ...]:
    """SQNR of every tensor that both networks have, in the order of the quantized one.

    Tensors that equalization rescaled or absorption shifted are first brought back to the original's units,
    which models written by equint carry in their metadata.

    Args:
        feeds: batches of input; if left out, random ones within the range that the quantized network's grids take, of
            a size that the original runs on.
        label: how messages name them.
        progress: called before each batch, with how many samples are done; watch: with each batch.

    Raises:
        EquintError: files that cannot be read, or that share no tensor; no range for made-up inputs.
    """
    clean_proto, noisy_proto = (
        load_proto(source) if isinstance(source, (str, os.PathLike)) else source for source in (original, quantized)
    )
    makers = {o: node.op_type for node in clean_proto.graph.node for o in node.output if o}
    made = [o for node in noisy_proto.graph.node for o in node.output if node.op_type == "DequantizeLinear"]
    outputs = [o.name for o in noisy_proto.graph.output]
    shared = [t for t in dict.fromkeys((*made, *outputs)) if t in makers]
    if not shared:
        names = (str(s) if isinstance(s, (str, os.PathLike)) else "the model" for s in (quantized, original))
        raise UnusableData(f"{' shares no tensor with '.join(names)}; compare a network with its own original")
    views = views_of(noisy_proto, quantized)
    clean, noisy = Session(original, taps=shared), Session(quantized, taps=shared)
    sums: dict[Name, list[float]] = {t: [0.0, 0.0, 0.0] for t in shared}
    odd, each, done = dict.fromkeys(shared, 0), dict[Name, list[Array]](), 0
    total = getattr(feeds, "total", None)
    for feed in feeds if feeds is not None else [_made_up(clean, input_spans(noisy_proto, quantized))]:
        if progress is not None:
            progress(done)
        if watch is not None:
            watch(feed)
        done += (count := length(feed))
        a, b = (session.run(checked(feed, session.shapes, label, total)) for session in (clean, noisy))
        for t in shared:
            value = b[t] if t not in views else views[t].scale * (b[t] + views[t].offset)
            if a[t].shape != value.shape:
                raise UnusableData(f"tensor {t} has shape {a[t].shape} in one network and {value.shape} in the other")
            x = a[t].astype(np.float64)
            odd[t] += int(np.count_nonzero(~(np.isfinite(x) & np.isfinite(value))))
            rows = count if x.ndim and len(x) % count == 0 else 1
            powers = (np.square(v).reshape(rows, -1).sum(1) for v in (x, value - x))
            each.setdefault(t, []).append(np.stack(list(powers), 1))
            sums[t][0] += float(np.sum(np.square(x)))
            sums[t][1] += float(np.sum(np.square(value - x)))
            sums[t][2] = max(sums[t][2], float(np.max(np.abs(x), initial=0.0)))
    found = list[TensorNoise]()
    for t, (s, n, p) in sums.items():
        signal, noise = np.concatenate(each[t]).T[:, :, None]
        likely = sqnr(signal, noise) if len(signal) == done else None
        numbers = a[t].size // max(count, 1) if t in outputs else 0
        reached = float("nan") if odd[t] else _decibels(s, n)
        found.append(TensorNoise(t, makers[t], reached, p, odd[t], done, likely, numbers))
    return tuple(found)


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-300) / noise)) if noise else float("inf")


def _made_up(session: Session, spans: Mapping[Name, tuple[float, float]]) -> Mapping[Name, Array]:
    """Random inputs of a size, and of as many rows, as the network runs on.

    Lengths that are told come first, and long waveforms: by a count of 0 a network may divide, which ends the process.
    """
    graph = replace(inputs_alone(session.shapes), dtypes={n: t or "float32" for n, t in session.types.items()})
    unknown = next((name for name in graph.inputs if graph.is_float(name) and name not in spans), None)
    if unknown is not None:
        raise UnusableData(f"{unknown}: nothing tells the range of this input; give --data, or a card that says it")
    usual = [(2, size) for size in tried_sizes(graph)]
    for (rows, size), told in product((*usual, *((rows, SIZES[0]) for rows in ROWS)), (True, False)):
        feed = random_inputs(session, rows, spans, size=size, told=told)
        try:
            session.run(feed)
        except UnusableData:
            continue
        return feed
    raise UnusableData(f"{session.label}: runs on no inputs that were made up; give --data")
