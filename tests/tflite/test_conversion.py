"""Every operator that is read, against NumPy and against LiteRT, with its operands' axes in several orders."""

from collections.abc import Sequence

import numpy as np
import pytest

from equint.tflite.content import content_of
from equint.tflite.reader import converted, operators_read
from tflite_cases import CASES
from tflite_files import TYPES, Array, Part, Step, Tensor, assert_near, by_litert, by_onnxruntime, tflite_file
from tflite_kinds import Case, Given

ELSEWHERE = {"IF", "RFFT2D", "REAL", "IMAG", "COMPLEX_ABS"}  # in files of their own below
POOL = {"padding": "VALID", "filter_height": 1, "filter_width": 1, "stride_h": 1, "stride_w": 1}
ORDERS = ("as it lies", "behind a pool", "the first behind a pool", "behind a transpose")


def type_of(array: Array) -> str:
    return TYPES[str(array.dtype)]


def small(case: Case, order: str) -> tuple[bytes, list[Array]]:
    """A file of one operator, and what it is fed.

    Behind a pool of single pixels axes lie with the channels first, behind a transpose in the reverse order; where the
    first input alone is behind a pool, operands lie differently.
    """
    steps, tensors, consts, feeds, names = (
        list[Step](),
        dict[str, Tensor](),
        dict[str, Array](),
        list[Array](),
        list[str](),
    )
    inputs: list[str] = []
    for k, operand in enumerate(case.operands):
        if operand is None:
            names.append("")
            continue
        name = f"operand{k}"
        names.append(name)
        if not isinstance(operand, Given):
            consts[name] = np.asarray(operand)
            continue
        value = np.asarray(operand.value)
        fed = value
        tensors[name] = Tensor(value.shape, type_of(value))
        moved = f"{name}/moved"
        pooled = order == "behind a pool" or (order == "the first behind a pool" and not inputs)
        if pooled and value.ndim == 4 and value.dtype == np.float32:
            steps.append(Step("MAX_POOL_2D", [moved], [name], POOL))
        elif order == "behind a transpose" and value.ndim > 1 and value.dtype in (np.float32, np.int32):
            fed = np.ascontiguousarray(value.T)
            consts[f"{name}/perm"] = np.arange(value.ndim, dtype=np.int32)[::-1].copy()
            steps.append(Step("TRANSPOSE", [moved, f"{name}/perm"], [name]))
        else:
            moved = name
        tensors[moved] = Tensor(fed.shape, type_of(fed))
        inputs.append(moved)
        feeds.append(np.ascontiguousarray(fed).reshape(fed.shape))
    outputs = [f"result{k}" for k in range(len(case.wanted))]
    for name, wanted in zip(outputs, case.wanted, strict=True):
        tensors[name] = Tensor(wanted.shape, type_of(wanted))
    steps.append(Step(case.kind, names, outputs, case.options, case.custom))
    return tflite_file(Part(steps, tensors, consts, inputs, outputs)), feeds


def results(data: bytes, feeds: Sequence[Array]) -> list[Array]:
    return by_onnxruntime(converted(content_of(data)), feeds)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_as_numpy_says(case: Case, order: str) -> None:
    data, feeds = small(case, order)
    assert_near(results(data, feeds), case.wanted)


@pytest.mark.parametrize("case", [case for case in CASES if case.litert], ids=lambda case: case.id)
def test_as_litert_says(case: Case) -> None:
    data, feeds = small(case, ORDERS[0])
    assert_near(by_litert(data, feeds), case.wanted)


def test_every_conversion_has_a_case() -> None:
    assert {case.kind for case in CASES} | ELSEWHERE == set(operators_read())
