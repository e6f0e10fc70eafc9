"""What a file says of its input, from the file to the range that is quantized."""

from typing import Any

import numpy as np
import pytest

from equint.ir.events import EventKind
from equint.onnx.reader import read
from equint.samples.card import Card, described
from equint.tflite.content import content_of
from equint.tflite.flatbuffer import pack, unpack
from equint.tflite.metadata import NAME, preparation_of
from equint.tflite.reader import converted
from tflite_files import Part, Step, Tensor, tflite_file


def told(mean: list[float], std: list[float], inputs: int = 1) -> bytes:
    """What TensorFlow Lite Support writes: texts, names of axes, and how pixels are normalised."""
    units: list[dict[str, Any]] = [{}, {"options": ("NormalizationOptions", {"mean": mean, "std": std})}]
    image = {"name": "image", "dimension_names": ["batch", "row"], "process_units": units, "stats": {"max": [1.0]}}
    return pack({"name": "net", "subgraph_metadata": [{"input_tensor_metadata": [image] * inputs}]}, "ModelMetadata")


def file(said: bytes, shape: tuple[int, ...] = (1, 32, 32, 3)) -> bytes:
    part = Part([Step("RELU", ["x"], ["y"])], {"x": Tensor(shape), "y": Tensor(shape)}, {}, ["x"], ["y"])
    values = unpack(tflite_file(part))
    values["buffers"].append({"data": np.frombuffer(said, np.uint8)})
    values["metadata"] = [{"name": NAME, "buffer": len(values["buffers"]) - 1}]
    return pack(values)


def test_the_input_is_what_the_file_says() -> None:
    model = read(converted(content_of(file(told([0.0, 127.5, 51.0], [255.0, 127.5, 51.0])))))
    span = model.ranges["x"]
    [event] = [event for event in model.log if event.kind is EventKind.INPUT_KNOWN]
    assert (span.lo.ravel().tolist(), span.hi.ravel().tolist()) == ([0, -1, -1], [1, 1, 4])
    assert span.lo.shape == (1, 1, 1, 3)
    assert "pixels 0 to 255, normalised as the file says" in event.text


def test_a_card_says_it_better() -> None:
    model = read(converted(content_of(file(told([0.0], [255.0])))))
    model = described(model, Card("rgb", (127.5,), (127.5,), layout="nhwc"))
    assert float(np.min(model.ranges["x"].lo)) == -1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nothing",
        told([0.0], [0.0]),
        told([0.0], [1.0, 2.0]),
        told([], []),
        told([0.0], [1.0], 2),
        told([0.0], [1.0])[:90],
    ],
)
def test_what_is_not_said_soundly_is_not_believed(said: bytes) -> None:
    assert preparation_of(unpack(file(said))) is None
    assert not read(converted(content_of(file(said)))).ranges


def test_of_inputs_that_are_no_pictures_nothing_is_taken() -> None:
    assert not read(converted(content_of(file(told([0.0], [255.0]), (1, 64))))).ranges
    assert not read(converted(content_of(file(told([0.0, 1.0], [255.0, 1.0]))))).ranges
