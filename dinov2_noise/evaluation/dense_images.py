"""Images with masks as a dense probe sees them: noisy, and resized whole to sides that are multiples of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dinov2_noise.decoding import image_size, load_pixels, to_uint8
from dinov2_noise.evaluation.dense_masks import Labelled, Mask, read_mask
from dinov2_noise.evaluation.retrieval_images import snr_db
from dinov2_noise.noise import DEFAULT_SEED, NoiseModel, noisy_uint8


@dataclass(frozen=True)
class Geometry:
    """How large an image is shown.

    The shorter side becomes ``size_px``, the other keeps the aspect ratio, then both are rounded to the nearest
    multiple of the patch, one patch at least: nothing is cropped or padded, a side changes by half a patch at most.
    """

    size_px: int
    patch_px: int

    def shown(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) in px of an image of this (width, height)."""
        scale = self.size_px / min(size)
        # halves go up, so that neighbouring sizes do not alternate
        width, height = (max(1, math.floor(side * scale / self.patch_px + 0.5)) * self.patch_px for side in size)
        return width, height

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches of an image of this (width, height)."""
        width, height = self.shown(size)
        return height // self.patch_px, width // self.patch_px


class Scene(NamedTuple):
    """An image in [0, 1] (3, h, w), resized; its mask (H, W), of its own size; how noisy it is, NaN if it is not."""

    image: Tensor
    mask: Mask
    snr_db: float


@dataclass(frozen=True)
class Scenes:
    """Images and masks by number, for loader workers.

    Attributes:
        noise: added at the image's own resolution, before it is resized; None: as it is stored. seed: its base seed.
    """

    labelled: Sequence[Labelled]
    geometry: Geometry
    noise: NoiseModel | None = None
    seed: int = DEFAULT_SEED

    def __getitem__(self, index: int) -> Scene:
        one = self.labelled[index]
        clean = load_pixels(one.image)
        if self.noise is None:
            pixels, ratio = (clean if clean.dtype == np.uint8 else to_uint8(clean)), math.nan
        else:
            pixels = noisy_uint8(clean, self.noise, relative_path=one.relative_path, base_seed=self.seed)
            ratio = snr_db(clean, pixels)
        image = Image.fromarray(pixels)
        resized = image.resize(self.geometry.shown(image.size), Image.Resampling.BICUBIC)
        tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        return Scene(tensor, read_mask(one.mask), ratio)

    def batches(self, batch_size: int) -> list[list[int]]:
        """Numbers of images of equal shown size, ``batch_size`` at most together; the same each time."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, one in enumerate(self.labelled):
            by_size.setdefault(self.geometry.shown(image_size(one.image)), []).append(index)
        return [
            group[start : start + batch_size]
            for group in by_size.values()
            for start in range(0, len(group), batch_size)
        ]
