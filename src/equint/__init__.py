"""equint: turn trained convolutional networks into fixed-point networks from their weights alone.

Example:
    >>> import equint
    >>> from equint.demo import model_path
    >>> result = equint.quantize(model_path(), input=(0, 1))
    >>> result.target
    'per-channel'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    EquintError,
    InvalidCard,
    InvalidOption,
    InvalidRecipe,
    InvalidTarget,
    MissingLibrary,
    OutputRefused,
    TargetMismatch,
    UnknownName,
    UnreadableModel,
    UnsupportedOperator,
    UnusableData,
)

if TYPE_CHECKING:
    from .api import calibrate, quantize, recipes, targets
    from .automatic import auto, card
    from .comparisons import compare, evaluate, judge, page, table
    from .devices import compare_board, export, golden, program, sizes
    from .frontends.sources import from_torch, load
    from .graph.overrides import Override
    from .hardware.target import Target
    from .ir.model import Model
    from .planning.recipe import Recipe
    from .result import Result
    from .samples.card import Card
    from .samples.images import Samples
    from .samples.statistics import Statistics
    from .studies import diagnose, explain, inspect, lint, mixed, report, sqnr

__version__ = "0.1.0"
__all__ = ["Card", "Model", "Override", "Recipe", "Result", "Samples", "Statistics", "Target", "__version__"]
__all__ += ["EquintError", "InvalidCard", "InvalidOption", "InvalidRecipe", "InvalidTarget", "MissingLibrary"]
__all__ += ["OutputRefused", "TargetMismatch", "UnknownName", "UnreadableModel", "UnsupportedOperator", "UnusableData"]
__all__ += [
    "auto",
    "calibrate",
    "card",
    "compare",
    "compare_board",
    "diagnose",
    "evaluate",
    "explain",
    "export",
    "from_torch",
]
__all__ += [
    "golden",
    "inspect",
    "judge",
    "lint",
    "load",
    "mixed",
    "page",
    "program",
    "quantize",
    "recipes",
    "report",
    "sizes",
]
__all__ += ["sqnr", "table", "targets"]


_HOMES = (
    *(
        "api",
        "devices",
        "studies",
        "comparisons",
        "result",
        "automatic",
        "frontends.sources",
        "graph.overrides",
        "hardware.target",
    ),
    *("ir.model", "planning.recipe", "samples.card", "samples.images", "samples.statistics"),
)
"""Where public names are defined, in the order in which they are looked for."""


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the library on first use, so that the command line starts at once."""
    if name in __all__:
        homes = (import_module(f".{home}", __name__) for home in _HOMES)
        return next(getattr(home, name) for home in homes if hasattr(home, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
