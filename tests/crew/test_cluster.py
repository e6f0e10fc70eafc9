"""A Ray of two workers: it finds what one process finds, and loses nothing when workers die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import equint
from commands import Run
from equint.crew import cluster
from equint.crew.cluster import SETTINGS, Cluster, _rehearse, check
from equint.crew.workers import in_order
from equint.demo import data_path, model_path
from equint.errors import EquintError, InvalidOption, MissingLibrary
from equint.study.ledger import read_lines
from equint.study.table import LINES

CARD = f"""model = "{model_path()}"
[input]
kind = "gray"
mean = [0.0]
std = [16.0]
range = [0.0, 1.0]
[data]
eval = "{data_path()}"
calibration = "{data_path()}"
"""


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """A Ray with two workers, which this process has joined."""
    ray = pytest.importorskip("ray", reason="needs the extra equint[ray]")
    helpers = str(Path(__file__).parents[1] / "helpers")  # workers import what this file does
    os.environ.update(cluster.QUIET, PYTHONPATH=os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, object_store_memory=cluster.STORE, log_to_driver=False
        )
        yield ray
        ray.shutdown()


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(CARD, "utf-8")
    return path


# Tasks


def squares(_: None) -> Callable[[int], int]:
    return lambda task: task * task


def dying_once(folder: Path) -> Callable[[int], int]:
    """Task 3 kills its worker the first time."""

    def work(task: int) -> int:
        mark = folder / f"was here {task}"
        if task == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task * 10

    return work


def always_dying(_: None) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 1:
            os._exit(7)
        return task

    return work


def waiting(folder: Path) -> Callable[[int], int]:
    """Every task says who does it, and waits until it may go on."""

    def work(task: int) -> int:
        (folder / f"{task} {os.getpid()} {time.monotonic_ns()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
        return task + 1

    return work


def failing(_: None) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 2:
            raise EquintError("two is refused")
        return task

    return work


def test_tasks_come_back_in_their_order(two: Any) -> None:
    crew = Cluster("local")
    assert list(in_order(crew, squares, None, range(20), ahead=3)) == [n * n for n in range(20)]
    assert list(crew.each(squares, None, [])) == []
    with pytest.raises(EquintError, match="two is refused"):
        list(in_order(crew, failing, None, range(5)))
    crew.leave()
    assert two.is_initialized(), "a Ray that was there already is left as it is"


def test_a_task_that_kills_its_worker_is_done_again(two: Any, tmp_path: Path) -> None:
    assert list(in_order(Cluster("local"), dying_once, tmp_path, range(8))) == [10 * n for n in range(8)]
    assert (tmp_path / "was here 3").exists()


def test_a_task_that_kills_every_worker_costs_itself(two: Any) -> None:
    found = dict(Cluster("local").each(always_dying, None, range(4)))
    assert {task: value for task, value in found.items() if task != 1} == {0: 0, 2: 2, 3: 3}
    assert "its workers died 4 times" in str(found[1])


def test_a_worker_that_is_killed_from_outside_loses_nothing(two: Any, tmp_path: Path) -> None:
    killed = list[int]()

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (started := list(tmp_path.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = int(started[0].name.split()[1])
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        (tmp_path / "go").touch()

    thread = Thread(target=kill)
    thread.start()
    assert list(in_order(Cluster("local"), waiting, tmp_path, range(6))) == [n + 1 for n in range(6)]
    thread.join()
    tasks = [f.name.split()[0] for f in tmp_path.iterdir() if f.name != "go"]
    assert killed
    assert len(tasks) > len(set(tasks)), "what the killed worker was doing was begun twice"


def test_a_table_is_that_of_one_process(two: Any, card: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"bits": [(8, 8), (6, 6)], "images": [None, 8], "limit": 300}
    told = list[int]()
    alone = equint.table([card], ["lwq", "optimal"], **given, cache=tmp_path / "alone")
    shared = equint.table(
        [card],
        ["lwq", "optimal"],
        **given,
        cache=tmp_path / "shared",
        ray="local",
        progress=lambda *a: told.append(a[1]),
    )
    assert shared.rows == alone.rows
    assert not any(row.reason for row in shared)
    assert told == list(range(1, 10))
    kept = [read_lines(tmp_path / name / LINES) for name in ("alone", "shared")]
    assert len(kept[0]) == 9
    assert {k: v["results"] for k, v in kept[0].items()} == {k: v["results"] for k, v in kept[1].items()}
    outputs = [sorted(p.read_bytes() for p in (tmp_path / name).glob("*.outputs")) for name in ("alone", "shared")]
    assert outputs[0] == outputs[1]


def test_statistics_are_those_of_one_process(two: Any, card: Path, tmp_path: Path) -> None:
    told = list[int]()
    alone = equint.calibrate(model_path(), data_path(), input=card)
    shared = equint.calibrate(model_path(), data_path(), input=card, ray="local", progress=told.append)
    with np.load(data_path()) as file:  # of arrays, which are sent once
        x = np.moveaxis(file["x"].reshape(-1, 8, 8, 1), -1, 1).astype(np.float32) / 16
    arrays = equint.calibrate(model_path(), x, input=card, ray="local")
    for name, found in (("alone", alone), ("shared", shared), ("arrays", arrays)):
        found.save(tmp_path / f"{name}.npz")
    assert (tmp_path / "shared.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert (tmp_path / "arrays.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert told == [256, 500]


def test_what_cannot_be_sent_is_refused(two: Any, card: Path) -> None:
    with pytest.raises(InvalidOption, match="ray local: not all can be sent"):
        equint.calibrate(model_path(), iter([np.zeros((4, 1, 8, 8), np.float32)] * 2), input=card, ray="local")


def test_figures_are_those_of_one_process(two: Any, card: Path) -> None:
    result = equint.quantize(model_path(), "cwq", input=card)
    told = list[tuple[str, int, int]]()
    alone = equint.evaluate(result, None, card, model_path())
    shared = equint.evaluate(result, None, card, model_path(), ray="local", progress=lambda *a: told.append(a))
    assert shared == alone
    assert shared.figures["sqnr_db"] == alone.figures["sqnr_db"]
    assert told == [("evaluating", n, 500) for n in (256, 500)]


def test_a_diagnosis_is_that_of_one_process(two: Any, card: Path) -> None:
    with np.load(data_path()) as file:
        labels = file["y"][:64]
    given: dict[str, Any] = {"input": card, "data": data_path(), "images": 64, "labels": labels}
    alone = equint.diagnose(model_path(), "lwq", **given)
    shared = equint.diagnose(model_path(), "lwq", **given, ray="local")
    assert shared.best is not None
    assert shared == alone


# Refused


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("address", ["", "here there", "127.0.0.1:99999", "ray://:10001"])
def test_what_is_no_address_is_refused(address: str) -> None:
    pytest.importorskip("ray", reason="needs the extra equint[ray]")
    with pytest.raises(InvalidOption, match="no address; give local"):
        check(address)


def test_a_cluster_that_is_not_there_is_refused_in_a_line(run: Run, card: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra equint[ray]")
    at = f"127.0.0.1:{free_port()}"
    code, out, err = run("table", card, "--recipe", "lwq", "--cache", tmp_path / "cache", "--ray", at)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"ray {at}: no cluster answers there (Connection refused)" in err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("answer", "why"), [(b"HTTP/1.1 400 no\r\n", "something else does"), (b"", "timed out")])
def test_what_listens_and_is_no_cluster_is_refused(answer: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra equint[ray]")
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(answer)
                time.sleep(0 if answer else 1.5)

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(InvalidOption, match=f"no cluster answers there .*{why}"):
            check(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_what_speaks_http_2_and_is_no_cluster_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It greets as Ray does, and answers nothing: Ray alone would try for two minutes."""
    pytest.importorskip("ray", reason="needs the extra equint[ray]")
    monkeypatch.setattr(cluster, "PATIENCE_TO_JOIN", 4.0)
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:

        def serve() -> None:
            lines = list[socket.socket]()
            with suppress(OSError):  # closed
                while True:
                    lines.append(server.accept()[0])
                    lines[-1].sendall(bytes([0, 0, 0, *SETTINGS, 0, 0, 0, 0, 0]))

        Thread(target=serve, daemon=True).start()
        check(at := f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(InvalidOption, match=r"cannot be joined \(nothing of Ray's answers within 4 s\)"):
            _rehearse(at)


def test_a_cluster_at_an_address(two: Any, card: Path, tmp_path: Path) -> None:
    """Joined by a process of its own, in another folder than the cluster's workers."""
    at = two.get_runtime_context().gcs_address
    check(at)
    (tmp_path / "net").mkdir()
    card.rename(tmp_path / "net" / "digits.toml")
    command = [sys.executable, "-m", "equint", "table", "net/digits.toml", "--recipe", "lwq", "--limit", "50", "--json"]
    given: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    alone = subprocess.run([*command, "--cache", "alone"], check=True, **given)
    shared = subprocess.run([*command, "--cache", "shared", "--ray", at], check=True, **given)
    rows = [[json.loads(line) for line in done.stdout.splitlines()] for done in (alone, shared)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]
    assert rows[0][1]["results"]["samples"] == 50


def test_without_ray_the_extra_is_named(run: Run, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r"equint\[ray\]"):
        check("local")
    code, out, err = run("table", card, "--recipe", "lwq", "--cache", tmp_path / "cache", "--ray", "local")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert 'pip install "equint[ray]"' in err
    assert not (tmp_path / "cache").exists()


def test_ray_counts_its_own_workers(run: Run, card: Path) -> None:
    code, _, err = run("table", card, "--recipe", "lwq", "--ray", "local", "--jobs", 2)
    assert code == 2
    assert "leave jobs out" in err
