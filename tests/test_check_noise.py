"""What `check` says of noise, against noise that is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from dinov2_noise.check import check, report_lines
from dinov2_noise.check.noise import NoiseFindings, at_intensities
from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.clipping import stored


@cache
def photographs() -> list[NDArray[np.uint8]]:
    return [picture[64:256, 64:256] for picture in (data.astronaut(), data.coffee(), data.rocket(), data.chelsea())]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for number, image in enumerate(photographs()):
        Image.fromarray(image).save(root / f"{number}.png")
    return root


def noisy_folder(root: Path, name: str) -> Path:
    """Without a manifest, so that nothing tells the noise."""
    root.mkdir()
    for number, image in enumerate(photographs()):
        Image.fromarray(noisy_uint8(image, parse(name), relative_path=f"{number}.png")).save(root / f"{number}.png")
    return root


def noise_of(folder: Path | str, clean: Path | None = None) -> NoiseFindings:
    found = check(folder, clean=clean, workers=1, progress=False).noise
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gauss10", "Gaussian"),
        ("gauss50", "Gaussian"),
        ("gauss255", "Gaussian"),
        ("shot30", "Poisson-like"),
        ("shot3", "Poisson-like"),
        ("shot1", "Poisson-like"),
        ("speckle0.4", "multiplicative"),
        ("speckle1.0", "multiplicative"),
    ],
)
def test_kind_level_bias_and_snr_without_clean_images(name: str, words: str, clean: Path, tmp_path: Path) -> None:
    folder = noisy_folder(tmp_path / "noisy", name)
    found, exact = noise_of(folder), noise_of(folder, clean)
    assert found.kind is not None
    assert found.kind.words == words
    level = next(
        float(found.kind.fit.noise.name.removeprefix(word)) for word in ("gauss", "shot", "speckle") if word in name
    )
    assert level == pytest.approx(float(name.lstrip("gaushotpecklr")), rel=0.2)
    assert found.bias is not None
    assert exact.bias is not None
    assert (found.bias.source, exact.bias.source) == ("fitted noise", "clean images")
    # Within 12 of 255, where bias is up to 70, and within 1.5 dB.
    points = (40, 128, 215)
    assert at_intensities(points, found.bias) == pytest.approx(at_intensities(points, exact.bias), abs=12)
    assert found.snr_db == pytest.approx(exact.snr_db, abs=1.5)


@pytest.mark.parametrize("name", ["gauss100", "shot1", "speckle0.7"])
def test_exact_bias_is_the_clipping_curve(name: str, clean: Path) -> None:
    found = noise_of(f"ImageFolder:root={clean}:noise={name}")
    assert found.known == name
    assert found.bias is not None
    truth = stored(parse(name), found.bias.clean_255 / 255).mean * 255 - found.bias.clean_255
    # Bins are 16 grey levels wide, in which the curve bends.
    assert found.bias.bias_255 == pytest.approx(truth, abs=2.5)


def test_bias_of_known_noise_needs_no_clean_images(clean: Path, tmp_path: Path) -> None:
    folder = noisy_folder(tmp_path / "noisy", "gauss100")
    (folder / "manifest.json").write_text('{"command": "add-noise", "parameters": {"noise": "gauss100"}}')
    found = noise_of(folder)
    assert found.bias is not None
    assert found.bias.source == "known noise"
    centres = found.bias.clean_255
    assert found.bias.bias_255 == pytest.approx(stored(parse("gauss100"), centres / 255).mean * 255 - centres)


def test_snr_and_saturation_are_those_of_the_pixels(clean: Path, tmp_path: Path) -> None:
    folder = noisy_folder(tmp_path / "noisy", "gauss100")
    found = noise_of(folder, clean)
    noisy = np.stack([np.asarray(Image.open(folder / f"{number}.png")) for number in range(4)])
    truth, difference = np.stack(photographs()) / 255.0, noisy / 255.0 - np.stack(photographs()) / 255.0
    assert found.snr_db == pytest.approx(10 * np.log10((truth**2).mean() / (difference**2).mean()))
    assert found.black == pytest.approx((noisy == 0).mean(axis=(0, 1, 2)))
    assert found.white == pytest.approx((noisy == 255).mean(axis=(0, 1, 2)))


def test_sensor_noise_has_a_gain_and_a_read_noise(tmp_path: Path) -> None:
    for number, image in enumerate(photographs()):
        x = image / 255
        noise = np.random.default_rng(number).normal(size=x.shape) * np.sqrt(x / 100 + (8 / 255) ** 2)
        Image.fromarray((np.clip(x + noise, 0, 1) * 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    found = noise_of(tmp_path)
    assert found.kind is not None
    assert found.kind.sensor.a == pytest.approx(1 / 100, rel=0.15)
    assert 255 * found.kind.sensor.b**0.5 == pytest.approx(8, rel=0.2)


def test_a_sensor_is_told_from_photons_alone(clean: Path) -> None:
    found = noise_of(f"ImageFolder:root={clean}:noise=poissongauss30_20").kind
    assert found is not None
    assert found.words == "Poisson-Gaussian"
    assert 1 / found.sensor.a == pytest.approx(30, rel=0.15)
    assert 255 * found.sensor.b**0.5 == pytest.approx(20, rel=0.2)


def test_salt_and_pepper_is_like_none(clean: Path) -> None:
    found = noise_of(f"ImageFolder:root={clean}:noise=saltpepper0.05")
    assert found.is_clear
    assert found.kind is None


def test_clean_photographs_are_not_said_to_be_noisy(clean: Path) -> None:
    found = check(clean, workers=1, progress=False)
    assert found.noise is not None
    assert not found.noise.is_clear
    assert found.noise.kind is None
    lines = dict(report_lines(found))
    assert "so little may as well be fine texture" in lines["noise"]
    assert "σ by intensity" not in lines
    assert lines["verdict"] == "ready: all 4 images can be used"
    paired = [text for _, text in report_lines(check(clean, clean=clean, workers=1, progress=False))]
    assert "hardly any noise is seen: are these the noisy images?" in paired
    assert f"add-noise {clean} NOISY" in lines["  next"]


def test_weak_noise_of_deep_images_is_measured_at_full_depth(tmp_path: Path) -> None:
    """A level of 0.2 of 255 would drown in rounding to 8 bits."""
    for number, image in enumerate(photographs()):
        smooth = gaussian_filter(image / 255, (20, 20, 0))
        x = 0.2 + 0.6 * smooth + np.random.default_rng(number).normal(scale=0.2 / 255, size=image.shape)
        np.save(tmp_path / f"{number}.npy", x.astype(np.float32))
    found = noise_of(tmp_path)
    assert found.curve is not None
    assert found.curve.sigma_255 == pytest.approx(0.2, rel=0.1)
    assert found.correlation.sigma_255 == pytest.approx(0.2, rel=0.1)
    assert (found.correlation.verdict, found.is_clear) == ("independent", True)
