"""Files that LiteRT runs: its reference kernels give the engine's integers, its default ones the same but for a step.

LiteRT comes with `pip install equint[consumers]`; the real networks are those of EQUINT_REAL.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import equint
from equint.demo import model_path
from equint.errors import UnsupportedOperator
from equint.integers.engine import Engine
from equint.litert.writer import write
from handwritten import network, normal
from litert_runs import MISSING, furthest, random_integers, run, stored
from nets import random_network
from operator_cases import CASES, Case

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TARGETS = "tflite-int8", "tflite-int8-per-tensor", "tflite-uint8", "tflite-int16"
ODD = {"Conv-3-D", "Div-of_constant", "Div-activations", "AveragePool-ceil", "Pad-edge", "Resize-sizes"}
"""Spellings that have no form of integers, each refused with the node's name where floats are not to be had."""
NEAR = {"LpNormalization-plain", "AveragePool-ceil"}
"""Cases that LiteRT computes otherwise than the engine; here their results differ by a step."""
NEAR_IN_16_BITS = {"Sigmoid", "Tanh", "Swish", "AveragePool"}
"""Operators whose results differ by a step there: LiteRT interpolates between 256 entries of a table."""
WRITTEN = [case for case in CASES if case.op != "MeanVarianceNormalization"]  # takes samples together


@pytest.mark.slow
@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.id)
def test_every_operator_gives_the_engines_integers(case: Case) -> None:
    program = equint.quantize(case.whole, "lwq", TARGETS[0], input=(-3, 3), effort="fast").program
    assert furthest(program) <= (case.id in NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.id)
def test_every_operator_of_16_bits_gives_the_engines_integers(case: Case) -> None:
    program = equint.quantize(case.whole, "lwq", "tflite-int16", input=(-3, 3), effort="fast").program
    halfs = 2 * (case.id == "Cast-half")  # which LiteRT computes in float32
    assert furthest(program) <= max(case.op in NEAR_IN_16_BITS, halfs)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.id in ODD], ids=lambda case: case.id)
def test_what_cannot_be_written_names_the_node(case: Case) -> None:
    with pytest.raises(UnsupportedOperator, match=r"^[abty]: "):
        furthest(equint.quantize(case.whole, "lwq", "ethos-u", input=(-3, 3), effort="fast").program)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(20))
def test_random_networks_give_the_engines_integers(seed: int, target: str) -> None:
    recipe = "cwq" if target in ("tflite-int8", "tflite-int16") else "lwq"
    program = equint.quantize(random_network(seed), recipe, target, input=(-3, 3), effort="fast").program
    assert furthest(program) <= (target == "tflite-int16")  # LOGISTIC of int16


def test_a_single_number_may_be_the_result() -> None:
    proto = network(
        "a = Conv(x, w) y = ReduceMean <keepdims = 0> (a)",
        inputs="float[1,3,8,8] x",
        output="float y",
        w=normal(4, 3, 3, 3),
    )
    program = equint.quantize(proto, "lwq", TARGETS[0], input=(-3, 3), effort="fast").program
    (x,) = random_integers(program, 1)
    file = write(program)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], stored(file, "x", x))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    (wanted,) = Engine(program, threads=1).run({"x": x}).values()
    assert (found.shape, found.tolist()) == ((), wanted.reshape(()).tolist())


@pytest.mark.parametrize("io", ["int8", "uint8", "float"])
def test_inputs_and_outputs_of_other_types_are_the_same_values(io: str, tmp_path: Path) -> None:
    result = equint.quantize(model_path(), target=TARGETS[0], input=(0, 1), effort="fast")
    result.save(tmp_path / "digits.tflite", io=io)
    program = result.program
    (x,), (name,) = random_integers(program, 4), program.outputs
    (wanted,) = run_of(tmp_path / "digits.tflite", result, x, "int8")
    given = {"int8": x, "uint8": (x.astype(int) + 128).astype(np.uint8), "float": program.real(program.inputs[0], x)}
    file = (tmp_path / "digits.tflite").read_bytes()
    (found,) = run(file, [stored(file, program.inputs[0], given[io])])
    kinds = {"int8": np.int8, "uint8": np.uint8, "float": np.float32}
    assert found.dtype == kinds[io]
    real = {"int8": wanted, "uint8": wanted.astype(int) + 128, "float": program.real(name, wanted)}
    np.testing.assert_array_equal(found, real[io])


def run_of(path: Path, result: equint.Result, x: np.ndarray, io: str) -> list[np.ndarray]:
    plain = path.with_name("plain.tflite")
    result.save(plain, io=io)
    file = plain.read_bytes()
    return run(file, [stored(file, result.program.inputs[0], x)])


REAL = "resnet8_cifar10_mlperftiny", "mobilenet_v1_025_96_vww", "dscnn_kws", "yolo_fastest_11_coco", "ultraface_rfb320"


@pytest.mark.slow
@pytest.mark.parametrize("network", REAL)
def test_real_networks_give_the_engines_integers(network: str) -> None:
    folder = os.environ.get("EQUINT_REAL")
    if not folder:
        pytest.skip("EQUINT_REAL names no folder of real networks")
    model = Path(folder) / "models" / f"{network}.onnx"
    program = equint.quantize(model, target=TARGETS[0], effort="fast").program
    assert furthest(program, 1) == 0


def test_what_litert_preserves_is_compared_by_operator(tmp_path: Path) -> None:
    """All tensors of an interpreter, constants included; then one of them changed, as a wrong kernel would."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    asked = {"target": TARGETS[0], "input": (0, 1)}
    equint.golden(model_path(), tmp_path / "golden", images=1, **asked)  # type: ignore[arg-type]
    with np.load(tmp_path / "golden/tensors.npz") as found:
        golden = dict(found)
    interpreter = Interpreter(
        str(tmp_path / "golden/network.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], golden["input"])
    interpreter.invoke()
    dump = {str(d["index"]): interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details()}
    np.savez(tmp_path / "dump.npz", **dump)
    compared = equint.compare_board(model_path(), tmp_path / "dump.npz", **asked)  # type: ignore[arg-type]
    assert (compared.first, compared.missing) == (None, ())
    changed = next(d for d in interpreter.get_tensor_details() if d["name"] == list(golden)[2])
    dump[str(changed["index"])] = dump[str(changed["index"])] + np.int8(1)
    np.savez(tmp_path / "dump.npz", **dump)
    first = equint.compare_board(model_path(), tmp_path / "dump.npz", **asked).first  # type: ignore[arg-type]
    assert first is not None
    assert first.mismatch is not None
    assert f"tensor {changed['index']} {changed['name']}" in first.mismatch.file
