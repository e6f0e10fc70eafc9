"""Numbers and facts as people read them: units, minus signs, bytes, and the log in lines without key = value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..ir.events import IN_DB, Event, EventKind
from ..planning.summary import kilobytes, told

FIGURES = {
    "top1": ("Top-1 accuracy", " %"),
    "top5": ("Top-5 accuracy", " %"),
    "miou": ("Mean IoU", " %"),
    "pixel_accuracy": ("Right pixels", " %"),
    "map50": ("AP at IoU 0.5", " %"),
    "map": ("AP at IoU 0.5 to 0.95", " %"),
    "psnr": ("PSNR", " dB"),
    "ssim": ("SSIM", ""),
    "agreement": ("Same answer as the float network", " %"),
    "sqnr_db": ("SQNR at the outputs", " dB"),
    "cosine": ("Cosine similarity of the outputs", ""),
    "milliseconds": ("Time per run", " ms"),
    "speedup": ("Speed against float", " ×"),
}
"""Figures by key: how people call them, and their unit; more is better of all but times."""


def signed(value: float, decimals: int = 1) -> str:
    """A number with so many decimals and a true minus.

    Example:
        >>> signed(-0.25), signed(-0.01)
        ('−0.2', '0.0')
    """
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def db(value: float | None) -> str:
    """Decibels without the unit; a dash where nothing is known."""
    return "–" if value is None else signed(value)


def in_bytes(count: int) -> str:
    """A size for people.

    Example:
        >>> in_bytes(318), in_bytes(451_900)
        ('318 bytes', '451.9 kB')
    """
    return f"{count} bytes" if count < 1000 else kilobytes(count)


def with_unit(value: Any, unit: str) -> str:
    """A figure as the page shows it.

    Example:
        >>> with_unit(83.0, " %"), with_unit(-1.5, " dB"), with_unit(1.94, " ×")
        ('83.00 %', '−1.5 dB', '1.94 ×')
    """
    decimals = {" %": 2, " dB": 1}.get(unit)
    return f"{number(value) if decimals is None else f'{value:.{decimals}f}'}{unit}".replace("-", "−")


def is_number(value: Any) -> bool:
    """Whether a value is one figure; truth values are none.

    Example:
        >>> is_number(np.float32(1)), is_number(True), is_number("1")
        (True, False, False)
    """
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def number(value: Any) -> str:
    """A figure with four digits that count; whole numbers as they are.

    Example:
        >>> number(3.14159), number(12345)
        ('3.142', '12345')
    """
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def said(value: Any) -> str:
    """A fact's value in words: mappings as a list, truth as yes or no."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {said(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, (float, np.floating)) else str(value)


def fact(name: str, value: Any) -> str:
    """One fact of the log in words.

    Example:
        >>> fact("SQNR", 25.67), fact("seconds", 0.0179), fact("chance", 0.994), fact("gain", -0.66)
        ('SQNR 25.7 dB', '0.02 s', 'better with a chance of 99 %', '0.7 dB worse')
        >>> fact("largest factor", 6.206e15), fact("weights", 53)
        ('largest factor 6.2e+15', 'weights 53')
    """
    known = isinstance(value, (float, np.floating)) and np.isfinite(value)
    if known and name == "seconds":
        return f"{value:.2f} s" if value >= 0.005 else "under 0.01 s"
    if known and name == "chance":
        return f"better with a chance of {100 * value:.0f} %"
    if known and name == "gain":
        return f"{signed(abs(value))} dB {'better' if value >= 0 else 'worse'}"
    if known and name in IN_DB:
        return f"{name} {signed(value)} dB"
    spoken = name.replace("_", " ")
    return f"{spoken} {value:.2g}" if known else f"{spoken} {said(value)}"


def in_words(event: Event) -> dict[str, Any]:
    """An event of the log as a row: what, where, why, and its facts in words."""
    facts = [fact(k, v) for k, v in told(event).items()]
    row = {"warning": event.warning, "pass": event.source, "did": event.text, "at": event.at}
    ran = event.kind is EventKind.RAN
    return {**row, "why": said(event.facts.get("why", "")), "facts": ", ".join(facts), "timing": ran}
