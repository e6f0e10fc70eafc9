"""From `pip install` to a verdict on a network of one's own: three commands, run, and what they print.

    EQUINT_WILD=folder python benchmarks/transcript.py [--write]

A new environment is made, this source is installed into it, and its `equint` looks at a network and data that nobody
shaped for it. `--write` puts the transcript into docs/auto.md, between its two marks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

HOUSE = Path(__file__).resolve().parent.parent
PAGE = HOUSE / "docs" / "auto.md"
MARKS = ("<!-- transcript: benchmarks/transcript.py -->\n", "<!-- end of transcript -->\n")
NETWORK, DATA = "ppocr_cls", "lines"
"""Of the folder: a network that tells which way up a line of writing is, and pictures of lines, without labels."""
COMMANDS = (
    f"equint card {NETWORK}.onnx --data {DATA} -o {NETWORK}.toml",
    f"equint auto {NETWORK}.onnx --card {NETWORK}.toml",
)


def transcript(wild: Path, folder: Path) -> Iterator[str]:
    """Each command, what it printed, and how long it took."""
    shutil.copy(wild / "models" / f"{NETWORK}.onnx", folder)
    shutil.copytree(wild / DATA, folder / DATA)
    venv.create(folder / "venv", with_pip=True)
    bin_ = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment = {**clean, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
    for shown, command in (("pip install .", f"pip install -q {HOUSE}"), *((c, c) for c in COMMANDS)):
        start = perf_counter()
        found = subprocess.run(
            command.split(), cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if found.returncode:
            sys.exit(f"{shown}: {found.stderr or found.stdout}")
        yield f"$ {shown}   # {perf_counter() - start:.0f} s"
        yield from (line.rstrip() for line in found.stdout.splitlines() if line.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write it into docs/auto.md")
    options = parser.parse_args()
    wild = os.environ.get("EQUINT_WILD")
    if not wild:
        sys.exit("EQUINT_WILD names no folder of networks")
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(transcript(Path(wild), Path(folder)))
    print(text)
    if options.write:
        page = PAGE.read_text("utf-8")
        first, _, rest = page.partition(MARKS[0])
        _, _, last = rest.partition(MARKS[1])
        PAGE.write_text(f"{first}{MARKS[0]}```text\n{text}\n```\n{MARKS[1]}{last}", "utf-8")


if __name__ == "__main__":
    main()
