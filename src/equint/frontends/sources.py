"""What a network can be given as: a path, an ONNX model, a torch module, or what was read before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InvalidOption, UnreadableModel
from ..ir.model import Model

if TYPE_CHECKING:
    from onnx import ModelProto

    Network: TypeAlias = Model | str | os.PathLike[str] | ModelProto


def load(source: Network) -> Model:
    """Read a float network, ONNX or TFLite.

    Raises:
        UnreadableModel: the file is missing, damaged, too old or already quantized.

    Example:
        >>> from equint.demo import model_path
        >>> load(model_path()).graph.outputs
        ('output',)
    """
    if isinstance(source, Model):
        return source
    if not isinstance(source, (str, os.PathLike)) and not hasattr(source, "SerializeToString"):
        raise InvalidOption(f"source: a {type(source).__name__}; give a path, an ONNX model, or what load gave")
    from ..onnx.reader import read

    return read(source)


def from_torch(module: Any, example_inputs: Any) -> Model:
    """A torch module as a network whose BatchNorms, and so its moments, are kept.

    Args:
        module: a `torch.nn.Module`; traced on a copy, in inference mode, on the CPU.
        example_inputs: a tensor, or a tuple of them: their shapes matter.

    Raises:
        EquintError: torch is missing (extra equint[torch]), or the module cannot be exported: it says why.

    Example:
        >>> from_torch(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)).graph.outputs  # doctest: +SKIP
        ('output',)
    """
    if example_inputs is None:
        raise InvalidOption("a torch module needs example_inputs: a tensor, or a tuple of them, that it runs on")
    from .torch import from_torch as traced

    return load(traced(module, example_inputs))


def present(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is not there."""
    if not os.path.isfile(path):
        what = "is a folder; give a file" if os.path.isdir(path) else "no such file; correct its name"
        raise UnreadableModel(f"{os.fspath(path)}: {what}")
