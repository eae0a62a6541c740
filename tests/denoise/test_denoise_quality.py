"""What the denoiser is for: unseen noisy photographs come closer to the clean ones; and how it is measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinov2_noise.denoise import apply_denoiser
from dinov2_noise.denoise.debias import Debias
from dinov2_noise.noise import parse

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def psnr_db(path: Path, clean: Path) -> float:
    difference = np.asarray(Image.open(path), dtype=np.float64) - np.asarray(Image.open(clean), dtype=np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def test_unseen_photograph_gains_at_least_5_db(trained: Any, tmp_path: Path) -> None:
    apply_denoiser(trained.noisy / "val", tmp_path / "denoised", weights=trained.weights, device="cpu", progress=False)
    clean = trained.clean / "val" / "chelsea.png"
    before = psnr_db(trained.noisy / "val" / "chelsea.png", clean)
    after = psnr_db(tmp_path / "denoised" / "chelsea.png", clean)
    assert 14 < before < 15.5  # 20 log10(255 / 50) = 14.2, a little more after clipping
    assert after > before + 5, f"{before:.2f} dB noisy, {after:.2f} dB denoised"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/denoise_quality.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("denoise_quality")


def flat(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((32, 32, 3), value, dtype=np.uint8)


def test_library_denoisers_get_the_strength_that_is_best_on_the_pairs(quality: ModuleType) -> None:
    shift = quality.LibraryDenoiser("shift", "", lambda noisy, strength: noisy - strength, (0.5, 1.0, 2.0))
    pairs = [(flat(100), flat(112)), (flat(40), flat(47))]
    level = (193 / 2) ** 0.5  # 12 and 7 too bright
    assert quality.noise_level(pairs) * 255 == pytest.approx(level)
    assert quality.tune(shift, pairs) * 255 == pytest.approx(level)
    assert quality.tune(shift, [(flat(100), flat(95)), (flat(40), flat(35))]) * 255 == pytest.approx(5 / 2)


@pytest.mark.parametrize("name", ["NLM", "TV"])
def test_library_denoisers_denoise(quality: ModuleType, name: str) -> None:
    (denoiser,) = (each for each in quality.installed() if each.name == name)
    noise = np.random.default_rng(0).normal(0, 20, (32, 32, 3))
    noisy = np.clip(flat(128) + noise, 0, 255).astype(np.uint8)
    denoised = denoiser(noisy, 20 / 255)
    assert denoised.dtype == np.uint8
    assert np.std(denoised) < 0.6 * np.std(noisy)
    assert abs(float(np.mean(denoised)) - 128) < 1.5


def test_scores_are_means_over_images_with_and_without_debias(quality: ModuleType, tmp_path: Path) -> None:
    for name, clean, denoised in (("a.png", 255, 245), ("b.png", 128, 108)):
        quality.save(tmp_path / "clean" / name, flat(clean))
        quality.save(tmp_path / "denoised" / name, flat(denoised))
    found = quality.score(tmp_path / "clean", tmp_path / "denoised", ["a.png", "b.png"])
    assert found["psnr_db"] == pytest.approx(20 * np.log10(255 / 10) - 10 * np.log10(2), abs=1e-9)
    assert 0.98 < found["ssim"] < 1  # only the luminance term differs
    # A perfect denoiser of gauss255 shows white as 0.684 and mid-gray as 0.498 (truncated); debiased, as they are.
    for name, mean in (("a.png", 174), ("b.png", 127)):
        quality.save(tmp_path / "gauss255" / name, flat(mean))
    debias = Debias(parse("gauss255"))
    before, after = (
        quality.score(tmp_path / "clean", tmp_path / "gauss255", ["a.png", "b.png"], d) for d in (None, debias)
    )
    assert before["psnr_db"] < 30
    assert after["psnr_db"] > 40


def test_centre_squares_and_links(quality: ModuleType, tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[10:30, 20:40] = 200
    quality.save(tmp_path / "source" / "sub" / "a.png", image)
    assert quality.prepare(tmp_path / "source", tmp_path / "squares", crop_px=20) == ["sub/a.png"]
    assert np.all(quality.read(tmp_path / "squares", "sub/a.jpg") == 200)
    for name in "bcd":
        quality.save(tmp_path / "source" / f"{name}.png", image)
    assert quality.prepare(tmp_path / "source", tmp_path / "links", limit=2) == ["b.png", "d.png"]
    assert (tmp_path / "links" / "d.png").is_symlink()


def test_grid_shows_the_crops_and_stays_small(quality: ModuleType, tmp_path: Path) -> None:
    for folder, value in (("clean-test", 100), ("gauss25/noisy-test", 120), ("gauss25/ours", 101)):
        quality.save(tmp_path / folder / "a.png", np.full((170, 200, 3), value, dtype=np.uint8))
    results = {"gauss25": {"scores": {"noisy": {}, "ours": {}}}}
    quality.draw_grid(tmp_path, results, "a.png", None, tmp_path / "grid.jpg")
    grid = np.array(Image.open(tmp_path / "grid.jpg")).astype(int)
    for column, value in enumerate((100, 120, 101)):
        cell = grid[30:130, 100 + column * 166 : 240 + column * 166]
        assert abs(float(cell.mean()) - value) < 2
