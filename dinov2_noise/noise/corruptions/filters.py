"""The linear filters of the corruptions: Gaussian, disc, trail of a moving camera, magnification.

Images are float arrays (H, W) or (H, W, C).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64])


def gaussian_blur_px(image: Array, sigma_px: float) -> Array:
    """Gaussian blur per channel, kernel cut at 4 sigma, border pixels repeated."""
    sigmas = (sigma_px, sigma_px, 0.0)[: image.ndim]
    blurred: Array = ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=4.0)
    return blurred


def smooth_field(field: NDArray[np.float64], sigma_px: float) -> NDArray[np.float64]:
    """Gaussian blur of an (H, W) field, kernel cut at 3 sigma, image mirrored at its edges as often as needed.

    Under that border the cosine transform (DCT-II) turns the filter into a product, whatever sigma: exact, and for
    the 171 px of `elastic_transform` a hundred times faster than summing.
    """
    height, width = field.shape
    gains = np.outer(_mirrored_gains(height, sigma_px), _mirrored_gains(width, sigma_px))
    smooth: NDArray[np.float64] = fft.idctn(fft.dctn(field, norm="ortho") * gains, norm="ortho")
    return smooth


@lru_cache(maxsize=64)
def _mirrored_gains(length: int, sigma_px: float) -> NDArray[np.float64]:
    radius = int(3.0 * sigma_px + 0.5)
    offsets = np.arange(1, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    phases = np.cos(np.pi / length * np.arange(length)[:, None] * offsets)
    gains: NDArray[np.float64] = (1 + 2 * phases @ kernel) / (1 + 2 * kernel.sum())
    return gains


def disc(radius_px: int, edge_sigma_px: float) -> NDArray[np.float64]:
    """Kernel of a lens out of focus: a disc of the given radius, its edge smoothed by a small Gaussian.

    Side 17 up to radius 8 (smoothing by 3x3 taps), 2 * radius + 1 above (5x5 taps). The sum is 1; where the disc
    touches the kernel's border, which the smoothing mirrors, it is 1.01: so defined, and ImageNet-C is made so.
    """
    reach, taps = (8, 3) if radius_px <= 8 else (radius_px, 5)
    axis = np.arange(-reach, reach + 1)
    inside = (axis[:, None] ** 2 + axis**2 <= radius_px**2).astype(np.float64)
    near = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / edge_sigma_px) ** 2)
    near /= near.sum()
    smooth = ndimage.correlate1d(ndimage.correlate1d(inside, near, 0, mode="mirror"), near, 1, mode="mirror")
    kernel: NDArray[np.float64] = smooth / inside.sum()
    return kernel


def convolve_symmetric(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """``image`` (H, W, C) with an odd-sized kernel that equals its own rotation by 180 degrees; edges are mirrored.

    By Fourier transform: the cost does not grow with the kernel.
    """
    height, width = image.shape[:2]
    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    shape = [fft.next_fast_len(side, real=True) for side in padded.shape[:2]]
    spectrum = fft.rfft2(padded, shape, axes=(0, 1)) * fft.rfft2(kernel, shape)[..., None]
    whole = fft.irfft2(spectrum, shape, axes=(0, 1))
    # The circular convolution is whole from 2 * reach on: what wrapped around lies before.
    result: NDArray[np.float64] = whole[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return result


def motion_trail(image: Array, radius_px: int, sigma_px: float, angle_deg: float) -> Array:
    """Blur along a line to one side: ``sum_i w_i image(y + dy_i, x + dx_i)`` over i = 0 … 2 * radius.

    w_i is proportional to exp(-i^2 / (2 sigma^2)); (dy_i, dx_i) = ceil(i * (sin a, cos a) - 1/2); beyond the border
    its pixels are repeated. This is ImageMagick's motion blur without its rounding to whole grey levels.
    """
    steps = np.arange(2 * radius_px + 1)
    weights = np.exp(-0.5 * (steps / sigma_px) ** 2)
    weights /= weights.sum()
    angle = math.radians(angle_deg)
    down = np.ceil(steps * math.sin(angle) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(angle) - 0.5).astype(int)
    height, width = image.shape[:2]
    above, before = -min(int(down.min()), 0), -min(int(right.min()), 0)
    margins = [(above, max(int(down.max()), 0)), (before, max(int(right.max()), 0)), (0, 0)]
    padded = np.pad(image, margins[: image.ndim], mode="edge")
    blurred = np.zeros_like(image)
    for weight, top, left in zip(weights, down + above, right + before, strict=True):
        blurred += weight * padded[top : top + height, left : left + width]
    return blurred


def magnify(image: Array, factor: float) -> Array:
    """Centre of ``image`` (H, W, C), enlarged ``factor`` >= 1 times to the same (H, W) by linear interpolation.

    The crop's sides are ceil(H / factor) and ceil(W / factor); its first and last pixels stay first and last of the
    enlarged crop, of which the centre is kept.
    """
    down, crop_height = _enlarged(image.shape[0], factor)
    right, crop_width = _enlarged(image.shape[1], factor)
    top, left = (image.shape[0] - crop_height) // 2, (image.shape[1] - crop_width) // 2
    crop = image[top : top + crop_height, left : left + crop_width]
    return _interpolate(_interpolate(crop, down, axis=0), right, axis=1)


def _enlarged(side: int, factor: float) -> tuple[NDArray[np.float64], int]:
    """Positions in the crop, (side,), and the crop's side."""
    crop = math.ceil(side / factor)
    enlarged = round(crop * factor)
    first = (enlarged - side) // 2
    positions = (first + np.arange(side, dtype=np.float64)) * ((crop - 1) / max(enlarged - 1, 1))
    return positions, crop


def _interpolate(image: Array, positions: NDArray[np.float64], *, axis: int) -> Array:
    before = np.minimum(positions.astype(int), image.shape[axis] - 1)
    after = np.minimum(before + 1, image.shape[axis] - 1)
    share = (positions - before).astype(image.dtype).reshape((1, -1, 1) if axis else (-1, 1, 1))
    low: Array = image.take(before, axis)
    high: Array = image.take(after, axis)
    high -= low
    high *= share
    high += low
    return high
