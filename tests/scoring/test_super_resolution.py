"""PSNR and SSIM against loops over the published formulas, and pictures made smaller or given in pairs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from equint.errors import EquintError
from equint.samples.card import Card
from equint.scoring.metrics import count, evaluate
from equint.scoring.super_resolution import Fidelity, luma, psnr, shrunk, ssim
from handwritten import network

Values = NDArray[np.float64]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth waves with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 5
    waves = 120 + 60 * np.sin(x + seed) + 50 * np.cos(y)
    noisy = waves[..., None] + rng.normal(0, 9, (height, width, 3))
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def looped_psnr(a: Values, b: Values) -> float:
    errors = [(float(a[i]) - float(b[i])) ** 2 for i in np.ndindex(a.shape)]
    return 20 * math.log10(255) - 10 * math.log10(sum(errors) / len(errors))


def looped_ssim(a: Values, b: Values) -> float:
    window = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for r in range(a.shape[0] - 10):
        for c in range(a.shape[1] - 10):
            p, q = a[r : r + 11, c : c + 11], b[r : r + 11, c : c + 11]
            mp, mq = float((window * p).sum()), float((window * q).sum())
            vp, vq = float((window * (p - mp) ** 2).sum()), float((window * (q - mq) ** 2).sum())
            both = float((window * (p - mp) * (q - mq)).sum())
            values.append((2 * mp * mq + c1) * (2 * both + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_against_loops() -> None:
    a = luma(picture(19, 23).astype(float))
    b = a + np.random.default_rng(1).normal(0, 12, a.shape)
    assert psnr(a, b) == pytest.approx(looped_psnr(a, b), rel=1e-9)
    assert ssim(a, b) == pytest.approx(looped_ssim(a, b), rel=1e-9)
    assert ssim(a, a) == pytest.approx(1)
    assert psnr(a, a) == math.inf
    assert ssim(a, 255 - a) < 0


def test_luma_is_that_of_pillow() -> None:
    pixels = picture(6, 7)
    wanted = np.asarray(Image.fromarray(pixels).convert("L"), float)
    np.testing.assert_allclose(luma(pixels.astype(float)), wanted, atol=0.51)
    gray = pixels[..., 0]
    np.testing.assert_array_equal(luma(gray), gray)
    np.testing.assert_array_equal(luma(gray[..., None]), gray)


def test_border_is_cut_and_values_are_clipped_and_rounded() -> None:
    truth = picture(20, 22)[..., 0]
    wrong = truth / 255 + 0.4 / 255  # rounds back to the truth
    wrong[:2], wrong[:, -2:] = 40.0, -40.0
    meter = Fidelity("y", Card("gray", (0.0,), (255.0,), data={"scale": 2}))
    meter.add({"y": wrong[None, None]}, [(truth, Path("a.png"))])
    assert meter.results() == {"psnr": math.inf, "ssim": pytest.approx(1)}
    meter = Fidelity("y", Card("gray", (0.0,), (255.0,), data={"scale": 2, "border": 1}))
    meter.add({"y": wrong[None, None]}, [(truth, Path("a.png"))])
    assert meter.results()["psnr"] < 30


# Whole evaluations: a network that repeats every pixel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scales = np.array([1, 1, 2, 2], np.float32)
    for kind, channels in (("gray", 1), ("rgb", 3)):
        model = network(
            'y = Resize <mode = "nearest"> (x, , scales)',
            inputs=f"float[N,{channels},H,W] x",
            output=f"float[N,{channels},A,B] y",
            scales=scales,
        )
        onnx.save(model, tmp_path / f"{kind}.onnx")
    (tmp_path / "high").mkdir()
    (tmp_path / "low").mkdir()
    for k, size in enumerate([(40, 36), (31, 45), (30, 30)]):
        Image.fromarray(picture(*size, seed=k)).save(tmp_path / "high" / f"{k}.png")
        even = picture(*size, seed=k)[: size[0] // 2 * 2, : size[1] // 2 * 2]
        Image.fromarray(even[::2, ::2]).save(tmp_path / "low" / f"{k}.bmp")
    return tmp_path


def card(kind: str, **data: object) -> Card:
    channels = 3 if kind == "rgb" else 1
    return Card(kind, (5.0,) * channels, (100.0,) * channels, task="super-resolution", data={"scale": 2, **data})


@pytest.mark.parametrize("kind", ["gray", "rgb"])
@pytest.mark.parametrize("pairs", [False, True])
def test_folders(folder: Path, kind: str, pairs: bool) -> None:
    chosen = card(kind, **({"low": folder / "low"} if pairs else {}))
    result = evaluate(folder / f"{kind}.onnx", folder / "high", chosen, folder / f"{kind}.onnx")
    psnrs, ssims = [], []
    for k in range(3):
        with Image.open(folder / "high" / f"{k}.png") as opened:
            full = opened if kind == "rgb" else opened.convert("L")
            width, height = opened.width // 2 * 2, opened.height // 2 * 2
            high = full.crop((0, 0, width, height))
        if pairs:
            with Image.open(folder / "low" / f"{k}.bmp") as opened:
                low = np.asarray(opened if kind == "rgb" else opened.convert("L"))
        else:
            low = np.asarray(high.resize((width // 2, height // 2), Image.Resampling.BICUBIC))
        made = luma(low.repeat(2, 0).repeat(2, 1).astype(float))[2:-2, 2:-2]
        true = luma(np.asarray(high, float))[2:-2, 2:-2]
        psnrs.append(looped_psnr(true, made))
        ssims.append(looped_ssim(true, made))
    assert result["samples"] == 3
    assert result["psnr"] == pytest.approx(np.mean(psnrs), rel=1e-5)
    assert result["ssim"] == pytest.approx(np.mean(ssims), rel=1e-5)
    assert result["sqnr_db"] == math.inf
    assert "agreement" not in result


def test_a_fixed_size_takes_the_middle(folder: Path) -> None:
    fixed = replace(card("gray"), size=(10, 12))
    result = evaluate(folder / "gray.onnx", folder / "high", fixed, limit=1)
    with Image.open(folder / "high" / "0.png") as opened:
        high = np.asarray(opened.convert("L"))
    low = shrunk(high, 2)[5:15, 3:15]
    made, true = low.repeat(2, 0).repeat(2, 1).astype(float), high[10:30, 6:30].astype(float)
    assert result["psnr"] == pytest.approx(looped_psnr(true[2:-2, 2:-2], made[2:-2, 2:-2]), rel=1e-5)


def test_pictures_without_a_partner_are_counted(folder: Path) -> None:
    (folder / "low" / "1.bmp").unlink()
    chosen = card("gray", low=folder / "low")
    result = evaluate(folder / "gray.onnx", folder / "high", chosen)
    assert (result["samples"], result["unlabelled"]) == (2, 1)
    assert count(folder / "high", chosen) == 2


def test_errors_name_the_file(folder: Path) -> None:
    def refused(part: str, chosen: Card) -> None:
        with pytest.raises(EquintError, match=part) as error:
            evaluate(folder / "gray.onnx", folder / "high", chosen)
        assert "\n" not in str(error.value)

    refused("no scale in", replace(card("gray"), data={}))
    refused(r"0\.png: .*36×40.* 4 times", card("gray", low=folder / "low", scale=4))
    refused(r"0\.png: output y has shape \(1, 26, 24\)", card("gray", scale=3))
    refused(r"0\.png: smaller than \(30, 10\)", replace(card("gray"), size=(30, 10)))
    refused(r"0\.png: .*too few", card("gray", border=15))
    refused(r"0\.png: .*too few", card("gray", border=40))
    refused("set kind to rgb, bgr or gray", replace(card("gray"), kind="features"))
    Image.new("L", (3, 1)).save(folder / "high" / "0.png")
    refused(r"0\.png", card("gray"))
