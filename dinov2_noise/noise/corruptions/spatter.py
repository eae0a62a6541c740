"""Spatter: drops of water (severities 1 to 3) or of mud (4 and 5) on the lens.

Defined by the code that made ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), with its parameters. The
steps that it takes from OpenCV (edges, distances, equalised histogram) are written here from their definitions:
Canny, "A Computational Approach to Edge Detection" (1986), with Sobel gradients and |gx| + |gy|; distances are exact,
where OpenCV's 5x5 mask is 2 % off.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dinov2_noise.noise.corruptions.filters import gaussian_blur_px
from dinov2_noise.noise.models import FloatImage


class _Liquid(NamedTuple):
    mean: float
    sigma: float
    smoothness_px: float
    threshold: float
    strength: float
    """Of water: weight of the brightest place; of mud: standard deviation of its edges in px."""


_WATER = (_Liquid(0.65, 0.3, 4, 0.69, 0.6), _Liquid(0.65, 0.3, 3, 0.68, 0.6), _Liquid(0.65, 0.3, 2, 0.68, 0.5))
_MUD = (_Liquid(0.65, 0.3, 1, 0.65, 1.5), _Liquid(0.67, 0.4, 1, 0.65, 1.5))
_WATER_RGB = np.array([175, 238, 238]) / 255
_MUD_RGB = np.array([63, 42, 20]) / 255
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_CANNY_LOW, _CANNY_HIGH = 50, 150
_FAR_PX = 20
_EIGHT = np.ones((3, 3), bool)


def spatter(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Water shines through and adds light, mud covers."""
    chosen = (_WATER + _MUD)[severity - 1]
    liquid = gaussian_blur_px(rng.normal(chosen.mean, chosen.sigma, size=image.shape[:2]), chosen.smoothness_px)
    if severity <= len(_WATER):
        return image + _water(liquid, chosen)[..., None] * _WATER_RGB
    cover = gaussian_blur_px((liquid > chosen.threshold).astype(np.float64), chosen.strength)
    cover[cover < 0.8] = 0
    return image * (1 - cover[..., None]) + cover[..., None] * _MUD_RGB


def _water(liquid: NDArray[np.float64], chosen: _Liquid) -> NDArray[np.float64]:
    """(H, W) light of the drops: their thickness times an embossed relief of the distance to their edges."""
    # Modulo 256, as the cast of the original: a rare peak above 1 becomes dark.
    thickness = np.floor(np.where(liquid < chosen.threshold, 0, liquid) * 255).astype(np.int64) % 256
    is_edge = canny(thickness)
    distance = ndimage.distance_transform_edt(~is_edge) if is_edge.any() else np.full(liquid.shape, np.inf)
    near = np.floor(ndimage.uniform_filter(np.minimum(distance, _FAR_PX), 3, mode="mirror") + 1e-9)
    relief = ndimage.correlate(equalised(near.astype(np.int64)), _EMBOSS, mode="mirror")
    smooth = np.round(ndimage.uniform_filter(np.clip(relief, 0, 255).astype(np.float64), 3, mode="mirror"))
    light: NDArray[np.float64] = thickness * smooth
    brightest = light.max()
    if brightest > 0:
        light = light * (chosen.strength / brightest)
    return light


def canny(gray: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Edges of an 8-bit (H, W) image: ridges of the gradient above 50 that touch one above 150."""
    down = ndimage.sobel(gray, 0, mode="nearest")
    right = ndimage.sobel(gray, 1, mode="nearest")
    size = np.abs(down) + np.abs(right)
    around = np.pad(size, 1)
    height, width = gray.shape

    def neighbour(row: int, column: int) -> NDArray[np.int64]:
        return around[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    flat = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    steep = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    same_sign = (down < 0) == (right < 0)
    rising = (size > neighbour(-1, -1)) & (size > neighbour(1, 1))
    falling = (size > neighbour(-1, 1)) & (size > neighbour(1, -1))
    ridge = np.where(same_sign, rising, falling)
    ridge = np.where(steep, (size > neighbour(-1, 0)) & (size >= neighbour(1, 0)), ridge)
    ridge = np.where(flat, (size > neighbour(0, -1)) & (size >= neighbour(0, 1)), ridge)
    ridge &= size > _CANNY_LOW
    parts, count = ndimage.label(ridge, structure=_EIGHT)
    holds_strong = np.zeros(count + 1, bool)
    holds_strong[parts[ridge & (size > _CANNY_HIGH)]] = True
    edges: NDArray[np.bool_] = holds_strong[parts]
    return edges


def equalised(gray: NDArray[np.int64]) -> NDArray[np.int64]:
    """Histogram of an 8-bit image made flat: the lowest value present becomes 0, the highest 255."""
    counts = np.bincount(gray.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    above = gray.size - counts[lowest]
    if above == 0:
        return gray
    ranks = np.cumsum(counts) - counts[lowest]
    table: NDArray[np.int64] = np.round(np.clip(ranks, 0, None) * (255 / above)).astype(np.int64)
    return table[gray]
