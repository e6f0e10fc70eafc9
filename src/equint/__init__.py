"""equint: turn trained convolutional networks into fixed-point networks from their weights alone.

Example:
    >>> import equint
    >>> from equint.demo import model_path
    >>> result = equint.quantize(model_path(), input=(0, 1))
    >>> result.target
    'per-channel'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import EquintError

if TYPE_CHECKING:
    from .api import Result, calibrate, explain, from_torch, load, program, quantize, report, sqnr
    from .studies import diagnose, mixed

__version__ = "0.1.0"
__all__ = [
    "EquintError",
    "Result",
    "__version__",
    "calibrate",
    "diagnose",
    "explain",
    "from_torch",
    "load",
    "mixed",
    "program",
    "quantize",
    "report",
    "sqnr",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the library on first use, so that the command line starts at once."""
    if name in __all__:
        from . import api
        from . import studies as study

        return getattr(study if name in ("diagnose", "mixed") else api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
