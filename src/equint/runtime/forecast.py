"""What a network loses once it is quantized, foretold from the float network.

Nothing quantized runs. The float network shows a few samples, and what its grids and rounded weights do to its values
is seen on them, tensor by tensor, as if all in front were still exact. All these errors are then put into the float
network at once (`injection.py`): what its outputs move by is the forecast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..ir.model import Array, Graph, Model, Name, Node
from ..maths.affine import fake_quantize
from ..noise.rounded import rounded_anew
from ..onnx.writer import to_proto
from ..samples.images import Run, Samples, split
from .injection import Injector
from .session import Session

SHOWN = 16
"""Samples that a forecast looks at: where outputs are decided, a few of them make most of the noise."""
DRAWS = 4
"""Times that it runs each, the errors as they are or with signs drawn: what is near a decision falls either way."""
VALUES = 1 << 26
"""About how many values have errors at most, over all samples: fewer are shown of networks with large tensors."""

MOST = 1e30
"""Noise over signal where outputs are no numbers any more."""


def forecast(reference: Model, quantized: Model, samples: Samples, judged: Sequence[Name] = ()) -> float:
    """Noise over signal at the network's outputs, meaned over them, as the float network tells it on samples.

    Of several draws of the errors' signs it is the geometric mean, since SQNR in dB is what is foretold.

    Args:
        reference: the float network as it is before grids are chosen, in the units of `quantized`: rescaled like it.
        judged: tensors whose noise over signal counts, all alike; the outputs, if left out.

    Raises:
        EquintError: samples that the network does not take.
    """
    places = tuple(dict.fromkeys(judged or reference.graph.outputs))
    exact, rng = Errors(reference.graph, quantized, places), np.random.default_rng(0)
    noisy = Injector(reference.graph, exact.bounds, places)
    signal, noise, seen = np.zeros(len(places)), np.zeros((DRAWS, len(places))), 0
    for feed in islice(single(samples, reference.graph), SHOWN):
        values, errors = exact.seen(feed)
        signal += [_power(values[name]) for name in places]
        for draw in range(DRAWS):
            signs = rng.choice([-1.0, 1.0], len(errors)) if draw else np.ones(len(errors))
            found = noisy.run(feed, {n: s * e for (n, e), s in zip(errors.items(), signs.tolist(), strict=True)})
            noise[draw] += [_power(found[name].astype(np.float64) - values[name]) for name in places]
        seen += sum(error.size for error in errors.values())
        if seen >= VALUES:
            break
    over = np.nan_to_num(noise / np.maximum(signal, 1e-300), nan=MOST).mean(1)
    return float(np.exp(np.log(np.clip(over, 1 / MOST, MOST)).mean()))


class Errors:
    """What quantization does to each tensor of a float network whose inputs are exact.

    Every node whose constants it changes runs a second time, beside itself, with the constants as they are then.

    Attributes:
        bounds: tensors that have errors, with the ends of their grids.
    """

    def __init__(self, graph: Graph, quantized: Model, places: Sequence[Name]) -> None:
        self._grids = {
            name: quantized.qparams[name] for _, name in rounded_anew(quantized) if name in quantized.qparams
        }
        twins = list(rounded_twins(graph, quantized))
        self._twins = {name: beside for twin in twins for name, beside in twin.outputs.items()}
        consts = {name: value for twin in twins for name, value in twin.consts.items()}
        both = graph.with_nodes([*graph.nodes, *(twin.node for twin in twins)], consts)
        made = [name for name in (*places, *self._grids, *self._twins) if name in graph.producer]
        self._session = Session(
            to_proto(replace(both, outputs=tuple(dict.fromkeys((*made, *self._twins.values()))))),
            optimized=True,
            lean=True,
        )
        self.bounds = dict.fromkeys(self._twins) | {n: (grid.lo, grid.hi) for n, grid in self._grids.items()}

    def seen(self, feed: Run) -> tuple[Mapping[Name, Array], dict[Name, Array]]:
        """Values of the float network on one sample, and the errors of its tensors."""
        values = {**feed, **self._session.run(feed)}
        errors = {name: values[beside] - values[name] for name, beside in self._twins.items()}
        for name, grid in self._grids.items():
            errors[name] = errors.get(name, 0) + fake_quantize(values[name], grid) - values[name]
        return values, errors


@dataclass(frozen=True)
class Twin:
    """A node to run beside one of the float network's, with other constants; its outputs by those of the other."""

    node: Node
    outputs: Mapping[Name, Name]
    consts: Mapping[Name, Array]


def rounded_twins(graph: Graph, quantized: Model) -> Iterator[Twin]:
    """One for every node whose weights, biases or other constants quantization changed."""
    for number, node in enumerate(graph.nodes):
        other = quantized.graph.producer.get(node.outputs[0])
        if other is None or other.op != node.op or len(other.inputs) != len(node.inputs):
            continue
        inputs, consts = list(node.inputs), dict[Name, Array]()
        for k, (name, now) in enumerate(zip(node.inputs, other.inputs, strict=True)):
            value = rounded(quantized, now)
            if value is not None and name in graph.consts and not np.array_equal(value, graph.consts[name]):
                inputs[k] = graph.fresh(f"rounded_{number}_{k}")
                consts[inputs[k]] = value
        if consts:
            outputs = {o: graph.fresh(f"twin_{number}_{k}") for k, o in enumerate(node.outputs) if o}
            beside = tuple(outputs.get(o, "") for o in node.outputs)
            yield Twin(replace(node, inputs=tuple(inputs), outputs=beside, name=""), outputs, consts)


def rounded(quantized: Model, name: Name) -> Array | None:
    """A constant as its grid, where it has one, makes it; None for what is none."""
    value, grid = quantized.graph.constant(name), quantized.qparams.get(name)
    return value if value is None or grid is None else fake_quantize(value, grid)


def single(samples: Samples, graph: Graph) -> Iterator[Run]:
    """Samples, as many at once as the network has to take, each the inputs of one run."""
    for feed in split(samples, 1, fill=True):
        yield Run(feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed})


def _power(value: Array) -> float:
    return float(np.sum(np.square(value, dtype=np.float64)))
