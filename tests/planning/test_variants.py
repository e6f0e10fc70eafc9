"""What variants of a recipe share is made once, and each is what it would be alone."""

from dataclasses import replace

import numpy as np

from equint.graph.inputs import describe_range
from equint.graph.overrides import Override
from equint.hardware.target import target
from equint.onnx.reader import read
from equint.planning.plan import Data, resolve
from equint.planning.recipe import recipe
from equint.planning.run import run
from equint.planning.variants import quantizer
from equint.samples.images import Samples
from handwritten import network, normal


def test_a_variant_is_what_it_would_be_alone() -> None:
    body = "a = Conv(x, w) r = Relu(a) y = Conv(r, v)"
    proto = network(body, output="float[] y", w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3))
    model, on, read_times = describe_range(read(proto), -1, 1), target("per-tensor"), list[int]()

    def batches() -> list[np.ndarray]:
        read_times.append(1)
        return [normal(8, 3, 8, 8, scale=0.3)] * 4

    data = Data(images=Samples(batches), teacher=model.graph)
    made = quantizer(model, on, data)
    plain = recipe("lwq")
    wide = replace(plain, overrides=(Override(("y",), weight_bits=16),))
    first, second = made(plain), made(wide)
    assert len(read_times) == 1
    for chosen, found in ((plain, first), (wide, second)):
        alone = run(model, resolve(chosen, on, data=data))
        assert {n: (q.bits, float(np.max(q.scale))) for n, q in alone.qparams.items()} == {
            n: (q.bits, float(np.max(q.scale))) for n, q in found.qparams.items()
        }
    assert second.qparams["v"].bits == 16
