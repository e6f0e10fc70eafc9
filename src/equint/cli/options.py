"""What the commands share: their options, and how they show progress, tables and JSON."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Argument, Option

from ..drafts import drafted, overwriting
from ..errors import InvalidOption, UnreadableModel, in_a_line

if TYPE_CHECKING:
    from ..comparisons import Evaluation
    from ..job import Effort
    from ..planning.run import Progress
    from ..result import Result
    from ..samples.card import Card

ModelFile = Annotated[Path, Argument(help="ONNX or TFLite model.", show_default=False)]
MEASURED = 200
"""Labelled samples that `quantize` measures on before it ends."""
Verbose = Annotated[bool, Option("-v", "--verbose", help="Also print what was done and skipped, and why.")]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON on standard output.")]
CardFile = Annotated[Path | None, Option("--card", help="TOML card that says how the network's input is made.")]
Mean = Annotated[str | None, Option(help="Pixel means, comma-separated, as in (x − mean)/std.")]
Std = Annotated[str | None, Option(help="Pixel standard deviations, comma-separated.")]
TargetName = Annotated[
    str | None,
    Option("--target", help="What the hardware accepts: a name that `equint targets` lists, or a TOML file."),
]
RecipeName = Annotated[str | None, Option("--recipe", help="Recipe name or TOML file. [default: the target's best]")]
EffortName = Annotated[
    str,
    Option(
        "--effort",
        help="full measures the recipe's candidates, keeps the best; fast runs it alone and rounds by kernels.",
    ),
]
WeightBits = Annotated[int | None, Option("--weight-bits", help="2 to 16. [default: 8]")]
ActivationBits = Annotated[
    str | None, Option("--activation-bits", help="2 to 16, or float for weights only. [default: 8]")
]
FusedActivations = Annotated[
    bool | None,
    Option(
        "--fused-activations/--no-fused-activations",
        help="The hardware applies activations to a layer's sums: nothing is rounded between. [default: as the target]",
        show_default=False,
    ),
]
InputRange = Annotated[
    tuple[float, float] | None,
    Option("--input-range", metavar="LO HI", help="Lowest and highest value of the network's input."),
]
Layout = Annotated[
    str | None, Option("--layout", help="Where channels of pictures lie: nchw or nhwc. [default: as the input says]")
]
SetInputs = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Make an input a constant, such as a sampling rate; may be repeated."),
]
Force = Annotated[
    bool,
    Option(
        "--force",
        help="Go on with a warning where the input as described is not what the network was trained on; write over "
        "files of another kind, and over recipes.",
    ),
]
Overwrite = Annotated[bool, Option("--force", help="Write over files of another kind, and over cards.")]
IoName = Annotated[
    str | None,
    Option(
        "--io", help="Of a .tflite file, the type of inputs and outputs: int8, uint8 or float. [default: its integers']"
    ),
]
DataPath = Annotated[
    Path | None,
    Option("--data", help="Unlabelled images: .npz, .npy, a folder or .tar files (with --card), or saved statistics."),
]
ImageCount = Annotated[
    int | None,
    Option("--images", min=1, help="Look at so many images. Without --data: of the card's calibration data."),
]
ImageCountOrNone = Annotated[
    int | None,
    Option(
        "--images",
        min=0,
        help="Look at so many images. Without --data: of the card's calibration data. 0: go without, even where the "
        "recipe is published with images (one-step, two-step); a warning says what that costs.",
    ),
]

RayAddress = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="local|ADDRESS",
        help="Share the work with Ray: on this machine, or on a cluster at HOST:PORT; needs the extra equint[ray].",
    ),
]
ProviderNames = Annotated[
    str | None,
    Option(
        "--provider",
        metavar="NAME[,NAME]",
        help="Execution providers of onnxruntime to run networks on, the preferred first. [default: CPU]",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Formats:
    """Options that say how to quantize."""

    recipe: RecipeName = None
    target: TargetName = None
    weight_bits: WeightBits = None
    activation_bits: ActivationBits = None
    fused_activations: FusedActivations = None

    def options(self) -> dict[str, Any]:
        """For the library."""
        bits: Any = self.activation_bits
        try:
            bits = bits if bits in (None, "float") else int(bits)
        except ValueError as error:
            raise InvalidOption(f"--activation-bits {bits}: give 2 to 16, or float") from error
        return {**vars(self), "activation_bits": bits}


@dataclass(frozen=True)
class Described:
    """Options that say what the network's input looks like."""

    card: CardFile = None
    input_range: InputRange = None
    mean: Mean = None
    std: Std = None
    layout: Layout = None
    set: SetInputs = None
    force: Force = False

    def options(self) -> dict[str, Any]:
        """For the library: the card, one made of the options, or the range; and inputs that become constants."""
        return {"input": self._input(), "set": constants(self.set), "force": self.force}

    def _input(self) -> Any:
        _check_layout(self.layout)
        if sum(g is not None for g in (self.card, self.input_range, self.mean or self.std)) > 1:
            raise InvalidOption("give one of --card, --input-range and --mean with --std")
        if self.layout is not None and self.input_range is not None:
            raise InvalidOption(
                "--layout says how pictures of a card, or of --mean and --std, are laid out; leave it out beside "
                "--input-range: arrays are taken as the network reads them"
            )
        if self.mean is not None or self.std is not None or self.layout is not None:
            return card_of(self.card, None, self.mean, self.std, None, self.layout)
        return self.card if self.card is not None else self.input_range


@dataclass(frozen=True)
class Shown:
    """Options that say which images to look at."""

    data: DataPath = None
    images: ImageCountOrNone = None

    def options(self) -> dict[str, Any]:
        """For the library."""
        return dict(vars(self))


def for_litert(output: Path, io: str | None, options: dict[str, Any]) -> bool:
    """Whether the output is a .tflite file; the target is then LiteRT's where neither it nor a recipe is named."""
    from ..litert.saving import io_of, is_tflite
    from ..litert.writer import TARGET

    if not is_tflite(output):
        if io is not None:
            raise InvalidOption(f"--io {io}: only .tflite files have other inputs and outputs; leave it out")
        return False
    io_of(io)
    if options["target"] is None:
        options["target"] = TARGET
    return True


def effort_of(text: str) -> Effort:
    """What --effort says."""
    from ..job import EFFORTS

    if text not in EFFORTS:
        raise InvalidOption(f"--effort {text}: choose {' or '.join(EFFORTS)}")
    return EFFORTS[EFFORTS.index(text)]


def given(*groups: Formats | Described | Shown) -> dict[str, Any]:
    """Options by name, as they were given."""
    return {name: value for group in groups for name, value in vars(group).items()}


Command = Callable[..., None]


def expanded(command: Command) -> Command:
    """A command whose parameters that are dataclasses become one option for each of their fields.

    With --force it writes over any file.
    """
    hints, groups, parameters = get_type_hints(command, include_extras=True), dict[str, Any](), []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name], kinds = hints[name], get_type_hints(hints[name], include_extras=True)
            for f in fields(groups[name]):
                parameters.append(parameter.replace(name=f.name, annotation=kinds[f.name], default=f.default))
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    def call(**given: Any) -> None:
        force = bool(given.get("force"))
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        with overwriting(force):
            command(**given)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def constants(given: list[str] | None) -> dict[str, Any] | None:
    """What --set says: numbers by the names of inputs; several, separated by commas, for an array."""
    found = dict[str, Any]()
    for text in given or ():
        name, equals, value = text.rpartition("=")
        try:
            numbers = [_number(part) for part in value.split(",")]
        except ValueError as error:
            raise InvalidOption(f"--set {text}: give NAME=VALUE, a number or several with commas") from error
        if not equals or not name:
            raise InvalidOption(f"--set {text}: give NAME=VALUE, such as sr=16000")
        if name in found:
            raise InvalidOption(f"--set {text}: {name} is set already; give each input one value")
        found[name] = numbers[0] if len(numbers) == 1 else numbers
    return found or None


def _number(text: str) -> float | int | bool:
    words = {"true": True, "false": False}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return int(text)
    except ValueError:
        return float(text)


def card_of(
    card: Path | None,
    kind: str | None,
    mean: str | None,
    std: str | None,
    size: tuple[int, int] | None,
    layout: str | None = None,
) -> Card:
    """The card given, or one made of options."""
    from dataclasses import replace

    from ..samples.card import FARTHEST, KINDS, Card, read_card

    _check_layout(layout)
    if card is not None and (kind, mean, std, size) != (None, None, None, None):
        raise InvalidOption("--card says kind, mean, std and size; leave these options out, or the card")
    if card is not None:
        return read_card(card) if layout is None else replace(read_card(card), layout=layout)
    if kind is not None and kind not in KINDS:
        raise InvalidOption(f"kind {kind!r}; choose {', '.join(KINDS)}")
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    count = max(len(means), len(stds), 1)
    means, stds = means or (0.0,) * count, stds or (1.0,) * count
    if len(means) != len(stds) or not all(1 / FARTHEST <= s <= FARTHEST for s in stds):
        raise InvalidOption("--mean and --std need as many numbers each, std above 0 and finite")
    if not all(abs(m) <= FARTHEST for m in means):
        raise InvalidOption(f"--mean {mean}: give numbers, none beyond {FARTHEST:g}")
    chosen = kind or ("features" if mean is None and std is None else "gray" if count == 1 else "rgb")
    return Card(chosen, means, stds, size, layout=layout)


def _check_layout(layout: str | None) -> None:
    from ..samples.card import LAYOUTS

    if layout not in (None, *LAYOUTS):
        raise InvalidOption(f"--layout {layout}: choose {', '.join(LAYOUTS)}")


def kind_of(model: Path, mean: str | None, std: str | None) -> str | None:
    """rgb or gray by the channels of the model's input, where pixels are normalised."""
    if mean is None and std is None:
        return None
    from ..graph.inputs import CHANNELS, layout_of
    from ..scoring.metrics import input_shapes

    shape = next(iter(input_shapes(model).values()), ())
    return "gray" if len(shape) == 4 and shape[CHANNELS[layout_of(shape)]] == 1 else "rgb"


def labels_of(shown: Shown) -> Any:
    """The classes that an .npz of data holds beside its images (`y`), as many as are looked at; None without."""
    data = shown.data
    if data is None or data.suffix != ".npz" or not data.is_file():
        return None
    from ..samples.stored import stored

    held = stored(data)
    found = held["y"].whole() if "y" in held else None
    return None if found is None or found.ndim != 1 or found.dtype.kind not in "iu" else found[: shown.images]


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidOption(f"{option} {text}: give numbers separated by commas, such as 123.7,116.3,103.5") from error


def check_file(path: Path) -> None:
    """Refuse an input that is not there."""
    if not path.is_file():
        raise UnreadableModel(
            f"{path}: {'is a folder; give a file' if path.is_dir() else 'no such file; correct its name'}"
        )


def check_output(path: Path, kind: str, *groups: Formats | Described | Shown, **inputs: Any) -> None:
    """Fail before the work and not after it: of this kind is what is written, and what was given must not be lost."""
    from ..planning.spared import spare

    kept = {k: v for group in groups for k, v in vars(group).items() if k in ("recipe", "target", "card", "data")}
    spare({path: kind}, {**inputs, **kept})


def check_card_name(path: Path) -> None:
    """Refuse what is not called as cards are."""
    if path.suffix != ".toml":
        raise InvalidOption(f"{path}: cards are .toml files; choose another name")


def write_page(path: Path, text: str) -> None:
    """A text file that appears whole or not at all."""
    with drafted(path) as (draft, _):
        draft.write_text(text, "utf-8")


@contextmanager
def running_on(providers: str | None) -> Iterator[None]:
    """Networks run on these; what they leave to the CPU is told on standard error, each thing once."""
    from ..runtime.machine import LeftToCpu, machine, on

    told = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftToCpu)
        others = warnings.showwarning

        def show(message: Any, category: Any, *rest: Any, **named: Any) -> None:
            if category is not LeftToCpu:
                others(message, category, *rest, **named)
            elif str(message) not in told:
                told.add(str(message))
                print(f"! {in_a_line(str(message))}", file=sys.stderr)

        warnings.showwarning = show
        with on(machine(providers)):
            yield


def measured(result: Result, model: Path, card: Path | None, progress: Progress) -> Evaluation | None:
    """The quantized network on the card's data, beside the float one; None where these have no labels."""
    import equint

    from ..samples.card import read_card
    from ..scoring.metrics import has_labels

    described = None if card is None else read_card(card)
    where = None if described is None else described.data.get("eval")
    if described is None or where is None or not has_labels(where, described):
        return None
    found = equint.evaluate(result, where, described, model, limit=MEASURED, progress=progress)
    looked = result.job.given.get("data") or described.data.get("calibration")
    same = result.job.samples is not None and looked is not None and Path(looked).resolve() == Path(where).resolve()
    if not same or found.verdict is None:
        return found
    return replace(found, verdict=found.verdict.but("; measured on samples that it was also calibrated with"))


def top1_of(found: Evaluation | None) -> tuple[float, float] | None:
    """Top-1 of the float and the quantized network, per cent, where that was measured."""
    if found is None or found.original is None or "top1" not in found.original:
        return None
    return float(found.original["top1"]), float(found.figures["top1"])
