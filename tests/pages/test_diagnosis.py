"""The conclusion of a diagnosis follows from the remedies that stand above it."""

from typing import Any

import pytest

from equint.pages.diagnosis import LEAST_GAIN, advice, text
from equint.study.diagnose import WORTH


def remedy(gain: float, checked: float | None = None, error: float = 2.0) -> dict[str, Any]:
    told = {"kind": "recipe", "at": "dfq", "gain": gain, "error": error, "checked": checked}
    return {**told, "agreement_gain": None}


def found(*remedies: dict[str, Any]) -> dict[str, Any]:
    score = {"sqnr_db": 20.0, "agreement": None, "top1": None}
    ranked: dict[str, Any] = {"layers": [], "tensors": []}
    seen = {"stages": {"both": score}, "images": 8, "checked_on": 8, "sensitivity": ranked, "causes": {}}
    return {**seen, "warnings": [], "remedies": list(remedies), "best": None}


@pytest.mark.parametrize(
    ("remedies", "said"),
    [
        (
            [remedy(9.0), remedy(6.4, -1.7)],
            "recipe dfq gains +6.4 ± 2.0 dB where it was chosen, but −1.7 dB on the other",
        ),
        ([remedy(0.9, None, 1.5)], "gains less than its standard error"),
        ([remedy(0.2)], "nothing that was tried gains more than 0.3 dB"),
        ([], "nothing that was tried gains more than 0.3 dB"),
    ],
)
def test_why_the_recipe_is_kept(remedies: list[dict[str, Any]], said: str) -> None:
    told = advice(found(*remedies))
    assert told.startswith("keep the recipe: ")
    assert said in told
    assert ("nothing" in told) == all(row["gain"] < WORTH for row in remedies)


def test_columns_that_are_empty_everywhere_are_left_out() -> None:
    said = text(found(remedy(1.0)))
    assert "agreement" not in said
    assert "top-1" not in said
    assert "+1.0 ± 2.0 dB" in said
    assert "on other images" in text(found(remedy(1.0, 0.1)))


def test_what_is_worth_telling_is_what_is_worth_taking() -> None:
    assert LEAST_GAIN == WORTH
