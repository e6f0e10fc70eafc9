"""Networks whose operators Vela puts on an Ethos-U, and such as it leaves to the CPU for their sizes."""

from typing import Any

import equint
from handwritten import network, normal

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w) "
BEYOND: dict[str, tuple[str, dict[str, Any], str]] = {
    "strides of depthwise": (
        "y = Conv <group = 4, strides = [4, 4]> (c, v)",
        {"v": normal(4, 1, 3, 3)},
        "DEPTHWISE_CONV_2D of stride 4, of which Ethos-U takes 3",
    ),
    "strides with padding": (
        "y = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (c, v)",
        {"v": normal(4, 4, 6, 6)},
        "CONV_2D of stride 4, which Ethos-U takes above 3 without padding",
    ),
    "strides of transposed": (
        "y = ConvTranspose <strides = [3, 3]> (c, v)",
        {"v": normal(4, 2, 3, 3)},
        "TRANSPOSE_CONV of strides 3 and 3, of which Ethos-U takes 1 and 2",
    ),
    "factors": (
        'y = Resize <mode = "linear"> (c, , s)',
        {"s": [1.0, 1.0, 3.0, 3.0]},
        "RESIZE_BILINEAR from 16x16 to 48x48; Ethos-U takes both sides 2 times as large",
    ),
    "unlike factors": (
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (c, , s)',
        {"s": [1.0, 1.0, 2.0, 4.0]},
        "RESIZE_NEAREST_NEIGHBOR from 16x16 to 32x64",
    ),
    "channels": ("y = ReduceMean <axes = [1]> (c)", {}, "MEAN over channels of images"),
    "backwards": (
        "y = Slice (c, a, b, k, t)",
        {"a": [15], "b": [-17], "k": [3], "t": [-1]},
        "STRIDED_SLICE from the end to the front",
    ),
}
WITHIN: dict[str, tuple[str, dict[str, Any]]] = {
    "strides without padding": ("y = Conv <strides = [4, 4]> (c, v)", {"v": normal(4, 4, 4, 4)}),
    "doubled": ('y = Resize <mode = "linear"> (c, , s)', {"s": [1.0, 1.0, 2.0, 2.0]}),
    "gelu": ("y = Gelu (c)", {"opset": 20}),
    "elu": ("y = Elu (c)", {}),
    "exponential": ("y = Exp (c)", {}),
}


def made(name: str) -> equint.Result:
    """Such a network, quantized for Ethos-U."""
    body, consts = BEYOND[name][:2] if name in BEYOND else WITHIN[name]
    shapes = {"inputs": "float[1,3,16,16] x", "output": "float[N,A,B,C] y"}
    model = network(CONV + body, **{**shapes, "w": normal(4, 3, 3, 3), **consts})
    return equint.quantize(model, "cwq", "ethos-u", input=(-3, 3), effort="fast")
