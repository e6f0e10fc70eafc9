"""Verdicts: thresholds, words, and what chance can do, against a simulation."""

import math

import numpy as np
import pytest

from equint.errors import EquintError
from equint.scoring.tasks import TASKS, chance, judged, missing, shown, task_of, verdict


@pytest.mark.parametrize(
    ("task", "before", "after", "level"),
    [
        ("classification", 56.0, 55.6, "good"),
        ("classification", 56.0, 55.5, "usable"),
        ("classification", 56.0, 54.1, "usable"),
        ("classification", 56.0, 54.0, "poor"),
        ("classification", 56.0, 46.0, "broken"),
        ("classification", 56.0, 57.0, "good"),
        ("classification", 56.0, math.nan, "broken"),
        ("keyword-spotting", 93.3, 92.5, "usable"),
        ("segmentation", 47.2, 46.3, "good"),
        ("segmentation", 47.2, 44.3, "usable"),
        ("segmentation", 47.2, 40.0, "poor"),
        ("segmentation", 47.2, 5.0, "broken"),
        ("detection", 38.6, 37.7, "good"),
        ("detection", 38.6, 36.0, "usable"),
        ("detection", 38.6, 28.6, "broken"),
        ("super-resolution", 33.54, 33.45, "good"),
        ("super-resolution", 33.54, 33.44, "usable"),
        ("super-resolution", 33.54, 33.04, "poor"),
        ("super-resolution", 33.54, 31.54, "broken"),
        ("super-resolution", math.inf, math.inf, "good"),
    ],
)
def test_losses(task: str, before: float, after: float, level: str) -> None:
    found = verdict(task, before, after)
    assert found.level == level
    assert found.words.startswith(f"{level}: ")


@pytest.mark.parametrize(
    ("task", "agreement", "sqnr", "level"),
    [
        ("classification", 98.0, None, "good"),
        ("classification", 97.9, 60.0, "usable"),
        ("classification", 85.0, None, "poor"),
        ("classification", 84.9, None, "broken"),
        ("classification", None, 22.0, "good"),
        ("classification", None, 21.9, "usable"),
        ("super-resolution", None, 30.0, "poor"),
        ("super-resolution", None, math.inf, "good"),
        ("super-resolution", 100.0, 20.0, "broken"),
        ("detection", 100.0, 23.0, "usable"),
        ("features", None, -3.0, "broken"),
    ],
)
def test_without_labels(task: str, agreement: float | None, sqnr: float | None, level: str) -> None:
    assert verdict(task, agreement=agreement, sqnr=sqnr).level == level


def test_super_resolution_wants_two_orders_of_magnitude_more_than_classification() -> None:
    pairs = zip(TASKS["super-resolution"].sqnr, TASKS["classification"].sqnr, strict=True)
    assert all(10 ** ((a - b) / 10) >= 100 for a, b in pairs)


def test_words() -> None:
    assert verdict("classification", 56, 54.7, 94, samples=400).words == (
        "usable: 1.3 points of top-1 lost (56.0 to 54.7 %, 400 samples: ±2.4 points by chance)"
    )
    assert verdict("classification", 56, 57, samples=1).words.startswith("good: 1.0 points of top-1 gained")
    assert verdict("detection", 38.6, 38.61).words == "good: 0.0 points of AP at IoU 0.5 lost (38.6 to 38.6 %)"
    assert verdict("detection", 38.6, 36, samples=64).words == (
        "usable: 2.6 points of AP at IoU 0.5 lost (38.6 to 36.0 %, 64 pictures: what chance adds is not known)"
    )
    assert verdict("classification", agreement=97.25, sqnr=19.9, samples=400).words == (
        "usable: the same decision as the original in 97.2 % of cases, output SQNR 19.9 dB, 400 samples"
    )
    assert verdict("features", sqnr=math.inf).words.startswith("good: output SQNR exact")


def test_nothing_to_judge() -> None:
    with pytest.raises(EquintError, match="nothing measured"):
        verdict("classification", 56.0)
    with pytest.raises(EquintError, match=r"segmentaton.*segmentation"):
        task_of("segmentaton")
    with pytest.raises(EquintError, match="100 and 50 samples"):
        judged("features", {"samples": 50}, {"samples": 100})


def test_judged_takes_labels_where_both_have_them() -> None:
    found = {"samples": 400, "top1": 54.7, "agreement": 94.0, "sqnr_db": 20.0}
    assert judged("classification", found, {"samples": 400, "top1": 56.0}).words.startswith("usable: 1.3 points")
    assert judged("classification", found).words.startswith("poor: the same decision")


def test_rows_keep_order_and_units() -> None:
    found = {"samples": 5, "unlabelled": 2, "sqnr_db": 30.04, "psnr": 33.541, "ssim": 0.93271, "outputs": {}}
    assert shown("super-resolution", found) == [
        ("samples", "5"),
        ("pictures left out, without labels", "2"),
        ("PSNR", "33.54 dB"),
        ("SSIM", "0.9327"),
        ("output SQNR", "30.0 dB"),
    ]


def test_missing_keys() -> None:
    assert missing("detection", {}) == ("boxes", "heads or priors")
    assert missing("detection", {"boxes": 1, "priors": 2}) == ()
    assert missing("classification", {}) == ()


def test_chance_covers_nineteen_in_twenty() -> None:
    """Two networks that differ on a tenth of all samples, and are equally good on average over all data."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        differs = rng.random(300) < 0.1
        better = rng.random(300) < 0.5
        change = np.where(differs, np.where(better, 1, -1), 0).mean() * 100
        inside += abs(change) <= chance(50, 50 + change, 300, 100 * (1 - differs.mean()))
    assert 0.92 < inside / 400 < 0.98


def test_chance_without_agreement_is_that_of_independent_networks() -> None:
    assert chance(50, 50, 400) == pytest.approx(196 * math.sqrt(0.5 / 400))
    assert chance(90, 50, 100, 100) >= 0  # an agreement that cannot be: no square root of less than nothing
    assert chance(100, 100, 10, 100) == pytest.approx(196 * math.sqrt(0.3 / 10))  # the rule of three: 3/n may differ
