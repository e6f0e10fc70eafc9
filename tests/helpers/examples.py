"""Steps over whole axes, added to random programs."""

import numpy as np

from equint.maths.integer_functions import exponentials, root_table
from programs import Maker


def matmul(maker: Maker, x: str) -> str:
    """With its own transpose, as attention has it, or with a constant."""
    *front, rows, length = maker.shapes[x]
    grid, columns = maker.grid(), maker.integer(1, 4)
    if maker.integer(0, 1):
        other = maker.tensor("matrix", (length, columns), maker.grid())
        q = maker.grids[other]
        values = maker.rng.integers(q.qmin, q.qmax, (length, columns), endpoint=True)
        maker.consts[other] = values.astype(np.int8 if q.signed else np.uint8)
    else:
        other, columns = maker.transpose(x), rows
    how = maker.requantize(grid, maker.spread(x) ** 2 * length**0.5, 0)
    return maker.add("MatMul", (x, other), (*front, rows, columns), grid, attrs={"axis": -1}, requantize=how)


def reduce_sum(maker: Maker, x: str) -> str:
    shape = maker.shapes[x]
    axes = [int(a) for a in sorted(maker.rng.permutation(range(1, len(shape)))[: maker.integer(1, len(shape) - 1)])]
    keep, grid = maker.integer(0, 1), maker.grid()
    left = tuple(1 if d in axes else n for d, n in enumerate(shape) if keep or d not in axes)
    how = maker.requantize(grid, 4 * maker.spread(x), 0)
    attrs = {"axes": axes, "keepdims": keep, "axis": 1}
    return maker.add("ReduceSum", (x,), left, grid, attrs=attrs, requantize=how)


def scaled_sum(maker: Maker, x: str) -> str:
    """Of two tensors, one perhaps subtracted."""
    inputs, grid = (x, maker.mate(x)), maker.grid()
    arrays = {
        "multipliers": maker.rng.integers(1 << 30, (1 << 31) - 1, 2),
        "exponents": maker.rng.integers(-6, 0, 2, endpoint=True),
        "signs": np.array([1, maker.pick(-1, 1)]),
    }
    how = maker.requantize(grid, 2.0**19 * maker.spread(x), 0)
    whole = {key: array.astype(np.int32) for key, array in arrays.items()}
    attrs = {"left": 20, "axis": 1}
    return maker.add("ScaledSum", inputs, maker.shapes[x], grid, attrs=attrs, arrays=whole, requantize=how)


def window_mean(maker: Maker, x: str) -> str:
    size, shape = maker.size(x), maker.shapes[x]
    kernel, strides = [min(2, s) for s in size], [maker.integer(1, 2) for _ in size]
    pads = [maker.integer(0, 1) if k > 1 else 0 for k in kernel] * 2
    half = pads[: len(size)]
    lengths = [(s + 2 * p - k) // t + 1 for s, p, k, t in zip(size, half, kernel, strides, strict=True)]
    inside = [
        [min(t * i - p + k, s) - max(t * i - p, 0) for i in range(n)]
        for s, p, k, t, n in zip(size, half, kernel, strides, lengths, strict=True)
    ]
    counts = np.array(np.prod(kernel)) if not any(pads) else np.multiply.outer(*map(np.array, inside))
    attrs = {"kernel_shape": kernel, "strides": strides, "pads": pads, "axis": 1}
    arrays = {"counts": counts.astype(np.int32)}
    return maker.add("WindowMean", (x,), (*shape[:2], *lengths), maker.grids[x], attrs=attrs, arrays=arrays)


def extreme(op: str, maker: Maker, x: str) -> str:
    shape, axis, keep = maker.shapes[x], maker.integer(1, len(maker.shapes[x]) - 1), maker.integer(0, 1)
    left = tuple(1 if d == axis else n for d, n in enumerate(shape) if keep or d != axis)
    return maker.add(op, (x,), left, maker.grids[x], attrs={"axes": [axis], "keepdims": keep})


def compared(op: str, maker: Maker, x: str) -> str:
    """With what stands beside it."""
    other = maker.add("Transpose", (x,), maker.shapes[x], maker.grids[x], attrs={"perm": [0, 1, 2, 3]})
    grid = maker.grids[x]
    half = {"low": np.asarray(int(grid.zero_point), np.int32), "high": np.asarray(grid.qmax, np.int32)}
    clipped = maker.add("Clip", (other,), maker.shapes[x], grid, attrs={"axis": 1}, arrays=half)
    return maker.add(op, (clipped, x), maker.shapes[x], grid)


def quotient(maker: Maker, x: str) -> str:
    other, grid = maker.mate(x), maker.grid()
    if other == x:
        other = maker.clip(x)
    how = maker.requantize(grid, 2.0**20, 0)
    return maker.add("Div", (x, other), maker.shapes[x], grid, attrs={"axis": 1}, requantize=how)


def softmax(maker: Maker, x: str) -> str:
    grid, levels = maker.grid(), 1 << maker.grids[x].bits
    table = exponentials(float(maker.rng.uniform(0.001, 0.3)), levels, maker.integer(8, 22)).astype(np.int32)
    how = maker.requantize(grid, 2.0**18, 0)
    attrs = {"over": maker.integer(1, len(maker.shapes[x]) - 1), "axis": 1}
    arrays = {"exponentials": table}
    return maker.add("Softmax", (x,), maker.shapes[x], grid, attrs=attrs, arrays=arrays, requantize=how)


def normalize(maker: Maker, x: str) -> str:
    """As layers, instances, groups of channels or a length have it."""
    shape, grid, rng = maker.shapes[x], maker.grid(), maker.rng
    n, *size = (int(k) for k in shape[1:])
    groups = int(rng.choice([g for g in (1, 2, n) if n % g == 0])) if maker.integer(0, 2) == 0 else 0
    axes = [] if groups else [int(a) for a in range(maker.integer(1, len(shape) - 1), len(shape))]
    count = n // groups * int(np.prod(size)) if groups else int(np.prod([shape[a] for a in axes]))
    axis, each = maker.pick((1, n), (-1, size[-1]))
    gains = rng.integers(-(1 << 11), 1 << 11, maker.pick((), (each,)))
    arrays = {"gains": gains, "bias": rng.integers(-(1 << 18), 1 << 18, maker.pick((), (each,)))}
    arrays = {key: a.astype(np.int32) for key, a in arrays.items()} | {"roots": root_table().astype(np.uint16)}
    how = maker.requantize(grid, 2.0**19, 0)
    attrs = {"axes": axes, "groups": groups, "count": count, "centred": maker.integer(0, 1)}
    attrs |= {"extra": maker.pick(0, 7, 10**6), "axis": axis}
    return maker.add("Normalize", (x,), shape, grid, attrs=attrs, arrays=arrays, requantize=how)


def chosen(maker: Maker, x: str) -> str:
    """Where what stands beside it has a value that occurs, or where a mask of the last axis is 1."""
    other = maker.clip(x)
    if maker.integer(0, 1):
        return maker.add("Where", (other, x, other), maker.shapes[x], maker.grids[x], attrs={"value": value_of(maker)})
    mask = maker.const([k % 2 for k in range(maker.size(x)[-1])])
    return maker.add("Where", (mask, x, other), maker.shapes[x], maker.grids[x], attrs={"value": 1})


def value_of(maker: Maker) -> int:
    """The lowest value that the last Clip gives."""
    return int(np.max(maker.steps[-1].arrays["low"]))
