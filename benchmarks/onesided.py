"""The default on few samples of one kind, measured on others of that kind and on other kinds: does it fit too closely?

    EQUINT_REAL=folder EQUINT_WILD=folder python benchmarks/onesided.py [--counts 6 16] [--recipes …] [network ...]

A row holds the output SQNR, in dB, of the worst output for every recipe, and how far the default lies below the best of
the others. Pictures of all kinds are prepared as the network wants them; `dark` are the darkest of the natural ones.
Recipes run without candidates but for the default, which is measured as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from choice import Case, worst
from real import networks
from wild import judge

import equint
from equint.ir.model import Array
from equint.runtime.session import Session

SHOWN = 16
"""Samples of each kind that results are measured on."""
RECIPES = ("optimal", "cwq", "dfq")


@dataclass(frozen=True)
class Viewer:
    """A network of pictures: its height and width, how it takes pixels of 0 to 255, kinds of pictures, its own first.

    Attributes:
        real: whether it is one of EQUINT_REAL, whose card says the rest.
    """

    size: tuple[int, int]
    kinds: tuple[str, ...]
    prepare: Callable[[Array], Array] | None = None
    two: bool = False

    def feeds(self, name: str, pixels: Array) -> Any:
        """Samples, one by one."""
        if self.prepare is None:
            card = next(n.card for n in networks() if n.name == name)
            mean, std = (np.float32(getattr(card, key)).reshape(-1, 1, 1) for key in ("mean", "std"))
            return list(((pixels.transpose(0, 3, 1, 2) - mean) / std)[:, None])
        made = self.prepare(pixels)[:, None]
        return [{"input": x, "other": np.ascontiguousarray(x[..., ::-1])} for x in made] if self.two else list(made)


def viewers() -> dict[str, Viewer]:
    """Networks by name."""
    wild = judge()
    imagenet, unit, signed = wild.imagenet, wild.unit, wild.signed
    return {
        "ppocr_cls": Viewer((48, 192), ("words", "lines", "natural"), signed),
        "captcha": Viewer((50, 155), ("captchas", "words", "natural"), lambda x: x / 255),
        "torch_twoin_static": Viewer((96, 96), ("natural", "dark", "pages"), imagenet, two=True),
        "torch_unet_static": Viewer((128, 128), ("natural", "dark", "pages"), unit),
        "mobilenet_v1_025_96_vww": Viewer((96, 96), ("natural", "dark", "pages")),
        "mobilenet_v1_025_224_imagenet": Viewer((224, 224), ("natural", "dark", "pages")),
        "ppocr_det_v6": Viewer((320, 320), ("pages", "natural"), imagenet),
        "ppocr_det_v4": Viewer((320, 320), ("pages", "natural"), imagenet),
    }


@cache
def pictures(kind: str, size: tuple[int, int], split: str) -> Array:
    """Pixels (N, H, W, 3) of a kind, of those to calibrate with or to measure on."""
    wild = judge()
    if kind in ("natural", "dark"):
        found = np.asarray(wild.pictures(wild.NATURAL.parent / split, 96, size))
        order = np.argsort(found.mean((1, 2, 3)), kind="stable")
        return found[order[:SHOWN]] if kind == "dark" else found[:32]
    return np.asarray(wild.pictures(Path(wild.HERE) / kind / split, 32, size))


def source(name: str) -> Path:
    """The float network's file."""
    known = {n.name: n.model for n in networks()}
    return known[name] if name in known else Path(judge().path(name))


def rows(name: str, viewer: Viewer, count: int, asked: list[str], target: str) -> Iterator[str]:
    """What each recipe reaches on every kind, made of samples of each kind."""
    cases = dict[str, tuple[Case, Any]]()
    reference = Session(source(name))
    for kind in viewer.kinds:
        feeds = viewer.feeds(name, pictures(kind, viewer.size, "eval")[:SHOWN])
        cases[kind] = Case(name, source(name), {}, feeds), [dict(reference.run(feed)) for feed in feeds]
    for given in viewer.kinds:
        data = viewer.feeds(name, pictures(given, viewer.size, "calib")[:count])
        protos = dict[str, Any]()
        for recipe in asked:
            effort: Any = "full" if recipe == asked[0] else "fast"
            protos[recipe] = equint.quantize(source(name), recipe, target, data=data, effort=effort).proto
        for kind, (case, clean) in cases.items():
            found = {recipe: worst(case, clean, proto) for recipe, proto in protos.items()}
            own, best = found[asked[0]], max((v for k, v in found.items() if k != asked[0]), default=np.nan)
            cells = " | ".join(f"{v:.1f}" for v in found.values())
            yield f"| {name} | {count} {given} | {kind} | {cells} | {best - own:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="*", type=int, default=[6, 16])
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="the first with its candidates")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("networks", nargs="*")
    options = parser.parse_args()
    print(f"| network | made of | measured on | {' | '.join(options.recipes)} | first below the best of the others |")
    print(f"|---|---|---|{'--:|' * len(options.recipes)}--:|")
    for name, viewer in viewers().items():
        if options.networks and not any(asked in name for asked in options.networks):
            continue
        for count in options.counts:
            for line in rows(name, viewer, count, options.recipes, options.target):
                print(line, flush=True)


if __name__ == "__main__":
    main()
