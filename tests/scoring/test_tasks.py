"""Kinds of networks, and how what was measured of them is written."""

import pytest

from equint.errors import EquintError
from equint.scoring.tasks import TASKS, missing, shown, task_of


def test_super_resolution_wants_two_orders_of_magnitude_more_than_classification() -> None:
    pairs = zip(TASKS["super-resolution"].sqnr, TASKS["classification"].sqnr, strict=True)
    assert all(10 ** ((a - b) / 10) >= 100 for a, b in pairs)


def test_an_unknown_task_is_named_with_those_there_are() -> None:
    with pytest.raises(EquintError, match=r"segmentaton.*segmentation"):
        task_of("segmentaton")


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
