"""Tensors of a .tflite file, by which programs are compared with what a device or LiteRT made of that file."""

from __future__ import annotations

import io as streams
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UnusableData
from ..integers.program import Program
from ..ir.model import Array, Name
from ..samples.stored import stored
from .layouts import Order
from .writer import Io, Writer, filled, write

NETWORK, TENSORS = "network.tflite", "tensors.npz"
"""What golden folders hold of the file beside the program's own tensors."""


@dataclass(frozen=True)
class Kept:
    """Where a file keeps a tensor of a program.

    Attributes:
        index, name: of the file's tensor; operator: number and kind of what makes it, empty of inputs.
        order: the program's axes as they lie there.
        features: of features that were flattened out of images, which of the program's lies at each position.
    """

    index: int
    name: str
    operator: str
    order: Order
    features: Array | None = None

    def __str__(self) -> str:
        return f"{self.operator or 'input'}, tensor {self.index} {self.name}"

    def stored(self, values: Array) -> Array:
        """The program's values as the file has them, samples first."""
        return values.transpose(self.order) if self.features is None else values[:, self.features]

    def read(self, values: Array) -> Array:
        """The file's values as the program has them."""
        if self.features is None:
            return values.transpose(np.argsort(self.order))
        made = np.empty_like(values)
        made[:, self.features] = values
        return made


def kept(program: Program, io: Io | None = None) -> dict[Name, Kept]:
    """Where the file that `write` makes of a program keeps each of its tensors.

    Raises:
        EquintError: as `write`.

    Example:
        >>> from ..hardware.target import target
        >>> from ..integers.lower import lower
        >>> from ..ir.model import Model, QParams
        >>> from ..ops.layers import tiny_graph
        >>> x, y = (QParams(np.float32(s), np.int32(3)) for s in (0.5, 0.25))
        >>> w = QParams(np.float32(0.125), np.int32(0), narrow=True)
        >>> made = lower(Model(tiny_graph(), qparams={"x": x, "w": w, "y": y}), target("tflite-int8"))
        >>> {name: str(place) for name, place in kept(made).items()}
        {'x': 'input, tensor 0 x', 'y': '#0 DEPTHWISE_CONV_2D, tensor 3 y'}
    """
    writer, _, _ = filled(program, io)
    makers = dict(_makers(writer))
    found = dict[Name, Kept]()
    for name in (*program.inputs, *(name for step in program.steps for name in step.outputs)):
        if name in program.grids and name in writer.places:
            index, order = writer.places[name][0]
            text = str(writer.file.tensors[index]["name"])
            found[name] = Kept(index, text, makers.get(index, ""), order, writer.mixed.get(name))
    return found


def _makers(writer: Writer) -> Iterator[tuple[int, str]]:
    kinds = [kind for kind, _ in writer.file.codes]
    for number, operator in enumerate(writer.file.operators):
        for index in operator["outputs"]:
            yield index, f"#{number} {kinds[operator['opcode_index']]}"


def beside_golden(program: Program, values: Mapping[Name, Array], io: Io | None = None) -> dict[str, bytes]:
    """The file itself, and an .npz of its tensors by name, as LiteRT gives them; samples lie behind one another."""
    places, stream = kept(program, io), streams.BytesIO()
    np.savez(stream, **{at.name: at.stored(values[name]) for name, at in places.items() if name in values})  # type: ignore[arg-type]
    return {NETWORK: write(program, io), TENSORS: stream.getvalue()}


def is_of_tensors(dump: str | os.PathLike[str], golden: Mapping[Name, str]) -> bool:
    """Whether a dump is of a .tflite file's tensors: an .npz, or a folder without any of the golden files' names."""
    path = Path(dump)
    if path.is_dir():
        present = {entry.stem for entry in path.iterdir()}
        return bool(present) and present.isdisjoint(golden.values())
    return path.suffix == ".npz"


def read_dump(dump: str | os.PathLike[str], places: Mapping[Name, Kept]) -> dict[Name, Array]:
    """The program's tensors out of a dump of the file's.

    Args:
        dump: an .npz, or a folder of .npy files; keys and file names are those of the file's tensors, or their numbers.
            What is no tensor of the program (constants, copies in another order) is left out.

    Raises:
        UnusableData: it cannot be read, holds none of the tensors, or one of another shape.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as here:
        ...     np.savez(f"{here}/d.npz", conv=np.zeros((2, 8, 8, 3), np.int8), perm=np.arange(4))
        ...     found = read_dump(f"{here}/d.npz", {"y": Kept(4, "conv", "#0 CONV_2D", (0, 2, 3, 1))})
        >>> found["y"].shape
        (2, 3, 8, 8)
    """
    arrays, found = _arrays(Path(dump)), dict[Name, Array]()
    for name, place in places.items():
        keys = (place.name, _safe(place.name), str(place.index))
        values = next((arrays[key] for key in keys if key in arrays), None)
        if values is None:
            continue
        rank = 2 if place.features is not None else len(place.order)
        if values.ndim != rank or (place.features is not None and values.shape[1] != len(place.features)):
            raise UnusableData(
                f"{dump}: {place}: shape {list(values.shape)}, wanted {rank} axes; dump it as the file has it"
            )
        found[name] = np.ascontiguousarray(place.read(values))
    if not found:
        example = next(iter(places.values()))
        raise UnusableData(
            f"{dump}: holds none of the file's {len(places)} tensors; name them as it does ({example.name}), or by"
            f" number ({example.index})"
        )
    return found


def _safe(name: str) -> str:
    """A tensor's name as a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _arrays(path: Path) -> dict[str, Array]:
    if not path.is_dir():
        return {key: array.whole() for key, array in stored(path).items()}
    try:
        return {file.stem: stored(file)[""].whole() for file in path.iterdir() if file.suffix == ".npy"}
    except (OSError, KeyError) as error:
        raise UnusableData(f"{path}: cannot be read ({error}); dump it again") from error
