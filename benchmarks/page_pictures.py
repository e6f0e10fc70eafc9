"""Pictures of the demo's page for the docs, light on a desk and dark on a phone, by a browser.

    python benchmarks/page_pictures.py docs/assets

Needs the extra `browser` and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import chdir
from io import BytesIO
from pathlib import Path
from typing import Any

import equint
from equint.demo import data_path, model_path
from equint.samples.card import Card

VIEWS: dict[str, dict[str, Any]] = {
    "report.png": {"viewport": {"width": 1180, "height": 1500}, "color_scheme": "light"},
    "report-phone.png": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
"""Files, and the windows that they show."""
COLOURS = 96


def page(folder: Path) -> Path:
    """The page of the bundled network, measured on its digits."""
    card = Card("gray", (0.0,), (16.0,))
    found = equint.auto(model_path(), card=card, data=data_path())
    found.result.save("digits.int8.onnx")
    command = "equint auto digits.onnx --card digits.toml --data digits.npz"
    text = found.page("digits", saved="digits.int8.onnx", command=command)
    path = folder / "digits.int8.html"
    path.write_text(text, "utf-8")
    return path


def small(png: bytes) -> bytes:
    """The same picture with few colours."""
    from PIL import Image

    stream = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main(target: Path) -> None:
    """Write the pictures into a folder."""
    from playwright.sync_api import sync_playwright

    target = target.absolute()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), sync_playwright() as playwright:
        path = page(Path(folder))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, options in VIEWS.items():
            view = browser.new_context(**options).new_page()
            view.goto(path.as_uri())
            (target / name).write_bytes(small(view.screenshot()))
            print(target / name, f"{(target / name).stat().st_size / 1e3:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
