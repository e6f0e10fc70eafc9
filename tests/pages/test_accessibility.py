"""Pages held to WCAG by axe-core, light and dark, on phones and desks; every view is reached by the keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import equint
from browsers import open_browser, tab
from equint.demo import data_path, model_path
from equint.samples.card import Card

axe_core = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed (extra browser)")
GRAY = Card("gray", (0.0,), (16.0,))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from open_browser()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One with pictures and all that can be measured, and one of a network without data, with warnings."""
    folder = tmp_path_factory.mktemp("pages")
    result = equint.quantize(model_path(), input=GRAY, data=data_path(), images=16)
    found = equint.evaluate(result, data_path(), GRAY, model_path(), limit=40)
    texts = {"full": equint.report(result, measured=found, name="digits", command="equint auto digits.onnx")}
    texts["bare"] = equint.report(equint.quantize(model_path(), "lwq", "per-tensor"))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "bare"])
def test_axe_finds_nothing(browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int) -> None:
    script = files(axe_core).joinpath("axe.min.js").read_text("utf-8")
    for view in tab(browser, pages[name], color_scheme=scheme, viewport={"width": width, "height": 844}):
        for opened in (False, True):
            if opened:
                view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                view.wait_for_timeout(50)
            view.evaluate(script)
            found = view.evaluate("axe.run()")["violations"]
            assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


def focused(view: Any, script: str) -> Any:
    return view.evaluate(f"(() => {{ const e = document.activeElement; return {script}; }})()")


def test_every_view_is_reached_by_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    """Tab alone reaches every part that reacts or scrolls, once each and in the order of the page; none is a trap."""
    for view in tab(browser, pages["full"], viewport={"width": 1280, "height": 844}):
        reached = list[str]()
        for _ in range(200):
            view.keyboard.press("Tab")
            name = focused(view, "e === document.body ? '' : e.id || e.getAttribute('aria-label') || e.outerHTML")
            if not name or (reached and name == reached[0]):
                break
            reached.append(name)
        missing = {"theme", "net", "zoom-in", "zoom-fit", "Candidates", "Files"} - set(reached)
        assert not missing
        assert any(name.startswith("layer-") for name in reached)
        assert len(reached) < 199, "the end is never reached"


def test_the_graph_chooses_layers_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    for view in tab(browser, pages["full"]):
        view.locator("#net g[tabindex='0']").focus()
        view.keyboard.press("Home")
        view.keyboard.press("ArrowDown")
        assert focused(view, "e.dataset.layer") == "1"
        view.keyboard.press("Enter")
        assert view.locator("#detail h3").inner_text().startswith("Layer 2: ")
        assert view.locator("#layer-2").get_attribute("aria-pressed") == "true"
        view.locator("#layer-4").click()
        assert view.locator("#net g.chosen").get_attribute("data-layer") == "3"


def test_the_graph_zooms_and_moves(browser: Any, pages: dict[str, Path]) -> None:
    for view in tab(browser, pages["full"]):
        width = "Number(document.querySelector('#net svg').getAttribute('width'))"
        before = view.evaluate(width)
        view.locator("#zoom-in").click()
        assert view.evaluate(width) == pytest.approx(1.3 * before, rel=1e-6)
        view.locator("#zoom-fit").click()
        beyond = "(() => { const n = document.getElementById('net'); return n.scrollHeight - n.clientHeight; })()"
        assert view.evaluate(beyond) <= 1
        view.locator("#zoom-one").click()
        view.locator("#net").focus()
        view.keyboard.press("End")
        view.wait_for_timeout(400)
        assert view.evaluate("document.getElementById('net').scrollTop") > 0


def test_phones_show_charts_whole(browser: Any, pages: dict[str, Path]) -> None:
    """Nothing makes the page wider than the window; charts of layers scroll in boxes of their own."""
    for view in tab(browser, pages["full"], viewport={"width": 390, "height": 844}):
        view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert view.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        cut = """[...document.querySelectorAll('#detail svg, .shots img, .shots svg, #sizes figure svg')].filter(e => {
            const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth + 0.5; }).length"""
        assert view.evaluate(cut) == 0
