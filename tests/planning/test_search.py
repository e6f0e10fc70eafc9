"""Which candidate is kept, against figures that onnxruntime gives on samples that nobody was shown."""

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.job import Job
from equint.onnx.qdq import export
from equint.planning.recipe import Candidate, Recipe, Steps, parse, recipe, source, to_toml, variants
from equint.result import Result
from equint.samples.images import Samples
from handwritten import Array, execute, network, normal

BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) c = Conv(r, v) q = Relu(c) y = Conv(q, u)"
PROTO = network(BODY, w=normal(6, 3, 3, 3), v=normal(6, 6, 3, 3), u=normal(4, 6, 1, 1))
NARROW: dict[str, Any] = {"rule": "n-sigma", "n": 0.5}
WIDE: dict[str, Any] = {}
"""Options of `calibrate`: what cuts off most of what is there, and what does not."""


def images(count: int, seed: int) -> Array:
    return normal(count, 3, 8, 8, seed=seed, scale=0.3)


def one_of(own: dict[str, Any], other: dict[str, Any]) -> Recipe:
    """A recipe that calibrates one way, with a candidate that does so another way."""
    passes: Steps = (("fold_batchnorm", {}), ("calibrate", own), ("activation_ranges", {}), ("quantize", {}))
    return Recipe("own", passes=passes, candidates=(Candidate("other", ("calibrate",), (("calibrate", other),)),))


def events(result: Result, kind: EventKind) -> list[Event]:
    return [e for e in result.model.log if e.kind is kind]


def kept(result: Result) -> Any:
    (event,) = events(result, EventKind.CANDIDATE_KEPT)
    return event.facts["candidate"]


def decibels(result: Result, x: Array) -> float:
    (clean,), (noisy,) = execute(PROTO, x), execute(result.proto, x)
    return float(10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2)))


@pytest.mark.parametrize(("own", "other", "best"), [(NARROW, WIDE, "other"), (WIDE, NARROW, "own")])
def test_what_is_better_on_fresh_samples_is_kept(own: dict[str, Any], other: dict[str, Any], best: str) -> None:
    x, fresh, span = images(24, seed=5), images(64, seed=9), (-1.5, 1.5)
    found = equint.quantize(PROTO, one_of(own, other), input=span, data=x)
    alone = [equint.quantize(PROTO, one_of(way, {}), effort="fast", input=span, data=x) for way in (NARROW, WIDE)]
    assert kept(found) == best
    assert decibels(alone[0], fresh) + 10 < decibels(alone[1], fresh)
    assert decibels(found, fresh) == decibels(alone[1], fresh)  # made of all samples, as it would be alone
    measured = {e.facts["candidate"]: e.facts["SQNR"] for e in events(found, EventKind.CANDIDATE_MEASURED)}
    assert max(measured, key=lambda name: measured[name]) == best
    wide = one_of(WIDE, {})
    steps: Steps = (*wide.passes[:2], ("headroom", {"doublings": 1.0}), *wide.passes[2:])
    half = equint.quantize(PROTO, replace(wide, passes=steps), effort="fast", input=span, data=x[::2])
    assert measured[best] == pytest.approx(decibels(half, x[1::2]), abs=1e-3)


def test_made_up_samples_of_an_input_of_which_nothing_is_known_change_no_choice() -> None:
    chosen = replace(
        one_of(NARROW, WIDE), passes=(("fold_batchnorm", {}), ("activation_ranges", {"n": 0.1}), ("quantize", {}))
    )
    chosen = replace(chosen, candidates=(Candidate("wide", ("activation_ranges",), (("activation_ranges", {}),)),))
    told, untold = (equint.quantize(PROTO, chosen, input=span) for span in ((-4.0, 4.0), None))
    assert kept(told) == "wide"
    assert kept(untold) == "own"
    (event,) = events(untold, EventKind.MEASURED_DOUBTFULLY)
    assert event.warning
    assert event.text == "made-up samples tell little of what it loses"
    assert "nothing tells how far x reaches" in event.facts["why"]
    assert not events(told, EventKind.MEASURED_DOUBTFULLY)


@pytest.mark.parametrize("bits", [2, 8])
def test_a_result_that_loses_much_is_a_warning(bits: int) -> None:
    x, fresh = images(24, seed=5), images(64, seed=9)
    found = equint.quantize(PROTO, "optimal", input=(-1.5, 1.5), data=x, weight_bits=bits)
    warned = events(found, EventKind.MEASURED_LOW)
    assert len(warned) == (decibels(found, fresh) < 15)
    for event in warned:
        assert event.warning
        assert float(event.facts["SQNR"]) == pytest.approx(decibels(found, fresh), abs=3)
        assert "equint diagnose" in event.facts["why"]
        assert "loses much: signal over noise is" in found.summary()


def test_where_much_is_lost_candidates_are_made_whole_and_of_either_half() -> None:
    """What they lose is what either half's network, biases corrected, loses on the other half."""
    x = images(20, seed=5)
    options: dict[str, Any] = {"input": (-1.5, 1.5), "weight_bits": 2}
    late: Steps = (("correct_bias", {}), ("correct_bias_empirical", {}))
    chosen = one_of(WIDE, NARROW)
    found = equint.quantize(PROTO, replace(chosen, passes=(*chosen.passes, *late)), data=x, **options)
    rows = {e.facts["candidate"]: e.facts for e in events(found, EventKind.CANDIDATE_MEASURED)}
    assert {name: row["samples"] for name, row in rows.items()} == {"own": 20, "other": 20}
    steps: Steps = (*chosen.passes[:2], ("headroom", {"doublings": 1.0}), *chosen.passes[2:], *late)
    signal, noise = 0.0, 0.0
    for half, rest in ((x[::2], x[1::2]), (x[1::2], x[::2])):
        whole = Job.of(PROTO, replace(chosen, passes=steps, candidates=()), data=half, **options).run()
        (clean,), (noisy,) = execute(PROTO, rest), execute(export(whole), rest)
        signal, noise = signal + float(np.sum(clean**2)), noise + float(np.sum((noisy - clean) ** 2))
    assert rows["own"]["SQNR"] == pytest.approx(10 * np.log10(signal / noise), abs=0.02)
    assert rows["own"]["SQNR"] < 15
    enough = equint.quantize(PROTO, replace(chosen, passes=(*chosen.passes, *late)), input=(-1.5, 1.5), data=x)
    assert [e.facts["samples"] for e in events(enough, EventKind.CANDIDATE_MEASURED)] == [10, 10]


def test_ranges_too_narrow_for_what_was_not_seen_show() -> None:
    """Every other sample is ten times as large: only who measures on what was left out sees that min-max cuts them."""
    x = images(24, seed=3)
    x[1::2] *= 10
    chosen = replace(one_of({}, {}), candidates=(Candidate("by the input", ("calibrate",)),))
    assert kept(equint.quantize(PROTO, chosen, input=(-15.0, 15.0), data=x)) == "by the input"
    assert kept(equint.quantize(PROTO, chosen, input=(-15.0, 15.0), data=images(24, seed=3))) == "own"


def test_fast_rounds_by_kernels() -> None:
    """Second moments of inputs are spared; a recipe that looks at data for them alone does not refuse any."""
    chosen = one_of(NARROW, WIDE)
    by_inputs, by_kernels = (
        replace(chosen, passes=(*chosen.passes, ("round_weights", {"method": method})))
        for method in ("second-order", "kernel")
    )
    data = images(8, seed=5)
    fast = equint.quantize(PROTO, by_inputs, input=(-1.5, 1.5), data=data, effort="fast")
    wanted = equint.quantize(PROTO, replace(by_kernels, candidates=()), input=(-1.5, 1.5), data=data)
    assert events(fast, EventKind.KERNELS_ROUNDED)
    assert fast.proto == wanted.proto
    alone = replace(by_inputs, passes=tuple(step for step in by_inputs.passes if step[0] != "calibrate"), candidates=())
    assert events(equint.quantize(PROTO, alone, input=(-1.5, 1.5), data=data, effort="fast"), EventKind.KERNELS_ROUNDED)


@pytest.mark.parametrize("shown", [True, False])
def test_a_fast_result_that_loses_much_is_a_warning_too(shown: bool) -> None:
    data = images(8, seed=5) if shown else None
    for bits, low in ((8, False), (2, True)):
        result = equint.quantize(PROTO, input=(-1.5, 1.5), data=data, effort="fast", activation_bits=bits)
        found = [e for e in result.warnings if e.kind is EventKind.MEASURED_LOW]
        assert bool(found) is low
        assert all(e.facts["on"] == ("samples" if shown else "made-up samples") for e in found)


def test_effort_and_single_samples() -> None:
    chosen = one_of(NARROW, WIDE)
    fast = equint.quantize(PROTO, chosen, input=(-1.5, 1.5), data=images(8, seed=5), effort="fast")
    assert not any(e.kind is EventKind.CANDIDATE_KEPT for e in fast.model.log)
    single = equint.quantize(PROTO, chosen, input=(-1.5, 1.5), data=images(1, seed=5))
    (event,) = events(single, EventKind.NOTHING_MEASURED)
    assert event.facts["why"] == "one sample alone tells nothing"
    with pytest.raises(equint.InvalidOption, match="effort = 'slow': choose full or fast"):
        equint.quantize(PROTO, chosen, effort="slow")  # type: ignore[arg-type]


def test_what_candidates_begin_with_alike_runs_once() -> None:
    read = list[int]()

    def batches() -> Iterator[Array]:
        read.append(1)
        yield images(8, seed=5)

    late: Steps = (("quantize", {}), ("correct_bias", {}))
    passes: Steps = (("fold_batchnorm", {}), ("calibrate", {}), ("activation_ranges", {}), *late)
    several = tuple(Candidate(str(k), ("activation_ranges",), (("activation_ranges", {"n": k}),)) for k in (4.0, 5.0))
    counts = []
    for candidates in ((), several):
        read.clear()
        equint.quantize(PROTO, Recipe("own", passes=passes, candidates=candidates), data=Samples(batches))
        counts.append(len(read))
    alone, searched = counts
    assert searched <= alone + 4  # calibrated once more, on half; counted, judged on the other half


def test_made_up_samples_change_a_choice_only_where_it_is_plain() -> None:
    found = equint.quantize(model_path(), input=(0, 1))
    rows = {e.facts["candidate"]: e.facts for e in events(found, EventKind.CANDIDATE_MEASURED)}
    assert set(rows) == {"optimal", "unscaled", "cross-layer", "layers only"}
    assert rows["unscaled"]["gain"] < -5
    best = max(rows, key=lambda name: rows[name]["SQNR"])
    plain = rows[best].get("gain", 0) >= 1 and rows[best].get("chance", 0) >= 0.9
    assert kept(found) == (best if plain else "optimal")
    assert f"kept {kept(found)} of 4 candidates measured on made-up samples" in found.summary()


def test_a_network_whose_outputs_are_not_finite_on_made_up_samples_is_not_measured() -> None:
    proto = network("a = Conv(x, w) r = Relu(a) m = ReduceMean(r) y = Log(m)", w=-np.abs(normal(4, 3, 1, 1)))
    for effort in ("full", "fast"):
        found = equint.quantize(proto, input=(0, 1), effort=effort)
        (event,) = events(found, EventKind.NOTHING_MEASURED)
        assert "not finite; give samples" in event.facts["why"]
        assert not events(found, EventKind.CANDIDATE_KEPT)


def test_of_candidates_that_gain_alike_the_first_is_kept() -> None:
    """Both hold what the recipe cuts off, the second a little more; a third holds far more."""
    x = images(24, seed=5)
    ways = {"wide": {}, "wider": {"rule": "n-sigma", "n": 40.0}}
    offered = tuple(Candidate(name, ("calibrate",), (("calibrate", way),)) for name, way in ways.items())
    own = one_of(NARROW, {})
    for order in (offered, offered[::-1]):
        assert kept(equint.quantize(PROTO, replace(own, candidates=order), input=(-1.5, 1.5), data=x)) == order[0].name


def of_two_kinds(text: Array, scenes: Array) -> tuple[Any, Array]:
    """A network of two channels, and samples that excite one of them alone: what the other does, only scenes show."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0, 0], weight[1, 1], both = 1, 1, np.ones((1, 2, 1, 1), np.float32)
    proto = network("a = Conv(x, w) r = Relu(a) y = Conv(r, v)", inputs="float[N,3,32,32] x", w=weight, v=both)
    return proto, np.stack([text, scenes, np.zeros_like(text)], 1)


def test_a_candidate_that_holds_another_kind_too_is_kept_where_it_costs_little() -> None:
    """Samples light one channel of two: min-max of these cuts the sum of both in half."""
    rng = np.random.default_rng(0)
    proto, given = of_two_kinds(rng.uniform(0, 1, (16, 32, 32)).astype(np.float32), np.zeros((16, 32, 32), np.float32))
    _, fresh = of_two_kinds(*rng.uniform(0, 1, (2, 16, 32, 32)).astype(np.float32))
    beside: Steps = (("calibrate", {"beside": "made up"}),)
    chosen = replace(one_of({}, {}), candidates=(Candidate("both", ("calibrate",), beside),))
    result = equint.quantize(proto, chosen, input=(0, 1), data=given)
    (clean,), (noisy,) = execute(proto, fresh), execute(result.proto, fresh)
    assert kept(result) == "both"
    (event,) = events(result, EventKind.CANDIDATE_KEPT)
    assert "dB less on samples of another kind" in event.facts["why"]
    assert 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2)) > 30
    alone = equint.quantize(proto, replace(chosen, candidates=()), input=(0, 1), data=given)
    (cut,) = execute(alone.proto, fresh)
    assert 10 * np.log10(np.sum(clean**2) / np.sum((cut - clean) ** 2)) < 20


def test_the_default_has_candidates_and_they_are_in_its_toml() -> None:
    chosen = recipe("optimal")
    assert [c.name for c in chosen.candidates] == [
        *(
            "headroom",
            "no headroom",
            "unscaled",
            "cross-layer",
            "nearest",
            "unscaled, nearest",
            "cross-layer, nearest",
            "made up beside",
            "unscaled, made up beside",
            "layers only",
        ),
    ]
    assert parse(tomllib.loads(to_toml(chosen)), "again") == chosen
    with pytest.raises(equint.InvalidRecipe, match="are called optimal; rename one"):
        equint.quantize(model_path(), replace(chosen, candidates=(Candidate("optimal", ("optimal",)),)))
    fewer = replace(chosen, passes=tuple(step for step in chosen.passes if step[0] not in ("optimal", "round_weights")))
    assert [v.name for v in variants(fewer)][:3] == ["optimal", "headroom", "no headroom"]
    assert "nearest" not in [v.name for v in variants(fewer)]
    for text, why in (
        ('without = ["optimal"]', "name = None"),
        ('name = "a"\nwithout = ["two_step"]', "name passes: fold_batchnorm"),
        ('name = "unscaled"\nwithout = ["optimal"]', "a name of its own"),
        ('name = "a"\nwithout = ["quantize"]', "no pass quantizes"),
        ('name = "a"\nwithout = ["optimal"]\nextra = 1', "unknown key 'extra'"),
    ):
        with pytest.raises(equint.InvalidRecipe, match=why):
            parse(tomllib.loads(f"{source('optimal')}\n[[candidates]]\n{text}\n"), "mine")
