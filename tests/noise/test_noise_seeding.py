"""Fixed and fresh realisations: equal to a plain reference, 8-bit or deep, and independent from epoch to epoch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dinov2_noise.noise import Gaussian, image_seed, noise_of, noisy_uint8, parse
from dinov2_noise.noise.registry import FAMILIES

PATH = "train/n01/n01_1.JPEG"
# More values than one part holds, and no multiple of it.
SHAPE = (131, 173, 3)
EXAMPLES = [name for family in FAMILIES.values() for name in family.examples] + ["gauss5-50", "poissongauss5-50_3"]


@pytest.fixture(scope="module")
def photograph():
    rows, columns, channels = np.indices(SHAPE)
    return ((rows * 2 + columns + 40 * channels) % 256).astype(np.uint8)


def _plain(name, x, rng):
    """Every noise written down as its formula says, whole arrays at once."""
    family, levels = (
        name.rstrip("0123456789._"),
        [float(n) for n in name.lstrip("abcdefghijklmnopqrstuvwxyz").split("_")],
    )
    first = levels[0]
    if family == "gauss":
        return x + rng.normal(size=x.shape, scale=first / 255)
    if family == "shot":
        return rng.poisson(x * first) / first
    if family == "speckle":
        return x + x * rng.normal(size=x.shape, scale=first)
    if family == "poissongauss":
        return rng.poisson(x * first) / first + rng.normal(size=x.shape, scale=levels[1] / 255)
    if family == "rician":
        parts = rng.normal(size=(*x.shape, 2), scale=first / 255)
        return np.hypot(x + parts[..., 0], parts[..., 1])
    if family == "saltpepper":
        drawn = rng.random(x.shape)
        return np.select([drawn < first / 2, drawn >= 1 - first / 2], [0.0, 1.0], x)
    assert family == "gamma"
    return x * (rng.standard_gamma(first, size=x.shape) / first)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", [name for name in EXAMPLES if "-" not in name and "correlated" not in name])
def test_pixels_equal_a_plain_reference(name, deep, photograph):
    image = photograph / 255
    seed = int(hashlib.md5(f"{PATH}_7".encode()).hexdigest(), 16) % 2**32
    expected = (np.clip(_plain(name, image, np.random.default_rng(seed)), 0, 1) * 255).astype(np.uint8)
    given = image if deep else photograph
    before = given.copy()
    made = noisy_uint8(given, parse(name), relative_path=PATH, base_seed=7)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_view_gives_what_its_copy_gives(name, photograph):
    view = photograph[::2, ::-1]
    made = noisy_uint8(view, parse(name), relative_path=PATH)
    np.testing.assert_array_equal(made, noisy_uint8(view.copy(), parse(name), relative_path=PATH))


def test_a_deep_image_keeps_its_depth_until_noise_is_added():
    """Steps of a 65,536th: the share of pixels above a threshold follows them."""
    image = np.broadcast_to(np.linspace(0.5, 0.5 + 1 / 255, 64)[:, None, None], (64, 4000, 1))
    made = noisy_uint8(image, Gaussian(1), relative_path=PATH).mean(axis=(1, 2))
    assert np.corrcoef(made, np.arange(64))[0, 1] > 0.99
    assert made[-1] - made[0] == pytest.approx(1, abs=0.08)  # standard error 0.016 of each mean


def test_noise_of_each_epoch_has_its_own_documented_seed(photograph):
    for epoch in (0, 3):
        seed = int(hashlib.md5(f"{PATH}_42_epoch{epoch}".encode()).hexdigest(), 16) % 2**32
        assert image_seed(PATH, epoch=epoch) == seed
        expected = np.clip(photograph / 255 + np.random.default_rng(seed).normal(size=SHAPE, scale=100 / 255), 0, 1)
        made = noisy_uint8(photograph, Gaussian(100), relative_path=PATH, epoch=epoch)
        np.testing.assert_array_equal(made, (expected * 255).astype(np.uint8))
    fixed = noisy_uint8(photograph, Gaussian(100), relative_path=PATH)
    np.testing.assert_array_equal(noisy_uint8(photograph, Gaussian(100), relative_path=PATH, epoch=None), fixed)


@pytest.mark.parametrize("name", ["gauss10", "gamma16", "correlated10_1"])
def test_epochs_are_independent(name):
    """Correlation of 68,000 values: standard error 0.004, and 0.014 where 12 neighbours share their noise."""
    grey = np.full(SHAPE, 0.5)
    drawn = [noisy_uint8(grey, parse(name), relative_path=PATH, epoch=e).ravel() for e in (None, 0, 1, 2)]
    between = np.corrcoef(np.array(drawn, dtype=np.float64)) - np.eye(4)
    assert np.abs(between).max() < (0.05 if "correlated" in name else 0.016)


def test_the_level_of_an_image_can_be_found_again(photograph):
    noise = parse("gauss5-50")
    for number in range(3):
        path = f"{number}.png"
        own = noise_of(noise, relative_path=path, base_seed=1)
        assert isinstance(own, Gaussian)
        assert 5 <= own.sigma_255 <= 50
        made = noisy_uint8(photograph, noise, relative_path=path, base_seed=1)
        np.testing.assert_array_equal(made, noisy_uint8(photograph, own, relative_path=path, base_seed=1))
    assert noise_of(Gaussian(3), relative_path=PATH) == Gaussian(3)


def test_levels_are_uniform_and_differ_from_epoch_to_epoch():
    noise = parse("shot2-12")
    levels = np.array([noise_of(noise, relative_path=f"{n}.png").photons for n in range(400)])
    assert levels.mean() == pytest.approx(7, abs=4 * (10 / 12**0.5) / 20)
    assert levels.std() == pytest.approx(10 / 12**0.5, rel=0.1)
    assert (levels.min() >= 2) & (levels.max() <= 12)
    fresh = [noise_of(noise, relative_path="1.png", epoch=epoch).photons for epoch in range(5)]
    assert len({*fresh, levels[1]}) == 6


@pytest.mark.parametrize(("span", "single"), [("gauss20-20", "gauss20"), ("poissongauss30-30_4", "poissongauss30_4")])
def test_a_range_without_width_is_the_single_level(span, single, photograph):
    made = noisy_uint8(photograph, parse(span), relative_path=PATH)
    np.testing.assert_array_equal(made, noisy_uint8(photograph, parse(single), relative_path=PATH))


def test_a_range_sampled_by_hand_is_that_of_the_pipeline(photograph):
    rng = np.random.default_rng(image_seed(PATH))
    by_hand = (parse("gauss5-50").sample(photograph / 255, rng) * 255).astype(np.uint8)
    np.testing.assert_array_equal(noisy_uint8(photograph, parse("gauss5-50"), relative_path=PATH), by_hand)
