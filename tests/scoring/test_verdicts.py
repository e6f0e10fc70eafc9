"""Verdicts: thresholds, words, and what samples tell of others."""

import math
from typing import Any

import pytest

from equint.errors import EquintError
from equint.maths.chance import lost_share, mcnemar
from equint.scoring.tasks import task_of
from equint.scoring.verdicts import LEVELS, Verdict, not_measured, of_sqnr, on_made_up, verdict


def lost(task: str, before: float, after: float) -> Verdict:
    main = task_of(task).main
    assert main is not None
    return verdict(task, {main.key: after}, {main.key: before})


def counted_by(wrong: int, right: int, samples: int) -> Verdict:
    """A classifier that was right in half of the samples, and of which so many turned."""
    low, high = lost_share(wrong, right, samples)
    turned = {"wrong": wrong, "right": right, "p": mcnemar(wrong, right)}
    figures: dict[str, Any] = {"samples": samples, "top1": 50 - 100 * (wrong - right) / samples, "agreement": 90.0}
    figures["chance"] = {"top1": (100 * low, 100 * high), "turned": turned, "agreement": (87.0, 93.0)}
    return verdict("classification", figures, {"samples": samples, "top1": 50.0})


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
    found = lost(task, before, after)
    assert found.level == level
    assert found.words.startswith(f"{level}: ")
    assert found.status == "unknown"


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
        ("features", None, math.nan, "broken"),
    ],
)
def test_without_labels(task: str, agreement: float | None, sqnr: float | None, level: str) -> None:
    figures = {"agreement": agreement, "sqnr_db": sqnr}
    assert verdict(task, {key: value for key, value in figures.items() if value is not None}).level == level


def test_what_few_samples_tell_of_others_stands_in_the_words() -> None:
    found = counted_by(14, 10, 400)
    assert (found.level, found.status, found.samples) == ("usable", "undecided", 400)
    assert found.words == (
        "usable, though 400 samples cannot tell it from good or poor: 1.0 points of top-1 lost (50.0 to 49.0 %; of 400 "
        "samples 14 turned wrong and 10 right, a difference that chance alone makes); on others like them 1.5 points "
        "gained to 3.5 lost; about 9,600 more samples would decide"
    )


def test_a_float_network_that_guesses_is_told() -> None:
    figures = {"samples": 400, "top1": 10.0, "chance": {"top1": (-1.0, 1.0), "guessed": True}}
    found = verdict("classification", figures, {"samples": 400, "top1": 10.0})
    assert found.level == "good"
    assert "the float network itself is right no more than by guessing" in found.words


def test_so_many_more_decide() -> None:
    """The same shares on as many samples as were asked for: the level is the only one left."""
    few = counted_by(14, 10, 400)
    assert few.needed is not None
    times = (400 + few.needed) / 400
    many = counted_by(round(14 * times), round(10 * times), round(400 * times))
    assert (many.status, many.needed) == ("decided", 0)
    assert many.words.startswith("usable: 1.0 points of top-1 lost")
    half = counted_by(round(7 * times), round(5 * times), round(200 * times))
    assert half.status == "undecided"


def test_what_chance_alone_would_not_do_is_not_said_to_be_chance() -> None:
    assert "chance alone" in counted_by(14, 10, 400).words
    assert "chance alone" not in counted_by(30, 10, 400).words
    assert "chance alone" not in counted_by(10, 10, 400).words


def test_no_number_of_samples_decides_what_stands_on_a_border() -> None:
    found = counted_by(2, 0, 400)  # half a point: the border of good and usable
    assert (found.status, found.needed) == ("undecided", None)
    assert found.words.endswith("; no number of samples that one collects would decide")


def test_the_measured_level_comes_first_and_then_those_that_the_interval_reaches() -> None:
    for low, high, said in (
        (31.0, 35.0, "good"),
        (29.0, 35.0, "good, though 64 samples cannot tell it from usable"),
        (19.0, 35.0, "good, though 64 samples cannot tell it from poor"),
        (9.0, 35.0, "good, though 64 samples cannot tell it from broken"),
    ):
        found = of_sqnr("features", 33.0, (low, high), 64)
        assert found.words.startswith(f"{said}: output SQNR 33.0 dB on 64 samples")
        assert f"on others like them {low:.1f} to {high:.1f} dB" in found.words
        assert found.chance == (low, high)
        assert found.level == LEVELS[0]


def test_words() -> None:
    assert lost("detection", 38.6, 38.61).words == "good: 0.0 points of AP at IoU 0.5 lost (38.6 to 38.6 %)"
    found = verdict("detection", {"samples": 1, "map50": 36.0}, {"samples": 1, "map50": 38.6})
    assert found.words == (
        "usable: 2.6 points of AP at IoU 0.5 lost (38.6 to 36.0 %; 1 sample); nothing tells what it is on others"
    )
    figures = {"samples": 400, "agreement": 97.25, "sqnr_db": 19.9, "chance": {"agreement": (95.1, 98.4)}}
    assert verdict("classification", figures).words == (
        "usable, though 400 samples cannot tell it from good: the same decision as the float network in 97.2 % of 400 "
        "samples; output SQNR 19.9 dB; "
        "on others like them 95.1 to 98.4 %; about 550 more samples would decide"
    )
    assert verdict("features", {"sqnr_db": math.inf}).words.startswith("good: output SQNR exact")
    assert of_sqnr("features", math.inf, (math.inf, math.inf), 8).status == "decided"
    assert not_measured().words == "not measured"
    told = on_made_up("classification", 20.0, 1, 90.0)
    assert told.words.startswith(
        "usable, as far as 1 made-up sample tells: output SQNR 20.0 dB, the same best class in 90"
    )
    assert (told.status, told.needed) == ("made up", None)


def test_nothing_to_judge() -> None:
    with pytest.raises(EquintError, match="nothing measured"):
        verdict("classification", {"top1": 56.0})
    with pytest.raises(EquintError, match="100 and 50 samples"):
        verdict("features", {"samples": 50}, {"samples": 100})


def test_labels_come_before_agreement() -> None:
    found = {"samples": 400, "top1": 54.7, "agreement": 94.0, "sqnr_db": 20.0}
    assert verdict("classification", found, {"samples": 400, "top1": 56.0}).words.startswith("usable: 1.3 points")
    assert verdict("classification", found).words.startswith("poor: the same decision")


def test_facts_are_ready_for_json() -> None:
    assert counted_by(14, 10, 400).facts().keys() == {
        *("level", "words", "status", "figure", "chance", "samples", "needed")
    }
