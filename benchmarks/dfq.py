"""Data-free quantization step by step, beside the figures published for it.

    EQUINT_REAL=folder python benchmarks/dfq.py [options] [network ...]

Options: --cache FOLDER (what was measured is kept there), --jobs N, --limit N samples, --images N (64) where a method
looks at images, --sections A,B (steps, tasks, weights, methods); networks by a part of their names. The published
figures stand in columns of their own: they are of other networks on other data.

The simulation is onnxruntime with graph optimizations off. Where a table wants the float network after a rewrite,
weights of 16 bits and float activations stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tables import CLASSIFIERS, FLOAT, INT8, Bench, Line, also, both, printed, run, shown, without

from equint.planning.recipe import Recipe, recipe


def changed(chosen: Recipe, step: str, **options: Any) -> Recipe:
    """A recipe with other options of one of its passes."""
    passes = tuple((name, {**given, **options}) if name == step else (name, given) for name, given in chosen.passes)
    return replace(chosen, passes=passes)


def symmetric(chosen: Recipe) -> Recipe:
    """A recipe whose weights have no zero point."""
    return replace(chosen, weight={**chosen.weight, "symmetric": True})


def empirical(roll_back: bool) -> Recipe:
    """DFQ as published with biases corrected from images instead of moments."""
    start = without("dfq-published", "correct_bias")
    return replace(start, passes=(*start.passes, ("correct_bias_empirical", {"roll_back": roll_back})))


DFQ = recipe("dfq-published")
PUBLISHED = ("MobileNetV2 float / int8", "a re-implementation, MobileNetV2")
STEPS = (
    Line("original: naive int8", recipe("lwq"), published=("71.72 / 0.12", "71.81 / 0.10")),
    Line("bias correction alone", also("lwq", "", ("correct_bias", {})), published=("– / 52.02",)),
    Line("ReLU6 replaced", also("lwq", "calibrate", ("relu6", {"mode": "replace"}))),
    Line(
        "+ equalization",
        without("dfq-published", "absorb_bias", "correct_bias"),
        published=("– / 69.91", "– / 70.32"),
    ),
    Line("+ equalization + correction", without("dfq-published", "absorb_bias"), published=("", "– / 70.79")),
    Line("+ equalization + absorption", without("dfq-published", "correct_bias"), published=("– / 70.92",)),
    Line("full DFQ", DFQ, published=("– / 71.19",)),
    Line("full DFQ, absorbed only where exact", changed(DFQ, "absorb_bias", padded=False)),
    Line("full DFQ, ReLU6 kept", changed(DFQ, "relu6", mode="keep")),
    Line("full DFQ, biases from images", empirical(False), images=True),
    Line("full DFQ, the same, rolled back where it does not help", empirical(True), images=True),
    Line("equint: equalization", without("dfq", "absorb_bias", "correct_bias", "correct_bias_empirical")),
    Line("equint: + absorption", without("dfq", "correct_bias", "correct_bias_empirical")),
    Line("equint: dfq", recipe("dfq")),
    Line(
        "equint: + absorption, a bound per channel",
        without("dfq", "correct_bias", "correct_bias_empirical"),
        "per-tensor-clip",
    ),
    Line("equint: dfq, a bound per channel", recipe("dfq"), "per-tensor-clip"),
    Line("scale per channel, no DFQ", recipe("cwq"), "per-channel", ("71.72 / 70.65",)),
)
"""Tables 1 and 2 of Nagel et al. 2019."""

OTHER_TASKS = ("DeepLabV3+ MobileNetV2, mIoU", "SSDLite MobileNetV2, mAP")
TASKS = (
    Line("naive int8", recipe("lwq"), published=("70.81 / 60.03", "68.70 / –")),
    Line("ReLU6 replaced", also("lwq", "calibrate", ("relu6", {"mode": "replace"})), published=("", "65.47 / –")),
    Line("full DFQ", DFQ, published=("– / 69.46",)),
    Line("full DFQ, ReLU6 kept", changed(DFQ, "relu6", mode="keep")),
    Line("equint: dfq", recipe("dfq")),
    Line("equint: dfq, 64 images", recipe("dfq"), images=True),
    Line("scale per channel, no DFQ", recipe("cwq"), "per-channel"),
)
"""Segmentation and detection; the published DFQ figure is that of equalization and correction."""

GRIDS = (
    Line("DFQ as published, asymmetric", DFQ, published=("71.19",)),
    Line("DFQ as published, symmetric", symmetric(DFQ), published=("71.15",)),
    Line("equint: dfq, asymmetric", recipe("dfq")),
    Line("equint: dfq, symmetric", symmetric(recipe("dfq"))),
    Line("equint: dfq, a bound per channel, asymmetric", recipe("dfq"), "per-tensor-clip"),
    Line("equint: dfq, a bound per channel, symmetric", symmetric(recipe("dfq")), "per-tensor-clip"),
)

METHODS = (
    Line("per layer", recipe("lwq"), published=("", "71.72 / 0.12")),
    Line("per channel", recipe("cwq"), "per-channel", ("", "71.72 / 70.65")),
    Line("DFQ as published", DFQ, published=("70.8 / 70.5", "71.72 / 71.19")),
    Line("equint dfq", recipe("dfq")),
    Line("equint dfq, a bound per channel", recipe("dfq"), "per-tensor-clip"),
    Line("equint optimal", recipe("optimal")),
    Line("equint optimal, a bound per channel", recipe("optimal"), "per-tensor-clip"),
    Line("equint optimal, per channel", recipe("optimal"), "per-channel"),
    Line("equint wes-optimal", recipe("wes-optimal"), "npu-shift"),
)
"""Table 5 of Nagel et al. 2019."""


def steps(bench: Bench) -> None:
    """Equalization, absorption and correction, step by step."""
    rows = bench.rows(STEPS, (FLOAT, INT8), CLASSIFIERS)
    printed("Top-1 after every step, float / int8", STEPS, rows, PUBLISHED, both(rows))


def tasks(bench: Bench) -> None:
    """Segmentation and detection."""
    rows = bench.rows(TASKS, (FLOAT, INT8), ("deeplab", "yolo", "ultraface"))
    printed("Segmentation and detection, float / int8", TASKS, rows, OTHER_TASKS, both(rows))


def weights(bench: Bench) -> None:
    """Weights with and without a zero point."""
    rows = bench.rows(GRIDS, (INT8,), CLASSIFIERS)
    cell: Callable[[str, str], str] = lambda n, t: shown(rows.cells.get((n, t, INT8)))
    printed("Symmetric against asymmetric weights, 8 bits", GRIDS, rows, ("MobileNetV2, int8",), cell)


def methods(bench: Bench) -> None:
    """Methods compared, on every network."""
    rows = bench.rows(METHODS, (INT8,), ())
    published = ("MobileNetV1 float / int8", "MobileNetV2 float / int8")
    cell: Callable[[str, str], str] = lambda n, t: shown(rows.cells.get((n, t, INT8)))
    printed("Methods compared, 8 bits, no data", METHODS, rows, published, cell)


SECTIONS: Mapping[str, Callable[[Bench], None]] = {
    "steps": steps,
    "tasks": tasks,
    "weights": weights,
    "methods": methods,
}

if __name__ == "__main__":
    run(__doc__ or "", SECTIONS)
