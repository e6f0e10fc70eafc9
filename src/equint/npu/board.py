"""What a board computed, against the golden vectors: which step is the first to differ, by how much and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnusableData, counted
from ..integers.program import Program, Step
from ..ir.model import Array, Name
from ..maths.affine import storage
from .faults import MOST_ALONE, Trace, diagnose, ties, traced
from .golden import MANIFEST, Feeds, engine, every_tensor, layers, load, load_raw, read_golden, tensor_files


@dataclass(frozen=True)
class Mismatch:
    """How a tensor differs: `count` of `size` values in `channels` channels, by `largest` steps of the grid at most.

    `index`, `channel`, `wanted` and `found` are of the first value that differs; `channel` is None where there are
    none. `bit` is the one by which all these values differ, if it is one (0 is the lowest).
    """

    tensor: Name
    file: str
    count: int
    size: int
    largest: int
    index: tuple[int, ...]
    channel: int | None
    channels: int
    wanted: int
    found: int
    bit: int | None


@dataclass(frozen=True)
class Cause:
    """A mistake that reproduces every value found, and the layers that make it."""

    text: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one step, `number` from 1; 0 is an input of the program.

    Attributes:
        status: "agrees"; "wrong": what the device made is not what its own inputs give; "inherits": it is, but these
            differ; "unknown": the inputs lie outside their grids; "not dumped".
        mismatch: against the golden vectors. own: against what the device's own inputs give, where wrong.
        ties: of the values that differ in `own`, how many lie exactly between two integers before rounding; None
            where the step does not requantize, or more than one step lies between its dumped inputs and it.
        causes: every mistake that explains all values.
        suspects: layers one of which is wrong: the step's own, and those before it that were not dumped.
    """

    number: int
    op: str
    layer: str
    status: str
    mismatch: Mismatch | None = None
    own: Mismatch | None = None
    ties: int | None = None
    causes: tuple[Cause, ...] = ()
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A board's dump against golden vectors: a verdict for every input and step, in the order of execution.

    `missing` are tensors that the dump lacks, with their files; `unknown` files of the dump that are no tensor.
    """

    steps: tuple[Verdict, ...]
    compared: int
    missing: tuple[tuple[Name, str], ...]
    unknown: tuple[str, ...]

    @property
    def first(self) -> Verdict | None:
        """The first step that is wrong, or None."""
        return next((v for v in self.steps if v.mismatch is not None), None)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        first = None if self.first is None else asdict(self.first)
        return {"agrees": self.first is None, **asdict(self), "first": first}

    def lines(self) -> list[str]:
        """All of it for people, first what matters most."""
        counts = {status: sum(v.status == status for v in self.steps) for status in _STATUS}
        told = ", ".join(f"{n} {_STATUS[s][n != 1]}" for s, n in counts.items() if n)
        lines = [f"{self.compared} of {counted(self.compared + len(self.missing), 'tensor')} compared: {told}"]
        if self.first is None:
            lines.append("no difference")
        else:
            lines += _described(self.first)
            lines += _shared([v for v in self.steps if v.status == "wrong" and v.number])
            lines += _table([v for v in self.steps if v.mismatch is not None])
        if self.missing:
            lines.append(f"not compared, for the dump lacks them: {_listed([f for _, f in self.missing])}")
        lines += [f"! {name}: is no tensor of this program" for name in self.unknown]
        return lines


_STATUS = {
    "agrees": ("agrees", "agree"),
    "wrong": ("is wrong in itself", "are wrong in themselves"),
    "inherits": ("inherits a difference", "inherit a difference"),
    "unknown": ("cannot be told", "cannot be told"),
}


def _described(v: Verdict) -> list[str]:
    m = v.own or v.mismatch
    assert m is not None
    where = f"[{', '.join(map(str, m.index))}]" + ("" if m.channel is None else f", channel {m.channel}")
    spread = "" if m.channel is None else f", in {counted(m.channels, 'channel')}"
    steps = counted(m.largest, "step")
    lines = [
        f"first divergence: step {v.number}, {v.op} {v.layer} ({m.file})",
        f"  {m.count} of {counted(m.size, 'value')} differ, by at most {steps}{spread}",
        f"  first at {where}: wanted {m.wanted}, found {m.found}",
    ]
    if m.bit is not None:
        lines.append(f"  all of them differ in bit {m.bit} alone")
    if v.ties is not None:
        every = "all of these values" if v.ties == m.count else f"{v.ties} of these {m.count} values"
        lines.append(f"  {every} are ties: exactly between two integers before rounding")
    if len(v.suspects) > 1:
        lines.append(f"  layers not dumped may be at fault as well: one or more of {_listed(v.suspects)}")
    for cause in v.causes:
        lines.append(f"  explained entirely by: {cause.text} [{_listed(cause.layers)}]")
    if not v.causes and len(v.suspects) > MOST_ALONE:
        lines.append("  no known mistake of all of them explains all values; to look at each alone, dump more layers")
    elif not v.causes and v.number:
        lines.append("  no known mistake explains all values")
    return lines


def _shared(wrong: list[Verdict]) -> list[str]:
    """Mistakes that explain every step that is wrong, where there are several."""
    texts = [{c.text for c in v.causes} for v in wrong]
    shared = [c.text for c in wrong[0].causes if all(c.text in t for t in texts)] if len(wrong) > 1 else []
    return [f"all {len(wrong)} steps that are wrong are explained by: {text}" for text in dict.fromkeys(shared)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def _table(verdicts: list[Verdict]) -> list[str]:
    rows = [("step", "op", "layer", "verdict", "differ", "largest", "explained by")]
    for v in verdicts:
        assert v.mismatch is not None
        m = v.mismatch
        cause = v.causes[0].text.split(":")[0] if v.causes else ""
        rows.append((str(v.number), v.op, v.layer, v.status, f"{m.count}/{m.size}", str(m.largest), cause))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def compare_board(
    program: Program,
    golden: str | os.PathLike[str] | Feeds,
    dump: str | os.PathLike[str] | Feeds,
    *,
    trace: Trace | None = None,
    places: Mapping[Name, str] | None = None,
) -> Comparison:
    """Find the first step of a board that computes something else, by how much, and why.

    A step whose output differs is computed again from the board's own inputs, through the steps before it that were
    not dumped. If that gives what the board gave, the step merely inherits; if not, it is wrong in itself, and the
    mistakes of `faults.VARIANTS` are tried.

    Args:
        golden: a folder of `write_golden`, or the inputs that the board was given.
        dump: a folder with `.npy` files or raw `.bin` files named like the golden ones, as many as there are; or
            tensors of the program, as many as there are, whose shapes and types are checked.
        trace: executes the program; the integer engine if not given.
        places: where the board keeps tensors; left out, their golden files.

    Raises:
        EquintError: a folder or file that cannot be read or has another shape, type or size than wanted.

    Example:
        >>> import tempfile
        >>> from .faults import tiny_program
        >>> program, trace = tiny_program()
        >>> with tempfile.TemporaryDirectory() as dump:
        ...     np.save(f"{dump}/001_y.npy", np.full((1, 2, 1, 1), 2, np.int8))
        ...     found = compare_board(program, {"x": np.array([[[[1, 1], [1, 2]]] * 2], np.int8)}, dump, trace=trace)
        >>> found.first.ties, found.first.own.wanted, found.first.own.found
        (2, 3, 2)
        >>> found.first.causes[0].text
        'rounds half_even: to nearest, ties to even'
    """
    run = trace or engine
    files = {**tensor_files(program), **(places or {})}
    known = isinstance(golden, str | os.PathLike)
    wanted = read_golden(program, golden) if known else every_tensor(program, golden, run)  # type: ignore[arg-type]
    told = isinstance(dump, Mapping)
    device, unknown = (_checked(wanted, dump, files), ()) if told else _read_dump(program, wanted, dump)  # type: ignore[arg-type]
    verdicts = []
    for name in (n for n in program.inputs if n in files):
        found = _mismatch(name, files[name], wanted[name], device[name], 1) if name in device else None
        status = "not dumped" if name not in device else "agrees" if found is None else "wrong"
        verdicts.append(Verdict(0, "Input", name, status, found, found))
    for k, step in enumerate(program.steps):
        if any(o in files for o in step.outputs):
            verdicts.append(_verdict(program, k, wanted, device, files, run))
    missing = tuple((name, stem) for name, stem in files.items() if name not in device)
    return Comparison(tuple(verdicts), len(device), missing, unknown)


def dumped_inputs(program: Program, dump: str | os.PathLike[str]) -> dict[Name, Array]:
    """The inputs that a board dumped, for `compare_board` where there are no golden vectors.

    Raises:
        EquintError: one of them is not in the dump, or has another shape or type than the program takes.

    Example:
        >>> import tempfile
        >>> from .faults import tiny_program
        >>> with tempfile.TemporaryDirectory() as dump:
        ...     np.save(f"{dump}/000_x.npy", np.ones((3, 2, 2, 2), np.int8))
        ...     dumped_inputs(tiny_program()[0], dump)["x"].shape
        (3, 2, 2, 2)
    """
    if not Path(dump).is_dir():
        raise UnusableData(f"{dump}: no such folder; give the folder of the board's dump")
    files, found = tensor_files(program), dict[Name, Array]()
    for name in program.inputs:
        plain, raw = (Path(dump) / f"{files[name]}{ending}" for ending in (".npy", ".bin"))
        shape, dtype = program.shapes.get(name, ()), storage(program.grid(name))
        sizes = tuple(n for n in shape[1:] if isinstance(n, int))
        if plain.is_file():
            found[name] = load(plain, f"(input {name})", None, dtype)
        elif raw.is_file() and shape and len(sizes) == len(shape) - 1:
            count = raw.stat().st_size // max(1, int(np.prod(sizes)) * dtype.itemsize)
            found[name] = load_raw(raw, f"(input {name})", (count, *sizes), dtype)
        else:
            raise UnusableData(f"{dump}: holds no input {plain.name}; dump it too, or give the golden folder")
    return found


def _verdict(
    program: Program, k: int, wanted: Feeds, device: Feeds, files: Mapping[Name, str], trace: Trace
) -> Verdict:
    step = program.steps[k]
    verdict = Verdict(k + 1, step.op, step.label, "agrees")
    dumped = [o for o in step.outputs if o in device]

    def first(against: Feeds) -> Mismatch | None:
        every = (_mismatch(o, files[o], against[o], device[o], step.axis) for o in dumped)
        return next((m for m in every if m is not None), None)

    mismatch = first(wanted)
    if mismatch is None:
        return verdict if dumped else replace(verdict, status="not dumped")
    steps = _since_dumped(program, k, device)
    made = {o for s in steps for o in s.outputs}
    reads = {i for s in steps for i in s.inputs if i in files and i not in made}
    values = {i: device.get(i, wanted[i]) for i in reads}
    if not all(_on_grid(program, i, values[i]) for i in reads):
        return replace(verdict, status="unknown", mismatch=mismatch)
    again = traced(program, steps, values, trace)
    own = first(again)
    if own is None:
        return replace(verdict, status="inherits", mismatch=mismatch)
    suspects = tuple(s.label for s in steps if any(o in files for o in s.outputs))
    tied = ties(program, step, values) if len(steps) == 1 else None
    count = None if tied is None else int(np.count_nonzero(tied & (again[own.tensor] != device[own.tensor])))
    found = {o: device[o] for o in dumped}
    causes = _causes(program, steps, values, found, trace)
    if not causes and any(not np.array_equal(values[i], wanted[i]) for i in reads):
        fed = _causes(program, steps, {i: wanted[i] for i in reads}, found, trace)
        causes = tuple(Cause(f"{c.text}, if the layer was fed golden inputs", c.layers) for c in fed)
    return Verdict(k + 1, step.op, step.label, "wrong", mismatch, own, count, causes, suspects)


def _since_dumped(program: Program, k: int, device: Feeds) -> list[Step]:
    """Step `k` behind the steps that lie between it and what was dumped, in the order of execution."""
    steps = [program.steps[k]]
    needed = set(steps[0].inputs) - set(device)
    for step in reversed(program.steps[:k]):
        if needed & set(step.outputs):
            steps.insert(0, step)
            needed |= set(step.inputs) - set(device)
    return steps


def _on_grid(program: Program, name: Name, values: Array) -> bool:
    grid = program.grids[name]
    return not values.size or bool(values.min() >= grid.qmin and values.max() <= grid.qmax)


def _causes(program: Program, steps: list[Step], values: Feeds, found: Feeds, trace: Trace) -> tuple[Cause, ...]:
    explained = diagnose(program, steps, values, found, trace)
    return tuple(Cause(variant.cause, tuple(s.label for s in at)) for variant, at in explained)


def _mismatch(tensor: Name, file: str, wanted: Array, found: Array, axis: int) -> Mismatch | None:
    """How two arrays of the same shape and type differ; None where they do not."""
    differs = wanted != found
    if not differs.any():
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(differs)), differs.shape))
    channelled = -differs.ndim <= axis < differs.ndim
    others = tuple(d for d in range(differs.ndim) if d != axis % max(differs.ndim, 1))
    bits = np.unique(wanted[differs] ^ found[differs]).astype(np.int64) & ((1 << (8 * wanted.itemsize)) - 1)
    alone = bits.size == 1 and int(bits[0]).bit_count() == 1
    return Mismatch(
        tensor=tensor,
        file=file,
        count=int(np.count_nonzero(differs)),
        size=differs.size,
        largest=int(np.abs(wanted.astype(np.int64) - found.astype(np.int64)).max()),
        index=index,
        channel=index[axis] if channelled else None,
        channels=int(np.count_nonzero(differs.any(axis=others))) if channelled else 0,
        wanted=int(wanted[index]),
        found=int(found[index]),
        bit=int(bits[0]).bit_length() - 1 if alone else None,
    )


def _checked(wanted: Feeds, found: Feeds, places: Mapping[Name, str]) -> dict[Name, Array]:
    for name, values in found.items():
        like = wanted[name]
        if values.dtype != like.dtype or values.shape != like.shape:
            asked = f"{like.dtype} {list(like.shape)}"
            raise UnusableData(
                f"{places[name]}: holds {values.dtype} {list(values.shape)}, wanted {asked}; dump it again"
            )
    return dict(found)


def _read_dump(
    program: Program, wanted: Feeds, folder: str | os.PathLike[str]
) -> tuple[dict[Name, Array], tuple[str, ...]]:
    """A board's tensors, and the names of files that are none."""
    root, files, made_by = Path(folder), tensor_files(program), layers(program)
    try:
        present = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        raise UnusableData(f"{folder}: no such folder; give the folder of the board's dump") from None
    except OSError as error:
        raise UnusableData(f"{folder}: cannot be read ({error.strerror or error}); give a folder") from error
    example = f"name its files like the golden ones, as {files[program.outputs[-1]]}.npy or .bin"
    if not present:
        raise UnusableData(f"{folder}: is empty; {example}")
    found: dict[Name, Array] = {}
    used = {MANIFEST}
    for name, stem in files.items():
        endings = [e for e in (".npy", ".bin") if stem + e in present]
        irregular = next((stem + e for e in endings if not (root / (stem + e)).is_file()), None)
        if irregular is not None:
            raise UnusableData(f"{root / irregular}: layer {made_by[name]}: is no regular file; dump it as one")
        used |= {stem + e for e in endings}
        made, like = made_by[name], wanted[name]
        read = [(load if e == ".npy" else load_raw)(root / (stem + e), made, like.shape, like.dtype) for e in endings]
        if len(read) == 2 and not np.array_equal(read[0], read[1]):
            raise UnusableData(f"{root / stem}.bin: layer {made_by[name]}: differs from {stem}.npy; remove one of them")
        if read:
            found[name] = read[0]
    if not found:
        raise UnusableData(f"{folder}: holds none of the {counted(len(files), 'tensor')}; {example}")
    return found, tuple(sorted(present - used))
