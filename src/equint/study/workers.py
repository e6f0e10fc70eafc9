"""Many tasks in a few processes: one that dies costs its own task and no other."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ..errors import EquintError

Task = TypeVar("Task")
Found = TypeVar("Found")


def each(
    work: Callable[[Task], Found], tasks: Sequence[Task], jobs: int = 1
) -> Iterator[tuple[Task, Found | Exception]]:
    """(task, what `work` returned or raised), in the order in which they end."""
    if jobs <= 1:
        for task in tasks:
            yield task, _tried(work, task)
    elif tasks:
        yield from _spread(work, tasks, min(jobs, len(tasks)))


def _tried(work: Callable[[Task], Found], task: Task) -> Found | Exception:
    try:
        return work(task)
    except Exception as error:
        return error


def _spread(
    work: Callable[[Task], Found], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, Found | Exception]]:
    left, crew = deque(tasks), dict[Connection, tuple[BaseProcess, Task]]()
    try:
        while left or crew:
            while left and len(crew) < jobs:
                process, line = _hired(work)
                crew[line] = (process, left.popleft())
                _hand(line, crew[line][1])
            ready = wait(crew)
            for line in [line for line in crew if line in ready]:
                process, task = crew.pop(line)
                try:
                    found = line.recv()
                except (EOFError, OSError):
                    process.join()
                    line.close()
                    yield task, EquintError(f"its process died (exit code {process.exitcode}); out of memory?")
                    continue
                if left:
                    crew[line] = (process, left.popleft())
                    _hand(line, crew[line][1])
                else:
                    line.close()
                yield task, found
    finally:
        for process, _ in crew.values():
            process.terminate()


def _hired(work: Callable[[Task], Found]) -> tuple[BaseProcess, Connection]:
    """A process that waits for tasks. It holds only its own end, which breaks when this process ends."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _hand(line: Connection, task: Any) -> None:
    with suppress(OSError):  # it died while it waited: receiving from it says so
        line.send(task)


def _serve(work: Callable[[Task], Found], line: Connection) -> None:
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with threadpool_limits(1):
        while True:
            try:
                task = line.recv()
                line.send(_tried(work, task))
            except (EOFError, OSError):
                return
