"""Cards and data sets: what is read, and what is refused with the file and key named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from equint.errors import EquintError
from equint.samples.card import Card, Decode, laid_out, read_card
from equint.samples.data import batches, count, feeds, images

RGB = Card("rgb", (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), (6, 8))
Pixels = NDArray[np.uint8]


def pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def refused(call: object, *parts: str) -> None:
    with pytest.raises(EquintError) as error:
        call()  # type: ignore[operator]
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


# Cards


def card(folder: Path, text: str) -> Path:
    path = folder / "net.toml"
    path.write_text(text)
    return path


def test_card(tmp_path: Path) -> None:
    text = """
        task = "detection"
        [input]
        kind = "rgb"
        mean = [127.5, 127.5, 127.5]
        std = [1, 2, 3]
        size = [224, 192]
        range = [-1, 1]
        [data]
        eval = "images/eval"
        calibration = "calib.npz"
        boxes = "boxes.json"
        classes = 21
        labels = ["left", "alone"]
        [decode]
        score = 0
        most = 30
        variances = [0.1, 0.3]
        probabilities = true
    """
    found = read_card(card(tmp_path, text))
    assert (found.kind, found.mean, found.std) == ("rgb", (127.5,) * 3, (1.0, 2.0, 3.0))
    assert (found.size, found.range, found.task) == ((224, 192), (-1.0, 1.0), "detection")
    assert found.data["eval"] == tmp_path / "images" / "eval"
    assert found.data["calibration"] == tmp_path / "calib.npz"
    assert found.data["boxes"] == tmp_path / "boxes.json"
    assert found.data["classes"] == 21
    assert found.decode == Decode(0.0, 0.45, 30, (0.1, 0.3), True)


def test_defaults(tmp_path: Path) -> None:
    found = read_card(str(card(tmp_path, "")))
    assert (found.kind, found.mean, found.std, found.size) == ("rgb", (0.0,) * 3, (1.0,) * 3, None)
    assert read_card(card(tmp_path, '[input]\nkind = "gray"')).std == (1.0,)
    assert read_card(card(tmp_path, '[input]\nkind = "features"')).mean == ()
    assert read_card(card(tmp_path, "[input]\nmean = 3\nstd = 2")).mean == (3.0,)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("not toml", "TOML"),
        ("input = 3", "[input]"),
        ("[input]\nkin = 3", "kin"),
        ('[input]\nkind = "rbg"', "rbg"),
        ("[input]\nkind = 3", "kind"),
        ("[input]\nmean = [1, 2]", "mean"),
        ('[input]\nmean = ["a"]', "mean"),
        ('[input]\nmean = "a"', "mean"),
        ("[input]\nmean = [nan, 1, 1]", "mean"),
        ("[input]\nstd = [0, 1, 1]", "std"),
        ("[input]\nstd = [-1, 1, 1]", "std"),
        ("[input]\nsize = [3]", "size"),
        ("[input]\nsize = [3, 0]", "size"),
        ("[input]\nrange = [1, 1]", "range"),
        ("[input]\nrange = [2, 1]", "range"),
        ("[input]\nrange = [1]", "range"),
        ('task = "detecton"', "detection"),
        ("task = 3", "task"),
        ("data = 3", "[data]"),
        ("[data]\nmasks = 3", "masks"),
        ("[data]\nignore = 2.5", "ignore"),
        ("[data]\nclasses = 0", "classes"),
        ("[data]\nscale = true", "scale"),
        ("[data]\nborder = -1", "border"),
        ("[decode]\nscor = 1", "scor"),
        ("[decode]\nscore = 2", "score"),
        ('[decode]\niou = "a"', "iou"),
        ("[decode]\nmost = 0", "most"),
        ("[decode]\nmost = true", "most"),
        ("[decode]\nvariances = [1]", "variances"),
        ("[decode]\nprobabilities = 1", "probabilities"),
        ("[decode]\nboxes = 1", "boxes"),
        ("labels = 3", "labels"),
        ("labels = [3]", "labels"),
        ('labels = "absent.txt"', "absent.txt"),
    ],
)
def test_bad_card(tmp_path: Path, text: str, part: str) -> None:
    path = card(tmp_path, text)
    refused(lambda: read_card(path), str(path), part)


def test_labels_listed_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog \n")
    assert read_card(card(tmp_path, 'labels = "names.txt"')).labels == ("cat", "dog")
    assert read_card(card(tmp_path, 'labels = ["cat", "dog"]')).labels == ("cat", "dog")


def test_no_card(tmp_path: Path) -> None:
    refused(lambda: read_card(tmp_path / "absent.toml"), "absent.toml")
    refused(lambda: read_card(tmp_path), str(tmp_path))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    refused(lambda: read_card(tmp_path / "bytes.toml"), "bytes.toml")


# Arrays


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=pixels(7, 6, 8, 3), y=np.arange(7))
    return path


def test_pixels_are_normalised_and_channels_first(npz: Path) -> None:
    (x, y), *rest = batches(npz, RGB)
    assert not rest
    wanted = (pixels(7, 6, 8, 3) - np.asarray([10.0, 20, 30])) / [2, 4, 5]
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, wanted.transpose(0, 3, 1, 2), rtol=1e-6)
    assert y is not None
    assert y.tolist() == list(range(7))


@pytest.mark.parametrize(
    ("size", "limit", "sizes"), [(3, None, [3, 3, 1]), (3, 5, [3, 2]), (3, 100, [3, 3, 1]), (7, 7, [7])]
)
def test_batches(npz: Path, size: int, limit: int | None, sizes: list[int]) -> None:
    parts = list(batches(npz, RGB, size, limit))
    assert [len(x) for x, _ in parts] == sizes
    labels = [y.tolist() for _, y in parts if y is not None]
    assert [label for part in labels for label in part] == list(range(sum(sizes)))
    assert count(npz, limit) == sum(sizes)


def test_arrays_of_another_size_are_resized(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=pixels(2, 12, 10, 3))
    ((x, y),) = batches(tmp_path / "data.npz", RGB)
    assert y is None
    first = Image.fromarray(pixels(2, 12, 10, 3)[0]).resize((8, 6), Image.Resampling.BILINEAR)
    wanted = (np.asarray(first, np.float64) - [10, 20, 30]) / [2, 4, 5]
    np.testing.assert_allclose(x[0], wanted.transpose(2, 0, 1), rtol=1e-6)


def test_gray_arrays_with_and_without_channel_axis(tmp_path: Path) -> None:
    gray = Card("gray", (0.0,), (255.0,), (4, 4))
    for shape in ((3, 4, 4), (3, 4, 4, 1), (3, 8, 8)):
        np.save(tmp_path / "x.npy", pixels(*shape))
        ((x, _),) = batches(tmp_path / "x.npy", gray)
        assert x.shape == (3, 1, 4, 4)
        assert x.max() <= 1


def test_features_are_left_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 5))
    np.save(tmp_path / "x.npy", values)
    ((x, _),) = batches(tmp_path / "x.npy", Card(mean=(1.0,), std=(2.0,)))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, values.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"images": pixels(2, 6, 8, 3)}, "images"),
        ({"x": pixels(0, 6, 8, 3)}, "empty"),
        ({"x": pixels(2, 6, 8, 3), "y": np.arange(3)}, "(3,)"),
        ({"x": pixels(5)}, "(5,)"),
        ({"x": pixels(2, 6, 8, 4)}, "(6, 8, 4)"),
        ({"x": pixels(2, 3, 6, 8)}, "(3, 6, 8)"),
        ({"x": np.asarray([{"a": 1}], dtype=object)}, "data.npz"),
        ({}, "holds no arrays; store inputs as x"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, NDArray[np.generic]], part: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    refused(lambda: list(batches(path, RGB)), str(path), part)


def test_bad_files(tmp_path: Path) -> None:
    refused(lambda: list(batches(tmp_path / "absent.npz", RGB)), "absent.npz", "no such file")
    refused(lambda: list(batches(tmp_path / "absent", RGB)), "absent", "no such file")
    refused(lambda: count(tmp_path / "absent.npz"), "absent.npz")
    for name in ("text.npz", "text.npy", "text.csv"):
        (tmp_path / name).write_text("text")
        refused(lambda name=name: list(batches(tmp_path / name, RGB)), name)


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, suffix in enumerate([".png", ".bmp", ".PNG"]):
        Image.fromarray(pixels(6 + k, 8, 3, seed=k)).save(tmp_path / f"{k}{suffix}")
    (tmp_path / "readme.txt").write_text("not a picture")
    return tmp_path


def test_folder_of_pictures(folder: Path) -> None:
    ((x, y),) = batches(folder, RGB)
    assert y is None
    assert x.shape == (3, 3, 6, 8)
    wanted = (pixels(6, 8, 3) - np.asarray([10.0, 20, 30])) / [2, 4, 5]
    np.testing.assert_allclose(x[0], wanted.transpose(2, 0, 1), rtol=1e-6)
    assert count(folder) == 3
    assert count(folder, 2) == 2
    assert sum(len(x) for x, _ in batches(folder, RGB, limit=2)) == 2


def test_pictures_of_their_own_size_come_one_by_one(folder: Path) -> None:
    found = list(batches(folder, Card("gray", (0.0,), (255.0,))))
    assert [x.shape for x, _ in found] == [(1, 1, 6, 8), (1, 1, 7, 8), (1, 1, 8, 8)]
    wanted = np.asarray(Image.fromarray(pixels(6, 8, 3)).convert("L"), np.float32) / 255
    np.testing.assert_allclose(found[0][0][0, 0], wanted, rtol=1e-6)


def test_gray_and_transparent_pictures_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(pixels(6, 8)).save(tmp_path / "gray.png")
    Image.fromarray(pixels(6, 8, 4)).save(tmp_path / "rgba.png")
    ((x, _),) = batches(tmp_path, RGB)
    assert x.shape == (2, 3, 6, 8)


def test_class_folders(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for k in range(2):
            Image.fromarray(pixels(6, 8, 3, seed=k)).save(tmp_path / label / f"{k}.png")
    ((x, y),) = batches(tmp_path, RGB)
    assert x.shape == (4, 3, 6, 8)
    assert y is not None
    assert y.tolist() == [0, 1, 0, 1]  # the first few are of all classes


def test_labels_table(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label,name\n2.PNG,7,cat\n0.png,3,dog\n")
    ((x, y),) = batches(folder, RGB)
    assert y is not None
    assert y.tolist() == [7, 3]
    wanted = (pixels(6, 8, 3) - np.asarray([10.0, 20, 30])) / [2, 4, 5]
    np.testing.assert_allclose(x[1], wanted.transpose(2, 0, 1), rtol=1e-6)
    assert count(folder) == 2


def test_class_names_of_the_card(folder: Path) -> None:
    named = replace(RGB, labels=("dog", "cow", "cat"))
    (folder / "labels.csv").write_text("file,label\n2.PNG,cat\n0.png,1\n")
    ((_, y),) = batches(folder, named)
    assert y is not None
    assert y.tolist() == [2, 1]
    assert count(folder) == 2
    (folder / "labels.csv").unlink()
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        Image.fromarray(pixels(6, 8, 3)).save(folder / label / "0.png")
    ((_, y),) = batches(folder, named)
    assert y is not None
    assert y.tolist() == [2, 0]
    refused(lambda: list(batches(folder, replace(RGB, labels=("dog",)))), "cat", "labels")


@pytest.mark.parametrize(
    "table",
    ["", "file,class\n0.png,3\n", "file,label\n", "file,label\n0.png,cat\n", "file,label\n0.png\n", "file,label\n,3\n"],
)
def test_bad_labels_table(folder: Path, table: str) -> None:
    (folder / "labels.csv").write_text(table)
    refused(lambda: list(batches(folder, RGB)), "labels.csv")


@pytest.mark.parametrize("label", ["1_0", "-1", "1000000000", "9" * 5000, "٣", "1.0", "+1"])
def test_a_label_that_is_no_class_among_numbers(folder: Path, label: str) -> None:
    (folder / "labels.csv").write_text(f"file,label\n0.png, 003\n\n2.PNG,{label}\n", "utf-8")
    for card in (RGB, replace(RGB, labels=("dog",))):
        refused(lambda card=card: list(batches(folder, card)), "labels.csv: row 4", repr(label[:80]), "correct it")
    ((_, y),) = batches(folder, replace(RGB, labels=("dog", label)))  # unless it is a name
    assert y is not None
    assert y.tolist() == [3, 1]


def test_a_picture_listed_twice(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n0.png,3\n2.PNG,3\n./0.png,4\n")
    refused(lambda: count(folder), "labels.csv: row 4: 0.png is listed in row 2 already")


def test_labels_table_names_an_absent_picture(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\nabsent.png,3\n")
    refused(lambda: list(batches(folder, RGB)), "absent.png")


def test_bad_folders(tmp_path: Path) -> None:
    refused(lambda: list(batches(tmp_path, RGB)), str(tmp_path), "no pictures")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    refused(lambda: list(batches(tmp_path, RGB)), "broken.jpg")
    refused(lambda: list(batches(tmp_path, Card())), "features")


# Streams


def test_images_are_the_inputs_again_and_again(npz: Path, folder: Path) -> None:
    for source, card_ in ((npz, RGB), (folder, RGB), (folder, Card("gray", (0.0,), (255.0,)))):
        wanted = [x for x, _ in batches(source, card_, 2)]
        stream = images(source, card_, size=2)
        for _ in range(2):
            found = list(stream)
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(np.asarray(a), b)
    assert stream.label == str(folder)


def test_images_are_limited(npz: Path) -> None:
    assert [len(x) for x in images(npz, RGB, limit=5, size=3)] == [3, 2]
    assert [len(x) for x in images(npz, RGB, limit=5)] == [5]
    assert [len(x) for x in images(npz, RGB, size=4).first(5)] == [4, 1]


def test_images_are_checked_when_they_are_named_and_when_they_are_read(tmp_path: Path) -> None:
    for source in (tmp_path / "absent.npz", tmp_path / "absent", tmp_path):
        refused(lambda source=source: images(source, RGB), str(source))
    np.savez(tmp_path / "data.npz", x=pixels(2, 6, 8, 4))
    stream = images(tmp_path / "data.npz", RGB)
    refused(lambda: list(stream), "data.npz", "(6, 8, 4)")
    values = np.ones((3, 2, 5), np.float32)
    values[2, 1, 4] = np.nan
    np.save(tmp_path / "nan.npy", values)
    refused(lambda: list(images(tmp_path / "nan.npy", Card())), "nan.npy", "not finite")


# Layouts and names


def test_pixels_lie_where_the_card_says(tmp_path: Path) -> None:
    taken = pixels(5, 6, 8, 3)
    np.savez(tmp_path / "x.npz", x=taken)
    first, last = (next(iter(images(tmp_path / "x.npz", replace(RGB, layout=k)))) for k in ("nchw", "nhwc"))
    assert isinstance(last, np.ndarray)
    np.testing.assert_allclose(last, (taken - np.array([10.0, 20.0, 30.0])) / [2, 4, 5], rtol=1e-6)
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))


def test_layouts_are_those_of_the_input(tmp_path: Path) -> None:
    assert laid_out(RGB, [("N", 6, 8, 3)]).layout == "nhwc"
    assert laid_out(RGB, [("N", 3, 6, 8)]).layout == "nchw"
    assert laid_out(RGB, [("N", 3, 6, 8), ("N", 3)]).layout is None
    refused(lambda: laid_out(RGB, [("N", 3, 6, 9)]), "size = [6, 8]", "(N, 3, 6, 9)", "correct size")
    assert read_card(card(tmp_path, '[input]\nlayout = "nhwc"')).layout == "nhwc"
    refused(
        lambda: laid_out(replace(RGB, layout="nhwc"), [("N", 3, None, 224)]), "layout nhwc", "(N, 3, ?, 224)", "224"
    )
    refused(lambda: read_card(card(tmp_path, '[input]\nlayout = "nwhc"')), "layout = 'nwhc'", "nchw, nhwc")


def test_what_describes_the_input_belongs_under_its_heading(tmp_path: Path) -> None:
    refused(lambda: read_card(card(tmp_path, 'kind = "gray"')), "kind stands outside [input]")


def test_a_misspelt_table_of_a_card_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_card(card(tmp_path, "[inputs]\nsize = [8, 8]")), "unknown table or key inputs", "mean input?")
    assert read_card(card(tmp_path, 'date = "2026"\n[training]\nepochs = 3')).size is None


def test_an_npz_by_the_names_of_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "feeds.npz"
    np.savez(path, image=np.ones((4, 3)), id=np.arange(4))
    (found,) = images(path, Card(), inputs=("image", "id"))
    assert isinstance(found, dict)
    assert found["id"].tolist() == [0, 1, 2, 3]
    assert [len(x) for x in images(path, Card(), inputs=("image",))] == [4]
    refused(lambda: images(path, Card(), inputs=("image", "mask")), "feeds.npz", "holds id, image but no mask")
    refused(lambda: count(path, inputs={"photo": ("N", 3)}), "holds image, id but no x or photo; store inputs as x or")
    shapes = {"image": ("N", 3), "id": ("N",)}
    assert [feed["id"].tolist() for feed, _ in feeds(path, Card(), shapes, size=3)] == [[0, 1, 2], [3]]
    assert [count(path, limit, shapes) for limit in (None, 3)] == [4, 3]
    assert count(path, inputs={"image": ("N", 3)}) == 4
    np.savez(path, x=np.ones((3, 9)), state=np.ones((6, 1, 4)), rate=np.array(16000))
    assert count(path, inputs={"x": ("N", 9), "state": (2, "N", 4), "rate": ()}) == 3
    refused(lambda: count(path, inputs={"x": ("N", 9), "mask": ("N",)}), "holds rate, state, x but no mask")
