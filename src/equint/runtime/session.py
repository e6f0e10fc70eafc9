"""onnxruntime sessions: run a network, or look inside it.

Graph optimizations are off unless asked for: the plain QDQ graph is the reference simulation, while the
optimizer may quantize what was meant to stay float.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, helper

from ..errors import UnreadableModel, UnusableData
from ..ir.model import Array, Name

Source = ModelProto | str | os.PathLike[str]


class Session:
    """A network ready to run.

    Args:
        source: an ONNX model or its path.
        optimized: run as deployed, with onnxruntime's graph optimizations and integer kernels.
        taps: further values to return, by name.
        lean: take memory operator by operator, and not one block for all.

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
        self, source: Source, optimized: bool = False, taps: Sequence[Name] = (), threads: int = 0, lean: bool = False
    ) -> None:
        options = ort.SessionOptions()
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_mem_pattern = not lean
        label = "model" if isinstance(source, ModelProto) else os.fspath(source)
        if taps:
            source = _tapped(source, taps)
        if not isinstance(source, ModelProto) and not Path(source).is_file():
            raise UnreadableModel(f"{label}: {'is a folder' if Path(source).is_dir() else 'no such file'}")
        handle = source.SerializeToString() if isinstance(source, ModelProto) else os.fspath(source)
        try:
            self._session = ort.InferenceSession(handle, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:300]
            raise UnreadableModel(f"{label}: onnxruntime cannot load it ({reason})") from error
        self.inputs = tuple(i.name for i in self._session.get_inputs())
        self.shapes: Mapping[Name, Sequence[int | str]] = {i.name: i.shape for i in self._session.get_inputs()}
        self.floats = frozenset(i.name for i in self._session.get_inputs() if i.type == "tensor(float)")
        self.outputs = tuple(o.name for o in self._session.get_outputs())
        self.label = label

    def run(self, x: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """All outputs, and taps, for one batch (an array where the network has one input).

        A network exported for a fixed batch runs on as many of them as are needed. Whole numbers become floats where
        the network wants those.
        """
        given = x if isinstance(x, Mapping) else {self.inputs[0]: x}
        feeds = {n: self._typed(n, v) for n, v in given.items()}
        size, count = _common_front(self.shapes.values()), _common_front([np.shape(v) for v in feeds.values()])
        if size and count and count % size:  # the last batch is filled up, and what that adds is cut off
            fill = size - count % size
            whole = {n: np.concatenate([v, np.repeat(v[-1:], fill, 0)]) for n, v in feeds.items()}
            return {o: _cut(v, count, count + fill) for o, v in self.run(whole).items()}
        if size and count and count > size:
            parts = [self.run({n: v[i : i + size] for n, v in feeds.items()}) for i in range(0, count, size)]
            return {o: np.concatenate([np.atleast_1d(p[o]) for p in parts]) for o in self.outputs}
        try:
            values = self._session.run(self.outputs, feeds)
        except Exception as error:
            fed = ", ".join(f"{n} {np.shape(v)}" for n, v in feeds.items())
            asked = ", ".join(f"{n} {tuple(s)}" for n, s in self.shapes.items())
            reason = " ".join(str(error).split())[:300]
            raise UnusableData(
                f"{self.label}: does not run on this input, {fed}; it wants {asked} ({reason})"
            ) from error
        return dict(zip(self.outputs, values, strict=True))

    def _typed(self, name: Name, value: Array) -> Array:
        whole = np.asarray(value).dtype.kind in "iub"
        return np.asarray(value, np.float32) if whole and name in self.floats else value


def _cut(value: Array, count: int, whole: int) -> Array:
    """What belongs to the first `count` of `whole` samples: each may have several rows."""
    rows = len(value) if value.ndim else 0
    return value[: rows * count // whole] if rows % whole == 0 else value


def _common_front(shapes: Iterable[Sequence[int | str]]) -> int | None:
    """The first size that all shapes share, if it is a number."""
    sizes = {shape[0] if len(shape) else None for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _tapped(source: Source, taps: Iterable[Name]) -> ModelProto:
    from ..onnx.reader import load_proto

    proto = ModelProto()
    proto.CopyFrom(source if isinstance(source, ModelProto) else load_proto(source))
    present = {o.name for o in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in taps if t not in present)
    return proto


def random_inputs(
    session: Session, count: int, spans: Mapping[Name, tuple[float, float]] | None = None, seed: int = 0
) -> dict[Name, Array]:
    """Normal inputs within `spans` (three standard deviations) or standard; free sizes become `count`, or 64 behind."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in session.shapes.items():
        size = [count if d == 0 else n if isinstance(n, int) else 64 for d, n in enumerate(shape)]
        lo, hi = (spans or {}).get(name, (-3.0, 3.0))
        draws = rng.normal((lo + hi) / 2, (hi - lo) / 6, size)
        found[name] = np.clip(draws, lo, hi).astype(np.float32)
    return found
