"""Where a page comes from: checksums as another program counts them, versions of what is installed."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

import equint
from equint.pages.provenance import command_line, machine, provenance


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_checksums_are_those_of_sha256sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(bytes(range(256)) * 9000)
    (tmp_path / "photos").mkdir()
    files = {"data": "photos", "model": tmp_path / "net.onnx", "saved": None, "card": (0, 1), "recipe": "net.onnx"}
    found = provenance(files, "equint auto net.onnx")
    printed = subprocess.run(["sha256sum", "net.onnx"], capture_output=True, text=True, check=True).stdout
    network, photos = found["files"]
    assert network == {
        "role": "float network",
        "path": "net.onnx",
        "size": "2.30 MB",
        "sha256": printed.split()[0],
    }
    assert photos == {"role": "data", "path": "photos", "size": "folder", "sha256": ""}
    assert (found["equint"], found["command"]) == (equint.__version__, "equint auto net.onnx")


def test_files_that_are_gone_are_left_out(tmp_path: Path) -> None:
    assert provenance({"model": tmp_path / "none.onnx"})["files"] == []


def test_the_machine_is_this_one() -> None:
    found = machine()
    assert found["onnxruntime"] == version("onnxruntime")
    assert found["processor"].endswith(("core", "cores"))


def test_a_command_line_can_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/equint", "auto", "my net.onnx"])
    assert command_line() == "equint auto 'my net.onnx'"
