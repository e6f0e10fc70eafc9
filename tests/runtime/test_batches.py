from equint import load
from equint.runtime.batches import VALUES, at_once
from handwritten import network, normal


def test_many_small_samples_and_one_large() -> None:
    """A convolution makes 8·H·W values of a sample: four of 64², one of 1024², which alone has enough."""
    for size, count in ((64, 4), (1024, 1)):
        proto = network("y = Conv(x, w)", inputs=f"float[N,3,{size},{size}] x", w=normal(8, 3, 1, 1))
        assert at_once(load(proto).graph) == count
    assert VALUES < 2 * 8 * 1024**2
