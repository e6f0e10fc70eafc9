"""Files run by LiteRT: its reference kernels, or those that it takes by default."""

import json
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from equint.integers.engine import Engine
from equint.integers.program import Program
from equint.ir.model import Array
from equint.litert.writer import write
from equint.tflite.flatbuffer import unpack

MISSING = None if find_spec("ai_edge_litert") else "LiteRT is missing: pip install equint[consumers]"


def run(file: bytes, feeds: Sequence[Array], reference: bool = True, rows: int = 1) -> list[Array]:
    """The file's outputs, so many rows after the other; inputs as the file has them, samples first."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    results = []
    for k in range(0, len(feeds[0]), rows):
        for detail, values in zip(interpreter.get_input_details(), feeds, strict=True):
            interpreter.set_tensor(detail["index"], values[k : k + rows])
        interpreter.invoke()
        results.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def stored(file: bytes, name: str, x: Array) -> Array:
    """An input or output as the file has it: its metadata says which axis is which."""
    found = unpack(file)
    entry = next(e for e in found["metadata"] if e["name"] == "equint")
    axes = json.loads(found["buffers"][entry["buffer"]]["data"].tobytes())["axes"]
    return x.transpose(axes.get(name, range(x.ndim)))


def random_integers(program: Program, count: int, seed: int = 0) -> list[Array]:
    """Values from end to end of the inputs' grids, samples first, channels second."""
    rng, made = np.random.default_rng(seed), []
    for name in program.inputs:
        grid, shape = program.grids[name], program.shapes[name]
        sizes = [n if isinstance(n, int) else 1 for n in shape[1:]]
        made.append(rng.integers(grid.qmin, grid.qmax + 1, (count, *sizes)).astype(program.storage(name)))
    return made


def furthest(program: Program, count: int = 2, reference: bool = True, seed: int = 0) -> int:
    """By how many steps LiteRT's results differ from the engine's at most."""
    feeds = random_integers(program, count, seed)
    wanted = Engine(program, threads=1).run(dict(zip(program.inputs, feeds, strict=True)))
    file = write(program)
    found = run(file, [stored(file, n, x) for n, x in zip(program.inputs, feeds, strict=True)], reference)
    apart = [0]
    for name, values in zip(program.outputs, found, strict=True):
        expected = stored(file, name, wanted[name])
        assert values.shape == expected.shape, f"{name}: {values.shape}, not {expected.shape}"
        assert values.dtype == expected.dtype, name
        apart.append(int(np.abs(values.astype(int) - expected.astype(int)).max(initial=0)))
    return max(apart)
