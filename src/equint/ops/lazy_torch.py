"""torch, loaded when something of it is first used: importing this module needs no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import MissingLibrary

if TYPE_CHECKING:
    import torch as torch
    from torch.nn import functional as functional
else:

    class _OnDemand:
        """A library that may be missing."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith("__"):  # tools that look at modules ask for these
                raise AttributeError(attribute)
            try:
                return getattr(importlib.import_module(self._name), attribute)
            except ModuleNotFoundError as error:
                raise MissingLibrary(
                    'torch is not installed; install the extra: pip install "equint[torch]"'
                ) from error

    torch, functional = _OnDemand("torch"), _OnDemand("torch.nn.functional")
