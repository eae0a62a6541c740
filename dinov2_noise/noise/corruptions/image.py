"""One 8-bit image → its corrupted version: geometry of ImageNet-C, seed from the path, rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2_noise.errors import ImageError
from dinov2_noise.noise.corruptions.corruption import Corruption
from dinov2_noise.noise.seeding import DEFAULT_SEED, image_seed

STANDARD_SIZE_PX = 224


def corrupted_uint8(
    image_uint8: NDArray[np.uint8], corruption: Corruption, *, relative_path: str, base_seed: int = DEFAULT_SEED
) -> NDArray[np.uint8]:
    """The corrupted version of one 8-bit image: floor(255 * sample(image / 255)).

    Truncation as in ImageNet-C; first 0.002 of a grey level is added, so that sums that only rounding errors keep below
    a whole level do not lose one.

    Args:
        image_uint8: (H, W, 3).
        corruption: what to apply.
        relative_path: path of the clean image, suffix included, relative to the dataset's root; ``/`` between folders.
        base_seed: chooses among realisations; the seed follows from it, the path and the corruption's label.

    Returns:
        (H, W, 3) uint8, the same on every call.

    Raises:
        ImageError: the image is too small.
    """
    complaint = corruption.size_complaint(*image_uint8.shape[:2])
    if complaint is not None:
        raise ImageError(relative_path, complaint)
    rng = np.random.default_rng(image_seed(f"{relative_path}_{corruption.label}", base_seed))
    corrupted = corruption.sample(image_uint8.astype(np.float64) / 255, rng)
    return (corrupted * 255 + 2e-3).astype(np.uint8)


def standard_crop(image: Image.Image, size_px: int = STANDARD_SIZE_PX) -> Image.Image:
    """What ImageNet-C corrupts: shorter side to ``round(size_px * 256 / 224)``, then the centre of ``size_px`` squared.

    Pixel for pixel torchvision's ``Resize(256)`` (bilinear, with anti-aliasing) and ``CenterCrop(224)``.
    """
    shorter = round(size_px * 256 / 224)
    width, height = image.size
    if min(width, height) != shorter:
        longer = int(shorter * max(width, height) / min(width, height))
        size = (shorter, longer) if width <= height else (longer, shorter)
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - size_px) / 2.0) for side in image.size)
    return image.crop((left, top, left + size_px, top + size_px))
