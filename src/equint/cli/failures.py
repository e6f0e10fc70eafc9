"""What is said where a command fails, is misused or stopped: one line on standard error."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import (
    EquintError,
    InvalidOption,
    TargetMismatch,
    UnreadableModel,
    UnsupportedOperator,
    UnusableData,
    in_a_line,
    meant,
)

PART = ".part.npz"
"""How the file ends in which an interrupted calibration waits."""


_ENDLESS = re.compile(r"(\S{60})\S{40,}(\S{20})")
"""Words of which the middle is left out."""
LONGEST = 690
"""Characters of a message; of longer ones the middle is left out."""


def end(said: str, code: int = 2) -> NoReturn:
    """Say it on standard error in a line of what terminals can be sent, and stop."""
    line = said if said.startswith("Usage") else in_a_line(" ".join(said.split()))
    line = line if line is said else _ENDLESS.sub(r"\1…\2", line)
    if len(line) > LONGEST and line is not said:
        line = f"{line[: LONGEST - 203]} … {line[-200:]}"
    print(line, file=sys.stderr)
    sys.exit(code)


def empty(arguments: Sequence[str]) -> str:
    """What an empty text is given for, which would mean the current folder where a path is asked for; else nothing.

    Example:
        >>> empty(["card", "net.onnx", "--data", ""]), empty(["card", "net.onnx", "--data="]), empty(["inspect", ""])
        ("--data ''", "--data=''", "''")
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if argument.startswith("--") and argument.endswith("="):
            return f"{argument}''"
        if not argument:
            return f"{before} ''" if before.startswith("-") else "''"
    return ""


OF_FILES = (UnreadableModel, UnsupportedOperator, UnusableData, TargetMismatch)
"""Kinds of errors that are about what a file holds."""


def named(error: EquintError, arguments: Sequence[str], options: Mapping[str, str]) -> str:
    """What an error says, behind the first file on the command line where it is about one and names none.

    Args:
        options: how the command's options are spelled, by the names that the library has for them.

    Example:
        >>> named(UnsupportedOperator("last: Einsum has no integer form"), ["export", "/usr"], {})
        '/usr: last: Einsum has no integer form'
        >>> named(UnreadableModel("none.onnx: no such file"), ["evaluate", "none.onnx", "--card", "/usr"], {})
        'none.onnx: no such file'
    """
    said = str(error)
    if isinstance(error, InvalidOption | UnusableData):
        said = as_options(said, options)
    arguments = arguments[1:]  # behind the command
    files = [a for a in arguments if _is_file(a)]
    given = {"--data", "--merge", "--card"} if isinstance(error, UnusableData) else set()
    files = [a for a, before in zip(arguments[1:], arguments, strict=False) if before in given] or files
    head = said.partition(": ")[0]
    named_already = (
        head in arguments
        or _is_file(head)
        or any(in_a_line(os.path.basename(a)) in said for a in arguments if _is_file(a))
    )
    if not isinstance(error, OF_FILES) or named_already or not files:
        return said
    return f"{files[0]}: {said}"


_NAMED = re.compile(r"(?<![\w./'\"-])(\w+)(?![\w/'\"-])( = (?=\S))?")
"""Words of a message, and whether a value is theirs."""


def as_options(said: str, options: Mapping[str, str]) -> str:
    """What the library says of its arguments, in the spelling of a command's options.

    Example:
        >>> options = {"max_drop": "--max-drop", "images": "--images"}
        >>> as_options("max_drop = 200.0: give points from 0 to 100", options)
        '--max-drop 200.0: give points from 0 to 100'
        >>> as_options("max_drop: nothing to hold it against; leave it out", options)
        '--max-drop: nothing to hold it against; leave it out'
        >>> as_options("y.npz: no labels, which max_drop needs; images: none", options)
        'y.npz: no labels, which --max-drop needs; images: none'
    """

    def spelled(found: re.Match[str]) -> str:
        name, valued = found.groups()
        meant = name in options and (valued or "_" in name)  # a single word may be one of English
        return f"{options[name]}{' ' if valued else ''}" if meant else found[0]

    return _NAMED.sub(spelled, said)


def _is_file(argument: str) -> bool:
    """Whether something lies there, on the disk or in a file that does; or what a pattern fits."""
    try:
        if argument in ("", "."):
            return False
        inside = any(parent.is_file() for parent in Path(argument).parents)
        return os.path.exists(argument) or inside or (glob.has_magic(argument) and bool(glob.glob(argument)))
    except (OSError, ValueError):  # a name that no file can have
        return False


def kept(arguments: Sequence[str], written: Sequence[Path]) -> str:
    """What is left of a command that was interrupted.

    Example:
        >>> kept(["quantize", "table", "-o", "q.onnx"], [])
        'nothing was written; give the command again'
        >>> kept(["auto", "net.onnx"], [Path("/here/net.int8.onnx")])
        'net.int8.onnx was written, and is whole; give the command again for the rest'
    """
    command, names = next((a for a in arguments if not a.startswith("-")), ""), [path.name for path in written]
    if command == "table":
        return "finished cells are kept in the cache, and the same command goes on from them"
    if command == "calibrate" and names and names[-1].endswith(PART):
        return f"what was measured is kept in {names[-1]}, and the same command goes on from it"
    if names:
        files = ", ".join(dict.fromkeys(names))
        are = "was written, and is whole" if len(set(names)) == 1 else "were written, and are whole"
        return f"{files} {are}; give the command again for the rest"
    return "nothing was written; give the command again"


_GUESS = re.compile(r"\.? [('\"]*(?:Did you mean|Possible options:) .*$")
"""What the parser guesses, which is asked in our words."""


def usage(error: Any, commands: Sequence[str]) -> str:
    """What is wrong with the arguments, in a line, and where to look; help where there were none."""
    said = str(error.format_message()).rstrip(".")
    if "\n" in said:
        return said
    said = _GUESS.sub("", said)
    wrong = getattr(error, "option_name", "") or said.partition("No such command ")[2].strip("'")
    known = getattr(error, "possibilities", None) or commands
    command = error.ctx.command_path if error.ctx is not None else "equint"
    return f"equint: {said[:1].lower()}{said[1:]}; {meant(wrong, known) if wrong else ''}{command} --help says more"
