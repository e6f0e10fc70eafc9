"""Markdown and JSON lines of hand-made rows, letter by letter."""

import json
import math
from typing import Any

from equint.pages.results import jsonlines, markdown
from equint.study.table import Row


def row(network: str, recipe: str, target: str = "per-tensor", task: str = "classification", **given: Any) -> Row:
    return Row(network, task, recipe, target, 8, 8, **given)


ROWS = (
    Row("b|net", "classification", "float", results={"samples": 400, "top1": 56.0}),
    row("b|net", "lwq", results={"samples": 400, "top1": 0.25, "agreement": 0.0, "sqnr_db": -0.51}),
    row("b|net", "cwq", reason="recipe cwq needs a weight scale\nper channel"),
    row("b|net", "dfq", results={"samples": 400, "top1": 55.2501, "agreement": 86.04, "sqnr_db": 17.15}, images=64),
    row("b|net", "wes", "npu-shift", results={"samples": 400, "top1": 55.2499, "agreement": 90.0, "sqnr_db": 18.0}),
    Row("sr", "super-resolution", "float", results={"samples": 1}),
    Row("sr", "super-resolution", "lwq", "per-tensor", 16, "float", results={"samples": 1, "sqnr_db": math.inf}),
    row("sr", "cwq", task="super-resolution", reason="recipe cwq needs a weight scale\nper channel"),
    Row("sr", "super-resolution", "dfq", "per-tensor", results={"samples": 1, "sqnr_db": math.nan}),
    Row("gone", "features", "float", reason="gone.onnx: no such file"),
)
EXPECTED = r"""## b\|net

classification, 400 samples

| recipe | target | bits | images | top-1, % | agreement, % | SQNR, dB |
|---|---|--:|--:|--:|--:|--:|
| float |  |  |  | 56.00 |  |  |
| lwq | per-tensor | 8/8 |  | 0.25 | 0.0 | -0.5 |
| cwq | per-tensor | 8/8 |  | [^1] |  |  |
| dfq | per-tensor | 8/8 | 64 | **55.25** | 86.0 | 17.1 |
| wes | npu-shift | 8/8 |  | **55.25** | 90.0 | 18.0 |

## sr

super-resolution, 1 sample

| recipe | target | bits | images | SQNR, dB |
|---|---|--:|--:|--:|
| float |  |  |  |  |
| lwq | per-tensor | 16/float |  | **∞** |
| cwq | per-tensor | 8/8 |  | [^1] |
| dfq | per-tensor |  |  | nan |

## gone

features, 0 samples

| recipe | target | bits | images | SQNR, dB |
|---|---|--:|--:|--:|
| float |  |  |  | [^2] |

[^1]: recipe cwq needs a weight scale per channel
[^2]: gone.onnx: no such file
"""


def test_markdown_letter_by_letter() -> None:
    assert markdown(ROWS) == EXPECTED


def test_the_tasks_own_figure_comes_first() -> None:
    rows = [
        Row("seg", "segmentation", "float", results={"samples": 8, "miou": 46.6}),
        row("seg", "lwq", results={"samples": 8, "miou": 40.0, "agreement": 97.0, "sqnr_db": 20.0}),
        row("seg", "dfq", results={"samples": 8, "miou": 45.0, "agreement": 96.0, "sqnr_db": 19.0}),
    ]
    assert markdown(rows).splitlines()[4:] == [
        "| recipe | target | bits | images | mIoU, % | agreement, % | SQNR, dB |",
        "|---|---|--:|--:|--:|--:|--:|",
        "| float |  |  |  | 46.60 |  |  |",
        "| lwq | per-tensor | 8/8 |  | 40.00 | 97.0 | 20.0 |",
        "| dfq | per-tensor | 8/8 |  | **45.00** | 96.0 | 19.0 |",
    ]


def test_no_rows_no_text() -> None:
    assert markdown(()) == ""
    assert jsonlines(()) == ""


def test_json_lines_hold_every_row() -> None:
    told = [json.loads(line, parse_constant=None) for line in jsonlines(ROWS).splitlines()]
    assert [entry["recipe"] for entry in told] == [r.recipe for r in ROWS]
    assert told[6]["results"]["sqnr_db"] == "inf"
    assert told[3]["images"] == 64
