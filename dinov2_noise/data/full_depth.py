"""On-the-fly noise for images that are not cut to 8 bits afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise import DEFAULT_SEED, LevelRange, NoiseModel, image_seed


def noisy_float64(
    pixels: NDArray[Any],
    noise: NoiseModel,
    *,
    relative_path: str,
    base_seed: int = DEFAULT_SEED,
    epoch: int | None = None,
) -> NDArray[np.float64]:
    """The realisation of `dinov2_noise.noise.noisy_uint8` before its last step: ``floor(255 y)`` is what that returns.

    Args:
        pixels: (H, W, C), uint8 or float64 in [0, 1].
        noise, relative_path, base_seed, epoch: as there.

    Returns:
        y, (H, W, C) in [0, 1].
    """
    rng = np.random.default_rng(image_seed(relative_path, base_seed, epoch))
    model = noise.drawn(rng) if isinstance(noise, LevelRange) else noise
    is_8_bit = pixels.dtype == np.uint8
    return model.sample(np.true_divide(pixels, 255, dtype=np.float64) if is_8_bit else pixels, rng)
