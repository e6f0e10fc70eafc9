"""Lets the tests in every folder import the helpers that lie here, and sets hypothesis up.

No deadlines, since machines differ. Under CI the examples are the same in every run, so that a change is judged
by what it changed; elsewhere they are new each time, and find more.
"""

import os

import pytest
from hypothesis import settings

from commands import Run
from equint.cli.main import main

settings.register_profile("equint", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "equint")


SLOW_EXAMPLES = (
    "api.py",
    "devices.py",
    "studies.py",
    "comparisons.py",
    "result.py",
    "job.py",
    "demo/run.py",
    "automatic.py",
)
"""Sources whose docstrings quantize a network."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples in docstrings cannot be marked where they stand."""
    for item in items:
        if item.path.as_posix().endswith(tuple(f"equint/{name}" for name in SLOW_EXAMPLES)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call
