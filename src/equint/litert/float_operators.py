"""What every operator becomes in float in a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping

from . import float_axes, float_layers, float_moves, float_recurrent, float_values
from .floats import FloatForm

FLOAT_FORMS: Mapping[str, FloatForm] = {
    **float_values.FORMS,
    **float_axes.FORMS,
    **float_moves.FORMS,
    **float_layers.FORMS,
    **float_recurrent.FORMS,
}
"""By an operator's ONNX name, what writes it; what is not here LiteRT has no operator for."""
