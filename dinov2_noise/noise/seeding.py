"""One fixed noise realisation per image: the seed comes from the image's path, the result is 8 bit.

This is the recipe of the published noisy ImageNet-1k ("Ditch the Denoiser", arXiv 2505.12191): seed, order of draws,
precision and rounding follow it. Not published: images of more than 8 bits, noise that is new in each epoch, and ranges
of levels.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise.models import NoiseModel
from dinov2_noise.noise.registry import LevelRange

DEFAULT_SEED = 42

# Parts whose intermediate arrays of float64 stay in a core's cache.
_PART = 1 << 15


def image_seed(relative_path: str, base_seed: int = DEFAULT_SEED, epoch: int | None = None) -> int:
    """Seed of one image: md5("<relative_path>_<base_seed>") as an integer, modulo 2^32.

    Args:
        relative_path: path of the clean image, suffix included, relative to the dataset's root; ``/`` between folders.
        base_seed: chooses among realisations of a whole dataset; published: 42.
        epoch: for noise that is new in each epoch: ``_epoch<epoch>`` is appended before the sum is taken.
    """
    fresh = "" if epoch is None else f"_epoch{epoch}"
    # surrogateescape: names on disk that are not UTF-8 hash as the bytes they are.
    text = f"{relative_path}_{base_seed}{fresh}".encode("utf-8", "surrogateescape")
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest(), 16) % 2**32


def noise_of(
    noise: NoiseModel, *, relative_path: str, base_seed: int = DEFAULT_SEED, epoch: int | None = None
) -> NoiseModel:
    """The noise that one image gets: of a range of levels such as ``gauss5-50`` the model with that image's level.

    Args:
        noise: any model; one without range is returned as it is.
        relative_path, base_seed, epoch: see :func:`image_seed`.
    """
    return _begin(noise, relative_path, base_seed, epoch)[0]


def noisy_uint8(
    pixels: NDArray[Any],
    noise: NoiseModel,
    *,
    relative_path: str,
    base_seed: int = DEFAULT_SEED,
    epoch: int | None = None,
) -> NDArray[np.uint8]:
    """The noisy version of one image: floor(255 * sample(image)), in float64 until the end.

    Truncation instead of rounding darkens by half a grey level on average; the published data are made so.

    Args:
        pixels: (H, W, C) at original resolution, uint8 (image = pixels / 255) or float64 in [0, 1].
        noise: the noise model.
        relative_path, base_seed, epoch: see :func:`image_seed`.

    Returns:
        (H, W, C) uint8, the same on every call.
    """
    noise, rng = _begin(noise, relative_path, base_seed, epoch)
    if not getattr(noise, "in_order", False):
        return (noise.sample(_unit(pixels), rng) * 255).astype(np.uint8)
    noisy = np.empty(pixels.shape, np.uint8)
    source, target = np.ascontiguousarray(pixels).reshape(-1), noisy.reshape(-1)
    for start in range(0, source.size, _PART):
        part = noise.sample(_unit(source[start : start + _PART]), rng)
        part *= 255
        target[start : start + _PART] = part
    return noisy


def noisy_float64(
    pixels: NDArray[Any],
    noise: NoiseModel,
    *,
    relative_path: str,
    base_seed: int = DEFAULT_SEED,
    epoch: int | None = None,
) -> NDArray[np.float64]:
    """The realisation of :func:`noisy_uint8` before its last step: ``floor(255 y)`` is what that returns.

    Args:
        pixels, noise, relative_path, base_seed, epoch: as there.

    Returns:
        y, (H, W, C) in [0, 1].
    """
    noise, rng = _begin(noise, relative_path, base_seed, epoch)
    return noise.sample(_unit(pixels), rng)


def _begin(
    noise: NoiseModel, relative_path: str, base_seed: int, epoch: int | None
) -> tuple[NoiseModel, np.random.Generator]:
    """The model of one image, with the level drawn for it, and the generator of its pixels."""
    rng = np.random.default_rng(image_seed(relative_path, base_seed, epoch))
    return (noise.drawn(rng) if isinstance(noise, LevelRange) else noise), rng


def _unit(pixels: NDArray[Any]) -> NDArray[np.float64]:
    return np.true_divide(pixels, 255, dtype=np.float64) if pixels.dtype == np.uint8 else pixels
