"""Runtimes that users deploy with: each loads its targets' files, runs them on integers, agrees with the simulation.

They come with `pip install equint[consumers]`; networks are those of EQUINT_REAL. EQUINT_ONNXRUNTIME names folders of
other versions of onnxruntime (`pip install --target FOLDER --no-deps onnxruntime==1.25.0`), separated by colons.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from consumers import CONSUMERS, NETWORKS, Consumer, File, chosen, compared, other_versions, quantized

pytestmark = pytest.mark.slow
OTHERS = other_versions([folder for folder in os.environ.get("EQUINT_ONNXRUNTIME", "").split(os.pathsep) if folder])
EVERY = (*CONSUMERS, *OTHERS)
PAIRS = [(consumer, target) for consumer in EVERY for target in consumer.targets]
SAMPLES, EMULATED = 16, 4  # an emulator takes seconds for each


def id_of(value: object) -> str:
    return value.name if isinstance(value, Consumer) else str(value)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], File]:
    """Quantized networks, each made once."""
    folder = tmp_path_factory.mktemp("files")
    if not os.environ.get("EQUINT_REAL"):
        pytest.skip("EQUINT_REAL names no folder of real networks")

    @cache
    def made(network: str, target: str) -> File:
        return quantized(found[network], target, folder, "fast", 16)

    found = chosen(NETWORKS, SAMPLES)
    return made


@pytest.mark.parametrize(("consumer", "target"), PAIRS, ids=id_of)
@pytest.mark.parametrize("network", NETWORKS)
def test_runs_on_integers_and_agrees(
    network: str, consumer: Consumer, target: str, files: Callable[[str, str], File]
) -> None:
    if consumer.missing is not None:
        pytest.skip(consumer.missing)
    row = compared(files(network, target), consumer, limit=SAMPLES if consumer.timed else EMULATED)
    assert not row.failure
    assert row.layers > 0
    if consumer.integers:
        assert row.integer == row.layers
    assert row.agrees(consumer.least_db), row


def test_a_weight_that_is_wrong_shows(files: Callable[[str, str], File], tmp_path: Path) -> None:
    """The bound means something: with one bias moved by a tenth of its range, a consumer no longer agrees."""
    file = files(NETWORKS[0], "per-channel")
    model = onnx.load(file.path)
    bias = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT32)
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + np.int32(np.abs(values).max() // 10), bias.name))
    onnx.save(model, tmp_path / "moved.onnx")
    moved = File(file.network, file.target, tmp_path / "moved.onnx", file.plain, file.wanted)
    assert not compared(moved, CONSUMERS[0]).agrees()


def test_weights_with_zero_points_run_in_float_in_openvino(files: Callable[[str, str], File]) -> None:
    """Why `openvino` has none."""
    openvino = next(consumer for consumer in CONSUMERS if consumer.name == "OpenVINO")
    if openvino.missing is not None:
        pytest.skip(openvino.missing)
    row = compared(files(NETWORKS[3], "per-tensor"), openvino)
    assert row.integer < row.layers / 2
