"""Noises of instruments, each pixel and channel by itself: image sensor, MRI, defect pixels, radar and ultrasound.

They follow the conventions of `models`: x and y in [0, 1], y clipped. They are no part of the published experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dinov2_noise.noise.models import (
    FloatArray,
    FloatImage,
    check_level,
    clip,
    clipped_above,
    normal_above,
    shortest,
)

_BLOCK = 512  # counts that are summed at once
_NEGLIGIBLE = 40.0  # standard deviations from the mean at which no count is possible any more


@dataclass(frozen=True)
class Sensor:
    """Poisson–Gaussian noise of an image sensor: y = clip(Poisson(x * photons) / photons + N(0, (sigma_255 / 255)^2)).

    Photon counting with gain 1 / photons, then the electronics' read noise. Before clipping the mean is x, the variance
    x / photons + (sigma_255 / 255)^2. Drawn by two calls: all counts, then all read noise.

    Source: Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE Transactions on Image Processing 17 (2008), eq. 1–3. Difference: their normal
    approximation of the counts is in `clipping.PoissonGaussian`; here they are Poisson's.

    Attributes:
        photons: expected count at full intensity, > 0 (electrons, where they are what is counted).
        sigma_255: standard deviation of the read noise on the 8-bit scale, > 0. Of r electrons: 255 r / photons.
    """

    photons: float
    sigma_255: float

    def __post_init__(self) -> None:
        check_level("poissongauss", self.photons, what="photons")
        check_level("poissongauss", self.sigma_255, what="read noise")

    @property
    def name(self) -> str:
        return f"poissongauss{shortest(self.photons)}_{shortest(self.sigma_255)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        noisy = rng.poisson(image * self.photons) / self.photons
        read = rng.standard_normal(image.shape)
        read *= self.sigma_255 / 255
        noisy += read
        return clip(noisy)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`: the sum over all counts, where they have any chance."""
        truths, truth_of = np.unique(x, return_inverse=True)
        steps, step_of = np.unique(threshold, return_inverse=True)
        most = truths[-1] * self.photons
        above = np.zeros((len(truths), len(steps)))
        for first in range(0, int(most + _NEGLIGIBLE * (1 + most**0.5)), _BLOCK):
            counts = np.arange(first, first + _BLOCK, dtype=np.float64)
            reached = normal_above(steps - counts[:, None] / self.photons, np.asarray(self.sigma_255 / 255))
            above += _poisson(counts, truths[:, None] * self.photons) @ reached
        above = np.minimum(above, 1)  # rounding can leave a little more
        return clipped_above(threshold, above[truth_of.reshape(x.shape), step_of.reshape(threshold.shape)])


def _poisson(counts: FloatArray, mean: FloatArray) -> FloatArray:
    """P(Poisson(mean) = count)."""
    from scipy.special import gammaln, xlogy

    chance: FloatArray = np.exp(xlogy(counts, mean) - mean - gammaln(counts + 1))
    return chance


@dataclass(frozen=True)
class Rician:
    """Noise of magnitude MRI: y = clip(|x + n1 + i n2|, 0, 1), n1 and n2 from N(0, (sigma_255 / 255)^2).

    Before clipping E[y^2] = x^2 + 2 sigma^2: where there is no signal, the mean is not 0 but sigma sqrt(pi / 2)
    (Rayleigh distribution). Drawn by one call, n1 and n2 of each value together.

    Source: Gudbjartsson, Patz, "The Rician distribution of noisy MRI data", Magnetic Resonance in Medicine 34 (1995).

    Attributes:
        sigma_255: standard deviation of the real and the imaginary part, each, on the 8-bit scale, > 0.
    """

    sigma_255: float
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("rician", self.sigma_255)

    @property
    def name(self) -> str:
        return f"rician{shortest(self.sigma_255)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        parts = rng.standard_normal((*image.shape, 2))
        parts *= self.sigma_255 / 255
        parts[..., 0] += image
        magnitude: FloatImage = np.hypot(parts[..., 0], parts[..., 1])
        return clip(magnitude)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`: (y / sigma)^2 has a non-central chi-square distribution of 2 degrees of freedom."""
        from scipy.special import chndtr

        sigma = self.sigma_255 / 255
        return clipped_above(threshold, 1 - chndtr((np.maximum(threshold, 0) / sigma) ** 2, 2, (x / sigma) ** 2))


@dataclass(frozen=True)
class SaltPepper:
    """Impulse noise, as of dead and hot pixels: y = 0 or 1, with a chance of share / 2 each, else x.

    The mean is (1 - share) x + share / 2. One uniform number is drawn per value.

    Source: Chan, Ho, Nikolova, "Salt-and-pepper noise removal by median-type noise detectors and detail-preserving
    regularization", IEEE Transactions on Image Processing 14 (2005), section II.

    Attributes:
        share: of the values that are lost, in (0, 1).
    """

    share: float
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("saltpepper", self.share, what="share", below=1)

    @property
    def name(self) -> str:
        return f"saltpepper{shortest(self.share)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        drawn = rng.random(image.shape)
        noisy: FloatImage = image.copy()
        noisy[drawn < self.share / 2] = 0
        noisy[drawn >= 1 - self.share / 2] = 1
        return noisy

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        kept: FloatArray = (x >= threshold).astype(np.float64)
        return clipped_above(threshold, self.share / 2 + (1 - self.share) * kept)


@dataclass(frozen=True)
class Gamma:
    """Speckle of an intensity image averaged over several looks: y = clip(x * G, 0, 1), G from Gamma(looks, 1 / looks).

    G has mean 1 and variance 1 / looks; one look is the exponential distribution of fully developed speckle.

    Source: Goodman, "Some fundamental properties of speckle", Journal of the Optical Society of America 66 (1976).

    Attributes:
        looks: independent images averaged, > 0, not necessarily whole (the effective number); fewer are noisier.
    """

    looks: float
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_level("gamma", self.looks, what="number of looks")

    @property
    def name(self) -> str:
        return f"gamma{shortest(self.looks)}"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        noisy = rng.standard_gamma(self.looks, image.shape)
        noisy /= self.looks
        noisy *= image
        return clip(noisy)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        from scipy.special import gammaincc

        ratio = np.divide(threshold, x, out=np.full(np.broadcast_shapes(x.shape, threshold.shape), np.inf), where=x > 0)
        return clipped_above(threshold, gammaincc(self.looks, np.maximum(self.looks * ratio, 0)))
