"""The noise level by intensity, against what the clipped noise is known to have."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.clipping import stored
from dinov2_noise.noise.levels import LevelCurve, level_curve

NAMES = (
    "gauss10",
    "gauss25",
    "gauss100",
    "gauss255",
    "shot30",
    "shot3",
    "shot1",
    "speckle0.1",
    "speckle0.4",
    "speckle1.0",
)


@cache
def photographs() -> list[NDArray[np.uint8]]:
    return [picture[64:320, 64:320] for picture in (data.astronaut(), data.coffee(), data.rocket(), data.chelsea())]


def curve_of(name: str, *, gray: bool = False, common: bool = False) -> LevelCurve:
    noisy = []
    for number, image in enumerate(photographs()):
        clean = np.repeat(image[..., 1:2], 3, axis=2) if common else image[..., :1] if gray else image
        seen = noisy_uint8(clean[..., :1] if common else clean, parse(name), relative_path=f"{number}.png")
        noisy.append(np.repeat(seen, 3, axis=2).transpose(2, 0, 1) if common else seen.transpose(2, 0, 1))
    found = level_curve(noisy)
    assert found is not None
    return found


def expected(name: str, mean_255: NDArray[np.float64]) -> NDArray[np.float64]:
    grid = stored(parse(name), np.linspace(0, 1, 513))
    means, first = np.unique(grid.mean, return_index=True)
    return np.interp(mean_255 / 255, means, grid.std[first]) * 255


@pytest.mark.parametrize("name", NAMES)
def test_the_curve_is_that_of_the_clipped_noise(name: str) -> None:
    found = curve_of(name)
    assert found.in_colour
    truth, weight = expected(name, found.mean_255), found.patches / found.patches.sum()
    level = float(np.sqrt((weight * truth**2).sum()))
    # Mean deviation up to 4 %, bias of the whole up to 3 %.
    assert float((weight * np.abs(found.std_255 - truth)).sum()) < 0.04 * level
    assert found.sigma_255 == pytest.approx(level, rel=0.03)


@pytest.mark.parametrize("common", [False, True], ids=["one-channel", "equal-channels"])
@pytest.mark.parametrize("name", ["gauss25", "shot3", "speckle0.4"])
def test_gray_images_have_it_in_their_channels(name: str, common: bool) -> None:
    found = curve_of(name, gray=True, common=common)
    assert not found.in_colour
    truth = expected(name, found.mean_255)
    assert float(np.average(np.abs(found.std_255 - truth), weights=found.patches)) < 0.12 * float(truth.mean())


def test_noise_common_to_all_channels_of_coloured_images_is_not_overlooked() -> None:
    noisy = []
    for number, image in enumerate(photographs()):
        noise = np.random.default_rng(number).normal(scale=20, size=(*image.shape[:2], 1))
        noisy.append(np.clip(image + noise, 0, 255).astype(np.uint8).transpose(2, 0, 1))
    found = level_curve(noisy)
    assert found is not None
    assert not found.in_colour
    middle = (found.mean_255 > 60) & (found.mean_255 < 190)
    assert np.average(found.std_255[middle], weights=found.patches[middle]) == pytest.approx(20, rel=0.1)


def test_shares_of_black_and_white_are_counted() -> None:
    found = curve_of("gauss255")
    grid = stored(parse("gauss255"), np.linspace(0, 1, 513))
    black = np.interp(found.mean_255 / 255, grid.mean, grid.black)
    white = np.interp(found.mean_255 / 255, grid.mean, grid.white)
    assert np.average(np.abs(found.black - black), weights=found.patches) < 0.03
    assert np.average(np.abs(found.white - white), weights=found.patches) < 0.03


def test_float_images_have_the_same_curve() -> None:
    noisy = [noisy_uint8(image, parse("shot10"), relative_path="a").transpose(2, 0, 1) for image in photographs()]
    one, two = level_curve(noisy), level_curve(image / 255 for image in noisy)
    assert one is not None
    assert two is not None
    assert two.std_255 == pytest.approx(one.std_255, rel=1e-9)


def test_too_few_pixels_have_no_curve_and_constant_ones_no_level() -> None:
    assert level_curve([np.zeros((3, 7, 7), np.uint8)] * 50) is None
    flat = level_curve([np.full((3, 64, 64), 80, np.uint8)] * 2)
    assert flat is not None
    assert (flat.mean_255.tolist(), flat.in_colour) == ([80.0], False)
    assert flat.std_255[0] == pytest.approx(0, abs=1e-4)
