"""Mixed precision meets its bound, with no override too many, or says that it does not."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.overrides import Override
from equint.hardware.target import target
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.pages.diagnosis import mixed_text
from equint.planning.recipe import Recipe, parse, recipe
from equint.samples.images import Samples
from equint.study.mixed import Mixed, merged, mixed
from handwritten import execute, network, normal
from trying import classifier, pictures, quantizer, wide

X = pictures(96)
LOW = replace(recipe("lwq"), name="low", weight={"granularity": "tensor", "bits": 4})


def drop(model: Model, quantized: Model) -> float:
    wanted, found = (execute(p, X)[0].argmax(1) for p in (to_proto(model.graph), export(quantized)))
    return 100 * float(np.mean(wanted != found))


def search(model: Model, chosen: Recipe, bound: float, on: str = "per-channel") -> Mixed:
    hardware = target(on)
    return mixed(model, chosen, hardware, quantizer(model, hardware), Samples.of(X), bound)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.0, 2.0, 6.0])
def test_the_bound_is_met_and_no_override_is_idle(bound: float) -> None:
    model = classifier(wide(2, 40.0))
    made = quantizer(model, target("per-channel"))
    found = search(model, LOW, bound)
    assert found.before > 6
    assert found.met
    assert found.drop <= bound
    assert found.drop == pytest.approx(drop(model, made(found.recipe)))
    assert [(e.kind, e.warning) for e in found.events] == [(EventKind.DROP_WITHIN_BOUND, False)]
    for k, override in enumerate(found.recipe.overrides):  # without any name, the bound is missed
        for field in ("layers", "tensors"):
            for name in getattr(override, field):
                fewer = replace_names(found.recipe.overrides, k, field, name)
                assert drop(model, made(replace(found.recipe, overrides=fewer))) > bound


def replace_names(overrides: tuple[Override, ...], k: int, field: str, name: str) -> tuple[Override, ...]:
    left: dict[str, Any] = {
        f: tuple(n for n in getattr(overrides[k], f) if (f, n) != (field, name)) for f in ("layers", "tensors")
    }
    own = (replace(overrides[k], **left),) if any(left.values()) else ()
    return (*overrides[:k], *own, *overrides[k + 1 :])


@pytest.mark.slow
def test_a_loose_bound_costs_nothing_and_a_tight_one_no_less() -> None:
    model = classifier(wide(2, 40.0))
    loose, medium, tight = (search(model, LOW, bound) for bound in (100.0, 6.0, 0.0))
    assert loose.chosen == ()
    assert loose.recipe == LOW
    assert loose.cost == 0 < medium.cost <= tight.cost


def test_the_layer_that_is_bad_is_what_gets_bits() -> None:
    model = classifier(wide(2, 40.0))
    assert "b" in search(model, LOW, 3.0).chosen


def test_integers_alone_miss_the_bound_and_say_so() -> None:
    low = replace(recipe("wes"), weight={"granularity": "shift", "bits": 2})
    found = search(classifier(), low, 0.0, "npu-shift")
    assert not found.met
    (event,) = found.events
    assert (event.kind, event.warning) == (EventKind.DROP_BEYOND_BOUND, True)
    assert event.text in mixed_text(found.facts())


def test_the_best_is_returned_where_no_override_helps() -> None:
    """What the recipe does to the float network itself cannot be bought back."""
    passes = [{"pass": "absorb_bias"}, {"pass": "activation_ranges"}, {"pass": "quantize"}]
    chosen = parse({"name": "odd", "passes": passes, "weight": {"bits": 2}}, "odd")
    found = search(classifier(), chosen, 0.0)
    assert found.drop <= found.before
    json.dumps(found.facts())


def test_labels_take_the_place_of_agreement() -> None:
    model, hardware = classifier(wide(2, 40.0)), target("per-channel")
    labels = execute(to_proto(model.graph), X)[0].argmax(1)
    found = mixed(model, LOW, hardware, quantizer(model, hardware), Samples.of(X), 3.0, labels=labels)
    assert found.metric == "top1"
    assert found.met


def test_networks_that_do_not_choose() -> None:
    model = read(network("y = Conv(x, w)", output="float[] y", w=normal(4, 3, 1, 1)))
    with pytest.raises(EquintError, match="chooses among classes"):
        search(model, LOW, 1.0)


def test_float_takes_the_place_of_bits() -> None:
    wider = [Override(("a",), weight_bits=16), Override(tensors=("t",), activation_bits=16)]
    assert merged([*wider, Override(("a",), float=True)]) == (wider[1], Override(("a",), float=True))
