"""Random squares with noise or blur: the laws their draws follow, and what happens inside and outside of them."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats

from dinov2_noise.augment.patches import BlurPatch, GaussianPatch, Placed, gaussian_blur

PATCHES = pytest.mark.parametrize("patch", [GaussianPatch(0.5), BlurPatch(4.0)], ids=["gaussian", "blur"])
RNG = np.random.default_rng
HEIGHT, WIDTH, DRAWS = 20, 33, 20_000


def photograph(*shape: int) -> Image.Image:
    """Smooth shapes and fine detail, all grey levels."""
    smooth = ndimage.gaussian_filter(RNG(0).normal(size=shape), (3, 3, 0)[: len(shape)])
    values = 127 + 110 * smooth / np.abs(smooth).max() + RNG(1).normal(scale=15, size=shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def inside(shape: tuple[int, ...], placed: Placed) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], dtype=bool)
    mask[placed.top : placed.top + placed.side, placed.left : placed.left + placed.side] = True
    return mask


@PATCHES
def test_draws_follow_their_laws(patch: GaussianPatch | BlurPatch) -> None:
    rng = RNG(7)
    draws = [patch.draw(HEIGHT, WIDTH, rng) for _ in range(DRAWS)]
    tops, lefts, sides, sigmas = (np.array(column) for column in zip(*draws, strict=True))
    assert min(sides) == 1
    assert max(sides) == HEIGHT
    assert stats.chisquare(np.bincount(sides)[1:]).pvalue > 0.01
    assert (tops + sides <= HEIGHT).all()
    assert (lefts + sides <= WIDTH).all()
    for places, length in ((tops, HEIGHT), (lefts, WIDTH)):
        for side in (1, 7, HEIGHT):  # uniform given the side
            counts = np.bincount(places[sides == side], minlength=length - side + 1)
            assert len(counts) == length - side + 1
            assert len(counts) == 1 or stats.chisquare(counts).pvalue > 0.01
    maximum = patch.max_sigma if isinstance(patch, GaussianPatch) else patch.max_sigma_px
    assert stats.kstest(sigmas / maximum, "uniform").pvalue > 0.01
    for other in (sides, tops, lefts):
        assert abs(np.corrcoef(sigmas, other)[0, 1]) < 4 / np.sqrt(DRAWS)


@PATCHES
@pytest.mark.parametrize("shape", [(40, 57, 3), (57, 40)])
@pytest.mark.parametrize("seed", range(5))
def test_outside_of_the_square_nothing_changes(
    patch: GaussianPatch | BlurPatch, shape: tuple[int, ...], seed: int
) -> None:
    image = photograph(*shape)
    before, placed = pixels(image), patch.draw(shape[0], shape[1], RNG(seed))
    after = patch.apply(image, RNG(seed))
    assert (after.size, after.mode) == (image.size, image.mode)
    np.testing.assert_array_equal(pixels(image), before)  # a copy was changed, not the image
    mask = inside(shape, placed)
    np.testing.assert_array_equal(pixels(after)[~mask], before[~mask])
    if placed.side > 2 and placed.sigma > (0.05 if isinstance(patch, GaussianPatch) else 0.3):
        assert (pixels(after)[mask] != before[mask]).mean() > 0.3


@PATCHES
def test_the_generator_decides_alone(patch: GaussianPatch | BlurPatch) -> None:
    image = photograph(40, 57, 3)
    first, again, other = (pixels(patch.apply(image, RNG(seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("seed", range(6))
def test_noise_has_the_drawn_sigma_and_is_independent_per_pixel_and_channel(seed: int) -> None:
    """On mid-grey and with at most 0.1, so that nothing is clamped."""
    patch, shape = GaussianPatch(0.1), (300, 320, 3)
    placed = patch.draw(*shape[:2], RNG(seed))
    noisy = patch.apply(Image.new("RGB", (320, 300), (128, 128, 128)), RNG(seed))
    noise = (pixels(noisy)[inside(shape, placed)] - 128).reshape(placed.side, placed.side, 3) / 255
    n = noise.size
    assert abs(noise.mean()) < 4 * placed.sigma / np.sqrt(n)
    variance = placed.sigma**2 + 1 / (12 * 255**2)  # rounding to 8 bit adds its own
    assert noise.var() == pytest.approx(variance, rel=6 * np.sqrt(2 / n))
    for one, two in ((noise[..., 0], noise[..., 1]), (noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_noise_is_clamped_not_wrapped() -> None:
    black = pixels(GaussianPatch(1.0).apply(Image.new("L", (200, 200), 0), RNG(1)))
    placed = GaussianPatch(1.0).draw(200, 200, RNG(1))
    square = black[inside(black.shape, placed)]
    assert placed.sigma > 0.1
    assert (square == 0).mean() == pytest.approx(0.5, abs=0.02)  # a wrapped one would be bright
    assert square.mean() / 255 == pytest.approx(_mean_above(placed.sigma), rel=0.05)


def _mean_above(sigma: float) -> float:
    """E[clip(sigma Z, 0, 1)] of a standard normal Z."""
    top = 1 / sigma
    return float(sigma * (stats.norm.pdf(0) - stats.norm.pdf(top)) + stats.norm.sf(top))


@pytest.mark.parametrize("shape", [(50, 61, 3), (61, 50)])
@pytest.mark.parametrize("seed", range(5))
def test_blur_is_that_of_the_square_alone(shape: tuple[int, ...], seed: int) -> None:
    patch, image = BlurPatch(4.0), photograph(*shape)
    top, left, side, sigma = patch.draw(shape[0], shape[1], RNG(seed))
    crop = pixels(image)[top : top + side, left : left + side].astype(np.float64)
    expected = ndimage.gaussian_filter(crop, sigma, axes=(0, 1), mode="reflect", truncate=4.0)
    found = pixels(patch.apply(image, RNG(seed)))[top : top + side, left : left + side]
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("sigma_px", [0.05, 0.3, 1.0, 2.5, 9.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2, 3), (40, 31)])
def test_gaussian_blur_equals_scipys_also_where_the_kernel_is_wider_than_the_image(
    sigma_px: float, shape: tuple[int, ...]
) -> None:
    image = RNG(0).random(shape, dtype=np.float32)
    expected = ndimage.gaussian_filter(image.astype(np.float64), sigma_px, axes=(0, 1), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(image, sigma_px), expected, atol=2e-6)


def test_a_maximum_of_zero_changes_nothing() -> None:
    image = photograph(30, 40, 3)
    for patch in (GaussianPatch(0.0), BlurPatch(0.0)):
        np.testing.assert_array_equal(pixels(patch.apply(image, RNG(0))), pixels(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
@PATCHES
def test_the_smallest_images(patch: GaussianPatch | BlurPatch, size: tuple[int, int]) -> None:
    assert patch.draw(size[1], size[0], RNG(0)).side == 1
    assert patch.apply(Image.new("RGB", size), RNG(0)).size == size


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_maximum_that_is_none_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match=r"max_sigma .*0 or more"):
        GaussianPatch(value)
    with pytest.raises(ValueError, match=r"max_sigma_px .*0 or more"):
        BlurPatch(value)


@PATCHES
def test_patches_are_frozen_hashable_and_travel_to_workers(patch: GaussianPatch | BlurPatch) -> None:
    assert pickle.loads(pickle.dumps(patch)) == patch
    assert len({patch, pickle.loads(pickle.dumps(patch))}) == 1
    with pytest.raises(FrozenInstanceError):
        patch.max_sigma = 1.0  # type: ignore[misc]


@PATCHES
@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "CMYK"])
def test_other_modes_are_refused_with_the_way_out(patch: GaussianPatch | BlurPatch, mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode '{mode}': convert it"):
        patch.apply(Image.new(mode, (8, 8)), RNG(0))
