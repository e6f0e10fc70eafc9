"""Tests lie where the source lies: tests/room/test_part.py tests src/equint/room/part.py."""

import inspect
from pathlib import Path

import equint

TESTS, SOURCE = Path(__file__).parent, Path(inspect.getfile(equint)).parent
ACROSS = {
    "consumers/test_consumers.py": "runtimes of others",
    "consumers/test_litert.py": "LiteRT",
    "consumers/test_litert_floats.py": "LiteRT's float operators",
    "consumers/test_vela.py": "Vela",
    "helpers/test_nets.py": "random networks",
    "hostile/test_hostile.py": "all commands, on what nobody should give them",
    "helpers/test_programs.py": "random integer programs",
    "ops/test_conformance.py": "all operators, all facets",
    "pages/test_accessibility.py": "pages, held to WCAG by axe-core",
    "pages/test_page_in_browser.py": "pages, looked at by a browser",
    "passes/test_corrected.py": "what passes do to corrections of others",
    "passes/test_promises.py": "all passes",
    "scoring/test_tasks_real.py": "real networks",
    "test_docs.py": "the docs",
    "test_imports.py": "all rooms",
    "test_lowest.py": "the lowest versions of what equint depends on",
    "test_mirror.py": "the tests",
    "test_notebooks.py": "the example notebooks",
    "test_real_networks.py": "real networks",
    "test_site.py": "the docs as a site",
    "test_surface.py": "all public names",
    "test_wild_networks.py": "networks that nobody here made",
}
"""Files that test no single part, and what they test."""


def test_every_file_mirrors_a_part() -> None:
    files = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    alone = {f.as_posix() for f in files if not (SOURCE / f.parent / f.name.removeprefix("test_")).exists()}
    assert alone == ACROSS.keys()
