"""A quantized network: what was decided, and all that is made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from .arguments import Named, check
from .drafts import overwriting
from .errors import EquintError, InvalidOption, UnreadableModel, UnsupportedOperator
from .frontends.sources import load, present
from .graph.placement import kept_float
from .hardware.target import Target, is_built_in
from .ir.events import Event
from .ir.model import Model
from .job import NO_LAYERS, Job
from .kinds import JSON, NETWORK, TFLITE
from .markup import block
from .planning.data import single, sized
from .planning.spared import spare
from .planning.summary import log_facts, network_facts, text

if TYPE_CHECKING:
    from .integers.program import Program
    from .onnx.writer import ModelProto

Format = Literal["qdq", "tflite", "onnx-float", "encodings"]


@dataclass(frozen=True)
class Result:
    """A quantized network.

    Attributes:
        job: the network as it was read, the recipe and the target.
        model: after the last pass; its log says what every pass did and skipped.
        seconds: time spent in reading and passes.
    """

    job: Job
    model: Model
    seconds: float = field(compare=False, default=0.0)

    def __repr__(self) -> str:
        weights = sum(name in self.model.graph.consts for name in self.model.qparams)
        made = f"recipe={self.recipe!r}, target={self.target!r}, level={self.level}"
        return f"Result({made}, quantized weights={weights})"

    def _repr_html_(self) -> str:
        """For notebooks: what `summary` says first, and its warnings."""
        first, *lines = self.summary().splitlines()
        return block(first, [line for line in lines if not line.startswith("- ")])

    @property
    def original(self) -> Model:
        return self.job.original

    @property
    def recipe(self) -> str:
        return self.job.recipe.name

    @property
    def hardware(self) -> Target:
        """The target it was made for."""
        return self.job.target

    @property
    def target(self) -> str:
        return self.job.target.name

    @property
    def level(self) -> int:
        """1 no data, no backpropagation; 2 data; 3 data and backpropagation; 4 retraining."""
        level = self.job.recipe.level
        if self.job.data is None:
            return 1 if level == 2 else level
        return max(level, 2)

    @cached_property
    def proto(self) -> ModelProto:
        """The quantized network as a QDQ ONNX model; its metadata name recipe and target."""
        from .onnx.qdq import export

        own = {} if is_built_in(self.hardware) else {"target.own": "true"}
        return export(self.model, {"recipe": self.recipe, "target": self.target, **own})

    @cached_property
    def program(self) -> Program:
        """The quantized network in integers alone, as an NPU executes it.

        Where its inputs' size is free, it is that of the first sample it was calibrated on.

        Raises:
            EquintError: something in it has no integer form, or does not fit the target: it names the layer.
        """
        from .litert.programs import program_of

        model = sized(self.model, self.job.samples)
        with self.job.naming_file():
            return program_of(single(model, self.job.samples) if self.hardware.mixes else model, self.hardware)

    def save(
        self,
        path: Named,
        format: Format | None = None,
        io: str | None = None,
        force: bool = False,
    ) -> None:
        """Write the QDQ model, a .tflite file, or the float network and its grids.

        Constants above 2 GB go to a file beside ONNX; a .tflite file holds no more.

        Args:
            format: left out, the name's ending says it: .tflite, or else QDQ.
            io: of a .tflite file, the type of inputs and outputs: int8, uint8 or float.
            force: write over a file of another kind.

        Raises:
            EquintError: the output cannot be written, would overwrite what this was made of (the network and its
                external data, card, data, recipe or target) or a file of another kind, is called as one of another
                kind, or holds something that LiteRT has no operator for.
        """
        check(path=path, io=io, force=force)
        if format is not None:
            check(format=format)
        with overwriting(force):
            self._save(path, format, io)

    def _save(self, path: Named, format: Format | None, io: str | None) -> None:
        from .litert.saving import check_target, io_of, is_tflite
        from .litert.saving import save as save_tflite
        from .onnx.encodings import float_files, save_float
        from .onnx.writer import beside, save_proto

        format = format or ("tflite" if is_tflite(path) else "qdq")
        if io is not None and format != "tflite":
            raise InvalidOption(f"io = {io!r}: only .tflite files have other inputs and outputs; leave it out")
        if format == "tflite":
            check_target(self.hardware)
            self.spare({path: TFLITE})
            about: dict[str, Any] = {"recipe": self.recipe, "target": self.target, "level": self.level}
            about |= {} if is_built_in(self.hardware) else {"own": True}
            program, on = self.program, self.hardware
            with self.job.naming_file():
                save_tflite(program, path, io_of(io), about, on.litert_operators, on.litert_compiler)
            return
        if format == "qdq":
            self.spare({path: NETWORK, beside(path): None})
        else:
            self.spare(dict(zip(float_files(path, format), (NETWORK, JSON), strict=True)))
        if format == "qdq":
            save_proto(self.proto, path)
        else:
            save_float(self.model, path, format, {"recipe": self.recipe, "target": self.target})

    def spare(self, outputs: Mapping[Any, str | None]) -> None:
        """Refuse outputs, kinds by path, that would overwrite what this was made of, mislead, or cannot be written.

        Raises:
            OutputRefused: naming the output, and what would be lost.
        """
        spare(outputs, self.job.given)

    def to_torch(self) -> Any:
        """The quantized network as a torch module with straight-through gradients, for checking.

        Raises:
            EquintError: torch is missing (extra equint[torch]), or cannot run an operator.
        """
        from .frontends.torch import to_torch

        return to_torch(self.model)

    @property
    def warnings(self) -> tuple[Event, ...]:
        """What a user should know before trusting the result."""
        return tuple(e for e in self.model.log if e.warning)

    def facts(self) -> dict[str, Any]:
        """The result in numbers and words, ready for JSON."""
        about = {"recipe": self.recipe, "target": self.target, "level": self.level, **network_facts(self.model)}
        return {**about, "seconds": round(self.seconds, 3), **log_facts(self.model)}

    def summary(self) -> str:
        """The result as a short text.

        Example:
            >>> import equint
            >>> from equint.demo import model_path
            >>> print(equint.quantize(model_path(), input=(0, 1)).summary().splitlines()[0])
            recipe optimal (level 1) for target per-channel
        """
        return text(self.facts(), self.model)


def quantized(job: Job) -> Result:
    """The network, quantized.

    Raises:
        EquintError: nothing in it can be.
    """
    start = perf_counter()
    job = job.checked()
    model = job.searched()
    if not model.qparams:
        left = f"target {job.target.name} computes none of its layers on integers"
        kept = "; ".join(dict.fromkeys(why for _, why in kept_float(job.network.graph)))
        raise UnsupportedOperator(f"nothing to quantize: {f'{left} ({kept})' if kept else NO_LAYERS}")
    made = Result(job, model, job.seconds + perf_counter() - start)
    return _with_floats_told(made) if job.target.mixes else made


def _with_floats_told(result: Result) -> Result:
    """The result with a warning of what its program computes in float, if it has one."""
    from .litert.programs import float_events

    try:
        program = result.program
    except EquintError:  # who asks for it is told
        return result
    told = replace(result, model=result.model.noted(*float_events(program, result.model.graph)))
    vars(told)["program"] = program
    return told


def runnable(argument: str, source: Any) -> Any:
    """A network that onnxruntime or the integer engine can run: a path, an ONNX model, or a program.

    Args:
        argument: what messages call it; source: one of those, a `Model` from `load`, or a `Result`.

    Raises:
        EquintError: it is nothing of the kind, or not there.
    """
    if isinstance(source, Result):
        return source.proto
    if isinstance(source, Model):
        from .onnx.qdq import export
        from .onnx.writer import to_proto

        return export(source) if source.qparams else to_proto(source.graph)
    from .integers.program import Program

    if hasattr(source, "SerializeToString") or isinstance(source, Program):
        return source
    check(**{argument: source})
    present(source)
    return source


def executable(argument: str, source: Any) -> Any:
    """What `runnable` gives, with float .tflite files as ONNX.

    Raises:
        EquintError: as `runnable`; a quantized .tflite file, with what to run instead.
    """
    from .onnx.writer import to_proto
    from .tflite.content import content_of
    from .tflite.reader import is_tflite

    given = runnable(argument, source)
    if not isinstance(given, (str, os.PathLike)) or not is_tflite(given):
        return given
    try:
        return to_proto(load(given).graph)
    except UnreadableModel as error:
        target = content_of(Path(given).read_bytes(), os.fspath(given), quantized=True).provenance.get("target")
        same = "for the same target" if target is None else f"for the same target, {target}"
        todo = f"quantize to an .onnx file {same}, which rounds as it does but for a step here and there, and give that"
        only = "only LiteRT runs that, and golden writes vectors to compare it with"
        raise UnreadableModel(f"{str(error).partition(';')[0]}: {only}; {todo}") from error
