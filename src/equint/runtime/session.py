"""onnxruntime sessions: run a network, or look inside it.

Graph optimizations are off unless asked for: the plain QDQ graph is the reference simulation, while the
optimizer may quantize what was meant to stay float.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, helper

from ..errors import UnreadableModel, UnusableData, reason
from ..graph.inputs import row_axis
from ..ir.model import Array, Graph, Name
from ..samples.generated import stand_in
from ..samples.images import Run
from ..samples.presented import common_front, in_batches, in_samples, inputs_alone
from .machine import here, left_to_cpu

Source = ModelProto | str | os.PathLike[str]


class Session:
    """A network ready to run.

    Args:
        source: an ONNX model or its path.
        optimized: run as deployed, with onnxruntime's graph optimizations and integer kernels.
        taps: further values to return, by name.
        threads: 0 for all; left out, as many as `equint.runtime.machine.here` says.
        floats: with the float kernels that are fastest, quantizers as they stand: sums are rounded in another order.
        lean: take memory operator by operator and give it back, and not one block for all that is kept; run operators
            in their order, and those that tell sizes at once, so that no tensor waits for them.
        together: whether several samples may run at once where shapes leave that open; None: found out by the first.

    Raises:
        EquintError: onnxruntime refuses the model.

    Example:
        >>> import numpy as np
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.onnx.writer import to_proto
        >>> outputs = Session(to_proto(tiny_graph())).run(np.ones((1, 4, 4, 4), np.float32))
        >>> float(outputs["y"][0, 0, 1, 1])
        9.0
    """

    def __init__(
        self,
        source: Source,
        optimized: bool = False,
        taps: Sequence[Name] = (),
        threads: int | None = None,
        lean: bool = False,
        floats: bool = False,
        together: bool | None = None,
    ) -> None:
        label = "model" if isinstance(source, ModelProto) else os.fspath(source)
        if taps:
            source = _tapped(source, taps)
        if not isinstance(source, ModelProto) and not Path(source).is_file():
            raise UnreadableModel(
                f"{label}: {'is a folder; give a file' if Path(source).is_dir() else 'no such file; correct its name'}"
            )
        handle = source.SerializeToString() if isinstance(source, ModelProto) else os.fspath(source)
        try:
            self._session = _session(handle, partial(_options, optimized, floats, lean, threads))
        except Exception as error:
            raise UnreadableModel(f"{label}: onnxruntime cannot load it ({reason(error)}); export it again") from error
        self.inputs = tuple(i.name for i in self._session.get_inputs())
        self.shapes: Mapping[Name, Sequence[int | str]] = {i.name: i.shape for i in self._session.get_inputs()}
        self.types = {i.name: _DTYPES.get(i.type, "") for i in self._session.get_inputs()}
        self.outputs = tuple(o.name for o in self._session.get_outputs())
        self.label, self.together = label, together

    def run(self, x: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """All outputs, and taps, for one batch (an array where the network has one input).

        A network exported for a fixed batch runs on as many of them as are needed, one that mixes samples or takes one
        at a time on each alone. Numbers become of the type that the network wants where nothing of them is lost.

        Raises:
            EquintError: inputs that are missing, or of a shape or type that the network does not take.
        """
        given = x if isinstance(x, Mapping) else {self.inputs[0]: x}
        feeds = {n: _typed(n, np.asarray(v), self.types.get(n, "")) for n, v in given.items()}
        size, count = common_front(self.shapes.values()), common_front([np.shape(v) for v in feeds.values()])
        if isinstance(x, Run) or not count:
            return self._ran(feeds)
        if not size:  # or 0, which some exporters write for a free one
            return self._several(feeds, count)
        return in_batches(self._ran, feeds, count, size)

    def _several(self, feeds: Mapping[Name, Array], count: int) -> dict[Name, Array]:
        """Samples at once if the network takes that: whether it does is found out once, by the first several."""
        if count == 1 or self.together:
            return self._ran(feeds)
        if self.together is None:
            try:
                first = self._ran({n: v[:1] for n, v in feeds.items()})
            except UnusableData:  # what it calls batch may be more than samples
                found = self._ran(feeds)
                self.together = True
                return found
            try:
                found = self._ran(feeds)
            except UnusableData:
                self.together = False
            else:
                same = (np.array_equal(found[o], first[o]) for o in self.outputs)  # no sample's, but a constant
                self.together = all(
                    s or in_rows(found[o], first[o], count) for o, s in zip(self.outputs, same, strict=True)
                )
                if self.together:
                    return found
        return in_batches(self._ran, feeds, count, 1)

    def _ran(self, feeds: Mapping[Name, Array]) -> dict[Name, Array]:
        try:
            values = self._session.run(self.outputs, feeds)
        except Exception as error:
            fed = ", ".join(f"{n} {np.shape(v)}" for n, v in feeds.items())
            asked = ", ".join(f"{n} {tuple(s)}" for n, s in self.shapes.items())
            raise UnusableData(
                f"{self.label}: does not run on this input, {fed}; it wants {asked} ({reason(error)}); prepare it so"
            ) from error
        return dict(zip(self.outputs, values, strict=True))


def _options(optimized: bool, floats: bool, lean: bool, threads: int | None) -> ort.SessionOptions:
    options, levels, orders = ort.SessionOptions(), ort.GraphOptimizationLevel, ort.ExecutionOrder
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized or floats else levels.ORT_DISABLE_ALL
    if floats:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = here().threads if threads is None else threads
    options.log_severity_level = 4  # what fails is raised
    options.enable_mem_pattern = options.enable_cpu_mem_arena = not lean
    options.execution_order = orders.PRIORITY_BASED if lean else orders.DEFAULT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait burn another's time
    return options


def _session(source: bytes | str, options: Callable[[], ort.SessionOptions]) -> ort.InferenceSession:
    """A session on the providers that are `here`; what they leave to the CPU is told, by nobody else."""
    wanted, strict = here().providers, options()
    if here().plain:
        return ort.InferenceSession(source, strict, list(wanted), enable_fallback=0)
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    ort.set_default_logger_severity(4)
    try:
        found, why = ort.InferenceSession(source, strict, list(wanted[:-1]), enable_fallback=0), ""
    except Exception:  # of many kinds; what the network itself is to blame for is raised again below
        found = ort.InferenceSession(source, options(), list(wanted), enable_fallback=0)
        why = "it has no kernels for some operators, which run on the CPU"
    finally:
        ort.set_default_logger_severity(2)  # as it is from the start
    if lost := [name for name in wanted[:-1] if name not in found.get_providers()]:
        left_to_cpu(lost, "it does not start here, so that networks run on the CPU; mend its libraries")
    elif why:
        left_to_cpu(wanted, why)
    return found


def is_grouped(graph: Graph) -> bool:
    """Whether convolutions of groups are in a network: without `floats` they are slow, and what is left is not.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> is_grouped(tiny_graph())
        True
    """
    return any(node.op == "Conv" and int(node.attrs.get("group", 1)) > 1 for node in graph.nodes)


_DTYPES = {
    f"tensor({name})": dtype
    for name, dtype in {
        **{k: k for k in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "float16")},
        "float": "float32",
        "double": "float64",
    }.items()
}
"""NumPy's names of onnxruntime's types."""


def _typed(name: Name, value: Array, wanted: str) -> Array:
    """Numbers as the network's input wants them; refused where that would change them."""
    if not wanted or str(value.dtype) == wanted:
        return value
    kind = np.dtype(wanted).kind
    if kind == "f":
        return value.astype(wanted) if value.dtype.kind in "fiub" else value
    if value.dtype.kind not in "fiub":
        return value
    with np.errstate(invalid="ignore"):
        cast = value.astype(wanted)
    if not np.array_equal(cast, value):
        low, high = (f"{v:g}" for v in (np.min(value), np.max(value)))
        raise UnusableData(f"input {name} takes {wanted}, and was given {low} to {high}; give it as it is read")
    return cast


ALIKE = 1e-2
"""Two runs whose difference has less than this share of the power show the same sample: kernels round apart."""


def in_rows(several: Array, one: Array, count: int) -> bool:
    """Whether what came of several samples begins with what came of the first alone, and has as much for each."""
    if not one.ndim or several.shape != (count * one.shape[0], *one.shape[1:]):
        return False
    if one.dtype.kind not in "fiub":
        return True
    a, b = several[: one.shape[0]].astype(np.float64), one.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return bool(np.square(a - b).sum() <= ALIKE * np.square(b).sum() + 1e-12)


def _tapped(source: Source, taps: Iterable[Name]) -> ModelProto:
    from ..onnx.reader import load_proto

    proto = ModelProto()
    proto.CopyFrom(source if isinstance(source, ModelProto) else load_proto(source))
    present = {o.name for o in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in taps if t not in present)
    return proto


def random_inputs(
    session: Session,
    count: int,
    spans: Mapping[Name, tuple[float, float]] | None = None,
    seed: int = 0,
    size: int = 64,
    told: bool = False,
) -> dict[Name, Array]:
    """Normal inputs within `spans` (three standard deviations) or standard; free sizes behind the first become `size`.

    They are `count` samples where all inputs hold samples along their first axis, else one. Pixels are 0 to 255, other
    whole numbers 0 or 1; where `told`, those that may tell how many rows another input holds do so.

    Raises:
        UnusableData: an input says too little of itself.
    """
    graph = replace(inputs_alone(session.shapes), dtypes={n: t or "float32" for n, t in session.types.items()})
    like = stand_in(graph, size)
    if not isinstance(like, Mapping):
        raise UnusableData(f"{session.label}: its inputs say too little of themselves to make some up; give --data")
    several, rng, found = in_samples(graph), np.random.default_rng(seed), dict[Name, Array]()
    for name, value in like.items():
        sizes = (count, *value.shape[1:]) if several else value.shape
        if told and row_axis(graph, name):
            found[name] = np.full(sizes, value.flat[0])
        elif value.dtype.kind != "f":
            found[name] = rng.integers(0, 256 if value.dtype == np.uint8 else 2, sizes).astype(value.dtype)
        else:
            lo, hi = (spans or {}).get(name, (-3.0, 3.0))
            draws = rng.normal((lo + hi) / 2, (hi - lo) / 6, sizes)
            found[name] = np.clip(draws, lo, hi).astype(value.dtype)
    return Run(found) if isinstance(like, Run) else found
