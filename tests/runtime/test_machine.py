"""Execution providers: what is not there is refused by what is, and what is left to the CPU is told.

onnxruntime brings one provider beside the CPU's everywhere, Azure's: it has no kernels of ordinary operators, so that
all of them fall back.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import equint
from commands import Run
from equint.demo import data_path, model_path
from equint.errors import InvalidOption
from equint.runtime.machine import CPU, CPUS, LeftToCpu, Machine, here, machine, on
from equint.runtime.session import Session

AZURE = "AzureExecutionProvider"
needs_azure = pytest.mark.skipif(
    AZURE not in onnxruntime.get_available_providers(), reason="this onnxruntime has the CPU's provider alone"
)


def test_names() -> None:
    assert machine(None) == here() == CPUS
    assert machine("CPU") == machine([CPU]) == machine("cpu, CPUExecutionProvider") == CPUS
    with on(Machine(threads=3)):
        assert machine("cpu") == machine(None) == Machine(threads=3)


@pytest.mark.parametrize("wrong", ["abacus", "", "cpu,", [], ["cpu", 3], "Tensorrt"])
def test_what_is_not_installed_is_refused_by_what_is(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"not in this onnxruntime, which has .*CPU"):
        machine(wrong)


@needs_azure
def test_what_falls_back_is_told_and_right() -> None:
    x = np.ones((2, 1, 8, 8), np.float32)
    with on(machine("azure")), pytest.warns(LeftToCpu, match="provider Azure: it has no kernels for some operators"):
        found = Session(model_path()).run(x)["output"]
    np.testing.assert_array_equal(found, Session(model_path()).run(x)["output"])


@needs_azure
def test_onnxruntime_itself_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with on(machine("azure")), pytest.warns(LeftToCpu):
        Session(model_path())
    assert capfd.readouterr() == ("", "")


def test_the_cpu_says_nothing() -> None:
    with warnings.catch_warnings(), on(machine("cpu")):
        warnings.simplefilter("error")
        Session(model_path())


def test_one_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime behaves where a provider's libraries are missing: a session on the CPU, and nothing raised."""
    asked = list[list[str]]()
    whole = onnxruntime.InferenceSession

    def session(source: Any, options: Any, providers: list[str], **rest: Any) -> Any:
        asked.append(providers)
        return whole(source, options, [CPU], **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with on(Machine(("CUDAExecutionProvider", CPU))), pytest.warns(LeftToCpu, match="CUDA: it does not start here"):
        Session(model_path())
    assert asked[0] == ["CUDAExecutionProvider"]


ARGUMENTS: dict[str, list[Any]] = {
    "quantize": [model_path(), "-o", "q.onnx", "--recipe", "optimal", "--effort", "fast"],
    "evaluate": [model_path(), "--data", data_path(), "--kind", "gray", "--std", "16", "--limit", "20"],
    "calibrate": [
        model_path(),
        "-o",
        "seen.npz",
        "--data",
        data_path(),
        "--mean",
        "0",
        "--std",
        "16",
        "--images",
        "20",
    ],
    "table": ["digits.toml", "--recipe", "lwq", "--limit", "20", "--cache", "cache"],
    "compare": [model_path(), "int8.onnx", "--data", data_path(), "--card", "digits.toml"],
    "auto": [model_path(), "--card", "digits.toml", "--limit", "20"],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    card = f'model = "{model_path()}"\n[input]\nkind = "gray"\nstd = [16.0]\nmean = [0.0]\n'
    (tmp_path / "digits.toml").write_text(f'{card}[data]\neval = "{data_path()}"\n', "utf-8")
    equint.quantize(model_path(), "lwq", input=(0, 1)).save(tmp_path / "int8.onnx")
    return tmp_path


@needs_azure
@pytest.mark.slow
@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_that_runs_networks_takes_providers(command: str, run: Run, place: Path) -> None:
    with warnings.catch_warnings():
        code, out, err = run(command, *ARGUMENTS[command], "--provider", "azure")
    assert (code, err.count("! provider Azure: it has no kernels")) == (0, 1), err
    assert out
    left = sorted(place.iterdir())
    code, out, err = run(command, *ARGUMENTS[command], "--provider", "cpu,abacus")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "provider 'abacus': not in this onnxruntime" in err
    assert sorted(place.iterdir()) == left


@needs_azure
def test_a_table_on_other_providers_is_another(place: Path) -> None:
    plain = equint.table(["digits.toml"], ["lwq"], limit=20, cache="cache")
    with pytest.warns(LeftToCpu):
        other = equint.table(["digits.toml"], ["lwq"], limit=20, cache="cache", jobs=2, providers="azure")
    assert [row.results for row in other] == [row.results for row in plain]
    assert not any(row.cached for row in other)
    assert {row.key for row in plain}.isdisjoint(row.key for row in other)
