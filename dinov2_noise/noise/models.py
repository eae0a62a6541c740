"""The published noise models: image in [0, 1] → noisy image in [0, 1]; and what every model is.

Source: "Ditch the Denoiser: Emergence of Noise Robustness in Self-Supervised Learning from Data Curriculum", 2025,
arXiv 2505.12191. The image x is in [0, 1]; so is the noisy image y. Noise is independent per pixel and channel, and
drawn by one call of the generator over the whole array, so that a seed defines an image bit for bit.

More models are in `physics` and `correlated`; `registry` has them all by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.errors import NoiseNameError

FloatImage = NDArray[np.float64]
FloatArray = NDArray[np.float64]


class NoiseModel(Protocol):
    """What turns a clean image into a noisy one; a model is hashable, picklable and holds no random state.

    A model that draws value by value may say so by an attribute ``in_order = True``: consecutive parts of an image,
    sampled one after the other as flat arrays, then are the sampled image. It is sampled in parts that fit a core's
    cache, which is faster. Of any other model ``sample`` is called once, with the whole image.
    """

    @property
    def name(self) -> str:
        """Canonical name: ``parse(model.name) == model``."""
        ...

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """One noisy realisation of ``image`` (H, W, C) in [0, 1], clipped to [0, 1]; a new array."""
        ...


class PixelNoise(NoiseModel, Protocol):
    """A noise model of which the distribution of each pixel by itself is known, and depends on its true value alone."""

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
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("gauss", self.sigma_255)

    @property
    def name(self) -> str:
        return f"gauss{shortest(self.sigma_255)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        noisy = rng.standard_normal(image.shape)
        noisy *= self.sigma_255 / 255
        noisy += image
        return clip(noisy)

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
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("shot", self.photons)

    @property
    def name(self) -> str:
        return f"shot{shortest(self.photons)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        return clip(rng.poisson(image * self.photons) / self.photons)

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
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("speckle", self.sigma)

    @property
    def name(self) -> str:
        return f"speckle{float(self.sigma)!r}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        noisy = rng.standard_normal(image.shape)
        noisy *= self.sigma
        noisy *= image
        noisy += image
        return clip(noisy)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        return clipped_above(threshold, normal_above(threshold - x, x * self.sigma))


def clip(noisy: FloatArray) -> FloatArray:
    """``noisy``, an array of one's own, clipped in place to [0, 1]."""
    return np.clip(noisy, 0.0, 1.0, out=noisy)


def clipped_above(threshold: FloatArray, above: FloatArray) -> FloatArray:
    """``above``, P(value >= threshold) before clipping, made that of the value clipped to [0, 1]."""
    return np.where(threshold <= 0, 1.0, np.where(threshold > 1, 0.0, above))


def normal_above(distance: FloatArray, sigma: FloatArray) -> FloatArray:
    """P(N(0, sigma^2) >= distance), also for sigma 0."""
    from scipy.special import ndtr

    scaled = np.divide(-distance, sigma, out=np.where(distance > 0, -np.inf, np.inf), where=sigma > 0)
    probability: FloatArray = ndtr(scaled)
    return probability


def check_level(family: str, level: float, *, what: str = "level", below: float = math.inf) -> None:
    """Raise NoiseNameError unless 0 < level < ``below``; ``what`` names it in the message."""
    if not 0 < level < below:
        most = "" if below == math.inf else f" and below {shortest(below)}"
        raise NoiseNameError(
            f"noise {family} with {what} {shortest(level)}: the {what} must be above 0{most}; "
            "see `dinov2-noise add-noise --list`"
        )


def shortest(level: float) -> str:
    """255.0 as "255", 0.5 as "0.5": without loss, so that a name parses back to the same model."""
    return repr(float(level)).removesuffix(".0")
