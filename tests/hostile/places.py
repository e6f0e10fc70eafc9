"""Outputs that must not be written, options that cannot be, and terminals that cannot show what is told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .case import Case, Make, May, written
from .networks import FAST, RANGED
from .structures import linked

WRITERS: dict[str, tuple[str, ...]] = {
    "quantize": ("quantize", "net.onnx", *FAST, "-o"),
    "external": ("quantize", "ext.onnx", *FAST, "-o"),
    "carded": ("quantize", "net.onnx", "--card", "net.toml", "--data", "data.npz", "--effort", "fast", "-o"),
    "own": ("quantize", "net.onnx", "--recipe", "mine.toml", "--target", "target.toml", *RANGED, "-o"),
    "page": ("quantize", "net.onnx", "-o", "out.onnx", *FAST, "--report"),
    "calibrate": ("calibrate", "net.onnx", "--card", "net.toml", "-o"),
    "merge": ("calibrate", "net.onnx", "--merge", "stats.npz", "-o"),
    "export": ("export", "net.onnx", "--card", "net.toml", "--effort", "fast", "--format", "qdq", "-o"),
    "integer": ("export", "bundle.json", "--format", "integer", "-o"),
    "report": ("report", "net.onnx", "--card", "net.toml", "--recipe", "lwq", "-o"),
    "diagnose": ("diagnose", "net.onnx", "--recipe", "mine.toml", "--card", "net.toml", "-o"),
    "table": ("table", "net.toml", "--recipe", "mine.toml", "--cache", "kept", "-o"),
    "golden": ("golden", "bundle.json", "--data", "arrays.npz", "-o"),
    "sqnr": ("sqnr", "net.onnx", "--card", "net.toml", "--plot"),
    "auto": ("auto", "net.onnx", "--card", "net.toml", "--limit", "4", "-o"),
    "card": ("card", "net.onnx", "--data", "data.npz", "-o"),
}
READ: dict[str, tuple[str, ...]] = {
    "quantize": ("net.onnx",),
    "external": ("ext.onnx", "ext.bin"),
    "carded": ("net.onnx", "net.toml", "data.npz", "labels.txt"),
    "own": ("mine.toml", "target.toml"),
    "page": ("net.onnx", "out.onnx"),
    "calibrate": ("net.onnx", "net.toml", "data.npz"),
    "merge": ("stats.npz",),
    "export": ("net.onnx", "net.toml"),
    "integer": ("bundle.json", "bundle.safetensors"),
    "report": ("net.onnx", "net.toml", "data.npz", "labels.txt"),
    "diagnose": ("mine.toml", "net.toml"),
    "table": ("net.toml", "mine.toml", "net.onnx", "data.npz", "labels.txt"),
    "golden": ("bundle.json", "arrays.npz", "pictures", "."),
    "sqnr": ("net.onnx",),
    "auto": ("net.onnx", "net.toml", "data.npz", "labels.txt"),
    "card": ("net.onnx", "data.npz"),
}
ENDS = {"calibrate": ".npz", "merge": ".npz", "diagnose": ".toml", "card": ".toml"}
ENDS |= {"report": ".html", "page": ".html", "table": ".md", "sqnr": ".png"}


def _spared() -> list[Case]:
    """Each writer over each file that it reads: as it is called, by another path, by links."""
    found = []
    for name, command in WRITERS.items():
        for file in READ[name]:
            ways: dict[str, tuple[str, Make]] = {
                "itself": (file, lambda folder: None),
                "another path": (f"pictures/../{file}", lambda folder: None),
            }
            if file not in (".", "pictures"):
                end = ENDS.get(name, "") or os.path.splitext(file)[1]
                ways["a link"] = (f"link{end}", linked(file, f"link{end}"))
            for what, (path, make) in ways.items():
                if file == "out.onnx" and what == "a link":
                    continue
                names = () if name == "sqnr" else (os.path.basename(path),)  # matplotlib may not be there
                found.append(Case(f"spared/{file}, {what}/{name}", (*command, path), make, names))
    return found


def _of_another_kind() -> list[Case]:
    """Each writer where something else lies already."""
    contents = {
        "a picture": b"\x89PNG\r\n\x1a\n of mine",
        "notes": b"to do:\n- buy milk\n",
        "bytes": bytes(range(1, 99)),
    }
    found = []
    for name, command in WRITERS.items():
        path = f"mine{ENDS.get(name, '.onnx')}"
        for what, content in contents.items():
            if name == "golden" or (name, what) in (("table", "notes"), ("sqnr", "a picture")):
                continue  # it writes a folder; its own kind

            def make(folder: Path, path: str = path, content: bytes = content) -> None:
                (folder / path).write_bytes(content)

            found.append(Case(f"another kind/{what}/{name}", (*command, path), make, () if name == "sqnr" else (path,)))
    return found


def _unwritable() -> list[Case]:
    found = []
    for name, command in WRITERS.items():
        end = ENDS.get(name, ".onnx")
        places: dict[str, tuple[str, Make]] = {
            "no folder": (f"gone/out{end}", lambda folder: None),
            "a folder": (f"made{end}", lambda folder, end=end: (folder / f"made{end}").mkdir()),  # type: ignore[misc]
            "a pipe": (f"pipe{end}", lambda folder, end=end: os.mkfifo(folder / f"pipe{end}")),  # type: ignore[misc]
            "a device": (f"null{end}", linked("/dev/full", f"null{end}")),
            "a long name": ("n" * 300 + end, lambda folder: None),
            "null": (f"a\x00b{end}", lambda folder: None),
            "nothing": ("", lambda folder: None),
            "below a file": (f"labels.txt/out{end}", lambda folder: None),
            "a loop": (f"loop{end}", linked(f"loop{end}", f"loop{end}")),
            "in /proc": (f"/proc/out{end}", lambda folder: None),
            "in /sys": (f"/sys/out{end}", lambda folder: None),
        }
        for what, (path, make) in places.items():
            if (name == "golden" and what == "a folder") or (name == "auto" and what == "a folder"):
                continue  # where they write
            found.append(Case(f"place/{what}/{name}", (*command, path), make))
    return found


def _refused(command: str, given: Sequence[str], *names: str) -> Case:
    said = " ".join(given)[:60]
    base = {
        "quantize": ("quantize", "net.onnx", "-o", "out.onnx"),
        "calibrate": ("calibrate", "net.onnx", "-o", "out.npz"),
        "evaluate": ("evaluate", "net.onnx", "--card", "net.toml"),
        "compare": ("compare", "net.onnx", "int8.onnx"),
        "export": ("export", "net.onnx", "-o", "new"),
        "golden": ("golden", "bundle.json", "-o", "vectors"),
        "table": ("table", "net.toml", "--cache", "kept"),
        "sizes": ("sizes", "net.onnx"),
        "lint": ("lint", "int8.onnx"),
        "report": ("report", "net.onnx", "-o", "out.html"),
        "targets": ("targets",),
        "recipes": ("recipes",),
        "inspect": ("inspect", "net.onnx"),
        "auto": ("auto", "net.onnx", "-o", "out.onnx"),
        "card": ("card", "net.onnx"),
        "": (),
    }
    return Case(f"option/{said!r}/{command or 'equint'}", (*base[command], *given), names=names)


def _options() -> list[Case]:
    numbers = ("nan", "inf", "-inf", "1e999", "x", "", "1,2", "0x10", "9" * 5000)
    found = []
    for value in numbers:
        found += [
            _refused("quantize", ("--weight-bits", value), "weight-bits"),
            _refused("quantize", ("--activation-bits", value), "activation-bits"),
            _refused("quantize", ("--images", value), "images"),
            _refused("evaluate", ("--limit", value), "limit"),
            _refused("sizes", ("--sparsity", value), "sparsity"),
            _refused("calibrate", ("--data", "arrays.npz", "--images", value), "images"),
        ]
    for value in ("0", "-1", "1", "17", "99", "1000000000000000000000"):
        found.append(_refused("quantize", ("--weight-bits", value, *RANGED), value[:8]))
        found.append(_refused("quantize", ("--activation-bits", value, *RANGED), value[:8]))
    for low, high in (
        ("1", "0"),
        ("0", "0"),
        ("nan", "1"),
        ("0", "inf"),
        ("-inf", "0"),
        ("0", "1e300"),
        ("1e-320", "2e-320"),
    ):
        found.append(_refused("quantize", ("--input-range", low, high), "range"))
    for drop in ("nan", "inf", "-1", "x"):
        found.append(_refused("quantize", ("--max-drop", drop, *RANGED), "drop"))
    for text in (
        "x",
        "x=",
        "=1",
        "gone=1",
        "x=one",
        "x=1",
        "x=nan",
        "x=inf",
        "x=" + "1," * 999 + "1",
        "\x1b[31m=1",
        "x=1e999",
    ):
        found.append(_refused("quantize", ("--set", text, *RANGED)))
    for mean, std in (
        ("1,2", "1"),
        ("x", "1"),
        ("nan", "1"),
        ("0", "0"),
        ("0", "-1"),
        ("0", "inf"),
        ("0,0,0,0", "1,1,1,1"),
        ("", ""),
    ):
        found.append(
            _refused("quantize", ("--mean", mean, "--std", std)) if mean else _refused("quantize", ("--mean", "x"))
        )
    for size in (("0", "8"), ("-8", "8"), ("1000000000", "1000000000"), ("x", "8")):
        found.append(_refused("evaluate", ("--size", *size, "--card", "net.toml")))
    for name in ("gone", "", "../x", "\x1b[31m", "[/b]", "lwq ", "LWQ", "gone.toml", "x" * 5000, "a\x00b"):
        found += [
            _refused("quantize", ("--recipe", name, *RANGED)),
            _refused("quantize", ("--target", name, *RANGED)),
            _refused("lint", ("--target", name)),
            _refused("targets", ("--show", name)),
            _refused("recipes", ("--show", name)),
            _refused("export", ("--format", name)),
            _refused("quantize", ("--layout", name)),
            _refused("quantize", ("--effort", name)),
            _refused("table", ("--recipe", name)),
            _refused("quantize", ("--data", name)),
        ]
    for bits in ("8", "8/", "/8", "8/8/8", "x/y", "0/8", "8/99", "-1/8", "float/8"):
        found.append(_refused("table", ("--recipe", "lwq", "--bits", bits)))
    for limit in ("0", "-1", "x", "gone=5", "net=0", "net=x", "=5", "5=5", "net=5=5"):
        found.append(_refused("table", ("--recipe", "lwq", "--limit", limit)))
    found += [
        _refused("", ("frobnicate",)),
        _refused("", ("--frobnicate",)),
        _refused("", ("\x1b[31m",)),
        _refused("quantize", ("--frobnicate",)),
        _refused("quantize", ("second.onnx",)),
        _refused("quantize", ("--images",)),
        _refused("quantize", ("--io", "int8")),
        _refused("quantize", ("--card", "net.toml", *RANGED)),
        _refused("quantize", ("--images", "0", "--data", "arrays.npz")),
        _refused("quantize", ("--data", "stats.npz", "--images", "4")),
        _refused("quantize", ("--data", "pictures")),
        _refused("auto", ("--data", ""), "--data"),
        _refused("card", ("--data", ""), "--data"),
        _refused("calibrate", ("--merge", ""), "--merge"),
        _refused("evaluate", ("--data=",), "--data="),
        _refused("table", ("--recipe", "lwq", "--images", "-1")),
        _refused("table", ("--recipe", "lwq", "--jobs", "0")),
        _refused("table", ("--recipe", "lwq", "--cache", "net.onnx")),
        _refused("table", ("--recipe", "lwq", "gone.toml"), "gone.toml"),
        _refused("golden", ("--images", "0")),
        _refused("golden", ("--images", "1000000000000")),
        _refused("evaluate", ("--kind", "purple")),
        _refused("export", ("--sparse", "maybe")),
        _refused("report", ("--limit", "5")),
        _refused("compare", ("--limit", "0")),
    ]
    return list({case.name: case for case in found}.values())


FAR = ("--input-range", "0", "1e6")
"""An input that lies far off what the BatchNorm of the network saw."""


def _forced() -> list[Case]:
    """What is refused for the input that is described, and done where somebody insists."""
    commands: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "quantize": (("quantize", "net.onnx", "-o", "out.onnx", "--recipe", "lwq"), ("out.onnx",)),
        "tflite": (("quantize", "net.onnx", "-o", "out.tflite", "--recipe", "lwq"), ("out.tflite",)),
        "explain": (("explain", "net.onnx"), ()),
        "sqnr": (("sqnr", "net.onnx"), ()),
        "diagnose": (("diagnose", "net.onnx", "--recipe", "lwq"), ()),
        "report": (("report", "net.onnx", "-o", "out.html", "--recipe", "lwq"), ("out.html",)),
        "export": (("export", "net.onnx", "-o", "new", "--recipe", "lwq"), ("new.json", "new.safetensors")),
        "golden": (("golden", "net.onnx", "-o", "vectors", "--recipe", "lwq"), ("vectors",)),
        "calibrate": (("calibrate", "net.onnx", "-o", "out.npz", "--data", "far.npz"), ("out.npz",)),
    }
    found = []
    for name, (command, writes) in commands.items():
        told = command if name == "calibrate" else (*command, *FAR)
        for force in (False, True):
            may: May = "accepted" if force else "refused"
            file = "far.npz" if name == "calibrate" else "net.onnx"
            asked, names = (*told, *["--force"] * force), () if force else (file, "10 spreads")
            case = f"far off/{'forced' if force else 'told'}/{name}"
            found.append(Case(case, asked, _far, names, may, writes, verify=lambda folder, out: None))
    return found


def _far(folder: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1e6, (8, 3, 8, 8))
    np.savez(folder / "far.npz", x=values.astype(np.float32))


def _shown() -> list[Case]:
    """Commands whose words a terminal's encoding lacks: they do their work, and say it as far as that goes."""
    commands: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "help": (("quantize", "--help"), ()),
        "all help": (("--help",), ()),
        "quantize": (("quantize", "net.onnx", "-o", "out.onnx", *FAST), ("out.onnx",)),
        "explain": (("explain", "net.onnx", *RANGED), ()),
        "compare": (("compare", "net.onnx", "int8.onnx", "--data", "arrays.npz"), ()),
        "inspect": (("inspect", "net.onnx"), ()),
        "inspect JSON": (("inspect", "net.onnx", "--json"), ()),
        "table": (("table", "net.toml", "--recipe", "lwq", "--cache", "kept", "-o", "out.md"), ("out.md", "kept")),
        "recipes": (("recipes",), ()),
        "targets": (("targets", "--show", "qnn"), ()),
        "demo": (("demo",), ()),
        "report": (("report", "net.onnx", "-o", "out.html", "--recipe", "lwq", *RANGED), ("out.html",)),
        "sizes": (("sizes",), ()),
        "diagnose": (("diagnose", "net.onnx", "--recipe", "lwq", *RANGED), ()),
        "sqnr": (("sqnr", "net.onnx", *RANGED), ()),
        "export": (("export", "net.onnx", "-o", "new", "--recipe", "lwq", *RANGED), ("new.json", "new.safetensors")),
    }
    found = []
    for encoding in ("ascii", "cp1252", "cp437", "latin-1"):
        for name, (command, writes) in commands.items():
            told = {"PYTHONIOENCODING": encoding}
            found.append(Case(f"encoding/{encoding}/{name}", command, may="accepted", writes=writes, environment=told))
    return found


def _full() -> list[Case]:
    """Disks that are full in the midst of each file that a command writes: none is left, and none that was is lost."""
    found = []
    for name, end in {**dict.fromkeys(WRITERS, ".onnx"), **ENDS}.items():
        if name in ("diagnose", "table", "sqnr", "card"):  # whose files are shorter than messages, or need matplotlib
            continue
        for most in (750, 1500, 2900):
            for there in (False, True):
                make = written(f"out{end}", "kept") if there and name != "golden" else _nothing
                command = (*WRITERS[name], f"out{end}")
                found.append(Case(f"full/{most} bytes{', over a file' * there}/{name}", command, make, full=most))
    return found


def _nothing(folder: Path) -> None:
    """As it was."""


def cases() -> list[Case]:
    """All."""
    return _spared() + _of_another_kind() + _unwritable() + _options() + _forced() + _shown() + _full()
