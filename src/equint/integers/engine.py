"""The integer engine: runs a Program bit for bit, as fast as onnxruntime's float kernels allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import EquintError
from ..ir.model import Array, Name
from ..maths.affine import storage
from .compiler import Compiler
from .program import Program

_KEPT = (  # optimizations that merge what must be rounded one by one, or take any padding for zeros
    ["ConvMulFusion", "ConvAddFusion", "ConvBNFusion", "MatMulScaleFusion", "MatMulAddFusion", "MatMulBNFusion"]
    + ["GemmSumFusion", "WeightBiasQuantization", "Pad_Fusion", "PadFusion"]
)


class Engine:
    """A program ready to run.

    Args:
        threads: 0 takes as many as there are cores.
        taps: further tensors to return, by name.

    Attributes:
        proof: how each step is computed.

    Raises:
        EquintError: a step of unknown kind, or a tap that the program does not have; the message names it.

    Example:
        >>> from ..ir.model import QParams
        >>> from .program import Step
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> clip = Step("Clip", "clip", ("x",), ("y",), {"axis": 1}, {"low": np.array(3), "high": np.array(9)})
        >>> engine = Engine(Program((clip,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": (1, 3), "y": (1, 3)}))
        >>> engine.run(np.array([[1, 5, 20]], np.uint8))["y"].tolist()
        [[3, 5, 9]]
        >>> engine.real(np.array([[-1.0, 1.0, 2.5]]))["y"].tolist()
        [[0.0, 1.0, 2.5]]
    """

    def __init__(self, program: Program, threads: int = 0, taps: Sequence[Name] = ()) -> None:
        self.program, self.threads = program, threads
        known = {*program.inputs, *(o for step in program.steps for o in step.outputs)}
        for name in taps:
            if name not in known:
                raise EquintError(f"{name}: the program has no such tensor; tap one of its steps' outputs")
        self.outputs = tuple(dict.fromkeys((*program.outputs, *taps)))
        compiled = Compiler(program, self.outputs)
        self.proof = compiled.steps()
        for name in self.outputs:
            compiled.integers(name)
        types = {n: storage(q) for n, q in program.grids.items()}
        passed = {o: compiled.maker.fresh(f"{o}_again") for o in self.outputs if o in program.inputs}
        for name, again in passed.items():
            compiled.maker.add("Identity", name, to=again)
        types |= {again: types[name] for name, again in passed.items()}
        self._names = [passed.get(o, o) for o in self.outputs]
        self._session = _session(compiled.maker.model(program, types, self._names).SerializeToString(), threads)

    def run(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of all outputs, and taps, for integers of the inputs (an array where there is one input).

        Raises:
            EquintError: an input is missing, or its integers are not of the shape, type or grid that the program has.
        """
        given = self._given(feeds)
        checked = {n: _checked(self.program, n, np.asarray(v)) for n, v in given.items()}
        try:
            values = self._session.run(self._names, checked)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EquintError(f"{self.program.name}: does not run on this input ({reason})") from error
        return dict(zip(self.outputs, values, strict=True))

    def real(self, x: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Real outputs for real inputs: quantized, run, and multiplied by their scales."""
        feeds = {n: self.program.quantized(n, np.asarray(v)) for n, v in self._given(x).items()}
        found = self.run(feeds)
        return {n: self.program.real(n, v) if n in self.program.grids else v for n, v in found.items()}

    def trace(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of what every step writes."""
        return self._tracer.run(feeds)

    @cached_property
    def _tracer(self) -> Engine:
        return Engine(self.program, self.threads, [o for step in self.program.steps for o in step.outputs if o])

    def _given(self, feeds: Array | Mapping[Name, Array]) -> Mapping[Name, Array]:
        wanted = self.program.inputs
        given = feeds if isinstance(feeds, Mapping) else {wanted[0]: feeds} if len(wanted) == 1 else {}
        if set(given) != set(wanted):
            raise EquintError(f"{self.program.name}: give its inputs {', '.join(wanted)} by name")
        return given


def _session(model: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_KEPT))


def _checked(program: Program, name: Name, value: Array) -> Array:
    """The integers of an input in the type that holds them."""
    grid, shape = program.grids[name], program.shapes.get(name)
    if value.dtype.kind not in "iu":
        raise EquintError(f"{name}: the engine takes integers, not {value.dtype}; use real(), which quantizes")
    if shape is not None and (
        len(shape) != value.ndim
        or any(isinstance(n, int) and n != have for n, have in zip(shape, value.shape, strict=True))
    ):
        raise EquintError(f"{name}: has shape {value.shape}; the program takes {tuple(shape)}")
    ends = np.iinfo(value.dtype)
    if (ends.min < grid.qmin or ends.max > grid.qmax) and value.size:
        low, high = int(value.min()), int(value.max())
        if low < grid.qmin or high > grid.qmax:
            raise EquintError(
                f"{name}: holds {low} to {high}, but its grid {grid.qmin} to {grid.qmax}; quantize it first"
            )
    return value.astype(program.storage(name), copy=False)
