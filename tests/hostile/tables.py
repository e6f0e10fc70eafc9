"""TOML that cannot be: cards, recipes and targets, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .case import Case, Fault, Make, Reader, crossed, written
from .networks import FAST, RANGED
from .structures import whole_files
from .workshop import CARD, TARGET

VALUES: Mapping[str, str] = {
    "number": "1",
    "negative": "-5",
    "huge": "9" * 5000,
    "float": "0.5",
    "nan": "nan",
    "inf": "inf",
    "true": "true",
    "text": '"x"',
    "empty text": '""',
    "escape": '"\\u001b[31m"',
    "null": '"a\\u0000b"',
    "list": "[1, 2, 3, 4, 5, 6, 7]",
    "empty list": "[]",
    "mixed list": '[1, "a"]',
    "list of nan": "[nan, nan, nan]",
    "deep": "[" * 900 + "]" * 900,
    "table": "{ a = 1 }",
    "date": "2026-01-01",
}
"""What a key can be given."""


def keyed(file: str, text: str, key: str, value: str) -> Make:
    """A table in which a key, which it may hold, has another value; `section.key` stands in that section."""
    section, _, name = key.rpartition(".")
    lines = [line for line in text.splitlines() if not line.startswith(f"{name} ")]
    at = 0
    if section:
        head = f"[[{section}]]" if f"[[{section}]]" in lines else f"[{section}]"
        lines = [*lines, head] if head not in lines else lines
        at = lines.index(head) + 1
    return written(file, "\n".join([*lines[:at], f"{name} = {value}", *lines[at:]]) + "\n")


TABLES = ("passes", "candidates", "overrides", "fixed")
"""Keys that are tables: given twice, TOML's own message says where."""


def _keys(file: str, text: str, keys: Mapping[str, Sequence[str]]) -> list[Fault]:
    """Faults of every key with half of the values, every other one in turn, but those that it takes."""
    found = []
    for k, (key, good) in enumerate(keys.items()):
        for what, value in list(VALUES.items())[k % 2 :: 2]:
            if what not in good:
                names = () if key in TABLES else (key.rpartition(".")[2],)
                found.append(Fault(f"{key} {what}", keyed(file, text, key, value), names))
    return found


def texts(file: str, text: str) -> list[Fault]:
    """TOML that is none."""
    wrong = {
        "cut off": text[: len(text) // 2] + "[[[",
        "a key twice": text + "\nzz = 1\nzz = 2\n",
        "deep": f"a = {'[' * 3000}{']' * 3000}",
        "deep tables": "[" + ".".join("a" * 4000) + "]\n",
        "unknown table": text + "\n[inputs]\na = 1\n",
        "a control character": text + '\na = "\x07"\n',
    }
    found = [Fault(f"text {what}", written(file, content), (file,)) for what, content in wrong.items()]
    latin = text.encode() + "\n# größer".encode("latin-1")
    return [*found, Fault("text latin-1", written(file, latin), (file,))]


def _cards() -> list[Case]:
    good: dict[str, Sequence[str]] = {
        "task": (),
        "labels": ("empty list",),
        "input.kind": (),
        "input.mean": ("number", "negative", "float", "list"),
        "input.std": ("number", "float", "list"),
        "input.size": (),
        "input.range": ("empty list",),
        "input.layout": (),
        "data.calibration": (),
        "decode.score": ("number", "float"),
        "decode.most": ("number",),
        "decode.variances": (),
        "decode.probabilities": ("true",),
        "data.scale": ("number",),
        "data.classes": ("number",),
        "data.border": ("number",),
    }
    texted = {"text", "escape"}
    faults = [
        f for f in _keys("net.toml", CARD, good) if not (f.name.startswith("decode.scores") and f.name[-4:] in texted)
    ]
    faults += [
        Fault("input.mean long", keyed("net.toml", CARD, "input.mean", "[0, 0, 0, 0]"), ("mean",)),
        Fault("input.std zero", keyed("net.toml", CARD, "input.std", "[1, 0, 1]"), ("std",)),
        Fault("input.std denormal", keyed("net.toml", CARD, "input.std", "[1e-320, 1, 1]"), ("std",)),
        Fault("input.mean overflow", keyed("net.toml", CARD, "input.mean", "[1e300, 0, 0]"), ("mean",)),
        Fault("input.size huge", keyed("net.toml", CARD, "input.size", "[1000000000, 1000000000]"), ("size",)),
        Fault("input.size half", keyed("net.toml", CARD, "input.size", "[8.5, 8.5]"), ("size",)),
        Fault("input.size zero", keyed("net.toml", CARD, "input.size", "[0, 8]"), ("size",)),
        Fault("input.range turned", keyed("net.toml", CARD, "input.range", "[1, -1]"), ("range",)),
        Fault("input.range one value", keyed("net.toml", CARD, "input.range", "[1, 1]"), ("range",)),
        Fault("input.knd", keyed("net.toml", CARD, "input.knd", '"rgb"'), ("knd",)),
        Fault("input is a number", written("net.toml", "input = 3\n"), ("input",)),
        Fault("data is a list", written("net.toml", "data = [1]\n"), ("data",)),
    ]
    reads = (
        Reader("quantize", ("quantize", "net.onnx", "-o", "out.onnx", "--card", "net.toml"), (), "net.toml"),
        Reader("evaluate", ("evaluate", "net.onnx", "--card", "net.toml"), (), "net.toml"),
        Reader("calibrate", ("calibrate", "net.onnx", "-o", "out.npz", "--card", "net.toml"), (), "net.toml"),
        Reader("compare", ("compare", "net.onnx", "int8.onnx", "--card", "net.toml"), (), "net.toml"),
        Reader("inspect", ("inspect", "net.onnx", "--card", "net.toml"), (), "net.toml"),
        Reader("table", ("table", "net.toml", "--recipe", "lwq", "--cache", "kept"), (), "net.toml"),
        Reader("auto", ("auto", "net.onnx", "-o", "out.onnx", "--card", "net.toml", "--limit", "4"), (), "net.toml"),
        Reader("forced", ("quantize", "net.onnx", "-o", "out.onnx", "--card", "net.toml", "--force"), (), "net.toml"),
    )
    found = crossed("card", [*faults, *texts("net.toml", CARD)], reads, 1)
    whole = [f for f in whole_files("net.toml") if f.name != "net.toml is empty"]  # all of its keys have defaults
    found += crossed("card", whole, reads, 2)
    labels: list[Fault] = [f for f in whole_files("labels.txt") if f.name.split(" is ")[1] not in _TEXTS]
    return found + crossed("labels", labels, (reads[1], reads[0]), 1)


_TEXTS = {"one byte", "text", "JSON", "nested JSON", "zeros", "empty", "zip", "gzip head"}
"""What can be names of classes, however unlikely."""


def _recipes() -> list[Case]:
    text = 'name = "mine"\nlevel = 1\ndescription = "x"\ntarget = "onnxruntime"\n\n[weight]\nbits = 8\n\n'
    steps = ("fold_batchnorm", "activation_ranges", "quantize")
    text += "\n".join(f'[[passes]]\npass = "{step}"\n' for step in steps)
    good: dict[str, Sequence[str]] = {
        "level": ("number",),
        "target": (),
        "bias_bits": (),
        "bias_grid": (),
        "passes": (),
        "candidates": ("empty list",),
        "overrides": ("empty list",),
        "weight.bits": (),
        "weight.granularity": (),
        "weight.symmetric": ("true",),
        "activation.bits": (),
    }
    faults = _keys("mine.toml", text, good)
    more = {
        "unknown pass": ('[[passes]]\npass = "frobnicate"\n', "frobnicate"),
        "pass twice": ('[[passes]]\npass = "quantize"\n', "quantize"),
        "wrong order": ('[[passes]]\npass = "equalize"\n', "equalize"),
        "unknown option": ('[[passes]]\npass = "correct_bias"\nfrobs = 1\n', "frobs"),
        "wrong option": ('[[passes]]\npass = "round_weights"\nmethod = "guess"\n', "method"),
        "candidate of nothing": ('[[candidates]]\nname = "a"\nwithout = ["nothing"]\n', "without"),
        "candidate without name": ('[[candidates]]\nwithout = ["quantize"]\n', "name"),
        "override of a layer that is not there": ('[[overrides]]\nlayers = ["gone"]\nweight_bits = 4\n', "gone"),
        "override of 99 bits": ('[[overrides]]\nlayers = ["conv1"]\nweight_bits = 99\n', "99"),
        "override of nothing": ("[[overrides]]\nweight_bits = 4\n", "overrides"),
        "override of a float and bits": ('[[overrides]]\nlayers = ["conv1"]\nweight_bits = 4\nfloat = true\n', "float"),
        "override of a pattern": ('[[overrides]]\nlayers = ["[[["]\nweight_bits = 4\n', "[[["),
        "negative iterations": ('[[passes]]\npass = "optimal"\niterations = -1\n', "optimal"),
    }
    faults += [Fault(what, written("mine.toml", text + add), (name,)) for what, (add, name) in more.items()]
    faults += texts("mine.toml", text)
    base = ("--recipe", "mine.toml", *RANGED)
    reads = (
        Reader("quantize", ("quantize", "net.onnx", "-o", "out.onnx", *base), (), "mine.toml"),
        Reader("explain", ("explain", "net.onnx", *base), (), "mine.toml"),
        Reader("table", ("table", "net.toml", "--recipe", "mine.toml", "--cache", "kept"), (), "mine.toml"),
        Reader("recipes", ("recipes", "--show", "mine.toml"), (), "mine.toml"),
    )
    late = [f for f in faults if f.name.startswith("override of a layer") or "pattern" in f.name]
    early = [f for f in faults if f not in late]
    unfiled = [Reader(r.name, r.command) for r in reads[:2]]  # the override is named: the table may be the library's
    found = crossed("recipe", early, reads[:3], 1) + crossed("recipe", late, unfiled)
    return found + crossed("recipe", whole_files("mine.toml"), reads[:2], 1)


def _targets() -> list[Case]:
    good: dict[str, Sequence[str]] = {
        "name": ("text", "escape", "null"),
        "bias_bits": (),
        "shift_bits": (),
        "mantissa_bits": (),
        "rounding": (),
        "integers_only": ("true",),
        "operators": ("empty list",),
        "ties": ("empty list",),
        "formats": (),
        "fixed": (),
        "aliases": (),
        "recipe": ("text", "empty text", "escape", "null"),  # a name: looked up where one is needed
        "weight.bits": (),
        "weight.granularity": (),
        "activation.bits": (),
        "rules.level": (),
        "rules.date": (),
    }
    faults = _keys("target.toml", TARGET, good) + texts("target.toml", TARGET)
    faults += [
        Fault("name of a built-in", keyed("target.toml", TARGET, "name", '"onnxruntime"'), ("onnxruntime",)),
        Fault("unknown key", keyed("target.toml", TARGET, "colour", '"red"'), ("colour",)),
        Fault("no weights", written("target.toml", 'name = "mine"\n'), ("weight",)),
        Fault("operators of nobody", keyed("target.toml", TARGET, "operators", '["Konv"]'), ("Konv",)),
        Fault("rule of nobody", keyed("target.toml", TARGET, "rules.rule", '"luck"'), ("rule",)),
    ]
    reads = (
        Reader(
            "quantize", ("quantize", "net.onnx", "-o", "out.onnx", "--target", "target.toml", *FAST), (), "target.toml"
        ),
        Reader("targets", ("targets", "target.toml"), (), "target.toml"),
        Reader("lint", ("lint", "int8.onnx", "--target", "target.toml"), (), "target.toml"),
        Reader("inspect", ("inspect", "net.onnx", "--target", "target.toml"), (), "target.toml"),
    )
    return crossed("target", faults, reads, 1) + crossed("target", whole_files("target.toml"), reads, 1)


def cases() -> list[Case]:
    """All."""
    return _cards() + _recipes() + _targets()
