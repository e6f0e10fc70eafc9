"""The report: its numbers counted again by loops, its drawings measured, its HTML parsed, with names that mean harm."""

import base64
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equint
from equint import Result
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.ir.model import QParams, QSpec
from equint.ops.layers import layers
from equint.pages.contents import formats, spec_of
from equint.pages.figures import BANDS, Series, band, band_labels, bars, dot_chart, ticks
from equint.pages.page import page
from equint.pages.story import searched
from handwritten import network, normal
from reports import HOSTILE, digits, plain_grids, told

VOID = {"meta", "link", "input", "br", "img", "hr"}
RECIPES = (("optimal", "per-tensor"), ("wes", "npu-shift"), ("dfq", "per-tensor"), ("cwq", "per-channel"))


@cache
def demo(recipe: str = "optimal", target: str = "per-channel", **options: Any) -> Result:
    return equint.quantize(model_path(), recipe, target, input=(0, 1), **options)


def two_convs() -> Result:
    proto = network(
        "h = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(h) y = Conv(r, v)",
        w=normal(6, 3, 3, 3) * np.array([1, 2, 4, 0.1, 0.5, 0], np.float32).reshape(6, 1, 1, 1),
        b=normal(6),
        v=normal(5, 6, 1, 1),
    )
    for node in proto.graph.node:
        node.name = HOSTILE + node.output[0]
    return equint.quantize(proto, "lwq", "per-tensor", input=(0, 1))


def integers(weight: Any, grid: QParams) -> list[list[int]]:
    """The integers of every output channel of an (O, I, …) weight, one by one."""
    found = []
    for k, channel in enumerate(np.asarray(weight)):
        scale = float(np.reshape(grid.scale, -1)[k if np.ndim(grid.scale) else 0])
        zero = int(np.reshape(grid.zero_point, -1)[k if np.ndim(grid.zero_point) else 0])
        scale /= 2 ** int(grid.shift[k]) if grid.shift is not None else 1
        rounded = [round(float(np.float32(w) / np.float32(scale))) + zero for w in channel.ravel()]
        found.append([min(max(q, grid.qmin), grid.qmax) for q in rounded])
    return found


def words(packed: str, kind: str) -> list[tuple[int, ...]]:
    raw = base64.b64decode(packed)
    flat = struct.unpack(f"<{len(raw) // 2}{kind}", raw)
    return [flat[k : k + 3] for k in range(0, len(flat), 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "target"), RECIPES)
def test_channels_and_histograms_counted_again(recipe: str, target: str) -> None:
    result = demo(recipe, target)
    before, rows = plain_grids(result).graph.consts, told(result)["layers"]
    convs = [(k, la) for k, la in enumerate(layers(result.model.graph)) if la.node.op == "Conv"]
    assert len(convs) > 4
    for k, layer in convs:
        row, grid = rows[k], result.model.qparams[layer.weight]
        scale = row["ranges"]["peak"] / 32767
        for channel, shown in zip(before[layer.weight], words(row["ranges"]["packed"], "h"), strict=True):
            values = [float(v) for v in channel.ravel()]
            expected = (min(values), median(values), max(values))
            assert np.allclose([q * scale for q in shown], expected, atol=0.51 * scale)
        counted = integers(result.model.graph.consts[layer.weight], grid)
        for channel, shown in zip(counted, words(row["integers"], "H"), strict=True):
            ordered = sorted(channel)
            expected = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
            assert tuple(q + grid.qmin for q in shown) == expected
        often = Counter(q for channel in counted for q in channel)
        assert row["histogram"]["counts"] == [often[q] for q in range(grid.qmin, grid.qmax + 1)]
        assert row["histogram"]["used"] == len(often)
        assert row.get("shifts") == (None if grid.shift is None else grid.shift.tolist())


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "target"), RECIPES)
def test_overlap_ratios_counted_again(recipe: str, target: str) -> None:
    """WES, eq. 9, on weights as multiples of their step: mean of the channels' ranges over the whole range."""
    result = demo(recipe, target)
    plain, rows = plain_grids(result), told(result)["layers"]
    for k, layer in enumerate(layers(result.model.graph)):
        if layer.node.op != "Conv":
            continue
        for end, model in enumerate((plain, result.model)):
            grid, spans, ends = model.qparams[layer.weight], [], []
            for o, channel in enumerate(model.graph.consts[layer.weight]):
                step = float(np.reshape(grid.scale, -1)[o if np.ndim(grid.scale) else 0])
                step /= 2 ** int(grid.shift[o]) if grid.shift is not None else 1
                lo, hi = float(channel.min()) / step, float(channel.max()) / step
                spans.append(hi - lo)
                ends += [lo, hi]
            expected = sum(spans) / len(spans) / (max(ends) - min(ends))
            assert rows[k]["overlap"][end] == pytest.approx(expected, rel=1e-5)


def test_rounding_error_counted_again() -> None:
    """Channel by channel √(Σ(w* − w)²/Σw²), then the mean; the channel of zeros is left out."""
    result = two_convs()
    weight, grid = result.original.graph.consts["w"], result.model.qparams["w"]
    shares = []
    for channel, rounded in zip(weight[:5], integers(weight, grid)[:5], strict=True):
        became = [float(grid.scale) * (q - int(grid.zero_point)) for q in rounded]
        off = sum((a - float(b)) ** 2 for a, b in zip(became, channel.ravel(), strict=True))
        shares.append((off / sum(float(b) ** 2 for b in channel.ravel())) ** 0.5)
    row = told(result)["layers"][0]
    assert row["error"] == pytest.approx([sum(shares) / 5] * 2, rel=1e-4)


@pytest.mark.slow
def test_rescaling_alone_makes_no_error_in_float_units() -> None:
    """With 16-bit weights hardly any error is left, though dfq scales channels."""
    rows = told(demo("dfq", "per-channel", weight_bits=16))["layers"]
    assert max(row["error"][1] for row in rows if row["type"].startswith("depthwise")) < 1e-3
    assert {row["histogram"]["width"] for row in rows} == {256}
    assert all(len(row["histogram"]["counts"]) == 256 for row in rows)
    assert all(sum(row["histogram"]["counts"]) == row["weights"] for row in rows)


def test_layers_know_what_they_read() -> None:
    proto = network(
        "a = Conv(x, w) b = Conv(a, v) r = Relu(a) c = Conv(r, v2) s = Add(b, c) y = Conv(s, v3)",
        w=normal(6, 3, 1, 1),
        v=normal(6, 6, 1, 1),
        v2=normal(6, 6, 1, 1, seed=2),
        v3=normal(2, 6, 1, 1),
    )
    rows = told(equint.quantize(proto, input=(0, 1)))["layers"]
    assert [row["from"] for row in rows] == [[], [0], [0], [1, 2]]


@pytest.mark.slow
def test_layers_say_their_type() -> None:
    types = {row["type"] for row in told(demo())["layers"]}
    assert {"conv 3×3", "depthwise 3×3", "conv 1×1"} <= types


@pytest.mark.slow
def test_formats_of_results_are_their_targets() -> None:
    for recipe, target in (("optimal", "per-channel"), ("optimal", "per-tensor"), ("wes", "npu-shift")):
        result = demo(recipe, target)
        weight, activation = formats(result.model)
        assert (weight.bits, weight.signed, weight.granularity) == (
            8,
            result.hardware.weight.signed,
            result.hardware.weight.granularity,
        )
        assert activation == result.hardware.activation
    assert formats(demo(activation_bits="float").model)[1] is None
    assert spec_of(QParams(np.array(1.0), np.array(8), 4, False)) == QSpec(4, False, True, "tensor")


@pytest.mark.slow
def test_before_is_plain_and_after_is_better() -> None:
    found = told(demo("optimal", "per-tensor"))
    assert found["totals"]["after"]["total"] > found["totals"]["before"]["total"]
    for row in found["layers"]:
        assert row["predicted"]["weights"] is not None
        assert row["before"]["weights"] <= row["bound"]["weights"] + 1e-6


@pytest.mark.slow
def test_nothing_measured_is_said_and_nothing_else_claimed() -> None:
    found = told(demo())
    assert found["verdict"]["words"] == searched(demo().model).words
    assert {f["basis"] for f in found["figures"]} == {"counted"}
    assert "Accuracy was not measured" in page(found)
    assert not any(row["measured"] for row in found["layers"])


@pytest.mark.slow
def test_measured_figures_come_first_with_their_float_twins() -> None:
    measured = {
        "samples": 200,
        "agreement": 98.5,
        "top1": 97.0,
        "float_top1": 97.5,
        "own_score": 0.3614,
        "outputs": {"y": 1},
    }
    found = told(demo(), {**measured, "speedup": 1.94})
    shown = [(f["label"], f["value"], f["basis"]) for f in found["figures"]]
    assert found["figures"][0]["detail"] == "float 97.50 %, on 200 samples"
    assert shown[:4] == [
        ("Top-1 accuracy", "97.00 %", "measured"),
        ("own score", "0.3614", "measured"),
        ("Same answer as the float network", "98.50 %", "measured"),
        ("Speed against float", "1.94 ×", "measured"),
    ]
    assert "Speed" not in json.dumps(told(demo())["figures"])


@pytest.mark.slow
def test_noise_measured_on_images_stands_beside_the_predicted() -> None:
    found = told(demo("optimal", "per-tensor"), images=digits())
    assert found["images"] == 16
    assert found["agreement"]["weights"]["correlation"] > 0.8
    assert all(row["measured"]["weights"] for row in found["layers"])
    html = page(found)
    assert 0 < html.index("Noise of every layer, measured") < html.index("Predicted against measured noise")


@pytest.mark.slow
def test_what_cannot_be_measured_is_said() -> None:
    result = demo("dfq-published", "per-tensor")
    assert any(np.any(view.offset) for view in result.model.views.values())
    found = told(result, images=digits())
    assert "was not measured: tensor" in found["notes"][0]
    assert found["notes"][0] in page(found).replace("&#39;", "'")


@pytest.mark.slow
def test_sizes_hold_what_each_scheme_stores() -> None:
    """Two layers of 6 and 5 channels: compounds of 32 + 6 bits, zero points of 8, shifts of 4, whole bytes each."""
    sizes = told(two_convs())["sizes"]
    assert sizes["fixed"] == (6 * 27 + 4 * 6) + (30 + 4 * 5)
    grids = {row["scheme"]: row["grids"] for row in sizes["schemes"]}
    one = 4 + 1 + 1
    assert grids["lwq"] == 2 * one
    assert grids["wes"] == 2 * one + 3 + 3
    assert grids["cwq"] == (6 * 4 + 5 + 6) + (5 * 4 + 4 + 5)
    assert [row["scheme"] for row in sizes["schemes"] if row["used"]] == ["lwq"]
    assert told(demo("wes", "npu-shift"))["sizes"]["schemes"][2]["used"]


def test_every_event_is_told_with_warnings_first() -> None:
    result = equint.quantize(network("y = Conv(x, w)", w=normal(4, 3, 1, 1)))
    found = told(result)
    assert result.warnings
    assert found["warnings"] == found["events"][: len(result.warnings)]
    assert Counter((e["did"], e["at"]) for e in found["events"]) == Counter((e.text, e.at) for e in result.model.log)
    reasons = [str(e.facts["why"]) for e in result.model.log if "why" in e.facts]
    text = parsed(page(found)).text
    assert reasons
    for reason in reasons:
        assert reason in text


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@settings(max_examples=60)
def test_ticks_hold_all_values_and_are_few(lo: float, span: float) -> None:
    marks = ticks(lo, lo + span)
    slack = 1e-6 * max(abs(lo), span, 1e-9)
    assert marks[0] <= lo + slack
    assert marks[-1] >= lo + span - slack
    assert 2 <= len(marks) <= 7
    assert np.allclose(np.diff(marks), marks[1] - marks[0])


def test_bands_are_where_their_labels_say() -> None:
    assert len(band_labels()) == len(BANDS) + 1
    assert [band(v) for v in (-5.0, 10.0, 14.9, 40.0)] == [0, 1, 1, 6]


def test_lines_stand_where_their_values_are() -> None:
    drawing = dot_chart([Series("a", [10.0, None, 40.0, float("inf")], "line")], "t", "dB")
    (x0, y0), (x1, y1) = (map(float, p) for p in re.findall(r'<circle class="dot line" cx="(\S+)" cy="(\S+)"', drawing))
    marks = {float(m): float(y) - 4 for y, m in re.findall(r'class="tick end" x="\d+" y="(\S+)">([\d.]+)<', drawing)}
    assert y0 == pytest.approx(marks[10.0], abs=0.11)
    assert y1 == pytest.approx(marks[40.0], abs=0.11)
    assert (marks[10.0], marks[40.0]) == (220.0, 10.0)
    step, left = (float(re.findall(rf'data-{k}="(\S+)"', drawing)[0]) for k in ("step", "left"))
    assert [x0, x1] == pytest.approx([left, left + 2 * step], abs=0.1)
    assert "inf" not in drawing
    assert dot_chart([Series("a", [None], "line")], "t", "dB") == ""


def test_bars_begin_at_zero() -> None:
    drawing = bars([("<a>", 2.0, "2", "ghost"), ("b", 8.0, "8", "line")], "t", "kB")
    starts, lengths = zip(*re.findall(r'<rect class="bar \w+" x="(\S+)" y="\S+" width="(\S+)"', drawing), strict=True)
    zero = re.findall(r'class="tick mid" x="(\S+)" y="\S+">0<', drawing)[0]
    assert {float(s) for s in starts} == {float(zero)}
    assert float(lengths[1]) == pytest.approx(4 * float(lengths[0]), abs=0.3)
    assert "<a>" not in drawing


class Parsed(HTMLParser):
    """Elements in order; complains about what is left open or closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.found, self.scripts = list[str](), list[tuple[str, dict[str, str | None]]](), list[str]()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data


def parsed(html: str) -> Parsed:
    parser = Parsed()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


def every_page() -> Iterator[str]:
    yield page(told(two_convs()))
    for recipe, target in RECIPES:
        yield page(told(demo(recipe, target)))
    yield page(told(demo("optimal", "per-tensor"), {"top1": 97.0, "samples": 9}, digits(4), name=HOSTILE))


@pytest.mark.slow
def test_pages_are_well_formed_and_need_no_network() -> None:
    for html in every_page():
        elements = parsed(html).found
        ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        for tag, attrs in elements:
            assert tag not in ("iframe", "object", "embed", "img", "base")
            for key in ("src", "href", "action", "srcset"):
                assert not (attrs.get(key) or "#").split(":")[0].startswith(("http", "//", "file", "javascript"))
            for key in ("aria-labelledby", "for"):
                assert attrs.get(key) is None or attrs[key] in ids
            if tag in ("svg", "fieldset") and "role" in attrs:
                assert attrs["aria-label"]
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)
        assert Counter(tag for tag, _ in elements)["table"] == Counter(tag for tag, _ in elements)["caption"]
        assert "default-src 'none'" in html
        assert len(html) < 1_000_000


def test_names_that_mean_harm_stay_text() -> None:
    result = two_convs()
    facts = {"op": HOSTILE, "why": HOSTILE, HOSTILE: HOSTILE}
    log = (*result.model.log, Event(EventKind.OPERATOR_FLOAT, HOSTILE, facts, HOSTILE, warning=True))
    job = replace(result.job, recipe=replace(result.job.recipe, name=HOSTILE))
    result = Result(job, result.model.noted(log[-1]))
    html = page(told(result, {HOSTILE: 1.0, "samples": 3}, name=HOSTILE))
    found = parsed(html)
    tags = Counter(tag for tag, _ in found.found)
    assert tags["script"] == 2
    assert not tags["img"]
    assert not any(key.startswith("on") for _, attrs in found.found for key in attrs)
    assert "{{ 7*7 }}" in found.text
    data = json.loads(found.scripts[0])
    assert data["layers"][0]["name"] == HOSTILE + "h"


def test_layers_that_stay_float_are_shown() -> None:
    result = two_convs()
    half = {n: q for n, q in result.model.qparams.items() if n != "v"}
    model = type(result.model)(result.model.graph, result.model.moments, result.model.ranges, half)
    found = told(Result(result.job, model))
    assert found["layers"][1]["grid"] is None
    assert "Sizes by scheme are not shown" in found["notes"][0]
    parsed(page(found))
