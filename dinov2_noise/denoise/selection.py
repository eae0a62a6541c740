"""Which noisy images a denoiser is trained on, and the crop they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from dinov2_noise.denoise.images import Source
from dinov2_noise.denoise.sizes import read_sizes
from dinov2_noise.denoise.skipping import Skipped
from dinov2_noise.errors import ConfigError, ImageError, MissingFolderError
from dinov2_noise.noise.pool import check_failures
from neighbor2neighbor.training import CROP_MULTIPLE_PX


def select_images(
    source: Source,
    *,
    images_per_class: int | None,
    side_range_px: tuple[int, int] | None,
    seed: int,
    multiple_px: int = CROP_MULTIPLE_PX,
    skipped: Skipped | None = None,
    cache: Path | None = None,
) -> tuple[list[int], int]:
    """Numbers of the images to train on, in the order of ``source``, and their smallest side in px.

    Only headers are read, and without a side range only those of the images that are drawn.

    Args:
        source: the noisy images.
        images_per_class: at most so many of each class, drawn at random; default: all.
        side_range_px: keep only images of which both sides lie in this closed range; default: all.
        seed: of the draw.
        multiple_px: smallest side that can be trained on.
        skipped: takes the images whose header cannot be read, as many as it allows; None allows none.
        cache: file for the sizes, see `read_sizes`.

    Raises:
        MissingFolderError: no image is in the range.
        ImageError: headers cannot be read, or images are smaller than ``multiple_px``; the first are named.
        ConfigError: ``images_per_class`` is not positive.
    """
    if images_per_class is not None and images_per_class < 1:
        raise ConfigError(f"per_class must be at least 1, got {images_per_class}")
    indices = list(range(len(source)))
    sizes: Mapping[int, tuple[int, int]] | None = None
    if side_range_px is not None:
        low, high = side_range_px
        sizes = _readable(source, indices, skipped, cache)
        indices = [index for index in sizes if low <= min(sizes[index]) and max(sizes[index]) <= high]
        if not indices:
            raise MissingFolderError(
                f"noisy folder {source.label} holds no images with both sides in {low} to {high} px"
            )
    if images_per_class is not None:
        indices = _draw_per_group(source, indices, images_per_class, seed)
    if sizes is None:
        sizes = _readable(source, indices, skipped, cache)
        indices = [*sizes]
    small = [index for index in indices if min(sizes[index]) < multiple_px]
    if small:
        raise ImageError(source.path(small[0]), _too_small(sizes[small[0]], multiple_px, len(small), len(indices)))
    return indices, min(min(sizes[index]) for index in indices)


def fitting_crop_px(crop_px: int, smallest_side_px: int, multiple_px: int = CROP_MULTIPLE_PX) -> int:
    """``crop_px``, or the largest multiple of ``multiple_px`` that fits the smallest image."""
    return min(crop_px, smallest_side_px // multiple_px * multiple_px)


def _readable(
    source: Source, indices: Sequence[int], skipped: Skipped | None, cache: Path | None
) -> dict[int, tuple[int, int]]:
    """Sizes of the images whose header can be read, in the order of ``indices``."""
    sizes, failures = read_sizes(source, indices, cache)
    bad = check_failures(failures, total=len(indices), skip_bad=0 if skipped is None else skipped.limit)
    if skipped is not None:
        skipped.note(bad)
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
