"""Which kind of noise do levels look like? Gaussian, Poisson-like, multiplicative, a sensor's; clipped as it is stored.

Clipped level, black and white are predicted as functions of the stored mean, see `dinov2_noise.denoise.noise_fit`. Of
strong noise the kind is that whose prediction is closest. Weaker noise is judged by the level alone, in proportion:
pictures have black and white pixels of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dinov2_noise.denoise.noise_fit import Fit, Observed, fit_family, fit_sensor, misfit
from dinov2_noise.noise.clipping import PoissonGaussian, stored
from dinov2_noise.noise.levels import LevelCurve
from dinov2_noise.noise.models import FloatArray, Gaussian, PixelNoise, Shot, Speckle

CLEAR_MISFIT = 0.02
"""Above it, none of the kinds is said to be like the noise."""
CLEAR_ERROR = 0.08
"""The same for the mean error of the level, as a share of it: the right kind has up to 0.04 on photographs."""
MIN_BINS = 4
"""Kinds are told by how the level changes with the intensity: fewer show nothing."""
_BETTER = 0.7  # of the second best: else two kinds are named
_SENSOR_BETTER = 0.6  # what a second parameter must bring to be believed
_GOOD_ERROR = 0.015  # of the level: a second parameter brings nothing to speak of
_KINDS = {"gauss": "Gaussian", "shot": "Poisson-like", "speckle": "multiplicative"}
_MODELS: dict[str, Callable[[float], PixelNoise]] = {"gauss": Gaussian, "shot": Shot, "speckle": Speckle}
_STRONG_255 = 60.0  # above it noise makes more black and white pixels than pictures have
_REFINED = 1.6  # the level is looked for within this factor
_GRID = np.linspace(0, 1, 65)


class Kind(NamedTuple):
    """Which noise the levels look like.

    Attributes:
        words: ``Gaussian``, ``Poisson-like``, ``multiplicative``, ``Poisson-Gaussian``; two of them with ``or``.
        fit: of the best.
        sensor: the best noise of variance a x + b, whether or not that is the best of all.
    """

    words: str
    fit: Fit
    sensor: PoissonGaussian


def kind_of(curve: LevelCurve) -> Kind | None:
    """Which noise has such a curve; None if none of those known here does, or if it tells too little."""
    if len(curve.mean_255) < MIN_BINS:
        return None
    weight = np.sqrt(curve.patches)
    observed = Observed(curve.mean_255 / 255, curve.std_255 / 255, curve.black, curve.white, weight / weight.sum())
    is_strong = curve.sigma_255 >= _STRONG_255

    def cost(fit: Fit) -> float:
        return fit.misfit if is_strong else level_error(fit.noise, observed)

    fits = {family: fit_family(family, observed) for family in _KINDS}
    if not is_strong:
        fits = {family: _refined(family, fit, observed) for family, fit in fits.items()}
    sensor = fit_sensor(observed) if is_strong else _level_sensor(fits, observed)
    assert isinstance(sensor.noise, PoissonGaussian)
    family, second = sorted(fits, key=lambda name: cost(fits[name]))[:2]
    best, words = fits[family], _KINDS[family]
    if cost(sensor) < _SENSOR_BETTER * cost(best) and level_error(best.noise, observed) > _GOOD_ERROR:
        best, words = sensor, "Poisson-Gaussian"
    elif cost(best) >= _BETTER * cost(fits[second]):
        words = f"{words} or {_KINDS[second]}"
    is_like = best.misfit <= CLEAR_MISFIT and level_error(best.noise, observed) <= CLEAR_ERROR
    return Kind(words, best, sensor.noise) if is_like else None


def level_error(noise: PixelNoise, observed: Observed) -> float:
    """The mean distance between the levels of ``noise`` and those observed, by the mean of the latter.

    Means that it cannot have count too.
    """
    predicted, impossible = _levels(noise, observed)
    error = np.abs(predicted - observed.std) + impossible
    return float((observed.weight * error).sum() / (observed.weight * observed.std).sum())


def _levels(noise: PixelNoise, observed: Observed) -> tuple[FloatArray, FloatArray]:
    """The levels of ``noise`` at the observed means, and how far those are from means that it can have."""
    truth = stored(noise, _GRID)
    means, first = np.unique(truth.mean, return_index=True)
    possible = np.clip(observed.mean, means[0], means[-1])
    return np.interp(possible, means, truth.std[first]), np.abs(possible - observed.mean)


def _refined(family: str, fit: Fit, observed: Observed) -> Fit:
    """The same family with the strength whose level fits best; the misfit stays that of all measures."""
    from scipy.optimize import minimize_scalar

    start = float(fit.noise.name.removeprefix(family))

    def cost(log_factor: float) -> float:
        return level_error(_MODELS[family](start * float(np.exp(log_factor))), observed)

    edge = float(np.log(_REFINED))
    found = minimize_scalar(cost, bounds=(-edge, edge), method="bounded", options={"xatol": 1e-3})
    noise = _MODELS[family](float(f"{start * float(np.exp(found.x)):.3g}"))
    return Fit(noise, min(fit.misfit, misfit(noise, observed)))


def _level_sensor(fits: dict[str, Fit], observed: Observed) -> Fit:
    """The sensor's noise whose level fits best, searched from between photons and read noise alone."""
    from scipy.optimize import minimize

    def cost(roots: FloatArray) -> float:
        return level_error(PoissonGaussian(*np.square(roots)), observed)

    photons, sigma_255 = (float(fits[family].noise.name.removeprefix(family)) for family in ("shot", "gauss"))
    start = np.sqrt([0.5 / photons, 0.5 * (sigma_255 / 255) ** 2])
    found = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4, "maxiter": 100})
    noise = PoissonGaussian(*(float(f"{root**2:.3g}") for root in found.x))
    return Fit(noise, misfit(noise, observed))
