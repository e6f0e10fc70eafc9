"""Golden folders: whole or not there, safe names, and what is refused."""

import json
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from boards import SAMPLE, sample
from equint.errors import EquintError
from equint.integers.program import Program, Step
from equint.ir.model import QParams
from equint.maths.affine import quantize, storage
from equint.npu.golden import fingerprint, read_golden, tensor_files, write_golden
from programs import feeds_for, literal, programs


def refused(says: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(EquintError, match=says) as error:
        write_golden(*args, trace=literal, **kwargs)
    assert "\n" not in str(error.value)


def named(*names: str) -> Program:
    """One input that is split into tensors of these names."""
    grid = QParams(np.array(1, np.float32), np.array(0, np.int32))
    step = Step("Split", "split", ("x",), names, {"axis": 1})
    return Program((step,), ("x",), names, dict.fromkeys(("x", *names), grid), {"x": (1, len(names), 1)})


def test_files_hold_what_the_program_computes(tmp_path: Path) -> None:
    program, feeds = sample()
    steps = write_golden(program, feeds, tmp_path / "golden", raw=True, trace=literal)
    told = json.loads((tmp_path / "golden" / "golden.json").read_text("utf-8"))
    wanted = literal(program, feeds)
    assert set(told["tensors"]) == set(wanted)
    for name, tensor in told["tensors"].items():
        found = np.load(tmp_path / "golden" / tensor["file"])
        raw = (tmp_path / "golden" / tensor["raw"]).read_bytes()
        np.testing.assert_array_equal(found, wanted[name])
        assert (str(found.dtype), list(found.shape)) == (tensor["dtype"], tensor["shape"])
        assert raw == wanted[name].astype(found.dtype.newbyteorder("<")).tobytes()
        assert sha256(raw).hexdigest() == tensor["sha256"]
        assert tensor["zero_point"] == int(program.grids[name].zero_point)
        assert tensor["scale"] == float(program.grids[name].scale)
    assert told["steps"] == steps
    assert [(s["number"], s["op"], s["layer"]) for s in steps] == [
        (n, s.op, s.name) for n, s in enumerate(program.steps, 1)
    ]
    assert steps[0]["input_files"] == ["000_image.npy"]
    assert steps[0]["output_files"] == ["001_first.npy"]
    written = {t[k] for t in told["tensors"].values() for k in ("file", "raw")} | {"golden.json"}
    assert set(os.listdir(tmp_path / "golden")) == written
    assert os.listdir(tmp_path) == ["golden"]


def test_floats_are_quantized_as_at_the_border(tmp_path: Path) -> None:
    program, _ = sample()
    image = np.random.default_rng(0).normal(0, 2, SAMPLE).astype(np.float32)
    write_golden(program, {"image": image}, tmp_path / "golden", trace=literal)
    found = np.load(tmp_path / "golden" / "000_image.npy")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, quantize(image, program.grids["image"]))


@given(programs(), st.integers(0, 2**16))
@settings(max_examples=15)
def test_every_program_comes_back(tmp_path_factory: pytest.TempPathFactory, program: Program, seed: int) -> None:
    feeds, folder = feeds_for(program, 1, seed), tmp_path_factory.mktemp("golden")
    write_golden(program, feeds, folder, trace=literal)
    found, wanted = read_golden(program, folder), literal(program, feeds)
    assert set(found) == set(program.grids) & set(wanted)
    for name, values in found.items():
        assert values.dtype == storage(program.grids[name])
        np.testing.assert_array_equal(values, wanted[name])


def test_names_that_no_file_may_have() -> None:
    names = ("a/b:0", "a/B:0", "../../etc", "Größe", "größe", "", "." * 3, "x" * 5000, "x" * 5000 + "y", "CON", "nul.")
    files = tensor_files(named(*names))
    stems = list(files.values())
    assert list(files) == ["x", *names]
    assert len({s.casefold() for s in stems}) == len(names) + 1
    assert all(s.isascii() and len(s) < 100 and not set(s) & set('/\\:*?"<>| ') and s[0] == "0" for s in stems)
    assert (files["..."], files[""]) == ("001_tensor~2", "001_tensor")
    assert files["a/b:0"] == "001_a_b_0"
    assert files["a/B:0"] == "001_a_B_0~2"


def test_awkward_names_come_back(tmp_path: Path) -> None:
    names = ("t/1", "T/1", "ü", "t" * 300)
    program, x = named(*names), np.array([[[1], [2], [3], [4]]], np.int8)

    def split(program: Program, feeds: Any) -> dict[str, Any]:
        return {name: feeds["x"][:, k : k + 1] for k, name in enumerate(names)}

    write_golden(program, {"x": x}, tmp_path / "g", trace=split)
    assert [int(v.ravel()[0]) for v in read_golden(program, tmp_path / "g").values()] == [1, 1, 2, 3, 4]


def test_step_numbers_sort_in_long_programs() -> None:
    grid = QParams(np.array(1, np.float32), np.array(0, np.int32))
    steps = tuple(Step("Identity", f"s{k}", (f"t{k}",), (f"t{k + 1}",)) for k in range(1200))
    program = Program(steps, ("t0",), ("t1200",), {f"t{k}": grid for k in range(1201)})
    stems = list(tensor_files(program).values())
    assert stems == sorted(stems)
    assert stems[7] == "0007_t7"


def test_a_golden_folder_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    program, feeds = sample()
    folder = tmp_path / "golden"
    folder.mkdir()
    write_golden(program, feeds, folder, raw=True, trace=literal)
    other = {"image": np.zeros_like(feeds["image"])}
    write_golden(program, other, folder, trace=literal)
    assert not list(folder.glob("*.bin"))
    assert not np.load(folder / "000_image.npy").any()
    (folder / "notes.txt").write_text("mine")
    refused(r"golden: holds notes.txt, which equint did not write; choose", program, feeds, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("")
    refused(r"mine: is no golden folder \(it has no golden.json\); choose", program, feeds, mine)
    refused("thesis.txt: is a file; choose", program, feeds, mine / "thesis.txt")
    refused(r"cannot write \(no such folder\); make it", program, feeds, tmp_path / "none" / "golden")
    (mine / "golden.json").write_text("[]")
    refused("golden.json: does not describe golden vectors", program, feeds, mine)


def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, feeds = sample()
    write_golden(program, feeds, tmp_path / "old", trace=literal)
    before = (tmp_path / "old" / "001_first.npy").read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    for folder in ("new", "old"):
        refused(r"cannot write \(No space left on device\)", program, {"image": feeds["image"] // 2}, tmp_path / folder)
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old" / "001_first.npy").read_bytes() == before


def test_the_old_folder_stays_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, feeds = sample()
    write_golden(program, feeds, tmp_path / "golden", trace=literal)
    rename = os.rename

    def refusing(source: Path, target: Path) -> None:
        if Path(source).parent.name == "new":
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refusing)
    refused(r"cannot write \(Permission denied\)", program, {"image": feeds["image"] // 2}, tmp_path / "golden")
    assert os.listdir(tmp_path) == ["golden"]
    np.testing.assert_array_equal(np.load(tmp_path / "golden" / "000_image.npy"), feeds["image"])


def test_feeds_that_do_not_fit(tmp_path: Path) -> None:
    program, feeds = sample()
    image, folder = feeds["image"], tmp_path / "golden"
    refused("input image: nothing was given", program, {}, folder)
    refused("input picture: the program has none of this name; choose image", program, {"picture": image}, folder)
    refused(
        "input image: is int8; give floats, or integers of type uint8", program, {"image": image.view("i1")}, folder
    )
    refused(r"input image: shape \[1, 3, 6, 5\] is not", program, {"image": image.swapaxes(2, 3)}, folder)
    refused("input image: shape", program, {"image": image[0]}, folder)
    refused("input image: holds no image", program, {"image": image[:0]}, folder)
    refused("not finite", program, {"image": np.full(SAMPLE, np.nan)}, folder)
    narrow = replace(program, grids={**program.grids, "image": replace(program.grids["image"], bits=4)})
    refused("outside its grid, 0 to 15", narrow, {"image": np.full(SAMPLE, 16, np.uint8)}, folder)
    assert not folder.exists()


def test_golden_folders_that_cannot_be_used(tmp_path: Path) -> None:
    program, feeds = sample()
    folder = tmp_path / "golden"

    def unreadable(says: str) -> None:
        with pytest.raises(EquintError, match=says):
            read_golden(program, folder)
        shutil.rmtree(folder, ignore_errors=True)
        write_golden(program, feeds, folder, trace=literal)

    unreadable("golden: no such folder; write")
    other = replace(program, rounding="half_even")
    assert fingerprint(other) != fingerprint(program)
    write_golden(other, feeds, folder, trace=literal)
    unreadable("golden vectors of another program")
    (folder / "002_second.npy").unlink()
    unreadable("002_second.npy: layer conv2: no such file")
    np.save(folder / "002_second.npy", np.load(folder / "002_second.npy") ^ 1)
    unreadable("002_second.npy: layer conv2: was changed since")
    told = json.loads((folder / "golden.json").read_text("utf-8"))
    (folder / "golden.json").write_text(json.dumps({**told, "version": 9}), "utf-8")
    unreadable("version 9, known is 1")
    (folder / "golden.json").write_text(json.dumps({**told, "tensors": {}}), "utf-8")
    unreadable("golden.json lacks tensor image; write")
    (folder / "golden.json").write_text(json.dumps({**told, "tensors": {"image": {}}}), "utf-8")
    unreadable("golden.json: does not describe golden vectors")
    (folder / "golden.json").write_text('{"format": ')
    unreadable("golden.json: cannot be read")
