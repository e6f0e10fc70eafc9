"""Files for Ethos-U: Vela, Arm's compiler, puts every operator on the NPU.

Vela comes with `pip install equint[consumers]`; the real networks are those of EQUINT_REAL.
"""

import csv
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import equint
from equint.errors import UnsupportedOperator
from equint.litert.writer import write
from handwritten import network, normal
from vela_cases import BEYOND, WITHIN, made

needs_vela = pytest.mark.skipif(find_spec("ethosu") is None, reason="Vela is missing: pip install equint[consumers]")
MACHINES = "ethos-u55-256", "ethos-u85-512"
REAL = "resnet8_cifar10_mlperftiny", "mobilenet_v1_025_96_vww", "dscnn_kws", "mobilenet_v2_035_224_flowers"


def compiled(file: Path, machine: str) -> tuple[int, int, float]:
    """Operators on the CPU, on the NPU, and Vela's estimate of one inference, in ms."""
    out = file.parent / machine
    start = "from ethosu.vela.vela import main; main()"
    call = [sys.executable, "-c", start, "--accelerator-config", machine, "--output-dir", str(out), str(file)]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=file.parent)
    cpu, npu = (re.search(rf"^{kind} operators = (\d+)", done.stdout, re.MULTILINE) for kind in ("CPU", "NPU"))
    assert cpu is not None, done.stdout
    assert npu is not None, done.stdout
    (summary,) = out.glob(f"{file.stem}_summary_*.csv")
    (row,) = csv.DictReader(summary.read_text().splitlines())
    return int(cpu[1]), int(npu[1]), float(row["inference_time"]) * 1000


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("network", REAL)
def test_every_operator_of_real_networks_is_on_the_npu(network: str, tmp_path: Path) -> None:
    folder = os.environ.get("EQUINT_REAL")
    if not folder:
        pytest.skip("EQUINT_REAL names no folder of real networks")
    file = tmp_path / f"{network}.tflite"
    equint.quantize(Path(folder) / "models" / f"{network}.onnx", target="ethos-u", effort="fast").save(file)
    for machine in MACHINES:
        cpu, npu, milliseconds = compiled(file, machine)
        print(f"{network} {machine}: {npu} operators on the NPU, {milliseconds:.2f} ms")
        assert (cpu, npu > 5) == (0, True)


POINTWISE = {
    "Relu": "y = Relu (c)",
    "LeakyRelu": "y = LeakyRelu <alpha = 0.1> (c)",
    "HardSwish": "y = HardSwish (c)",
    "Silu": "s = Sigmoid (c) y = Mul (c, s)",
    "Tanh": "y = Tanh (c)",
    "Softmax": "y = Softmax <axis = 1> (c)",
    "GlobalAveragePool": "y = GlobalAveragePool (c)",
    "GlobalMaxPool": "y = GlobalMaxPool (c)",
    "Concat": "m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c) y = Concat <axis = 1> (c, m)",
}


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("body", POINTWISE.values(), ids=POINTWISE.keys())
def test_what_is_written_for_it_is_on_the_npu(body: str, tmp_path: Path) -> None:
    model = network(f"c = Conv (x, w) {body}", w=normal(8, 3, 3, 3), inputs="float[1,3,16,16] x")
    equint.quantize(model, "cwq", "ethos-u", input=(-3, 3), effort="fast").save(tmp_path / "net.tflite")
    for machine in MACHINES:
        assert compiled(tmp_path / "net.tflite", machine)[0] == 0


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("y = Mish (c)", "CAST, GATHER"),
        ("y = DepthToSpace <blocksize = 2> (c)", "DEPTH_TO_SPACE"),
    ],
)
def test_what_the_npu_does_not_run_is_refused_by_name(body: str, kinds: str, tmp_path: Path) -> None:
    model = network(f"c = Conv (x, w) {body}", w=normal(8, 3, 3, 3), inputs="float[1,3,16,16] x", opset=18)
    result = equint.quantize(model, "cwq", "ethos-u", input=(-3, 3), effort="fast")
    with pytest.raises(UnsupportedOperator, match=rf"^\w+: becomes {kinds}, which the target does not run"):
        result.save(tmp_path / "net.tflite")


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("name", [*BEYOND, *WITHIN])
def test_bounds_on_sizes_are_velas(name: str, tmp_path: Path) -> None:
    result = made(name)
    (tmp_path / "net.tflite").write_bytes(write(result.program, taken=result.hardware.litert_operators))
    left = [compiled(tmp_path / "net.tflite", machine)[0] for machine in MACHINES]
    assert any(left) == (name in BEYOND), left
