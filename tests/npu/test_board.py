"""Boards with a mistake each: the step, the size of the difference and the cause are found."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import equint
from boards import (
    ADDED,
    FIRST,
    FLAT,
    LAST,
    MEAN,
    POOLED,
    SECOND,
    Array,
    Mistake,
    arrays,
    board,
    dumped,
    flipped,
    requantized,
    rounding,
    sample,
    wrapping,
    zeros_around,
)
from equint.errors import EquintError
from equint.integers.program import Program, Step
from equint.npu.board import Comparison, Verdict, compare_board
from equint.npu.golden import write_golden
from handwritten import network, normal
from programs import ACCUMULATORS, feeds_for, literal, programs, run_step

ZERO = np.zeros((), np.int32)


def compared(folder: Path, mistakes: Mapping[int, Mistake], leave_out: tuple[str, ...] = ()) -> Comparison:
    program, feeds = sample()
    values = board(program, feeds, mistakes)
    kept = {name: v for name, v in values.items() if name not in leave_out}
    return compare_board(program, feeds, dumped(program, kept, folder / "dump"), trace=literal)


def first(found: Comparison) -> Verdict:
    assert found.first is not None
    return found.first


def texts(verdict: Verdict) -> list[str]:
    return [cause.text.split(":")[0] for cause in verdict.causes]


def statuses(found: Comparison) -> list[str]:
    return [v.status for v in found.steps]


def test_the_sample_makes_every_mistake_visible() -> None:
    program, feeds = sample()
    values = literal(program, feeds)
    for step in program.steps:
        assert np.unique(values[step.outputs[0]]).size > 2, step.name


CASES = {
    "half_even": (SECOND, rounding("half_even"), "rounds half_even"),
    "truncate": (SECOND, rounding("truncate"), "truncates"),
    "truncate in a sum": (ADDED, rounding("truncate"), "truncates"),
    "bias": (FIRST, arrays(bias=np.zeros(4, np.int32)), "bias missing"),
    "bias of a sum": (ADDED, arrays(bias=ZERO), "bias missing"),
    "bias of the classifier": (LAST, arrays(bias=np.zeros(5, np.int32)), "bias missing"),
    "padding": (FIRST, zeros_around, "pads with the integer 0 instead of the zero point"),
    "padding of the maximum": (POOLED, zeros_around, "pads with the integer 0 instead of the zero point"),
    "clamp": (FIRST, requantized(low=ZERO), "clamp (ReLU) missing"),
    "wrap": (FIRST, wrapping(False), "saturation missing"),
    "wrap and clamp": (FIRST, wrapping(True), "saturation missing"),
    "shift": (FIRST, requantized(shift=np.zeros(4, np.int32)), "shift of the channels not applied"),
    "zero point of the weight": (
        SECOND,
        arrays(weight_zero_point=np.array(0, np.uint8)),
        "zero point of the weight not subtracted",
    ),
    "zero point of the output": (SECOND, requantized(zero_point=0), "zero point of the output not added"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_first_divergence_and_its_cause(case: str, tmp_path: Path) -> None:
    at, mistake, cause = CASES[case]
    program, feeds = sample()
    found = compared(tmp_path, {at: mistake})
    verdict, step = first(found), program.steps[at]
    assert (verdict.number, verdict.op, verdict.layer, verdict.status) == (at + 1, step.op, step.name, "wrong")
    assert cause in texts(verdict)
    assert {c.layers for c in verdict.causes} == {(step.name,)}
    assert verdict.suspects == (step.name,)
    wanted, values = literal(program, feeds), board(program, feeds, {at: mistake})
    name = step.outputs[0]
    difference = values[name].astype(int) - wanted[name].astype(int)
    m = verdict.mismatch
    assert m is not None
    assert m == verdict.own
    assert [m.count, m.size, m.largest] == [np.count_nonzero(difference), difference.size, np.abs(difference).max()]
    index = tuple(np.argwhere(difference)[0])
    assert (m.index, m.wanted, m.found) == (index, wanted[name][index], values[name][index])
    assert m.channel == index[1]
    assert m.channels == len({i[1] for i in np.argwhere(difference).tolist()})
    assert statuses(found)[: at + 1] == ["agrees"] * (at + 1)
    assert set(statuses(found)[at + 2 :]) <= {"inherits", "agrees"}
    json.dumps(found.facts())
    lines = "\n".join(found.lines())
    assert f"first divergence: step {at + 1}, {step.op} {step.name} ({m.file})" in lines
    assert "explained entirely by: " + cause in lines


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_engine_tells_the_same(case: str, tmp_path: Path) -> None:
    program, feeds = sample()
    at, mistake, _ = CASES[case]
    dump = dumped(program, board(program, feeds, {at: mistake}), tmp_path / "dump")
    write_golden(program, feeds, tmp_path / "golden")
    found = compare_board(program, tmp_path / "golden", dump)
    assert found == compare_board(program, feeds, dump, trace=literal)


def test_one_cause_where_only_one_explains_all(tmp_path: Path) -> None:
    for at, mistake, cause in (CASES["bias"], CASES["padding"], CASES["clamp"], CASES["shift"], CASES["half_even"]):
        assert texts(first(compared(tmp_path, {at: mistake}))) == [cause]


def test_every_tie_is_recognized_and_nothing_else(tmp_path: Path) -> None:
    program, feeds = sample()
    wanted, step = literal(program, feeds), program.steps[SECOND]
    acc = ACCUMULATORS["Conv"](step, [wanted["first"].astype(np.int64) - 20])
    halves = acc * 128 % 1024 == 512  # mantissa 128, right = 8 + 2 places
    even = board(program, feeds, {SECOND: rounding("half_even")})["second"] != wanted["second"]
    assert even.any()
    assert np.all(halves[even])
    verdict = first(compared(tmp_path, {SECOND: rounding("half_even")}))
    assert verdict.ties == np.count_nonzero(even)
    down = board(program, feeds, {SECOND: rounding("truncate")})["second"] != wanted["second"]
    verdict = first(compared(tmp_path, {SECOND: rounding("truncate")}))
    assert verdict.mismatch is not None
    assert verdict.ties == np.count_nonzero(down & halves) < verdict.mismatch.count


def test_a_tie_worked_by_hand(tmp_path: Path) -> None:
    # acc·128/2^10 = acc/8: 4/8 is a tie that goes to 1, to even 0; 12/8 goes to 2 both ways; 5/8 is none
    program, feeds = sample()
    step = program.steps[SECOND]
    weight = np.full((4, 1, 3, 3), 126, np.uint8)
    weight[0, 0, 1, 1] = 142
    bias = np.array([0, 4, 5, 12], np.int32)
    plain = replace(step, arrays={**step.arrays, "weight": weight, "bias": bias})
    small = replace(program, steps=(plain,), inputs=("first",), outputs=("second",), shapes={})
    x = np.full((1, 4, 1, 1), 20, np.uint8)
    dump = dumped(small, {"second": np.array([100, 100, 101, 102], np.uint8).reshape(1, 4, 1, 1)}, tmp_path / "d")
    found = compare_board(small, {"first": x}, dump, trace=literal)
    verdict = first(found)
    assert verdict.own is not None
    assert (verdict.ties, verdict.own.count, verdict.own.wanted, verdict.own.found) == (1, 1, 101, 100)
    assert verdict.own.channel == 1
    assert texts(verdict) == ["rounds half_even"]


def test_c_rounds_away_from_zero(tmp_path: Path) -> None:
    def away(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
        acc = ACCUMULATORS["Sum"](step, [inputs[0].astype(int) - 20, inputs[1].astype(int) - 100])
        x = acc * 128 / 1024
        return [np.clip(np.sign(x) * np.floor(np.abs(x) + 0.5) - 9, -128, 127).astype(int)]

    verdict = first(compared(tmp_path, {ADDED: away}))
    assert texts(verdict) == ["rounds half_away"]
    assert verdict.own is not None
    assert verdict.ties == verdict.own.count


def test_one_flipped_bit(tmp_path: Path) -> None:
    found = compared(tmp_path, {SECOND: flipped(4)})
    verdict = first(found)
    assert verdict.mismatch is not None
    assert (verdict.number, verdict.mismatch.count, verdict.mismatch.largest, verdict.mismatch.bit) == (2, 1, 16, 4)
    assert (verdict.mismatch.channel, verdict.mismatch.channels) == (1, 1)
    assert verdict.causes == ()
    assert "  all of them differ in bit 4 alone" in found.lines()
    assert "  no known mistake explains all values" in found.lines()


def test_later_steps_are_wrong_in_themselves_or_inherit(tmp_path: Path) -> None:
    found = compared(tmp_path, {FIRST: CASES["bias"][1], ADDED: CASES["truncate in a sum"][1]})
    by_layer = {v.layer: v for v in found.steps}
    assert {k: v.status for k, v in by_layer.items() if v.status != "inherits"} == {
        "image": "agrees",
        "conv1": "wrong",
        "add": "wrong",
    }
    assert texts(by_layer["add"]) == ["truncates"]
    own, mismatch = by_layer["add"].own, by_layer["add"].mismatch
    assert own is not None
    assert mismatch is not None
    assert own.largest == 1 < mismatch.largest
    assert by_layer["conv2"].mismatch is not None
    assert by_layer["conv2"].own is None


def test_a_layer_run_on_golden_inputs_is_still_explained(tmp_path: Path) -> None:
    program, feeds = sample()
    values = literal(program, feeds)
    truncated = replace(program, rounding="truncate")
    device = dict(values)
    for k in (FIRST, SECOND):
        step = program.steps[k]
        device[step.outputs[0]] = run_step(truncated, step, [values[step.inputs[0]]])[0].astype(np.uint8)
    found = compare_board(program, feeds, dumped(program, device, tmp_path / "d"), trace=literal)
    assert found.steps[1].status == found.steps[2].status == "wrong"
    assert [c.text for c in found.steps[2].causes] == [
        "truncates: drops the bits, as >> does, if the layer was fed golden inputs"
    ]


def test_what_lies_behind_layers_that_were_not_dumped(tmp_path: Path) -> None:
    hidden = ("image", "first", "means", "flat", "added")
    found = compared(tmp_path, {FIRST: CASES["bias"][1]}, hidden)
    assert {name for name, _ in found.missing} == set(hidden)
    verdict = first(found)
    assert (verdict.layer, verdict.status, verdict.suspects) == ("conv2", "wrong", ("conv1", "conv2"))
    assert [(c.text, c.layers) for c in verdict.causes] == [("bias missing", ("conv1",))]
    assert verdict.ties is None
    by_layer = {v.layer: v.status for v in found.steps}
    assert by_layer["add"] == by_layer["conv1"] == "not dumped"
    # `first` was not dumped, so what adds to it starts from the image, and cannot be told from a wrong layer
    assert by_layer["pool"] == "wrong"
    assert by_layer["fc"] == "inherits"
    assert "  layers not dumped may be at fault as well: one or more of conv1, conv2" in found.lines()


def test_only_the_result_of_a_board_that_always_truncates(tmp_path: Path) -> None:
    program, feeds = sample()
    device = literal(replace(program, rounding="truncate"), feeds)
    dump = dumped(program, {"logits": device["logits"]}, tmp_path / "d")
    verdict = first(compare_board(program, feeds, dump, trace=literal))
    assert [c.layers for c in verdict.causes if c.text.startswith("truncates")] == [
        ("conv1", "conv2", "add", "pool", "mean", "flatten", "fc")
    ]


def test_a_board_that_always_truncates(tmp_path: Path) -> None:
    program, feeds = sample()
    dump = dumped(program, literal(replace(program, rounding="truncate"), feeds), tmp_path / "d")
    found = compare_board(program, feeds, dump, trace=literal)
    wrong = [v for v in found.steps if v.status == "wrong"]
    assert len(wrong) > 2
    assert all("truncates" in texts(v) for v in wrong)
    told = f"all {len(wrong)} steps that are wrong are explained by: truncates: drops the bits, as >> does"
    assert told in found.lines()


@pytest.mark.slow
def test_long_lists_are_cut(tmp_path: Path) -> None:
    grid = sample()[0].grids["image"]
    steps = tuple(Step("Identity", f"s{k}", (f"t{k}",), (f"t{k + 1}",)) for k in range(30))
    program = Program(steps, ("t0",), ("t30",), {f"t{k}": grid for k in range(31)})
    x = np.array([[1, 2]], np.uint8)
    found = compare_board(program, {"t0": x}, dumped(program, {"t30": x + np.uint8(1)}, tmp_path / "d"), trace=literal)
    assert first(found).causes == ()
    assert len(first(found).suspects) == 30
    assert max(map(len, found.lines())) < 150
    assert "  no known mistake explains all values" in found.lines()
    assert any(line.endswith("s7, … (30 in all)") for line in found.lines())


def test_too_many_layers_that_were_not_dumped(tmp_path: Path) -> None:
    grid = sample()[0].grids["image"]
    steps = tuple(Step("Identity", f"s{k}", (f"t{k}",), (f"t{k + 1}",)) for k in range(33))
    program = Program(steps, ("t0",), ("t33",), {f"t{k}": grid for k in range(34)})
    x = np.array([[1, 2]], np.uint8)
    found = compare_board(program, {"t0": x}, dumped(program, {"t33": x + np.uint8(1)}, tmp_path / "d"), trace=literal)
    assert any(line.endswith("to look at each alone, dump more layers") for line in found.lines())


def test_shapes_that_are_computed_are_no_tensors_of_the_board(tmp_path: Path) -> None:
    grid = sample()[0].grids["image"]
    steps = (
        Step("Shape", "shape", ("x",), ("dims",)),
        Step("Identity", "same", ("x",), ("y",)),
        Step("Flatten", "flat", ("y",), ("f",), {"axis": 1}),
        Step("Reshape", "back", ("f", "dims"), ("z",)),
    )
    program = Program(steps, ("x",), ("z",), dict.fromkeys("xyfz", grid))
    x = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)
    write_golden(program, {"x": x}, tmp_path / "golden", trace=literal)
    dump = dumped(program, {"z": x, "f": x.reshape(1, 8)}, tmp_path / "d")
    found = compare_board(program, tmp_path / "golden", dump, trace=literal)
    assert [v.layer for v in found.steps] == ["x", "same", "flat", "back"]
    assert found.missing == (("x", "000_x"), ("y", "002_y"))
    dumped(program, {"z": x + np.uint8(1)}, dump)
    verdict = first(compare_board(program, tmp_path / "golden", dump, trace=literal))
    assert (verdict.layer, verdict.suspects, verdict.causes) == ("back", ("back",), ())


def test_wrong_inputs(tmp_path: Path) -> None:
    program, feeds = sample()
    device = literal(program, {"image": feeds["image"] ^ 128})
    found = compare_board(program, feeds, dumped(program, device, tmp_path / "d"), trace=literal)
    verdict = first(found)
    assert (verdict.number, verdict.op, verdict.layer, verdict.status) == (0, "Input", "image", "wrong")
    assert verdict.mismatch is not None
    assert verdict.mismatch.bit == 7
    assert set(statuses(found)[1:]) == {"inherits"}


def test_values_outside_a_grid_cannot_be_computed_with(tmp_path: Path) -> None:
    program, feeds = sample()
    narrow = replace(program.grids["means"], bits=5)
    how = program.steps[MEAN].requantize
    assert how is not None
    steps = list(program.steps)
    steps[MEAN] = replace(steps[MEAN], requantize=replace(how, low=np.array(-16), high=np.array(15)))
    program = replace(program, steps=tuple(steps), grids={**program.grids, "means": narrow, "flat": narrow})
    device = literal(program, feeds)
    device["means"] = device["means"] + np.int8(40)
    device["flat"] = device["flat"] + np.int8(40)
    found = compare_board(program, feeds, dumped(program, device, tmp_path / "d"), trace=literal)
    assert [found.steps[1 + k].status for k in (MEAN, FLAT)] == ["wrong", "unknown"]


@pytest.mark.parametrize("raw", [False, True])
def test_a_folder_agrees_with_itself(raw: bool, tmp_path: Path) -> None:
    program, feeds = sample()
    write_golden(program, feeds, tmp_path / "golden", raw=raw, trace=literal)
    found = compare_board(program, tmp_path / "golden", tmp_path / "golden", trace=literal)
    assert found.first is None
    assert (found.missing, found.unknown, set(statuses(found))) == ((), (), {"agrees"})
    assert found.lines() == ["8 of 8 tensors compared: 8 agree", "no difference"]
    assert found.facts()["agrees"] is True


def test_raw_dumps_and_golden_folders_tell_the_same(tmp_path: Path) -> None:
    program, feeds = sample()
    write_golden(program, feeds, tmp_path / "golden", trace=literal)
    values = board(program, feeds, {SECOND: rounding("truncate")})
    raw = compare_board(program, tmp_path / "golden", dumped(program, values, tmp_path / "r", raw=True), trace=literal)
    plain = compare_board(program, feeds, dumped(program, values, tmp_path / "p"), trace=literal)
    assert raw == plain
    assert first(raw).number == SECOND + 1


def test_dumps_of_parts_with_unknown_files(tmp_path: Path) -> None:
    program, feeds = sample()
    dump = dumped(program, {"second": literal(program, feeds)["second"]}, tmp_path / "d")
    (dump / "log.txt").write_text("")
    (dump / "more").mkdir()
    found = compare_board(program, feeds, dump, trace=literal)
    assert found.unknown == ("log.txt", "more")
    assert (found.compared, len(found.missing), found.first) == (1, 7, None)
    assert found.lines()[0] == "1 of 8 tensors compared: 1 agrees"
    assert "! log.txt: is no tensor of this program" in found.lines()
    assert any(line.startswith("not compared, for the dump lacks them: 000_image, 001_first") for line in found.lines())


def test_dumps_that_cannot_be_read(tmp_path: Path) -> None:
    program, feeds = sample()
    values = literal(program, feeds)
    dump = tmp_path / "dump"
    npy, bin_ = dump / "002_second.npy", dump / "002_second.bin"

    def unreadable(says: str) -> None:
        with pytest.raises(EquintError, match=says) as error:
            compare_board(program, feeds, dump, trace=literal)
        assert "\n" not in str(error.value)
        for file in dump.glob("*"):
            file.unlink()

    unreadable("dump: no such folder; give the folder")
    dump.write_text("")
    with pytest.raises(EquintError, match="dump: cannot be read"):
        compare_board(program, feeds, dump, trace=literal)
    dump.unlink()
    dump.mkdir()
    unreadable(r"dump: is empty; name its files like the golden ones, as 007_logits.npy or .bin")
    (dump / "readme").write_text("")
    unreadable("dump: holds none of the 8 tensors; name its files")
    np.save(npy, values["second"].astype(np.int32))
    unreadable("002_second.npy: layer conv2: holds int32, wanted uint8")
    np.save(npy, values["second"].transpose(0, 2, 3, 1))
    unreadable(r"002_second.npy: layer conv2: shape \[1, 5, 6, 4\], wanted \[1, 4, 5, 6\]")
    np.save(npy, values["second"])
    npy.write_bytes(npy.read_bytes()[:-3])
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    npy.write_bytes(b"")
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    npy.write_bytes(b"\x93NUMPY\x01\x00")
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    npy.write_bytes(b"garbage that is no array")
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    with npy.open("wb") as file:
        np.savez(file, values["second"])
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    with npy.open("wb") as file:
        np.save(file, values["second"])
        file.write(b"more")
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    np.save(npy, np.array([{}]), allow_pickle=True)
    unreadable("002_second.npy: layer conv2: is no whole .npy file")
    bin_.write_bytes(values["second"].tobytes()[:-1])
    unreadable(r"002_second.bin: layer conv2: 119 bytes, wanted 120 \(uint8 \[1, 4, 5, 6\]\)")
    np.save(npy, values["second"])
    bin_.write_bytes((values["second"] ^ 1).tobytes())
    unreadable("002_second.bin: layer conv2: differs from 002_second.npy")
    npy.mkdir()
    with pytest.raises(EquintError, match=r"002_second.npy: layer conv2"):
        compare_board(program, feeds, dump, trace=literal)


@pytest.mark.slow
@given(programs(), st.integers(0, 2**16), st.data())
@settings(max_examples=40)
def test_random_boards(
    tmp_path_factory: pytest.TempPathFactory, program: Program, seed: int, data: st.DataObject
) -> None:
    feeds = feeds_for(program, 1, seed)
    at = data.draw(st.integers(0, len(program.steps) - 1))
    how = data.draw(st.sampled_from(["half_up", "half_even", "truncate"]))
    wanted, values = literal(program, feeds), board(program, feeds, {at: rounding(how)})
    found = compare_board(program, feeds, dumped(program, values, tmp_path_factory.mktemp("dump")), trace=literal)
    if all(np.array_equal(wanted[o], values[o]) for o in program.steps[at].outputs):
        assert found.first is None
        return
    verdict = first(found)
    assert verdict.number == at + 1
    assert any(how.replace("truncate", "truncates") in c.text for c in verdict.causes)
    assert all(v.status in ("agrees", "inherits") for v in found.steps[len(program.inputs) + at + 1 :])


ATTENTION = """
    a = Conv (x, w) n = InstanceNormalization (a, gain, shift)
    t = Transpose <perm = [0, 1, 3, 2]> (n) m = MatMul (n, t) p = Add (m, places) s = Softmax (p) y = MatMul (s, n)
"""


@pytest.mark.parametrize(
    ("op", "mistake", "cause"),
    [
        ("Normalize", arrays(bias=np.zeros(4, np.int32)), "bias missing"),
        ("Softmax", rounding("truncate"), "truncates"),
        ("MatMul", requantized(zero_point=0), "zero point of the output not added"),
        ("Sum", rounding("truncate"), "truncates"),
    ],
)
def test_mistakes_in_attention_are_named(op: str, mistake: Mistake, cause: str, tmp_path: Path) -> None:
    """A constant that differs by position is read by steps, and lies in no dump."""
    consts = {"w": normal(4, 3, 1, 1, scale=1.0), "gain": normal(4, scale=1.0), "shift": normal(4, scale=1.0, seed=2)}
    consts |= {"places": normal(4, 6, 6, scale=1.0)}
    body = network(ATTENTION, inputs="float[N,3,6,5] x", output="float[N,4,6,5] y", **consts)  # type: ignore[arg-type]
    samples = normal(8, 3, 6, 5, scale=1.0)
    program = equint.program(body, "lwq", data=samples, effort="fast")
    feeds = {"x": program.quantized("x", samples[:2])}
    k = next(k for k, step in enumerate(program.steps) if step.op == op)
    values = board(program, feeds, {k: mistake})
    found = compare_board(program, feeds, dumped(program, values, tmp_path / "dump"))
    assert first(found).layer == program.steps[k].label
    assert cause in texts(first(found))
