"""How a file says that its input is prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UnreadableModel
from .flatbuffer import unpack

NAME = "TFLITE_METADATA"
"""What a file's metadata call the description of its inputs and outputs."""

PROVENANCE = "equint"
"""The entry, JSON, in which equint says how it made a file."""

Preparation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and spread of pixels, one for all channels or one for each: the input is (pixel − mean) / spread."""


def preparation_of(model: Mapping[str, Any]) -> Preparation | None:
    """How the only input of a file is prepared from pixels 0 to 255; None where the file does not say so soundly.

    Args:
        model: the file's tables, as `flatbuffer.unpack` gives them.

    Example:
        >>> from .flatbuffer import pack
        >>> units = [{"options": ("NormalizationOptions", {"mean": [127.5], "std": [127.5]})}]
        >>> subgraph = {"input_tensor_metadata": [{"name": "image", "process_units": units}]}
        >>> said = np.frombuffer(pack({"subgraph_metadata": [subgraph]}, "ModelMetadata"), np.uint8)
        >>> preparation_of({"metadata": [{"name": NAME, "buffer": 1}], "buffers": [{}, {"data": said}]})
        ((127.5,), (127.5,))
    """
    places = [entry["buffer"] for entry in model["metadata"] if entry["name"] == NAME]
    if not places or places[0] >= len(model["buffers"]):
        return None
    try:
        said = unpack(model["buffers"][places[0]]["data"].tobytes(), root="ModelMetadata")
    except UnreadableModel:  # the network can be read without it
        return None
    inputs = said["subgraph_metadata"][0]["input_tensor_metadata"] if said["subgraph_metadata"] else []
    if len(inputs) != 1:
        return None
    options = [unit["options"] for unit in inputs[0]["process_units"] if unit["options"]]
    found = next((table for kind, table in options if kind == "NormalizationOptions"), None)
    if found is None:
        return None
    mean, std = (np.asarray(found[key], np.float64) for key in ("mean", "std"))
    sound = (
        mean.size and mean.size == std.size and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    )
    return (tuple(mean.tolist()), tuple(std.tolist())) if sound else None


def provenance_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """What equint says of a file that it wrote; nothing of others.

    Args:
        model: the file's tables, as `flatbuffer.unpack` gives them.

    Example:
        >>> said = np.frombuffer(b'{"target": "ethos-u"}', np.uint8)
        >>> provenance_of({"metadata": [{"name": "equint", "buffer": 1}], "buffers": [{}, {"data": said}]})
        {'target': 'ethos-u'}
    """
    places = [entry["buffer"] for entry in model["metadata"] if entry["name"] == PROVENANCE]
    if not places or places[0] >= len(model["buffers"]):
        return {}
    try:
        said = json.loads(model["buffers"][places[0]]["data"].tobytes())
    except ValueError:  # somebody else's entry
        return {}
    return said if isinstance(said, dict) else {}
