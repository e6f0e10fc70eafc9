"""Networks that Oh et al. (2020) printed sizes of: the shapes of their layers, and Table 4 counted from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .sizes import MEGABYTE, SCHEMES, megabytes

Shapes = list[tuple[int, int]]
"""(weights, output channels) of every layer."""


def conv(taps: int, ins: int, outs: int) -> Shapes:
    """A convolution of so many taps, or a dense layer."""
    return [(taps * ins * outs, outs)]


def mobilenet_v1() -> Shapes:
    """Howard et al. (2017), Table 1, 1,000 classes."""
    layers, ins = conv(9, 3, 32), 32
    for outs in (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024):
        layers += conv(9, 1, ins) + conv(1, ins, outs)
        ins = outs
    return layers + conv(1, 1024, 1000)


def mobilenet_v2() -> Shapes:
    """Sandler et al. (2018), Table 2, 1,000 classes."""
    table = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    blocks = bottlenecks(32, [(9, *row) for row in table])
    return conv(9, 3, 32) + blocks + conv(1, 320, 1280) + conv(1, 1280, 1000)


def efficientnet_b3() -> Shapes:
    """Table 1 of Tan and Le (2019), 1.2 times as wide and 1.4 times as deep; squeeze and excitation at a quarter."""
    table = [
        (9, 1, 24, 2),
        (9, 6, 32, 3),
        (25, 6, 48, 3),
        (9, 6, 96, 5),
        (25, 6, 136, 5),
        (25, 6, 232, 6),
        (9, 6, 384, 2),
    ]
    return conv(9, 3, 40) + bottlenecks(40, table, squeeze=4) + conv(1, 384, 1536) + conv(1, 1536, 1000)


def bottlenecks(ins: int, table: Iterable[tuple[int, int, int, int]], squeeze: int = 0) -> Shapes:
    """Inverted bottlenecks by (taps, expansion, output channels, repeats)."""
    layers: Shapes = []
    for taps, expansion, outs, repeats in table:
        for _ in range(repeats):
            wide = expansion * ins
            layers += (conv(1, ins, wide) if expansion > 1 else []) + conv(taps, 1, wide)
            layers += conv(1, wide, ins // squeeze) + conv(1, ins // squeeze, wide) if squeeze else []
            layers += conv(1, wide, outs)
            ins = outs
    return layers


def resnet50() -> Shapes:
    """He et al. (2016), Table 1, 1,000 classes."""
    layers, ins = conv(49, 3, 64), 64
    for narrow, outs, repeats in ((64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3)):
        layers += conv(1, ins, outs)
        for _ in range(repeats):
            layers += conv(1, ins, narrow) + conv(9, narrow, narrow) + conv(1, narrow, outs)
            ins = outs
    return layers + conv(1, 2048, 1000)


def chain(ins: int, *steps: tuple[int, int]) -> Shapes:
    """Convolutions one behind the other, each (taps, output channels)."""
    layers: Shapes = []
    for taps, outs in steps:
        layers += conv(taps, ins, outs)
        ins = outs
    return layers


def inception_v3() -> Shapes:
    """Szegedy et al. (2016) as Keras and torchvision have it, 1,000 classes."""
    layers = chain(3, (9, 32), (9, 32), (9, 64), (1, 80), (9, 192))
    for ins, pooled in ((192, 32), (256, 64), (288, 64)):
        layers += chain(ins, (1, 64)) + chain(ins, (1, 48), (25, 64)) + chain(ins, (1, pooled))
        layers += chain(ins, (1, 64), (9, 96), (9, 96))
    layers += chain(288, (9, 384)) + chain(288, (1, 64), (9, 96), (9, 96))
    for c in (128, 160, 160, 192):
        layers += chain(768, (1, 192)) + chain(768, (1, c), (7, c), (7, 192)) + chain(768, (1, 192))
        layers += chain(768, (1, c), (7, c), (7, c), (7, c), (7, 192))
    layers += chain(768, (1, 192), (9, 320)) + chain(768, (1, 192), (7, 192), (7, 192), (9, 192))
    for ins in (1280, 2048):
        layers += chain(ins, (1, 320)) + chain(ins, (1, 384), (3, 384)) + conv(3, 384, 384) + chain(ins, (1, 192))
        layers += chain(ins, (1, 448), (9, 384), (3, 384)) + conv(3, 384, 384)
    return layers + conv(1, 2048, 1000)


TABLE_4: Mapping[str, tuple[Callable[[], Shapes], str, str, str, str]] = {
    "MobileNet v1": (mobilenet_v1, "16.5", "4.16", "4.22", "4.16"),
    "MobileNet v2": (mobilenet_v2, "13.7", "3.46", "3.56", "3.47"),
    "EfficientNet B3": (efficientnet_b3, "47.8", "12.10", "12.46", "12.13"),
    "ResNet50 v1": (resnet50, "99.8", "25.0", "25.2", "25.0"),
    "Inception v3": (inception_v3, "93.0", "23.3", "23.4", "23.3"),
}
"""Layers of each network, and MB as printed: of floats, then under LWQ, CWQ and WES."""


OTHER_FLOATS = {
    "MobileNet v1": 2 * 10_944 + 1000,
    "MobileNet v2": 2 * 17_056 + 1000,
    "EfficientNet B3": 2 * 43_648 + 20_080 + 1000,
    "ResNet50 v1": 2 * 26_560 + 1000,
    "Inception v3": 17_216 + 1000,
}
"""What is trained beside the weights: gains and offsets of batch norms, biases."""


def table_4() -> list[dict[str, Any]]:
    """Table 4: MB of each network in float, and under LWQ, CWQ and WES, counted, and as printed.

    Example:
        >>> row = table_4()[0]
        >>> row["network"], round(row["fp32"], 1), round(row["wes"], 2), row["printed"]["wes"]
        ('MobileNet v1', 16.5, 4.16, '4.16')
    """
    rows = []
    for name, (shapes, *printed) in TABLE_4.items():
        floats = sum(weights for weights, _ in shapes()) + OTHER_FLOATS[name]
        counted = {"fp32": 4 * floats / MEGABYTE, **megabytes(shapes())}
        rows.append({"network": name, **counted, "printed": dict(zip(("fp32", *SCHEMES), printed, strict=True))})
    return rows
