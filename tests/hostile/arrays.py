"""Samples and statistics that cannot be: arrays of wrong shapes and types, bombs, pictures, headers that lie."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, Fault, Make, Reader, both, crossed, removed, written
from .networks import RANGED
from .shards import packed
from .structures import spoilt, whole_files


def stored(file: str, **arrays: Any) -> Make:
    """Puts an .npz of these arrays."""
    return lambda folder: np.savez(folder / file, **arrays)


def bomb(file: str, shape: tuple[int, ...], name: str = "x", dtype: str = "<f4") -> Make:
    """Puts an .npz of zeros that is small and unpacks to much."""

    def make(folder: Path) -> None:
        header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
        header += b" " * (118 - len(header)) + b"\n"
        left = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        archive = zipfile.ZipFile(folder / file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            entry.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
            block = bytes(1 << 24)
            while left > 0:
                entry.write(block[: min(left, len(block))])
                left -= len(block)

    return make


def lying(file: str, shape: str, dtype: str = "'<f4'", content: bytes = b"1234") -> Make:
    """Puts an .npz whose header says what is not there."""

    def make(folder: Path) -> None:
        header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        with zipfile.ZipFile(folder / file, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)

    return make


def _samples() -> list[Fault]:
    rng, good = np.random.default_rng(3), np.zeros((8, 3, 8, 8), np.float32)
    spots = good.copy()
    spots[3, 0, 0, 0] = np.nan
    wide = good.astype(np.float64)
    wide[0, 0, 0, 0] = 1e300
    arrays: dict[str, dict[str, Any]] = {
        "nothing": {},
        "no x": {"images": good},
        "no samples": {"x": good[:0]},
        "a number": {"x": np.float32(1)},
        "a vector": {"x": np.zeros(8, np.float32)},
        "rank 3": {"x": good[:, 0]},
        "rank 5": {"x": good[..., None]},
        "other channels": {"x": good[:, :2]},
        "other size": {"x": np.zeros((8, 3, 9, 9), np.float32)},
        "channels last": {"x": np.zeros((8, 8, 8, 3), np.float32)},
        "NaN": {"x": spots},
        "infinite": {"x": good + np.inf},
        "beyond float32": {"x": wide},
        "complex": {"x": good.astype(np.complex64)},
        "texts": {"x": np.full((8, 3, 8, 8), "a")},
        "dates": {"x": np.zeros((8, 3, 8, 8), "M8[s]")},
        "records": {"x": np.zeros((8, 3, 8, 8), [("a", "f4")])},
        "void": {"x": np.zeros((8, 3, 8, 8), "V3")},
        "size 0": {"x": np.zeros((8, 3, 0, 8), np.float32)},
    }
    found = [Fault(f"samples: {what}", stored("arrays.npz", **each)) for what, each in arrays.items()]
    objects = np.empty(2, object)
    objects[:] = [rng, {"a": 1}]
    pickled = lambda folder: np.savez(folder / "arrays.npz", x=objects)
    found.append(Fault("samples: pickled", pickled, ("Python's objects",)))
    lies: dict[str, Make] = {
        "3 GB of zeros": bomb("arrays.npz", (1_000_000, 3, 16, 16)),
        "3 GB of zeros, of its size": bomb("arrays.npz", (4_000_000, 3, 8, 8)),
        "more than there is": lying("arrays.npz", "(1000000000, 3, 8, 8)"),
        "overflowing": lying("arrays.npz", "(4611686018427387904, 8)"),
        "negative": lying("arrays.npz", "(-8, 3, 8, 8)"),
        "no tuple": lying("arrays.npz", "8"),
        "code": lying("arrays.npz", "__import__('os').getpid()"),
        "deep": lying("arrays.npz", "(" * 3000 + "8" + ",)" * 3000),
        "odd type": lying("arrays.npz", "(1,)", "'O'"),
        "no type": lying("arrays.npz", "(1,)", "'zz'"),
        "empty type": lying("arrays.npz", "(10,)", "[]"),
    }
    may = {"3 GB of zeros, of its size": "either"}
    found += [Fault(f"samples: {w}", make, (), may.get(w, "refused")) for w, make in lies.items()]  # type: ignore[arg-type]
    return found


def _labels() -> list[Fault]:
    x = np.zeros((8, 8, 8, 3), np.uint8)
    wrong: dict[str, Any] = {
        "short": np.zeros(7, np.int64),
        "a number": np.int64(1),
        "negative": np.full(8, -1),
        "beyond the classes": np.full(8, 99),
        "fractions": np.full(8, 0.5),
        "NaN": np.full(8, np.nan),
        "texts": np.full(8, "cat"),
        "rank 2": np.zeros((8, 2), np.int64),
    }
    found = [Fault(f"labels: {what}", stored("data.npz", x=x, y=y)) for what, y in wrong.items()]
    pixels = {"floats beyond": x.astype(np.float32) + np.inf, "four channels": np.zeros((8, 8, 8, 4), np.uint8)}
    pixels |= {"rank 2": np.zeros((8, 192), np.uint8), "no rows": np.zeros((8, 0, 8, 3), np.uint8)}
    return found + [Fault(f"pixels: {what}", stored("data.npz", x=v, y=np.zeros(8))) for what, v in pixels.items()]


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG of grey that says that it is so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _pictures() -> list[Fault]:
    first = "pictures/cat/a.png"
    loose = (f"{first} is gone", f"{first} is 3 GB of zeros")  # one picture fewer; what follows a PNG's end is nothing
    whole = [f for f in whole_files(first) if f.name not in loose]
    found = [Fault(f.name, f.make, ("a.png",)) for f in whole]
    found += [Fault(f.name, f.make, (), "either") for f in whole_files(first) if f.name in loose]
    sizes = {"12,000 squared": (12_000, 12_000), "60,000 squared": (60_000, 60_000), "a row": (2**31 - 1, 1)}
    for what, (width, height) in sizes.items():
        rows = bytes((width + 1) * height) if width * height < 2 * 10**8 else b""
        may: Any = "either" if rows else "refused"
        found.append(
            Fault(f"picture of {what}", written(first, png(width, height, rows)), ("a.png",) if not rows else (), may)
        )
    found += [
        Fault("no class folder", removed("pictures/cat"), (), "either"),
        Fault("no pictures", both(removed("pictures/cat"), removed("pictures/dog")), ("pictures",)),
        Fault("labels.csv without columns", written("pictures/labels.csv", "a,b\n1,2\n"), ("labels.csv",)),
        Fault(
            "labels.csv of a file that is gone",
            written("pictures/labels.csv", "file,label\ngone.png,0\n"),
            ("gone.png",),
        ),
        Fault(
            "labels.csv of a name",
            written("pictures/labels.csv", "file,label\ncat/a.png,wolf\n"),
            ("labels.csv", "wolf"),
        ),
        Fault("labels.csv empty", written("pictures/labels.csv", ""), ("labels.csv",)),
        Fault("labels.csv null", written("pictures/labels.csv", "file,label\na\x00b,0\n"), ("pictures",)),
        Fault("labels.csv latin-1", written("pictures/labels.csv", b"file,label\ncat/\xe9.png,0\n"), ("labels.csv",)),
        *(
            Fault(
                f"labels.csv of {what}",
                written("pictures/labels.csv", f"file,label\ncat/a.png,1\ncat/b.png,{label}\ndog/a.png,0\n"),
                ("labels.csv", "row 3", label),
            )
            for what, label in (("1_0", "1_0"), ("a billion", "1000000000"), ("-1", "-1"), ("digits of others", "٣"))
        ),
        Fault(
            "labels.csv of a picture twice",
            written("pictures/labels.csv", "file,label\ncat/a.png,1\ndog/a.png,0\ncat/../cat/a.png,0\n"),
            ("labels.csv", "row 4", "row 2"),
        ),
        Fault(
            "shards beside pictures",
            written("pictures/a.tar", packed([("0.png", png(8, 8, bytes(72)))])),
            ("pictures", "4 pictures"),
        ),
        Fault(
            "labels.csv a huge field",
            written("pictures/labels.csv", "file,label\n" + "a" * 200_000 + ",0\n"),
            ("labels.csv",),
        ),
    ]
    return found


def _lists(kept: Callable[[dict[str, Any]], Any]) -> Make:
    """Changes the header of statistics."""

    def make(folder: Path) -> None:
        with np.load(folder / "stats.npz") as held:
            arrays = {name: held[name] for name in held.files}
        header = json.loads(arrays["header"].tobytes())
        changed = kept(header)
        text = changed if isinstance(changed, str) else json.dumps(header)
        arrays["header"] = np.frombuffer(text.encode(), np.uint8)
        np.savez(folder / "stats.npz", **arrays)

    return make


def _column(name: str, value: Any) -> Make:
    def make(folder: Path) -> None:
        with np.load(folder / "stats.npz") as held:
            arrays = {n: held[n] for n in held.files}
        arrays[name] = value(arrays[name]) if callable(value) else value
        np.savez(folder / "stats.npz", **{n: a for n, a in arrays.items() if a is not None})

    return make


def _statistics() -> list[Fault]:
    def told(key: str, value: Any) -> Make:
        return _lists(lambda header: header.__setitem__(key, value))

    def row(at: int, value: Any) -> Make:
        return _lists(lambda header: header["tensors"][1].__setitem__(at, value))

    found: dict[str, Make] = {f"images {v!r}"[:40]: told("images", v) for v in (-5, 0, 1.5, "8", None, True, 10**30)}
    found |= {f"network {v!r}": told("network", v) for v in ("other", 5, None)}
    tables: list[Any] = [[], {}, None, 3, [[]], [["x"]], "x", [None]]
    found |= {f"tensors {v!r}"[:40]: told("tensors", v) for v in tables}
    found |= {
        f"shapes {v!r}": told("shapes", v) for v in (3, {"r1": 3}, {"r1": ["N", -6]}, {"r1": [1.5]}, {"r1": [10**30]})
    }
    found |= {f"axis {v!r}": row(1, v) for v in ("x", -1, 9, None, 1.5, True)}
    found |= {f"rank {v!r}": row(2, v) for v in (0, -1, 1, "4", 10**9)}
    found |= {f"images of a tensor {v!r}": row(3, v) for v in (-8, "8", None, 10**30)}
    found |= {f"count {v!r}": row(4, v) for v in (-512, 0, "a", None)}
    found |= {f"channels {v!r}": row(5, v) for v in (-6, 5, 10**9, "6", None)}
    found |= {f"histograms {v!r}": row(6, v) for v in (None, [], [[0, 0, 0]], [["a", 0, 1]] * 3, [[10**9, 0, 1]] * 3)}
    found |= {
        "header of 5,000 digits": _lists(lambda h: '{"images": ' + "9" * 5000 + "}"),
        "header deep": _lists(lambda h: "[" * 100_000),
        "header a list": _lists(lambda h: "[1, 2]"),
        "header not JSON": _lists(lambda h: "hello"),
        "header NaN": _lists(lambda h: json.dumps({**h, "images": float("nan")})),
        "tensor twice": _lists(lambda h: h["tensors"].append(h["tensors"][0])),
        "tensor called 3": row(0, 3),
    }
    for name in ("low", "high", "total", "square"):
        found |= {
            f"{name} NaN": _column(name, lambda a: np.full_like(a, np.nan)),
            f"{name} infinite": _column(name, lambda a: np.full_like(a, np.inf)),
            f"{name} short": _column(name, lambda a: a[:-1]),
            f"{name} texts": _column(name, lambda a: np.full(a.shape, "a")),
            f"{name} gone": _column(name, None),
            f"{name} of rank 2": _column(name, lambda a: a[:, None]),
        }
    found |= {
        "low above high": _column("low", lambda a: a + 1000),
        "square negative": _column("square", lambda a: -a - 1),
        "square below the mean's": _column("square", lambda a: a * 0),
        "counts negative": _column("values", lambda a: -a),
        "counts of floats": _column("values", lambda a: a * 0.5),
        "header gone": _column("header", None),
    }
    return [Fault(f"statistics: {what}", make) for what, make in found.items()]


def cases(seed: int) -> list[Case]:
    """All."""
    arrays = ("--data", "arrays.npz")
    sampled = (
        Reader(
            "quantize",
            ("quantize", "net.onnx", "-o", "out.onnx", "--recipe", "lwq", *arrays),
            ("out.onnx",),
            "arrays.npz",
        ),
        Reader("calibrate", ("calibrate", "net.onnx", "-o", "out.npz", *arrays), ("out.npz",), "arrays.npz"),
        Reader("compare", ("compare", "net.onnx", "int8.onnx", *arrays), (), "arrays.npz"),
        Reader("golden", ("golden", "bundle.json", "-o", "vectors", *arrays), ("vectors",), "arrays.npz"),
        Reader("sqnr", ("sqnr", "net.onnx", *arrays, "--images", "8"), (), "arrays.npz"),
        Reader(
            "evaluate", ("evaluate", "net.onnx", *arrays, "--against", "net.onnx", "--limit", "8"), (), "arrays.npz"
        ),
    )
    carded = (
        Reader("evaluate", ("evaluate", "net.onnx", "--card", "net.toml"), (), "data.npz"),
        Reader(
            "drop",
            ("quantize", "net.onnx", "-o", "o.onnx", "--card", "net.toml", "--data", "data.npz", "--max-drop", "1"),
        ),
    )
    scaled = ("--mean", "0,0,0", "--std", "255,255,255")
    shown = (
        Reader("evaluate", ("evaluate", "net.onnx", "--card", "net.toml", "--data", "pictures"), ()),
        Reader("card", ("card", "net.onnx", "--data", "pictures", "-o", "out.toml"), ("out.toml",)),
        Reader(
            "calibrate",
            ("calibrate", "net.onnx", "-o", "out.npz", "--card", "net.toml", "--data", "pictures"),
            ("out.npz",),
        ),
        Reader("quantize", ("quantize", "net.onnx", "-o", "out.onnx", "--data", "pictures", *scaled), ("out.onnx",)),
    )
    measured = (
        Reader("quantize", ("quantize", "net.onnx", "-o", "out.onnx", "--data", "stats.npz", *RANGED), (), "stats.npz"),
        Reader("merge", ("calibrate", "net.onnx", "-o", "out.npz", "--merge", "stats.npz"), (), "stats.npz"),
        Reader("explain", ("explain", "net.onnx", "--data", "stats.npz", *RANGED), (), "stats.npz"),
    )
    found = crossed("samples", _samples(), sampled, 3) + crossed("labels", _labels(), carded[:1])
    found += crossed("file", whole_files("arrays.npz"), sampled, 2) + crossed(
        "file", whole_files("data.npz"), carded, 1
    )
    found += crossed("pictures", _pictures(), shown, 2) + crossed("statistics", _statistics(), measured, 2)
    found += crossed("file", whole_files("stats.npz"), measured, 1)
    quantize = (Reader("quantize", sampled[0].command, ("out.onnx",), ""),)
    found += crossed("bytes", [Fault(f.name, f.make, (), f.may) for f in spoilt("arrays.npz", 15, seed)], quantize)
    merge = (Reader("merge", measured[1].command, ("out.npz",), ""),)
    return found + crossed("bytes", [Fault(f.name, f.make, (), f.may) for f in spoilt("stats.npz", 30, seed)], merge)
