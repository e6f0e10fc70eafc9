"""Many tasks of one kind, done here or in a few processes: one that dies costs its own task and no other."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from ..errors import EquintError, InvalidOption

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Found = TypeVar("Found")
Start = Callable[[Shared], Callable[[Task], Found]]
"""Makes what does the tasks of what they share: once in every process."""


class Crew(Protocol):
    """Those who do tasks. What comes of a task must not hang on who does it."""

    @property
    def threads(self) -> int:
        """How many threads each of them may use; 0: all."""

    def each(
        self, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 0
    ) -> Iterator[tuple[Task, Found | Exception]]:
        """(task, what came of it or was raised), in the order in which they end.

        Args:
            start: a function of a module, called with `shared` by each who works.
            ahead: so many tasks may be under way or done behind the first that is not; 0: any number.
        """


@dataclass(frozen=True)
class Alone:
    """This process, one task after the other.

    Example:
        >>> [found for _, found in Alone().each(lambda factor: lambda task: factor * task, 10, [1, 2])]
        [10, 20]
    """

    threads: int = 0

    def each(
        self, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 0
    ) -> Iterator[tuple[Task, Found | Exception]]:
        """As `Crew.each`."""
        work = None
        for task in tasks:
            work = work or started(start, shared)
            yield task, tried(work, task)


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine, one thread each."""

    jobs: int
    threads: int = 1

    def each(
        self, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 0
    ) -> Iterator[tuple[Task, Found | Exception]]:
        """As `Crew.each`."""
        left, crew = deque(tasks), dict[Connection, tuple[BaseProcess, Task]]()
        try:
            while left or crew:
                while left and len(crew) < self.jobs:
                    process, line = _hired(start, shared)
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


@contextmanager
def hired(jobs: int = 1, ray: str | None = None) -> Iterator[Crew]:
    """The crew that a user asked for: so many processes, or those of Ray, here ("local") or of a cluster at an address.

    Raises:
        EquintError: fewer than one process, or what `equint.crew.cluster.check` refuses.
    """
    if jobs < 1:
        raise InvalidOption(f"jobs = {jobs}: give 1 or more")
    if ray is None:
        yield Alone() if jobs == 1 else Processes(jobs)
        return
    if jobs != 1:
        raise InvalidOption(f"jobs = {jobs} and ray = {ray}: Ray counts its own workers; leave jobs out")
    from .cluster import Cluster

    crew = Cluster(ray)
    try:
        yield crew
    finally:
        crew.leave()


def in_order(
    crew: Crew, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 64
) -> Iterator[Found]:
    """What came of each task, in their order. What the first that failed raised is raised; others are given up.

    Example:
        >>> list(in_order(Alone(), lambda _: str, None, [3, 1]))
        ['3', '1']
    """
    waiting, at = dict[int, Found | Exception](), 0
    numbered = crew.each(_numbered, (start, shared), enumerate(tasks), ahead)
    for (number, _), found in numbered:
        waiting[number] = found
        while at in waiting:
            done = waiting.pop(at)
            if isinstance(done, Exception):
                raise done
            yield done
            at += 1


def _numbered(
    shared: tuple[Start[Shared, Task, Found], Shared],
) -> Callable[[tuple[int, Task]], Found]:
    work = shared[0](shared[1])
    return lambda task: work(task[1])


def started(start: Start[Shared, Task, Found], shared: Shared) -> Callable[[Task], Found]:
    """What does the tasks; where it cannot be made, every task fails with the reason."""
    try:
        return start(shared)
    except Exception as error:
        return _failing(error)


def _failing(error: Exception) -> Callable[[Any], Any]:
    def fail(task: Any) -> Any:
        raise error

    return fail


def tried(work: Callable[[Task], Found], task: Task) -> Found | Exception:
    """What came of a task, or what it raised."""
    try:
        return work(task)
    except Exception as error:
        return error


def _hired(start: Start[Any, Any, Any], shared: Any) -> tuple[BaseProcess, Connection]:
    """A process that waits for tasks. It holds only its own end, which breaks when this process ends."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(start, shared, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _hand(line: Connection, task: Any) -> None:
    with suppress(OSError):  # it died while it waited: receiving from it says so
        line.send(task)


def _serve(start: Start[Any, Any, Any], shared: Any, line: Connection) -> None:
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with threadpool_limits(1):
        work = started(start, shared)
        while True:
            try:
                task = line.recv()
                line.send(tried(work, task))
            except (EOFError, OSError):
                return
