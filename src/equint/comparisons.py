"""What measures networks on samples, at two or many beside one another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .arguments import Named, Providers, check, check_path, refused
from .errors import InvalidOption, UnusableData
from .files import is_bundle, jsonable
from .hardware.target import Target
from .ir.model import Name
from .job import Job
from .markup import block
from .markup import table as table_of
from .planning.data import NO_SAMPLES
from .planning.recipe import ActivationBits, Recipe
from .planning.run import Progress
from .result import executable, runnable
from .samples.card import Card, Input, laid_out, read_card
from .samples.images import Samples
from .samples.outside import Outside

if TYPE_CHECKING:
    from .runtime.judge import Judgement
    from .scoring.verdicts import Verdict
    from .study.compare import Comparison
    from .study.table import Row


def judge(
    source: Any,
    candidates: Mapping[str, Any],
    *,
    input: Input = None,
    data: Any = None,
    images: int | None = None,
    set: Mapping[Name, Any] | None = None,
) -> Judgement:
    """How quantized networks compare with their float original and with each other, measured on the same samples.

    The float network runs once for all. Of each output, of each part that it joins, of what stands in front of the
    function that bounds it, and of some tensors inside: SQNR, agreement of the best class, the share of values beyond
    the grid, and whether it is dead. Memory does not grow with what tensors hold.

    Args:
        source: the float network, as for `quantize`.
        candidates: by names of your own: results, quantized models, ONNX models or paths; of any tool, as long as the
            outputs are the original's.
        input, data, images, set: as for `quantize`; without data samples are made up, which rank candidates roughly.

    Raises:
        EquintError: as `quantize`; networks of other outputs, saved statistics, or no samples that can be made up.

    Example:
        >>> from equint import quantize
        >>> from equint.demo import data_path, model_path
        >>> card = Card("gray", (0.0,), (16.0,), range=(0.0, 1.0))
        >>> candidates = {name: quantize(model_path(), name, input=card) for name in ("lwq", "cwq-bc")}
        >>> found = judge(model_path(), candidates, input=card, data=data_path(), images=32)
        >>> found.best, found.chances["lwq"] > 0.9, found.blind
        ('cwq-bc', True, ())
    """
    from .onnx.reader import load_proto
    from .planning.search import expected_power, made_up_samples
    from .runtime.judge import judge as measure

    if not isinstance(candidates, Mapping):
        raise refused("candidates", candidates, "networks by names of your own")
    if not candidates:
        raise InvalidOption("candidates = {}: give at least one network by a name of its own")
    job = Job.of(source, input=input, data=data, images=images, set=set)
    if job.data is not None and job.samples is None:
        raise UnusableData("saved statistics show no samples to judge on; give samples")
    shown = job.samples or made_up_samples(job.network)
    if shown is None:
        raise UnusableData(NO_SAMPLES)
    given = {name: runnable("quantized", network) for name, network in candidates.items()}
    protos = {name: load_proto(p) if isinstance(p, (str, os.PathLike)) else p for name, p in given.items()}
    program = next((name for name, p in protos.items() if not hasattr(p, "graph")), None)
    if program is not None:
        raise InvalidOption(
            f"candidate {program} is a program; give the result that it was made of, or its integer ONNX"
        )
    return measure(job.network.graph, protos, shown, expected_power(job.network))


@dataclass(frozen=True)
class Evaluation:
    """How good a network is.

    Attributes:
        model, data: what was measured on what, by name.
        figures: samples, and what the task measures, in per cent or dB; agreement, SQNR and cosine against an original.
            `chance`: where these lie on other samples (`equint.scoring.metrics.both`).
        original: the same of the float original, where there are labels; verdict: where there is an original.
        card: how the samples were prepared; warnings: what speaks against them.
    """

    model: str
    data: str
    task: str
    figures: Mapping[str, Any]
    original: Mapping[str, Any] | None = None
    verdict: Verdict | None = None
    card: Card | None = field(default=None, compare=False)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v:.4g}" for k, v in self.figures.items() if not isinstance(v, Mapping))
        return f"Evaluation({shown}{'' if self.verdict is None else f', {self.verdict.level}'})"

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, and what was measured, the float network's beside it."""
        from .scoring.tasks import shown

        floats = {} if self.original is None else dict(shown(self.task, self.original))
        rows = [(name, value, floats.get(name, "")) for name, value in shown(self.task, self.figures)]
        title = repr(self) if self.verdict is None else self.verdict.words
        return block(title, (), [table_of(self.data, ("measure", "value", "float"), rows)])

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        beside = {"float": self.original, "verdict": None if self.verdict is None else self.verdict.facts()}
        found = {"model": self.model, "data": self.data, **self.figures}
        found |= {k: v for k, v in beside.items() if v is not None}
        ready: dict[str, Any] = jsonable({**found, "warnings": list(self.warnings)})
        return ready


def evaluate(
    source: Any,
    data: Named | None = None,
    card: Card | Named | None = None,
    against: Any = None,
    *,
    optimized: bool = False,
    limit: int | None = None,
    ray: str | None = None,
    providers: Providers = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a network by its task, and against the float original; say how good it is.

    Args:
        source: an ONNX file or model, float or quantized; a `Model`, a `Result`; or a bundle or program for NPUs.
        data: .npz, .npy or a folder of pictures, prepared as the card says; the card's eval if left out.
        card: how samples are prepared, and the task; or the card's path.
        against: the float original, for agreement, SQNR, cosine similarity and a verdict.
        optimized: run as deployed, with onnxruntime's optimizations; off is the reference simulation.
        limit: use only the first so many labelled samples.
        ray, providers: as for `table`; what is found is the same with Ray.
        progress: called with what is done, how many samples are done, and how many there are.

    Raises:
        EquintError: files that cannot be read, shapes that do not fit, or nothing to measure.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> evaluate(model_path(), data_path(), Card("gray", (0.0,), (16.0,)), limit=50)
        Evaluation(samples=50, top1=98, top5=100)
    """
    from .crew.workers import hired
    from .runtime.machine import machine, on
    from .scoring import metrics
    from .scoring.verdicts import verdict

    prepared = _card(card)
    where = prepared.data.get("eval") if data is None else data
    if where is None:
        raise UnusableData("no data to evaluate on: give data, or a card with eval in [data]")
    check(data=where, optimized=optimized, limit=limit, ray=ray, providers=providers, progress=progress)
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit = {limit}: give 1 or more")
    network = executable("source", source)
    original = None if against is None else _float("against", against)

    tell = None if progress is None else lambda done, total: progress("evaluating", done, total)
    asked: dict[str, Any] = {"optimized": optimized, "limit": limit, "progress": tell}
    with hired(1, ray) as crew, on(machine(providers)):
        asked |= {"crew": crew, "ranges": _ranges(network)}
        figures, of_float = metrics.both(network, where, prepared, original, **asked)
    doubts = tuple(figures.pop("warnings", ()))
    told = None if original is None else verdict(prepared.task, figures, of_float)
    if told is not None and (why := metrics.unscored(where, prepared)):
        told = told.but(f"; {why}")
    return Evaluation(_name(source), os.fspath(where), prepared.task, figures, of_float, told, prepared, doubts)


def compare(
    original: Any,
    quantized: Any,
    data: Any = None,
    card: Card | Named | None = None,
    *,
    limit: int = 16,
    providers: Providers = None,
    progress: Progress | None = None,
) -> Comparison:
    """The SQNR of every tensor that two networks have, layer by layer.

    Args:
        original, quantized: ONNX files or models, a `Model`, or a `Result`.
        data: a file or folder, prepared as the card says, or images as `quantize` takes them; the card's calibration
            data if left out, else samples made up as the card describes the input, or as the quantized file says.
        limit: use only the first so many samples.
        providers: as for `quantize`.
        progress: called before each batch, with how many samples are done, and the limit.

    Raises:
        EquintError: files that cannot be read, or that share no tensor; nothing that tells what the input looks like.

    Example:
        >>> from equint import quantize
        >>> from equint.demo import model_path
        >>> found = compare(model_path(), quantize(model_path(), input=(0, 1)))
        >>> found.tensors[-1].tensor, found.tensors[-1].sqnr_db > 10
        ('output', True)
    """
    from .runtime.machine import machine, on
    from .runtime.session import Session
    from .samples.data import feeds as read_feeds
    from .samples.presented import inputs_alone, inputs_of_both, presented
    from .study.compare import Comparison
    from .study.compare import compare as measure

    check(limit=limit, providers=providers, progress=progress)
    check_path("data", data)
    if limit is None or limit < 1:
        raise InvalidOption(f"limit = {limit}: give 1 or more")
    tell = None if progress is None else lambda done: progress("comparing", done, limit)
    with on(machine(providers)):
        prepared = _card(card)
        networks = _float("original", original), executable("quantized", quantized)
        seen = Outside(_ranges(networks[1]))
        where: Any = prepared.data.get("calibration") if data is None else data
        feeds: Iterable[Any] | None = None
        inputs = inputs_of_both(*(Session(network).shapes for network in networks)) if where is not None else {}
        if isinstance(where, (str, os.PathLike)):
            laid = laid_out(prepared, inputs.values())
            feeds = (x for x, _ in read_feeds(where, laid, inputs, size=8, limit=limit))
            where = os.fspath(where)
        elif where is not None:
            feeds, where = presented(Samples.of(where, "data"), inputs_alone(inputs)).first(limit), "data"
        else:
            feeds = _made_up(*networks, None if card is None else prepared)
            feeds = None if feeds is None else feeds.first(limit)
        found = measure(*networks, feeds, where or "data", tell, seen.add)
    return Comparison(found, where or "", None if card is None else prepared.task, tuple(seen.warnings()))


def _made_up(original: Any, quantized: Any, card: Card | None) -> Samples | None:
    """Samples made up as a card, or else the quantized network's file, describes its only input; else None."""
    from .frontends.sources import load
    from .onnx.qdq import described_inputs
    from .onnx.reader import load_proto
    from .planning.search import made_up_samples
    from .samples.card import described

    network = load(original)
    if card is not None:
        network = described(network, laid_out(card, [network.graph.shapes.get(n) for n in network.graph.inputs]))
    else:
        proto = load_proto(quantized) if isinstance(quantized, (str, os.PathLike)) else quantized
        network = described_inputs(proto, network, quantized)
    known = [n for n in network.graph.inputs if n in network.moments and network.moments[n].origin == "given"]
    return made_up_samples(network) if known and len(network.graph.inputs) == 1 else None


@dataclass(frozen=True)
class Table:
    """Networks quantized in many ways, one row each."""

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        failed = sum(bool(row.reason) for row in self.rows)
        return f"Table(rows={len(self.rows)}, without result={failed})"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def _repr_html_(self) -> str:
        """For notebooks: a row for each way, the figures that were measured."""
        from .pages.results import FIGURES

        keys = [key for key in FIGURES if any(key in row.results for row in self.rows)]
        heads = ("network", "recipe", "target", *(FIGURES[key][0] for key in keys))
        rows = [
            (row.network, row.recipe, row.target, *(row.results.get(key, row.reason or None) for key in keys))
            for row in self.rows
        ]
        return block(repr(self), (), [table_of("measured", heads, rows, 40)])

    def facts(self) -> list[dict[str, Any]]:
        """One table for each row, ready for JSON; what is infinite or no number is text."""
        return [jsonable(asdict(row), str) for row in self.rows]

    def markdown(self) -> str:
        """One table for each network, for people."""
        from .pages.results import markdown

        return markdown(self.rows)


def table(
    networks: Sequence[Named],
    recipes: Sequence[Named | Recipe],
    targets: Sequence[Named | Target] = (),
    *,
    bits: Sequence[tuple[int | None, ActivationBits]] = ((8, 8),),
    images: int | Sequence[int | None] | None = None,
    limit: int | Mapping[str, int] | None = None,
    cache: Named = "equint-results",
    jobs: int = 1,
    ray: str | None = None,
    providers: Providers = None,
    progress: Progress | None = None,
) -> Table:
    """Every network in every way: its float figures, then one row per recipe, target, bit widths and images.

    What was measured before, on the same contents with the same version of equint, is read from the cache; a run that
    was killed goes on where it stopped. A way that cannot be, or fails, is a row with a reason.

    Args:
        networks: cards, or networks with a card beside them or one folder up.
        recipes, targets: names, files or values; without targets every recipe is for its own.
        bits: (weights, activations), 2 to 16; activations may stay "float".
        images: so many of the card's calibration images; several numbers (None: no images) for a row each; 0: none even
            where a recipe asks for some.
        limit: samples to judge on, for all or by the network's name.
        cache: folder of what was found: one line per row, and the float networks' outputs.
        jobs: processes, with one thread of onnxruntime each; with 1 it takes all threads.
        ray: do the work with Ray, on this machine ("local") or on a cluster at an address; needs the extra
            `equint[ray]`. Its machines must see the same files. docs/fleets.md says more.
        providers: execution providers of onnxruntime that networks run on, the preferred first; the CPU if left out.
        progress: called with what was done, rows done, and rows in all.

    Raises:
        EquintError: networks, cards, recipes or targets that are not there, or a cache that cannot be written.

    Example:
        >>> table([], ["lwq"])
        Table(rows=0, without result=0)
    """
    from .crew.workers import hired
    from .runtime.machine import machine
    from .study.table import table as measure

    _check_ways(networks, recipes, targets, bits, images, limit)
    check(cache=cache, jobs=jobs, ray=ray, providers=providers, progress=progress)
    about: dict[str, Any] = {"bits": bits, "images": images, "limit": limit, "cache": cache, "progress": progress}
    with hired(jobs, ray) as crew:
        return Table(measure(networks, recipes, targets, crew=crew, machine=machine(providers), **about))


def _check_ways(networks: Any, recipes: Any, targets: Any, bits: Any, images: Any, limit: Any) -> None:
    """Refuse what is no list of networks, recipes, targets, pairs of bit widths, or numbers."""
    for name, values in (("networks", networks), ("recipes", recipes), ("targets", targets), ("bits", bits)):
        if not _is_list(values) or None in values:
            raise refused(name, values, "a list of them")
    for network in networks:
        check(path=network)
    for recipe in recipes:
        check(recipe=recipe)
    for target in targets:
        check(target=target)
    for pair in bits:
        if not _is_list(pair) or len(pair) != 2:
            raise refused("bits", bits, "pairs of bit widths, such as (8, 8)")
        check(weight_bits=pair[0], activation_bits=None if pair[1] == "float" else pair[1])
    for number in images if _is_list(images) else [images]:
        check(images=number)
        if number is not None and number < 0:
            raise InvalidOption(f"images = {number}: give 0 or more")
    for name, number in limit.items() if isinstance(limit, Mapping) else [("", limit)]:
        check(name=name, limit=number)
        if number is not None and number < 1:
            raise InvalidOption(f"limit = {number}: give 1 or more")


def _is_list(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, (str, bytes))


def page(results: Sequence[Named], *, name: str = "") -> str:
    """Results of several runs beside one another, as one HTML page: verdicts, figures, sizes, and what differs.

    Args:
        results: files that hold what `equint quantize --json` or `equint auto --json` printed; two or more.
        name: what the page is called.

    Raises:
        EquintError: fewer than two, or a file that holds something else.

    Example:
        >>> page([])
        Traceback (most recent call last):
        equint.errors.InvalidOption: results = []: give two files or more; equint report shows one network
    """
    from .pages.runs import read_run, runs_page

    check(name=name)
    if not _is_list(results):
        raise refused("results", results, "a list of files")
    if len(results) < 2:
        raise InvalidOption(
            f"results = {list(map(str, results))}: give two files or more; equint report shows one network"
        )
    for path in results:
        check(path=path)
    return runs_page([read_run(path) for path in results], name)


def _card(card: Card | Named | None) -> Card:
    if card is None or isinstance(card, Card):
        return card or Card()
    check(card=card)
    return read_card(card)


def _float(argument: str, source: Any) -> Any:
    """A float network that can be run. Raises EquintError: as `executable`; it is quantized already."""
    from .onnx.reader import check_float, load_proto

    network = executable(argument, source)
    proto = load_proto(network) if isinstance(network, (str, os.PathLike)) else network
    if hasattr(proto, "graph"):
        check_float(proto, _name(network))
    return network


def _ranges(network: Any) -> Mapping[Name, tuple[float, float]]:
    """The ranges that inputs of a quantized network are quantized for, as far as its file tells."""
    from .onnx.qdq import input_spans
    from .onnx.reader import load_proto

    proto = load_proto(network) if isinstance(network, (str, os.PathLike)) and not is_bundle(network) else network
    return input_spans(proto, network) if hasattr(proto, "graph") else {}


def _name(source: Any) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__.lower()
