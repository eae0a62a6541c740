"""One fixed noise realisation per image: the seed comes from the image's path, the result is 8 bit.

This is the recipe of the published noisy ImageNet-1k ("Ditch the Denoiser", arXiv 2505.12191): seed, order of draws,
precision and rounding follow it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise.models import NoiseModel

DEFAULT_SEED = 42


def image_seed(relative_path: str, base_seed: int = DEFAULT_SEED) -> int:
    """Seed of one image: md5("<relative_path>_<base_seed>") as an integer, modulo 2^32.

    Args:
        relative_path: path of the clean image, suffix included, relative to the dataset's root; ``/`` between folders.
        base_seed: chooses among realisations of a whole dataset; published: 42.
    """
    # surrogateescape: names on disk that are not UTF-8 hash as the bytes they are.
    text = f"{relative_path}_{base_seed}".encode("utf-8", "surrogateescape")
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest(), 16) % 2**32


def noisy_uint8(
    image_uint8: NDArray[np.uint8], noise: NoiseModel, *, relative_path: str, base_seed: int = DEFAULT_SEED
) -> NDArray[np.uint8]:
    """The noisy version of one 8-bit image: floor(255 * sample(image / 255)), in float64 until the end.

    Truncation instead of rounding darkens by half a grey level on average; the published data are made so.

    Args:
        image_uint8: (H, W, C) at original resolution.
        noise: the noise model.
        relative_path, base_seed: see :func:`image_seed`.

    Returns:
        (H, W, C) uint8, the same on every call.
    """
    rng = np.random.default_rng(image_seed(relative_path, base_seed))
    noisy = noise.sample(image_uint8.astype(np.float64) / 255, rng)
    return (noisy * 255).astype(np.uint8)
