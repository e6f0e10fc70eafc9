"""A command in a forked process of its own, bounded in time and memory; and what came of it, held against a case."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from equint.cli.main import main

from .case import Case
from .verified import verified

SECONDS, PATIENCE, BYTES = 20, 120.0, 1_500_000_000
"""Bounds of every case: seconds of its processor, of the clock for what waits and does not work, resident memory."""
GUARD = 4_000_000_000
"""Address space beyond what the parent has, for the machine's sake: who asks for more is told that there is none."""
LONGEST = 700
"""Characters of a refusal."""
MASKED = re.compile(r"unexpected \w+:|not enough memory|Traceback|\w(Error|Warning): ")
"""What a refusal is not made of."""
_VERBS = (
    *("add", "calibrate", "check", "choose", "convert", "copy", "correct", "define", "dump", "end", "export", "give"),
    *(
        "install",
        "leave",
        "list",
        "make",
        "measure",
        "name",
        "prepare",
        "put",
        "quantize",
        "remove",
        "repeat",
        "replace",
    ),
    *("repeat", "save", "say", "set", "shorten", "store", "take", "train", "update", "use", "write"),
    *("beside", "did you mean", "expected", "free", "is needed", "known", "must", "names?", "needs?", "says", "takes"),
)
ADVICE = re.compile(rf"\b({'|'.join(_VERBS)})\b", re.IGNORECASE)
"""What a refusal says one should do."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        code: exit code, or the signal's number below 0; None where it was killed for its time.
        out, err: standard output and standard error, those of libraries in C included.
        seconds, bytes: of its processor, and resident memory at its highest, less what it was forked with.
        changed: files of the user that are gone or not what they were; left: what is new.
        wrong: what is wrong with a success.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    bytes: int
    changed: Sequence[str] = ()
    left: Sequence[str] = ()
    wrong: str = ""


def forked(
    work: Callable[[], None], folder: Path, environment: Mapping[str, str] | None = None, full: int = 0
) -> Outcome:
    """Work in a child process, in a folder; its output in files, so that what C writes is caught too."""
    with tempfile.TemporaryDirectory(prefix="hostile-said-") as said:
        streams = [Path(said) / name for name in ("out", "err")]
        resident = _pages(1)  # which the child begins with
        start, child = time.monotonic(), os.fork()
        if not child:
            _child(work, folder, streams, environment or {}, full)
        status, seconds, usage = _waited(child, start + PATIENCE)
        out, err = (s.read_bytes()[:1_000_000].decode("utf-8", "backslashreplace") for s in streams)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return Outcome(code, out, err, seconds, max(usage - resident, 0))


def _child(
    work: Callable[[], None], folder: Path, streams: Sequence[Path], environment: Mapping[str, str], full: int
) -> None:
    code = 99
    try:
        os.setsid()
        for number, stream in enumerate(streams, 1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.update(environment)
        most = _pages(0) + GUARD
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
        code = _called(work)
    finally:
        os._exit(code)


def _called(work: Callable[[], None]) -> int:
    import sys
    import traceback

    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = os.fdopen(1, "w", encoding=encoding.split(":")[0], errors="strict")
    sys.stderr = os.fdopen(2, "w", encoding=encoding.split(":")[0], errors="backslashreplace")
    code = 0
    try:
        work()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 98
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def _pages(column: int) -> int:
    """Bytes of this process's address space (column 0), or of what is resident of it (1)."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


def _waited(child: int, until: float) -> tuple[int | None, float, int]:
    """A child's status, None where it did not end in time; its seconds of processor, and its most resident bytes."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        late = not done and time.monotonic() > until
        if late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
        if done or late:
            killed = late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
            return None if killed else status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        time.sleep(0.002)


def prints(folder: Path) -> dict[str, str]:
    """Fingerprints of all that lies in a folder: content of files, where links lead, kinds of what else there is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            told = f"link {os.readlink(path)}"
        elif stat.S_ISREG(mode):
            told = sha256(path.read_bytes()).hexdigest() if os.access(path, os.R_OK) else "closed"
        else:
            told = f"kind {stat.S_IFMT(mode)}"
        found[path.relative_to(folder).as_posix()] = told
    return found


def tried(case: Case, workshop: Path) -> Outcome:
    """Make a case's files, run its command, look at what is left."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        folder, scratch = Path(place) / "work", Path(place) / "scratch"
        shutil.copytree(workshop, folder, symlinks=True)
        scratch.mkdir()
        case.make(folder)
        before = prints(folder)
        environment = {"TMPDIR": str(scratch), **case.environment}
        found = forked(lambda: main(list(case.command)), folder, environment, case.full)
        after = prints(folder)
        changed = [name for name, told in before.items() if after.get(name) != told]
        left = [name for name in after if name not in before] + [p.name for p in scratch.iterdir()]
        wrong = ""
        if found.code == 0 and case.may != "refused":
            check = case.verify or (lambda where, _: verified(case, where))
            looked = forked(lambda: check(folder, found.out), folder, environment)
            wrong = "" if looked.code == 0 else f"{looked.code}: {(looked.out + looked.err).strip()[-400:]}"
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        return Outcome(**{**vars(found), "changed": changed, "left": left, "wrong": wrong})


def complaints(case: Case, found: Outcome) -> list[str]:
    """What is wrong with an outcome; the first word of each says of which kind."""
    if found.code is None:
        return [f"hang: over {SECONDS} s of its processor, or {PATIENCE:g} s of the clock"]
    if found.bytes > BYTES:
        return [f"memory: {found.bytes / 1e9:.2f} GB"]
    if found.code < 0 or found.code in (98, 99):
        return [f"crash: {found.code}: {found.err.strip()[-300:]}"]
    if case.may == "accepted" and found.code != 0:
        return [f"refused: {found.code}: {found.err.strip()[:300]}"]
    if found.code == 0 and case.may != "refused":
        return _successes(case, found)
    return list(_refusals(case, found))


def _successes(case: Case, found: Outcome) -> list[str]:
    strangers = [f for f in found.left if not any(f == w or f.startswith(f"{w}/") for w in case.writes)]
    lost = [f for f in found.changed if f not in case.writes]
    said = [f"lost: {', '.join(lost)}"] if lost else []
    said += [f"left: {', '.join(strangers)}"] if strangers else []
    said += [f"wrong: {found.wrong}"] if found.wrong else []
    return said + ([f"noise: {found.err[:200]!r}"] if found.err else [])


def _refusals(case: Case, found: Outcome) -> list[str]:
    said, lines = [], found.err.splitlines()
    if found.code != 2:
        return [f"success: exit code {found.code}, {found.out.strip()[-200:]!r}"]
    if len(lines) != 1 or not found.err.endswith("\n"):
        said.append(f"lines: {len(lines)} on standard error: {found.err[:400]!r}")
    if len(found.err) > LONGEST:
        said.append(f"long: {len(found.err)} characters: {found.err[:120]!r}")
    if not found.err.strip("\n").isprintable() and len(lines) == 1:
        said.append(f"escapes: {found.err!r}")
    if MASKED.search(found.err):
        said.append(f"masked: {found.err[:300]!r}")
    missing = [name for name in case.names if name not in found.err]
    if missing:
        said.append(f"unnamed: {', '.join(missing)} in {found.err[:300]!r}")
    if not ADVICE.search(found.err):
        said.append(f"todo: {found.err[:300]!r}")
    if found.changed:
        said.append(f"lost: {', '.join(found.changed)}")
    if found.left:
        said.append(f"left: {', '.join(found.left)}")
    if found.out:
        said.append(f"output: {found.out[:200]!r}")
    return said
