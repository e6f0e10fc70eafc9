"""What a user sees when something cannot be used: a line that says what is wrong, where, and what to do."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def in_a_line(text: str) -> str:
    """The text with line ends and what no terminal should be sent, as names in files may hold it, spelled out.

    Example:
        >>> print(in_a_line("Conv \\x1b[31mred, größer"))
        Conv \\x1b[31mred, größer
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class EquintError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do.

    The command line prints it as one line and exits with code 2. Every kind of it is a class of its own below.

    Example:
        >>> print(EquintError("Conv first\\nlayer: its weights are not finite"))
        Conv first\\nlayer: its weights are not finite
    """

    def __str__(self) -> str:
        return in_a_line(super().__str__())


class UnreadableModel(EquintError):
    """A network that is missing, damaged, quantized already, or of a form that is not read."""


class UnsupportedOperator(EquintError):
    """An operator, or one of its attributes or shapes, that has no form where it is needed."""


class UnusableData(EquintError):
    """Samples, statistics, labels or values that are missing, do not fit, or are not finite."""


class UnknownName(EquintError):
    """No recipe, target, task, layer, tensor or key is called this."""


class InvalidOption(EquintError):
    """An argument or option of a wrong type, out of its bounds, or at odds with another."""


class InvalidRecipe(EquintError):
    """A recipe that cannot be read, or whose passes and formats do not go together."""


class InvalidTarget(EquintError):
    """A target that cannot be read, or lacks or misstates what is asked of it."""


class InvalidCard(EquintError):
    """A card that cannot be read, or lacks or misstates what is asked of it."""


class TargetMismatch(EquintError):
    """A format or value that the target's hardware does not take."""


class OutputRefused(EquintError):
    """An output that cannot be written, or would overwrite what must not be lost."""


class MissingLibrary(EquintError):
    """An optional library that is not installed."""


def counted(count: int, noun: str) -> str:
    """So many of something.

    Example:
        >>> counted(1, "image"), counted(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def meant(name: str, known: Iterable[str]) -> str:
    """A question, where a name looks like a misspelt one that is known; else nothing.

    Example:
        >>> f"unknown target 'openvin'; {meant('openvin', ['openvino', 'qnn'])}choose openvino, qnn"
        "unknown target 'openvin'; did you mean openvino? choose openvino, qnn"
    """
    found = get_close_matches(name, list(known), 1, 0.75)
    return f"did you mean {found[0]}? " if found else ""


_WHERE = re.compile(r"\S*/\S+\.(?:h|hpp|cc|cpp):\d+ (?:[^()]*\([^()]*\)(?: const)?(?: \[[^\]]*\])?)?\s*")
_CHECK = re.compile(r"[^.:'\"]*? was false\. (?=\S)")
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Non-zero status code returned while running )?")


def reason(error: BaseException, most: int = 300) -> str:
    """What a library says of a failure, in one line, without its codes and the places in its source.

    Example:
        >>> where = "/build/onnxruntime/core/tensor/reshape.h:84 onnxruntime::Reshape::Reshape(const Shape&, bool)"
        >>> said = f"Status Message: {where} input_size == size was false. It cannot be reshaped. Input shape:{{1,8}}"
        >>> reason(ValueError(f"[ONNXRuntimeError] : 1 : FAIL : {said}"))
        'Status Message: It cannot be reshaped. Input shape:{1,8}'
    """
    text = " ".join(str(error).split())
    text = _CHECK.sub(" ", _WHERE.sub(" ", _CODE.sub("", text)))
    return " ".join(text.split())[:most]
