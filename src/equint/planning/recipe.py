"""Recipes: a target and a list of passes, as data, read from TOML and checked key by key."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from ..errors import EquintError, InvalidRecipe, meant
from ..files import check_keys, check_values, read_toml
from ..graph.overrides import Override
from ..hardware.target import TARGETS, target
from ..ir.model import QSpec
from ..maths.affine import BiasGrid
from ..passes import LOOKS, Stage, followed, needs
from ..passes.absorb_bias import AbsorbBias
from ..passes.activation_ranges import ActivationRanges
from ..passes.calibrate import Calibrate
from ..passes.clip_weights import ClipWeights
from ..passes.correct_bias import CorrectBias
from ..passes.correct_bias_empirical import CorrectBiasEmpirical
from ..passes.equalize import Equalize
from ..passes.finetune_bias import FinetuneBias
from ..passes.fold_batchnorm import FoldBatchnorm
from ..passes.headroom import Headroom
from ..passes.layers_only import LayersOnly
from ..passes.one_step import OneStep
from ..passes.optimal import Optimal
from ..passes.prune import Prune
from ..passes.quantize import Quantize
from ..passes.relu6 import Relu6
from ..passes.round_weights import RoundWeights
from ..passes.two_step import TwoStep
from ..passes.weight_shift import WeightShift
from .run import pass_name

PASSES: Mapping[str, Any] = {
    pass_name(kind): kind
    for kind in (
        *(
            FoldBatchnorm,
            Relu6,
            Calibrate,
            Equalize,
            OneStep,
            TwoStep,
            AbsorbBias,
            ActivationRanges,
            Optimal,
            Headroom,
            LayersOnly,
            Prune,
        ),
        *(WeightShift, ClipWeights, Quantize, RoundWeights, CorrectBias, CorrectBiasEmpirical, FinetuneBias),
    )
}
"""The passes a recipe can name."""

Steps = tuple[tuple[str, Mapping[str, Any]], ...]
"""Names of passes and their options, in order."""
ActivationBits = int | Literal["float"] | None
SLOW_ROUNDING = ("round_weights", "second-order")
"""The pass and its method that quick forms of recipes do without."""
QUICK_STEPS = 100
"""Steps of `optimal` in quick forms of recipes that name no number."""
_SPEC_KEYS = frozenset(f.name for f in fields(QSpec))


@dataclass(frozen=True)
class Candidate:
    """What a recipe is measured against: the recipe itself, some of its passes replaced.

    Attributes:
        without: names of passes that are left out; passes: (name, options) in the place of the first of them.
    """

    name: str
    without: tuple[str, ...]
    passes: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What to do to a network, as data.

    Attributes:
        level: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining.
        target: the target used where the user names none.
        weight, activation: fields of `QSpec` that differ from the target's.
        bias_bits: 8, 16 or 32 where it differs from the target's.
        bias_grid: "own" gives each bias of 16 bits a scale by its own extremes; "accumulator" puts all at s_in·s_w.
        passes: (name, options) in order.
        overrides: layers and tensors with another format; where several name the same, the last one counts.
        candidates: what else is tried; which one is kept is measured (docs/recipes.md).
    """

    name: str
    description: str = ""
    level: int = 1
    target: str = TARGETS[0].name
    weight: Mapping[str, Any] = field(default_factory=dict)
    activation: Mapping[str, Any] = field(default_factory=dict)
    bias_bits: int | None = None
    passes: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    overrides: tuple[Override, ...] = ()
    bias_grid: BiasGrid = "accumulator"
    candidates: tuple[Candidate, ...] = ()


_SCALED = ("optimal", "lwq", "cwq", "cwq-bc", "dfq", "dfq-published", "one-step", "two-step")
_FINETUNED = ("bias-finetune", "two-step-bias-finetune", "optimal-bias-finetune")
_WES = ("wes", "wes-optimal", "wes-published", "wes-published-iterative", "wes-published-clipped", "cwq-published")


def built_in() -> tuple[Recipe, ...]:
    """The recipes that come with equint.

    Example:
        >>> [r.name for r in built_in()][:9]
        ['optimal', 'lwq', 'cwq', 'cwq-bc', 'dfq', 'dfq-published', 'one-step', 'two-step', 'bias-finetune']
    """
    return tuple(_built_in(name) for name in (*_SCALED, *_FINETUNED, *_WES))


@cache
def _built_in(name: str) -> Recipe:
    return parse(tomllib.loads(source(name)), name)


def source(name: str) -> str:
    """The TOML of a built-in recipe, to copy and change."""
    return resources.files(__package__).joinpath("recipes", f"{name}.toml").read_text("utf-8")


def recipe(name: str | os.PathLike[str] | Recipe) -> Recipe:
    """A built-in recipe by name, or one read from a TOML file.

    Raises:
        EquintError: unknown name, unreadable file, unknown keys or values of a wrong type.
    """
    if isinstance(name, Recipe):
        return name
    label = os.fspath(name)
    known = {r.name: r for r in built_in()}
    if label in known:
        return known[label]
    path = Path(label)
    if path.suffix != ".toml":
        raise InvalidRecipe(f"unknown recipe {label!r}; {meant(label, known)}choose {', '.join(known)} or a .toml file")
    return parse(read_toml(path, "recipe file", InvalidRecipe), label)


def looks(chosen: Recipe) -> bool:
    """Whether a pass of the recipe looks at data: rounding by kernels alone does not."""
    blind = ("round_weights", "kernel")
    passes = (name for name, options in chosen.passes if (name, options.get("method", "kernel")) != blind)
    return any(LOOKS & set(needs(PASSES[name]).values()) for name in passes)


def needs_images(chosen: Recipe) -> tuple[str, ...]:
    """The passes that refuse to run without images.

    Example:
        >>> needs_images(recipe("one-step")), needs_images(recipe("optimal"))
        (('calibrate',), ())
    """
    refused = "without_images", "refused"
    return tuple(name for name, options in chosen.passes if name == "finetune_bias" or refused in options.items())


def without_images(chosen: Recipe) -> Recipe:
    """The recipe as it runs where a user asks to leave images out: what it refuses by itself is a warning then.

    Example:
        >>> dict(without_images(recipe("one-step")).passes)["calibrate"]
        {'without_images': 'warned'}
    """

    def asked(options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**options, "without_images": "warned"} if options.get("without_images") == "refused" else options

    return replace(chosen, passes=tuple((name, asked(options)) for name, options in chosen.passes))


def quick(chosen: Recipe) -> Recipe:
    """The recipe without what takes long: rounding by kernels in place of second-order rounding, half the search for
    scales, no candidates.

    Example:
        >>> dict(quick(recipe("optimal")).passes)["round_weights"]
        {'method': 'kernel'}
    """

    def hurried(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "optimal":
            return {"iterations": QUICK_STEPS, **options}
        return {**options, "method": "kernel"} if (name, options.get("method")) == SLOW_ROUNDING else options

    passes = tuple((name, hurried(name, options)) for name, options in chosen.passes)
    return replace(chosen, passes=passes, candidates=())


def variants(chosen: Recipe) -> tuple[Recipe, ...]:
    """The recipe alone, and with each of its candidates' changes: what is measured to choose among them.

    A candidate that leaves out nothing which the recipe has is none.

    Raises:
        InvalidRecipe: two of them have one name.

    Example:
        >>> [v.name for v in variants(recipe("optimal"))][:5]
        ['optimal', 'headroom', 'no headroom', 'unscaled', 'cross-layer']
    """
    alone = replace(chosen, candidates=())
    own = {name for name, _ in chosen.passes}
    changing = [c for c in chosen.candidates if own & set(c.without)]
    names = [chosen.name, *(c.name for c in changing)]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRecipe(f"recipe {chosen.name}: two candidates, or it and one, are called {name}; rename one")
    return (alone, *(replace(alone, name=c.name, passes=_changed(chosen.passes, c)) for c in changing))


def _changed(passes: Steps, candidate: Candidate) -> Steps:
    at = next(k for k, (name, _) in enumerate(passes) if name in candidate.without)
    front, rest = ([step for step in part if step[0] not in candidate.without] for part in (passes[:at], passes[at:]))
    return (*front, *candidate.passes, *rest)


def to_toml(chosen: Recipe) -> str:
    """A recipe as the text of a TOML file, which `recipe` reads back."""
    lines = [f"{key} = {_toml(getattr(chosen, key))}" for key in ("name", "level", "description", "target")]
    if chosen.bias_bits is not None:
        lines.append(f"bias_bits = {chosen.bias_bits}")
    if chosen.bias_grid != "accumulator":
        lines.append(f"bias_grid = {_toml(chosen.bias_grid)}")
    for key in ("weight", "activation"):
        table = getattr(chosen, key)
        if table:
            lines += ["", f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
    for name, options in chosen.passes:
        lines += ["", "[[passes]]", f"pass = {_toml(name)}", *(f"{k} = {_toml(v)}" for k, v in options.items())]
    for candidate in chosen.candidates:
        lines += ["", "[[candidates]]", f"name = {_toml(candidate.name)}", f"without = {_toml(candidate.without)}"]
        for name, options in candidate.passes:
            lines += ["", "[[candidates.passes]]", f"pass = {_toml(name)}"]
            lines += [f"{k} = {_toml(v)}" for k, v in options.items()]
    for override in chosen.overrides:
        said = {f.name: getattr(override, f.name) for f in fields(Override)}
        lines += ["", "[[overrides]]", *(f"{k} = {_toml(v)}" for k, v in said.items() if v not in (None, (), False))]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def parse(table: Mapping[str, Any], label: str) -> Recipe:
    """A recipe from TOML's tables, every key and type checked."""
    known = {f.name for f in fields(Recipe)}
    _refuse_unknown(label, "the recipe", table, known)
    for key in ("weight", "activation"):
        _refuse_unknown(label, f"[{key}]", _table(label, table.get(key, {}), f"[{key}]"), _SPEC_KEYS)
        _check_types(label, f"[{key}]", table.get(key, {}), QSpec)
        if not 2 <= (bits := table.get(key, {}).get("bits", 8)) <= 16:
            raise InvalidRecipe(f"{label}: bits = {bits} in [{key}]; choose 2 to 16")
    entries = table.get("passes", [])
    if not isinstance(entries, list) or not entries:
        raise InvalidRecipe(f"{label}: a recipe needs [[passes]]; see `equint recipes --show dfq`")
    passes = _passes(label, entries, "[[passes]]")
    _check_order(label, [name for name, _ in passes])
    level = table.get("level", 1)
    if type(level) is not int or level not in (1, 2, 3, 4):
        raise InvalidRecipe(f"{label}: level = {level!r}; choose 1, 2, 3 or 4")
    bias_bits = table.get("bias_bits")
    if bias_bits is not None and (type(bias_bits) is not int or bias_bits not in (8, 16, 32)):
        raise InvalidRecipe(f"{label}: bias_bits = {bias_bits!r}; choose 8, 16 or 32")
    if table.get("bias_grid", "accumulator") not in get_args(BiasGrid):
        raise InvalidRecipe(f"{label}: bias_grid = {table['bias_grid']!r}; choose accumulator or own")
    for key in ("name", "description", "target"):
        if not isinstance(table.get(key, ""), str):
            raise InvalidRecipe(f"{label}: {key} = {table[key]!r}; expected text")
    known_by = {"passes": passes, "candidates": _candidates(label, table.get("candidates", []), passes)}
    plain = {"name": Path(label).stem, **table, "target": table.get("target", TARGETS[0].name)}
    try:
        target(plain["target"])
    except EquintError as error:
        raise InvalidRecipe(f"{label}: target = {plain['target']!r}: {error}") from error
    return Recipe(**{**plain, **known_by, "overrides": _overrides(label, table.get("overrides", []))})


def _passes(label: str, entries: Any, where: str) -> Steps:
    passes = list[tuple[str, Mapping[str, Any]]]()
    for entry in entries:
        entry = dict(_table(label, entry, where))
        name = entry.pop("pass", None)
        if not isinstance(name, str) or name not in PASSES:
            raise InvalidRecipe(f"{label}: unknown pass {name!r}; choose {', '.join(PASSES)}")
        options = {f.name for f in fields(PASSES[name])} - needs(PASSES[name]).keys()
        _refuse_unknown(label, f"pass {name}", entry, options)
        _check_types(label, f"pass {name}", entry, PASSES[name])
        passes.append((name, entry))
    return tuple(passes)


def _candidates(label: str, entries: Any, passes: Steps) -> tuple[Candidate, ...]:
    if not isinstance(entries, list):
        raise InvalidRecipe(f"{label}: candidates are tables; write [[candidates]]")
    found, own = list[Candidate](), [name for name, _ in passes]
    for entry in entries:
        entry = dict(_table(label, entry, "[[candidates]]"))
        _refuse_unknown(label, "[[candidates]]", entry, frozenset(("name", "without", "passes")))
        name, without, put = entry.get("name"), entry.get("without"), entry.get("passes", [])
        if not isinstance(name, str) or not name or name in (c.name for c in found):
            raise InvalidRecipe(f"{label}: name = {name!r} in [[candidates]]; give each a name of its own")
        if not isinstance(without, list) or not without or not all(w in own for w in without):
            raise InvalidRecipe(f"{label}: without = {without!r} in [[candidates]]; name passes: {', '.join(own)}")
        if not isinstance(put, list):
            raise InvalidRecipe(f"{label}: passes of candidate {name} are tables; write [[candidates.passes]]")
        candidate = Candidate(name, tuple(without), _passes(label, put, "[[candidates.passes]]"))
        _check_order(label, [p for p, _ in _changed(passes, candidate)])
        found.append(candidate)
    return tuple(found)


def _overrides(label: str, entries: Any) -> tuple[Override, ...]:
    if not isinstance(entries, list):
        raise InvalidRecipe(f"{label}: overrides are tables; write [[overrides]]")
    kinds = {"layers": tuple, "tensors": tuple, "weight_bits": int, "granularity": str, "activation_bits": int}
    kinds["float"] = bool
    overrides = []
    for entry in entries:
        entry = dict(_table(label, entry, "[[overrides]]"))
        _refuse_unknown(label, "[[overrides]]", entry, frozenset(kinds))
        for key in ("layers", "tensors"):
            names = entry.get(key, [])
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise InvalidRecipe(f"{label}: {key} = {names!r} in [[overrides]]; expected a list of names")
            entry[key] = tuple(names)
        for key, value in entry.items():
            if type(value) is not kinds[key]:
                raise InvalidRecipe(f"{label}: {key} = {value!r} in [[overrides]]; expected {kinds[key].__name__}")
        shape = entry.get("granularity", "tensor")
        if shape not in get_args(get_type_hints(QSpec)["granularity"]):
            raise InvalidRecipe(f"{label}: granularity = {shape!r} in [[overrides]]; choose tensor, channel")
        try:
            overrides.append(Override(**entry))
        except EquintError as error:
            raise InvalidRecipe(f"{label}: {error}") from error
    return tuple(overrides)


def _check_order(label: str, names: list[str]) -> None:
    """One pass quantizes, and all are where they say that they belong."""
    order = list(Stage)
    at = [order.index(PASSES[name].stage) for name in names]
    grids = order.index(Stage.QUANTIZE)
    if grids not in at:
        raise InvalidRecipe(f'{label}: no pass quantizes; add [[passes]] with pass = "quantize"')
    first = at.index(grids)
    behind = range(first + 1, len(at))
    for k in (k for k in behind if at[k] <= grids):
        raise InvalidRecipe(f"{label}: pass {names[k]} after quantize would make its grids wrong; move it before")
    for k in (k for k in range(first) if at[k] > grids):
        raise InvalidRecipe(f"{label}: {names[k]} needs the grids; move it behind quantize")
    for k in (k for k in behind if at[k] < at[k - 1]):
        raise InvalidRecipe(f"{label}: {names[k]} changes the errors that {names[k - 1]} corrects; move it before")


def _table(label: str, value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRecipe(f"{label}: {where} must be a table")
    return value


def _refuse_unknown(label: str, where: str, table: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    check_keys(label, where, table, known, InvalidRecipe)


def _check_types(label: str, where: str, table: Mapping[str, Any], kind: Any) -> None:
    check_values(label, where, table, kind, InvalidRecipe, dict.fromkeys(followed(kind), "target"))
