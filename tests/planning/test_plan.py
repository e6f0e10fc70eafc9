"""Passes are given what they declare to need, whatever their fields are called, and nothing else."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from equint.errors import EquintError
from equint.hardware.target import TARGETS, Target, target
from equint.ir.model import Model, QSpec
from equint.passes import Keeps, Need, Stage, following, needed, needs
from equint.planning import plan
from equint.planning.plan import Data, resolve
from equint.planning.recipe import PASSES, Recipe, built_in, looks, parse
from equint.samples.images import Samples


@dataclass(frozen=True)
class Probe:
    """Its fields bear other names than what they need, and one bears the name of what it does not."""

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    grain: QSpec | None = needed(Need.WEIGHT, None)
    width: int = needed(Need.BIAS_BITS, 0)
    shown: Samples | None = needed(Need.IMAGES, None)
    weight: float = 1.0
    bounds: str = following(lambda on: on.name, "keep")

    def __call__(self, model: Model) -> Model:
        return model


def probe(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], data: Data | None = None) -> Any:
    monkeypatch.setitem(PASSES, "probe", Probe)
    chosen = Recipe("mine", "", 1, "per-tensor", bias_bits=16, passes=(("probe", options),))
    (made,) = resolve(chosen, target("per-tensor"), 5, data=data)
    return made


def test_needs_go_by_what_was_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Samples.of([])
    made = probe(monkeypatch, {"weight": 2.0}, Data(images=images))
    assert (made.grain.bits, made.width, made.shown, made.weight, made.bounds) == (5, 16, images, 2.0, "keep")
    assert probe(monkeypatch, {}).shown is None


def test_options_follow_the_target_where_they_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(monkeypatch, {"bounds": "target"}).bounds == "per-tensor"


def test_data_that_no_pass_looks_at_are_refused() -> None:
    chosen = parse({"passes": [{"pass": "quantize"}]}, "mine")
    assert not looks(chosen)
    with pytest.raises(EquintError, match="looks at no images"):
        resolve(chosen, target("per-tensor"), data=Data())


@pytest.mark.parametrize(("options", "looking"), [({}, False), ({"method": "second-order"}, True)])
def test_rounding_looks_at_data_where_it_goes_by_inputs(options: dict[str, str], looking: bool) -> None:
    assert looks(parse({"passes": [{"pass": "quantize"}, {"pass": "round_weights", **options}]}, "mine")) is looking


QUANTIZE, CORRECT, ROUND = ({"pass": name} for name in ("quantize", "correct_bias", "round_weights"))


@pytest.mark.parametrize(
    ("passes", "why"),
    [
        ([CORRECT, QUANTIZE], "correct_bias needs the grids"),
        ([ROUND, QUANTIZE], "round_weights needs the grids"),
        ([QUANTIZE, {"pass": "equalize"}], "pass equalize after quantize"),
        ([QUANTIZE, CORRECT, QUANTIZE], "pass quantize after quantize"),
        ([QUANTIZE, CORRECT, ROUND], "round_weights changes the errors that correct_bias corrects"),
    ],
)
def test_passes_stay_where_they_belong(passes: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(EquintError, match=why):
        parse({"passes": passes}, "mine")
    parse({"passes": [QUANTIZE, ROUND, CORRECT, {"pass": "finetune_bias"}, CORRECT]}, "mine")


@pytest.mark.parametrize("hardware", TARGETS, ids=lambda t: t.name)
def test_every_pass_of_a_recipe_has_the_same_formats(hardware: Target) -> None:
    for chosen in built_in():
        if chosen.weight.get("granularity", "tensor") not in ("tensor", hardware.weight.granularity):
            continue
        weight, activation = plan.formats(chosen, hardware, None, None)
        values = {Need.WEIGHT: weight, Need.ACTIVATION: activation, Need.SHIFT_BITS: hardware.shift_bits}
        for step in resolve(chosen, hardware):
            for key, need in needs(step).items():
                assert need not in values or getattr(step, key) == values[need], (chosen.name, step, key)
