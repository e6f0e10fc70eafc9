"""What is known of a network's input without data: from a card, a given range, or its first BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InvalidOption
from ..ir.events import Event, EventKind
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Model, Moments, Name, Range, Shape
from ..ir.weights import Layer
from ..maths.pictures import MEAN as PIXEL_MEAN
from ..maths.pictures import STD as PIXEL_STD
from ..ops.attributes import is_batchnorm, is_cast
from ..ops.layers import as_layer, bias_of, layer_coverage
from ..ops.moves import PICKS
from .preparation import first_layers, remembered

LARGEST = 1e12
"""No network's input is larger than this."""
FINEST = 2.0**-23
"""The least share of itself by which one float32 differs from the next."""
REACH = 4.0
"""Standard deviations that pictures of unknown range are assumed to reach: ImageNet's normalisation ends at 2.6."""
FEATURE_REACH = 8.0
"""The same for features, which have no bounds: 7 balance rounding and saturation of 8 bits for Laplace's law."""


CHANNELS = {"nchw": 1, "nhwc": 3}
"""The axis of channels in each layout."""
LEAST, SHORT = 24, 64
"""Least height and width of what is taken for a picture, and length of what is for a waveform."""
LOUD = 0.2
"""Mean spread of waveforms that reach from -1 to 1."""
STATE = 0.5
"""Spread of recurrent states, which what bounds them lets reach 1 or few more."""


def layout_of(shape: Sequence[int | str | None]) -> str:
    """nhwc where an input has one channel or three in the last place, and not behind the batch.

    Example:
        >>> layout_of(("N", 50, 155, 3)), layout_of(("N", 3, "H", "W")), layout_of(("N", 3, 50, 3))
        ('nhwc', 'nchw', 'nchw')
    """
    return "nhwc" if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3) else "nchw"


def is_picture(shape: Shape | None) -> bool:
    """Whether an input is read as pictures: one channel or three, and high and wide enough.

    Example:
        >>> is_picture(("N", 3, "H", "W")), is_picture(("N", 1, 49, 10)), is_picture(("N", 64, 100))
        (True, False, False)
    """
    if shape is None or len(shape) != 4:
        return False
    axis = CHANNELS[layout_of(shape)]
    sizes = [n for d, n in enumerate(shape) if d not in (0, axis)]
    return shape[axis] in (1, 3) and all(not isinstance(n, int) or n >= LEAST for n in sizes)


def is_signal(graph: Graph, name: Name) -> bool:
    """Whether an input is read as a waveform: one row of values, whose length is given too or along which layers slide.

    Example:
        >>> from ..ir.model import Node
        >>> conv, weight = Node("Conv", ("x", "w"), ("y",)), {"w": np.zeros((4, 1, 9), np.float32)}
        >>> is_signal(Graph((conv,), weight, ("x",), ("y",), {"x": ("N", 1, 400)}), "x")
        True
    """
    shape = graph.shapes.get(name) or ()
    sizes = [n for n in shape[1:] if n != 1]
    if not graph.is_float(name) or len(shape) not in (2, 3) or len(sizes) != 1:
        return False
    long = not isinstance(sizes[0], int) or sizes[0] >= SHORT
    taps = (layer.unpack(graph.consts[layer.weight]).shape[-1] for layer in first_layers(graph, name))
    told = len(shape) == 2 and (name, 1) in (row_axis(graph, other) for other in graph.inputs)
    return long and (told or any(count > 1 for count in taps))


def is_counted_with(graph: Graph, name: Name) -> bool:
    """Whether an input holds whole numbers, but no pixels, that become floats."""
    if graph.is_float(name) or _is_pixels(graph, name):
        return False
    return any(is_cast(node) and graph.is_float(node.outputs[0]) for node in graph.users(name))


def row_axis(graph: Graph, name: Name) -> tuple[Name, int] | None:
    """The float input, and its free axis, whose length in each sample an input of whole numbers tells, if it is such.

    One number a sample, no index, beside rows of free length, as networks for speech take them.

    Example:
        >>> shapes, types = {"x": ("N", 80, "T"), "lengths": ("N",)}, {"lengths": "int64"}
        >>> row_axis(Graph((), {}, ("x", "lengths"), (), shapes, types), "lengths")
        ('x', 2)
    """
    shape = graph.shapes.get(name) or ()
    index = any(node.op in PICKS and node.inputs[0] != name for node in graph.users(name))
    if graph.is_float(name) or len(shape) != 1 or index:
        return None
    for other in graph.inputs:
        sizes = graph.shapes.get(other) or ()
        free = [axis for axis, n in enumerate(sizes) if axis and not isinstance(n, int)]
        if graph.is_float(other) and len(sizes) in (2, 3) and sizes[0] == shape[0] and free:
            return other, free[-1]
    return None


def describe_pixels(
    model: Model, mean: Sequence[float], std: Sequence[float], layout: str | None = None, source: str = ""
) -> Model:
    """The input is pixels 0 to 255 normalised by (x − mean)/std, per channel.

    Args:
        layout: nchw, nhwc, or what the input's shape says.
        source: who says so, where it is not the user.
    """
    m, s = np.atleast_1d(np.asarray(mean, np.float64)), np.atleast_1d(np.asarray(std, np.float64))
    if m.shape != s.shape or not np.all(s > 0):
        raise InvalidOption(f"mean {list(mean)} and std {list(std)} must have one number per channel, std above 0")
    lo, hi, centre, spread = (0 - m) / s, (255 - m) / s, (PIXEL_MEAN - m) / s, PIXEL_STD / s
    how = "pixels 0 to 255, normalised" + (source and f" {source}")
    return _described(model, lo, hi, centre, spread, how, layout)


def describe_range(model: Model, lo: float, hi: float) -> Model:
    """The input lies in [lo, hi]; its mean and spread are those of photographs scaled to that range.

    What is no picture lies about the middle, waveforms a little closer than features, which reach `REACH` spreads.
    """
    if not abs(lo) + abs(hi) < LARGEST:
        raise InvalidOption(
            f"input range {lo} to {hi} is not finite, or beyond {LARGEST:g}; give what the network reads"
        )
    if lo >= hi:
        raise InvalidOption(f"input range {lo} to {hi} is empty; give the lowest and then the highest value")
    if not hi - lo > max(1 / LARGEST, FINEST * max(abs(lo), abs(hi))):
        raise InvalidOption(f"input range {lo} to {hi} is too narrow for float32; give what the network reads")
    low, high = np.asarray([lo], np.float64), np.asarray([hi], np.float64)
    centre, spread = low + (high - low) * PIXEL_MEAN / 255, (high - low) * PIXEL_STD / 255
    (name, *_), graph = (*_described_inputs(model), ""), model.graph
    if len(graph.shapes.get(name) or (0,) * 4) != 4:
        centre, spread = (low + high) / 2, (high - low) / 2 * (LOUD if is_signal(graph, name) else 1 / REACH)
    return _described(model, low, high, centre, spread, "range given")


def infer_input(model: Model, n: float = REACH, pictures: bool = True) -> Model:
    """Estimate every input's mean and spread (it reaches n) from the BatchNorms behind the layers that read it.

    The running mean of output o is b_o + m·Σ W_o, its running variance v·((1 − ρ)·Σ W_o² + ρ·(Σ W_o)²): least squares
    over the channels give m, v and ρ, the correlation of neighbours. Without BatchNorm: standard normal, and a warning.
    What may be `pictures` is taken to be prepared in one of the usual ways where the first layers tell which.
    """
    for name in model.graph.inputs:
        if name in model.ranges or model.graph.rank(name) is None:
            continue
        if _is_pixels(model.graph, name):
            whole = (np.zeros(1), np.full(1, 255.0), np.full(1, PIXEL_MEAN), np.full(1, PIXEL_STD))
            model = _known(model, name, whole, "whole numbers 0 to 255")
            continue
        rows = row_axis(model.graph, name)
        if rows is not None:
            model = model.noted(Event(EventKind.LENGTHS_ASSUMED, name, {"of": rows[0]}, "inputs", warning=True))
        elif is_counted_with(model.graph, name):
            model = model.noted(Event(EventKind.NUMBER_ASSUMED, name, {}, "inputs", warning=True))
        if not model.graph.is_float(name):
            continue
        seen = pictures and is_picture(model.graph.shapes.get(name))
        usual, how = (remembered(model.graph, name) if seen else None) or (None, "the first BatchNorm")
        found = (usual.mean, usual.std) if usual else _from_batchnorm(model.graph, name)
        assumed, std, reach = _assumed(model.graph, name, n)
        mean, std, reach = (*found, n * found[1]) if found else (0.0, std, reach)
        lo, hi = (usual.lo, usual.hi) if usual else (mean - reach, mean + reach)
        shape = (1,) * len(model.graph.shapes[name])
        moments = Moments(np.full(shape, mean), np.full(shape, std), "inferred" if found else "assumed")
        span = Range(np.full(shape, lo), np.full(shape, hi))
        facts = {"lo": lo, "hi": hi, "how": how if found else assumed}
        kind = EventKind.INPUT_INFERRED if found else EventKind.INPUT_ASSUMED
        model = replace(model, moments={**model.moments, name: moments}, ranges={**model.ranges, name: span})
        model = model.noted(Event(kind, name, facts, "inputs", warning=found is None))
    return model


def _assumed(graph: Graph, name: Name, n: float) -> tuple[str, float, float]:
    """What an input is taken for of which nothing tells, its spread, and how far it reaches: about zero."""
    if is_signal(graph, name):
        return "a waveform", LOUD, 1.0
    if _is_state(graph, name):
        return "a state", STATE, n * STATE
    return "standard normal", 1.0, n


def _is_state(graph: Graph, name: Name) -> bool:
    """Whether an input can be what an output was a step before: not the first, and it looks like that output."""
    shape = graph.shapes.get(name) or ()

    def alike(found: Shape) -> bool:
        sizes = list(zip(found, shape, strict=True)) if len(found) == len(shape) else []
        clash = any(a != b and isinstance(a, int) and isinstance(b, int) for a, b in sizes)
        return not clash and any(a == b is not None for a, b in sizes)

    made = [graph.shapes.get(o) or () for o in graph.outputs if graph.is_float(o)]
    return name != graph.inputs[0] and any(map(alike, made))


def _is_pixels(graph: Graph, name: Name) -> bool:
    return graph.dtypes.get(name) == "uint8"


def _described(
    model: Model, lo: Array, hi: Array, mean: Array, std: Array, how: str, layout: str | None = None
) -> Model:
    names = _described_inputs(model)
    if len(names) != 1:
        raise InvalidOption(
            f"the network has {len(names)} float inputs; a card or range describes exactly one: leave it out"
        )
    name, shape = names[0], model.graph.shapes.get(names[0])
    axis = _channel_axis(shape, layout)
    channels = shape[axis] if shape and len(shape) > axis else None
    if lo.size > 1 and isinstance(channels, int) and lo.size != channels:
        raise InvalidOption(f"{lo.size} means and stds for input {name} of {channels} channels; give one for each")
    return _known(model, name, (lo, hi, mean, std), how, layout)


def _described_inputs(model: Model) -> list[Name]:
    return [n for n in model.graph.inputs if model.graph.is_float(n) or _is_pixels(model.graph, n)]


def _channel_axis(shape: Shape | None, layout: str | None) -> int:
    if shape is not None and len(shape) == 4:
        return CHANNELS[layout or layout_of(shape)]
    return 0 if shape is not None and len(shape) < 2 else 1


def _known(
    model: Model, name: Name, span: tuple[Array, Array, Array, Array], how: str, layout: str | None = None
) -> Model:
    """The input with its lowest and highest value, mean and spread; of integers, the floats made of them too."""
    rank, axis = model.graph.rank(name), _channel_axis(model.graph.shapes.get(name), layout)
    rank = 4 if rank is None else rank
    lo, hi, mean, std = (aligned(np.broadcast_to(v, span[0].shape), axis, rank) for v in span)
    casts = [n.outputs[0] for n in model.graph.users(name) if is_cast(n) and model.graph.is_float(n.outputs[0])]
    told = [name] if model.graph.is_float(name) else [name, *casts]
    moments = {**model.moments, **dict.fromkeys(told, Moments(mean, std, "given"))}
    known = replace(model, moments=moments, ranges={**model.ranges, **dict.fromkeys(told, Range(lo, hi))})
    facts = {"how": how, "lo": float(lo.min()), "hi": float(hi.max())}
    return known.noted(Event(EventKind.INPUT_KNOWN, name, facts, "inputs"))


def _from_batchnorm(graph: Graph, name: Name) -> tuple[float, float] | None:
    for node in graph.users(name):
        layer = as_layer(graph, node)
        after = graph.users(layer.y) if layer else ()
        if layer is None or len(after) != 1 or not is_batchnorm(after[0]) or _last(graph, layer):
            continue
        running_mean, running_var = (graph.constant(i) for i in after[0].inputs[3:5])
        if running_mean is None or running_var is None:
            continue
        weight = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
        share = layer_coverage(graph, layer)
        total = (weight @ share).sum(-1).reshape(-1)
        above = running_mean - bias_of(graph, layer).astype(np.float64)
        mean = float(total @ above / max(float(total @ total), 1e-30))
        apart, together = np.square(weight).sum((-1, -2)), np.square(weight.sum((-1, -2)))
        var = _variance(apart.reshape(-1), together.reshape(-1), running_var)
        if np.isfinite(mean) and var > 0:
            return mean, float(np.sqrt(var))
    return None


def _last(graph: Graph, layer: Layer) -> bool:
    """Whether a layer's outputs do not lie along axis 1, which a BatchNorm is of."""
    rank = graph.rank(layer.y)
    return layer.y_axis != 1 and (rank is None or layer.y_axis % rank != 1)


def _variance(apart: Array, together: Array, running_var: Array) -> float:
    """p + q of the non-negative least squares fit running_var ≈ p·apart + q·together."""
    fits = []
    for columns in ([apart, together], [together], [apart]):
        matrix = np.stack(columns, 1)
        found, *_ = np.linalg.lstsq(matrix, running_var.astype(np.float64), rcond=None)
        if np.all(found >= 0):
            fits.append((float(np.square(matrix @ found - running_var).sum()), float(found.sum())))
    return min(fits)[1] if fits else 0.0
