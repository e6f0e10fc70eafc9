"""Commands that are advised: as a shell takes them, with the options that the user gave."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

FORMATS = ("recipe", "target", "weight_bits", "activation_bits", "fused_activations")
DESCRIBED = ("card", "input_range", "mean", "std", "layout", "set", "force")
LOOKED_AT = ("data", "images")
TAKES: Mapping[str, tuple[str, ...]] = {
    "auto": ("target", "card", "data", "input_range", "max_drop", "limit", "output", "io", "provider", "force"),
    "card": ("data", "output"),
    "diagnose": (*FORMATS, *DESCRIBED, *LOOKED_AT),
    "evaluate": ("card", "data", "against", "provider"),
    "export": (*FORMATS, *DESCRIBED, *LOOKED_AT, "output"),
    "golden": (*FORMATS, *DESCRIBED, "output", "io"),
    "lint": ("target",),
    "quantize": (*FORMATS, *DESCRIBED, *LOOKED_AT, "output", "io", "provider"),
    "report": (*FORMATS, *DESCRIBED, *LOOKED_AT, "output"),
}
"""Options that go along, by command, of those that it has."""


def spelled(command: str, *words: object, **given: Any) -> str:
    """A command with those of the options given that it has; what is None was not given.

    Example:
        >>> spelled("golden", "a b.onnx", output="golden", input_range=(0.0, 1.0), images=64, recipe=None)
        "equint golden 'a b.onnx' -o golden --input-range 0 1"
    """
    said = ["equint", command, *(f"./{w}" if str(w).startswith("-") else str(w) for w in words)]
    for name in filter(TAKES[command].__contains__, given):
        said += _option("-o" if name == "output" else f"--{name.replace('_', '-')}", given[name])
    return shlex.join(said)


def left_out(command: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Options given that a command has not.

    Example:
        >>> left_out("auto", {"card": "c.toml", "weight_bits": 4, "recipe": None})
        ('weight_bits',)
    """
    return tuple(name for name, value in given.items() if name not in TAKES[command] and _option(f"--{name}", value))


def _option(option: str, value: Any) -> list[str]:
    """An option's words; a list gives it as often."""
    if isinstance(value, bool):
        return [option] if value else [] if option == "--force" else [option.replace("--", "--no-", 1)]
    if isinstance(value, list):
        return [word for one in value for word in (option, str(one))]
    if value is None:
        return []
    values = value if isinstance(value, tuple) else (value,)
    return [option, *(str(one).removesuffix(".0") if isinstance(one, float) else str(one) for one in values)]
