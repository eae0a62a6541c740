"""Contrast lost to clipped noise comes back: the inverse of the mean curve, and the noise found in the images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage import data
from torch import Tensor

from dinov2_noise.denoise.debias import Debias, choose_debias
from dinov2_noise.denoise.noise_fit import MAX_MISFIT, fit_noise
from dinov2_noise.errors import DinoNoiseError, NoiseNameError
from dinov2_noise.noise import Shot, noisy_uint8, parse
from dinov2_noise.noise.clipping import PoissonGaussian, stored

PUBLISHED = ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0")
Floats = NDArray[np.float64]


@cache
def photographs() -> list[NDArray[np.uint8]]:
    pictures = (data.astronaut(), data.coffee(), data.rocket(), data.chelsea())
    return [picture[:300, :320] for picture in pictures]


def noisy(name: str) -> list[Floats]:
    made = (noisy_uint8(image, parse(name), relative_path=f"{i}.png") for i, image in enumerate(photographs()))
    return [image.transpose(2, 0, 1) / 255 for image in made]


def box(image: Floats) -> Floats:
    """As poor as a denoiser can be, and its output holds a 25th of each pixel's own noise."""
    return np.asarray(uniform_filter(image, (0, 5, 5)))


def no_denoiser(_: Tensor) -> Tensor:
    raise AssertionError("it is not needed")


@pytest.mark.parametrize("name", PUBLISHED)
def test_debias_is_the_inverse_of_the_mean_curve(name: str) -> None:
    truth = np.linspace(0.02, 1, 211)
    mean = torch.from_numpy(stored(parse(name), truth).mean)
    found = Debias(parse(name))(mean.float())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), truth, atol=2e-4)


def test_values_that_the_noise_cannot_have_are_black_or_white() -> None:
    debias = Debias(parse("gauss255"))
    outside = torch.tensor([[-1.0, 0.0, 0.3], [0.69, 1.0, 7.0]])
    np.testing.assert_array_equal(debias(outside).numpy(), [[0, 0, 0], [1, 1, 1]])


def test_shape_and_precision_are_kept_and_values_do_not_depend_on_the_layout() -> None:
    debias = Debias(parse("shot3"))
    batch = torch.rand(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    expected = debias(batch)
    assert expected.shape == batch.shape
    assert torch.equal(debias(batch.to(memory_format=torch.channels_last)), expected)
    assert torch.equal(debias(batch[1]), expected[1])
    half = debias(batch.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float().numpy(), expected.numpy(), atol=0.03)
    assert not debias(batch.requires_grad_()).requires_grad


@pytest.mark.parametrize("name", ["gauss0.01", "gauss1", "shot100000", "speckle0.001"])
def test_weak_noise_only_gives_back_the_truncated_half_level(name: str) -> None:
    """At gauss0.01 the curve is a staircase; of each step, the middle is taken."""
    levels = torch.arange(1, 255) / 255
    shift = Debias(parse(name))(levels) - levels
    assert shift.min() >= -1e-4
    assert shift.max() < 1.01 / 255
    assert shift.mean() == pytest.approx(0.5 / 255, abs=0.1 / 255)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *(("gauss50", 0.05), ("gauss100", 0.05), ("gauss255", 0.05)),
        *(("shot10", 0.06), ("shot3", 0.05)),
        *(("speckle0.4", 0.05), ("speckle1.0", 0.05)),
    ],
)
def test_family_and_level_are_found_with_a_poor_denoiser(name: str, tolerance: float) -> None:
    fit = fit_noise(noisy(name), box)
    truth = parse(name)
    assert type(fit.noise) is type(truth)
    (level,), (expected,) = vars(fit.noise).values(), vars(truth).values()
    assert level == pytest.approx(expected, rel=tolerance)
    assert fit.misfit < 0.8 * MAX_MISFIT


def test_the_level_of_noise_that_leaves_only_black_and_white_is_unsure() -> None:
    """Of one photon or less, only the brightest means tell how many: those that a poor denoiser finds are too dark."""
    fit = fit_noise(noisy("shot1"), box)
    assert isinstance(fit.noise, Shot)
    assert 0.7 < fit.noise.photons < 1.1


def test_a_sensors_noise_is_found() -> None:
    sensor = PoissonGaussian(a=0.05, b=0.004)
    rng = np.random.default_rng(0)
    images = [np.floor(255 * sensor.sample(image / 255, rng)).transpose(2, 0, 1) / 255 for image in photographs()]
    fit = fit_noise(images, box)
    assert isinstance(fit.noise, PoissonGaussian)
    truth = np.linspace(0, 1, 11)
    np.testing.assert_allclose(stored(fit.noise, truth).std, stored(sensor, truth).std, atol=0.01)


def salt_and_pepper(image: Floats, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(image.shape) < 0.3, rng.integers(0, 2, image.shape), image)


def blurred(image: Floats, rng: np.random.Generator) -> Floats:
    return np.clip(image + 2 * uniform_filter(rng.normal(size=image.shape), (0, 3, 3)), 0, 1)


@pytest.mark.parametrize("spoil", [salt_and_pepper, blurred])
def test_noise_of_no_known_kind_is_refused(spoil: Callable[[Floats, np.random.Generator], Floats]) -> None:
    rng = np.random.default_rng(0)
    images = [spoil(image.transpose(2, 0, 1) / 255, rng) for image in photographs()]
    with pytest.raises(DinoNoiseError, match=r"no noise model fits.*--debias gauss100"):
        fit_noise(images, box)


def test_too_few_pixels_are_refused() -> None:
    with pytest.raises(DinoNoiseError, match="too few pixels"):
        fit_noise([np.random.default_rng(0).random((3, 40, 40))], box)


def write(folder: Path, images: Sequence[Floats], noise: str | None) -> list[str]:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        pixels = (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)
    if noise is not None:
        manifest = {"command": "add-noise", "parameters": {"noise": noise}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return [f"{number}.png" for number in range(len(images))]


def test_auto_reads_the_manifest_of_the_folder_or_the_one_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "noisy", [], "shot3")
    names = write(tmp_path / "noisy" / "train", noisy("gauss100")[:1], None)
    for folder in (tmp_path / "noisy", tmp_path / "noisy" / "train"):
        assert choose_debias("auto", folder, no_denoiser, names).identity() == {"debias": "shot3"}
        assert f"{folder} holds shot3" in capsys.readouterr().err
    named = choose_debias("speckle1", tmp_path / "noisy", no_denoiser, names)
    assert named.identity() == {"debias": "speckle1.0"}
    with pytest.raises(NoiseNameError, match="gaus100"):
        choose_debias("gaus100", tmp_path / "noisy", no_denoiser, names)


def test_auto_estimates_from_the_images_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write(tmp_path / "camera", noisy("gauss100"), None)

    def denoise(image: Tensor) -> Tensor:
        assert image.dtype == torch.float32
        return torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2, count_include_pad=False)

    found = choose_debias("auto", tmp_path / "camera", denoise, names)
    assert 95 <= vars(found.noise)["sigma_255"] <= 105
    assert f"is like {found.noise.name}" in capsys.readouterr().err
    assert choose_debias("auto", tmp_path / "camera", denoise, names).identity() == found.identity()


@pytest.mark.parametrize(("name", "biased_db", "unbiased_db"), [("gauss100", 24, 45), ("gauss255", 18, 45)])
def test_what_a_perfect_denoiser_gains(name: str, biased_db: float, unbiased_db: float) -> None:
    clean = photographs()[0]
    mean = stored(parse(name), np.arange(256) / 255).mean[clean]
    corrected = Debias(parse(name))(torch.from_numpy(np.round(mean * 255) / 255).float()).numpy()

    def psnr_db(image: Floats) -> float:
        return float(-10 * np.log10(np.mean((image - clean / 255) ** 2)))

    assert psnr_db(mean) < biased_db
    assert psnr_db(corrected) > unbiased_db
