"""equint: turn trained convolutional networks into fixed-point networks from their weights alone.

Example:
    >>> import equint
    >>> from equint.demo import model_path
    >>> result = equint.quantize(model_path(), input=(0, 1))
    >>> result.target
    'per-channel'
"""

from __future__ import annotations

from .api import Result, load, quantize
from .errors import EquintError

__version__ = "0.1.0"
__all__ = ["EquintError", "Result", "__version__", "load", "quantize"]
