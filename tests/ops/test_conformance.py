"""Every operator × every facet, with onnxruntime as the oracle.

    reads    the network as it was loaded computes what the file does
    moments  mean and spread of what comes out, against samples
    bound    the range of what comes out holds every sample, and is no wider than it has to be
    gain     noise put into one channel arrives at the output as predicted
    scales   a network whose free channels are rescaled computes the same; no freedom is missed
    grid     what becomes integer runs on integer kernels and stays near the float network
    steps    the integer engine is within one step of the QDQ model
    torch    torch computes the same

What an operator does not have is `Unknown` in its description, with the reason, or stands in `HOLES`; what it has wrong
stands in `FAULTS`. All can only shrink: whatever works must be taken out of them.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

import equint
from equint.errors import EquintError
from equint.graph.channels import rescale, solve
from equint.graph.moments import propagate
from equint.graph.placement import borders
from equint.graph.ranges import tensor_ranges
from equint.hardware.target import target
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program
from equint.ir.model import Model, Moments, Range
from equint.noise.constants import NoiseModel
from equint.noise.gains import gains
from equint.onnx.qdq import export
from equint.onnx.writer import to_proto
from equint.ops.operator import Unknown
from equint.ops.table import OPERATORS, op_of
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime.session import Session
from handwritten import Array, execute
from operator_cases import CASES, Case

Floats = NDArray[np.float64]
INDEPENDENT = NoiseModel(likeness=0.0, pooled=0.0)
SPAN = (-(3**0.5), 3**0.5)


class MissingError(AssertionError):
    """A facet that the operator does not have: the message is the reason, as `HOLES` has it."""


# What the facets are measured on


@cache
def session(case: Case, which: str) -> Session:
    return Session(getattr(case, which), threads=1, together=True)  # as onnxruntime runs it


@cache
def original(case: Case) -> Model:
    return equint.load(case.whole)


@cache
def loaded(case: Case) -> Model:
    """The whole network as the walkers see it, and what is known: of its input, and of a and b."""
    model = original(case)
    if case.op == "BatchNormalization":
        model = FoldBatchnorm()(model)
    rank = len(case.shape) + 1
    known = {"x": Moments(np.zeros((1,) * rank), np.ones((1,) * rank), "given")}
    known |= {n: Moments(*m, "given") for n, m in case.known.items() if n in model.graph.producer}
    kept = {n: m for n, m in model.moments.items() if m.origin == "batchnorm"}
    return replace(model, moments=propagate(model.graph, {**kept, **known}))


def images(case: Case, n: int, seed: int = 0) -> Array:
    """Standard normal inputs of the whole network."""
    shape = (n, 2 * case.shape[0], *case.shape[1:])
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def uniform_images(case: Case, n: int) -> Array:
    """Inputs of mean 0 and standard deviation 1 that stay inside a range, as grids want it."""
    shape = (n, 2 * case.shape[0], *case.shape[1:])
    return np.random.default_rng(3).uniform(*SPAN, shape).astype(np.float32)


def result_of(case: Case, which: str, feeds: Mapping[str, Array] | Array) -> Array:
    return next(iter(session(case, which).run(feeds).values()))


def spatial(y: NDArray[Any]) -> tuple[int, ...]:
    return (0, *range(2, y.ndim))


# Facets


def reads(case: Case) -> None:
    """To 1e-5 of the greatest value."""
    x = images(case, 2)
    (found,) = execute(to_proto(original(case).graph), x)
    near(found, result_of(case, "whole", x), 1e-5)


def near(found: Array, wanted: Array, tolerance: float) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * float(np.abs(wanted).max()))


def result(case: Case) -> tuple[str, str]:
    """The tensor to look at and the network that makes it: y, or what is behind it where y was merged with a layer."""
    return ("y", "alone") if "y" in loaded(case).graph.producer else (case.output, "rear")


def moments(case: Case) -> None:
    """Between what independent positions give and what equal ones do.

    2000 images leave 2 % of a standard deviation in a mean and 2 % in a spread, more with heavy tails: the mean may be
    0.1 standard deviations off, the spread `case.spread`.
    """
    name, which = result(case)
    found = loaded(case).moments.get(name)
    if found is None:
        raise MissingError("no moments")
    apart = statistics(result_of(case, which, case.draws(300)), found.mean.shape)
    equal = statistics(result_of(case, which, case.flat_draws(2000)), found.mean.shape)
    slack = 0.1 * np.maximum(apart[1], equal[1]) + 1e-4
    assert_between(found.mean, apart[0], equal[0], lambda v, sign: v + sign * slack)
    assert_between(found.std, apart[1], equal[1], lambda v, sign: v * case.spread**sign + sign * 1e-3)


def statistics(y: Array, field: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean and standard deviation over the batch and all axes along which the field does not vary."""
    over = unresolved(y, field)
    return y.mean(over, np.float64, keepdims=True), y.std(over, np.float64, keepdims=True)


def unresolved(y: NDArray[Any], field: tuple[int, ...]) -> tuple[int, ...]:
    assert len(field) == y.ndim
    return (0, *(d for d in range(1, y.ndim) if field[d] == 1))


def assert_between(found: Floats, one: Floats, other: Floats, widened: Callable[[Floats, int], Floats]) -> None:
    low, high = widened(np.minimum(one, other), -1), widened(np.maximum(one, other), 1)
    assert np.all((low <= found) & (found <= high)), f"{found.ravel()} outside {low.ravel()} … {high.ravel()}"


def bound(case: Case) -> None:
    """No sample lies outside by more than 0.5 % of the width: curves are looked up at 65 points."""
    model, (name, which) = loaded(case), result(case)
    known = {n: m for n, m in model.moments.items() if m.origin != "propagated"}
    given, feeds, rng = dict[str, Range](), dict[str, Array](), np.random.default_rng(0)
    for n, (mean, std) in case.known.items():
        lo, hi = np.maximum(mean - 3 * std, 0.25 if case.positive else -np.inf), mean + 3 * std
        feeds[n] = rng.uniform(lo, hi, (100, *case.shape)).astype(np.float32)
        if n in known:
            given[n], known[n] = Range(lo, hi), Moments((lo + hi) / 2, (hi - lo) / np.sqrt(12), "given")
    found = tensor_ranges(model.graph, propagate(model.graph, known), given, 6.0).get(name)
    if found is None:
        raise MissingError("no range")
    y = result_of(case, which, feeds).astype(np.float64)
    width = found.hi - found.lo
    slack = 0.005 * width + 1e-5
    assert np.all(found.lo - slack <= y), f"{y.min(spatial(y))} below {found.lo.ravel()}"
    assert np.all(y <= found.hi + slack), f"{y.max(spatial(y))} above {found.hi.ravel()}"
    seen = np.ptp(y, unresolved(y, width.shape), keepdims=True)
    assert np.all(width <= case.loose * seen + 1e-5), (
        f"{(width / np.maximum(seen, 1e-9)).ravel()} times as wide as seen"
    )


def gain(case: Case) -> None:
    """Of each channel within a factor of 1.15 against the others', and of all within 1.2, as independent noise does.

    Where the operator was folded into the layer in front, the sum alone is compared.
    """
    model = loaded(case)
    inside = case.inputs[0] in model.graph.producer
    entry, which = (case.inputs[0], "rear") if inside else ("x", "whole")
    field, m = gains(model.graph, model.moments, INDEPENDENT).scattered.get(entry), model.moments[entry]
    if field is None:
        raise MissingError("no gain")
    counted = field * np.broadcast_to(np.square(m.mean) + np.square(m.std), field.shape).sum()
    if np.allclose(counted, max(1, round(float(counted.mean()))), rtol=1e-6):
        raise MissingError("weighed as a network output")
    channels = case.shape[0] * (1 if inside else 2)
    found = np.broadcast_to(field.sum(tuple(range(2, field.ndim))).reshape(-1), channels)
    wanted = measured_gain(case, entry, which, np.broadcast_to(m.std.reshape(-1), channels))
    total = found.sum() * signal(model, case.output) / wanted.sum()
    assert 1 / 1.2 < total < 1.2, f"{total} times what was measured"
    share, seen = found / found.sum(), wanted / wanted.sum()
    slack = 0.01 * seen.max()
    if inside:
        assert np.all(share <= 1.15 * seen + slack), f"{share} for {seen}"
        assert np.all(share >= seen / 1.15 - slack), f"{share} for {seen}"


def measured_gain(case: Case, entry: str, which: str, std: Floats) -> Floats:
    """Noise at the output per unit of noise variance in each channel of the entry."""
    rng, n = np.random.default_rng(1), max(300, 9000 // math.prod(case.shape[1:]))
    clean: dict[str, Array] = {"x": images(case, n)} if which == "whole" else case.draws(n)
    before = result_of(case, which, clean).astype(np.float64)
    found = []
    for c, spread in enumerate(std):
        level, noisy = 0.02 * float(spread), clean[entry].copy()
        noisy[:, c] += (level * rng.standard_normal(noisy[:, c].shape)).astype(np.float32)
        after = result_of(case, which, {**clean, entry: noisy}).astype(np.float64)
        found.append(power(after - before) / level**2)
    return np.array(found)


def signal(model: Model, name: str) -> float:
    """Power of an output as its moments tell it, summed over channels: what gains refer to."""
    m = model.moments[name]
    channels = model.graph.shapes[name][1] if m.mean.shape[1] == m.std.shape[1] == 1 else 1
    assert isinstance(channels, int)
    return float((np.square(m.mean) + np.square(m.std)).sum()) * channels


def power(y: Floats) -> float:
    """Mean square over batch and positions, summed over channels."""
    return float(np.square(y).mean(spatial(y)).sum())


def scales(case: Case) -> None:
    """To 1e-4; an operator that commutes with scales, as onnxruntime computes it, could pass them."""
    model = loaded(case)
    channels = solve(model)
    free = np.concatenate([g.classes for g in channels.groups] or [np.zeros(0, np.int64)])
    drawn = np.ones(channels.size)
    drawn[free] = np.maximum(10 ** np.random.default_rng(2).uniform(-1, 1, free.size), channels.floor[free])
    x = images(case, 2)
    (found,) = execute(to_proto(rescale(model, channels, drawn).graph), x)
    near(found, result_of(case, "whole", x), 1e-4)
    if not passes(case):
        could = case.output == "out" and is_homogeneous(case)
        raise MissingError("pins scales that it could pass" if could else "pins scales")


def passes(case: Case) -> bool:
    """Whether channels in front of the operator, and a layer behind it, share a free scale, or it gives new ones."""
    model = loaded(case)
    if any(g.norms for g in solve(model).groups):
        return True
    tables = (set(g.classes) for g in solve(model).groups)
    ids = solve(model).ids
    front = [set(ids[n].ravel()) for n in case.inputs if n in ids]
    return any(t & f for t in tables for f in front) if front else bool(solve(model).groups)


def is_homogeneous(case: Case) -> bool:
    """Whether twice the input gives twice the output."""
    feeds = case.draws(2)
    once, twice = (result_of(case, "alone", {n: k * v for n, v in feeds.items()}) for k in (1, 2))
    return bool(np.allclose(twice, 2 * once, rtol=1e-4, atol=1e-5 * np.abs(once).max()))


def grid(case: Case, folder: Path) -> None:
    """Between the quantizer of the input and the dequantizer of the output nothing but integers; little noise."""
    quantized = equint.quantize(original(case), "cwq-bc", "per-channel", input=SPAN)
    x = uniform_images(case, 16)
    wanted = result_of(case, "whole", x)
    proto = quantized.proto
    deployed = optimized(proto, folder)
    for way in (proto, deployed):
        assert sqnr(wanted, run(way, x)) > case.sqnr, f"{sqnr(wanted, run(way, x)):.1f} dB"
    left = borders(quantized.model.graph)
    kinds = [n.op_type for n in deployed.graph.node]
    integer = kinds.count("QuantizeLinear") <= 1 and kinds.count("DequantizeLinear") <= 1 and "Conv" not in kinds
    if left:
        raise MissingError("said to stay float, but runs in integers" if integer else "stays float")
    if not integer:
        raise MissingError("no integer kernel in onnxruntime")


def optimized(proto: ModelProto, folder: Path) -> ModelProto:
    """What onnxruntime makes of a model before it chooses layouts."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def run(proto: ModelProto, x: Array) -> Array:
    return next(iter(Session(proto, threads=1, together=True).run(x).values()))


def sqnr(signal: Array, noisy: Array) -> float:
    noise = np.square(noisy - signal, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(signal, dtype=np.float64).sum() / max(noise, 1e-30)))


def steps(case: Case) -> None:
    """The operator's steps alone, from the integers of the QDQ model; a refusal names the node."""
    model = equint.quantize(original(case), "lwq", "npu-shift", input=SPAN).model
    try:
        program = lower(model, target("npu-shift"))
    except EquintError as error:
        named(error, model)
        raise MissingError("no integer form") from error
    integers = in_steps(model, program, uniform_images(case, 4))
    made = {o for step in program.steps for o in step.outputs}
    entries = tuple(case.inputs) if made.issuperset(case.inputs) else ("x",)
    end = "y" if "y" in made else program.outputs[0]
    wanted = {o for step in program.steps for o in step.outputs} & {end}
    assert wanted <= integers.keys()
    feeds = {n: integers[n].astype(program.quantized(n, np.zeros(1)).dtype) for n in entries}
    found = Engine(between(program, entries, end), threads=1).run(feeds)[end]
    assert np.abs(found - integers[end]).max() <= 1.001


def named(error: EquintError, model: Model) -> None:
    """A refusal names the node that it is about."""
    labels = "|".join(re.escape(node.label) for node in model.graph.nodes)
    if not re.search(rf"\b({labels})\b", str(error)):
        raise AssertionError(f"names no node: {error}") from error


def in_steps(model: Model, program: Program, x: Array) -> dict[str, Floats]:
    """Every tensor of the program as the QDQ model computes it, in whole steps of its grid."""
    proto = export(model)
    made = {o for node in proto.graph.node for o in node.output}
    names = {n: f"{n}_dequantized" if n in program.inputs else n for n in program.grids}
    taps = {n: t for n, t in names.items() if t in made}
    values = Session(proto, taps=list(taps.values()), threads=1).run(x)
    grids = {n: program.grids[n] for n in taps}
    return {n: np.rint(values[taps[n]] / np.float64(q.scale) + float(q.zero_point)) for n, q in grids.items()}


def between(program: Program, entries: tuple[str, ...], end: str) -> Program:
    """The steps that lead from some tensors to another."""
    wanted, kept = {end}, []
    for step in reversed(program.steps):
        if wanted & set(step.outputs) - set(entries):
            wanted |= {*step.inputs}
            kept.append(step)
    return replace(program, steps=tuple(kept[::-1]), inputs=entries, outputs=(end,))


def in_torch(case: Case) -> None:
    """To 1e-4."""
    torch = pytest.importorskip("torch", reason="needs the extra equint[torch]")
    from equint.torch.executor import module

    torch.set_num_threads(1)
    x = images(case, 2)
    try:
        with torch.no_grad():
            found = module(loaded(case).graph)(torch.from_numpy(x)).numpy()
    except EquintError as error:
        named(error, loaded(case))
        raise MissingError("does not run in torch") from error
    near(found, result_of(case, "whole", x), 1e-4)


FACETS: Mapping[str, Callable[..., None]] = {
    "reads": reads,
    "moments": moments,
    "bound": bound,
    "gain": gain,
    "scales": scales,
    "grid": grid,
    "steps": steps,
    "torch": in_torch,
}

# What is missing today though the operator's description does not say so: its facet is not Unknown, but cannot answer
# for a spelling. Names of operators, or of cases, by facet and reason.


def by_name(reasons: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """(operator or case, facet) → reason."""
    return {(name, facet): why for (facet, why), names in reasons.items() for name in names.split()}


HOLES = by_name(
    {
        ("moments", "no moments"): """
            MatMul-activations Div-of_constant Div-activations Max-activations Max-three Min-activations Equal
            ArgMax LayerNormalization-all
        """,
        ("bound", "no range"): """
            MatMul-activations Equal ArgMax LayerNormalization-all
        """,
        ("gain", "weighed as a network output"): """
            MatMul-biased MatMul-right MatMul-activations Div-of_constant Div-activations Max-activations
            Max-three Min-activations Equal ArgMax
        """,
        ("scales", "pins scales"): """
            LayerNormalization GroupNormalization RMSNormalization
            MatMul-biased Clip-inputs Clip-attributes Clip-constants Clip-above
            HardSwish-by_HardSigmoid HardSwish-by_ReLU6 Swish-by_Sigmoid Swish-by_Sigmoid_first Gelu-by_Erf
            Mish-by_Softplus Mul-itself Div-of_constant ArgMax Pad-value
        """,
        ("scales", "pins scales that it could pass"): """
            MatMul-right Equal ReduceMean-channels Concat-rows
        """,
        ("grid", "no integer kernel in onnxruntime"): """
            ConvTranspose MatMul-biased MatMul-right MatMul-left Relu-pooled PRelu GlobalMaxPool
            Transpose-there_and_back Squeeze-input Squeeze-attribute Split-attribute Split-three Split-number
            Pad-value Pad-channels Pad-reflect Pad-edge Expand SpaceToDepth Resize-linear Resize-aligned
        """,
        ("grid", "said to stay float, but runs in integers"): """
            Softmax Sigmoid Mul-gate Gather Where-mask
        """,
        ("grid", "stays float"): """
            LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization
            MeanVarianceNormalization Clip-channel Tanh HardSigmoid HardSwish Swish Elu
            Softplus Gelu Mish Exp Log Sqrt Reciprocal Erf Abs Neg Floor Ceil Pow Sub-activations
            Div-of_constant Div-activations Sum Max Min Where Equal ReduceMean ReduceMax ReduceMin ReduceSum
            Squeeze-all Cast ConstantOfShape
        """,
        ("steps", "no integer form"): """
            MeanVarianceNormalization Equal AveragePool-ceil ArgMax Resize-sizes
        """,
        ("torch", "does not run in torch"): """
            ArgMax
        """,
    }
)
FAULTS = by_name(
    {
        ("moments", "0.5 ± 0.3, whatever comes in"): "Softmax",
        ("moments", "behind the first bound it is taken as Gaussian"): "Clip-channel",
        ("moments", "x·f(x) in several operators: factors are taken as independent"): (
            "HardSwish-by_ReLU6 Gelu-by_Erf Mish-by_Softplus"
        ),
        ("moments", "jumps fall between the points that are looked up"): "Floor Ceil",
        ("moments", "zeros that count are not averaged in"): "AveragePool-counted",
        ("moments", "channels are averaged as if they were neighbouring positions"): "ReduceMean-channels",
        ("moments", "what is padded does not count"): "Pad-value",
        ("bound", "x·f(x) in several operators: factors are taken as independent"): (
            "HardSwish-by_ReLU6 Gelu-by_Erf Mish-by_Softplus"
        ),
        ("gain", "x·f(x) in several operators: factors are taken as independent"): "HardSwish-by_ReLU6 Gelu-by_Erf",
        ("gain", "positions that differ each count in full"): "Concat-rows",
        ("gain", "axis 1 is taken as the channels, whichever it is"): "Transpose-there_and_back",
        ("gain", "windows at the border hold fewer values"): "AveragePool-padded AveragePool-ceil AveragePool-counted",
        ("gain", "interpolation averages neighbours, noise passes whole"): "Resize-linear Resize-aligned",
        ("gain", "what is padded does not count"): "Pad-value",
    }
)


def expected(table: Mapping[tuple[str, str], str], case: Case, facet: str) -> str | None:
    return table.get((case.id, facet), table.get((case.op, facet)))


def unknown(case: Case, facet: str) -> str | None:
    """Why descriptions of what the network computes with leave a facet open."""
    graph = loaded(case).graph
    nodes = [n for n in graph.nodes if n.op == case.op and graph.is_float(n.outputs[0])]
    described = [getattr(op_of(node), facet, None) for node in nodes]
    return next((d.why for d in described if isinstance(d, Unknown)), None)


@pytest.mark.parametrize("facet", FACETS)
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_conforms(case: Case, facet: str, tmp_path: Path) -> None:
    open_, hole, fault = unknown(case, facet), expected(HOLES, case, facet), expected(FAULTS, case, facet)
    arguments: tuple[Any, ...] = (case, tmp_path) if facet == "grid" else (case,)
    try:
        FACETS[facet](*arguments)
    except MissingError as found:
        if open_ is None and str(found) != hole:
            raise
        pytest.xfail(open_ or hole or "")
    except (AssertionError, EquintError):
        if fault is None:
            raise
        pytest.xfail(fault)
    assert open_ is None, f"it works: its description says {open_}"
    assert hole is None, "it works: take it out of HOLES"
    assert fault is None, "it works: take it out of FAULTS"


def test_every_operator_has_a_case() -> None:
    known = set(OPERATORS) - {"QuantizeLinear", "DequantizeLinear"}
    assert not known - {case.op for case in CASES}


def test_what_is_missing_is_of_operators_that_there_are() -> None:
    names = {case.op for case in CASES} | {case.id for case in CASES}
    assert {name for name, _ in [*HOLES, *FAULTS]} <= names
    assert len({case.id for case in CASES}) == len(CASES)
