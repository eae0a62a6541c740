"""Is the noise of neighbouring pixels independent? Asked of noisy images alone.

Neighbor2Neighbor (Huang et al., CVPR 2021, arXiv 2101.02824) learns what a pixel tells about its neighbour. If their
noise is correlated, it learns the noise too. What correlates noise after the sensor: demosaicing, resizing, JPEG.

Method: small patches; cubic surfaces are taken off them, and the autocovariance of what is left is freed of the bias
that this leaves. Image structure would look like correlated noise. So the differences between colour channels are
looked at first, where structure is faint and noise is not, and patches of little structure there. JPEG shows in them
too: it halves the resolution of colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from dinov2_noise.noise.surfaces import LAGS, Array, design, patches_of, window

MAX_IMAGES = 64
COLOUR_THRESHOLD = 0.10
"""Largest autocorrelation, of either sign, of colour differences that still counts as independent noise."""
CHANNEL_THRESHOLD = 0.15
"""The same where no noise shows in colour differences: image structure alone reaches more there."""
MIN_COLOUR_SIGMA_255 = 2.5
"""Below it, colour differences are taken to hold no noise: those of clean photographs have about 1 to 2."""
MIN_FLAT_COLOUR_SIGMA_255 = 1.7
"""The same for the flattest quarter of the patches, because of clean photographs that are colourful in many places."""
MIN_CHANNEL_SIGMA_255 = 8.0
"""Below it, image structure cannot be told from correlated noise."""
MIN_PATCHES = 64
"""Fewer tell nothing."""

_WINDOW = 192  # pixels (times the stride) of each side that are looked at, in the middle of an image
_KEPT = 0.25  # of the patches
_TWO_CHANNELS = 2**0.5  # the difference of two channels has the noise of both
_MIN_VARIANCE_255 = 0.5  # of 8 bits; patches below it hold no noise: they are black, white, or smoothed by JPEG
_ROUNDED = 1e-6  # of floats made of 8-bit values

Verdict = Literal["independent", "correlated", "unclear"]


class ImageSequence(Protocol):
    """Noisy images, each what ``numpy.asarray`` takes, tensors too: ``(C, H, W)``, uint8 or float in [0, 1]; C is 1
    or 3."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class NoiseCorrelation:
    """What `correlation` found.

    Attributes:
        verdict: ``independent``, ``correlated``, or ``unclear``: weak noise that image structure hides, or few pixels.
        sigma_255: typical standard deviation of the noise as stored, on the 8-bit scale; about 107 for gauss255, for
            clipping took the rest.
        autocorrelation: per lag (down, right) in px, from -1 to 1.
        in_colour: measured in the differences between colour channels, else in the channels.
        stride: distance in px of the pixels that were compared.
        n_images: so many images were looked at.
        n_patches: so many patches of 8x8 pixels in their channels; below `MIN_PATCHES`, nothing was measured.
    """

    verdict: Verdict
    sigma_255: float
    autocorrelation: dict[tuple[int, int], float]
    in_colour: bool
    stride: int
    n_images: int
    n_patches: int

    @property
    def is_too_small(self) -> bool:
        """Whether the images hold too few pixels to measure anything."""
        return self.n_patches < MIN_PATCHES

    def warning(self) -> str | None:
        """Why the denoiser would fail and what to do; None unless the verdict is ``correlated``."""
        if self.verdict != "correlated":
            return None
        (down, right), largest = max(self.autocorrelation.items(), key=lambda item: abs(item[1]))
        where = "colour differences" if self.in_colour else "channels"
        return (
            f"the noise is correlated between pixels: {largest:.2f} at {down} px down, {right} px right, measured in "
            f"the {where} of {self.n_images} images, where independent noise has at most {self._threshold():.2f}. "
            "Neighbor2Neighbor takes what neighbouring pixels share for the picture, so it would keep this noise. "
            f"Best: take the images before they are resized, demosaiced or saved as JPEG. {self._stride_advice()}"
        )

    def _threshold(self) -> float:
        return COLOUR_THRESHOLD if self.in_colour else CHANNEL_THRESHOLD

    def _stride_advice(self) -> str:
        along, down = self.autocorrelation[0, 2 * self.stride], self.autocorrelation[2 * self.stride, 0]
        at_twice = max(along, down, key=abs)
        if abs(at_twice) <= self._threshold():
            return f"Or train with `--stride {2 * self.stride}`: at that distance it is {at_twice:.2f}"
        return (
            f"At twice the distance it is still {at_twice:.2f}: `--stride {2 * self.stride}` lessens the harm, "
            "but does not remove it"
        )


def correlation(images: ImageSequence, *, stride: int = 1) -> NoiseCorrelation:
    """Estimate level and spatial autocorrelation of the noise; deterministic, reads at most 64 evenly spaced images.

    Args:
        images: at least one; see `ImageSequence`.
        stride: compare pixels at so many px, as a denoiser trained with ``--stride`` does.

    Raises:
        ValueError: no images, or a stride below 1.
        ImageError: of ``images``, where one cannot be read.
    """
    if len(images) < 1 or stride < 1:
        raise ValueError(f"needs at least one image and a stride of at least 1, got {len(images)} and {stride}")
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().astype(int))
    channels, differences, grey, deep = [], [], True, True
    for index in chosen:
        middle = window(np.asarray(images[int(index)]), _WINDOW * stride)
        deep = deep and bool((np.abs(middle - middle.round()) > _ROUNDED).any())
        for phase in _phases(middle, stride):
            channels += [patches_of(channel) for channel in phase]
            if len(phase) == 3:
                differences += [patches_of(phase[0] - phase[1]), patches_of(phase[2] - phase[1])]
                grey = grey and bool((phase[0] == phase[1]).all() and (phase[1] == phase[2]).all())
    verdict, sigma_255, rho, in_colour = _judge(channels, differences, grey, 0.0 if deep else _MIN_VARIANCE_255)
    at = {(down * stride, right * stride): float(value) for (down, right), value in zip(LAGS, rho, strict=True)}
    return NoiseCorrelation(verdict, sigma_255, at, in_colour, stride, len(chosen), sum(map(len, channels)))


def warn_if_correlated(images: ImageSequence, *, stride: int = 1) -> str | None:
    """What to tell the user before a denoiser is trained on ``images`` with this ``stride``; None if all is well.

    Args and errors as for `correlation`. ``denoise train`` calls it with its list of images and prints the text.
    """
    return correlation(images, stride=stride).warning()


def _judge(
    channels: Sequence[Array], differences: Sequence[Array], grey: bool, floor: float
) -> tuple[Verdict, float, Sequence[float], bool]:
    # In coloured images this second look is for noise common to all channels, as strong JPEG leaves it: it is seen best
    # in the flattest patches.
    found = _measure(np.concatenate(channels), floor, flattest=not grey)
    if found is None:
        return "unclear", 0.0, [0.0] * len(LAGS), False
    colour = None if grey or not differences else _measure(np.concatenate(differences), floor, flattest=False)
    if colour is not None:
        level, flat_level = colour.sigma_255 / _TWO_CHANNELS, colour.flat_sigma_255 / _TWO_CHANNELS
        if level >= MIN_COLOUR_SIGMA_255 and flat_level >= MIN_FLAT_COLOUR_SIGMA_255:
            verdict: Verdict = "correlated" if max(map(abs, colour.rho)) > COLOUR_THRESHOLD else "independent"
            return verdict, max(level, found.flat_sigma_255), colour.rho, True
    if max(map(abs, found.rho)) <= CHANNEL_THRESHOLD:
        return "independent", found.flat_sigma_255, found.rho, False
    verdict = "correlated" if found.flat_sigma_255 >= MIN_CHANNEL_SIGMA_255 else "unclear"
    return verdict, found.flat_sigma_255, found.rho, False


class _Measured(NamedTuple):
    """Of many patches: the median noise level, that of the flattest quarter, and the autocorrelations at `LAGS`."""

    sigma_255: float
    flat_sigma_255: float
    rho: list[float]


def _measure(patches: Array, floor: float, *, flattest: bool) -> _Measured | None:
    """Measure on a quarter of the patches; None where there are too few with any noise.

    Args:
        patches: (N, 64) on the 8-bit scale.
        floor: patches of this variance or less hold no noise.
        flattest: take those of the smallest variance; else those with the smallest share of it in the cubic surface.
    """
    basis = design()
    coefficients = patches @ basis.surfaces
    rest = patches - coefficients @ basis.surfaces.T
    variance = np.square(rest).sum(axis=1) / basis.degrees
    noisy = variance > floor
    if noisy.sum() < MIN_PATCHES:
        return None
    rest, variance = rest[noisy], variance[noisy]
    # Both orders are independent of the direction of white noise, hence leave its autocorrelation unbiased.
    score = variance if flattest else np.square(coefficients[noisy, 1:]).sum(axis=1) / variance
    chosen = np.argsort(score, kind="stable")[: max(MIN_PATCHES, int(_KEPT * len(score)))]
    # Each patch counts the same: the noise may be stronger in bright places.
    scaled = rest[chosen] / np.sqrt(variance[chosen])[:, None]
    moments = scaled.T @ scaled
    unbiased = np.linalg.solve(basis.mixing, [float((moments * pairs).sum()) for pairs in basis.pairs])
    levels = np.sqrt(np.quantile(variance, (_KEPT, 0.5)))
    return _Measured(float(levels[1]), float(levels[0]), [float(value / unbiased[0]) for value in unbiased[1:]])


def _phases(image: Array, stride: int) -> list[Array]:
    return [image[:, top::stride, left::stride] for top in range(stride) for left in range(stride)]
