"""A crew that does everything in an order of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from equint.crew.workers import Found, Shared, Start, Task, tried


class Backwards:
    """The last task first, each by somebody who has done nothing before: what comes of a task must hang on it alone."""

    threads = 1

    def each(
        self, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 0
    ) -> Iterator[tuple[Task, Found | Exception]]:
        for task in reversed(list(tasks)):
            yield task, tried(start(shared), task)
