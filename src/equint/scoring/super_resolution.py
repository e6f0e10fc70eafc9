"""Super-resolution: PSNR and SSIM of the luma, as published, with the border cut off.

Luma is 0.299 R + 0.587 G + 0.114 B, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from ..errors import InvalidCard, UnusableData
from ..ir.model import Array, Name
from ..maths.chance import Interval, mean
from ..samples.card import Card
from ..samples.folders import beside, pictures, pixels, prepared, stacked

Pair = tuple[Array, Path]
"""A high-resolution picture's pixels, and its file."""
PEAK = 255.0
_RADIUS, _SIGMA = 5, 1.5  # SSIM's window: 11×11, Gaussian
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def labelled(folder: Path, card: Card) -> tuple[list[tuple[Path, Path | None]], int]:
    """High-resolution pictures with their low-resolution ones (None: to be made), and how many of these are missing.

    Raises:
        EquintError: the card names low-resolution pictures, but none of these names.
    """
    files = pictures(folder, card.data.get("list"))
    low = card.data.get("low")
    if low is None:
        return [(f, None) for f in files], 0
    pairs = beside(files, Path(low), "low-resolution pictures are")
    return [(high, small) for high, small in pairs], len(files) - len(pairs)


def samples(files: list[tuple[Path, Path | None]], card: Card) -> Iterator[tuple[Array, list[Pair]]]:
    """Batches of (low-resolution input, high-resolution pixels); without `size` in the card one by one.

    With `size`, the middle of the pictures is taken. What is no whole multiple of the scale loses its last rows and
    columns. Raises EquintError: pictures whose sizes do not fit, or that are smaller than `size`.
    """
    scale = int(card.data["scale"])

    def load(item: tuple[Path, Path | None]) -> tuple[Array, Pair]:
        high = pixels(item[0], card.kind)
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        low = shrunk(high, scale) if item[1] is None else pixels(item[1], card.kind)
        if tuple(scale * n for n in low.shape[:2]) != high.shape[:2] or not high.size:
            sizes = f"{high.shape[1]}×{high.shape[0]} is not {scale} times {low.shape[1]}×{low.shape[0]}"
            raise UnusableData(f"{item[0]}: {sizes}, its low-resolution picture {item[1] or ''}".rstrip())
        if card.size:
            low, high = _middle(low, card.size, 1, item[0]), _middle(high, card.size, scale, item[0])
        return prepared(low, card, item[0]), (high, item[0])

    return stacked(files, card, 8, load)


def shrunk(picture: Array, scale: int) -> Array:
    """A picture's pixels, smaller by a whole number: bicubic, antialiased."""
    from PIL import Image

    size = picture.shape[1] // scale, picture.shape[0] // scale
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) if min(size) else picture[:0, :0]


def _middle(picture: Array, size: tuple[int, int], scale: int, where: Path) -> Array:
    height, width = (n * scale for n in size)
    top, left = (picture.shape[0] // scale - size[0]) // 2 * scale, (picture.shape[1] // scale - size[1]) // 2 * scale
    if top < 0 or left < 0:
        raise UnusableData(f"{where}: smaller than {size} (height, width) at low resolution, the card's size")
    return picture[top : top + height, left : left + width]


class Fidelity:
    """Mean PSNR and SSIM over pictures (N, 1 or 3, H, W), scaled as the network's input; `border` pixels cut off."""

    def __init__(self, output: Name, card: Card) -> None:
        self._output, self._mean, self._std = output, card.mean or (0.0,), card.std or (1.0,)
        self._reversed = card.kind == "bgr"
        self._border = int(card.data.get("border", card.data["scale"]))
        self._psnr: list[float] = []
        self._ssim: list[float] = []

    def add(self, outputs: Mapping[Name, Array], truths: list[Pair]) -> None:
        """Compare the pictures of a batch. Raises EquintError: another size than the true ones."""
        for value, (truth, file) in zip(outputs[self._output], truths, strict=True):
            if value.ndim != 3 or value.shape[0] not in (1, 3) or value.shape[1:] != truth.shape[:2]:
                raise InvalidCard(
                    f"{file}: output {self._output} has shape {value.shape}, but the true picture has {truth.shape[0]} "
                    f"rows and {truth.shape[1]} columns; check scale in [data] of the card"
                )
            units = value.astype(float).transpose(1, 2, 0) * np.asarray(self._std) + np.asarray(self._mean)
            units = units[..., ::-1] if self._reversed else units
            made = luma(np.round(np.clip(units, 0, PEAK)))
            b = self._border
            a, c = (v[b : v.shape[0] - b, b : v.shape[1] - b] for v in (luma(truth.astype(float)), made))
            if min(a.shape) < 2 * _RADIUS + 1:
                raise UnusableData(
                    f"{file}: {truth.shape[1]}×{truth.shape[0]} pixels are too few for SSIM; leave it out"
                )
            self._psnr.append(psnr(a, c))
            self._ssim.append(ssim(a, c))

    def merge(self, other: Fidelity) -> None:
        """Take the pictures that another has compared behind these."""
        self._psnr += other._psnr
        self._ssim += other._ssim

    def results(self) -> dict[str, float]:
        """PSNR in dB and SSIM, the mean over pictures."""
        return {"psnr": float(np.mean(self._psnr)), "ssim": float(np.mean(self._ssim))}

    def lost(self, before: Fidelity, /) -> Interval | None:
        """By how much PSNR lies under another network's on the same pictures, in dB."""
        return mean(np.subtract(before._psnr, self._psnr))


def luma(picture: Array) -> Array:
    """(H, W), (H, W, 1) or (H, W, 3) pixels to (H, W)."""
    if picture.ndim == 3 and picture.shape[2] == 3:
        return np.asarray(picture @ np.asarray([0.299, 0.587, 0.114]))
    return picture.reshape(picture.shape[:2])


def psnr(a: Array, b: Array) -> float:
    """Peak signal-to-noise ratio of two pictures, in dB: 10·log10(255² / mean((a − b)²)).

    Example:
        >>> round(psnr(np.zeros((2, 2)), np.full((2, 2), 25.5)), 6)
        20.0
    """
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(PEAK**2 / error))


def ssim(a: Array, b: Array) -> float:
    """Structural similarity (Wang et al. 2004, equation 13): mean over all whole 11×11 Gaussian windows."""

    def blurred(picture: Array) -> Array:
        spread = gaussian_filter(picture, _SIGMA, truncate=_RADIUS / _SIGMA, mode="constant")
        return spread[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _C1) * (2 * both + _C2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))))
