"""Processes that share work, fail and die."""

import os

import pytest

from equint.errors import EquintError
from equint.study.workers import each


def half(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value // 2


def fatal(value: int) -> int:
    if value == 2:
        os._exit(7)
    return value * 10


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_comes_back_once(jobs: int) -> None:
    found = dict(each(half, list(range(7)), jobs))
    assert {k: v for k, v in found.items() if k % 2 == 0} == {0: 0, 2: 1, 4: 2, 6: 3}
    assert {k: str(v) for k, v in found.items() if k % 2} == {k: f"{k} is odd" for k in (1, 3, 5)}
    assert all(isinstance(found[k], ValueError) for k in (1, 3, 5))


def test_a_process_that_dies_costs_its_own_task() -> None:
    found = dict(each(fatal, list(range(5)), 2))
    assert {k: v for k, v in found.items() if k != 2} == {0: 0, 1: 10, 3: 30, 4: 40}
    assert isinstance(found[2], EquintError)
    assert "exit code 7" in str(found[2])


def test_nothing_to_do() -> None:
    assert list(each(half, [], 3)) == []
