"""What every step becomes in a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping

from . import floats, moves, pointwise, windows
from .writer import Form

FORMS: Mapping[str, Form] = {
    **windows.FORMS,
    **pointwise.FORMS,
    **moves.FORMS,
    "Float": floats.write_floats,
    "Quantize": floats.quantized,
}
"""By a step's operator, what writes it; what is not here LiteRT has no operator for."""
