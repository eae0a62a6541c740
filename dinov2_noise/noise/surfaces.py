"""Small patches of an image, and the smooth surfaces that are taken off them to leave the noise."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
"""Lags (down, right); (1, 1) stands for both diagonals."""

PATCH_PX = 8
_ORDER = 3  # of the surfaces taken off the patches

Array = NDArray[np.float64]


def window(image: NDArray[Any], side_px: int) -> Array:
    """The middle of ``(C, H, W)``, uint8 or float in [0, 1], on the 8-bit scale; at most ``side_px`` per side."""
    top, left = (max(0, (length - side_px) // 2) for length in image.shape[1:])
    cut = image[:, top : top + side_px, left : left + side_px]
    scaled: Array = cut.astype(np.float64) * (1 if image.dtype == np.uint8 else 255)
    return scaled


def patches_of(channel: Array) -> Array:
    """The whole patches of ``(H, W)`` as (N, 64)."""
    height, width = (length // PATCH_PX for length in channel.shape)
    rows = channel[: height * PATCH_PX, : width * PATCH_PX].reshape(height, PATCH_PX, width, PATCH_PX)
    patches: Array = rows.transpose(0, 2, 1, 3).reshape(-1, PATCH_PX**2)
    return patches


class Design(NamedTuple):
    """Of patches of n pixels: the surfaces (n, k), orthonormal, the first one constant; degrees of freedom left;
    which pixels lie at lag 0 and at each of `LAGS` (n, n); and how white noise's covariances appear in what is left.
    """

    surfaces: Array
    degrees: int
    pairs: list[Array]
    mixing: Array


@cache
def design() -> Design:
    """The surfaces that are taken off patches, and what that does to white noise."""
    axis = np.arange(PATCH_PX) - (PATCH_PX - 1) / 2
    powers = [(i, total - i) for total in range(_ORDER + 1) for i in range(total + 1)]
    surfaces, _ = np.linalg.qr(np.stack([np.outer(axis**i, axis**j).ravel() for i, j in powers], axis=1))
    left = np.eye(PATCH_PX**2) - surfaces @ surfaces.T
    down, right = (index.ravel() for index in np.indices((PATCH_PX, PATCH_PX)))
    apart = np.abs(down[:, None] - down), np.abs(right[:, None] - right)
    pairs = [((apart[0] == lag[0]) & (apart[1] == lag[1])).astype(float) for lag in ((0, 0), *LAGS)]
    # Noise of covariance sum_b r_b pairs_b has, after the projection, moments of expectation mixing @ r.
    mixing = np.array([[np.trace(left @ a @ left @ b) for b in pairs] for a in pairs])
    return Design(surfaces, PATCH_PX**2 - len(powers), pairs, mixing)
