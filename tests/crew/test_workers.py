"""Processes that share work, fail and die."""

import os
from collections.abc import Callable

import pytest

from equint.crew.workers import Alone, Crew, Processes, hired, in_order
from equint.errors import EquintError, InvalidOption


def halving(shared: int) -> Callable[[int], int]:
    def half(value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value // 2 + shared

    return half


def dying(_: None) -> Callable[[int], int]:
    def fatal(value: int) -> int:
        if value == 2:
            os._exit(7)
        return value * 10

    return fatal


def unready(_: None) -> Callable[[int], int]:
    raise EquintError("nothing to work with")


def slow_first(_: None) -> Callable[[int], int]:
    from time import sleep

    def square(value: int) -> int:
        sleep(0.5 if value == 0 else 0.0)
        return value * value

    return square


@pytest.mark.parametrize("crew", [Alone(), Processes(2)])
def test_every_task_comes_back_once(crew: Crew) -> None:
    found = dict(crew.each(halving, 100, range(7)))
    assert {k: v for k, v in found.items() if k % 2 == 0} == {0: 100, 2: 101, 4: 102, 6: 103}
    assert {k: str(v) for k, v in found.items() if k % 2} == {k: f"{k} is odd" for k in (1, 3, 5)}
    assert all(isinstance(found[k], ValueError) for k in (1, 3, 5))


def test_a_process_that_dies_costs_its_own_task() -> None:
    found = dict(Processes(2).each(dying, None, range(5)))
    assert {k: v for k, v in found.items() if k != 2} == {0: 0, 1: 10, 3: 30, 4: 40}
    assert isinstance(found[2], EquintError)
    assert "exit code 7" in str(found[2])


@pytest.mark.parametrize("crew", [Alone(), Processes(2)])
def test_what_comes_of_tasks_keeps_their_order(crew: Crew) -> None:
    assert list(in_order(crew, slow_first, None, range(6))) == [0, 1, 4, 9, 16, 25]
    with pytest.raises(ValueError, match="1 is odd"):
        list(in_order(crew, halving, 0, range(6)))


@pytest.mark.parametrize("crew", [Alone(), Processes(2)])
def test_where_work_cannot_begin_every_task_says_why(crew: Crew) -> None:
    assert [str(found) for _, found in crew.each(unready, None, range(2))] == ["nothing to work with"] * 2


@pytest.mark.parametrize("crew", [Alone(), Processes(3)])
def test_nothing_to_do(crew: Crew) -> None:
    assert list(crew.each(unready, None, [])) == []


def test_hired() -> None:
    with hired(2) as crew:
        assert crew == Processes(2)
    for jobs, ray in ((0, None), (2, "local")):
        with pytest.raises(InvalidOption, match=f"jobs = {jobs}"), hired(jobs, ray):
            pass
