"""Tables: what was found is never computed again, whatever happens in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import equint
from equint.crew.workers import Alone, Crew, Processes
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.planning.recipe import source
from equint.samples.card import read_card
from equint.scoring.metrics import evaluate
from equint.study.ledger import read_lines
from equint.study.table import LINES, Row, find_networks, table

CARD = """model = "{model}"
[input]
kind = "gray"
mean = [0.0]
std = [16.0]
range = [0.0, 1.0]
[data]
eval = "digits.npz"
calibration = "digits.npz"
"""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """A folder with one network and its card."""
    folder = tmp_path / "cards"
    folder.mkdir()
    shutil.copy(model_path(), folder / "digits.onnx")
    shutil.copy(data_path(), folder / "digits.npz")
    (folder / "digits.toml").write_text(CARD.format(model="digits.onnx"), "utf-8")
    return folder


def run(cards: Path, recipes: list[Any] | None = None, targets: tuple[str, ...] = (), **given: Any) -> tuple[Row, ...]:
    options = {"limit": 40, "cache": cards.parent / "cache", **given}
    return table([cards / "digits.toml"], recipes or ["lwq", "cwq"], targets, **options)


def lines(cards: Path) -> list[str]:
    """The keys that were computed, one for every time."""
    path = cards.parent / "cache" / LINES
    return [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_figures_are_those_of_evaluation(cards: Path, tmp_path: Path) -> None:
    float_row, row = run(cards, ["lwq"])
    card = read_card(cards / "digits.toml")
    equint.quantize(cards / "digits.onnx", "lwq", input=card).save(tmp_path / "int8.onnx")
    expected = evaluate(tmp_path / "int8.onnx", data_path(), card, cards / "digits.onnx", limit=40)
    assert row.results["samples"] == 40
    assert {k: v for k, v in row.results.items() if k != "outputs"} == pytest.approx(
        {k: v for k, v in expected.items() if k not in ("outputs", "chance")}, rel=1e-4
    )
    assert float_row.recipe == "float"
    assert float_row.results["top1"] == evaluate(cards / "digits.onnx", data_path(), card, limit=40)["top1"]
    assert 0 < row.integer_bytes < row.float_bytes / 3
    assert (row.level, row.target) == (1, "per-tensor")


def test_a_second_run_computes_nothing(cards: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = run(cards, progress=lambda name, done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert not any(row.cached for row in first)
    before = lines(cards)
    second = run(cards)
    assert second == first
    assert all(row.cached for row in second)
    assert lines(cards) == before
    assert len(set(before)) == 3


def test_a_changed_recipe_costs_its_own_cells(cards: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(source("lwq").replace('"lwq"', '"mine"'), "utf-8")
    run(cards, ["lwq", "cwq"])
    rows = run(cards, [mine, "cwq"])
    assert [row.recipe for row in rows] == ["float", "mine", "cwq"]
    assert len(lines(cards)) == 3  # a new name is no change
    mine.write_text(mine.read_text("utf-8") + '[[passes]]\npass = "correct_bias"\n', "utf-8")
    rows = run(cards, [mine, "cwq"])
    assert [row.cached for row in rows] == [True, False, True]
    assert len(lines(cards)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"bits": ((4, 8),)}, 1),
        ({"limit": 30}, 2),
        ({"targets": ("per-channel",)}, 1),
        ({"images": 16}, 1),
        ({"limit": {"digits": 40}}, 0),
        ({"images": (None, 16)}, 1),
    ],
)
def test_what_changes_a_cell(change: dict[str, Any], computed: int, cards: Path) -> None:
    run(cards, ["lwq"])
    before = len(lines(cards))
    run(cards, ["lwq"], **change)
    assert len(lines(cards)) - before == computed


def test_contents_count_and_names_do_not(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(cards, ["lwq"])
    before = lines(cards)
    moved = cards.rename(cards.parent / "elsewhere")
    card = moved / "digits.toml"
    card.write_text("# a comment\n" + card.read_text("utf-8"), "utf-8")
    run(moved, ["lwq"])
    assert lines(moved) == before
    card.write_text(card.read_text("utf-8").replace("16.0", "15.0"), "utf-8")
    run(moved, ["lwq"])
    assert len(lines(moved)) == 4
    proto = equint.load(moved / "digits.onnx")
    assert proto.graph.outputs == ("output",)
    network = bytearray((moved / "digits.onnx").read_bytes())
    (moved / "digits.onnx").write_bytes(network + b"\x72\x00")  # an empty field more: another file, the same network
    run(moved, ["lwq"])
    assert len(lines(moved)) == 6
    monkeypatch.setattr("equint.study.table.__version__", "0.0.0")
    run(moved, ["lwq"])
    assert len(lines(moved)) == 8


def test_damaged_lines_are_computed_again(cards: Path) -> None:
    first = run(cards)
    path = cards.parent / "cache" / LINES
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(kept[0] + b"\xff\x00garbage\n" + kept[1] + kept[2][: len(kept[2]) // 2])
    assert run(cards) == first
    assert path.read_bytes().count(kept[1]) == 1
    assert set(read_lines(path)) == {row.key for row in first}


def test_lost_outputs_of_the_float_network_are_made_again(cards: Path) -> None:
    run(cards, ["lwq"])
    (store,) = (cards.parent / "cache").glob("*.outputs")
    store.write_bytes(store.read_bytes()[:-100])
    rows = run(cards, ["lwq"])
    assert len(lines(cards)) == 2  # not needed, not made
    rows = run(cards, ["lwq", "cwq"])
    assert len(lines(cards)) == 4
    assert not any(row.reason for row in rows)


def test_impossible_ways_say_why(cards: Path) -> None:
    rows = run(cards, ["cwq", "lwq", "bias-finetune"], ("per-tensor",), bits=((8, 8), (1, 8)))
    reasons = [row.reason for row in rows]
    assert reasons[0] == reasons[2] == ""
    assert (
        reasons[1]
        == "recipe cwq needs a weight scale per channel, which target per-tensor does not take; choose another"
    )
    assert reasons[3] == "recipe bias-finetune: finetune_bias needs images"
    assert all("bits" in reason for reason in reasons[4:])
    assert all(not row.results for row in rows if row.reason)
    assert len(lines(cards)) == 2


def test_recipes_with_images_go_without_only_where_that_is_asked_for(cards: Path) -> None:
    _, refused = run(cards, ["one-step"])
    assert refused.reason == "recipe one-step: calibrate needs images"
    _, asked, shown = run(cards, ["one-step"], images=[0, 24])
    assert (asked.reason, asked.level, asked.images) == ("", 1, None)
    assert (shown.reason, shown.level, shown.images) == ("", 2, 24)
    assert asked.key != shown.key


def test_without_torch_biases_are_not_fine_tuned(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equint.study.table.find_spec", lambda name: None)
    _, row = run(cards, ["bias-finetune"], images=8)
    assert row.reason.startswith("torch is not installed")
    assert row.images == 8


@pytest.mark.parametrize("crew", [Alone(), Processes(2)])
def test_a_network_that_fails_stops_no_other(crew: Crew, cards: Path) -> None:
    (cards / "broken.onnx").write_bytes(b"no network")
    (cards / "broken.toml").write_text(CARD.format(model="broken.onnx"), "utf-8")
    (cards / "blind.toml").write_text(
        'model = "digits.onnx"\n[input]\nkind = "gray"\nstd = [16.0]\nrange = [0.0, 1.0]\n', "utf-8"
    )
    networks = [cards / f"{name}.toml" for name in ("broken", "blind", "digits")]
    rows = table(networks, ["lwq"], limit=20, cache=cards.parent / "cache", crew=crew)
    assert [bool(row.reason) for row in rows] == [True, True, True, True, False, False]
    assert "broken.onnx" in rows[0].reason
    assert rows[1].reason == rows[0].reason
    assert "no evaluation data" in rows[2].reason
    assert rows[5].results["samples"] == 20


CHILD = """
import multiprocessing, sys, time
from pathlib import Path
from equint.crew.workers import hired
from equint.study.table import table

def told(name, done, total):
    if done == 3:
        print(*[p.pid for p in multiprocessing.active_children()], flush=True)
    if done > 3:
        time.sleep(60)

if __name__ == "__main__":
    with hired(int(sys.argv[2])) as crew:
        table([Path(sys.argv[1]) / "digits.toml"], ["lwq", "cwq", "cwq-bc", "dfq", "optimal"], bits=((8, 8), (6, 6)),
              limit=40, cache=Path(sys.argv[1]).parent / "cache", crew=crew, progress=told)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_goes_on_where_it_stopped(jobs: int, cards: Path, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD, "utf-8")
    with subprocess.Popen([sys.executable, script, cards, str(jobs)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        workers = [int(pid) for pid in child.stdout.readline().split()]
        os.kill(child.pid, signal.SIGKILL)
    assert len(workers) >= jobs - 1
    deadline = time.monotonic() + 20
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, workers))
    before = read_lines(cards.parent / "cache" / LINES)
    assert 3 <= len(before) <= 4
    rows = run(cards, ["lwq", "cwq", "cwq-bc", "dfq", "optimal"], bits=((8, 8), (6, 6)))
    assert len(rows) == 11
    assert not any(row.reason for row in rows)
    assert sum(row.cached for row in rows) == len(before)
    assert set(Counter(lines(cards)).values()) == {1}
    assert {row.key for row in rows} == set(lines(cards))


def test_a_limit_of_no_network_is_refused(cards: Path, tmp_path: Path) -> None:
    with pytest.raises(EquintError, match="limit other: no such network; choose digits"):
        table([cards / "digits.toml"], ["lwq"], limit={"other": 3}, cache=tmp_path / "found")


def test_networks_are_found_with_their_cards(cards: Path) -> None:
    (network,) = find_networks([cards / "digits.onnx"])
    assert (network.name, network.card.name, network.task) == ("digits", "digits.toml", "classification")
    (cards / "models").mkdir()
    shutil.copy(cards / "digits.onnx", cards / "models" / "deep.onnx")
    (cards / "other.toml").write_text(CARD.format(model="models/deep.onnx"), "utf-8")
    assert find_networks([cards / "models" / "deep.onnx"])[0].name == "other"
    (cards / "second.toml").write_text(CARD.format(model="models/deep.onnx"), "utf-8")
    with pytest.raises(EquintError, match="several cards"):
        find_networks([cards / "models" / "deep.onnx"])
    both = find_networks([cards / "digits.toml", cards / "digits.onnx", cards / "second.toml"])
    assert [network.name for network in both] == ["digits", "second"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lost.onnx", "no such file"),
        ("lost.toml", "no such card"),
        ("bare.toml", "names no network"),
        ("away.toml", "is not there"),
        ("alone.onnx", "no card near it"),
    ],
)
def test_what_cannot_be_a_network_is_refused(given: str, said: str, cards: Path) -> None:
    (cards / "bare.toml").write_text("", "utf-8")
    (cards / "away.toml").write_text('model = "away.onnx"', "utf-8")
    shutil.copy(cards / "digits.onnx", cards / "alone.onnx")
    with pytest.raises(EquintError, match=said):
        find_networks([cards / given])


@pytest.mark.parametrize("bad", [{"recipes": ["nope"]}, {"targets": ("nope",)}])
def test_what_cannot_be_asked_is_refused(bad: dict[str, Any], cards: Path) -> None:
    with pytest.raises(EquintError):
        run(cards, **bad)


@pytest.mark.parametrize(("text", "kind"), [("passes = []\n", "recipe"), ("[weight]\nbits = 8\n", "target")])
def test_other_tables_among_cards_are_named(tmp_path: Path, text: str, kind: str) -> None:
    """As `table *.toml` picks them up."""
    (tmp_path / "better.toml").write_text(text)
    with pytest.raises(
        EquintError, match=rf"better.toml: is a {kind}, and no card; leave it out, or give it as --{kind}"
    ):
        find_networks([tmp_path / "better.toml"])
