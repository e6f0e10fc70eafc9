"""Time and peak memory of `equint quantize` as a whole process.

    python benchmarks/cost.py [model.onnx ...]

Without arguments: the real networks of EQUINT_REAL if set, and a MobileNetV2 with 3.5 million random weights.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(model: Path, recipe: str, target: str, output: Path) -> tuple[float, float]:
    """(seconds, peak MB) of one run in a process of its own."""
    command = [sys.executable, "-m", "equint", "quantize", str(model), "-o", str(output), "--recipe", recipe]
    command += ["--target", target, "--input-range", "-1", "1", "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{model}: failed")
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - start, usage.ru_maxrss / scale


def main() -> None:
    """Print one row per network, recipe and target: the median of five runs."""
    with tempfile.TemporaryDirectory() as folder:
        models = [Path(a) for a in sys.argv[1:]]
        if not models:
            real = os.environ.get("EQUINT_REAL")
            models = sorted(Path(real, "models").glob("*.onnx")) if real else []
            models.append(Path(folder) / "mobilenet_v2_random.onnx")
            subprocess.run([sys.executable, Path(__file__).with_name("networks.py"), models[-1]], check=True)
        print("| network | recipe | target | seconds | peak MB |\n|---|---|---|---|---|")
        for model in models:
            for recipe, target in (("cwq-bc", "per-channel"), ("dfq", "per-tensor-clip")):
                runs = sorted(run(model, recipe, target, Path(folder) / "out.onnx") for _ in range(5))
                seconds, memory = runs[2][0], max(m for _, m in runs)
                print(f"| {model.stem} | {recipe} | {target} | {seconds:.2f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
