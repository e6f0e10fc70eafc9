"""Where a page comes from: version, date, files with their checksums, command and machine."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..planning.summary import kilobytes

ROLES = {"model": "float network", "saved": "quantized network", "card": "card", "data": "data"}
"""Files that a page names, and what they are."""


def provenance(files: Mapping[str, Any], command: str = "") -> dict[str, Any]:
    """Everything that another needs to make the same again.

    Args:
        files: paths by their role; folders are named, files have a checksum too; anything else is left out.
        command: how it was called.

    Returns:
        equint (version), date (UTC), command, files (role, path, size, sha256), machine (name and value of each fact).

    Example:
        >>> from equint.demo import model_path
        >>> found = provenance({"model": model_path(), "data": None})
        >>> found["files"][0]["role"], len(found["files"][0]["sha256"])
        ('float network', 64)
    """
    from .. import __version__

    named = [(role, files[key]) for key, role in ROLES.items() if isinstance(files.get(key), (str, os.PathLike))]
    return {
        "equint": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "files": [row for role, path in named for row in _file(role, Path(path))],
        "machine": machine(),
    }


def command_line() -> str:
    """The running command as a shell takes it again."""
    return shlex.join(["equint", *sys.argv[1:]])


def machine() -> dict[str, str]:
    """What numbers may depend on: operating system, processor, and the libraries that compute.

    Example:
        >>> sorted(machine())
        ['Python', 'numpy', 'onnxruntime', 'operating system', 'processor']
    """
    libraries = {name: _version(name) for name in ("onnxruntime", "numpy")}
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    cores = os.cpu_count() or 1
    processor = f"{_processor()}, {cores} core{'' if cores == 1 else 's'}"
    return {"operating system": system, "processor": processor, "Python": platform.python_version(), **libraries}


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _file(role: str, path: Path) -> list[dict[str, str]]:
    if path.is_dir():
        return [{"role": role, "path": _near(path), "size": "folder", "sha256": ""}]
    if not path.is_file():
        return []
    size = kilobytes(path.stat().st_size)
    return [{"role": role, "path": _near(path), "size": size, "sha256": checksum(path)}]


def _near(path: Path) -> str:
    """A path as seen from here, where it lies below."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(path)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The processor's name, as Linux tells it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
