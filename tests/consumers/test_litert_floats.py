"""Float operators in .tflite files: LiteRT's reference kernels give what onnxruntime does."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.hardware.target import target
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.ir.model import Array, QParams
from equint.litert.writer import write
from equint.planning.data import single
from handwritten import execute, network, normal
from litert_runs import MISSING, furthest, run, stored
from operator_cases import CASES, Case

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
INT8 = target("tflite-int8")
NEAR = {"Resize-linear", "AveragePool-plain", "AveragePool-padded", "AveragePool-ceil"}
"""Cases whose floats differ in the last place, so that integers behind them may by a step."""
TOGETHER = "MeanVarianceNormalization"
"""Takes samples together; files take them one by one."""


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.op != TOGETHER], ids=lambda case: case.id)
def test_every_operator_in_float_gives_the_engines_integers(case: Case) -> None:
    made = equint.quantize(case.whole, "lwq", INT8, input=(-3, 3), effort="fast")
    model = single(made.model, None)
    labels = {node.label for node in model.graph.nodes if node.op != "Conv" or case.op == "Conv"}
    assert furthest(lower(model, INT8, labels)) <= (case.id in NEAR)


def gates(op: str, directions: int = 1, hidden: int = 4, inputs: int = 3) -> dict[str, Array]:
    """Weights of a recurrent layer."""
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    weights = {"w": normal(directions, rows, inputs), "r": normal(directions, rows, hidden, seed=2)}
    return {**weights, "b": normal(directions, 2 * rows, seed=3)}


SEQUENCE = {"inputs": "float[6,1,3] x", "output": "float[6,1,1,4] y"}
OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    **{op: (f"y = {op} <hidden_size = 4> (x, w, r, b)", {**gates(op), **SEQUENCE}) for op in ("LSTM", "GRU", "RNN")},
    "LSTM backwards": (
        'y = LSTM <hidden_size = 4, direction = "reverse"> (x, w, r, b)',
        {**gates("LSTM"), **SEQUENCE},
    ),
    "GRU in both directions": (
        'y = GRU <hidden_size = 4, direction = "bidirectional", linear_before_reset = 1> (x, w, r, b)',
        {**gates("GRU", 2), "inputs": "float[6,1,3] x", "output": "float[6,2,1,4] y"},
    ),
    "the last state": (
        "a, h, c = LSTM <hidden_size = 4> (x, w, r, b, , s, s) y = Concat <axis = 0> (h, c)",
        {**gates("LSTM"), "s": normal(1, 1, 4, seed=5), "inputs": "float[6,1,3] x", "output": "float[2,1,4] y"},
    ),
    "convolution over three axes": (
        "y = Conv <pads = [1, 1, 1, 0, 0, 0], strides = [1, 2, 1]> (x, w)",
        {"w": normal(4, 2, 3, 3, 3), "inputs": "float[1,2,5,6,5] x", "output": "float[1,4,4,3,4] y"},
    ),
    "convolution of signals": (
        "y = Conv <dilations = [2], group = 2> (x, w, b)",
        {"w": normal(6, 1, 3), "b": normal(6), "inputs": "float[1,2,9] x", "output": "float[1,6,5] y"},
    ),
    "dilated transposed convolution": (
        "y = ConvTranspose <dilations = [2, 2], strides = [2, 1], pads = [1, 0, 0, 1], group = 2> (x, w, b)",
        {"w": normal(4, 3, 3, 2), "b": normal(6), "inputs": "float[1,4,5,5] x", "output": "float[1,6,12,6] y"},
    ),
    "dilated pool": (
        "y = MaxPool <kernel_shape = [3, 2], dilations = [2, 3], strides = [1, 2], pads = [1, 1, 0, 0]> (x)",
        {"inputs": "float[1,2,8,9] x", "output": "float[1,2,5,4] y"},
    ),
    "dilated pool of one tap": (
        "y = MaxPool <kernel_shape = [1, 1], dilations = [2, 2], strides = [2, 2]> (x)",
        {"inputs": "float[1,2,8,8] x", "output": "float[1,2,4,4] y"},
    ),
    "largest places": ("v, i = TopK (x, k) y = Cast <to = 1> (i)", {"k": np.array([2]), "output": "float[1,2] y"}),
    "sums so far": ("y = CumSum <exclusive = 1> (x, k)", {"k": np.array(1), "output": "float[1,5] y"}),
    "least place": ("i = ArgMin <axis = 1> (x) y = Cast <to = 1> (i)", {"output": "float[1,1] y"}),
    "largest of whole numbers": (
        "y = ArgMax <axis = 1> (i)",
        {"inputs": "int64[1,5] i", "output": "int64[1,1] y"},
    ),
    "lengths": ("y = ReduceL2 <axes = [1]> (x)", {"output": "float[1,1] y"}),
    "sums of magnitudes": ("y = ReduceL1 <axes = [1]> (x)", {"output": "float[1,1] y"}),
    "logarithms of sums": ("y = ReduceLogSumExp <axes = [1]> (x)", {"output": "float[1,1] y"}),
    "products along an axis": ("y = ReduceProd <axes = [1], keepdims = 0> (x)", {"output": "float[1] y"}),
    "logarithms of shares": ("y = LogSoftmax (x)", {"output": "float[1,5] y"}),
    "shares over two axes": (
        "y = Softmax <axis = 1> (x)",
        {"inputs": "float[1,2,3] x", "output": "float[1,2,3] y"},
    ),
    "chosen by a comparison": (
        "g = GreaterOrEqual (x, k) h = Less (x, l) m = Xor (g, h) n = Not (m) y = Where (n, x, k)",
        {"k": np.array([0.3], np.float32), "l": normal(1, 5), "output": "float[1,5] y"},
    ),
    "remainders": (
        "y = Mod (i, k) ",
        {"k": np.array([3], np.int64), "inputs": "int64[1,5] i", "output": "int64[1,5] y"},
    ),
    "rows of a table": (
        "y = Gather (w, i)",
        {"w": normal(7, 4), "inputs": "int64[1,5] i", "output": "float[1,5,4] y"},
    ),
    "repeated": ("y = Tile (x, k)", {"k": np.array([2, 3]), "output": "float[2,15] y"}),
    "slopes below": ("y = PRelu (x, k)", {"k": normal(5), "output": "float[1,5] y"}),
    "selu": ("y = Selu (x)", {"output": "float[1,5] y"}),
    "softsign": ("y = Softsign (x)", {"output": "float[1,5] y"}),
    "powers": ("a = Abs (x) y = Pow (a, k)", {"k": normal(5), "output": "float[1,5] y"}),
    "matrix of constants first": (
        "y = MatMul (w, x)",
        {"w": normal(4, 6), "inputs": "float[1,6,3] x", "output": "float[1,4,3] y"},
    ),
    "matrices and a bias": (
        "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, b)",
        {"w": normal(4, 5), "b": normal(4), "output": "float[1,4] y"},
    ),
    "means in float": ("y = Mean (x, k)", {"k": normal(5), "output": "float[1,5] y"}),
    "blocks": (
        'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)',
        {"inputs": "float[1,8,3,3] x", "output": "float[1,2,6,6] y"},
    ),
    "edges repeated": (
        'y = Pad <mode = "reflect"> (x, k)',
        {"k": np.array([0, 0, 2, 1, 0, 0, 1, 2]), "inputs": "float[1,2,4,4] x", "output": "float[1,2,7,7] y"},
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_floats_are_onnxruntimes(name: str) -> None:
    body, said = OPERATORS[name]
    proto = network(body, **{"inputs": "float[1,5] x", **said})
    model = equint.load(proto)
    graph = model.graph
    rng, x = np.random.default_rng(3), graph.inputs[0]
    shape = [n for n in graph.shapes[x] if isinstance(n, int)]
    grid = QParams(np.asarray(0.02, np.float32), np.asarray(3, np.int32))
    whole = graph.dtypes.get(x) == "int64"
    real: Any = rng.integers(-7, 7, shape) if whole else 0.02 * rng.integers(-128, 125, shape).astype(np.float32)
    known = model if whole else type(model)(graph, qparams={x: grid})
    program = lower(known, INT8, {node.label for node in graph.nodes})
    (wanted,) = execute(proto, real)
    found = Engine(program, threads=1).real({x: real})["y"]
    np.testing.assert_allclose(found, wanted, 1e-4, 1e-5)
    file = write(program)
    given = real if whole else program.quantized(x, real)
    (y,) = run(file, [stored(file, x, given)], rows=len(given))
    np.testing.assert_allclose(y, stored(file, "y", wanted), 1e-4, 1e-5)
