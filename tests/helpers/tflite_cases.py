"""Operators of TFLite with what they should give: NumPy, written by hand from TensorFlow's definitions."""

import math
import struct
from collections.abc import Callable
from itertools import product

import numpy as np

from tflite_files import Array
from tflite_kinds import ROWS, Case, Given, X, draw, floats, ints, number
from tflite_moves import parts, shapes
from tflite_oracles import convolved, framed, local_response, resized, softmax, spread, taps

erf = np.vectorize(math.erf)


def convolutions() -> list[Case]:
    kernel, bias, bias6 = draw(4, 3, 3, 3, seed=1), draw(4, seed=2), draw(6, seed=14)
    cases = []
    for padding, strides in product(("SAME", "VALID"), ((1, 1), (2, 2), (1, 2))):
        options = {"padding": padding, "stride_h": strides[0], "stride_w": strides[1]}
        wanted = convolved(X, kernel, strides, padding == "SAME") + bias
        cases.append(Case("CONV_2D", [Given(X), kernel, bias], [wanted], options, f"{padding}{strides}"))
        deep = draw(1, 3, 2, 6, seed=3)
        by_channel = deep.reshape(3, 2, 6, 1).transpose(2, 0, 1, 3)
        wanted = convolved(X, by_channel, strides, padding == "SAME") + bias6
        options = options | {"depth_multiplier": 2}
        cases.append(Case("DEPTHWISE_CONV_2D", [Given(X), deep, bias6], [wanted], options, f"{padding}{strides}"))
    even = draw(4, 2, 4, 3, seed=4)
    one = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
    dilated = one | {"dilation_h_factor": 2, "dilation_w_factor": 3}
    cases.append(Case("CONV_2D", [Given(X), even, bias], [convolved(X, even, (1, 1), True) + bias], one, "even"))
    wanted = convolved(X, kernel, (1, 1), True, (2, 3))
    cases.append(Case("CONV_2D", [Given(X), kernel, bias], [wanted + bias], dilated, "dilated"))
    wanted = convolved(X, kernel, (1, 1), True)
    cases.append(Case("CONV_2D", [Given(X), kernel, None], [wanted], one, "without bias", litert=False))
    wide, grouped, bias8 = draw(1, 4, 5, 6, seed=5), draw(8, 3, 3, 3, seed=6), draw(8, seed=15)
    wanted = convolved(wide, grouped, (1, 1), True) + bias8
    cases.append(Case("CONV_2D", [Given(wide), grouped, bias8], [wanted], one, "grouped"))
    for fused, f in FUSED.items():
        wanted = f(convolved(X, kernel, (1, 1), True) + bias)
        options = one | {"fused_activation_function": fused}
        cases.append(Case("CONV_2D", [Given(X), kernel, bias], [wanted], options, fused, litert=fused != "TANH"))
    cases.append(
        Case(
            "CONV_2D",
            [Given(X), Given(kernel), Given(bias)],
            [convolved(X, kernel, (1, 1), True) + bias],
            one,
            "computed",
        )
    )
    cube, kernel3 = draw(1, 4, 5, 6, 2, seed=7), draw(3, 2, 3, 2, 4, seed=8)
    strided = {"padding": "SAME", "stride_d": 2, "stride_h": 1, "stride_w": 2}
    wanted = convolved(cube, kernel3.transpose(4, 0, 1, 2, 3), (2, 1, 2), True, (1, 1, 1))
    cases.append(Case("CONV_3D", [Given(cube), kernel3], [wanted], strided))
    return cases + transposed_convolutions()


def transposed_convolutions() -> list[Case]:
    x, bias, cases = draw(2, 3, 4, 5, seed=9), draw(2, seed=11), []
    for padding, k, s, made in [
        ("SAME", 3, 2, (6, 8)), ("SAME", 3, 2, (5, 7)), ("SAME", 2, 2, (6, 8)), ("VALID", 3, 2, (7, 9)),
        ("VALID", 3, 2, (8, 10)), ("SAME", 4, 1, (3, 4)), ("SAME", 1, 2, (6, 8)),
    ]:  # fmt: skip
        w = draw(2, k, k, 5, seed=10)
        options = {"padding": padding, "stride_h": s, "stride_w": s}
        wanted = spread(x, w, (s, s), made, padding == "SAME")
        name = f"{padding}{k}{s}{made}"
        cases.append(Case("TRANSPOSE_CONV", [ints(2, *made, 2), w, Given(x)], [wanted], options, name))
    w = draw(2, 2, 2, 5, seed=10)
    wanted = spread(x, w, (2, 2), (6, 8), True) + bias
    same = {"padding": "SAME", "stride_h": 2, "stride_w": 2}
    relu = same | {"fused_activation_function": "RELU"}
    cases.append(Case("TRANSPOSE_CONV", [ints(2, 6, 8, 2), w, Given(x), bias], [np.maximum(wanted, 0)], relu, "bias"))
    custom = struct.pack("<3i", 1, 2, 2)
    name = "CUSTOM Convolution2DTransposeBias"
    cases.append(Case(name, [Given(x), w, bias], [wanted], custom=custom))
    cube, w3 = draw(1, 2, 3, 4, 2, seed=12), draw(2, 3, 3, 4, 2, seed=13)
    wanted = spread(cube, w3.transpose(3, 0, 1, 2, 4), (1, 2, 2), (2, 6, 8), True)
    options = {"padding": "SAME", "stride_d": 1, "stride_h": 2, "stride_w": 2}
    return [*cases, Case("CONV_3D_TRANSPOSE", [ints(1, 2, 6, 8, 4), w3, Given(cube)], [wanted], options)]


def products() -> list[Case]:
    w, bias, cube, wide = draw(6, 5, seed=20), draw(6, seed=21), draw(2, 3, 5, seed=22), draw(6, 90, seed=24)
    a, b = draw(2, 3, 4, seed=25), draw(2, 4, 5, seed=26)
    table = draw(7, 3, seed=27)
    return [
        Case("FULLY_CONNECTED", [Given(ROWS), w, bias], [ROWS @ w.T + bias]),
        Case(
            "FULLY_CONNECTED",
            [Given(ROWS), w, None],
            [np.maximum(ROWS @ w.T, 0)],
            {"fused_activation_function": "RELU"},
            "relu",
        ),
        Case("FULLY_CONNECTED", [Given(cube), w, bias], [cube @ w.T + bias], {"keep_num_dims": True}, "kept"),
        Case("FULLY_CONNECTED", [Given(cube), w, bias], [cube.reshape(6, 5) @ w.T + bias], {}, "rows"),
        Case("FULLY_CONNECTED", [Given(X), wide, bias], [X.reshape(2, 90) @ wide.T + bias], {}, "pictures"),
        Case("FULLY_CONNECTED", [Given(ROWS), Given(w)], [ROWS @ w.T], {}, "computed"),
        Case("BATCH_MATMUL", [Given(a), Given(b)], [a @ b]),
        Case("BATCH_MATMUL", [Given(a), b[0]], [a @ b[0]], {}, "constant"),
        Case(
            "BATCH_MATMUL",
            [Given(a.swapaxes(1, 2).copy()), Given(b.swapaxes(1, 2).copy())],
            [a @ b],
            {"adj_x": True, "adj_y": True},
            "turned",
        ),
        Case("EMBEDDING_LOOKUP", [Given(ints(3, 0, 6)), table], [table[[3, 0, 6]]]),
    ]


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


FUSED: dict[str, Callable[[Array], Array]] = {
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": relu6,
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "TANH": np.tanh,
}
UNARY: dict[str, Callable[[Array], Array]] = {
    "ABS": np.abs, "CEIL": np.ceil, "COS": np.cos, "EXP": np.exp, "FLOOR": np.floor, "NEG": np.negative,
    "ROUND": np.rint, "SIGN": np.sign, "SIN": np.sin, "SQUARE": np.square, "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(x)), "HARD_SWISH": lambda x: x * relu6(x + 3) / 6,
    "RELU": lambda x: np.maximum(x, 0), "RELU6": relu6, "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1), "TANH": np.tanh, "ZEROS_LIKE": np.zeros_like,
}  # fmt: skip
POSITIVE: dict[str, Callable[[Array], Array]] = {"LOG": np.log, "SQRT": np.sqrt, "RSQRT": lambda x: 1 / np.sqrt(x)}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide, "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum, "SQUARED_DIFFERENCE": lambda a, b: np.square(a - b), "LESS": np.less,
    "LESS_EQUAL": np.less_equal, "GREATER": np.greater, "GREATER_EQUAL": np.greater_equal, "EQUAL": np.equal,
    "NOT_EQUAL": np.not_equal, "FLOOR_DIV": lambda a, b: np.floor(a / b), "FLOOR_MOD": np.mod,
}  # fmt: skip


def pointwise() -> list[Case]:
    y, positive = draw(2, 5, 6, 3, seed=30), draw(2, 5, 6, 3, seed=31, low=0.1)
    channels, one = draw(3, seed=32), floats(0.5)
    cases = [Case(kind, [Given(X)], [f(X)]) for kind, f in UNARY.items()]
    cases += [Case(kind, [Given(positive)], [f(positive)]) for kind, f in POSITIVE.items()]
    for kind, f in BINARY.items():
        cases += [
            Case(kind, [Given(X), Given(y)], [f(X, y)]),
            Case(kind, [Given(X), channels], [f(X, channels)], {}, "channels"),
            Case(kind, [Given(X), Given(one.reshape(()))], [f(X, one)], {}, "scalar"),
        ]
    cases.append(Case("ADD", [Given(X), Given(y[0])], [X + y[0]], {}, "lower rank"))
    cases.append(Case("MUL", [Given(X), Given(y[:, :1, :1])], [X * y[:, :1, :1]], {}, "gate"))
    cases.append(Case("ADD", [y, Given(X)], [relu6(X + y)], {"fused_activation_function": "RELU6"}, "fused"))
    a, b = ints(7, -7, 9, -9), ints(2, 2, -4, -4)
    cases += [
        Case("DIV", [Given(a), Given(b)], [ints(3, -3, -2, 2)], {}, "whole"),
        Case("FLOOR_DIV", [Given(a), Given(b)], [ints(3, -4, -3, 2)], {}, "whole"),
        Case("FLOOR_MOD", [Given(a), Given(b)], [ints(1, 1, -3, -1)], {}, "whole"),
        Case("POW", [Given(positive), Given(y)], [positive**y]),
        Case("POW", [Given(X), number(2)], [X**2], {}, "square"),
        Case("ADD_N", [Given(X), Given(y), Given(positive)], [X + y + positive]),
        Case("LEAKY_RELU", [Given(X)], [np.where(X > 0, X, number(0.3) * X)], {"alpha": 0.3}),
        Case("PRELU", [Given(X), channels.reshape(1, 1, 3)], [np.where(X > 0, X, channels * X)]),
        Case("GELU", [Given(X)], [(X * (1 + erf(X / math.sqrt(2))) / 2).astype(np.float32)]),
        Case(
            "GELU",
            [Given(X)],
            [(X / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))).astype(np.float32)],
            {"approximate": True},
            "tanh",
        ),
        Case("SELECT", [Given(X > 0), Given(X), Given(y)], [np.where(X > 0, X, y)]),
        Case("SELECT", [Given(np.array([True, False])), Given(X), Given(y)], [np.stack([X[0], y[1]])], {}, "rows"),
        Case("SELECT_V2", [Given(X > 0), Given(X), channels], [np.where(X > 0, X, channels)]),
        Case("LOGICAL_NOT", [Given(X > 0)], [X <= 0]),
        Case("LOGICAL_AND", [Given(X > 0), Given(y > 0)], [(X > 0) & (y > 0)]),
        Case("LOGICAL_OR", [Given(X > 0), Given(y > 0)], [(X > 0) | (y > 0)]),
        Case("CAST", [Given(X * 3)], [(X * 3).astype(np.int32)]),
        Case("CAST", [Given(ints(1, 0, 5))], [floats(1, 0, 5)], {}, "float"),
        Case("DEQUANTIZE", [Given(X.astype(np.float16))], [X.astype(np.float16).astype(np.float32)]),
        Case("SOFTMAX", [Given(X)], [softmax(2 * X)], {"beta": 2.0}),
        Case("SOFTMAX", [Given(ROWS)], [softmax(ROWS)], {"beta": 1.0}, "rows"),
        Case("LOG_SOFTMAX", [Given(X)], [np.log(softmax(X))]),
        Case("L2_NORMALIZATION", [Given(X)], [X / np.sqrt(np.square(X).sum(-1, keepdims=True))]),
        Case(
            "LOCAL_RESPONSE_NORMALIZATION",
            [Given(X)],
            [local_response(X)],
            {"radius": 1, "bias": 1.5, "alpha": 0.7, "beta": 0.6},
        ),
        Case("DENSIFY", [X], [X], litert=False),
    ]
    return cases


def pools() -> list[Case]:
    cases = []
    for padding, k, s in [("SAME", (3, 3), (2, 2)), ("VALID", (2, 3), (1, 2)), ("SAME", (2, 2), (1, 1))]:
        options = {"padding": padding, "filter_height": k[0], "filter_width": k[1], "stride_h": s[0], "stride_w": s[1]}
        same = padding == "SAME"
        highest = taps(framed(X, k, s, same, -np.inf), k, s, (1, 1)).max(0)
        counts = taps(framed(np.ones_like(X), k, s, same), k, s, (1, 1)).sum(0)
        mean = taps(framed(X, k, s, same), k, s, (1, 1)).sum(0) / counts
        square = taps(framed(np.square(X), k, s, same), k, s, (1, 1)).sum(0) / counts
        name = f"{padding}{k}{s}"
        cases += [
            Case("MAX_POOL_2D", [Given(X)], [highest], options, name),
            Case("AVERAGE_POOL_2D", [Given(X)], [mean.astype(np.float32)], options, name),
            Case("L2_POOL_2D", [Given(X)], [np.sqrt(square).astype(np.float32)], options, name),
        ]
    for sizes, corners, middles in product(((10, 9), (3, 4), (5, 6)), (False, True), (False, True)):
        if corners and middles:
            continue
        options = {"align_corners": corners, "half_pixel_centers": middles}
        name = f"{sizes}{'corners' if corners else 'middles' if middles else ''}"
        for kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
            wanted = resized(X, sizes, kind.endswith("NEIGHBOR"), corners, middles)
            cases.append(Case(kind, [Given(X), ints(*sizes)], [wanted], options, name))
    blocks, even = draw(1, 2, 3, 8, seed=40), draw(1, 4, 6, 3, seed=41)
    wide = blocks.reshape(1, 2, 3, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(1, 4, 6, 2)
    deep = even.reshape(1, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 2, 3, 12)
    return [
        *cases,
        Case("DEPTH_TO_SPACE", [Given(blocks)], [wide], {"block_size": 2}),
        Case("SPACE_TO_DEPTH", [Given(even)], [deep], {"block_size": 2}),
        *reductions(),
    ]


def reductions() -> list[Case]:
    kinds: dict[str, Callable[..., Array]] = {
        "MEAN": np.mean, "SUM": np.sum, "REDUCE_MAX": np.max, "REDUCE_MIN": np.min, "REDUCE_PROD": np.prod,
    }  # fmt: skip
    cases = []
    for kind, f in kinds.items():
        for axes, kept in product(((1, 2), (-1,), (0, 3), (2,)), (False, True)):
            wanted = f(X, axis=axes, keepdims=kept)
            cases.append(Case(kind, [Given(X), ints(*axes)], [wanted], {"keep_dims": kept}, f"{axes}{kept}"))
    flags = X > 1
    cases += [
        Case("REDUCE_ANY", [Given(flags), ints(1, 2)], [np.asarray(flags.any((1, 2)))]),
        Case(
            "REDUCE_ALL",
            [Given(X > -1.9), ints(3)],
            [np.asarray((X > -1.9).all(3, keepdims=True))],
            {"keep_dims": True},
        ),
        Case("ARG_MAX", [Given(X), ints(3)[0]], [X.argmax(3).astype(np.int32)], {"output_type": "INT32"}),
        Case("ARG_MAX", [Given(X), ints(1)[0]], [X.argmax(1)], {"output_type": "INT64"}, "rows"),
        Case("ARG_MIN", [Given(X), ints(-1)[0]], [X.argmin(3).astype(np.int32)], {"output_type": "INT32"}),
        Case("CUMSUM", [Given(ROWS), ints(1)[0]], [ROWS.cumsum(1)]),
        Case(
            "CUMSUM",
            [Given(X), ints(3)[0]],
            [X[..., ::-1].cumsum(3)[..., ::-1] - X],
            {"exclusive": True, "reverse": True},
            "back",
        ),
        Case(
            "TOPK_V2",
            [Given(ROWS), ints(2)[0]],
            [-np.sort(-ROWS, 1)[:, :2], (-ROWS).argsort(1)[:, :2].astype(np.int32)],
        ),
        Case("SHAPE", [Given(X)], [ints(2, 5, 6, 3)], {"out_type": "INT32"}),
        Case("RANK", [Given(X)], [np.array(4, np.int32)]),
    ]
    return cases


CASES = [*convolutions(), *products(), *pointwise(), *pools(), *shapes(), *parts()]
