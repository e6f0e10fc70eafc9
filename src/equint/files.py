"""Files: what is opened, plain values for JSON, TOML, and arrays that wait on disk."""

from __future__ import annotations

import math
import os
import stat
import tempfile
import tomllib
import weakref
from collections.abc import Callable, Collection, Iterator, KeysView, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np

from .errors import EquintError, InvalidCard, OutputRefused
from .ir.model import Array
from .markup import of_facts


def is_bundle(source: object) -> bool:
    """Whether a source is named like one of a bundle's two files."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith((".json", ".safetensors"))


MOST_TEXT = 1 << 24
"""Bytes of the longest table, list or manifest that is read."""


def readable(path: str | os.PathLike[str], refusal: type[EquintError], what: str = "file", most: int = 0) -> Path:
    """A file that can be read to its end: a regular one, of `most` bytes where that is not 0.

    Raises:
        EquintError: the `refusal`: it is not there, a folder, a pipe or a device, too large, or its name is none.

    Example:
        >>> readable("/dev/zero", InvalidCard, "card")
        Traceback (most recent call last):
        equint.errors.InvalidCard: /dev/zero: is no regular file; give a card that is one
    """
    if not os.fspath(path):
        raise refusal(f"{path!r}: an empty path is none; give a {what}")
    found = Path(path)
    try:
        status = found.stat()
    except FileNotFoundError as error:
        raise refusal(f"{path}: no such {what}; correct its name") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise refusal(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); give a {what}") from error
    if stat.S_ISDIR(status.st_mode):
        raise refusal(f"{path}: is a folder; give a {what}")
    if not stat.S_ISREG(status.st_mode):
        raise refusal(f"{path}: is no regular file; give a {what} that is one")
    if most and status.st_size > most:
        raise refusal(
            f"{path}: {status.st_size / 1e6:.0f} MB, too long for a {what}; give one of {most / 1e6:.0f} MB at most"
        )
    return found


def jsonable(value: Any, odd: Callable[[float], Any] = lambda value: None) -> Any:
    """Plain values for JSON, which knows no infinity: what is not finite becomes what `odd` makes of it, null.

    Example:
        >>> jsonable({"sqnr_db": float("inf"), "bits": (8, np.int64(8))})
        {'sqnr_db': None, 'bits': [8, 8]}
    """
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, odd) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v, odd) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return odd(value) if isinstance(value, float) and not math.isfinite(value) else value


class Facts(Protocol):
    """A result, a dataclass, that also reads like the mapping of its facts."""

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {field.name: jsonable(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        """For notebooks: the line that `repr` is, and the facts as small tables."""
        return of_facts(repr(self), self.facts())

    def keys(self) -> KeysView[str]:
        """Names of the facts."""
        return self.facts().keys()

    def __getitem__(self, key: str) -> Any:
        return self.facts()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


def read_toml(path: Path, what: str, refusal: type[EquintError] = InvalidCard) -> dict[str, Any]:
    """A TOML file as plain tables.

    Args:
        what: how messages call such a file.
        refusal: the kind of error that is raised.

    Raises:
        EquintError: it is not there, or no TOML.
    """
    text = ""
    try:
        text = readable(path, refusal, what, MOST_TEXT).read_text("utf-8")
        found = tomllib.loads(text)
        if deepest(found, 64) > DEEPEST:
            raise RecursionError
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, numbers of 5,000 digits
        why = _why_no_toml(error, text)
        raise refusal(f"{path}: not a readable TOML {what} ({why}); correct it") from error
    return found


def _why_no_toml(error: Exception, text: str) -> str:
    """What is wrong; of what lies too deep or has too many digits, the key whose line is longest."""
    digits = "digits" in str(error) or "64 bits" in str(error)
    if not digits and not isinstance(error, RecursionError):
        return str(error)[:200]
    longest = max(text.splitlines(), key=len, default="")
    return f"{longest.partition('=')[0].strip()[:80]}: {'more than 64 bits' if digits else 'nested too deep'}"


DEEPEST = 32
"""How deep values may lie in tables and lists that are read."""


def deepest(value: Any, bits: int = 0) -> int:
    """How deep lists and tables lie in one another, without recursion. Raises ValueError: a number beyond so many bits.

    Example:
        >>> deepest(3), deepest({"a": [[1], 2]})
        (0, 3)
    """
    depth, level = 0, [value]
    while inner := [one for one in level if isinstance(one, (list, dict))]:
        depth += 1
        level = [each for one in inner for each in (one.values() if isinstance(one, dict) else one)]
        if bits and any(type(each) is int and abs(each) >> (bits - 1) for each in level):
            raise ValueError(f"a number of more than {bits} bits")
    return depth


def check_keys(
    label: str, where: str, table: Mapping[str, Any], known: Collection[str], refusal: type[EquintError]
) -> None:
    """Refuse keys of a table that are not known. Raises the `refusal`, naming file, key and what is known.

    Example:
        >>> check_keys("a.toml", "[weight]", {"bit": 8}, {"bits"}, InvalidCard)
        Traceback (most recent call last):
        equint.errors.InvalidCard: a.toml: unknown key 'bit' in [weight]; known keys: bits
    """
    unknown = sorted(set(table) - set(known))
    if unknown:
        options = ", ".join(sorted(known)) or "none"
        raise refusal(f"{label}: unknown key {unknown[0]!r} in {where}; known keys: {options}")


def check_values(
    label: str,
    where: str,
    table: Mapping[str, Any],
    kind: Any,
    refusal: type[EquintError],
    also: Mapping[str, Any] | None = None,
) -> None:
    """Refuse values of a wrong type for the fields of a dataclass; `also` allows one more value for some fields.

    Whole numbers pass for floats; Literals are choices; tuples are lists of texts or choices.

    Raises:
        EquintError: the `refusal`, naming file, key, and what it may be.

    Example:
        >>> from .ir.model import QSpec
        >>> check_values("a.toml", "[weight]", {"granularity": "row"}, QSpec, InvalidCard)
        Traceback (most recent call last):
        equint.errors.InvalidCard: a.toml: granularity = 'row' in [weight]; expected 'tensor', 'channel', 'shift'
    """
    hints = get_type_hints(kind)
    for key, value in table.items():
        hint = hints[key]
        several = get_origin(hint) is tuple
        hint = get_args(hint)[0] if several else hint
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        asked = ", ".join(map(repr, choices)) if choices else hint.__name__

        def fits(one: Any, hint: Any = hint, choices: Any = choices) -> bool:
            if choices:
                return one in choices
            return type(one) is hint or (hint is float and type(one) is int)

        if several:
            good, asked = isinstance(value, list) and all(map(fits, value)), f"a list of {asked}"
        else:
            good = fits(value) or (also is not None and key in also and value == also[key])
        if not good:
            raise refusal(f"{label}: {key} = {value!r} in {where}; expected {asked}")


class Shelf:
    """Arrays that wait on disk, in a file without a name that goes with the shelf.

    Example:
        >>> shelf = Shelf()
        >>> shelf.append(np.arange(6, dtype=np.uint8).reshape(2, 3))
        >>> len(shelf), shelf[0].tolist()
        (1, [[0, 1, 2], [3, 4, 5]])
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._end = 0
        self._index: list[tuple[int, str, tuple[int, ...]]] = []
        weakref.finalize(self, self._file.close)

    def append(self, array: Array) -> None:
        """Put an array at the end. Raises OutputRefused: there is no room for it."""
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        start, size = self._end, len(raw)
        self._file.seek(start)
        try:
            while len(raw):
                raw = raw[self._file.write(raw) :]
        except OSError as error:
            where = f"{tempfile.gettempdir()}: samples cannot wait there ({error.strerror or error})"
            raise OutputRefused(f"{where}; free space, or set TMPDIR to where there is some") from error
        self._index.append((start, str(array.dtype), array.shape))
        self._end = start + size

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, k: int) -> Array:
        start, dtype, shape = self._index[k]
        found = np.empty(shape, dtype)
        raw = found.reshape(-1).view(np.uint8).data
        self._file.seek(start)
        while len(raw):
            raw = raw[self._file.readinto(raw) :]
        return found
