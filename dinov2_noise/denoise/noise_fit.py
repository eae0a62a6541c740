"""Which noise do images hold? Fitted to noisy images and their denoised versions; no clean one is needed.

Source of the idea: Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising", Signal Processing 89
(2009), fits the spread of clipped noise as a function of its mean. Differences: the shares of black and white pixels
are fitted too, since they tell the families of strong noise apart; predictions are exact sums, see `noise.clipping`;
and the pixels that are measured are hidden from the denoiser, as in Batson, Royer, "Noise2Self", ICML 2019, arXiv
1901.11365: else its output would hold a part of their own noise, and sorting by it would sort the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from dinov2_noise.errors import DinoNoiseError
from dinov2_noise.noise.clipping import PoissonGaussian, stored
from dinov2_noise.noise.models import FloatArray, PixelNoise
from dinov2_noise.noise.registry import FAMILIES

MAX_MISFIT = 0.012
"""Above it no noise is said to fit. On photographs the right family has 0.002 to 0.009, even with a box filter."""

_BINS = 64
_MIN_PAIRS = 1000  # in a bin that counts
_CELL = 4  # px; one pair is hidden in each cell
_LEVELS = {"gauss": (1.0, 1000.0), "shot": (0.2, 5000.0), "speckle": (0.01, 5.0)}
_COARSE = 17  # levels tried in each family before the best is refined
_GRID = np.linspace(0, 1, 65)
_CLEARLY_BETTER = 0.5  # of the misfit: what a sensor's second parameter must bring to be believed


class Observed(NamedTuple):
    """Of pixels sorted by their denoised value: mean, std, shares of black and white, weight; one entry per bin."""

    mean: FloatArray
    std: FloatArray
    black: FloatArray
    white: FloatArray
    weight: FloatArray


class Fit(NamedTuple):
    """A noise model, and how far it is from what was observed: see `misfit`."""

    noise: PixelNoise
    misfit: float


def fit_noise(images: Iterable[FloatArray], denoise: Callable[[FloatArray], FloatArray]) -> Fit:
    """The noise model that fits best, its level rounded to three digits; deterministic.

    Args:
        images: noisy, ``(C, H, W)``, stored in 8 bits, on the [0, 1] scale.
        denoise: from and to such an image; need not be good.

    Raises:
        DinoNoiseError: too few pixels, or no model fits.
    """
    observed = observe(images, denoise)
    best = min((fit_family(family, observed) for family in _LEVELS), key=lambda fit: fit.misfit)
    sensor = fit_sensor(observed)
    if sensor.misfit < _CLEARLY_BETTER * best.misfit:
        best = sensor
    if best.misfit > MAX_MISFIT:
        raise DinoNoiseError(
            f"no noise model fits these images (the best, {best.noise.name}, misses by {best.misfit:.4f}, and up to "
            f"{MAX_MISFIT} would do): name the noise if you know it, as in `--debias gauss100`, or leave out --debias"
        )
    return best


def observe(images: Iterable[FloatArray], denoise: Callable[[FloatArray], FloatArray]) -> Observed:
    """Hide pairs of pixels, denoise, and sort the pairs by what the denoiser makes of their places.

    Raises:
        DinoNoiseError: too few pixels.
    """
    totals = np.zeros((5, _BINS))
    for noisy in images:
        left, right, hidden = _hide_pairs(noisy)
        denoised = denoise(hidden)
        guess = (denoised[left] + denoised[right]).ravel() / 2
        one, two = noisy[left].ravel(), noisy[right].ravel()
        # Half the squared difference is the variance of the noise, with hardly any of the picture in it.
        values = (np.ones_like(one), (one + two) / 2, (one - two) ** 2 / 2, _share(one, two, 0), _share(one, two, 1))
        bins = np.clip(guess * _BINS, 0, _BINS - 1).astype(int)
        totals += [np.bincount(bins, value, _BINS) for value in values]
    used = totals[0] >= _MIN_PAIRS
    if not used.any():
        raise DinoNoiseError("too few pixels to estimate the noise from: name it instead, as in `--debias gauss100`")
    count, mean, variance, black, white = totals[:, used]
    weight = np.sqrt(count)
    return Observed(mean / count, np.sqrt(variance / count), black / count, white / count, weight / weight.sum())


def misfit(noise: PixelNoise, observed: Observed) -> float:
    """How far std and shares, as functions of the mean, are from what ``noise`` predicts.

    The weighted mean of their absolute deviations, on the [0, 1] scale; means that the noise cannot have count too.
    Absolute, because a poor denoiser mixes dark pixels with black ones, whose signal-dependent noise is quite another.
    """
    predicted = stored(noise, _GRID)
    means, first = np.unique(predicted.mean, return_index=True)
    possible = np.clip(observed.mean, means[0], means[-1])
    error = np.abs(observed.mean - possible)
    for name in ("std", "black", "white"):
        error += np.abs(np.interp(possible, means, getattr(predicted, name)[first]) - getattr(observed, name))
    return float((observed.weight * error).sum() / 3)


def fit_family(family: str, observed: Observed) -> Fit:
    """The level of a family (``gauss``, ``shot`` or ``speckle``) that fits best."""
    from scipy.optimize import minimize_scalar

    def cost(log_level: float) -> float:
        return misfit(FAMILIES[family](float(np.exp(log_level))), observed)

    coarse = np.log(np.geomspace(*_LEVELS[family], _COARSE))
    best = int(np.argmin([cost(level) for level in coarse]))
    bounds = coarse[max(0, best - 1)], coarse[min(_COARSE - 1, best + 1)]
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    noise = FAMILIES[family](_rounded(np.exp(found.x)))
    return Fit(noise, misfit(noise, observed))


def fit_sensor(observed: Observed) -> Fit:
    """The Poisson-Gaussian noise that fits best."""
    from scipy.optimize import minimize

    def cost(roots: FloatArray) -> float:
        return misfit(PoissonGaussian(*np.square(roots)), observed)

    found = minimize(cost, (0.1, 0.05), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6, "maxiter": 200})
    noise = PoissonGaussian(*(_rounded(root**2) for root in found.x))
    return Fit(noise, misfit(noise, observed))


_Index = tuple[slice, FloatArray, FloatArray]


def _hide_pairs(image: FloatArray) -> tuple[_Index, _Index, FloatArray]:
    """Indices of the left and right pixels of the pairs, and the image with each replaced by the mean of the pixels
    above and below it."""
    rows = np.arange(1, image.shape[1] - 1, _CELL)[:, None]
    columns = np.arange(1, image.shape[2] - 1, _CELL)
    everything = slice(None)
    left, right = (everything, rows, columns), (everything, rows, columns + 1)
    hidden = image.copy()
    for _, at, across in (left, right):
        hidden[:, at, across] = (image[:, at - 1, across] + image[:, at + 1, across]) / 2
    return left, right, hidden


def _share(one: FloatArray, two: FloatArray, value: float) -> FloatArray:
    """How many of each pair have this value, halved."""
    share: FloatArray = ((one == value).astype(np.float64) + (two == value)) / 2
    return share


def _rounded(level: float) -> float:
    return float(f"{level:.3g}")
