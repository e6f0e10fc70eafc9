"""Golden vectors: the integers of every layer, in files that a board's firmware is checked against."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..drafts import placed
from ..errors import UnusableData, counted
from ..files import MOST_TEXT, readable
from ..integers.program import Program
from ..ir.model import Array, Name
from ..maths.affine import storage
from .faults import Trace, stored

MANIFEST = "golden.json"
FORMAT, VERSION = "equint golden vectors", 1
Feeds = Mapping[Name, Array]
Beside = Callable[[Feeds], Mapping[str, bytes]]
"""Makes files, by name, of the integers of all tensors."""


def write_golden(
    program: Program,
    feeds: Feeds,
    folder: str | os.PathLike[str],
    *,
    raw: bool = False,
    trace: Trace | None = None,
    beside: Beside | None = None,
) -> list[dict[str, Any]]:
    """Write the integers of every tensor for some images: a `.npy` file each, and `golden.json` that lists the steps.

    The folder appears whole or not at all. An older golden folder of that name is replaced.

    Args:
        feeds: by input, floats as the network takes them, or integers of its grid; of as many images as are wanted.
        folder: a new name, an empty folder or a golden folder.
        raw: also a `.bin` file each: the same values, little-endian, the last dimension fastest, nothing else.
        trace: executes the program; the integer engine if not given.
        beside: what else of all integers is to lie in the folder.

    Returns:
        What `golden.json` says of each step, in the order of execution.

    Raises:
        EquintError: feeds that do not fit the program, or a folder that cannot be written or holds other files.

    Example:
        >>> import tempfile
        >>> from .faults import tiny_program
        >>> program, trace = tiny_program()
        >>> with tempfile.TemporaryDirectory() as here:
        ...     steps = write_golden(program, {"x": np.ones((1, 2, 2, 2))}, f"{here}/golden", trace=trace)
        ...     sorted(os.listdir(f"{here}/golden")), [step["outputs"] for step in steps]
        (['000_x.npy', '001_y.npy', 'golden.json'], [['y']])
    """
    values = every_tensor(program, feeds, trace or engine)
    files = tensor_files(program)
    manifest = _manifest_of(program, values, files, raw)
    more = {} if beside is None else beside(values)
    manifest |= {"beside": sorted(more)} if more else {}
    with _drafted_folder(folder) as draft:
        for name, stem in files.items():
            np.save(draft / f"{stem}.npy", values[name])
            if raw:
                (draft / f"{stem}.bin").write_bytes(values[name].tobytes())
        for name, data in more.items():
            (draft / name).write_bytes(data)
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return list(manifest["steps"])


def tensor_files(program: Program) -> dict[Name, str]:
    """The file, without its ending, of every integer tensor: the step's number, then the tensor's name made safe.

    Names that differ by case alone, or by what no file name may hold, get different files on every system.

    Example:
        >>> import tempfile
        >>> from .faults import tiny_program
        >>> tensor_files(tiny_program()[0])
        {'x': '000_x', 'y': '001_y'}
    """
    digits = max(3, len(str(len(program.steps))))
    numbered = [(0, name) for name in program.inputs]
    numbered += [(number, name) for number, step in enumerate(program.steps, 1) for name in step.outputs]
    files: dict[Name, str] = {}
    taken: set[str] = set()
    for number, name in numbered:
        if name not in program.grids or name in files:
            continue
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._") or "tensor"
        wanted = f"{number:0{digits}d}_{safe}"
        names = itertools.chain([wanted], (f"{wanted}~{k}" for k in itertools.count(2)))
        files[name] = next(stem for stem in names if stem.casefold() not in taken)
        taken.add(files[name].casefold())
    return files


def engine(program: Program, feeds: Feeds) -> Mapping[Name, Array]:
    """Every tensor that the integer engine makes."""
    from ..integers.engine import Engine

    return Engine(program).trace(feeds)


def every_tensor(program: Program, feeds: Feeds, trace: Trace) -> dict[Name, Array]:
    """The integers of all tensors that have a grid."""
    for name in feeds:
        if name not in program.inputs:
            raise UnusableData(f"input {name}: the program has none of this name; choose {', '.join(program.inputs)}")
    given = {name: _integers(program, name, feeds) for name in program.inputs}
    found = {**trace(program, given), **given}
    return {name: stored(program, name, found[name]) for name in tensor_files(program)}


def _integers(program: Program, name: Name, feeds: Feeds) -> Array:
    if name not in feeds:
        raise UnusableData(f"input {name}: nothing was given for it; give an array")
    values, grid = np.asarray(feeds[name]), program.grid(name)
    shape = program.shapes.get(name)
    if shape is not None and not (
        values.ndim == len(shape)
        and all(not isinstance(d, int) or d == n for d, n in zip(shape[1:], values.shape[1:], strict=True))
    ):
        dims = ", ".join("?" if d is None else str(d) for d in shape)
        raise UnusableData(f"input {name}: shape {list(values.shape)} is not [{dims}]; prepare it as the network's")
    if not values.size:
        raise UnusableData(f"input {name}: holds no image; give at least one")
    if values.dtype.kind == "f":
        return program.quantized(name, values)
    if values.dtype != storage(grid):
        raise UnusableData(f"input {name}: is {values.dtype}; give floats, or integers of type {storage(grid)}")
    if values.min() < grid.qmin or values.max() > grid.qmax:
        raise UnusableData(
            f"input {name}: holds integers outside its grid, {grid.qmin} to {grid.qmax}; quantize it anew"
        )
    return values


def _manifest_of(program: Program, values: Feeds, files: Mapping[Name, str], raw: bool) -> dict[str, Any]:
    steps = []
    for number, step in enumerate(program.steps, 1):
        inputs, outputs = ([n for n in names if n in files] for names in (step.inputs, step.outputs))
        ins, outs = ([f"{files[n]}.npy" for n in names] for names in (inputs, outputs))
        steps.append({"number": number, "op": step.op, "layer": step.name, "inputs": inputs, "input_files": ins,
                      "outputs": outputs, "output_files": outs})  # fmt: skip
    return {
        "format": FORMAT,
        "version": VERSION,
        "program": program.name,
        "target": program.target,
        "fingerprint": fingerprint(program),
        "rounding": program.rounding,
        "order": "dimensions as in ONNX (N, C, H, W), the last one fastest; little-endian; sha256 of these bytes",
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "steps": steps,
        "tensors": {name: _tensor_record(program, name, values[name], stem, raw) for name, stem in files.items()},
    }


def _tensor_record(program: Program, name: Name, values: Array, stem: str, raw: bool) -> dict[str, Any]:
    grid = program.grids[name]
    return {
        "file": f"{stem}.npy",
        **({"raw": f"{stem}.bin"} if raw else {}),
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "scale": np.asarray(grid.scale, np.float64).tolist(),
        "zero_point": np.asarray(grid.zero_point).tolist(),
        "qmin": grid.qmin,
        "qmax": grid.qmax,
        "bytes": values.nbytes,
        "sha256": sha256(values.tobytes()).hexdigest(),
    }


def fingerprint(program: Program) -> str:
    """SHA-256 of everything that decides a program's integers."""
    digest = sha256()

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, np.ndarray | np.generic | list | tuple):
            array = np.asarray(value)
            if array.dtype.kind not in "iub":
                return array.tolist()
            return [list(array.shape), sha256(array.astype("<i8").tobytes()).hexdigest()]
        return value

    for step in program.steps:
        how = (
            None
            if step.requantize is None
            else {k: plain(v) for k, v in vars(step.requantize).items() if v is not None}
        )
        parts = [step.op, step.inputs, step.outputs, plain(step.attrs), plain(step.arrays), how]
        digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    grids = {name: [*(np.asarray(a).tolist() for a in (g.scale, g.zero_point)), g.qmin, g.qmax, str(storage(g))]
             for name, g in program.grids.items()}  # fmt: skip
    rest = [program.inputs, program.outputs, grids, plain(program.consts), program.rounding, program.mantissa_bits]
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@contextmanager
def _drafted_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that takes its place when the body is done; on failure what was there stays."""
    target = Path(os.path.realpath(path))
    _check_replaceable(path, target)
    try:
        with placed([target]) as (draft,):
            draft.mkdir()
            yield draft
    except OSError as error:
        raise UnusableData(f"{path}: cannot write ({error.strerror or error}); choose another folder") from error


def _check_replaceable(path: str | os.PathLike[str], target: Path) -> None:
    """Refuse what is there and not ours to replace."""
    try:
        if not target.parent.is_dir():
            raise UnusableData(f"{path}: cannot write (no such folder); make it or choose another folder")
        if not target.exists():
            return
        if not target.is_dir():
            raise UnusableData(f"{path}: is a file; choose another folder")
        present = {entry.name for entry in target.iterdir()}
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a name that none can have
        why = getattr(error, "strerror", None) or error
        raise UnusableData(f"{path}: cannot write ({why}); choose another folder") from error
    if present:
        manifest = _manifest(path, "choose an empty folder")
        tensors, more = manifest["tensors"].values(), manifest.get("beside", ())
        foreign = present - {MANIFEST, *more, *(t["file"] for t in tensors), *(t.get("raw", "") for t in tensors)}
        if foreign:
            raise UnusableData(f"{path}: holds {min(foreign)}, which equint did not write; choose an empty folder")


def _manifest(folder: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    path = Path(folder) / MANIFEST
    try:
        if not path.exists():
            raise UnusableData(f"{folder}: is no golden folder (it has no {MANIFEST}); {remedy}")
        file = readable(path, UnusableData, "list of golden vectors", MOST_TEXT)
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise UnusableData(f"{path}: cannot be read ({why}); {remedy}") from error
    ours = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("tensors"), dict)
    if not ours or not all(_is_record(t) for t in found["tensors"].values()):
        raise UnusableData(f"{path}: does not describe golden vectors; {remedy}")
    if found.get("version") != VERSION:
        raise UnusableData(f"{path}: version {found.get('version')}, known is {VERSION}; {remedy}")
    return found


def _is_record(tensor: Any) -> bool:
    if not isinstance(tensor, dict) or not set(tensor) >= {"file", "shape", "sha256"}:
        return False
    shape = tensor["shape"]
    whole = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    return whole and isinstance(tensor["file"], str) and isinstance(tensor["sha256"], str)


def read_golden(program: Program, folder: str | os.PathLike[str]) -> dict[Name, Array]:
    """All tensors of a golden folder, which must be of this program and unchanged.

    Raises:
        EquintError: a folder or file that is missing, damaged, changed or of another program.

    Example:
        >>> import tempfile
        >>> from .faults import tiny_program
        >>> program, trace = tiny_program()
        >>> with tempfile.TemporaryDirectory() as here:
        ...     _ = write_golden(program, {"x": np.ones((1, 2, 2, 2))}, f"{here}/golden", trace=trace)
        ...     read_golden(program, f"{here}/golden")["y"].ravel().tolist()
        [2, 2]
    """
    if not Path(folder).is_dir():
        raise UnusableData(f"{folder}: no such folder; write the golden vectors first")
    manifest = _manifest(folder, "write the golden vectors again")
    if manifest.get("fingerprint") != fingerprint(program):
        raise UnusableData(f"{folder}: golden vectors of another program; write them again for this one")
    made_by, tensors, values = layers(program), manifest["tensors"], {}
    for name, stem in tensor_files(program).items():
        path = Path(folder) / f"{stem}.npy"
        if name not in tensors:
            raise UnusableData(f"{folder}: {MANIFEST} lacks tensor {name}; write the golden vectors again")
        found = load(path, made_by[name], tuple(tensors[name]["shape"]), storage(program.grids[name]))
        if sha256(found.tobytes()).hexdigest() != tensors[name]["sha256"]:
            raise UnusableData(f"{path}: layer {made_by[name]}: was changed since; write the golden vectors again")
        values[name] = found
    return values


def layers(program: Program) -> dict[Name, str]:
    """The layer that makes each tensor, for messages."""
    made = {o: step.label for step in program.steps for o in step.outputs}
    return {name: made.get(name, f"(input {name})") for name in tensor_files(program)}


def load(path: Path, layer: str, shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> Array:
    """The array of a .npy file, which must be of that type, and of that shape if one is given."""
    try:
        if path.exists():
            readable(path, UnusableData, "file of an array")
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("it does not begin as such files do")
            file.seek(0)
            found: Array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("more follows the array")
    except FileNotFoundError:
        raise UnusableData(f"{path}: layer {layer}: no such file; write the golden vectors again") from None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        why = str(error).splitlines()[0] if str(error) else "it is truncated"
        raise UnusableData(f"{path}: layer {layer}: is no whole .npy file ({why}); dump it again") from error
    if found.dtype != dtype:
        raise UnusableData(f"{path}: layer {layer}: holds {found.dtype}, wanted {dtype}; dump the integers as stored")
    if shape and found.shape[1:] == shape[1:] and found.ndim == len(shape) and len(found) != shape[0]:
        raise UnusableData(
            f"{path}: layer {layer}: {counted(len(found), 'image')}, wanted {shape[0]}; dump the same ones"
        )
    if shape is not None and found.shape != shape:
        raise UnusableData(
            f"{path}: layer {layer}: shape {list(found.shape)}, wanted {list(shape)}; dump it in this order"
        )
    return np.asarray(found, dtype, order="C")


def load_raw(path: Path, layer: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The array of a raw .bin file: values alone, little-endian."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise UnusableData(f"{path}: layer {layer}: cannot be read ({error.strerror or error})") from error
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(found) != size:
        raise UnusableData(
            f"{path}: layer {layer}: {len(found)} bytes, wanted {size} ({dtype} {list(shape)}); dump it whole, alone"
        )
    return np.frombuffer(found, dtype).reshape(shape).copy()
