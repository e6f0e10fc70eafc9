"""Many networks quantized in many ways, measured once: what was found is kept and never computed again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path
from typing import Any
from warnings import warn

from .. import __version__
from ..crew.workers import Alone, Crew
from ..drafts import make_folder
from ..errors import EquintError, InvalidCard, OutputRefused, UnknownName, UnreadableModel, counted
from ..files import read_toml
from ..hardware.target import TOLD, Target
from ..hardware.target import target as built_in_target
from ..planning.plan import Data, resolve
from ..planning.recipe import ActivationBits, Recipe, needs_images, recipe, without_images
from ..planning.run import Progress
from ..runtime.machine import CPUS, LeftToCpu, Machine
from ..samples.card import read_card
from .cells import Cell, Way, measuring
from .identity import card_identity, digest, network_identity
from .ledger import add_line, numbers, read_lines

LINES = "results.jsonl"
ALONE = Alone()
Named = str | os.PathLike[str]


@dataclass(frozen=True)
class Network:
    """A network, what it is called in tables, and the card that says how its input is made and what its task is."""

    name: str
    model: Path
    card: Path
    task: str


@dataclass(frozen=True)
class Row:
    """One network quantized in one way, or as it was: then `recipe` is "float" and there is no target.

    Attributes:
        weight_bits, activation_bits: None for the target's; images: for calibration, if any.
        results: what evaluation gave (per cent, dB); empty where there is a reason.
        level: 1 no data, no backpropagation; 2 data; 3 data and backpropagation; 0 where nothing was quantized.
        seconds: what quantization took, or the float network's evaluation.
        float_bytes, integer_bytes: of weights and biases, before and after.
        key: of everything that decides the results; cached: whether it was there already.
    """

    network: str
    task: str
    recipe: str
    target: str = ""
    weight_bits: int | None = None
    activation_bits: ActivationBits = None
    images: int | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    level: int = 0
    seconds: float = field(default=0.0, compare=False)
    float_bytes: int = 0
    integer_bytes: int = 0
    key: str = ""
    cached: bool = field(default=False, compare=False)


def table(
    networks: Sequence[Named],
    recipes: Sequence[Named | Recipe],
    targets: Sequence[Named | Target] = (),
    *,
    bits: Sequence[tuple[int | None, ActivationBits]] = ((8, 8),),
    images: int | Sequence[int | None] | None = None,
    limit: int | Mapping[str, int] | None = None,
    cache: Named,
    crew: Crew = ALONE,
    machine: Machine = CPUS,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """Every network in every way, as `equint.table` describes it."""
    if not networks:
        return ()
    folder, machine = Path(cache), replace(machine, threads=crew.threads)
    every = [images] if images is None or isinstance(images, int) else list(images)
    asked = list(_ways([recipe(r) for r in recipes], targets, bits, every))
    own, plan = find_networks(networks), list[tuple[Network, Cell, str]]()
    names = {network.name for network in own}
    limits = limit if isinstance(limit, Mapping) else dict.fromkeys(names, limit)
    for name in (name for name in limits if name not in names):
        raise UnknownName(f"limit {name}: no such network; choose {', '.join(sorted(names))}")
    for network in own:
        plan += _planned(network, asked, limits.get(network.name), folder, machine)
    try:
        make_folder(folder)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputRefused(f"{folder}: cannot be made ({why}); choose another cache") from error
    found = read_lines(folder / LINES)
    before = set(found)
    missing = _compute(plan, found, folder / LINES, crew, progress)
    return tuple(_row(network, cell, why or missing.get(cell.key, ""), found, before) for network, cell, why in plan)


def _compute(
    plan: Sequence[tuple[Network, Cell, str]],
    found: dict[str, dict[str, Any]],
    lines: Path,
    crew: Crew,
    progress: Progress | None,
) -> dict[str, str]:
    """Measure what is not found: float networks first, whose outputs the others need. Why what is missing is missing.

    What the user is not to blame for (a process that died) is not written down: the next run tries again.
    """
    missing, names = dict[str, str](), {cell.key: _title(network, cell) for network, cell, _ in plan}
    done = count(1)

    def told(key: str) -> None:
        number = next(done)
        if progress is not None:
            progress(names[key], number, len(names))

    def run(cells: Iterable[Cell]) -> None:
        tasks = list({cell.key: cell for cell in cells}.values())
        for cell, outcome in crew.each(measuring, None, tasks):
            if isinstance(outcome, Exception):
                kind = "" if isinstance(outcome, EquintError) else f"{type(outcome).__name__}: "
                missing[cell.key] = " ".join(f"{kind}{outcome}".split())
            else:
                add_line(lines, {"key": cell.key, "what": names[cell.key], **outcome})
                found[cell.key] = outcome
                for said in outcome.get("left_to_cpu", ()):
                    warn(LeftToCpu(said), stacklevel=2)
            told(cell.key)

    wanted = [cell for _, cell, why in plan if not why and cell.way is not None and cell.key not in found]
    needed = {cell.store for cell in wanted}
    floats = {cell.key: cell for _, cell, _ in plan if cell.way is None}
    stale = [c for c in floats.values() if c.key not in found or (c.store in needed and not _whole(c, found[c.key]))]
    fresh = {c.key for c in (*stale, *wanted)}
    for key in (key for key in names if key not in fresh):
        told(key)
    run(stale)
    reasons = {c.store: missing.get(c.key) or found.get(c.key, {}).get("reason", "") for c in floats.values()}
    lost = {store: str(why) for store, why in reasons.items() if why}
    for cell in wanted:
        if cell.store in lost:
            missing[cell.key] = lost[cell.store]
            told(cell.key)
    run(cell for cell in wanted if cell.store not in lost)
    return missing


def _whole(cell: Cell, entry: Mapping[str, Any]) -> bool:
    """Whether the float network's outputs are there as they were written; where it failed, there is nothing to be."""
    return "reason" in entry or (cell.store.is_file() and cell.store.stat().st_size == entry.get("stored"))


def _ways(
    recipes: Sequence[Recipe],
    targets: Sequence[Named | Target],
    bits: Sequence[tuple[int | None, ActivationBits]],
    images: Sequence[int | None],
) -> Iterable[tuple[Way, str]]:
    """Every way, and why it cannot be."""
    for width, shown, chosen in product(bits, images, recipes):
        for hardware in targets or (chosen.target,):
            on = built_in_target(hardware)
            way = Way(chosen, on, *width, shown) if shown != 0 else Way(without_images(chosen), on, *width)
            yield way, _impossible(way)


def _impossible(way: Way) -> str:
    """Why a way cannot be, as far as that shows without a network."""
    try:
        resolve(way.recipe, way.target, way.weight_bits, way.activation_bits, None if way.images is None else Data())
    except EquintError as error:
        return str(error)
    needing = needs_images(way.recipe)
    if way.images is None and needing:
        return f"recipe {way.recipe.name}: {needing[-1]} needs images"
    if any(name == "finetune_bias" for name, _ in way.recipe.passes) and find_spec("torch") is None:
        return 'torch is not installed; install the extra: pip install "equint[torch]"'
    return ""


def _planned(
    network: Network, asked: Sequence[tuple[Way, str]], limit: int | None, folder: Path, machine: Machine
) -> list[tuple[Network, Cell, str]]:
    """The float network's cell and one for each way."""
    held = network_identity(network.model)
    judged: dict[str, Any] = {"equint": __version__, "network": held, "limit": limit}
    judged |= {} if machine.plain else {"providers": machine.providers}
    card = card_identity(network.card, {"calibration": False})
    key = digest([judged, card])
    float_cell = Cell(key, network.model, network.card, folder / f"{key}.outputs", None, limit, machine)
    shown = card_identity(network.card, {}) if any(way.images is not None for way, _ in asked) else card
    plan = [(network, float_cell, "")]
    for way, why in asked:
        told = shown if way.images is not None else card
        plan.append((network, replace(float_cell, key=digest([judged, told, _content(way)]), way=way), why))
    return plan


def _content(way: Way) -> dict[str, Any]:
    """Everything about a way but names."""
    chosen = {k: v for k, v in vars(way.recipe).items() if k not in ("name", "description", "target")}
    target = {k: v for k, v in vars(way.target).items() if k not in TOLD}
    return {"recipe": chosen, "target": target, "bits": (way.weight_bits, way.activation_bits), "images": way.images}


def _row(network: Network, cell: Cell, why: str, found: Mapping[str, Mapping[str, Any]], before: set[str]) -> Row:
    entry = {} if why else found.get(cell.key, {})
    told = {k: entry[k] for k in ("reason", "level", "seconds", "float_bytes", "integer_bytes") if k in entry}
    told |= {"reason": why} if why else {}
    results = numbers(entry.get("results", {}))
    row = Row(network.name, network.task, "float", results=results, key=cell.key, cached=cell.key in before, **told)
    if cell.way is None:
        return row
    return replace(row, **{**vars(cell.way), "recipe": cell.way.recipe.name, "target": cell.way.target.name})


def _title(network: Network, cell: Cell) -> str:
    if cell.way is None:
        return f"{network.name} float"
    way = cell.way
    bits = "/".join("-" if b is None else str(b) for b in (way.weight_bits, way.activation_bits))
    images = "" if way.images is None else f" {counted(way.images, 'image')}"
    return f"{network.name} {way.recipe.name} {way.target.name} {bits}{images}"


def find_networks(paths: Sequence[Named]) -> list[Network]:
    """Networks with their cards, given as cards (.toml) or as what a card near them names; shared names become paths.

    Raises:
        EquintError: a network or card that is not there, or no card or several for a network.
    """
    found = list(dict.fromkeys(_from_card(p) if p.suffix == ".toml" else _from_model(p) for p in map(Path, paths)))
    names = [network.name for network in found]
    return [n if names.count(n.name) == 1 else replace(n, name=n.card.with_suffix("").as_posix()) for n in found]


def _from_card(card: Path) -> Network:
    told = read_toml(card, "card")
    for kind, keys in (("recipe", ("passes", "candidates")), ("target", ("weight", "activation", "rules"))):
        if any(key in told for key in keys) and "model" not in told and "input" not in told:
            raise InvalidCard(f"{card}: is a {kind}, and no card; leave it out, or give it as --{kind} {card}")
    task = read_card(card).task
    if not isinstance(told.get("model"), str):
        raise InvalidCard(f'{card}: names no network; add model = "NETWORK.onnx"')
    model = card.parent / told["model"]
    if not model.is_file():
        raise InvalidCard(f"{card}: its network {model} is not there; correct model in the card")
    return Network(card.stem, model, card, task)


def _from_model(model: Path) -> Network:
    if not model.is_file():
        raise UnreadableModel(
            f"{model}: {'is a folder; give a file' if model.is_dir() else 'no such file'}; give networks or cards"
        )
    near = [c for at in (model.parent, model.resolve().parent.parent) for c in sorted(at.glob("*.toml"))]
    cards = [card for card in near if _names(card, model)]
    same = [card for card in cards if card.stem == model.stem]
    if not cards:
        raise InvalidCard(f'{model}: no card near it says model = "{model.name}"; write one, or give the card')
    if len(cards) > 1 and len(same) != 1:
        raise InvalidCard(f"{model}: several cards are for it ({cards[0]}, {cards[1]}); give the card instead")
    return _from_card((same or cards)[0])


def _names(card: Path, model: Path) -> bool:
    try:
        told = read_toml(card, "card").get("model")
    except EquintError:
        return False
    return isinstance(told, str) and (card.parent / told).resolve() == model.resolve()
