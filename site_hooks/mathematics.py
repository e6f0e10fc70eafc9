"""Mathematics as MathML, which browsers draw by themselves: no script, no font, no network.

In Markdown it is LaTeX between dollars, as GitHub takes it too: `$x$` in a line, `$$x$$` for itself.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the formulas of a page."""
    return drawn(content)


def drawn(content: str) -> str:
    r"""A page's HTML with its LaTeX as MathML.

    Example:
        >>> drawn(r'<span class="arithmatex">\(x_i\)</span>')[:38]
        '<span class="formula"><math xmlns="htt'
    """
    return _FORMULA.sub(_formula, content)


def _formula(match: re.Match[str]) -> str:
    kind, latex = match[1], html.unescape(match[2]).strip()
    mathml = convert(latex, display="block" if kind == "div" else "inline")
    return f'<{kind} class="formula">{mathml}</{kind}>'
