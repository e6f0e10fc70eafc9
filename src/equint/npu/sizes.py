"""Bytes of parameters under layer-wise and channel-wise quantization and with shifts, as Oh et al. (2020) count them.

Their Table 1: a scale compound of 32 + 6 bits and a zero point of 8, per layer (LWQ, as DFQ) or per output channel
(CWQ), or per layer with 4 bits of shift per output channel (WES). Weights take 8 bits, biases 32. Scale compounds for
sums below 0, where a LeakyRelu or PRelu acts on them, are counted beside that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..integers.accumulators import stored_zero_point
from ..integers.program import Program
from ..integers.steps import LAYERS
from ..ir.model import Array, Model
from ..maths.affine import along_axis, quantize
from ..ops.layers import layers
from .sparse import SIZE_BYTES, pack, pack_bits, weight_bits, width

MANTISSA_BITS, EXPONENT_BITS, ZERO_POINT_BITS, SHIFT_BITS, BIAS_BITS = 32, 6, 8, 4, 32
SCHEMES = ("lwq", "cwq", "wes")
MEGABYTE = 1_024_000
"""Bytes of a MB in the paper's Table 4: 1000 times 1024."""
CHANNELS = (32, 64, 128, 256, 512, 1024)

Sizes = dict[str, float]
"""By scheme: lwq, cwq, wes."""
Row = dict[str, Any]


def parameter_bits(channels: int) -> Sizes:
    """Bits of scale compounds, zero points and shifts of a layer (Table 1).

    Example:
        >>> parameter_bits(32)
        {'lwq': 46, 'cwq': 1472, 'wes': 174}
    """
    one = MANTISSA_BITS + EXPONENT_BITS + ZERO_POINT_BITS
    return {"lwq": one, "cwq": one * channels, "wes": one + SHIFT_BITS * channels}


def weight_storage_bits(weights: int, kept: float | None = None, bits: int = 8) -> float:
    """Bits of a layer's weights: dense, or as a mask, `kept` packed weights and the integer with their size."""
    return weights * bits if kept is None else weights + kept * bits + 8 * SIZE_BYTES


def layer_bits(weights: int, channels: int, kept: float | None = None, bits: int = 8, bias: bool = True) -> Sizes:
    """Bits of all that a layer stores, by scheme: `kept` weights in sparse form; biases are in Table 4 alone."""
    rest = weight_storage_bits(weights, kept, bits) + BIAS_BITS * channels * bias
    return {scheme: rest + own for scheme, own in parameter_bits(channels).items()}


def megabytes(shapes: Iterable[tuple[int, int]], bits: int = 8) -> dict[str, float]:
    """MB of a network by scheme, as Table 4 has them: weights dense, with biases, 1 MB = 1,024,000 bytes.

    Args:
        shapes: of every layer, (weights, output channels).

    Example:
        >>> {k: round(v, 3) for k, v in megabytes([(9 * 512, 512), (512 * 1024, 1024)]).items()}
        {'lwq': 0.523, 'cwq': 0.531, 'wes': 0.523}
    """
    every = [layer_bits(weights, channels, bits=bits) for weights, channels in shapes]
    return {scheme: sum(one[scheme] for one in every) / 8 / MEGABYTE for scheme in SCHEMES}


def figure_4(channels: Sequence[int] = CHANNELS, as_printed: bool = False) -> list[Row]:
    """Figure 4: bytes of 3×3 depthwise layers, and of 1×1 layers (as many channels in as out) with 20 % zeros.

    Args:
        as_printed: count so that the percentages in the paper's text come out, which its Table 1 alone does not give
            for CWQ at 32 channels: 48 more bits a layer (zero points of input and output, a size), and a mask over
            the kept weights only. Found by trying; the paper does not say it.

    Returns:
        Rows with part, layer, channels, bytes by scheme, and how many percent CWQ and WES take more than LWQ.

    Example:
        >>> row = figure_4()[0]
        >>> row["part"], row["channels"], row["lwq"], round(row["cwq_more"], 1), round(row["wes_more"], 1)
        ('a', 32, 293.75, 60.7, 5.4)
    """
    rows = [_row("a", "3x3 depthwise", n, weight_storage_bits(9 * n) + 48 * as_printed) for n in channels]
    for n in channels:
        kept = 0.8 * n * n
        bits = (1 + 8) * kept + 48 if as_printed else weight_storage_bits(n * n, kept)
        rows.append(_row("b", "1x1, 20 % zeros, sparse", n, bits))
    return rows


def _row(part: str, layer: str, channels: int, weights: float) -> Row:
    size = {scheme: (weights + own) / 8 for scheme, own in parameter_bits(channels).items()}
    more = {f"{s}_more": 100 * (size[s] / size["lwq"] - 1) for s in SCHEMES[1:]}
    return {"part": part, "layer": layer, "channels": channels, **size, **more}


def paper_tables() -> list[Row]:
    """Every percentage that the paper's text prints for Figure 4, beside what is counted here.

    It prints one number, 5.5, for WES in part a at all channel counts; it stands here at both ends.

    Returns:
        Rows with part, scheme, channels, and percent over LWQ: `printed` there, `counted` by Table 1 and the real
        sparse form, and `as_printed` as in `figure_4(as_printed=True)`.

    Example:
        >>> [(r["scheme"], r["channels"], r["printed"], round(r["counted"], 1)) for r in paper_tables()][4:6]
        [('wes', 32, 1.7, 1.7), ('wes', 1024, 0.1, 0.1)]
    """
    plain, other = ({(r["part"], r["channels"]): r for r in figure_4(as_printed=p)} for p in (False, True))
    return [
        {
            "part": part,
            "scheme": scheme,
            "channels": n,
            "printed": printed,
            "counted": plain[part, n][f"{scheme}_more"],
            "as_printed": other[part, n][f"{scheme}_more"],
        }
        for part, scheme, n, printed in _PRINTED
    ]


_PRINTED = (
    *(("a", "wes", 32, 5.5), ("a", "wes", 1024, 5.5), ("a", "cwq", 32, 59), ("a", "cwq", 1024, 64)),
    *(("b", "wes", 32, 1.7), ("b", "wes", 1024, 0.1), ("b", "cwq", 32, 19.1), ("b", "cwq", 1024, 0.6)),
)


@dataclass(frozen=True)
class _Layer:
    """`zero_point` broadcasts against the weight; exponents and shift are () or (O,), `below` those of sums below 0."""

    name: str
    weight: Array
    zero_point: Array
    channels: int
    bits: int
    exponent: Array | int = 0
    shift: Array | int = 0
    below: Array | None = None


def network_sizes(network: Model | Program) -> dict[str, Any]:
    """Bytes of a network's layers under each scheme, counted on arrays that were really packed.

    Weights are the network's own integers; what a scheme needs per channel is packed per channel, whatever the
    network was quantized with. Each array begins at a whole byte.

    Returns:
        `layers`: rows with layer, weights, channels, bits, zeros (share of weights at the zero point), bytes by
        scheme with dense weights (lwq, cwq, wes) and with sparse ones (lwq_sparse, cwq_sparse, wes_sparse);
        `total`: the sums, with the share of zeros among all weights.

    Raises:
        EquintError: a model whose weights have no grids yet.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.passes.quantize import Quantize
        >>> network_sizes(Quantize()(Model(tiny_graph())))["total"]["wes"]  # 36 weights, 6 + 2, 4 biases
        60
    """
    found = _of_program(network) if isinstance(network, Program) else _of_model(network)
    rows = [_layer_row(layer) for layer in found]
    weights = sum(row["weights"] for row in rows)
    counted = [*SCHEMES, *(f"{s}_sparse" for s in SCHEMES)]
    total: Row = {"weights": weights, "channels": sum(row["channels"] for row in rows)}
    total["zeros"] = sum(row["zeros"] * row["weights"] for row in rows) / max(weights, 1)
    return {"layers": rows, "total": {**total, **{key: sum(row[key] for row in rows) for key in counted}}}


def _layer_row(layer: _Layer) -> Row:
    dense = pack_bits(layer.weight, layer.bits).nbytes
    sparse = pack(layer.weight, layer.zero_point, layer.bits).nbytes
    rest = {scheme: 4 * layer.channels + _parameter_bytes(layer, scheme) for scheme in SCHEMES}
    return {
        "layer": layer.name,
        "weights": int(layer.weight.size),
        "channels": layer.channels,
        "bits": layer.bits,
        "zeros": float(np.mean(layer.weight == layer.zero_point)) if layer.weight.size else 0.0,
        **{scheme: dense + rest[scheme] for scheme in SCHEMES},
        **{f"{scheme}_sparse": sparse + rest[scheme] for scheme in SCHEMES},
    }


def _parameter_bytes(layer: _Layer, scheme: str) -> int:
    count = layer.channels if scheme == "cwq" else 1
    total = 4 * count + _packed(layer.exponent, count, EXPONENT_BITS)
    total += _packed(layer.zero_point, count, ZERO_POINT_BITS)
    if layer.below is not None:
        total += 4 * layer.below.size + _packed(layer.below, layer.below.size, EXPONENT_BITS)
    return total + (_packed(layer.shift, layer.channels, SHIFT_BITS) if scheme == "wes" else 0)


def _packed(array: Array | int, count: int, bits: int) -> int:
    return pack_bits(np.resize(array, count), max(bits, width(np.asarray(array)))).nbytes


def _of_program(program: Program) -> list[_Layer]:
    bits = weight_bits(program)
    found = []
    for step in program.steps:
        if step.op not in LAYERS or step.requantize is None:
            continue
        weight, how = step.arrays["weight"], step.requantize
        zero = stored_zero_point(step, step.arrays["weight_zero_point"], weight.shape)
        below = None if how.mantissa_below is None else np.resize(how.sides[1].exponent, how.mantissa_below.size)
        factors = how.exponent, how.shift, below
        found.append(_Layer(step.name, weight, zero, step.arrays["bias"].size, bits, *factors))
    return found


def _of_model(model: Model) -> list[_Layer]:
    found, seen = [], set()
    for layer in layers(model.graph):
        if layer.weight in seen:
            continue
        seen.add(layer.weight)
        weight, grid = model.graph.consts[layer.weight], model.qparams.get(layer.weight)
        if grid is None:
            raise UnusableData(f"{layer.name}: its weights have no integer grid yet; quantize the model first")
        zero = along_axis(grid.zero_point, grid.axis, weight.ndim)
        channels = layer.channels(weight)[1]
        found.append(_Layer(layer.name, quantize(weight, grid), zero, channels, grid.bits))
    return found
