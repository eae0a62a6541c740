"""How strong is the noise, where? The standard deviation of stored noise as a function of the stored mean.

Source of the question: Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting
for single-image raw-data", IEEE Transactions on Image Processing 17 (2008): in places without structure, mean and
spread of the pixels lie on a curve that is the noise's own. Difference: a cubic surface is taken off small patches, and
where there is colour, differences of channels of about equal brightness are looked at, in which the picture is faint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise.surfaces import Array, design, patches_of, window

MIN_PATCHES = 24
"""In a bin of intensity that counts; more where there are many in all."""

_WINDOW_PX = 256  # of each side that are looked at, in the middle of an image
_MAX_BINS = 32
_PATCHES_PER_BIN = 48  # fewer bins where there are few
_RARE = 0.003  # of all patches: bins with fewer hold a picture's few brightest things, such as stars, and edges
_KEPT = 0.3  # of the patches of a bin: those with the smallest share of structure
_NEAR_255 = 40.0  # two channels count as equally bright up to this difference of their means
_COLOURLESS = 0.5  # noise that is so much weaker in differences is common to the channels
_TOP = 255.0
_SHARES = (np.arange(64) + 0.5) / 64


class LevelCurve(NamedTuple):
    """Of stored values, by intensity; one entry per bin that holds enough patches, from dark to bright.

    Attributes:
        mean_255, std_255: of the pixels, on the 8-bit scale.
        black, white: shares of pixels at the ends of the scale.
        patches: how many were looked at.
        intensities_255: quantiles of the means of all patches in all channels, equally spaced in their shares.
        in_colour: measured in differences between colour channels, else in the channels.
    """

    mean_255: Array
    std_255: Array
    black: Array
    white: Array
    patches: Array
    intensities_255: Array
    in_colour: bool

    @property
    def sigma_255(self) -> float:
        """Root mean square over the patches."""
        return float(np.sqrt(np.average(self.std_255**2, weights=self.patches)))


def level_curve(images: Iterable[NDArray[Any]]) -> LevelCurve | None:
    """The curve of some noisy images; None where there are too few pixels.

    Args:
        images: ``(C, H, W)``, uint8 or float in [0, 1]; C is 1 or 3.
    """
    channels, differences = [], []
    for image in images:
        planes = [patches_of(channel) for channel in window(image, _WINDOW_PX)]
        if len(planes) == 3 and not all(np.array_equal(planes[0], plane) for plane in planes[1:]):
            channels += [_Patches.of(plane) for plane in planes]
            differences += [_Patches.of_difference(planes[0], planes[1]), _Patches.of_difference(planes[2], planes[1])]
        else:
            channels.append(_Patches.of(planes[0]))
    means = np.concatenate([np.empty(0), *(part.mean for part in channels)])
    if not len(means):
        return None
    intensities = np.quantile(means, _SHARES)
    plain = _curve(channels, intensities, in_colour=False)
    all_coloured = len(differences) == 2 * len(channels) // 3
    coloured = _curve(differences, intensities, in_colour=True) if all_coloured else None
    if plain is None or coloured is None or coloured.sigma_255 < _COLOURLESS * plain.sigma_255:
        return plain
    return coloured


class _Patches(NamedTuple):
    """Of N patches: mean, variance of the noise, share of structure, shares of black and white; each (N,)."""

    mean: Array
    variance: Array
    structure: Array
    black: Array
    white: Array

    @classmethod
    def of(cls, pixels: Array) -> _Patches:
        """Of (N, 64) pixels."""
        black, white = (pixels == 0).mean(axis=1), (pixels == _TOP).mean(axis=1)
        return cls(pixels.mean(axis=1), *_residual(pixels), black, white)

    @classmethod
    def of_difference(cls, one: Array, two: Array) -> _Patches:
        """Of two channels where they are about equally bright: their difference has the noise of both."""
        near = np.abs(one.mean(axis=1) - two.mean(axis=1)) < _NEAR_255
        both = np.concatenate([one[near], two[near]], axis=1)
        variance, structure = _residual(one[near] - two[near])
        black, white = (both == 0).mean(axis=1), (both == _TOP).mean(axis=1)
        return cls(both.mean(axis=1), variance / 2, structure, black, white)


def _residual(pixels: Array) -> tuple[Array, Array]:
    """Variance of what a cubic surface leaves of patches, and the surface's energy relative to it."""
    basis = design()
    coefficients = pixels @ basis.surfaces
    energy = np.square(pixels).sum(axis=1)
    of_surface = np.square(coefficients)
    variance = np.maximum(energy - of_surface.sum(axis=1), 0) / basis.degrees
    return variance, of_surface[:, 1:].sum(axis=1)


def _curve(parts: list[_Patches], intensities: Array, *, in_colour: bool) -> LevelCurve | None:
    if not parts:
        return None
    every = _Patches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    count = int(np.clip(len(every.mean) // _PATCHES_PER_BIN, 1, _MAX_BINS))
    bins = np.clip(every.mean * (count / _TOP), 0, count - 1).astype(int)
    least = max(MIN_PATCHES, int(_RARE * len(bins)))
    rows = []
    for number in range(count):
        members = np.flatnonzero(bins == number)
        if len(members) < least:
            continue
        # White noise's surface is independent of what is left, so that this choice does not bias the variance.
        order = np.argsort(every.structure[members], kind="stable")
        kept = members[order[: max(MIN_PATCHES // 2, int(_KEPT * len(members)))]]
        variance = every.variance[kept].mean()
        rows.append(
            (every.mean[kept].mean(), variance**0.5, every.black[kept].mean(), every.white[kept].mean(), len(members))
        )
    if not rows:
        return None
    mean, std, black, white, patches = np.array(rows, np.float64).T
    return LevelCurve(mean, std, black, white, patches, intensities, in_colour)
