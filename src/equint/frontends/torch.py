"""From a torch module to ONNX with its BatchNorms kept, and from a quantized model back to a torch module."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from ..errors import InvalidOption, UnsupportedOperator
from ..ir.model import Model
from ..ops.lazy_torch import torch
from ..torch.executor import module as executor

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor

OPSET = 17
TOLERANCE = 1e-3
"""Of the greatest output: how far the exported network may be from the module."""


def from_torch(module: torch.nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> ModelProto:
    """A torch module as ONNX: in inference mode, its BatchNorms kept, the batch size free.

    The module is traced on a copy in float32 on the CPU; the original stays as it is, mode and device included.
    What tracing would freeze is refused: the exported network is compared with the module on a batch of twice
    the size.

    Args:
        module: any `torch.nn.Module` whose inputs and outputs are tensors, batch first.
        example_inputs: one tensor, or a tuple of them; their values matter little, their shapes do.

    Raises:
        EquintError: no module, no tensors, a module that does not run on them, control flow that depends on their
            values, or operators that ONNX does not have.

    Example:
        >>> net = torch.nn.Conv2d(3, 8, 3)  # doctest: +SKIP
        >>> from_torch(net, torch.zeros(1, 3, 8, 8)).graph.node[0].op_type  # doctest: +SKIP
        'Conv'
    """
    inputs, label = _checked(module, example_inputs), type(module).__name__
    ready = _on_cpu(module, label)
    outputs, looked = _watched(ready, inputs, label)
    proto, frozen = _traced(ready, inputs, len(outputs), label)
    if looked or frozen:
        why = "reads the values of a tensor in Python" + (f" ({frozen})" if frozen else "")
        raise UnsupportedOperator(
            f"{label}: {why}, which tracing would freeze; compute that with tensors (torch.where)"
        )
    _compare(ready, inputs, proto, label)
    return proto


def to_torch(model: Model) -> torch.nn.Module:
    """The quantized model as a torch module: what its QDQ model computes, with straight-through gradients.

    Raises:
        EquintError: torch is missing, or an operator that equint cannot run in torch.

    Example:
        >>> to_torch(quantize("net.onnx").model)(torch.zeros(1, 3, 8, 8))  # doctest: +SKIP
    """
    from ..onnx.qdq import qdq_graph

    return executor(qdq_graph(model))


def _checked(module: Any, example_inputs: Any) -> tuple[Tensor, ...]:
    """The inputs as a tuple of tensors on the CPU, whole numbers as they are and all others in float32."""
    if not isinstance(module, torch.nn.Module):
        raise InvalidOption(f"a {type(module).__name__} is no torch module; give a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise InvalidOption("a scripted or traced module; give the module that it was made from")
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    if not isinstance(inputs, (tuple, list)) or not inputs or not all(isinstance(x, torch.Tensor) for x in inputs):
        raise InvalidOption(f"example inputs are a {type(inputs).__name__}; give a tensor, or a tuple of tensors")
    if any(x.ndim == 0 or x.shape[0] == 0 for x in inputs):
        raise InvalidOption("example inputs need a batch: shapes (N, …), N at least 1")
    found = (x.detach().cpu().clone() for x in inputs)  # a module may write into what it is given
    return tuple(x.float() if x.is_floating_point() else x for x in found)


def _on_cpu(module: torch.nn.Module, label: str) -> torch.nn.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return copy.deepcopy(module).cpu().float().eval()
    except Exception as error:
        raise UnsupportedOperator(
            f"{label}: cannot be copied to the CPU ({_line(error)}); give a copy of it there"
        ) from error


def _watched(module: torch.nn.Module, inputs: tuple[Tensor, ...], label: str) -> tuple[list[Tensor], bool]:
    """The module's outputs, and whether it looked at values that depend on its inputs."""
    watch = _watch(inputs)
    try:
        with torch.no_grad(), watch:
            found = module(*(x.clone() for x in inputs))
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise UnsupportedOperator(f"{label}: does not run on the example inputs, {shapes} ({_line(error)})") from error
    return _flat(found, label), watch.looked


def _watch(inputs: tuple[Tensor, ...]) -> Any:
    """Follows what is computed from the inputs until a value of it becomes a number in Python."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
            self.followed: dict[int, Tensor] = {id(x): x for x in inputs}  # kept, so that no id is used again
            self.looked = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if any(id(leaf) in self.followed for leaf in tree_leaves((args, kwargs))):
                self.looked |= func is torch.ops.aten._local_scalar_dense.default
                self.followed.update((id(leaf), leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
            return result

    return Watch()


def _flat(found: Any, label: str) -> list[Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, (tuple, list)) and found:
        return [x for part in found for x in _flat(part, label)]
    raise UnsupportedOperator(f"{label}: returns a {type(found).__name__}; wrap it in a module that returns tensors")


def _traced(module: torch.nn.Module, inputs: tuple[Tensor, ...], outputs: int, label: str) -> tuple[ModelProto, str]:
    """The ONNX model, and what the tracer says of values that left torch on the way."""
    import onnx

    given = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [given[k] if k < len(given) else f"input_{k}" for k in range(len(inputs))]
    names = ["input"] if len(inputs) == 1 else named
    results = ["output"] if outputs == 1 else [f"output_{k}" for k in range(outputs)]
    file = io.BytesIO()
    quiet = patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True)  # prints graphs that it cannot export
    try:
        with warnings.catch_warnings(record=True, action="always") as caught, quiet:
            torch.onnx.export(
                module,
                inputs,
                file,  # type: ignore[arg-type, unused-ignore]
                input_names=names,
                output_names=results,
                dynamic_axes={name: {0: "N"} for name in (*names, *results)},
                opset_version=OPSET,
                do_constant_folding=False,  # which would fold BatchNorms into convolutions
                dynamo=False,
            )
    except Exception as error:
        raise UnsupportedOperator(
            f"{label}: torch cannot export it to ONNX ({_line(error)}); change that part"
        ) from error
    warned = [_line(w.message) for w in caught if w.category.__name__ == "TracerWarning"]
    left = next((t for t in warned if "NumPy" in t or "Python list" in t), "")
    return onnx.load_from_string(file.getvalue()), left.split(" might")[0]


def _compare(module: torch.nn.Module, inputs: tuple[Tensor, ...], proto: ModelProto, label: str) -> None:
    """Both compute the same on other values in a batch of twice the size."""
    from ..runtime.session import Session

    noise = torch.Generator().manual_seed(0)
    doubled = [torch.cat([x, torch.randn(x.shape, generator=noise) if x.is_floating_point() else x]) for x in inputs]
    names = [i.name for i in proto.graph.input]
    if len(names) != len(inputs):
        raise UnsupportedOperator(
            f"{label}: takes {len(inputs)} inputs and reads {len(names)}, {', '.join(names)}; drop the others"
        )
    try:
        with torch.no_grad():
            wanted = [y.numpy() for y in _flat(module(*(x.clone() for x in doubled)), label)]
        found = list(Session(proto).run(dict(zip(names, (x.numpy() for x in doubled), strict=False))).values())
    except Exception as error:
        raise UnsupportedOperator(f"{label}: does not run on a batch of another size ({_line(error)})") from error
    for a, b in zip(found, wanted, strict=True):
        greatest = float(np.abs(b[np.isfinite(b)]).max(initial=1e-6))
        if a.shape != b.shape or not np.allclose(a, b, 0, TOLERANCE * greatest, equal_nan=True):
            why = "random numbers, or Python code that depends on sizes"
            raise UnsupportedOperator(
                f"{label}: its ONNX model computes something else on other inputs: {why}; remove it"
            )


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
