"""Passes run in order, are verified after each, and are timed."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from equint.errors import EquintError
from equint.ir.events import EventKind
from equint.ir.model import Model, Moments
from equint.ir.weights import tiny_graph
from equint.passes import Keeps
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.planning.run import run


@dataclass(frozen=True)
class SpoilMoments:
    """A pass with a bug."""

    keeps: ClassVar[Keeps] = Keeps.FLOATS

    def __call__(self, model: Model) -> Model:
        return replace(model, moments={"y": Moments(np.array(np.nan), np.array(1.0))})


def test_progress_and_time_are_told_for_each_pass() -> None:
    told: list[tuple[str, int, int]] = []
    model = run(Model(tiny_graph()), [FoldBatchnorm(), Quantize(activation=None)], lambda *what: told.append(what))
    assert told == [("fold_batchnorm", 0, 2), ("quantize", 1, 2)]
    timed = [e for e in model.log if e.kind is EventKind.RAN]
    assert [e.text for e in timed] == ["ran fold_batchnorm", "ran quantize"]
    assert all(e.facts["seconds"] >= 0 for e in timed)


def test_a_pass_that_damages_the_model_is_named() -> None:
    with pytest.raises(EquintError, match=r"moments of y.*after spoil_moments"):
        run(Model(tiny_graph()), [SpoilMoments()])
