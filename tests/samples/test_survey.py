"""What data hold, as it is seen before anything is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equint import EquintError
from equint.samples.survey import spread, survey


def pictures(folder: Path, count: int = 2, size: tuple[int, int] = (8, 6)) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", size, (k, 0, 0)).save(folder / f"{k}.png")
    return folder


def test_pictures_alone_have_no_labels(tmp_path: Path) -> None:
    found = survey(pictures(tmp_path / "photos"))
    assert (found.count, found.labelled, found.split, found.sizes) == (2, False, False, ((6, 8), (6, 8)))


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / name)
    found = survey(tmp_path)
    assert (found.count, found.labelled, found.classes) == (4, True, ("cat", "dog"))


@pytest.mark.parametrize(("looked", "measured"), [("calib", "eval"), ("train", "val")])
def test_parts_are_no_classes(tmp_path: Path, looked: str, measured: str) -> None:
    for name in ("cat", "dog"):
        pictures(tmp_path / looked / name)
        pictures(tmp_path / measured / name, 3)
    found = survey(tmp_path)
    assert (found.eval.name, found.calibration.name) == (measured, looked)
    assert (found.count, found.classes, found.split) == (6, ("cat", "dog"), True)


def test_a_class_may_be_called_as_parts_are(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        pictures(tmp_path / name)
    assert survey(tmp_path).classes == ("bus", "car", "train")


def test_single_numbers_are_no_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(8))
    with pytest.raises(EquintError, match="x holds one number a sample"):
        survey(tmp_path / "a.npz")


def test_one_part_alone_serves_for_both(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    found = survey(tmp_path)
    assert found.eval == found.calibration == tmp_path / "train"


def test_what_lies_beside_pictures_is_no_class(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    pictures(tmp_path / "masks")
    found = survey(tmp_path)
    assert (found.eval.name, found.labelled) == ("images", False)


def test_arrays_tell_their_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(48.0).reshape(4, 4, 3, 1) - 2.5, y=np.arange(4))
    found = survey(tmp_path / "a.npz")
    assert (found.count, found.labelled, found.shape, found.whole) == (4, True, (4, 3, 1), False)
    assert (found.low, found.high) == (-2.5, 44.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "none", "no such file or folder"),
        (lambda d: d, "no pictures in it"),
        (lambda d: d / "a.txt", "no such file or folder"),
    ],
)
def test_nothing_there(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(EquintError, match=message):
        survey(make(tmp_path))  # type: ignore[operator]


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(EquintError, match=r"a\.png: not a readable picture"):
        survey(tmp_path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((2, 3), np.nan))
    with pytest.raises(EquintError, match="not finite"):
        survey(tmp_path / "a.npz")


def test_spread_holds_all_values() -> None:
    values = np.random.default_rng(0).normal(0, 7, 1000)
    low, high = spread(values)
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
