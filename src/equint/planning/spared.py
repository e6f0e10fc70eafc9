"""What was read is not written over: one guard for the library and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..drafts import check_kind, writable
from ..errors import OutputRefused
from ..files import is_bundle
from ..kinds import fits
from ..samples.card import Card, named_files


def spare(outputs: Mapping[Any, str | None], given: Mapping[str, Any]) -> None:
    """Refuse outputs that cannot be written, that would overwrite what must not be lost, or whose names mislead.

    Args:
        outputs: what kind of file is written (`equint.kinds`), by path; None where that is not known.
        given: by what it is ("model", "network", "card", "data", "recipe", "target", …) a path, a `Card`, or anything
            else, which is no file; or a list of them. Also spared are a network's external data, both files of a
            bundle, what a card names, and files in folders of images.

    Raises:
        OutputRefused: naming the output, and what would be lost or its ending promises.

    Example:
        >>> spare({"int8.onnx": "a network"}, {"model": "net.onnx", "target": "qnn"})
        >>> spare({"net.onnx": "a network"}, {"model": "./net.onnx"})
        Traceback (most recent call last):
        equint.errors.OutputRefused: net.onnx: would overwrite the model; choose another output
        >>> spare({"int8.png": "a network"}, {"model": "net.onnx"})
        Traceback (most recent call last):
        equint.errors.OutputRefused: int8.png: would be a network, which .png does not promise; choose another name
    """
    for output, written in outputs.items():
        target = writable(output)
        for what, file in _files(given, target.exists()):
            if (
                target == file
                or target in _fitting(file)
                or (target.exists() and file in target.parents and file.is_dir())
            ):
                raise OutputRefused(f"{output}: would overwrite {what}; choose another output")
        if written is not None and not fits(written, output):
            ending = Path(output).suffix
            raise OutputRefused(f"{output}: would be {written}, which {ending} does not promise; choose another name")
        check_kind(output, written)


def _files(given: Mapping[str, Any], there: bool) -> Iterator[tuple[str, Path]]:
    """What is at stake, links followed: (what it is, file or folder); weights only of outputs that are there."""
    several = ((what, values if isinstance(values, list) else [values]) for what, values in given.items())
    for what, value in ((what, value) for what, values in several for value in values):
        if isinstance(value, Card):
            named = {key: Path(at) for key, at in value.data.items() if isinstance(at, (str, os.PathLike))}
            yield from ((f"{key} of the card", _real(file)) for key, file in named.items())
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
            continue
        path = Path(value)
        if what in ("recipe", "target") and path.suffix != ".toml":
            continue  # a name
        for file in _both(path) if is_bundle(path) else (path,):
            yield f"the {what.replace('_', ' ')}", _real(file)
        if what in ("model", "network") and there:
            from ..onnx.reader import external_files

            yield from ((f"the weights of {path}", file) for file in external_files(path))
        if what in ("card", "network"):
            yield from ((f"{key} of {path}", _real(file)) for key, file in named_files(path).items())


def _fitting(pattern: Path) -> list[Path]:
    """What fits a name such as `shards/*.tar`, links followed."""
    if not any(c in pattern.name for c in "*?["):
        return []
    return [_real(file) for file in pattern.parent.glob(pattern.name)]


def _real(file: Path) -> Path:
    """Links followed; a loop of them, or a name that no file has, is left as it is: who reads it says so."""
    try:
        return Path(os.path.realpath(file))
    except ValueError:
        return file


def _both(path: Path) -> tuple[Path, Path]:
    from ..npu.bundle import bundle_files

    return bundle_files(path)
