"""Networks that LiteRT cannot run are found before work is spent on them."""

import pytest

import equint
from equint.errors import UnsupportedOperator
from equint.job import Job
from handwritten import network, normal


def job(body: str, target: str = "tflite-int8", **more: object) -> Job:
    model = network(body, inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3), **more)  # type: ignore[arg-type]
    return Job.of(model, target=target, input=(0, 1))


def test_what_can_be_written_passes() -> None:
    job("a = Conv (x, w) y = Relu (a)").rehearse()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a = Conv (x, w) b = Conv (x, w) y = Div (a, b)", "y: LiteRT divides no int8 values"),
        ('a = Conv (x, w) y = Pad <mode = "edge"> (a, p)', "y: LiteRT has no padding in mode edge"),
        ("a = Conv (x, w) y = InstanceNormalization (a, s, s)", "y: LiteRT has no operator for this norm"),
    ],
)
def test_what_cannot_names_the_node(body: str, message: str) -> None:
    consts = {"p": [0, 0, 1, 1, 0, 0, 1, 1]} if "Pad" in body else {"s": normal(4)} if "Instance" in body else {}
    with pytest.raises(UnsupportedOperator, match=message):
        job(body, "ethos-u", **consts).rehearse()
    job(body, **consts).rehearse()  # LiteRT itself computes it in float


def test_what_litert_has_not_even_in_float_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="LiteRT has no operator for Det"):
        job("a = Conv (x, w) d = Det (a) k = Unsqueeze (d, s) y = Mul (a, k)", s=[2, 3]).rehearse()


def test_what_litert_has_and_equint_does_not_write_is_called_so() -> None:
    with pytest.raises(
        UnsupportedOperator, match="n: LiteRT's LOCAL_RESPONSE_NORMALIZATION is not written; replace it"
    ):
        job("a = Conv (x, w) n = LRN <size = 3> (a) y = Conv (n, v)", v=normal(4, 4, 3, 3)).rehearse()


def test_other_targets_are_named() -> None:
    with pytest.raises(equint.EquintError, match="target openvino: LiteRT computes otherwise"):
        Job.of(network("y = Conv (x, w)", w=normal(4, 3, 3, 3)), target="openvino", input=(0, 1)).rehearse()
