"""Random squares of an image made worse: Gaussian noise, as FastDINOv2 does, or Gaussian blur.

"FastDINOv2: Frequency Based Curriculum Learning Improves Robustness and Training Speed" (arXiv 2507.03779) puts noise
on one square of every image, before it is cropped: the side is uniform among 1 … min(H, W), its place uniform among
those that lie in the image, the standard deviation uniform in [0, max]. Noise drowns the high frequencies of a square
and teaches to do with the low ones there. Such patches go back to R. Gontijo Lopes et al., "Improving Robustness
Without Sacrificing Accuracy with Patch Gaussian Augmentation", 2019 (arXiv 1906.02611), where the square may hang over
the image's edge. The blurred square is the counterpart, and ours.

A patch holds no random state; a generator is an argument. Pictures are 8-bit RGB or grey, and stay so; arrays of
greater depth get the same draws and are rounded nowhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.augment.pixels import Picture, pixels_uint8, rounded_uint8

# Standard deviations after which the Gaussian is cut off: 0.006 % of it lie beyond.
TRUNCATE_SIGMAS = 4.0
_WHITE = np.float32(255)


class Placed(NamedTuple):
    """A square in an image, rows ``top`` … ``top + side - 1``, and how strong it is (units as the patch's maximum)."""

    top: int
    left: int
    side: int
    sigma: float


class Patch(ABC):
    """A random square of an image, made worse; what is done to it is the subclass's."""

    @property
    @abstractmethod
    def _maximum(self) -> float:
        """Sigma is drawn from U(0, maximum)."""

    @abstractmethod
    def _worsened(self, square: NDArray[Any], sigma: float, rng: np.random.Generator) -> NDArray[np.floating]:
        """The pixels of the square (side, side[, 3]) made worse, on the 8-bit scale, not yet rounded."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Placed:
        """Side, place and sigma for an image of this size in pixels, drawn in this order: side, top, left, sigma."""
        side = int(rng.integers(1, min(height, width), endpoint=True))
        top = int(rng.integers(0, height - side, endpoint=True))
        left = int(rng.integers(0, width - side, endpoint=True))
        return Placed(top, left, side, float(rng.uniform(0.0, self._maximum)))

    def apply(self, image: Picture, rng: np.random.Generator) -> Picture:
        """A copy of ``image`` with one square worse; after the draws of `draw` come those of the noise, if any.

        Args:
            image: a picture, or (H, W, 3) floating point in [0, 1], of which a float32 copy comes back.
            rng: asked for the same numbers by both.

        Raises:
            ValueError: the picture is neither 8-bit RGB nor grey.
        """
        if isinstance(image, Image.Image):
            pixels = pixels_uint8(image)
            square, sigma = self._drawn(pixels, rng)
            square[...] = rounded_uint8(self._worsened(square, sigma, rng))
            return Image.fromarray(pixels)
        deep = image.astype(np.float32)
        square, sigma = self._drawn(deep, rng)
        square[...] = np.clip(self._worsened(square * _WHITE, sigma, rng) / _WHITE, 0, 1)
        return deep

    def _drawn(self, pixels: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], float]:
        """The square, a view of ``pixels``, and its sigma."""
        top, left, side, sigma = self.draw(pixels.shape[0], pixels.shape[1], rng)
        return pixels[top : top + side, left : left + side], sigma


@dataclass(frozen=True)
class GaussianPatch(Patch):
    """Additive white Gaussian noise in a random square: y = clip(x + N(0, sigma^2), 0, 1), x in [0, 1].

    Noise is independent per pixel and channel. Of a picture the result is rounded to 8 bit.

    Attributes:
        max_sigma: sigma is drawn from U(0, max_sigma), on [0, 1]; at least 0. Published: 0.5.
    """

    max_sigma: float

    def __post_init__(self) -> None:
        _check_maximum("max_sigma", self.max_sigma)

    @property
    def _maximum(self) -> float:
        return self.max_sigma

    def _worsened(self, square: NDArray[Any], sigma: float, rng: np.random.Generator) -> NDArray[np.floating]:
        noise = rng.standard_normal(square.shape, dtype=np.float32)
        noisy: NDArray[np.floating] = square + np.float32(255 * sigma) * noise
        return noisy


@dataclass(frozen=True)
class BlurPatch(Patch):
    """Gaussian blur of a random square, which sees nothing of the image around it (mirrored at its edges).

    A true Gaussian, sampled and cut off after four standard deviations, not the box blurs of Pillow's
    ``GaussianBlur``. Of a picture the result is rounded to 8 bit.

    Attributes:
        max_sigma_px: sigma is drawn from U(0, max_sigma_px), in pixels; at least 0.
    """

    max_sigma_px: float

    def __post_init__(self) -> None:
        _check_maximum("max_sigma_px", self.max_sigma_px)

    @property
    def _maximum(self) -> float:
        return self.max_sigma_px

    def _worsened(self, square: NDArray[Any], sigma: float, rng: np.random.Generator) -> NDArray[np.floating]:
        return gaussian_blur(square.astype(np.float32), sigma)


def gaussian_blur(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Convolution of (H, W) or (H, W, C) with a Gaussian of standard deviation ``sigma_px``, per channel.

    The weights exp(-i^2 / (2 sigma^2)), |i| <= 4 sigma rounded, sum to 1; beyond the edges the image is mirrored, the
    outermost pixels included.
    """
    radius = int(TRUNCATE_SIGMAS * sigma_px + 0.5)
    if radius == 0:
        return image
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    return _convolved(_convolved(image, weights, axis=0), weights, axis=1)


def _convolved(image: NDArray[np.float32], weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Along one axis with an odd, symmetric kernel."""
    radius, length = len(weights) // 2, image.shape[axis]
    padding = [(radius, radius) if number == axis else (0, 0) for number in range(image.ndim)]
    mirrored = np.moveaxis(np.pad(image, padding, mode="symmetric"), axis, 0)
    result = weights[radius] * mirrored[radius : radius + length]
    for offset in range(1, radius + 1):
        below, above = radius - offset, radius + offset
        result += weights[above] * (mirrored[below : below + length] + mirrored[above : above + length])
    return np.moveaxis(result, 0, axis)


def _check_maximum(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} {value}: it must be 0 or more")
