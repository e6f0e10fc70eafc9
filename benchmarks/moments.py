"""Predicted against measured moments on the real networks, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/moments.py > docs/moments-table.md

For each kind of operator: the mean over its tensors of |E[x] predicted − measured|, averaged over channels and
divided by the tensor's root mean square; the worst tensor; and the median over channels and tensors of the
predicted standard deviation over the measured one.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from real import Network, networks

import equint
from equint.ir.model import Array, Graph
from equint.onnx.writer import to_proto
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime.session import Session
from equint.samples.card import described
from equint.samples.data import batches

SAMPLES = 64


def measured(network: Network, graph: Graph) -> dict[str, tuple[Array, Array]]:
    """Mean and standard deviation per channel of every tensor, over calibration inputs."""
    names = [n.outputs[0] for n in graph.nodes if graph.is_float(n.outputs[0])]
    session = Session(to_proto(graph), taps=names)
    sums: dict[str, list[Array]] = {}
    for x, _ in batches(network.card.data["calibration"], network.card, 8, SAMPLES):
        for name, value in session.run(x).items():
            axes = tuple(d for d in range(value.ndim) if d != 1)
            value = value.astype(np.float64)
            part = [np.asarray(value.size / value.shape[1]), value.sum(axes), np.square(value).sum(axes)]
            sums[name] = [a + b for a, b in zip(sums[name], part, strict=True)] if name in sums else part
    means = {n: (s[1] / s[0], s[2] / s[0]) for n, s in sums.items()}
    return {n: (mean, np.sqrt(np.maximum(square - mean**2, 0))) for n, (mean, square) in means.items()}


def main() -> None:
    """Print the table."""
    print("| network | operator | moments from | tensors | mean error of E[x] | worst | std predicted / measured |")
    print("|---|---|---|---|---|---|---|")
    for network in networks():
        model = FoldBatchnorm()(described(equint.load(network.model), network.card))
        truth = measured(network, model.graph)
        rows = defaultdict(list)
        for node in model.graph.nodes:
            name = node.outputs[0]
            if name not in model.moments or name not in truth:
                continue
            mean, std = truth[name]
            predicted = model.moments[name]
            if np.asarray(predicted.mean).size not in (1, mean.size):
                continue
            rms = float(np.sqrt(np.mean(mean**2 + std**2))) or 1.0
            error = float(np.mean(np.abs(np.ravel(predicted.mean) - mean))) / rms
            living = std > 1e-6 * rms
            ratio = (np.broadcast_to(np.ravel(predicted.std), std.shape) / np.maximum(std, 1e-30))[living]
            rows[node.op, predicted.origin].append((error, float(np.median(ratio)) if ratio.size else np.nan))
        for (op, source), found in rows.items():
            errors, ratios = np.array(found).T
            print(
                f"| {network.name} | {op} | {source} | {len(found)} | {errors.mean():.3f} | {errors.max():.3f} |"
                f" {np.nanmedian(ratios):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
