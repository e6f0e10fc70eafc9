"""The docs as a site: built strictly (all pages in the navigation, no broken link), without a network, current."""

import os
import re
import subprocess
import sys
from collections import deque
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import urldefrag

import pytest
from typer.main import get_command

import equint
from equint.cli.main import app

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")
pytest.importorskip("latex2mathml")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


class Parsed(HTMLParser):
    """What a page links to, loads from elsewhere, and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        self.links |= {given["href"]} if tag == "a" and "href" in given else set()
        loaded = given.get("src") or (given.get("href") if tag == "link" else None)
        self.loaded |= {loaded} if loaded else set()


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Parsed]:
    return {path.relative_to(site).as_posix(): Parsed(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_built(pages: dict[str, Parsed]) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert pages.keys() - {"404.html"} == wanted | {"changelog.html", "contributing.html", "security.html"}


def test_nothing_is_fetched(site: Path, pages: dict[str, Parsed]) -> None:
    assert not {url for page in pages.values() for url in page.loaded if re.match(r"(\w+:)?//", url)}
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", path.read_text("utf-8")), path


def test_formulas_are_drawn(site: Path) -> None:
    drawn = 0
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        drawn += text.count("<math ")
        assert "arithmatex" not in text, path
        assert not re.search(r"\$[^$<]*\\[a-z]+[^$<]*\$", re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.S)), path
    assert drawn > 50


def test_answers_are_two_clicks_away(pages: dict[str, Parsed]) -> None:
    far, waiting = {"index.html": 0}, deque(["index.html"])
    while waiting:
        page = waiting.popleft()
        for link in pages[page].links:
            to = normpath(join(dirname(page), urldefrag(link)[0]))
            if to in pages and to not in far:
                far[to] = far[page] + 1
                waiting.append(to)
    assert {page for page in pages if far.get(page, 9) > 2} <= {"404.html"}
    assert far["howto/tflite-from-torch.html"] == 1


def test_the_reference_has_all_that_is_public(pages: dict[str, Parsed]) -> None:
    headings = {name.rpartition(".")[2] for name in pages["reference/api.html"].ids}
    assert set(equint.__all__) - {"__version__"} <= headings
    assert set(get_command(app).commands) <= pages["reference/cli.html"].ids  # type: ignore[attr-defined]
    assert {recipe.name for recipe in equint.recipes()} <= pages["reference/recipes.html"].ids
    assert {n for on in equint.targets() for n in (on.name, *on.aliases)} <= pages["reference/targets.html"].ids
