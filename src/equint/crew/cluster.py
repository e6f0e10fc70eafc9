"""Ray: tasks that a cluster does, or the cores of this machine; what a lost worker was doing, another does again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from typing import Any
from uuid import uuid4

from .. import __version__
from ..errors import EquintError, InvalidOption, MissingLibrary, in_a_line
from .workers import Found, Shared, Start, Task, started, tried

LOCAL = "local"
PORT = 6379
"""Of a cluster whose address names none."""
STORE = 256 << 20
"""Bytes of shared memory for objects, where Ray is started here; what is more goes to the disk."""
RETRIES = 3
"""How often a task whose worker died is done again."""
PATIENCE = 5.0
"""Seconds in which a cluster must answer."""
PATIENCE_TO_JOIN = 20.0
"""Seconds in which it must have been joined: Ray itself would try for minutes."""
HELLO, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), b"\x04"
"""How clients of HTTP/2, which Ray speaks, begin, and the kind of frame that servers answer with."""
JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to anyone, and no variable of accelerators is changed."""


def check(address: str) -> None:
    """Refuse what cannot be used, before any work.

    Raises:
        MissingLibrary: Ray is not installed.
        InvalidOption: an address at which nothing answers.

    Example:
        >>> check("127.0.0.1:1")  # doctest: +SKIP
        equint.errors.InvalidOption: ray 127.0.0.1:1: no cluster answers there (Connection refused); …
    """
    if find_spec("ray") is None:
        raise MissingLibrary('ray is not installed; install the extra: pip install "equint[ray]"')
    if address == LOCAL:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        host, port = address.removeprefix("ray://"), str(PORT)
    if not host or any(c.isspace() for c in host) or int(port) >= 1 << 16:
        raise InvalidOption(f"ray {address}: no address; give {LOCAL}, or HOST:PORT of a cluster")
    try:
        with socket.create_connection((host, int(port)), PATIENCE) as line:
            line.sendall(HELLO)
            if line.recv(9)[3:4] != SETTINGS and not os.environ.get("RAY_USE_TLS"):
                raise OSError("something else does")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        todo = f"start one there (ray start --head), correct the address, or give {LOCAL}"
        raise InvalidOption(f"ray {address}: no cluster answers there ({why}); {todo}") from error


class Cluster:
    """The workers of Ray, one thread each. Objects are sent once and kept where they are needed.

    Args:
        address: "local" for the cores of this machine, or a cluster's; a Ray that this process has joined already is
            used as it is.

    Raises:
        EquintError: as `check`.
    """

    threads = 1

    def __init__(self, address: str) -> None:
        check(address)
        self.address, self._joined = address, False

    def leave(self) -> None:
        """Leave a Ray that was joined for this."""
        if self._joined:
            self._joined = False
            import ray

            ray.shutdown()

    def each(
        self, start: Start[Shared, Task, Found], shared: Shared, tasks: Iterable[Task], ahead: int = 0
    ) -> Iterator[tuple[Task, Found | Exception]]:
        """As `Crew.each`. A task whose worker dies is done again, `RETRIES` times at most."""
        left = iter(tasks)
        upcoming = list(islice(left, 1))
        if not upcoming:
            return
        ray = self._join()
        try:
            token, held = uuid4().hex, ray.put((__version__, os.getcwd(), start, shared))
        except Exception as error:  # of many kinds
            why = in_a_line(" ".join(str(error).split()))[:100]
            raise InvalidOption(f"ray {self.address}: not all can be sent ({why}); give files or arrays") from error
        call = ray.remote(num_cpus=1, max_retries=RETRIES)(_done)
        running, at = dict[Any, tuple[int, Task]](), 0
        try:
            while running or upcoming:
                most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while upcoming and len(running) < most:
                    if ahead and at - min((number for number, _ in running.values()), default=at) >= ahead:
                        break
                    running[call.remote(token, [held], upcoming[0])] = (at, upcoming[0])
                    upcoming, at = list(islice(left, 1)), at + 1
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                _, task = running.pop(ready)
                yield task, _received(ray, ready)
        finally:
            for unfinished in running:
                with suppress(Exception):
                    ray.cancel(unfinished, force=True)

    def _join(self) -> Any:
        """Ray, once this process is part of it."""
        os.environ.update(QUIET)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own future
            import ray

            if ray.is_initialized():
                return ray
            options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
            if self.address == LOCAL:
                options |= {"include_dashboard": False, "object_store_memory": STORE, "address": "local"}
            else:
                options |= {"address": self.address}
                _rehearse(self.address)
            try:
                ray.init(**options)
            except Exception as error:  # whatever it says, there is nothing to work with
                why = in_a_line(" ".join(str(error).split()))[:200]
                raise InvalidOption(f"ray {self.address}: cannot be joined ({why}); correct the address") from error
        self._joined = True
        return ray


def _rehearse(address: str) -> None:
    """Join a cluster in a process of its own, which can be given up. Raises InvalidOption: it takes too long."""
    command = [sys.executable, "-W", "ignore", "-c", JOIN, address]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PATIENCE_TO_JOIN)
    except subprocess.TimeoutExpired as error:
        why = f"nothing of Ray's answers within {PATIENCE_TO_JOIN:g} s"
        raise InvalidOption(f"ray {address}: cannot be joined ({why}); correct the address") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        why = in_a_line(" ".join(lines[-1:]))[:200]
        raise InvalidOption(f"ray {address}: cannot be joined ({why}); correct the address") from error


def _received(ray: Any, ready: Any) -> Any:
    """What came of a task; an error that says so where its workers died."""
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        why = " ".join(str(error.cause).split())[:200]
        return EquintError(f"no worker can do it ({why}); install this equint and its extras on all machines")
    except ray.exceptions.RayError as error:
        return EquintError(f"its workers died {RETRIES + 1} times ({type(error).__name__}); out of memory?")


_OPEN = dict[str, Callable[[Any], Any]]()
"""What does the tasks that this worker was last given, by the name of their lot."""


def _done(token: str, refs: list[Any], task: Any) -> Any:
    """A task, in a worker."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if token not in _OPEN:
            import ray

            _OPEN.clear()
            version, folder, start, shared = ray.get(refs[0])
            if version != __version__:
                return EquintError(f"a worker has equint {__version__}, not {version}; install the same everywhere")
            with suppress(OSError):  # paths are relative to it; where it is not there, those that are say so
                os.chdir(folder)
            _OPEN[token] = started(start, shared)
        return tried(_OPEN[token], task)
