"""Every pass keeps what it declares to keep, on random networks; and none touches the model that it is given."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from equint.graph.inputs import infer_input
from equint.graph.verify import verify
from equint.ir.model import Array, Growth, Model, QSpec
from equint.onnx.reader import read
from equint.passes import Keeps, Pass
from equint.passes.absorb_bias import AbsorbBias
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.clip_weights import ClipWeights
from equint.passes.correct_bias import CorrectBias
from equint.passes.correct_bias_empirical import CorrectBiasEmpirical
from equint.passes.equalize import Equalize
from equint.passes.finetune_bias import FinetuneBias
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.headroom import Headroom
from equint.passes.layers_only import LayersOnly
from equint.passes.one_step import OneStep
from equint.passes.optimal import Optimal
from equint.passes.prune import Prune
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.passes.round_weights import RoundWeights
from equint.passes.two_step import TwoStep
from equint.passes.weight_shift import WeightShift
from equint.planning.recipe import PASSES
from equint.samples.images import Samples
from nets import Options, networks, sample
from values import assert_close, values

EXACT = 1e-4
"""Of the greatest output: what rounding in float32 may cost."""


@dataclass(frozen=True)
class Case:
    """A pass, the steps that usually come before it, and the networks that it is tried on."""

    step: Pass
    before: tuple[Callable[[Model], Model], ...] = (FoldBatchnorm(),)
    options: Options = field(default_factory=lambda: Options())
    tolerance: float = EXACT  # or else the power of the difference, relative to that of the output
    shown: bool = False  # whether the pass looks at images


def grown(model: Model) -> Model:
    """As if every range had been measured on samples that differ."""
    return replace(model, growth=dict.fromkeys(model.ranges, Growth(0.1, 0.2)))


def far_clips(model: Model) -> Model:
    """Lift the bounds of all clips until nothing reaches them."""
    highs = {n: np.array(1e4, np.float32) for n in model.graph.consts if n.startswith("high")}
    return Model(model.graph.with_consts(highs), model.moments, model.ranges)


SHIFT = QSpec(8, signed=False, symmetric=False, granularity="shift")
FREED = (FoldBatchnorm(), Relu6("channel_clip"))
DESCRIBED = (FoldBatchnorm(), ActivationRanges())
UNPADDED = Options(calibrated=True, blocks=["depthwise_separable", "inverted_residual"], activations=["relu", "relu6"])
CLIPPED = Options(activations=["relu6"])
CASES = {
    "fold_batchnorm": Case(FoldBatchnorm(), ()),
    "relu6 keep": Case(Relu6("keep")),
    "relu6 channel_clip": Case(Relu6("channel_clip"), options=Options(activations=["relu6", "hardswish", "linear"])),
    "relu6 replace": Case(Relu6("replace"), (FoldBatchnorm(), far_clips), Options(activations=["relu6"])),
    "equalize": Case(Equalize(), FREED),
    "equalize with activations": Case(Equalize(activations=0.5, reach_limit=2.0, sweeps=40), FREED),
    "equalize without guards": Case(Equalize(max_scale=1e8, reach_limit=0.0), FREED),
    "equalize before anything else": Case(Equalize(), ()),
    "absorb_bias": Case(AbsorbBias(), options=UNPADDED, tolerance=0.02),
    "activation_ranges": Case(ActivationRanges()),
    "one_step": Case(OneStep(), (*FREED, ActivationRanges())),
    "one_step without shared clips": Case(OneStep(shared_clips=False), DESCRIBED),
    "one_step behind shared clips": Case(OneStep(), (FoldBatchnorm(), far_clips, ActivationRanges()), CLIPPED),
    "two_step": Case(TwoStep(), (*FREED, ActivationRanges())),
    "two_step without shared clips": Case(TwoStep(shared_clips=False), DESCRIBED),
    "two_step behind shared clips": Case(TwoStep(), (FoldBatchnorm(), far_clips, ActivationRanges()), CLIPPED),
    "two_step as printed": Case(TwoStep(as_printed=True), (*FREED, ActivationRanges())),
    "headroom": Case(Headroom(), (*DESCRIBED, grown)),
    "layers_only": Case(LayersOnly(), DESCRIBED),
    "optimal": Case(Optimal(), (*FREED, ActivationRanges()), Options(calibrated=True), tolerance=0.02),
    "optimal with shifts": Case(
        Optimal(SHIFT, shift_bits=4), (*FREED, ActivationRanges()), Options(calibrated=True), tolerance=0.02
    ),
    "prune": Case(Prune(sparsity=0.3)),
    "prune below a threshold": Case(Prune(threshold=0.1)),
    "weight_shift": Case(WeightShift(), DESCRIBED),
    "weight_shift as published": Case(WeightShift(search="nelder-mead", cost="weights")),
    "clip_weights": Case(ClipWeights(), (*DESCRIBED, WeightShift())),
    "clip_weights per channel": Case(ClipWeights(QSpec(4, granularity="channel")), DESCRIBED),
    "quantize with shifts": Case(Quantize(SHIFT), (*DESCRIBED, WeightShift(), ClipWeights())),
    "round shifted weights": Case(RoundWeights(), (*DESCRIBED, WeightShift(), Quantize(SHIFT))),
    "correct_bias of shifted weights": Case(CorrectBias(), (*DESCRIBED, WeightShift(), Quantize(SHIFT))),
    "quantize": Case(Quantize(), DESCRIBED),
    "round_weights": Case(RoundWeights(), (*DESCRIBED, Quantize())),
    "round_weights by inputs": Case(RoundWeights("second-order"), (*DESCRIBED, Quantize()), shown=True),
    "round shifted weights by inputs": Case(
        RoundWeights("second-order"), (*DESCRIBED, WeightShift(), Quantize(SHIFT)), shown=True
    ),
    "round weights by generated pictures": Case(RoundWeights("second-order"), (*DESCRIBED, Quantize())),
    "correct_bias": Case(CorrectBias(), (*DESCRIBED, Quantize())),
    "calibrate": Case(Calibrate(), shown=True),
    "correct_bias_empirical": Case(CorrectBiasEmpirical(), (*DESCRIBED, Quantize()), shown=True),
    "correct_bias of eight bits": Case(CorrectBias(8), (*DESCRIBED, Quantize(bias_bits=8))),
}


def contents(model: Model) -> dict[str, Any]:
    """Everything in a model in a form that can be kept and compared."""
    tables: dict[str, dict[str, tuple[Array, ...]]] = {
        "const": {n: (a,) for n, a in model.graph.consts.items()},
        "moments": {n: (m.mean, m.std) for n, m in model.moments.items()},
        "range": {n: (r.lo, r.hi) for n, r in model.ranges.items()},
        "grid": {n: (q.steps, q.zero_point) for n, q in model.qparams.items()},
        "shift": {n: (s,) for n, s in model.shifts.items()},
        "corrected": {n: (c.channels,) for n, c in model.corrected.items()},
        "view": {n: (v.scale, v.offset) for n, v in model.views.items()},
    }
    copies = {
        f"{kind} {name}": [(np.shape(a), np.asarray(a).dtype, np.asarray(a).tobytes()) for a in arrays]
        for kind, table in tables.items()
        for name, arrays in table.items()
    }
    return {**copies, "nodes": model.graph.nodes, "log": [str(e) for e in model.log]}


def skeleton(model: Model) -> list[tuple[object, ...]]:
    """The nodes without their biases."""
    return [(n.op, n.inputs[:2], n.inputs[3:], n.outputs, dict(n.attrs)) for n in model.graph.nodes]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)
@given(data=st.data())
def test_a_pass_keeps_what_it_promises(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    proto = data.draw(networks(**case.options))
    model = infer_input(read(proto))
    for step in case.before:
        model = step(model)
    chosen: Any = case.step
    run: Pass = replace(chosen, images=Samples.of(sample(proto, 4))) if case.shown else chosen
    before = contents(model)
    after = run(model)
    assert contents(model) == before, "the input was changed"
    assert contents(run(model)) == contents(after), "twice is not the same"
    verify(after)
    if case.step.keeps in (Keeps.FUNCTION, Keeps.NEARLY):
        x = sample(proto)
        for found, wanted in zip(values(after, x), values(model, x), strict=True):
            if case.tolerance == EXACT:
                assert_close(found, wanted)
            else:
                assert np.square(found - wanted).mean() <= case.tolerance * np.square(wanted).mean() + 1e-9
    elif case.step.keeps is Keeps.TOPOLOGY:
        assert skeleton(after) == skeleton(model)
    else:
        assert after.graph.nodes == model.graph.nodes
        assert after.graph.consts.keys() == model.graph.consts.keys()
        assert all(after.graph.consts[name] is value for name, value in model.graph.consts.items())


def test_every_pass_is_tried() -> None:
    # test_finetune_bias.py tries the one that needs torch
    assert {type(case.step) for case in CASES.values()} == set(PASSES.values()) - {FinetuneBias}
