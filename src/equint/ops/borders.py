"""Operators at which a walk ends, each with the reason: shares, choices, shapes and types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.model import Graph, Node, Range
from . import torch_kernels, torch_moves
from .lazy_torch import torch
from .operator import Form, Grid, Operator, Pair, Rule, Scales, Unknown, by_name

_FLOAT = Grid()
_NO_FORM = Unknown("no integer form yet")
_NO_TORCH = Unknown("not run in torch yet")


_SIZES = ("Shape", "Size")


def reads_sizes(node: Node) -> bool:
    """Whether an operator tells the sizes of what it reads.

    Example:
        >>> reads_sizes(Node("Shape", ("x",), ("s",))), reads_sizes(Node("Relu", ("x",), ("y",)))
        (True, False)
    """
    return node.op in _SIZES


def _softmax(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    """Somewhere between 0 and 1: what it makes of channels depends on all of them."""
    if operands[0] is None:
        return None
    mean, std = operands[0]
    return [(np.full_like(mean, 0.5), np.full_like(std, 0.3))]


def _softmax_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    known = ranges[0] if ranges else None
    shape = (1,) if known is None else np.shape(known.lo)  # one number, which the walk gives the rank of its tensor
    return [Range(np.zeros(shape), np.ones(shape))]


def _shape(name: str, torch_form: Callable[..., Any] | Unknown, steps: Form | Unknown = _NO_FORM) -> Operator:
    """Makes no activation: it reads shapes, types or other numbers."""
    why = Unknown("it makes no activation")
    scales = Scales(Rule.IGNORES) if name in _SIZES else Unknown("it reads values and makes none")
    return Operator(name, why, why, why, scales, _FLOAT, steps, torch_form)


def _opaque(
    name: str, why: str, torch_form: Callable[..., Any] | Unknown = _NO_TORCH, steps: Form | Unknown = _NO_FORM
) -> Operator:
    """An activation of which only this is known."""
    reason = Unknown(why)
    return Operator(name, reason, reason, reason, reason, _FLOAT, steps, torch_form)


BORDERS = by_name(
    Operator(
        "Softmax",
        _softmax,
        _softmax_bound,
        Unknown("each output depends on all inputs"),
        Unknown("it bends values: a channel scale in front is another function"),
        _FLOAT,
        Form.SOFTMAX,
        lambda x, *, axis=-1: x.softmax(axis),
    ),
    _opaque(
        "BatchNormalization",
        "it should have been folded: its statistics are no constants, or no layer stands before it",
        torch_kernels.batch_norm,
    ),
    _opaque("Cast", "what the other type keeps of values is not followed", torch_moves.cast),
    _opaque("Where", "which values it chooses depends on others", lambda c, a, b: torch.where(c, a, b), Form.CHOOSE),
    _shape("Shape", torch_moves.shape_of, Form.MOVE),
    _shape("Size", _NO_TORCH),
    _shape("Equal", lambda a, b: a == b),
    _shape("ConstantOfShape", torch_moves.constant_of_shape),
    _opaque("QuantizeLinear", "it is made last, of what all others tell", torch_kernels.quantize_linear),
    _opaque("DequantizeLinear", "it is made last, of what all others tell", torch_kernels.dequantize_linear),
)
"""Operators that are known, but not in every respect."""
