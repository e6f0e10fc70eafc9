"""Bundles: an integer network as a JSON manifest and a safetensors file beside it, packed as hardware reads it.

`bundle.schema.json` describes the manifest, `docs/npu.md` the packing. Nothing in a bundle is executed on reading.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..drafts import drafted_together
from ..errors import EquintError, TargetMismatch, UnreadableModel, reason
from ..files import DEEPEST, deepest, readable
from ..integers.check import check
from ..integers.program import Program
from .records import AGAIN, Record, decode, encode

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

FORMAT, VERSION = "equint.bundle", 1
MOST = 1 << 30
"""Bytes of either file."""


def save_bundle(
    program: Program, path: str | os.PathLike[str], sparse: Literal["auto"] | bool = "auto"
) -> tuple[Path, Path]:
    """Write `<name>.json` and `<name>.safetensors`. The same program gives the same bytes.

    Args:
        path: either file, or their name without ending.
        sparse: whether weights are stored as a mask and those that are not zero; "auto" decides layer by layer for
            what takes fewer bytes.

    Returns:
        The two files, the manifest first.

    Raises:
        EquintError: a file cannot be written, or a shift does not fit into the target's `shift_bits`.

    Example:
        >>> import tempfile
        >>> from equint.ir.model import QParams
        >>> from equint.integers.program import Step
        >>> grid = QParams(np.float32(0.5), np.int32(0))
        >>> program = Program((Step("Identity", "", ("x",), ("y",)),), ("x",), ("y",), {"x": grid, "y": grid})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = save_bundle(program, Path(folder) / "net")
        ...     [file.name for file in files], load_bundle(files[0]).steps == program.steps
        (['net.json', 'net.safetensors'], True)
    """
    manifest, tensors = bundle_files(path)
    if sparse not in ("auto", True, False):
        raise UnreadableModel(f"sparse = {sparse!r}: choose auto, True or False")
    if program.rounding == "double" or any(s.requantize is not None and s.requantize.rounding for s in program.steps):
        why = f"target {program.target}: bundles hold no arithmetic of LiteRT"
        raise TargetMismatch(f"{why}; quantize for npu-shift, or write a .tflite file")
    content, arrays = encode(program, sparse)
    blob = save_tensors({name: np.asarray(array, order="C") for name, array in arrays.items()})
    described: Record = {"format": FORMAT, "version": VERSION, **content}
    described["tensors"] = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
    described["sha256"] = digest(described)
    text = json.dumps(described, indent=1, allow_nan=False) + "\n"
    with drafted_together([manifest, tensors]) as (text_draft, blob_draft):
        text_draft.write_text(text, "ascii")
        blob_draft.write_bytes(blob)
    return manifest.resolve(), tensors.resolve()


def load_bundle(path: str | os.PathLike[str]) -> Program:
    """The program that was saved: every integer, type and attribute as it was.

    Args:
        path: as in `save_bundle`.

    Raises:
        EquintError: a file is missing, cut off, changed, of another version or no bundle at all; a tensor is missing
            or does not have the shape that the manifest says. It names the file and the step.

    Example:
        >>> load_bundle("gone/net")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: gone/net.json: no such file; a bundle is a .json and a .safetensors of one name
    """
    manifest, tensors = bundle_files(path)
    described = _read_manifest(manifest)
    blob = _bytes_of(tensors)
    stated = described["tensors"]
    if len(blob) != stated["bytes"]:
        raise UnreadableModel(
            f"{tensors}: {len(blob)} bytes where {manifest.name} says {stated['bytes']}; copy both files again"
        )
    if hashlib.sha256(blob).hexdigest() != stated["sha256"]:
        raise UnreadableModel(f"{tensors}: not the tensors of {manifest.name} (SHA-256 differs); copy both files again")
    try:
        arrays = load_tensors(blob)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableModel(f"{tensors}: no safetensors file ({error}); {AGAIN}") from error
    program = decode(described, arrays, manifest, tensors)
    try:
        check(program)
    except EquintError as error:
        raise UnreadableModel(f"{manifest}: {error}; {AGAIN}") from error
    _check_form(program, manifest)
    return program


def _check_form(program: Program, manifest: Path) -> None:
    """Windows and shapes agree from step to step: ONNX's checker goes through the program's integer form."""
    from ..integers.emit import export_integer

    if not program.shapes.keys() >= {*program.inputs}:
        return  # which it need not say
    try:
        export_integer(program)
    except UnreadableModel as error:
        raise UnreadableModel(f"{manifest}: {error}") from error
    except (
        EquintError,
        KeyError,
    ):  # what has no integer form in ONNX, or leaves out an attribute, is not therefore wrong
        return
    except Exception as error:
        raise UnreadableModel(f"{manifest}: its steps do not fit together ({reason(error)}); {AGAIN}") from error


@cache
def schema() -> Mapping[str, Any]:
    """The JSON schema (draft 2020-12) of the manifest."""
    return dict(json.loads(resources.files(__package__).joinpath("bundle.schema.json").read_text("utf-8")))


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content, its own `sha256` left out: as ASCII JSON with sorted keys and no spaces."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def bundle_files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """(manifest, tensors) of a bundle called by either file or by its name.

    Raises:
        EquintError: a name that no file can have.

    Example:
        >>> [file.name for file in bundle_files("out/net.v1")]
        ['net.v1.json', 'net.v1.safetensors']
    """
    given = Path(path)
    if given.suffix in (".json", ".safetensors"):
        given = given.with_suffix("")
    if not given.name:
        raise UnreadableModel(f"{path}: no name for a bundle; give one such as out/network")
    return given.with_name(f"{given.name}.json"), given.with_name(f"{given.name}.safetensors")


def _bytes_of(file: Path) -> bytes:
    try:
        if file.exists():
            readable(file, UnreadableModel, "bundle", MOST)
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableModel(f"{file}: no such file; a bundle is a .json and a .safetensors of one name") from error
    except (OSError, ValueError) as error:
        raise UnreadableModel(f"{file}: cannot read ({getattr(error, 'strerror', None) or error})") from error


def _read_manifest(file: Path) -> Record:
    text = _bytes_of(file)
    try:
        found = json.loads(text, parse_constant=_no_number)
        if deepest(found) > DEEPEST:
            raise RecursionError
    except (ValueError, RecursionError) as error:
        raise UnreadableModel(f"{file}: no JSON ({error or 'too deep'}); copy both files again, or {AGAIN}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UnreadableModel(f"{file}: no bundle of equint; give the .json that was written with one")
    if found.get("version") != VERSION:
        raise UnreadableModel(
            f"{file}: version {found.get('version')} where this equint reads {VERSION}; update equint, or {AGAIN}"
        )
    try:
        wrong = _misfit(found)
        same = wrong is None and digest(found) == found["sha256"]
    except (RecursionError, ValueError) as error:
        raise UnreadableModel(f"{file}: too deep for a bundle; {AGAIN}") from error
    if wrong is not None:
        raise UnreadableModel(f"{file}: {wrong}; {AGAIN}")
    if not same:
        raise UnreadableModel(f"{file}: was changed after it was written (SHA-256 differs); {AGAIN}")
    return found


def _misfit(manifest: Record) -> str | None:
    """What in a manifest the schema does not allow, and where; None if all of it fits."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(manifest))
    if error is None:
        return None
    where, what = error.json_path.removeprefix("$").removeprefix("."), error.message
    what = what if len(what) <= 120 else f"{what[:60]} … {what[-60:]}"
    return f"{where}: {what}" if where else what


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator, validators

    def whole(checker: object, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", whole)  # 8.0 is one to JSON, and none to a shift
    extended = validators.extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    made: Draft202012Validator = extended(schema())
    return made


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
