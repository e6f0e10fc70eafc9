"""Docstrings for the API's reference: what stands behind `Example:` is run code, shown as such."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Griffe knows the section by its plural."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Give the section the name by which its `>>>` become blocks of Python."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
