"""Runtimes that take our files: whether each loads them, runs them on integers and agrees with the simulation.

    EQUINT_REAL=… python benchmarks/consumers.py [--limit 128] [--rounds 15] [--effort fast] [NETWORK …]

Needs `pip install -e ".[consumers]"`. Prints docs/consumers.md's table: for each file of a target and each runtime that
takes it the layers that it runs on integers, how it agrees with the simulation (the same file in onnxruntime,
optimizations off) and its speed against its own float run: CPU time, one thread, one sample at a time, taking turns.
`--onnxruntime FOLDER` adds another version of onnxruntime, from `pip install --target FOLDER --no-deps onnxruntime==…`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from consumers_ort import Loaded, load_onnxruntime
from real import Network, machine, networks

import equint
from equint.ir.model import Array
from equint.maths.noise import sqnr_db
from equint.runtime.session import Session

NETWORKS = (
    "resnet8_cifar10_mlperftiny",
    "mobilenet_v1_025_96_vww",
    "mobilenet_v1_025_224_imagenet",
    "mobilenet_v2_035_224_flowers",
    "yolo_fastest_11_coco",
)
FILES = ("per-channel", "per-tensor-symmetric", "openvino", "qnn", "per-tensor", "per-tensor-clip")
LEAST_TOP1, LEAST_DB, ENOUGH = 99.0, 30.0, 100
"""A consumer agrees with the simulation where one of these is reached; decisions count on as many samples or more."""
LEAST_DB_OPENVINO, LEAST_DB_HTP = 28.0, 20.0
"""The same for OpenVINO, where Yolo-Fastest's LeakyRelus come out at 29 dB, and for HTP, whose requantization rounds
about 3 % of the integers of every layer one down."""


@dataclass(frozen=True)
class Consumer:
    """A runtime.

    Attributes:
        distribution: what must be installed; load: how it loads a file.
        targets: whose files it is to run, wholly on integers where it has `integers`.
        tried: targets whose files are tried too, and may fail.
        timed: whether its speed says anything; least_db: where it agrees with the simulation.
    """

    name: str
    distribution: str
    load: Callable[[Path], Loaded]
    targets: tuple[str, ...]
    tried: tuple[str, ...] = ()
    integers: bool = True
    timed: bool = True
    least_db: float = LEAST_DB

    @property
    def missing(self) -> str | None:
        """Why it cannot be tried here; None where it can."""
        try:
            version(self.distribution)
        except PackageNotFoundError:
            return f"{self.distribution} is not installed (pip install equint[consumers])"
        return None


def load_openvino(path: Path) -> Loaded:
    """OpenVINO on the CPU, floats in float32; what runs on integers stands in the compiled model's rt_info."""
    import openvino

    plain = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", plain)
    kinds = [
        (op.get_rt_info()["layerType"].astype(str), op.get_rt_info()["runtimePrecision"].astype(str))
        for op in compiled.get_runtime_model().get_ordered_ops()
    ]
    layers = [precision for kind, precision in kinds if kind in ("Convolution", "Deconvolution", "FullyConnected")]
    outputs = list(compiled.outputs)

    def run(x: Array) -> list[Array]:
        found = compiled([x])
        return [np.array(found[o]) for o in outputs]

    return Loaded(run, sum(p in ("u8", "i8") for p in layers), len(layers))


def load_opencv(path: Path, engine: str = "ENGINE_NEW") -> Loaded:
    """OpenCV's dnn module; of its new engine the layers' names say what runs on integers."""
    import cv2

    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    model = onnx.load(path)
    names = [o.name for o in model.graph.output]
    ranks = [len(o.type.tensor_type.shape.dim) for o in model.graph.output]
    net = cv2.dnn.readNetFromONNX(str(path), engine=getattr(cv2.dnn, engine))

    def run(x: Array) -> list[Array]:
        net.setInput(x, model.graph.input[0].name)
        found = [np.array(y) for y in net.forward(names)]
        return [
            y.reshape(y.shape[: rank - 1] + (-1,)) if y.ndim != rank else y
            for y, rank in zip(found, ranks, strict=True)
        ]

    run(np.zeros([d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim], np.float32))
    if engine == "ENGINE_CLASSIC":
        kinds = [net.getLayer(k).type for k in range(len(net.getLayerNames()) + 1)]
    else:
        kinds = re.findall(r"^\s+(\w+) \{$", net.dump(), re.MULTILINE)
    layers = [
        k for k in kinds if re.match(r"(Conv|Convolution|ConvTranspose|Gemm|InnerProduct|MatMul)(2|Int8|2Int8)?$", k)
    ]
    return Loaded(run, sum("Int8" in k for k in layers), len(layers))


def load_qnn(path: Path) -> Loaded:
    """onnxruntime-qnn with the HTP backend's x86 emulation: layers that its provider takes count as on integers."""
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]
    import onnxruntime_qnn  # type: ignore[import-untyped,unused-ignore,import-not-found]

    if not any(device.ep_name == "QNN" for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library("QNN", onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == "QNN"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_provider_for_devices(devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path()})
    with silent():
        session = onnxruntime.InferenceSession(str(path), options)
    kinds = [
        (part.ep_name, n.op_type) for part in session.get_provider_graph_assignment_info() for n in part.get_nodes()
    ]
    layers = [provider for provider, op in kinds if op in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    name = session.get_inputs()[0].name
    return Loaded(lambda x: list(session.run(None, {name: x})), layers.count("QNN"), len(layers))


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what C++ libraries print."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nothing = [(fd, os.dup(fd)) for fd in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    for fd, _ in kept:
        os.dup2(nothing, fd)
    try:
        yield
    finally:
        for fd, copy in kept:
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nothing)


def load_other(path: Path, folder: Path) -> Loaded:
    """Another version of onnxruntime, from a folder, in a process of its own that is asked by files."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("consumers_ort.py")), str(path)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    asked, answered = child.stdin, child.stdout
    counts = json.loads(answered.readline())
    place = tempfile.TemporaryDirectory()

    def run(x: Array) -> list[Array]:
        np.save(f"{place.name}/x.npy", x)
        asked.write(f"{place.name}\n")
        asked.flush()
        answered.readline()
        with np.load(f"{place.name}/y.npz") as found:
            return [found[f"arr_{k}"] for k in range(len(found))]

    def close() -> None:
        asked.close()
        child.wait()
        answered.close()
        place.cleanup()

    return Loaded(run, counts["integer"], counts["layers"], close)


SYMMETRIC = "per-tensor-symmetric"
CONSUMERS = (
    Consumer(
        "onnxruntime", "onnxruntime", load_onnxruntime, ("per-channel", SYMMETRIC), ("per-tensor", "per-tensor-clip")
    ),
    Consumer(
        "OpenVINO", "openvino", load_openvino, ("openvino", SYMMETRIC), ("per-tensor",), least_db=LEAST_DB_OPENVINO
    ),
    Consumer(
        "onnxruntime-qnn",
        "onnxruntime-qnn",
        load_qnn,
        ("qnn", SYMMETRIC),
        ("per-tensor", "per-tensor-clip"),
        timed=False,
        least_db=LEAST_DB_HTP,
    ),
    Consumer(
        "OpenCV, classic engine",
        "opencv-python-headless",
        partial(load_opencv, engine="ENGINE_CLASSIC"),
        ("per-channel", SYMMETRIC),
        integers=False,
    ),
    Consumer("OpenCV, new engine", "opencv-python-headless", load_opencv, (), ("per-channel", SYMMETRIC, "per-tensor")),
)


def other_versions(folders: Sequence[str]) -> tuple[Consumer, ...]:
    """Consumers that are other versions of onnxruntime, one for each folder."""
    found = []
    for folder in folders:
        number = next(Path(folder).glob("onnxruntime-*.dist-info")).name.split("-")[1].removesuffix(".dist")
        load = partial(load_other, folder=Path(folder))
        found.append(
            Consumer(
                f"onnxruntime {number}", "onnxruntime", load, ("per-channel", SYMMETRIC), ("per-tensor",), timed=False
            )
        )
    return tuple(found)


def fixed(source: Path, path: Path) -> Path:
    """A copy of a model that takes one sample at a time: not every runtime takes a free dimension."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path


@dataclass(frozen=True)
class Row:
    """One file in one consumer.

    Attributes:
        integer, layers: convolutions and dense layers on integers, and all.
        top1: samples in percent for which it decides as the simulation, of classifiers; sqnr: dB, worst output.
        samples: how many.
        speed: its own float run's time over its time; None where that says nothing.
        failure: what it says where it does not load or run the file.
    """

    network: str
    target: str
    consumer: str
    integer: int = 0
    layers: int = 0
    top1: float | None = None
    sqnr: float = float("nan")
    samples: int = 0
    speed: float | None = None
    failure: str = ""

    def agrees(self, least_db: float = LEAST_DB) -> bool:
        """Whether it computes what the simulation computes, to the stated bound."""
        decides = self.top1 is not None and self.samples >= ENOUGH and self.top1 >= LEAST_TOP1
        return not self.failure and (decides or self.sqnr >= least_db)

    def cells(self, least_db: float) -> str:
        """What the table says of it."""
        if self.failure:
            return f"— | refused: {self.failure} | —"
        same = "" if self.top1 is None else f"{self.top1:.1f} %, "
        speed = "—" if self.speed is None else f"{self.speed:.2f}×"
        differs = "" if self.agrees(least_db) else ", **differs**"
        return f"{self.integer} of {self.layers} | {same}{self.sqnr:.1f} dB{differs} | {speed}"


@dataclass(frozen=True)
class File:
    """A quantized network: the file, the float network's, and what the simulation computes for some samples."""

    network: Network
    target: str
    path: Path
    plain: Path
    wanted: Sequence[Array]

    @property
    def samples(self) -> list[Array]:
        return [x[k : k + 1] for x in self.network.inputs for k in range(len(x))]


def quantized(network: Network, target: str, folder: Path, effort: Any = "full", images: int = 64) -> File:
    """Quantize a network with images of its card, and simulate the file."""
    path, plain = folder / f"{network.name}.{target}.onnx", folder / f"{network.name}.onnx"
    equint.quantize(network.model, target=target, input=network.card, images=images, effort=effort).save(path)
    session = Session(path, False)
    wanted = [list(session.run(x).values()) for x in network.inputs]
    outputs = [np.concatenate([batch[k] for batch in wanted]) for k in range(len(wanted[0]))]
    if not plain.exists():
        fixed(network.model, plain)
    return File(network, target, fixed(path, path), plain, outputs)


def compared(file: File, consumer: Consumer, rounds: int = 0, limit: int | None = None) -> Row:
    """What a consumer makes of a file, of its first `limit` samples; its speed where `rounds` are given."""
    about = (file.network.name, file.target, consumer.name)
    try:
        loaded = consumer.load(file.path)
        found = [loaded.run(x) for x in file.samples[:limit]]
    except Exception as error:
        return Row(*about, failure=" ".join(str(error).split())[-100:].replace("|", "/"))
    outputs = [np.concatenate([one[k] for one in found]) for k in range(len(file.wanted))]
    wanted = [output[: len(found)] for output in file.wanted]
    pairs = list(zip(wanted, outputs, strict=True))
    top1 = None
    if file.network.labels is not None:
        top1 = 100 * float(np.mean(wanted[0].argmax(1) == outputs[0].reshape(wanted[0].shape).argmax(1)))
    sqnr = min(sqnr_db(a, b.reshape(a.shape)) for a, b in pairs)
    speed = None
    if rounds and consumer.timed:
        runs = {"float": consumer.load(file.plain), "integer": loaded}
        speed = ratio(runs, file.samples[0], rounds)
        runs["float"].close()
    loaded.close()
    return Row(*about, loaded.integer, loaded.layers, top1, sqnr, len(found), speed)


def ratio(runs: Mapping[str, Loaded], x: Array, rounds: int) -> float:
    """Median CPU time of the float run over that of the other; they take turns. Other programs change little of it."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, loaded in runs.items():
            loaded.run(x)
            start = time.process_time()
            for _ in range(5):
                loaded.run(x)
            times[name].append(time.process_time() - start)
    return float(np.median(times["float"]) / np.median(times["integer"]))


def chosen(names: Sequence[str], limit: int) -> dict[str, Network]:
    """Real networks by name."""
    return {n.name: n for n in networks(limit) if n.name in names}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--effort", default="full")
    parser.add_argument("--target", action="append", choices=FILES)
    parser.add_argument("--onnxruntime", action="append", default=[], metavar="FOLDER")
    given = parser.parse_args()
    every = (*CONSUMERS, *other_versions(given.onnxruntime))
    for consumer in every:
        if consumer.missing is not None:
            print(f"{consumer.name}: {consumer.missing}", file=sys.stderr)
    consumers = [c for c in every if c.missing is None]
    print("| target | network | runtime | layers on integers | agrees with the simulation | speed |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for network in chosen(given.networks or NETWORKS, given.limit).values():
            for target in given.target or FILES:
                file = quantized(network, target, Path(folder), given.effort)
                for consumer in (c for c in consumers if target in (*c.targets, *c.tried)):
                    row = compared(file, consumer, given.rounds)
                    print(f"| {target} | {row.network} | {row.consumer} | {row.cells(consumer.least_db)} |", flush=True)
    found = ", ".join(f"{name} {version(name)}" for name in sorted({c.distribution for c in consumers}))
    print(f"\n{machine()}; {found}\n")


if __name__ == "__main__":
    main()
