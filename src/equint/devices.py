"""The library's back door: networks in integers alone, and files that devices and their compilers take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, get_args

from .arguments import Named, check, check_path
from .errors import InvalidOption, TargetMismatch, UnusableData, counted
from .files import Facts, is_bundle
from .frontends.sources import present
from .hardware.target import Target
from .ir.model import Array, Model, Name
from .job import Job, Options
from .kinds import BUNDLE, JSON, NETWORK, TFLITE, WEIGHTS
from .planning.recipe import ActivationBits, Recipe
from .planning.recipe import recipe as built_in_recipe
from .planning.run import Progress
from .planning.spared import spare
from .result import Result, quantized
from .samples.card import Card, Input, read_card

if TYPE_CHECKING:
    from .integers.program import Program
    from .litert.writer import Io
    from .npu.board import Comparison
    from .npu.sizes import Row

NPU = "npu-shift"
"""The target of integer programs, where none is named."""
Format: TypeAlias = Literal["npu", "integer", "qdq", "tflite", "onnx-float", "encodings"]
FORMATS: tuple[Format, ...] = get_args(Format)
_TARGETS: Mapping[Format, str | None] = {
    **dict.fromkeys(("npu", "integer", "qdq"), NPU),
    "tflite": "tflite-int8",
    "onnx-float": None,
    "encodings": "qnn",
}
"""The target of each format where none is given; None: that of `quantize`."""


def program(
    source: Any, recipe: Named | Recipe | None = None, target: Named | Target | None = None, **options: Unpack[Options]
) -> Program:
    """A network in integers alone: read from a bundle, or quantized as by `quantize` and lowered.

    Args:
        source: a bundle (its .json or .safetensors file), or what `quantize` takes.
        recipe, target, options: for `quantize`; the target is npu-shift where none is given.

    Raises:
        EquintError: as `quantize`, `equint.npu.bundle.load_bundle` and `equint.integers.lower.lower`.

    Example:
        >>> from equint.demo import model_path
        >>> program(model_path(), "wes", input=(0, 1)).target
        'npu-shift'
    """
    if not is_bundle(source):
        return quantized(Job.of(source, recipe, NPU if target is None else target, **options)).program
    from .npu.bundle import load_bundle

    said = {k: v for k, v in options.items() if k not in ("progress", "force")}
    if any(v is not None for v in (recipe, target, *said.values())):
        raise InvalidOption(f"{source}: a bundle is quantized already; leave recipe, target, input and data out")
    return load_bundle(source)


@dataclass(frozen=True)
class Export:
    """What was written: files with their bytes, and what a float network became; None where a bundle was read."""

    format: Format
    files: Mapping[str, int]
    result: Result | None = None

    def __repr__(self) -> str:
        return f"Export(format={self.format!r}, files={[Path(f).name for f in self.files]})"

    def facts(self) -> dict[str, Any]:
        about = {} if self.result is None else self.result.facts()
        return {**about, "format": self.format, "files": dict(self.files)}


def export(
    source: Any,
    path: Named,
    recipe: Named | Recipe | None = None,
    target: Named | Target | None = None,
    *,
    format: Format = "npu",
    sparse: Literal["auto"] | bool = "auto",
    **options: Unpack[Options],
) -> Export:
    """Quantize a network and write it as a device or its compiler takes it: for an NPU, in integers alone.

    Args:
        source: what `quantize` takes, or, for "npu" and "integer", a bundle.
        path: where two files are written, of either, or their name without ending.
        format: "npu" (a bundle), "integer" (ONNX without floats), "qdq" (ONNX) or "tflite" (for LiteRT); for compilers
            that quantize by themselves (docs/compilers.md) the rewritten float ONNX, and beside it the ranges and bit
            widths of all tensors ("onnx-float", .ranges.json) or AIMET's encodings 1.0.0 ("encodings", .encodings).
        sparse: whether a bundle's weights are stored as masks and what is not zero; "auto": where that is smaller.
        recipe, target, options: for `quantize`; where no target is given it is npu-shift, tflite-int8 for
            "tflite", that of `quantize` for "onnx-float", and qnn for "encodings".

    Raises:
        EquintError: as `program`; also outputs that cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from equint.demo import model_path
        >>> with TemporaryDirectory() as folder:
        ...     files = export(model_path(), f"{folder}/digits", input=(0, 1)).files
        >>> [Path(file).name for file in files]
        ['digits.json', 'digits.safetensors']
    """
    check(path=path, format=format, sparse=sparse)
    for name, value in {"source": source, **options}.items():
        check_path(name, value)
    if format not in FORMATS:
        raise InvalidOption(f"format = {format!r}: choose {', '.join(FORMATS)}")
    if isinstance(sparse, str) and sparse != "auto":
        raise InvalidOption(f"sparse = {sparse!r}: choose auto, True or False")
    if format != "npu" and sparse != "auto":
        raise InvalidOption(f"sparse = {sparse!r}: only bundles (format npu) hold sparse weights; leave it out")
    if is_bundle(source) and format not in ("npu", "integer"):
        raise TargetMismatch(f"{source}: a bundle holds no scales of layers; export {format} from the float network")
    files = export_files(path, format)
    told = {"recipe": recipe, "target": target, "card": options.get("input"), "data": options.get("data")}
    spare(files, {"model": source.source if isinstance(source, Model) else source, **told})
    read, result = _opened(source, recipe, target, _TARGETS[format], **options)
    if format == "npu":
        from .npu.bundle import save_bundle

        save_bundle(read(), path, sparse)
    elif format == "integer":
        from .integers.emit import export_integer
        from .onnx.writer import save_proto

        save_proto(export_integer(read()), path)
    elif result is not None:
        result.save(path, format)
    return Export(format, {str(file): file.stat().st_size for file in files}, result)


def export_files(path: Named, format: Format) -> Mapping[Path, str]:
    """The files that `export` writes, and the kind of each.

    Raises:
        EquintError: a name that no file can have, or that asks for another format.

    Example:
        >>> {file.name: kind for file, kind in export_files("out/net", "encodings").items()}
        {'net.onnx': 'a network', 'net.encodings': 'a JSON file'}
    """
    from .litert.saving import is_tflite

    if is_tflite(path) and format != "tflite":
        raise InvalidOption(
            f"{os.fspath(path)}: format {format} writes no .tflite file; choose format tflite, or another name"
        )
    if format == "npu":
        from .npu.bundle import bundle_files

        return dict(zip(bundle_files(path), (BUNDLE, WEIGHTS), strict=True))
    if format == "onnx-float" or format == "encodings":
        from .onnx.encodings import float_files

        return dict(zip(float_files(path, format), (NETWORK, JSON), strict=True))
    return {Path(path): TFLITE if format == "tflite" else NETWORK}


@dataclass(frozen=True)
class Golden(Facts):
    """Golden vectors that were written.

    Attributes:
        output: their folder; images: what they are of, in words; count: of how many.
        steps: what `golden.json` says of each step, in the order of execution.
        warnings: what makes the network doubtful.
    """

    output: str
    images: str
    steps: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    count: int

    def __repr__(self) -> str:
        return f"Golden(output={self.output!r}, steps={len(self.steps)}, {self.seen})"

    @property
    def seen(self) -> str:
        """What the vectors are of, with how many.

        Example:
            >>> Golden("out", "random images", (), (), 1).seen, Golden("out", "images of x.npz", (), (), 2).seen
            ('1 random image', '2 images of x.npz')
        """
        kind, images, where = self.images.partition("images")
        return f"{counted(self.count, f'{kind}image')}{where}" if images else f"{self.count} {self.images}"

    def facts(self) -> dict[str, Any]:
        return {k: v for k, v in super().facts().items() if k != "count"}


def golden(
    source: Any,
    folder: Named,
    recipe: Named | Recipe | None = None,
    target: Named | Target | None = None,
    *,
    raw: bool = False,
    weight_bits: int | None = None,
    activation_bits: ActivationBits = None,
    fused_activations: bool | None = None,
    input: Input = None,
    data: Named | None = None,
    images: int = 1,
    set: Mapping[Name, Any] | None = None,
    io: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Golden:
    """Write the integers that every layer reads and gives, to check a board against.

    For targets of LiteRT's arithmetic the folder also holds network.tflite, and tensors.npz: the integers of that
    file's tensors by their names, in its order of axes.

    Args:
        source: what `quantize` takes, or a bundle.
        folder: a new name, an empty folder or an older golden folder.
        raw: also .bin files: the same values and nothing else.
        data: a file or folder of images, else those of the card, else random ones; they are not used to quantize.
        images: how many of them; rounded up to whole batches where the network takes a fixed number at once.
        weight_bits, activation_bits, fused_activations, input, set, force: as for `quantize`.
        io: of network.tflite, as for `Result.save`.

    Raises:
        EquintError: as `program`; also a folder that holds anything else.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from equint.demo import model_path
        >>> with TemporaryDirectory() as here:
        ...     golden(model_path(), f"{here}/golden", input=(0, 1)).images
        'random images'
    """
    from .litert.dump import beside_golden
    from .litert.writer import is_for_litert
    from .npu.golden import write_golden

    check(folder=folder, raw=raw, images=images, data=data, io=io)
    check_path("input", input)
    if images is None or images < 1:
        raise InvalidOption(f"images = {images}: give 1 or more")
    card = read_card(input) if isinstance(input, (str, os.PathLike)) else input
    looks = Options(input=card, set=set, progress=progress, force=force)
    formats = Options(weight_bits=weight_bits, activation_bits=activation_bits, fused_activations=fused_activations)
    options = Options(**formats, **looks)
    read, result = _opened(source, recipe, target, NPU, **options)
    ready = read()
    feeds, shown = _feeds(ready, data, card if isinstance(card, Card) else Card(), images)
    ends = _io_of(io, ready)
    beside = (lambda values: beside_golden(ready, values, ends)) if is_for_litert(ready) else None
    steps = write_golden(ready, feeds, folder, raw=raw, beside=beside)
    warnings = () if result is None else tuple(e.sentence for e in result.warnings)
    return Golden(os.fspath(folder), shown, tuple(steps), warnings, len(next(iter(feeds.values()))))


def compare_board(
    source: Any,
    dump: Named,
    golden: Named | None = None,
    recipe: Named | Recipe | None = None,
    target: Named | Target | None = None,
    *,
    input: Input = None,
    set: Mapping[Name, Any] | None = None,
    io: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Comparison:
    """Name the first layer in which a device differs, by how much and why.

    Args:
        source: what `quantize` takes, or a bundle.
        dump: a folder with the device's tensors, named as `golden` names them; for targets of LiteRT's arithmetic also
            an .npz or a folder of .npy files of the .tflite file's tensors, by name or number.
        golden: the folder of what they should be; computed from the dumped inputs if left out.
        recipe, target, input, set, force: as for `quantize`; io: of the .tflite file, as for `Result.save`.

    Raises:
        EquintError: as `program`; also files that cannot be read or have another shape, type or size.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from equint.demo import model_path
        >>> with TemporaryDirectory() as here:
        ...     _ = golden(model_path(), here, input=(0, 1))
        ...     compare_board(model_path(), here, input=(0, 1)).first is None
        True
    """
    from .litert.dump import is_of_tensors, kept, read_dump
    from .litert.writer import is_for_litert
    from .npu.board import compare_board as compare
    from .npu.board import dumped_inputs
    from .npu.golden import tensor_files

    check(dump=dump, golden=golden, io=io)
    ready = _opened(source, recipe, target, NPU, input=input, set=set, progress=progress, force=force)[0]()
    ends = _io_of(io, ready)
    if is_for_litert(ready) and is_of_tensors(dump, tensor_files(ready)):
        places = kept(ready, ends)
        found = read_dump(dump, places)
        if golden is None and (missing := [name for name in ready.inputs if name not in found]):
            what = f"holds no input ({places[missing[0]]})"
            raise UnusableData(f"{os.fspath(dump)}: {what}; dump it too, or give the golden folder")
        inputs = {name: found[name] for name in ready.inputs if name in found}
        said = {name: str(place) for name, place in places.items()}
        return compare(ready, golden if golden is not None else inputs, found, places=said)
    return compare(ready, golden if golden is not None else dumped_inputs(ready, dump), dump)


def _io_of(text: str | None, program: Program) -> Io | None:
    """What --io says, which is of .tflite files alone."""
    from .litert.saving import io_of
    from .litert.writer import is_for_litert

    if text is not None and not is_for_litert(program):
        raise InvalidOption(f"io = {text!r}: only .tflite files have other inputs and outputs; leave it out")
    return io_of(text)


@dataclass(frozen=True)
class Sizes(Facts):
    """Parameter bytes of a network under LWQ, CWQ and WES, dense and sparse: of each layer, and in total."""

    layers: tuple[Row, ...]
    total: Row

    def __repr__(self) -> str:
        dense = ", ".join(f"{scheme}={self.total[scheme]:,}" for scheme in ("lwq", "cwq", "wes"))
        return f"Sizes(layers={len(self.layers)}, {dense})"


def sizes(source: Any, *, sparsity: float = 0.0, weight_bits: int | None = None) -> Sizes:
    """The parameter bytes of a network under LWQ, CWQ and WES, dense and sparse.

    Args:
        source: what `quantize` takes, quantized for the shift target; a `Result`; or a bundle.
        sparsity: set this share (0 to 0.99) of each layer's weights to zero before.

    Raises:
        EquintError: as `program`.

    Example:
        >>> from equint.demo import model_path
        >>> found = sizes(model_path()).total
        >>> found["lwq"] < found["wes"] < found["cwq"]
        True
    """
    from .npu.sizes import network_sizes

    check(sparsity=sparsity)
    if not 0 <= sparsity <= 0.99:
        raise InvalidOption(f"sparsity = {sparsity}: give a share from 0 to 0.99")
    network: Model | Program
    if is_bundle(source) or isinstance(source, Result):
        if sparsity or weight_bits:
            what = "a bundle's" if is_bundle(source) else "a result's"
            raise InvalidOption(f"{source}: {what} weights are what they are; leave the options out")
        network = source.model if isinstance(source, Result) else program(source)
    else:
        chosen = built_in_recipe("wes")
        prune = (("prune", {"sparsity": sparsity, "cost": "weights"}),) if sparsity else ()
        at = 1 + next(k for k, (name, _) in enumerate(chosen.passes) if name == "fold_batchnorm")
        chosen = replace(chosen, passes=(*chosen.passes[:at], *prune, *chosen.passes[at:]))
        network = quantized(Job.of(source, chosen, NPU, weight_bits=weight_bits)).model
    found = network_sizes(network)
    return Sizes(tuple(found["layers"]), found["total"])


def _opened(
    source: Any,
    recipe: Named | Recipe | None,
    target: Named | Target | None,
    default: str | None,
    **options: Unpack[Options],
) -> tuple[Callable[[], Program], Result | None]:
    """What reads a bundle, whose input may be described, or what lowers a float network; and the latter's result.

    `default` is a float network's target where none is given.
    """
    if is_bundle(source):
        options.pop("input", None)
        present(source)
        return lambda: program(source, recipe, target, **options), None
    job = Job.of(source, recipe, default if target is None else target, **options)
    if default == _TARGETS["tflite"]:
        job.rehearse()
    result = quantized(job)
    return lambda: result.program, result


def _feeds(program: Program, data: Named | None, card: Card, count: int) -> tuple[dict[Name, Array], str]:
    """Inputs for golden vectors, and what they are."""
    import numpy as np

    from .maths.affine import storage
    from .samples.card import laid_out
    from .samples.data import feeds as read_feeds
    from .samples.presented import common_front
    from .samples.stored import MOST

    size = common_front(program.shapes.get(name, ()) for name in program.inputs)
    count = -(-count // (size or 1)) * (size or 1)  # whole batches, where the program takes a fixed number at once
    where = data or card.data.get("calibration") or card.data.get("eval")
    if where is not None:
        inputs = {name: program.shapes.get(name, ()) for name in program.inputs}
        laid = laid_out(card, inputs.values())
        first, _ = next(iter(read_feeds(where, laid, inputs, size=count, limit=count)))
        named = dict(first) if isinstance(first, Mapping) else {program.inputs[0]: first}
        if size:
            named = {n: np.concatenate([v, np.repeat(v[-1:], -len(v) % size, 0)]) for n, v in named.items()}
        return named, f"images of {where}"
    rng, feeds = np.random.default_rng(0), {}
    for name in program.inputs:
        grid, shape = program.grid(name), program.shapes.get(name, ())
        if not all(isinstance(n, int) for n in shape[1:]):
            raise UnusableData(f"input {name} has no fixed size {tuple(shape)}; give --data or a card with images")
        front = shape[0] if size is None and shape and isinstance(shape[0], int) else count
        sizes = [front, *(int(n) for n in shape[1:] if isinstance(n, int))]
        if np.prod(sizes, dtype=object) * storage(grid).itemsize > MOST:
            raise InvalidOption(f"images = {count}: input {name} would take more than {MOST / 2**30:g} GiB; give fewer")
        feeds[name] = rng.integers(grid.qmin, grid.qmax, sizes, endpoint=True).astype(storage(grid))
    return feeds, "random images"
