"""The audit of noise: independent noise passes, correlated noise does not, and weak noise is not accused."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from dinov2_noise.noise import noisy_uint8, parse
from dinov2_noise.noise.audit import COLOUR_THRESHOLD, correlation, warn_if_correlated

Pixels = NDArray[np.uint8]
PUBLISHED = ("gauss50", "gauss100", "gauss255", "shot10", "shot3", "shot1", "speckle0.4", "speckle0.7", "speckle1.0")


@cache
def photographs() -> list[Pixels]:
    pictures = [data.astronaut(), data.coffee(), data.rocket(), data.chelsea(), np.stack([data.grass()] * 3, -1)]
    return [picture[64:256, 64:256] for picture in pictures]


def cells() -> list[Pixels]:
    """The demo's smallest images."""
    return [picture[top : top + 64, 64:128] for picture in photographs() for top in (0, 64)]


def white(name: str, image: Pixels, number: int) -> Pixels:
    return noisy_uint8(image, parse(name), relative_path=f"{number}.png")


def blurred(radius_px: float, sigma_255: float, image: Pixels, number: int) -> Pixels:
    noise = gaussian_filter(np.random.default_rng(number).normal(size=image.shape), (radius_px, radius_px, 0))
    return np.clip(image + noise * (sigma_255 / noise.std()), 0, 255).astype(np.uint8)


def sharpened(image: Pixels, number: int) -> Pixels:
    """Neighbours then differ more than by chance: the autocorrelation is negative."""
    noise = np.random.default_rng(number).normal(size=image.shape)
    noise -= 0.8 * gaussian_filter(noise, (1.0, 1.0, 0))
    return np.clip(image + 40 * noise, 0, 255).astype(np.uint8)


def as_jpeg(quality: int, name: str, image: Pixels, number: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(white(name, image, number)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(factor: float, name: str, image: Pixels, number: int) -> Pixels:
    picture = Image.fromarray(white(name, image, number))
    side = int(picture.width * factor)
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def demosaiced(image: Pixels, number: int) -> Pixels:
    """Every second pixel of the noise in each direction is measured, those between are interpolated."""
    side = image.shape[0]
    measured = np.random.default_rng(number).normal(size=(side // 2 + 1, side // 2 + 1, 3))
    rows = np.empty((side, *measured.shape[1:]))
    rows[::2], rows[1::2] = measured[:-1], (measured[:-1] + measured[1:]) / 2
    noise = np.empty((side, side, 3))
    noise[:, ::2], noise[:, 1::2] = rows[:, :-1], (rows[:, :-1] + rows[:, 1:]) / 2
    return np.clip(image + 40 * noise, 0, 255).astype(np.uint8)


Make = Callable[[Pixels, int], Pixels]


def seen(make: Make, clean: list[Pixels]) -> list[NDArray[np.uint8]]:
    return [make(image, number).transpose(2, 0, 1) for number, image in enumerate(clean)]


def _label(make: Make) -> str:
    """The same in every process that collects the tests, unlike a function's own text."""
    return "-".join(map(str, [make.func.__name__, *make.args])) if isinstance(make, partial) else make.__name__


@pytest.mark.parametrize("name", ["gauss5", "gauss25", *PUBLISHED])
@pytest.mark.parametrize("stride", [1, 2])
def test_white_noise_is_independent(name: str, stride: int) -> None:
    for clean in (photographs(), cells()):
        found = correlation(seen(partial(white, name), clean), stride=stride)
        assert found.verdict == "independent", found
        assert max(map(abs, found.autocorrelation.values())) < COLOUR_THRESHOLD / 2
        assert found.warning() is None


@pytest.mark.parametrize(("sigma_255", "stored_255"), [(5, 5), (25, 24), (50, 45), (100, 75), (255, 107)])
def test_level_is_that_of_the_stored_noise(sigma_255: int, stored_255: float) -> None:
    """Strong noise is stored as less, for clipping takes the rest: 107 is the spread of gauss255 at mid-gray."""
    found = correlation(seen(partial(white, f"gauss{sigma_255}"), photographs()[:4]))
    assert found.sigma_255 == pytest.approx(stored_255, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        *(partial(blurred, radius_px, sigma_255) for radius_px in (0.5, 0.7, 1.0, 2.0) for sigma_255 in (25, 100)),
        *(partial(as_jpeg, quality, name) for quality in (75, 85, 95) for name in ("gauss50", "gauss255")),
        *(partial(as_jpeg, quality, "gauss25") for quality in (85, 95)),
        *(partial(resized, factor, "gauss100") for factor in (0.5, 0.7, 1.5)),
        demosaiced,
        sharpened,
    ],
    ids=_label,
)
def test_correlated_noise_is_found(make: Make) -> None:
    for clean in (photographs(), cells()):
        assert correlation(seen(make, clean)).verdict == "correlated"


def test_strong_jpeg_that_leaves_no_noise_in_the_colours() -> None:
    found = correlation(seen(partial(as_jpeg, 75, "gauss25"), photographs()[:4]))
    assert (found.verdict, found.in_colour) == ("correlated", False)


def test_blurred_noise_has_the_autocorrelation_of_its_filter() -> None:
    kernel = gaussian_filter(np.eye(1, 33, 16)[0], 0.7)
    at_1, at_2 = (float((kernel[lag:] * kernel[:-lag]).sum() / (kernel**2).sum()) for lag in (1, 2))
    found = correlation(seen(partial(blurred, 0.7, 25), photographs()[:4])).autocorrelation
    # Slightly low: what the noise has in common at more than 2 px is taken for nothing.
    for lag, expected in (((0, 1), at_1), ((1, 0), at_1), ((1, 1), at_1**2), ((0, 2), at_2), ((2, 0), at_2)):
        assert expected - 0.06 < found[lag] < expected + 0.01


def test_clean_photographs_are_not_accused() -> None:
    for clean in (photographs(), cells(), *([image] for image in photographs()[:4])):
        found = correlation(seen(lambda image, _: image, clean))
        assert found.verdict != "correlated", found
        assert found.sigma_255 < 8


def test_nothing_but_gray_texture_is_taken_for_noise() -> None:
    """The limit of the method: grass from edge to edge looks like noise of 10 grey levels that has been blurred."""
    found = correlation([photographs()[4].transpose(2, 0, 1)])
    assert (found.verdict, found.in_colour) == ("correlated", False)


def test_gray_images_and_one_channel() -> None:
    for clean in (partial(white, "gauss50"), partial(white, "shot3")):
        gray = [image[:1] for image in seen(clean, photographs())]
        assert correlation(gray).verdict == "independent"
        assert correlation([np.repeat(image, 3, axis=0) for image in gray]).verdict == "independent"
    correlated = [image[:1] for image in seen(partial(blurred, 0.7, 50), photographs())]
    assert correlation(correlated).verdict == "correlated"


def test_black_images_and_tiny_ones_are_unclear() -> None:
    assert correlation([np.zeros((3, 64, 64), np.uint8)]).verdict == "unclear"
    tiny = [np.zeros((3, 5, 5), np.uint8)] * 3
    assert correlation(tiny).verdict == "unclear"


def test_uint8_float_and_tensors_are_the_same() -> None:
    images = seen(partial(blurred, 0.7, 50), cells())
    found = correlation(images)
    assert correlation([torch.from_numpy(image) for image in images]) == found
    as_float = correlation([image / 255 for image in images])
    assert as_float.sigma_255 == pytest.approx(found.sigma_255, rel=1e-9)
    assert list(as_float.autocorrelation.values()) == pytest.approx(list(found.autocorrelation.values()), abs=1e-9)


def test_at_most_64_images_are_read_from_the_whole_range() -> None:
    few, read = seen(partial(white, "gauss50"), cells()[:4]), []

    class Thousand:
        def __getitem__(self, index: int, /) -> Pixels:
            read.append(index)
            return few[index % 4]

        def __len__(self) -> int:
            return 1000

    assert correlation(Thousand()).n_images == 64
    assert (len(read), read[0], read[-1]) == (64, 0, 999)


def test_warning_says_why_and_what_to_do() -> None:
    narrow = warn_if_correlated(seen(partial(blurred, 0.5, 50), photographs()))
    assert narrow is not None
    for part in ("correlated", "1 px", "JPEG", "Or train with `--stride 2`"):
        assert part in narrow
    wide = warn_if_correlated(seen(partial(blurred, 2.0, 50), photographs()))
    assert wide is not None
    assert "does not remove it" in wide
    assert warn_if_correlated(seen(partial(blurred, 0.5, 50), photographs()), stride=2) is None
    still = warn_if_correlated(seen(partial(blurred, 2.0, 50), photographs()), stride=2)
    assert still is not None
    assert "`--stride 4`" in still


def test_no_images_and_no_stride_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        correlation([])
    with pytest.raises(ValueError, match="stride of at least 1"):
        correlation(cells(), stride=0)


def test_images_too_small_to_tell_are_told_from_those_without_noise() -> None:
    assert correlation([np.zeros((3, 7, 7), np.uint8)] * 100).is_too_small
    assert correlation([np.zeros((3, 32, 32), np.uint8)]).n_patches == 48
    assert not correlation([np.zeros((3, 64, 64), np.uint8)]).is_too_small
