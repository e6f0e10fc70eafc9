"""Operators of TFLite that move values, with what they should give."""

import numpy as np

from tflite_kinds import ROWS, Case, Given, X, draw, floats, ints, number


def shapes() -> list[Case]:
    pads, row = ints([0, 0], [1, 2], [0, 3], [2, 1]), draw(4, 1, 5, 1, seed=50)
    space = draw(1, 4, 6, 2, seed=51)
    batches = space.reshape(1, 2, 2, 2, 3, 2).transpose(2, 4, 0, 1, 3, 5).reshape(6, 2, 2, 2)
    return [
        Case("RESHAPE", [Given(X), ints(2, 90)], [X.reshape(2, 90)], {"new_shape": [2, 90]}),
        Case("RESHAPE", [Given(X)], [X.reshape(10, 18)], {"new_shape": [10, -1]}, "option"),
        Case("RESHAPE", [Given(X[:, :1, :1]), ints(2, 3)], [X[:, 0, 0]], {}, "pooled"),
        Case("TRANSPOSE", [Given(X), ints(0, 3, 1, 2)], [X.transpose(0, 3, 1, 2)]),
        Case("TRANSPOSE", [Given(X), ints(2, 0, 3, 1)], [X.transpose(2, 0, 3, 1)], {}, "odd"),
        Case("EXPAND_DIMS", [Given(ROWS), ints(1)[0]], [ROWS[:, None]]),
        Case("EXPAND_DIMS", [Given(X), ints(-1)[0]], [X[..., None]], {}, "last"),
        Case("SQUEEZE", [Given(row)], [row[:, 0, :, 0]], {"squeeze_dims": [1, -1]}),
        Case("SQUEEZE", [Given(row)], [row[:, 0, :, 0]], {}, "all"),
        Case("PAD", [Given(X), pads], [np.pad(X, pads)]),
        Case("PADV2", [Given(X), pads, number(1.5)], [np.pad(X, pads, constant_values=1.5)]),
        Case(
            "MIRROR_PAD",
            [Given(X), ints([0, 0], [1, 2], [0, 3], [0, 1])],
            [np.pad(X, [(0, 0), (1, 2), (0, 3), (0, 1)], mode="reflect")],
            {"mode": "REFLECT"},
        ),
        Case(
            "MIRROR_PAD",
            [Given(X), ints([0, 0], [1, 2], [0, 3], [0, 1])],
            [np.pad(X, [(0, 0), (1, 2), (0, 3), (0, 1)], mode="symmetric")],
            {"mode": "SYMMETRIC"},
            "symmetric",
        ),
        Case("TILE", [Given(ROWS), ints(2, 3)], [np.tile(ROWS, (2, 3))]),
        Case("FILL", [ints(2, 3), Given(number(2.5))], [np.full((2, 3), number(2.5))]),
        Case("BROADCAST_TO", [Given(ROWS[:1]), ints(3, 5)], [np.broadcast_to(ROWS[:1], (3, 5))]),
        Case("BROADCAST_ARGS", [ints(2, 1), ints(3)], [ints(2, 3)]),
        Case("RANGE", [ints(1)[0], Given(ints(9)[0]), ints(3)[0]], [ints(1, 4, 7)]),
        Case(
            "SPACE_TO_BATCH_ND",
            [Given(space[:, :3]), ints(2, 3), ints([0, 1], [0, 0])],
            [np.where((np.arange(6) >= 3)[:, None, None, None] & (np.arange(2) == 1)[:, None, None], 0, batches)],
        ),
        Case("BATCH_TO_SPACE_ND", [Given(batches), ints(2, 3), ints([1, 0], [0, 2])], [space[:, 1:, :4]]),
    ]


def parts() -> list[Case]:
    y, places = draw(2, 5, 6, 2, seed=60), ints([0, 2], [3, 1])
    begin, end, strides = ints(0, 1, -5, 0), ints(2, 5, -1, 3), ints(1, 2, 1, 1)
    return [
        Case("CONCATENATION", [Given(X), Given(y)], [np.concatenate([X, y], 3)], {"axis": 3}),
        Case("CONCATENATION", [Given(X), X + 1], [np.concatenate([X, X + 1], 1)], {"axis": -3}, "rows"),
        Case("PACK", [Given(ROWS), Given(ROWS + 1)], [np.stack([ROWS, ROWS + 1], 1)], {"axis": 1, "values_count": 2}),
        Case("UNPACK", [Given(X)], [X[..., 0], X[..., 1], X[..., 2]], {"axis": 3, "num": 3}),
        Case("SPLIT", [ints(2)[0], Given(X)], [X[:, :, :3], X[:, :, 3:]], {"num_splits": 2}),
        Case("SPLIT_V", [Given(X), ints(1, -1), ints(3)[0]], [X[..., :1], X[..., 1:]], {"num_splits": 2}),
        Case("SLICE", [Given(X), ints(0, 1, 2, 0), ints(2, 3, -1, 2)], [X[:, 1:4, 2:, :2]]),
        Case(
            "SLICE", [Given(X), Given(ints(0, 1, 2, 0)), Given(ints(2, 3, -1, 2))], [X[:, 1:4, 2:, :2]], {}, "computed"
        ),
        Case("STRIDED_SLICE", [Given(X), begin, end, strides], [X[0:2, 1:5:2, -5:-1, 0:3]]),
        Case(
            "STRIDED_SLICE",
            [Given(X), begin, end, strides],
            [X[:, 1:5:2, -5:, 0:3]],
            {"begin_mask": 1, "end_mask": 4},
            "masks",
        ),
        Case(
            "STRIDED_SLICE",
            [Given(X), ints(0, 0, -1, 0), ints(0, 0, 0, 0), ints(1, 1, 1, 1)],
            [X[:, :, -1]],
            {"begin_mask": 11, "end_mask": 11, "shrink_axis_mask": 4},
            "dropped",
        ),
        Case(
            "STRIDED_SLICE",
            [Given(X), ints(0, 0, 0), ints(0, 0, 0), ints(1, 1, 1)],
            [X[:, None, 0]],
            {"begin_mask": 1, "end_mask": 1, "new_axis_mask": 2, "shrink_axis_mask": 4},
            "new",
            litert=False,
        ),
        Case(
            "STRIDED_SLICE",
            [Given(X), ints(0, 4), ints(0, 0), ints(1, -2)],
            [X[:, 4:0:-2]],
            {"begin_mask": 1, "end_mask": 1},
            "back",
        ),
        Case(
            "STRIDED_SLICE",
            [Given(ROWS), Given(ints(1, 0)), Given(ints(2, 4)), ints(1, 1)],
            [ROWS[1, :4]],
            {"begin_mask": 2, "shrink_axis_mask": 1},
            "computed",
        ),
        Case("REVERSE_V2", [Given(X), ints(2)], [X[:, :, ::-1].copy()]),
        Case(
            "REVERSE_SEQUENCE",
            [Given(ROWS), ints(1, 5, 2, 3)],
            [np.stack([np.r_[r[:n][::-1], r[n:]] for r, n in zip(ROWS, (1, 5, 2, 3), strict=True)])],
            {"seq_dim": 1, "batch_dim": 0},
        ),
        Case("GATHER", [Given(X), ints(4, 0, 1)], [X[:, [4, 0, 1]]], {"axis": 1}),
        Case(
            "GATHER",
            [Given(ROWS), Given(ints(1, 0, 4, 2))],
            [ROWS[range(4), [1, 0, 4, 2]]],
            {"axis": 1, "batch_dims": 1},
            "batches",
        ),
        Case("GATHER_ND", [Given(ROWS), places], [ROWS[[0, 3], [2, 1]]]),
        Case(
            "SCATTER_ND",
            [ints([1], [3], [1]), Given(ROWS[:3]), ints(5, 5)],
            [np.stack([0 * ROWS[0], ROWS[0] + ROWS[2], 0 * ROWS[0], ROWS[1], 0 * ROWS[0]])],
        ),
        Case(
            "ONE_HOT",
            [Given(ints(2, 0)), ints(3)[0], number(1.5), number(-1)],
            [floats([-1, -1, 1.5], [1.5, -1, -1])],
            {"axis": -1},
        ),
        Case("WHERE", [Given(ROWS > 1)], [np.argwhere(ROWS > 1)]),
    ]
