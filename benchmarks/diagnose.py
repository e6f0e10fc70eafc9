"""Whether diagnoses are quick, and whether remedies keep their promises.

    EQUINT_REAL=folder python benchmarks/diagnose.py [--images N] [--only NAME]

For each real network and recipe: the time of the whole diagnosis; what the best remedy promises on one half of the
calibration images, gains on the other half, what is expected of both, and what it gains on evaluation images that the
diagnosis never saw. Then what the sensitivity of layers and tensors costs, as run for the diagnosis and for all of
them, in full runs of the quantized network; one run for each of the variants that are measured would cost as many runs
as there are variants.
"""

from __future__ import annotations

import argparse
from time import perf_counter

from real import Network, networks

from equint.job import Job
from equint.onnx.qdq import qdq_graph
from equint.planning.variants import quantizer
from equint.samples.images import Samples
from equint.study.diagnose import diagnose, unquantized
from equint.study.sensitivity import TOP, sensitivity
from equint.study.trials import scores, truth

CASES = (("lwq", "per-tensor"), ("cwq", "per-channel"), ("optimal", "per-channel"))


def main() -> None:
    """Print one line for each network and recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    print("| network | recipe | seconds | remedy | promised | other half | expected | new images | top runs | all |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for network in networks(limit=128):
        if given.only in network.name:
            for case in CASES:
                print(_line(network, *case, given.images), flush=True)


def _line(network: Network, name: str, on: str, images: int) -> str:
    job = Job.of(network.model, name, on, input=network.card, images=images)
    assert job.samples is not None
    model, chosen, start = job.original, job.recipe, perf_counter()
    made = quantizer(job.network, job.target)
    found = diagnose(model, chosen, job.target, made, job.samples)
    seconds = perf_counter() - start
    gained = ""
    if found.best is not None:
        known = truth(model.graph, Samples(lambda: network.inputs))
        graphs = {r: qdq_graph(made(made_of)) for r, made_of in ((0, chosen), (1, found.recipe))}
        answers = scores(graphs, known)
        gained = f"{answers[1].gain(answers[0])[0]:+.1f} dB"
    best = found.best
    told = (
        ("", "", "", "")
        if best is None
        else (
            f"{best.kind} {best.at}",
            f"{best.gain:+.1f} ± {best.error:.1f} dB",
            f"{best.checked:+.1f} dB",
            f"{best.expected:+.1f} dB",
        )
    )
    return f"| {network.name} | {name} | {seconds:.1f} | {' | '.join(told)} | {gained} | {_runs(network, name, on)} |"


def _runs(network: Network, name: str, on: str, images: int = 16) -> str:
    """Sensitivity in full runs: of those worth measuring, and of all, of as many variants."""
    job = Job.of(network.model, name, on, input=network.card, images=images)
    assert job.samples is not None
    made = quantizer(job.network, job.target)
    quantized, plain = made(job.recipe), made(unquantized(job.recipe))
    known = truth(job.original.graph, job.samples)
    whole = min(_seconds(lambda: scores({"": qdq_graph(quantized)}, known)) for _ in range(3))
    some = _seconds(lambda: sensitivity(plain, quantized, known, TOP))
    every = sensitivity(plain, quantized, known, 0)
    variants = 3 * len(every.layers) + 2 * len(every.tensors)
    full = _seconds(lambda: sensitivity(plain, quantized, known, None))
    return f"{some / whole:.0f} | {full / whole:.0f} of {variants}"


def _seconds(work: object) -> float:
    start = perf_counter()
    work()  # type: ignore[operator]
    return perf_counter() - start


if __name__ == "__main__":
    main()
