"""Pages of the site that lie at the root of the repository, and links that lead out of docs/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Files at the root that are pages, and what the site calls them."""
_NAMED = re.compile(r"\[(?:[\w-]+/)*([\w-]+\.md)\]\(((?:\.\./)*(?:[\w-]+/)*\1)(#[^)\s]*)?\)")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the root."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=_inside((ROOT / name).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files outside docs/ to their page, and leave of others their text."""
    return _titled(_led(markdown, posixpath.dirname(page.file.src_uri)), page, files)


def _titled(markdown: str, page: Page, files: Files) -> str:
    """Links that bear a file's name, as they do where the sources are read, bear the page's title."""

    def titled(match: re.Match[str]) -> str:
        uri = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[2]))
        file = files.get_file_from_path(uri)
        title = None if file is None else re.search(r"^# ([^{\n]+)", file.content_string, re.M)
        return match[0] if title is None else f"[{title[1].strip()}]({match[2]}{match[3] or ''})"

    return _NAMED.sub(titled, markdown)


def _inside(markdown: str) -> str:
    """A page of the root as if it lay in docs/."""
    return _LINK.sub(lambda m: f"{m[1]}[{m[2]}]({m[3].removeprefix('docs/')}{m[4] or ''})", markdown)


def _led(markdown: str, folder: str) -> str:
    """A page's links, those out of docs/ led to what the site has.

    Example:
        >>> _led("[rules](../../SECURITY.md) for [a pass](../../src/a.py), [b](b.md)", "papers")
        '[rules](../security.md) for a pass, [b](b.md)'
    """

    def led(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[3]))
        if not path.startswith("../"):
            return match[0]
        page = PAGES.get(path.removeprefix("../"))
        return match[2] if page is None else f"[{match[2]}]({posixpath.relpath(page, folder or '.')}{match[4] or ''})"

    return _LINK.sub(led, markdown)
