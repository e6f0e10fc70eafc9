"""Samples that a network is made of are not those that it is measured on, where there are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import equint
from equint import Card, EquintError, load
from equint.demo import data_path, model_path
from equint.ir.model import Array
from equint.samples.data import batches
from equint.samples.images import Samples
from equint.study.parts import LOOKED_AT, apart, check_labels, described, strange_labels

GRAY = Card("gray", (0.0,), (16.0,))


def rows(images: Samples) -> set[bytes]:
    return {np.asarray(x).tobytes() for batch in images for x in np.asarray(batch)}


def measured(where: Path, count: int) -> set[bytes]:
    found: list[Array] = [x for x, _ in batches(where, GRAY, 32, count)]
    return {x.tobytes() for batch in found for x in batch}


def test_enough_samples_are_parted() -> None:
    where, looked, count, others = apart(load(model_path()), GRAY, data_path(), 400)
    assert others
    assert where == data_path()
    assert count == 400
    assert sum(len(batch) for batch in looked) == LOOKED_AT
    with np.load(data_path()) as file:
        different = len(np.unique(file["x"], axis=0))
    assert different == 500
    assert rows(looked).isdisjoint(measured(where, count))


def test_few_samples_serve_for_both(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "few.npz", x=file["x"][:40], y=file["y"][:40])
    where, looked, count, others = apart(load(model_path()), GRAY, tmp_path / "few.npz", 400)
    assert not others
    assert where is not None
    assert rows(looked) == measured(where, count)


def test_nothing_to_look_at() -> None:
    assert apart(load(model_path()), None, None, 400) == (None, None, 400, True)
    assert described(load(model_path()), None, None, None) == (None, None)


def test_bounds_need_labels(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "bare.npz", x=file["x"][:40])
    with pytest.raises(EquintError, match="no labels, which max_drop needs"):
        check_labels(load(model_path()), GRAY, tmp_path / "bare.npz")
    with pytest.raises(EquintError, match="max_drop needs labels"):
        check_labels(load(model_path()), None, None)
    with pytest.raises(EquintError, match="task features has no measure"):
        check_labels(load(model_path()), Card(task="features"), data_path())
    check_labels(load(model_path()), GRAY, data_path())


def test_labels_beyond_the_classes_are_none_of_the_networks(tmp_path: Path) -> None:
    """However few samples are measured: the strange one is the last."""
    model = load(model_path())
    with np.load(data_path()) as file:
        np.savez(tmp_path / "odd.npz", x=file["x"][:40], y=np.append(file["y"][:39], 10))
    assert strange_labels(model, GRAY, data_path()) == ""
    assert "labels reach 10, and the network tells 10 classes apart" in strange_labels(
        model, GRAY, tmp_path / "odd.npz"
    )
    found = equint.auto(model_path(), card=GRAY, data=tmp_path / "odd.npz", limit=8)
    assert "not scored: " in found.verdict
    with pytest.raises(EquintError, match="labels reach 10"):
        equint.auto(model_path(), card=GRAY, data=tmp_path / "odd.npz", limit=8, max_drop=1.0)
