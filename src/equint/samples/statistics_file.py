"""Statistics as arrays: a header of plain values, and few long arrays, all tensors behind one another.

What is read is held to that form, tensor by tensor: a file may have been written by anyone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..files import DEEPEST, MOST_TEXT, deepest
from ..ir.model import Array, Name
from .statistics import BINS, ZERO, Histogram, Statistics, TensorStatistics

COLUMNS = ("low", "high", "total", "square")
HISTOGRAMS = ("lows", "highs", "values")
MOST_AXES = 32


def packed(statistics: Statistics) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays.

    Example:
        >>> header, arrays = packed(Statistics({}, 8, "0123"))
        >>> header["images"], arrays
        (8, {})
    """
    rows, tables = [], {name: list[Array]() for name in (*COLUMNS, *HISTOGRAMS)}
    for name, t in statistics.tensors.items():
        found = [getattr(t, kind) for kind in HISTOGRAMS]
        told = [None if h is None else (h.exponent, h.first, h.counts.size) for h in found]
        rows.append([name, t.axis, t.rank, t.images, t.count, t.low.size, told])
        for column in COLUMNS:
            tables[column].append(getattr(t, column))
        for kind, h in zip(HISTOGRAMS, found, strict=True):
            tables[kind].append(np.zeros(0, np.int64) if h is None else h.counts)
    header = {"images": statistics.images, "network": statistics.network, "data": statistics.data, "tensors": rows}
    header |= {"shapes": {n: list(shape) for n, shape in statistics.shapes.items()}, "settled": statistics.settled}
    return header, {name: np.concatenate(parts) for name, parts in tables.items() if parts}


def unpacked(arrays: Mapping[str, Array], label: str) -> Statistics:
    """The statistics of a header and its arrays.

    Args:
        label: how messages call the file.

    Raises:
        UnusableData: naming the file, and the key or the tensor that is not what statistics hold.
    """
    header = _header(arrays["header"], label)
    wrong = next(_wrong_header(header), None) or next(_wrong_arrays(header, arrays), None)
    if wrong is not None:
        raise UnusableData(f"{label}: not readable statistics ({wrong}); measure them again with `equint calibrate`")
    at, tensors = dict.fromkeys((*COLUMNS, *HISTOGRAMS), 0), dict[Name, TensorStatistics]()

    def take(name: str, size: int) -> Array:
        at[name] += size
        return arrays[name][at[name] - size : at[name]]

    for name, axis, rank, images, count, channels, told in header["tensors"]:
        columns: Any = {column: take(column, channels) for column in COLUMNS}
        found = [
            None if h is None else Histogram(h[0], h[1], take(kind, h[2]))
            for kind, h in zip(HISTOGRAMS, told, strict=True)
        ]
        histograms: Any = dict(zip(HISTOGRAMS, found, strict=True))
        tensors[name] = TensorStatistics(axis, rank, images, count, **columns, **histograms)
        wrong = next(_wrong_values(tensors[name]), None)
        if wrong is not None:
            raise UnusableData(f"{label}: tensor {name}: {wrong}; measure it again with `equint calibrate`")
    shapes = {name: tuple(shape) for name, shape in header.get("shapes", {}).items()}
    about = (header["images"], header["network"], header["data"])
    return Statistics(tensors, *about, shapes, header.get("settled", True))


def _header(array: Array, label: str) -> dict[str, Any]:
    try:
        if array.nbytes > MOST_TEXT:
            raise ValueError("its header is too long")
        header = json.loads(array.tobytes())
        if not isinstance(header, dict) or deepest(header) > DEEPEST:
            raise ValueError("its header is no table")
    except (ValueError, RecursionError) as error:
        why = "its header is nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
        raise UnusableData(
            f"{label}: not readable statistics ({why}); measure them again with `equint calibrate`"
        ) from error
    return header


def _whole(value: object, least: int, most: int = 1 << 53) -> bool:
    return type(value) is int and least <= value <= most


def _wrong_header(header: Mapping[str, Any]) -> Iterator[str]:
    """What in a header cannot be."""
    if not _whole(header.get("images"), 1):
        yield f"images = {header.get('images')!r}, which is a whole number from 1"
    for key in ("network", "data"):
        if not isinstance(header.get(key), str):
            yield f"{key} = {header.get(key)!r}, which is a text"
    if not isinstance(header.get("settled", True), bool):
        yield f"settled = {header['settled']!r}, which is true or false"
    shapes, rows = header.get("shapes", {}), header.get("tensors")
    if not isinstance(shapes, dict) or not all(map(_is_shape, shapes.values())):
        yield "shapes, which are lists of sizes by tensor"
    if not isinstance(rows, list) or not rows:
        yield "tensors, of which it lists none"
        return
    for row in rows:
        if not isinstance(row, list) or len(row) != 7 or not isinstance(row[0], str):
            yield f"tensors: {str(row)[:80]}, which is no row of one"
        else:
            yield from (f"tensor {row[0]}: {wrong}" for wrong in _wrong_row(row))
    names = [row[0] for row in rows]
    if len(set(names)) < len(names):
        yield "tensors, of which it lists one twice"


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(n is None or isinstance(n, str) or _whole(n, 0) for n in shape)


def _wrong_row(row: list[Any]) -> Iterator[str]:
    _, axis, rank, images, count, channels, told = row
    if not _whole(rank, 1, MOST_AXES) or not _whole(axis, 0, rank - 1):
        yield f"axis {axis!r} of {rank!r}"
    for what, value in (("images", images), ("count", count), ("channels", channels)):
        if not _whole(value, 1):
            yield f"{what} = {value!r}"
    if not isinstance(told, list) or len(told) != len(HISTOGRAMS) or None in told[:2]:
        yield "histograms, of which there are three, the last of them if it was asked for"
        return
    for kind, h in zip(HISTOGRAMS, told, strict=True):
        bins = h is None or (
            isinstance(h, list) and len(h) == 3 and _whole(h[0], ZERO, 1024) and _whole(h[2], 0, 2 * BINS)
        )
        if not bins or (h is not None and not _whole(h[1], -(1 << 62), 1 << 62)):
            yield f"histogram {kind}: {str(h)[:60]}"


def _wrong_arrays(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[str]:
    rows = header["tensors"]
    counted = {column: sum(row[5] for row in rows) for column in COLUMNS}
    counted |= {kind: sum(row[6][k][2] for row in rows if row[6][k]) for k, kind in enumerate(HISTOGRAMS)}
    for name, count in counted.items():
        array, kind = arrays.get(name), "f" if name in COLUMNS else "i"
        if array is None:
            yield f"array {name} is missing"
        elif array.dtype.kind != kind or array.shape != (count,):
            wanted = f"{count} {'floats' if kind == 'f' else 'counts'}"
            yield f"array {name} is {array.dtype} {array.shape}; {wanted} belong there"


def _wrong_values(tensor: TensorStatistics) -> Iterator[str]:
    """What measuring cannot give: values that are not finite, extremes the wrong way round, counts below 0."""
    for column in COLUMNS:
        if not np.isfinite(getattr(tensor, column)).all():
            yield f"{column} is not finite"
    if np.any(tensor.low > tensor.high):
        yield "low lies above high"
    mean, slack = tensor.total / tensor.count, 1e-3
    spread = np.abs(tensor.low) + np.abs(tensor.high) + 1e-30
    if np.any(mean < tensor.low - slack * spread) or np.any(mean > tensor.high + slack * spread):
        yield "the mean lies beyond low and high"
    if np.any(tensor.square < np.square(mean) * tensor.count * (1 - slack)):
        yield "square is less than the mean allows"
    for kind in HISTOGRAMS:
        histogram = getattr(tensor, kind)
        if histogram is not None and np.any(histogram.counts < 0):
            yield f"histogram {kind} counts below 0"
