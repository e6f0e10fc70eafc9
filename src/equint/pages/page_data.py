"""Values that a page's scripts read: JSON that no text in it can break out of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def embedded(value: Any) -> str:
    """JSON that may stand in a script element, whatever its texts hold.

    Example:
        >>> embedded({"name": "</script>"})
        '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def short(value: Any) -> Any:
    """The same with floats of five digits.

    Example:
        >>> short({"a": [1 / 3, 7]})
        {'a': [0.33333, 7]}
    """
    if isinstance(value, Mapping):
        return {k: short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [short(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
