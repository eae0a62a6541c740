"""Which noisy images a denoiser is trained on, and the crop they allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError
from dinov2_noise.files import list_images
from dinov2_noise.noise.decode import image_size
from neighbor2neighbor.training import CROP_MULTIPLE_PX


def select_images(
    root: Path, *, images_per_class: int | None, side_range_px: tuple[int, int] | None, seed: int
) -> tuple[list[str], int]:
    """Names of the images to train on, relative to ``root`` and sorted, and their smallest side in px.

    Args:
        root: the noisy images.
        images_per_class: at most so many of each folder, drawn at random; default: all.
        side_range_px: keep only images of which both sides lie in this closed range; default: all.
        seed: of the draw.

    Raises:
        MissingFolderError: there are no images, or none in the range.
        ImageError: an image is unreadable, or smaller than 64 px.
        ConfigError: ``images_per_class`` is not positive.
    """
    if images_per_class is not None and images_per_class < 1:
        raise ConfigError(f"images_per_class must be at least 1, got {images_per_class}")
    sides = {name: image_size(root / name) for name in list_images(root, what="noisy folder")}
    if side_range_px is not None:
        low, high = side_range_px
        sides = {name: size for name, size in sides.items() if low <= min(size) and max(size) <= high}
        if not sides:
            raise MissingFolderError(f"noisy folder {root} holds no images with both sides within {low} to {high} px")
    names = list(sides) if images_per_class is None else _draw_per_folder(list(sides), images_per_class, seed)
    for name in names:
        if min(sides[name]) < CROP_MULTIPLE_PX:
            raise ImageError(root / name, _too_small(sides[name]))
    return names, min(min(sides[name]) for name in names)


def fitting_crop_px(crop_px: int, smallest_side_px: int) -> int:
    """``crop_px``, or the largest multiple of 64 that fits the smallest image."""
    return min(crop_px, smallest_side_px // CROP_MULTIPLE_PX * CROP_MULTIPLE_PX)


def _draw_per_folder(names: Sequence[str], count: int, seed: int) -> list[str]:
    kept: list[str] = []
    by_folder = sorted(names, key=lambda name: (str(PurePosixPath(name).parent), name))
    for _, members in groupby(by_folder, key=lambda name: PurePosixPath(name).parent):
        folder = list(members)
        rng = np.random.default_rng([seed, len(kept)])
        kept.extend(folder[index] for index in rng.permutation(len(folder))[:count])
    return sorted(kept)


def _too_small(size: tuple[int, int]) -> str:
    width, height = size
    return (
        f"it is {width}x{height} px, and both sides must be at least {CROP_MULTIPLE_PX} px: training halves the image, "
        "and the network needs multiples of 32; leave small images out, for example with a side range"
    )
