"""Random crops in an endless shuffled stream, each a pure function of the seed and its place in the stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

_ORDER_STREAM, _CROP_STREAM = 4, 5


class Images(Protocol):
    """A list of tensors or a map-style Dataset: ``(C, H, W)`` each, uint8 or float in [0, 1]; sides may differ."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Draw(NamedTuple):
    """One entry of the stream: its place, counted from 0 over the whole run, and the image."""

    place: int
    image_index: int


class CropStream(Sampler[Draw]):
    """Yield draws number ``first`` to ``last - 1`` of a stream of shuffled passes over all images.

    Batches are cut from the stream without regard to the end of a pass, so every image is seen equally often. Several
    processes share each batch: with ``share`` draws of it for each, number ``rank`` of ``world_size`` yields the
    ``rank``-th run of ``share`` draws. ``first`` and ``last`` must then lie between batches.
    """

    def __init__(
        self, n_images: int, seed: int, first: int, last: int, *, share: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        self.n_images = n_images
        self.seed = seed
        self.first = first
        self.last = last
        self.share = share
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return (self.last - self.first) // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        place = self.first
        while place < self.last:
            number, offset = divmod(place, self.n_images)
            order = np.random.default_rng([self.seed, _ORDER_STREAM, number]).permutation(self.n_images)
            for image_index in order[offset : offset + self.last - place]:
                if place // self.share % self.world_size == self.rank:
                    yield Draw(place, int(image_index))
                place += 1


class Crops(Dataset[Tensor]):
    """Square crops ``(C, crop_px, crop_px)``, float32 in [0, 1], cut at a uniform place, without flips."""

    def __init__(self, images: Images, crop_px: int, seed: int) -> None:
        self.images = images
        self.crop_px = crop_px
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Tensor:
        """The crop of one draw.

        Raises:
            ValueError: the image is smaller than the crop.
        """
        image = self.images[draw.image_index]
        height, width = image.shape[-2:]
        if min(height, width) < self.crop_px:
            raise ValueError(
                f"image {draw.image_index} is {width}x{height} px, smaller than the crop of {self.crop_px} px"
            )
        rng = np.random.default_rng([self.seed, _CROP_STREAM, draw.place])
        top = int(rng.integers(height - self.crop_px + 1))
        left = int(rng.integers(width - self.crop_px + 1))
        crop = image[:, top : top + self.crop_px, left : left + self.crop_px]
        return crop.float() / 255 if crop.dtype == torch.uint8 else crop.float()
