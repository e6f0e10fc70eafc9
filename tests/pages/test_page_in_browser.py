"""The report in a real browser: choosing layers, keyboard, dark mode, phones, paper, and names that mean harm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import equint
from browsers import open_browser, tab
from equint.demo import model_path
from equint.pages.page import page
from handwritten import network, normal
from reports import HOSTILE, digits, told


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from open_browser()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = equint.quantize(model_path(), "wes", "npu-shift", input=(0, 1))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(told(result, images=digits())), "utf-8")
    return path


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    yield from tab(browser, report)


def sideways(view: Any) -> int:
    """Pixels that the page is wider than the window."""
    return int(view.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_choosing_a_layer_shows_its_channels(opened: Any) -> None:
    count = opened.locator(".tile").count()
    assert opened.locator(".tile[aria-pressed=true]").count() == 1
    opened.locator("#layer-3").click()
    assert opened.locator("#layer-3").get_attribute("aria-pressed") == "true"
    assert opened.locator("#detail h3").inner_text().startswith("Layer 3: ")
    assert opened.locator("#detail svg").count() == 3
    assert opened.locator("#said").inner_text().startswith("Layer 3, ")
    channels = int(opened.evaluate("JSON.parse(document.getElementById('data').textContent).layers[2].channels"))
    drawn = opened.locator("#detail svg path.range").first.get_attribute("d")
    assert drawn.count("M") == channels
    opened.locator("#detail summary").last.click()
    opened.locator("#detail tbody tr").first.wait_for()
    assert opened.locator("#detail tbody tr").count() == channels
    for k in range(count):
        opened.locator(f"#layer-{k + 1}").click()
        assert opened.locator("#detail svg").count() == 3


def test_numbers_shown_are_those_of_the_contents(opened: Any, report: Path) -> None:
    result = equint.quantize(model_path(), "wes", "npu-shift", input=(0, 1))
    row = told(result)["layers"][1]
    opened.locator("#layer-2").click()
    opened.locator("#detail summary").last.click()
    opened.locator("#detail tbody tr").first.wait_for()
    cells = opened.locator("#detail tbody tr").first.locator("td").all_inner_texts()
    assert int(cells[-1]) == row["shifts"][0]
    assert float(cells[0].replace("−", "-")) <= float(cells[1].replace("−", "-")) <= float(cells[2].replace("−", "-"))
    assert f"{row['histogram']['used']} of 256" in opened.locator("#detail .facts").first.inner_text()


def test_the_map_is_one_stop_for_the_keyboard(opened: Any) -> None:
    assert opened.locator(".tile[tabindex='0']").count() == 1
    opened.locator(".tile[tabindex='0']").focus()
    opened.keyboard.press("Home")
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("document.activeElement.id") == "layer-2"
    opened.keyboard.press("Enter")
    assert opened.locator("#detail h3").inner_text().startswith("Layer 2: ")
    opened.keyboard.press("End")
    last = opened.locator(".tile").count()
    assert opened.evaluate("document.activeElement.id") == f"layer-{last}"
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("document.activeElement.id") == f"layer-{last}"
    assert opened.locator(".tile[tabindex='0']").count() == 1
    opened.keyboard.press("Tab")
    assert not opened.evaluate("document.activeElement.classList.contains('tile')")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert opened.evaluate(outline) == "solid"


def test_measured_colours_can_be_chosen(opened: Any) -> None:
    tile = opened.locator("#layer-2")
    before = tile.locator("b").inner_text()
    assert before == tile.get_attribute("data-tm")
    opened.get_by_role("radio", name="predicted", exact=True).check()
    assert tile.locator("b").inner_text() == tile.get_attribute("data-tp")
    opened.get_by_role("radio", name="measured", exact=True).check()
    assert tile.locator("b").inner_text() == before


def test_pointing_at_a_chart_tells_its_values(opened: Any) -> None:
    opened.locator("#predicted > summary").click()
    plot = opened.locator("#predicted .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator("svg").hover(position={"x": 250, "y": 100})
    said = plot.locator(".readout").inner_text()
    assert "predicted" in said
    assert "measured" in said
    opened.locator("#detail figure").nth(1).locator("svg").hover()
    assert opened.locator("#detail .readout").nth(1).inner_text().startswith("channel ")


def test_dark_by_preference_and_by_choice(browser: Any, report: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    for scheme in ("dark", "light"):
        for view in tab(browser, report, color_scheme=scheme):
            shown = view.evaluate(colour)
            assert (sum(map(int, shown[4:-1].split(","))) < 150) == (scheme == "dark")
            view.locator("#theme").click()
            light = view.evaluate(colour)
            view.locator("#theme").click()
            dark = view.evaluate(colour)
            assert light == "rgb(255, 255, 255)"
            assert dark != light
            assert view.locator("#theme").inner_text() == "Theme: dark"


def test_text_is_readable_on_every_colour(opened: Any) -> None:
    """WCAG AA: contrast of at least 4.5 in both themes."""
    script = """() => { const out = [];
      for (const theme of ['light', 'dark']) { document.documentElement.dataset.theme = theme;
        for (const k of [0, 1, 2, 3, 4, 5, 6, 'x']) { const e = document.createElement('p'); e.className = 'b' + k;
          document.body.append(e); const s = getComputedStyle(e); out.push([s.color, s.backgroundColor]); e.remove(); }
        for (const sel of ['.detail', '.sub', '.over', 'a'])
          { const e = document.querySelector(sel); for (const under of [document.body, document.querySelector('#map')])
            out.push([getComputedStyle(e).color, getComputedStyle(under).backgroundColor]); } }
      return out; }"""
    for pair in opened.evaluate(script):
        one, two = sorted(luminance(c) for c in pair)
        assert (two + 0.05) / (one + 0.05) >= 4.5, pair


def luminance(colour: str) -> float:
    parts = [int(v) / 255 for v in colour[4:-1].split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_phone_needs_no_sideways_scrolling(browser: Any, report: Path) -> None:
    for view in tab(browser, report, viewport={"width": 375, "height": 800}):
        assert sideways(view) <= 0
        view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        view.locator("#layer-2").click()
        assert sideways(view) <= 0


def test_paper_shows_everything(opened: Any) -> None:
    opened.emulate_media(media="print")
    opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("#table table").is_visible()
    assert opened.locator("#events table").is_visible()
    assert not opened.locator("#theme").is_visible()
    assert opened.locator("#layer-1").is_visible()
    assert len(opened.pdf(format="A4")) > 20_000


def test_names_that_mean_harm_stay_text(browser: Any, tmp_path: Path) -> None:
    proto = network("h = Conv(x, w) r = Relu(h) y = Conv(r, v)", w=normal(6, 3, 3, 3), v=normal(5, 6, 1, 1))
    for node in proto.graph.node:
        node.name = HOSTILE + node.output[0]
    result = equint.quantize(proto, "lwq", "per-tensor", input=(0, 1))
    path = tmp_path / "report.html"
    path.write_text(page(told(result, name=HOSTILE)), "utf-8")
    for view in tab(browser, path):
        view.locator("#layer-2").click()
        assert HOSTILE.replace("\u2028", "") in view.locator("#detail h3").text_content().replace("\u2028", "")
        assert view.locator("img").count() == 0
        assert sideways(view) <= 0


def test_without_scripts_the_numbers_are_there(browser: Any, report: Path) -> None:
    for view in tab(browser, report, java_script_enabled=False):
        view.locator("#table summary").click()
        assert view.locator("#table table").is_visible()
        assert view.locator("noscript .note").is_visible()
