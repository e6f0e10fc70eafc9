"""Memory that is free, given back."""

from __future__ import annotations

import ctypes
import os


def give_back() -> None:
    """Give the system the memory that is free: glibc keeps what lies between arrays that live on, half of all here."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
