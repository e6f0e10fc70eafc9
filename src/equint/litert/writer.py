"""From an integer program to a .tflite file: what every operator needs to be written, and the walk over the steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InvalidOption, UnsupportedOperator
from ..integers.program import Program, Step
from ..ir.model import Array, Name, QParams
from ..maths.affine import storage
from .file import File
from .layouts import Order, as_written, moves_nothing, stored

Io = Literal["int8", "uint8", "float"]
IOS: tuple[Io, ...] = get_args(Io)
"""Types of a file's inputs and outputs: the integers themselves, or converted at its ends."""
TARGET = "tflite-int8"
"""The target of such files where none is named."""
Place = tuple[int, Order]
"""A tensor of the file, and the order in which it holds a tensor of the program."""
_ACTIVATIONS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


class Writer:
    """What has been written so far, and what every operator needs for it.

    Attributes:
        places: where each tensor of the program is, in every order that something asked for; reals: the same of those
            that are float, or dequantized.
        mixed: of features that were flattened out of images, for each position in memory which feature lies there;
            matrix products read them so.
    """

    def __init__(self, program: Program) -> None:
        grids = program.grids.values()
        self.program = program
        self.file = File(all(grid.signed for grid in grids), any(grid.bits > 8 for grid in grids))
        self.places: dict[Name, list[Place]] = {}
        self.reals: dict[Name, list[Place]] = {}
        self.mixed: dict[Name, Array] = {}
        self.readers: dict[Name, list[Step]] = {}
        for step in program.steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)

    def grid(self, name: Name) -> QParams:
        """The grid of a tensor."""
        return self.program.grids[name]

    def dtype(self, name: Name) -> str:
        """The type in which the file holds a tensor."""
        return str(storage(self.grid(name)))

    def shape(self, name: Name) -> tuple[int, ...]:
        """All sizes of a tensor; a batch of unknown size counts one."""
        known = self.program.shapes.get(name)
        if known is None and name in self.program.consts:
            known = self.program.consts[name].shape
        if known is None or any(not isinstance(n, int) for n in known[1:]):
            raise UnsupportedOperator(f"{name}: its size is not known; {self.sizing(name)}")
        return tuple(n if isinstance(n, int) else 1 for n in known)

    def sizing(self, name: Name) -> str:
        """What to do about a size that is not known."""
        if name in self.program.inputs:
            return "give --data, whose first sample tells it, or export the network with static shapes"
        return "make the input that it hangs on a constant (--set), or export the network with static shapes"

    def rank(self, name: Name) -> int:
        """Number of axes."""
        return len(self.shape(name))

    def place(self, name: Name) -> Place:
        """Where a tensor is first; a constant comes as it is."""
        if name not in self.places:
            if name not in self.program.consts:
                raise UnsupportedOperator(
                    f"{name}: holds sizes that are computed; export the network with static shapes"
                )
            rank = self.program.consts[name].ndim
            return self.read(name, as_written(rank)), as_written(rank)
        return self.places[name][0]

    def read(self, name: Name, order: Order) -> int:
        """A tensor in this order, moved into it where it is in no such."""
        known = self.places.setdefault(name, [])
        for index, have in known:
            if have == order:
                return index
        if name in self.program.consts:
            value = self.program.consts[name]
            index = self.file.constant(name, value.transpose(order), self.grid(name))
        else:
            index = self.moved(name, *known[0], order)
        known.append((index, order))
        return index

    def moved(self, name: Name, index: int, have: Order, order: Order) -> int:
        """A copy of a tensor in another order."""
        shape = self.shape(name)
        made = self.file.tensor(name, stored(shape, order), self.dtype(name), self.grid(name))
        if moves_nothing(shape, have, order):
            self.reshape(index, made)
        else:
            perm = np.array([have.index(axis) for axis in order], np.int32)
            version = 4 if len(perm) > 4 else 0
            self.file.operator("TRANSPOSE", [index, self.file.constant("perm", perm)], [made], version)
        return made

    def reshape(self, x: int, y: int) -> None:
        """A RESHAPE between two tensors of the file."""
        shape = np.array(self.file.tensors[y]["shape"], np.int32)
        self.file.operator("RESHAPE", [x, self.file.constant("shape", shape)], [y], new_shape=shape)

    def made(self, name: Name, order: Order) -> int:
        """A new tensor for what a step makes, in this order."""
        index = self.file.tensor(name, stored(self.shape(name), order), self.dtype(name), self.grid(name))
        self.places.setdefault(name, []).append((index, order))
        return index

    def raw(self, name: Name, shape: Sequence[int]) -> int:
        """A new tensor on the grid of one of the program's, of which something else makes that."""
        return self.file.tensor(f"{name}_raw", shape, self.dtype(name), self.grid(name))

    def put(self, name: Name, index: int, order: Order) -> None:
        """Say that a tensor is at a place already."""
        self.places.setdefault(name, []).append((index, order))

    def integers(self, name: str, values: int | Sequence[int] | Array) -> int:
        """An int32 constant."""
        return self.file.constant(name, np.asarray(values, np.int32))

    def sizes(self, step: Step, name: Name) -> list[int]:
        """A constant of whole numbers; an error where it is computed."""
        if name not in self.program.consts:
            raise UnsupportedOperator(f"{step.label}: {name} is computed; export the network with static shapes")
        return [int(n) for n in np.ravel(self.program.consts[name])]

    def finished(self, step: Step, order: Order, write: Callable[[int, str], None], fuses: bool = True) -> None:
        """Write what makes a step's output, and the clamp behind it where no activation of LiteRT is that clamp.

        Args:
            write: given the tensor to make and the activation that is part of its operator.
            fuses: whether the operator may have one.
        """
        (y,), how = step.outputs, step.requantize
        grid = self.grid(y)
        kind = "NONE" if how is None else activation(grid, how.low, how.high)
        if kind == "NONE" or (kind and fuses):
            write(self.made(y, order), kind)
            return
        raw = self.raw(y, stored(self.shape(y), order))
        write(raw, "NONE")
        if how is not None:
            self.clamp(step, raw, how.low, how.high, order)

    def clamp(self, step: Step, x: int, low: Array, high: Array, order: Order) -> None:
        """An activation alone, or MAXIMUM and MINIMUM with constants: `()`, or `(C,)` along the step's channels."""
        (y,) = step.outputs
        grid, kind = self.grid(y), activation(self.grid(y), low, high)
        if kind in ("RELU", "RELU6", "RELU_N1_TO_1"):
            self.file.operator(kind, [x], [self.made(y, order)])
            return
        stored_as = np.iinfo(storage(grid))  # which may be wider than the grid
        ends = [
            (op, end)
            for op, end, free in (("MAXIMUM", low, stored_as.min), ("MINIMUM", high, stored_as.max))
            if np.any(end != free)
        ]
        for k, (op, end) in enumerate(ends):
            last = k == len(ends) - 1
            made = (
                self.made(y, order)
                if last
                else self.file.tensor(f"{y}_raw", stored(self.shape(y), order), self.dtype(y), grid)
            )
            self.file.operator(op, [x, self.file.constant("bound", self.along(step, end, order), grid)], [made])
            x = made

    def along(self, step: Step, values: Array, order: Order) -> Array:
        """`()` or `(C,)` integers of a step's output against it, in an order."""
        kind, rank = storage(self.grid(step.outputs[0])), self.rank(step.outputs[0])
        values = np.asarray(values)
        if values.size == 1:
            return values.reshape((1,)).astype(kind)
        shape = [1] * rank
        shape[step.axis % rank] = values.size
        return values.reshape(shape).transpose(order).astype(kind)

    def refuse(self, step: Step, why: str) -> UnsupportedOperator:
        """An error that names the step."""
        return UnsupportedOperator(f"{step.label}: {why}")


def activation(grid: QParams, low: Array, high: Array) -> str:
    """The fused activation of LiteRT that clamps to [low, high] on a grid; empty where none does.

    Example:
        >>> grid = QParams(np.float32(0.05), np.int32(-128), signed=True)
        >>> activation(grid, np.array(-128), np.array(-8)), activation(grid, np.array(-128), np.array(0))
        ('RELU6', '')
    """
    if np.size(low) != 1 or np.size(high) != 1:
        return ""
    ends = int(np.ravel(low)[0]), int(np.ravel(high)[0])
    ends_of = np.iinfo(storage(grid))
    whole = int(ends_of.min), int(ends_of.max)
    if ends == whole:
        return "NONE"
    for kind, (lo, hi) in _ACTIVATIONS.items():
        bounds = [whole[k] if b is None else _on_grid(b, grid) for k, b in enumerate((lo, hi))]
        if ends == (max(bounds[0], whole[0]), min(bounds[1], whole[1])):
            return kind
    return ""


def _on_grid(value: float, grid: QParams) -> int:
    """z + round(value/s), ties away from zero, in float32."""
    steps = np.float32(value) / np.float32(grid.scale)
    return int(grid.zero_point) + int(np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)))


Form = Callable[[Writer, Step], None]


def write(
    program: Program,
    io: Io | None = None,
    about: Mapping[str, Any] | None = None,
    taken: Collection[str] = (),
    compiler: str = "",
) -> bytes:
    """A program as a .tflite file: images are channels last, inputs and outputs that are images too.

    Args:
        program: lowered for a target whose arithmetic is LiteRT's.
        io: the type of inputs and outputs: that of the integers where it is None, or one converted at the file's ends.
        about: where it comes from, as JSON, for the file's metadata.
        taken: the operators of LiteRT that the hardware runs; empty: all.
        compiler: what compiles the file, to whose bounds on sizes it keeps: vela, or none.

    Raises:
        EquintError: a step that LiteRT or the hardware has no operator for, or unknown sizes; it names the node.
        OutputRefused: more than 2 GB.

    Example:
        >>> from ..hardware.target import target
        >>> from ..integers.lower import lower
        >>> from ..ir.model import Model
        >>> from ..ops.layers import tiny_graph
        >>> from ..tflite.flatbuffer import unpack
        >>> x, y = (QParams(np.float32(s), np.int32(3)) for s in (0.5, 0.25))
        >>> w = QParams(np.float32(0.125), np.int32(0), narrow=True)
        >>> made = lower(Model(tiny_graph(), qparams={"x": x, "w": w, "y": y}), target("tflite-int8"))
        >>> [code["builtin_code"] for code in unpack(write(made))["operator_codes"]]
        ['DEPTHWISE_CONV_2D']
    """
    from .. import __version__
    from .ends import entry_order, exit_order

    writer, inputs, outputs = filled(program, io, taken, compiler)

    names = (*program.inputs, *program.outputs)
    orders = {
        **{n: entry_order(writer, n) for n in program.inputs},
        **{n: exit_order(writer, n) for n in program.outputs},
    }
    axes = {name: order for name, order in orders.items() if order != as_written(len(order))}
    facts = json.dumps({"equint": __version__, **(about or {}), "axes": axes}).encode()
    return writer.file.packed(inputs, outputs, f"equint {__version__}", names, equint=facts)


def filled(
    program: Program,
    io: Io | None = None,
    taken: Collection[str] = (),
    compiler: str = "",
    writer: Writer | None = None,
) -> tuple[Writer, list[int], list[int]]:
    """All that `write` writes, by a writer of its own if none is given; the file's inputs and outputs in it."""
    from .ends import entered, left
    from .operators import FORMS

    if io not in (None, *IOS):
        raise InvalidOption(f"io = {io!r}: choose {', '.join(IOS)}")
    if io in ("int8", "uint8") and any(grid.bits > 8 for grid in program.grids.values()):
        raise InvalidOption(f"io = {io!r}: activations are int16; choose float, or leave it out")
    _check_program(program)
    writer = writer or Writer(program)
    inputs = [entered(writer, name, io) for name in program.inputs]
    for step in program.steps:
        if step.op not in FORMS:
            raise writer.refuse(
                step, f"LiteRT has no operator for {step.op} of integers; replace it, or end the network before it"
            )
        before = len(writer.file.operators)
        FORMS[step.op](writer, step)
        _check_taken(writer, step, taken)
        _check_sizes(writer, step, before, compiler)
    return writer, inputs, [left(writer, name, io) for name in program.outputs]


def is_for_litert(program: Program) -> bool:
    """Whether a program was lowered for a target whose arithmetic is LiteRT's."""
    return program.rounding == "double" and program.mantissa_bits == 31


def _check_program(program: Program) -> None:
    """Refuse programs that no .tflite file holds, whatever their steps are."""
    if not is_for_litert(program):
        raise InvalidOption("a .tflite file holds LiteRT's arithmetic; quantize for a target of it, as tflite-int8")
    if program.joins is not None:
        raise UnsupportedOperator(
            f"{program.results[0]}: is joined in float, for which files of integers have no place"
        )
    made = (*program.inputs, *(name for step in program.steps for name in step.outputs))
    odd = next((n for n in made if n in program.grids and program.grids[n].bits not in (8, 16)), None)
    if odd is not None:
        bits = program.grids[odd].bits
        raise UnsupportedOperator(
            f"{odd}: grid of {bits} bits; .tflite files hold activations in 8 or 16, quantize to those"
        )


def _check_sizes(writer: Writer, step: Step, first: int, compiler: str) -> None:
    from .vela import beyond

    for operator in writer.file.operators[first:] if compiler == "vela" else ():
        why = beyond(writer.file, operator)
        if why:
            raise writer.refuse(step, f"becomes {why}; replace it, or end the network before it")


def _check_taken(writer: Writer, step: Step, taken: Collection[str]) -> None:
    left = [kind for kind in writer.file.kinds() if taken and kind not in taken]
    if left:
        raise writer.refuse(
            step, f"becomes {', '.join(left)}, which the target does not run; replace it, or end the network before it"
        )
