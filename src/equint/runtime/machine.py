"""What sessions run on: onnxruntime's execution providers, and threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from ..errors import InvalidOption

CPU = "CPUExecutionProvider"
ENDING = "ExecutionProvider"


class LeftToCpu(UserWarning):
    """Something that was to run elsewhere runs on the CPU."""


@dataclass(frozen=True)
class Machine:
    """Execution providers, the preferred first and the CPU's last; threads: of each session, 0 for all."""

    providers: tuple[str, ...] = (CPU,)
    threads: int = 0

    @property
    def plain(self) -> bool:
        """Whether all runs on the CPU."""
        return self.providers == (CPU,)


CPUS = Machine()
_HERE: ContextVar[Machine] = ContextVar("machine", default=CPUS)


def here() -> Machine:
    """What sessions that are made now run on.

    Example:
        >>> with on(Machine(threads=1)):
        ...     here().threads
        1
    """
    return _HERE.get()


@contextmanager
def on(machine: Machine) -> Iterator[None]:
    """Sessions made in its body run on this."""
    before = _HERE.set(machine)
    try:
        yield
    finally:
        _HERE.reset(before)


def machine(providers: str | Sequence[str] | None) -> Machine:
    """What a user names: providers as onnxruntime spells them, or without their ending; None: as `here` says.

    Raises:
        InvalidOption: a provider that is unknown or not installed; the message lists what is.

    Example:
        >>> machine("cpu").providers
        ('CPUExecutionProvider',)
    """
    if providers is None:
        return here()
    from onnxruntime import get_available_providers

    installed = {name.lower(): name for name in get_available_providers()}
    known = installed | {name.removesuffix(ENDING.lower()): full for name, full in installed.items()}
    names = providers.split(",") if isinstance(providers, str) else list(providers)
    for name in names or [""]:
        if not isinstance(name, str) or name.strip().lower() not in known:
            choices = ", ".join(name.removesuffix(ENDING) for name in installed.values())
            raise InvalidOption(
                f"provider {name!r}: not in this onnxruntime, which has {choices}; choose one of these, or install the "
                "package that has it"
            )
    return replace(here(), providers=tuple(dict.fromkeys((*(known[name.strip().lower()] for name in names), CPU))))


def left_to_cpu(wanted: Sequence[str], why: str) -> None:
    """Say, once for each provider, that it leaves work to the CPU."""
    names = ", ".join(name.removesuffix(ENDING) for name in wanted if name != CPU)
    warnings.warn(LeftToCpu(f"provider {names}: {why}"), stacklevel=2)
