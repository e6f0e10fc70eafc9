"""The example notebooks run from their first cell to their last, and are kept without outputs."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {"torch_classifier": "torch"}
"""Libraries beside those of the tests."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra notebooks)")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra notebooks)")
    if (needed := NEEDS.get(path.stem)) is not None and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    if path.stem == "detector" and not os.environ.get("EQUINT_REAL"):
        pytest.skip("EQUINT_REAL names no folder of networks")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs if o.output_type != "stream"]
    assert any("text/html" in output.data for output in shown)


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["detector", "torch_classifier", "without_data"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
