"""Predicted quantization noise of a network as a function of its channel scales and ranges, with its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.channels import Channels
from ..ir.model import Array, Model, Name, QSpec, Range
from .constants import MEASURED, NoiseModel
from .rounded import RoundedLayer, RoundedTensor
from .tensor_terms import TensorTerms
from .weight_terms import WeightTerms


@dataclass(frozen=True)
class Noise:
    """Predicted noise over signal at the network's outputs, by where it comes from."""

    weights: float
    clipped_weights: float
    activations: float
    clipped_activations: float

    @property
    def total(self) -> float:
        """The sum: they are taken as independent."""
        return self.weights + self.clipped_weights + self.activations + self.clipped_activations


@dataclass(frozen=True)
class Formats:
    """Formats that noise is predicted for."""

    weight: QSpec
    activation: QSpec | None  # None leaves activations float
    shift_bits: int = 0  # width of the shift of a weight's output channel, where its granularity is "shift"


class Objective:
    """Σ over layers and tensors of noise · gain, for one network and one pair of formats.

    Variables are logarithms of scales and of the ends of ranges. With s the scales of a layer's outputs, t of its
    inputs, and grids in rescaled units,

        weights      Δw²/12 · Σ_o g_o·s_o²·4^-S_o · Σ_i e_i/t_i²   (Δw per output channel where the grid is)
        clipped      Σ_oi g_o·s_o²·e_i/t_i²/K · (|W_oi|·t_i/s_o − range)²₊
        activations  Σ_c g_c·[s_c²·Δx²/12·P_c + E[(min(z, s_c·hi) − min(z, cap_c))²] + the same below]

    What lies outside a range pays, so no maximum needs smoothing. Shifts S (`choose_shifts`) are no smooth functions:
    chosen between descents; nor are steps that must be powers of two (`with_powers`). `tensors` are those whose grids
    are variables; the ends of grids may replace the bounds of `movable` clips.
    """

    def __init__(
        self,
        model: Model,
        channels: Channels,
        tensors: list[RoundedTensor],
        layers: list[RoundedLayer],
        formats: Formats,
        movable: frozenset[Name],
        noise: NoiseModel = MEASURED,
    ) -> None:
        self.classes = channels.size
        self.free = np.concatenate([g.classes for g in channels.groups] or [np.zeros(0, np.int64)])
        self.size = self.free.size
        weight, bits, new = formats.weight, formats.shift_bits, self._variables
        self.weights = WeightTerms(model.graph, channels, layers, weight, bits, new, noise)
        self.tensors = TensorTerms(channels, tensors, model.ranges, formats.activation, movable, new, noise)
        self.settled = np.zeros(0, np.int64)
        self.powers = [*self.weights.powers(), *self.tensors.powers()]

    def _variables(self, count: int) -> Array:
        self.size += count
        return np.arange(self.size - count, self.size)

    def scales(self, x: Array) -> Array:
        """`(channels.size,)` scales of all classes; 1 where they are not free."""
        scales = np.ones(self.classes)
        scales[self.free] = np.exp(x[: self.free.size])
        return scales

    def start(self, scales: Array) -> Array:
        """The variables for given scales, with ranges that hold everything."""
        x = np.zeros(self.size)
        x[: self.free.size] = np.log(scales[self.free])
        self.weights.widest(x, scales)
        self.tensors.widest(x, scales)
        return x

    @property
    def shifted(self) -> bool:
        """Whether there are shifts to choose."""
        return bool(self.weights.rows.most.any())

    @property
    def chosen(self) -> Array:
        """The shifts that `choose_shifts` chose last, `(R,)` of all rows of weights."""
        return self.weights.shift.copy()

    def restore(self, chosen: Array) -> None:
        """Go on with shifts that were chosen for other variables."""
        self.weights.shift = chosen.copy()

    def choose_shifts(self, x: Array) -> None:
        self.weights.choose_shifts(x, self.scales(x))

    def with_powers(self, x: Array) -> Array:
        """`x` with ranges whose steps are powers of two, where the formats ask for it.

        Given the scales, each range's noise is its own, so that the power of least noise is found range by range.
        """
        chosen, scales = x.copy(), self.scales(x)
        self.weights.choose_powers(chosen, scales)
        self.tensors.choose_powers(chosen, scales)
        return chosen

    def shifts(self) -> dict[Name, Array]:
        return self.weights.shifts()

    def __call__(self, x: Array) -> tuple[Noise, Array]:
        """The noise, and its gradient with respect to `x`."""
        scales, gradient, by_class = self.scales(x), np.zeros(self.size), np.zeros(self.classes)
        weights, clipped = self.weights.noise(x, scales, gradient, by_class)
        activations, saturated = self.tensors.noise(x, scales, gradient, by_class)
        gradient[: self.free.size] += by_class[self.free]
        gradient[self.settled] = 0.0
        return Noise(weights, clipped, activations, saturated), gradient

    def weight_ranges(self, x: Array) -> dict[Name, Range]:
        """Ranges chosen for weights after rescaling, by their layer's output: scalars, or `(O,)` per channel."""
        return self.weights.ranges(x, self.scales(x))

    def tensor_ranges(self, x: Array) -> dict[int, Range]:
        """The chosen range of every grid, by number of its placement class."""
        return self.tensors.ranges(x)
