"""A small trained network and held-out digits, so that equint can be tried on a fresh machine."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def model_path() -> Path:
    """The bundled float network: MobileNet-like, with depthwise layers, a residual sum and ReLU6."""
    return Path(str(resources.files(__package__) / "digits.onnx"))


def data_path() -> Path:
    """Held-out digits with labels, never seen in training."""
    return Path(str(resources.files(__package__) / "digits_heldout.npz"))
