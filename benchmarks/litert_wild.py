"""Networks that nobody shaped for equint as .tflite files: what of them stays float, and how LiteRT's results agree.

    EQUINT_WILD=folder python benchmarks/litert_wild.py [--targets A B] [--samples N] [--limit N] [network ...]

The folder's wild.py knows the inputs of each network. SQNR of the worst output against the float network: of the QDQ
simulation, of the integer engine, of LiteRT's reference kernels and of those that it takes by default (one thread), and
of LiteRT's reference kernels against the engine; `inf` where they give the same.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from wild import Feeds, given, judge

import equint
from equint.integers.engine import Engine
from equint.ir.model import Array, Name
from equint.maths.noise import sqnr_db
from equint.runtime.session import Session
from equint.samples.images import Run
from equint.tflite.flatbuffer import unpack

Results = list[dict[Name, Array]]
SET = {"silero_vad": {"sr": 16000}}
"""Inputs that are made constants: numbers that are no activations."""


def of_litert(path: Path, feeds: Feeds, outputs: Sequence[Name], reference: bool) -> Results:
    """What LiteRT gives, axes as the network has them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    file = unpack(path.read_bytes())
    entry = next(e for e in file["metadata"] if e["name"] == "equint")
    axes = json.loads(file["buffers"][entry["buffer"]]["data"].tobytes())["axes"]
    run, results = interpreter.get_signature_runner("serving_default"), Results()
    for feed in feeds:
        made = run(**{n: np.ascontiguousarray(v.transpose(axes.get(n, range(v.ndim)))) for n, v in feed.items()})
        results.append({o: made[o].transpose(np.argsort(axes.get(o, range(made[o].ndim)))) for o in outputs})
    return results


def worst(wanted: Results, found: Results) -> str:
    """SQNR of the worst output in dB."""
    pairs = [[np.concatenate([r[o].ravel() for r in each]) for each in (wanted, found)] for o in found[0]]
    return f"{min(sqnr_db(a.astype(float), b.astype(float)) for a, b in pairs):.1f}"


def row(wild: Any, name: str, target: str, samples: int, limit: int) -> str:
    """One network on one target."""
    held = SET.get(name, {})
    feeds = [{k: v for k, v in f.items() if k not in held} for f in wild.feeds(name, "calib")[:samples]]
    shown = wild.feeds(name, "eval")[:limit]
    options = {"set": held} if held else {}
    with TemporaryDirectory() as folder:
        path, data = Path(folder) / "net.tflite", given(feeds, "list", Path(folder))
        try:
            result = equint.quantize(wild.path(name), target=target, data=data, effort="fast", **options)  # type: ignore[arg-type]
            result.save(path, io="float")
        except equint.EquintError as error:
            return f"| {name} | `{target}` | refused: {error} | | | | | |"
        program, own = result.program, [{k: v for k, v in f.items() if k not in held} for f in shown]
        floats = Counter(n.op for s in program.steps if s.op == "Float" for n in s.attrs["graph"].nodes)
        clean = [dict(Session(wild.path(name)).run(Run(f))) for f in shown]
        simulated, engine = Session(result.proto), Engine(program, threads=1)
        computed = [dict(engine.real(f)) for f in own]
        found = [[dict(simulated.run(Run(f))) for f in own], computed]
        found += [of_litert(path, own, program.outputs, reference) for reference in (True, False)]
        cells = [worst(clean, each) for each in found] + [worst(computed, found[2])]
        size = path.stat().st_size
    left = ", ".join(f"{n} {op}" for op, n in floats.items()) or "none"
    return f"| {name} | `{target}` | {left} | {' | '.join(cells)} | {size / 1e6:.2f} MB |"


def main() -> None:
    """Print the table."""
    parser = ArgumentParser()
    parser.add_argument("--targets", nargs="*", default=["tflite-int8"])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("networks", nargs="*")
    asked, wild = parser.parse_args(), judge()
    print("| network | target | in float | simulation | engine | LiteRT, reference | LiteRT, default | apart | file |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for name in wild.NETWORKS:
        if not asked.networks or any(part in name for part in asked.networks):
            for target in asked.targets:
                print(row(wild, name, target, asked.samples, asked.limit), flush=True)


if __name__ == "__main__":
    main()
