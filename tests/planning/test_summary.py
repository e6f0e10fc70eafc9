"""Sizes counted by hand, and events told once with their number."""

import numpy as np
import pytest

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.planning.summary import grouped, sizes
from handwritten import network, normal


def test_sizes_by_hand() -> None:
    """Weights at 4 bits, a scale and zero point (5 bytes) per channel, biases at 4 bytes."""
    proto = network("h = Conv(x, w, b) y = Relu(h)", w=normal(6, 3, 3, 3), b=np.zeros(6, np.float32))
    model = equint.quantize(proto, "cwq", weight_bits=4, input=(0, 1)).model
    floats, integers = sizes(model)
    assert floats == 4 * (6 * 27 + 6)
    assert integers == 6 * 27 // 2 + 6 * 5 + 6 * 4


def test_shared_weights_count_once() -> None:
    proto = network("h = Conv(x, w) y = Conv(h, w)", w=normal(3, 3, 1, 1))
    assert sizes(equint.load(proto))[0] == 4 * 9


def test_events_are_grouped_by_what_and_why() -> None:
    log = [
        Event(EventKind.BIAS_NOT_ABSORBED, "a", {"why": "padding"}),
        Event(EventKind.BIAS_NOT_ABSORBED, "b", {"why": "padding"}),
        Event(EventKind.BIAS_NOT_ABSORBED, "c", {"why": "a clip"}, warning=True),
        Event(EventKind.RAN, "", {"pass": "fold", "seconds": 1.0}, "pipeline"),
    ]
    assert grouped(log) == [
        (False, "bias not absorbed: padding (2 times: a, b)"),
        (True, "bias not absorbed: a clip [c]"),
    ]


def test_facts_say_what_the_summary_says() -> None:
    proto = network("h = Conv(x, w) y = Relu(h)", w=normal(6, 3, 3, 3))
    result = equint.quantize(proto, input=(0, 1))
    facts = result.facts()
    assert (facts["weights"], facts["activations"]) == ("8 bits per channel", "8 bits per tensor")
    assert facts["layers"] == 1
    assert f"recipe {facts['recipe']} (level 1) for target per-channel" in result.summary()
    assert len(facts["warnings"]) == len(result.warnings)


def test_the_summary_shows_no_prediction_that_was_not_measured() -> None:
    """What ranks scales is in the facts, and people read what it gains, not a total."""
    found = equint.quantize(model_path(), input=(0, 1), effort="fast")
    (did,) = (e for e in found.facts()["events"] if "predicted SQNR" in e["facts"])
    gained = did["facts"]["predicted SQNR"] - did["facts"]["predicted SQNR before"]
    assert did["facts"]["predicted gain"] == pytest.approx(gained)
    assert "predicted SQNR" not in found.summary()
    assert "predicted gain=" in found.summary()


def test_an_event_is_one_line_whatever_a_node_is_called() -> None:
    event = Event(EventKind.OPERATOR_FLOAT, "fi\nrst", {"op": "\x1b[31mFancy"})
    assert grouped([event]) == [(False, r"\x1b[31mFancy stays float [fi\nrst]")]
