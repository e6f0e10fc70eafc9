"""What public functions are given: of which kinds, and which recipe and target are meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from types import NoneType
from typing import Any

from .errors import InvalidOption, InvalidRecipe, InvalidTarget
from .hardware.target import TARGETS, Target
from .hardware.target import target as built_in_target
from .planning.recipe import Recipe
from .planning.recipe import recipe as built_in_recipe
from .samples.card import Card

Named = str | os.PathLike[str]
Providers = str | Sequence[str] | None
"""Execution providers of onnxruntime, by name; several in a list, or behind commas."""


def choose(recipe: Named | Recipe | None, target: Named | Target | None) -> tuple[Recipe, Target]:
    """The recipe and the target to use, where one of them may be left out.

    Raises:
        UnknownName: there is none of that name.

    Example:
        >>> [v.name for v in choose(None, "npu-shift")]
        ['wes-optimal', 'npu-shift']
    """
    on = None if target is None else built_in_target(target)
    if recipe is None and on is not None:
        try:
            recipe = built_in_recipe(on.recipe)
        except InvalidRecipe as error:
            label = on.name if isinstance(target, Target) else target
            raise InvalidTarget(f"{label}: recipe = {on.recipe!r} cannot be used ({error})") from error
    chosen = built_in_recipe(recipe if recipe is not None else TARGETS[0].recipe)
    return chosen, on or built_in_target(chosen.target)


MOST_SAMPLES = 100_000_000
"""Samples that anything is asked to look at: more than any set of data holds."""
_NETWORK = ("a path, an ONNX model, or what load or quantize gave", str, os.PathLike)
_FLAG = ("True or False", bool)
_PATH, _BITS, _COUNT = ("a path", str, os.PathLike), ("a whole number from 2 to 16", int), ("how many", int)
_KINDS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("source", "original", "quantized", "against"), _NETWORK),
    **dict.fromkeys(("path", "folder", "dump", "cache"), _PATH),
    **dict.fromkeys(("golden", "resume", "data", "saved"), (*_PATH, NoneType)),
    **dict.fromkeys(("weight_bits", "activation_bits"), (*_BITS, NoneType)),
    **dict.fromkeys(("images", "limit"), (*_COUNT, NoneType)),
    **dict.fromkeys(("histograms", "optimized", "raw", "force"), _FLAG),
    "fused_activations": (*_FLAG, NoneType),
    "sparse": ('"auto", True or False', str, bool),
    **dict.fromkeys(("effort", "format"), ("a text", str)),
    "io": ("a text", str, NoneType),
    **dict.fromkeys(("max_drop", "sparsity"), ("a number", Real)),
    "jobs": _COUNT,
    "ray": ('"local", or the address of a cluster', str, NoneType),
    "providers": ("names of execution providers", str, list, tuple, NoneType),
    "name": ("a name", str),
    **dict.fromkeys(("command", "todo"), ("a text", str)),
    "recipe": ("a recipe, its name or its TOML file", str, os.PathLike, Recipe, NoneType),
    "target": ("a target, its name or its TOML file", str, os.PathLike, Target, NoneType),
    "card": ("a card or its path", str, os.PathLike, Card, NoneType),
    "set": ("numbers or arrays by the names of inputs", Mapping, NoneType),
    "progress": ("a function of a name, a number and how many there are", Callable, NoneType),
}
"""What arguments of public functions are, in words and in types."""
_PATHS = frozenset(name for name, kind in _KINDS.items() if kind[:3] in (_NETWORK, _PATH)) | {"card"}


def check(**arguments: object) -> None:
    """Refuse arguments of a wrong type, and paths that are none; True and False are no numbers.

    Raises:
        InvalidOption: naming the argument.

    Example:
        >>> check(images=3, weight_bits=8.5)
        Traceback (most recent call last):
        equint.errors.InvalidOption: weight_bits = 8.5: give a whole number from 2 to 16
    """
    for name, value in arguments.items():
        wanted, *kinds = _KINDS[name]
        if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
            raise refused(name, value, wanted)
        if name in _PATHS:
            check_path(name, value)
        if wanted == "how many" and isinstance(value, int) and value > MOST_SAMPLES:
            raise refused(name, value, f"{MOST_SAMPLES:,} at most")


def check_path(name: str, value: object) -> None:
    """Refuse a text that no file or folder is called, and so an empty one; whatever else is given passes.

    Raises:
        InvalidOption: naming the argument.

    Example:
        >>> check_path("data", "")
        Traceback (most recent call last):
        equint.errors.InvalidOption: data = '': an empty path is none; name a file or folder
    """
    try:
        text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else "."
        what = "an empty path" if not text else "a path with a null character" if b"\0" in os.fsencode(text) else ""
    except UnicodeEncodeError:
        what = "a path that cannot be encoded"
    if what:
        raise InvalidOption(f"{name} = {value!r}: {what} is none; name a file or folder")


def refused(name: str, value: object, wanted: str) -> InvalidOption:
    """What is said of an argument of a wrong type.

    Example:
        >>> str(refused("result", 3, "what quantize gave"))
        'result = 3: give what quantize gave'
    """
    shown = repr(value)
    shown = f"a {type(value).__name__}" if len(shown) > 60 or "\n" in shown else shown
    return InvalidOption(f"{name} = {shown}: give {wanted}")
