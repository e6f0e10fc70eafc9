"""Programs saved as .tflite files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..drafts import drafted
from ..errors import InvalidOption, TargetMismatch
from ..hardware.target import Target
from ..integers.program import Program
from .writer import IOS, TARGET, Io, write

SUFFIX = ".tflite"
"""The ending of names by which the format is chosen."""


def is_tflite(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name asks for the format.

    Example:
        >>> is_tflite("net.tflite"), is_tflite(".tflite"), is_tflite("net.onnx")
        (True, True, False)
    """
    return Path(path).name.lower().endswith(SUFFIX)


def io_of(text: str | None) -> Io | None:
    """The type of a file's inputs and outputs; None for that of its integers.

    Raises:
        InvalidOption: there is none of that name.
    """
    found = next((io for io in IOS if io == text), None)
    if text is not None and found is None:
        raise InvalidOption(f"io = {text!r}: choose {', '.join(IOS)}")
    return found


def check_target(target: Target) -> None:
    """Refuse a target whose arithmetic is not LiteRT's, or that takes no such files.

    Raises:
        TargetMismatch: saying which to take.
    """
    if target.arithmetic != "litert":
        raise TargetMismatch(
            f"target {target.name}: LiteRT computes otherwise; quantize for {TARGET} to write {SUFFIX}"
        )
    if "tflite" not in target.formats:
        taken = ", ".join(target.formats)
        raise TargetMismatch(
            f'target {target.name}: takes no {SUFFIX} files (formats: {taken}); add "tflite" to its formats, or'
            f" quantize for {TARGET}"
        )


def save(
    program: Program,
    path: str | os.PathLike[str],
    io: Io | None = None,
    about: Mapping[str, Any] | None = None,
    taken: Collection[str] = (),
    compiler: str = "",
) -> None:
    """Write a program as `write` does; the file appears whole or not at all.

    Raises:
        EquintError: as `write`; also outputs that cannot be written.
    """
    data = write(program, io, about, taken, compiler)
    with drafted(path) as (draft, _):
        draft.write_bytes(data)
