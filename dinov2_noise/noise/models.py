"""Noise models of "Ditch the Denoiser" (arXiv 2505.12191), and the names they are called by.

An image x is a float64 array (H, W, C) in [0, 1]; so is the noisy image y. Noise is independent per pixel and channel,
and drawn by one call of the generator over the whole array, so that a seed defines an image bit for bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import NoiseNameError

FloatImage = NDArray[np.float64]
FloatArray = NDArray[np.float64]


class NoiseModel(Protocol):
    """What turns a clean image into a noisy one; a model is hashable, picklable and holds no random state."""

    @property
    def name(self) -> str:
        """Canonical name: ``parse(model.name) == model``."""
        ...

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """One noisy realisation of ``image`` (H, W, C) in [0, 1], clipped to [0, 1]."""
        ...


class PixelNoise(NoiseModel, Protocol):
    """A noise model that acts on each pixel by itself, and whose distribution is known."""

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """P(y >= threshold), exact, of the noisy (clipped) value y of a pixel whose true value is ``x``.

        Args:
            x: in [0, 1], any shape.
            threshold: of a shape that broadcasts with that of ``x``.
        """
        ...


@dataclass(frozen=True)
class Gaussian:
    """Additive white Gaussian noise: y = clip(x + N(0, (sigma_255 / 255)^2), 0, 1).

    Attributes:
        sigma_255: standard deviation on the 8-bit scale, > 0; published: 50, 100, 255.
    """

    sigma_255: float

    def __post_init__(self) -> None:
        _check_level("gauss", self.sigma_255)

    @property
    def name(self) -> str:
        return f"gauss{_shortest(self.sigma_255)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        return np.clip(image + rng.normal(size=image.shape, scale=self.sigma_255 / 255), 0.0, 1.0)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        return clipped_above(threshold, normal_above(threshold - x, np.asarray(self.sigma_255 / 255)))


@dataclass(frozen=True)
class Shot:
    """Photon-counting noise: y = clip(Poisson(x * photons) / photons, 0, 1).

    Attributes:
        photons: expected count at full intensity, > 0; fewer are noisier; published: 10, 3, 1.
    """

    photons: float

    def __post_init__(self) -> None:
        _check_level("shot", self.photons)

    @property
    def name(self) -> str:
        return f"shot{_shortest(self.photons)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        return np.clip(rng.poisson(image * self.photons) / self.photons, 0.0, 1.0)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        from scipy.special import gammainc

        count = np.maximum(np.ceil(threshold * self.photons) - 1, 0)
        for _ in range(2):  # the first count whose quotient, rounded as in `sample`, reaches the threshold
            count = np.where(count / self.photons < threshold, count + 1, count)
        # P(Poisson(m) >= k) is the regularised lower incomplete gamma function of k and m.
        return clipped_above(threshold, gammainc(np.maximum(count, 1), x * self.photons))


@dataclass(frozen=True)
class Speckle:
    """Multiplicative Gaussian noise: y = clip(x + x * N(0, sigma^2), 0, 1).

    Attributes:
        sigma: standard deviation relative to the signal, > 0; published: 0.4, 0.7, 1.0.
    """

    sigma: float

    def __post_init__(self) -> None:
        _check_level("speckle", self.sigma)

    @property
    def name(self) -> str:
        return f"speckle{float(self.sigma)!r}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        return np.clip(image + image * rng.normal(size=image.shape, scale=self.sigma), 0.0, 1.0)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        return clipped_above(threshold, normal_above(threshold - x, x * self.sigma))


FAMILIES: dict[str, Callable[[float], PixelNoise]] = {"gauss": Gaussian, "shot": Shot, "speckle": Speckle}

_NAME = re.compile(r"(?P<family>[a-z]+)(?P<level>[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
_VALID = (
    "valid are gauss<sigma on the 8-bit scale> (published: gauss50, gauss100, gauss255), "
    "shot<photons at full intensity> (shot10, shot3, shot1) and "
    "speckle<sigma relative to the signal> (speckle0.4, speckle0.7, speckle1.0), with any level above 0"
)


def parse(name: str) -> PixelNoise:
    """The noise model called ``name``, such as ``gauss255``, ``shot3`` or ``speckle0.4``.

    Raises:
        NoiseNameError: the family is unknown, or the level is missing, not a number, or not above 0.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise NoiseNameError(f"unknown noise {name!r}: {_VALID}")
    return FAMILIES[match["family"]](float(match["level"]))


def clipped_above(threshold: FloatArray, above: FloatArray) -> FloatArray:
    """``above``, P(value >= threshold) before clipping, made that of the value clipped to [0, 1]."""
    return np.where(threshold <= 0, 1.0, np.where(threshold > 1, 0.0, above))


def normal_above(distance: FloatArray, sigma: FloatArray) -> FloatArray:
    """P(N(0, sigma^2) >= distance), also for sigma 0."""
    from scipy.special import ndtr

    scaled = np.divide(-distance, sigma, out=np.where(distance > 0, -np.inf, np.inf), where=sigma > 0)
    probability: FloatArray = ndtr(scaled)
    return probability


def _check_level(family: str, level: float) -> None:
    if not (math.isfinite(level) and level > 0):
        raise NoiseNameError(f"noise {family} with level {level}: the level must be above 0; {_VALID}")


def _shortest(level: float) -> str:
    """255.0 as "255", 0.5 as "0.5": without loss, so that a name parses back to the same model."""
    return repr(float(level)).removesuffix(".0")
