"""The command line, called from tests."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Runs a command: its exit code, standard output and standard error."""
