"""Torch modules become the same network, BatchNorms and all; what cannot is refused with a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import equint
from equint.errors import EquintError
from equint.frontends.torch import from_torch
from equint.onnx.reader import read
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime.session import Session
from equint.samples.images import Samples

torch = pytest.importorskip("torch", reason="needs the extra equint[torch]")
nn = torch.nn
EXAMPLE = torch.zeros(1, 3, 16, 16)


def batchnormed(net: Any) -> Any:
    """The module with statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
    return net.eval()


class Residual(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Depthwise, residual, and a convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.shared(torch.relu(self.shared(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Control flow that depends on the input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Any) -> Any:
        return self.conv(x) if x.mean() > 0 else -self.conv(x)


class Unused(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """An input that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, unused: Any, x: Any) -> Any:
        return self.conv(x)


def sequential(*parts: Any) -> Any:
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), *parts)


def sample(n: int = 4) -> Any:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [Residual, lambda: sequential(nn.ReLU6(), nn.Conv2d(6, 4, 1)), lambda: sequential(nn.Hardswish(inplace=True))],
    ids=["residual", "relu6", "hardswish in place"],
)
def test_the_same_network(make: Callable[[], Any]) -> None:
    net, x = batchnormed(make()), sample()
    proto = from_torch(net, EXAMPLE)
    with torch.no_grad():
        wanted = net(x).numpy()
    found = Session(proto).run(x.numpy())
    np.testing.assert_allclose(next(iter(found.values())), wanted, atol=1e-4)


def test_batchnorm_is_kept() -> None:
    model = FoldBatchnorm()(read(from_torch(batchnormed(Residual()), EXAMPLE)))
    assert "batchnorm" in {m.origin for m in model.moments.values()}


def test_training_mode_is_left_as_it_was() -> None:
    net = batchnormed(Residual())
    quiet = from_torch(net, EXAMPLE)
    net.train()
    before = net.norm.running_mean.clone()
    proto = from_torch(net, EXAMPLE)
    assert net.training
    torch.testing.assert_close(net.norm.running_mean, before)
    x = sample().numpy()
    for a, b in zip(Session(proto).run(x).values(), Session(quiet).run(x).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_example_inputs_are_left_as_they_were() -> None:
    x = sample(1)
    before = x.clone()
    from_torch(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1)).eval(), x)
    torch.testing.assert_close(x, before)


def test_there_and_back() -> None:
    """The quantized module computes what the QDQ model does."""
    net, x = batchnormed(Residual()), sample(8)
    result = equint.quantize(net, target="per-tensor", example_inputs=EXAMPLE, data=Samples.of(sample(16).numpy()))
    with torch.no_grad():
        found = result.to_torch()(x).numpy()
    wanted = next(iter(Session(result.proto).run(x.numpy()).values()))
    np.testing.assert_allclose(found, wanted, atol=2e-2 * np.abs(wanted).max())
    assert np.mean(np.isclose(found, wanted, atol=1e-5)) > 0.9  # rounding ties aside


@pytest.mark.parametrize(
    ("module", "inputs", "part"),
    [
        (Branches(), EXAMPLE, "freeze"),
        (Unused(), (torch.zeros(1, 2), EXAMPLE), "takes 2 inputs and reads 1"),
        ("net", EXAMPLE, "no torch module"),
        (nn.Conv2d(3, 4, 1), "x", "give a tensor"),
        (nn.Conv2d(3, 4, 1), torch.zeros(1, 5, 8, 8), "does not run on the example inputs"),
        (nn.Conv2d(3, 4, 1), torch.zeros(()), "need a batch"),
    ],
    ids=["control flow", "unused", "text", "no tensor", "shape", "scalar"],
)
def test_refused(module: Any, inputs: Any, part: str) -> None:
    with pytest.raises(EquintError, match=part) as error:
        from_torch(module, inputs)
    assert "\n" not in str(error.value)


def test_a_module_needs_example_inputs() -> None:
    with pytest.raises(EquintError, match="example_inputs"):
        equint.quantize(nn.Conv2d(3, 4, 1))
