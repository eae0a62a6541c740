"""Which noisy images a denoiser is trained on, and the crop they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np

from dinov2_noise.denoise.images import Source
from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError
from neighbor2neighbor.training import CROP_MULTIPLE_PX

_READERS, _BLOCK = 16, 4096  # headers: waiting for a network's disk takes longer than reading


def select_images(
    source: Source,
    *,
    images_per_class: int | None,
    side_range_px: tuple[int, int] | None,
    seed: int,
    multiple_px: int = CROP_MULTIPLE_PX,
) -> tuple[list[int], int]:
    """Numbers of the images to train on, in the order of ``source``, and their smallest side in px.

    Only headers are read, and without a side range only those of the images that are drawn.

    Args:
        source: the noisy images.
        images_per_class: at most so many of each class, drawn at random; default: all.
        side_range_px: keep only images of which both sides lie in this closed range; default: all.
        seed: of the draw.
        multiple_px: smallest side that can be trained on.

    Raises:
        MissingFolderError: no image is in the range.
        ImageError: an image is unreadable, or smaller than ``multiple_px``; the first is named.
        ConfigError: ``images_per_class`` is not positive.
    """
    if images_per_class is not None and images_per_class < 1:
        raise ConfigError(f"per_class must be at least 1, got {images_per_class}")
    indices = list(range(len(source)))
    sizes: Mapping[int, tuple[int, int]] = {}
    if side_range_px is not None:
        low, high = side_range_px
        sizes = _read_sizes(source, indices)
        indices = [index for index in indices if low <= min(sizes[index]) and max(sizes[index]) <= high]
        if not indices:
            raise MissingFolderError(
                f"noisy folder {source.label} holds no images with both sides in {low} to {high} px"
            )
    if images_per_class is not None:
        indices = _draw_per_group(source, indices, images_per_class, seed)
    sizes = sizes or _read_sizes(source, indices)
    small = [index for index in indices if min(sizes[index]) < multiple_px]
    if small:
        raise ImageError(source.path(small[0]), _too_small(sizes[small[0]], multiple_px, len(small), len(indices)))
    return indices, min(min(sizes[index]) for index in indices)


def fitting_crop_px(crop_px: int, smallest_side_px: int, multiple_px: int = CROP_MULTIPLE_PX) -> int:
    """``crop_px``, or the largest multiple of ``multiple_px`` that fits the smallest image."""
    return min(crop_px, smallest_side_px // multiple_px * multiple_px)


def _read_sizes(source: Source, indices: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Of many images, in blocks: a million waiting jobs would take a gigabyte."""
    sizes: dict[int, tuple[int, int]] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(indices), _BLOCK):
            block = indices[start : start + _BLOCK]
            sizes.update(zip(block, pool.map(source.size, block), strict=True))
    return sizes


def _draw_per_group(source: Source, indices: Sequence[int], count: int, seed: int) -> list[int]:
    groups = {index: source.group(index) for index in indices}
    kept: list[int] = []
    for _, members in groupby(sorted(indices, key=lambda index: (groups[index], index)), key=groups.__getitem__):
        group = list(members)
        rng = np.random.default_rng([seed, len(kept)])
        kept.extend(group[index] for index in rng.permutation(len(group))[:count])
    return sorted(kept)


def _too_small(size: tuple[int, int], multiple_px: int, count: int, total: int) -> str:
    width, height = size
    return (
        f"it is {width}x{height} px, and both sides must be at least {multiple_px} px ({count} of {total} images are "
        "smaller): training halves the image, and the network needs multiples of 32, both times the stride; leave "
        f"small images out with --min-side {multiple_px}"
    )
