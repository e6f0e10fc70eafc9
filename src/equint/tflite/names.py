"""What LiteRT's operators are called in ONNX, as targets name operators whose grids something is said of."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES: Mapping[str, str] = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Conv",
    "CONV_3D": "Conv",
    "TRANSPOSE_CONV": "ConvTranspose",
    "CONV_3D_TRANSPOSE": "ConvTranspose",
    "FULLY_CONNECTED": "Gemm",
    "BATCH_MATMUL": "MatMul",
    "AVERAGE_POOL_2D": "AveragePool",
    "MAX_POOL_2D": "MaxPool",
    "CONCATENATION": "Concat",
    "PACK": "Concat",
    "UNPACK": "Split",
    "SPLIT": "Split",
    "SPLIT_V": "Split",
    "RESHAPE": "Reshape",
    "SQUEEZE": "Squeeze",
    "EXPAND_DIMS": "Unsqueeze",
    "BROADCAST_TO": "Expand",
    "TILE": "Expand",
    "TRANSPOSE": "Transpose",
    "PAD": "Pad",
    "PADV2": "Pad",
    "MIRROR_PAD": "Pad",
    "SLICE": "Slice",
    "STRIDED_SLICE": "Slice",
    "REVERSE_V2": "Slice",
    "GATHER": "Gather",
    "GATHER_ND": "Gather",
    "RESIZE_BILINEAR": "Resize",
    "RESIZE_NEAREST_NEIGHBOR": "Resize",
    "DEPTH_TO_SPACE": "DepthToSpace",
    "BATCH_TO_SPACE_ND": "DepthToSpace",
    "SPACE_TO_DEPTH": "SpaceToDepth",
    "SPACE_TO_BATCH_ND": "SpaceToDepth",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "SOFTMAX": "Softmax",
    "LOGISTIC": "Sigmoid",
    "TANH": "Tanh",
    "L2_NORMALIZATION": "LpNormalization",
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "RELU": "Relu",
    "RELU6": "Clip",
    "RELU_N1_TO_1": "Clip",
    "RELU_0_TO_1": "Clip",
    "LEAKY_RELU": "LeakyRelu",
    "PRELU": "PRelu",
    "HARD_SWISH": "HardSwish",
    "ELU": "Elu",
    "GELU": "Gelu",
}


def onnx_name(operator: str) -> str:
    """The operator of ONNX that says of its grids what this one does; other names as they are.

    Example:
        >>> onnx_name("DEPTHWISE_CONV_2D"), onnx_name("PACK"), onnx_name("Conv"), onnx_name("CAST")
        ('Conv', 'Concat', 'Conv', 'CAST')
    """
    return _NAMES.get(operator, operator)
