"""Chromium for the tests of pages, where it and playwright are installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def open_browser() -> Iterator[Any]:
    """Debian's Chromium, or playwright's own; the test is skipped where there is neither."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra browser)")
    with sync_api.sync_playwright() as playwright:
        found = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("there is no Chromium here")
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def tab(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    """A page that must not complain, nor ask for anything but the file itself."""
    context, told_by = browser.new_context(**options), list[str]()
    view = context.new_page()
    view.on("console", lambda message: told_by.append(message.text))
    view.on("pageerror", lambda error: told_by.append(str(error)))
    view.on("dialog", lambda dialog: told_by.append(dialog.message) or dialog.dismiss())  # type: ignore[func-returns-value]
    view.on("request", lambda request: None if request.url == path.as_uri() else told_by.append(request.url))
    view.goto(path.as_uri())
    yield view
    context.close()
    assert [t for t in told_by if not t.startswith("data:")] == []
