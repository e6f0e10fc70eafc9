"""The lowest versions that are allowed are those that tests/lowest.txt has, with which `.ci/run` tests."""

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
LINE = re.compile(r"([\w.-]+)\s*(?:>=|==)\s*([\d.]+)")


def versions(lines: list[str]) -> dict[str, list[int]]:
    """Names and versions, zeros at the end of which say nothing."""
    found = dict[str, list[int]]()
    for name, version in (match.groups() for line in lines if (match := LINE.match(line))):
        numbers = [int(part) for part in version.split(".")]
        while numbers and not numbers[-1]:
            numbers.pop()
        found[name.lower()] = numbers
    return found


def test_what_is_tested_is_what_is_allowed() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = versions([*project["dependencies"], *project["optional-dependencies"]["test"]])
    tested = versions((HERE / "lowest.txt").read_text("utf-8").splitlines())
    assert tested.keys() == allowed.keys()
    for name, numbers in allowed.items():
        assert tested[name][: len(numbers)] == numbers, name  # of 24.3 the first that there is
