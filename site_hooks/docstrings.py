"""Docstrings for the API's reference, brought to the form that Griffe knows."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): ((?:.*)(?:\n\1 +.*)*)", re.M)


class Docstrings(Extension):
    """Examples become blocks of Python, and each parameter has a line of its own."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change a docstring's text before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = known(obj.docstring.value)


def known(text: str) -> str:
    """A docstring whose `Example:` is in the plural, and whose parameters are told one by one.

    Example:
        >>> print(known("Args:\\n    a, b: both\\n        of them."))
        Args:
            a: both
                of them.
            b: both
                of them.
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return _SHARED.sub(lambda m: "\n".join(f"{m[1]}{name}: {m[3]}" for name in m[2].split(", ")), text)
