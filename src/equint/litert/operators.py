"""What every step becomes in a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping

from . import moves, pointwise, windows
from .writer import Form

FORMS: Mapping[str, Form] = {**windows.FORMS, **pointwise.FORMS, **moves.FORMS}
"""By a step's operator, what writes it; what is not here LiteRT has no operator for."""
