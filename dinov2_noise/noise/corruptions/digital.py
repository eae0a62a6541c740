"""Colour and digital artefacts: brightness, contrast, saturation, elastic deformation, pixelation, JPEG.

Defined by Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(2019, arXiv 1903.12261), and by the code that made ImageNet-C; parameters are those of that code, in pixels of 224-px
images.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dinov2_noise.noise.corruptions.filters import smooth_field
from dinov2_noise.noise.models import FloatImage

_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# Per severity: factor of the saturation, and what is added to it.
_SATURATE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
_JPEG_QUALITY = (25, 18, 15, 10, 7)
# Per severity: amplitude and smoothness of the local shifts, largest shift of the corners of the affine map.
_ELASTIC_PX = ((488.0, 170.8, 24.4), (488.0, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88))


def brightness(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """The value of HSV (the largest channel) rises by 0.1 … 0.5, hue and saturation stay."""
    value = image.max(axis=2, keepdims=True)
    risen = np.minimum(value + _BRIGHTNESS[severity - 1], 1.0)
    # Hue and saturation kept means all channels times one factor; black has neither and becomes gray.
    result: FloatImage = np.where(value > 0, image * (risen / np.where(value > 0, value, 1.0)), risen)
    return result


def saturate(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """The saturation S of HSV becomes clip(a * S + b); gray has hue 0, hence turns reddish where b > 0."""
    factor, added = _SATURATE[severity - 1]
    value = image.max(axis=2, keepdims=True)
    lacking = value - image  # value * saturation * (a weight that the hue alone decides)
    span = lacking.max(axis=2, keepdims=True)
    saturation = span / np.where(value > 0, value, 1.0)
    wanted = np.clip(saturation * factor + added, 0.0, 1.0)
    weight = np.where(span > 0, lacking / np.where(span > 0, span, 1.0), (0.0, 1.0, 1.0))
    result: FloatImage = value * (1 - wanted * weight)
    return result


def contrast(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Distances to the mean of each channel, times 0.4 … 0.05."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    result: FloatImage = (image - mean) * _CONTRAST[severity - 1] + mean
    return result


def pixelate(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Reduced to 0.6 … 0.25 of the sides and enlarged again, both with a box filter, in 8 bit."""
    height, width = image.shape[:2]
    factor = _PIXELATE[severity - 1]
    small = _to_pil(image).resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)) / 255.0


def jpeg_compression(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Through a JPEG file of quality 25 … 7, chroma subsampled 4:2:0."""
    file = io.BytesIO()
    _to_pil(image).save(file, format="JPEG", quality=_JPEG_QUALITY[severity - 1])
    with Image.open(file) as decoded:
        return np.asarray(decoded.convert("RGB")) / 255.0


def elastic_transform(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """An affine map that moves three points at random, then local shifts: smoothed uniform noise.

    Both interpolate linearly and mirror the image beyond its borders. Points are (x, y); the code that made ImageNet-C
    takes them as (y, x), which is the same for its square images.
    """
    amplitude, smoothness, jitter = _ELASTIC_PX[severity - 1]
    height, width = image.shape[:2]
    matrix = affine_back(height, width, rng.uniform(-jitter, jitter, size=(3, 2)))
    right, down = (amplitude * smooth_field(rng.uniform(-1, 1, size=(height, width)), smoothness) for _ in range(2))
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows + down, columns + right])
    warped = np.empty_like(image)
    for channel in range(3):
        # Rows first: the matrix of scipy maps (row, column).
        tilted = ndimage.affine_transform(
            image[..., channel], matrix[1::-1, 1::-1].T, matrix[2, ::-1], order=1, mode="mirror"
        )
        warped[..., channel] = ndimage.map_coordinates(tilted, places, order=1, mode="reflect")
    return warped


def affine_back(height: int, width: int, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 2) matrix M of the affine map from the new image to the old one: (x, y) = (x', y', 1) M.

    Args:
        height, width: of the image; the three points lie a third of the shorter side from its centre.
        shifts: (3, 2), where the three points (x, y) are moved to, in px.
    """
    reach = min(height, width) // 3
    old = np.array([width // 2, height // 2]) + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    new = np.column_stack([old + shifts, np.ones(3)])
    return np.linalg.solve(new, old.astype(np.float64))


def _to_pil(image: FloatImage) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8))
