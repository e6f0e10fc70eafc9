"""Arrays in files are read batch by batch, and what their headers say is not believed."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from equint.errors import UnusableData
from equint.samples.stored import Stored, stored


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_come_as_they_were_stored(tmp_path: Path, save: object, order: str) -> None:
    x = np.asarray(np.random.default_rng(0).normal(size=(7, 3, 2)), order=order)  # type: ignore[call-overload]
    save(tmp_path / "a.npz", x=x)  # type: ignore[operator]
    held = stored(tmp_path / "a.npz")["x"]
    assert held.shape == x.shape
    np.testing.assert_array_equal(np.concatenate(list(held.batches(3))), x)
    np.testing.assert_array_equal(np.concatenate(list(held.batches(3, limit=4))), x[:4])
    np.testing.assert_array_equal(held.whole(), x)


@pytest.mark.parametrize("array", [np.array(3.5), np.zeros((0, 4)), np.arange(5)])
def test_npy_files_and_empty_ones_and_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    found = stored(tmp_path / "a.npy")[""].whole()
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape


def test_what_is_larger_than_the_bound_is_not_read_as_a_whole(tmp_path: Path) -> None:
    held = Stored(tmp_path / "a.npz", "x.npy", (1 << 20, 1 << 10), np.dtype("f4"))
    with pytest.raises(UnusableData, match="x takes 4 GiB unpacked, of 1 at most"):
        held.whole()


def test_a_header_that_says_more_than_there_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4))
    content = (tmp_path / "a.npy").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content.replace(b"(4,), } ", b"(99,), }"))
    with pytest.raises(UnusableData, match="its header says"):
        stored(tmp_path / "a.npz")


def test_objects_of_python_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UnusableData, match="Python's objects"):
        stored(tmp_path / "a.npy")
