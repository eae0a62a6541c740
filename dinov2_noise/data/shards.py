"""``WebDataset:…``: images in tar shards, as the library webdataset and many downloads of images write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.datasets import PairedImages
from dinov2_noise.data.metadata import decode_path, default_extra
from dinov2_noise.data.options import Subset
from dinov2_noise.data.strings import register_dataset
from dinov2_noise.data.subset import Whole, select
from dinov2_noise.data.tar_index import NO_TARGET, TarIndex, find_shards
from dinov2_noise.decoding import decode_pixels, decode_size
from dinov2_noise.errors import ShardError


class ShardedImages(PairedImages):
    """``WebDataset:root=…[:extra=…][:subset=…]``: the images in all ``.tar`` files below the root, at any place.

    The order is that of the shards' sorted paths, then of their members. An image's class is the number in the ``.cls``
    beside it; without such files there are no labels. Its relative path, which noise seeds and twins come from, is the
    member's path in its shard: shards unpacked into one folder give the same noise, pixel by pixel.

    A subset file names classes by their numbers, and images by their paths; its classes are numbered anew from 0, in
    the order of their numbers.

    Raises:
        MissingFolderError: there are no shards.
        ShardError: a shard is truncated, or its members make no images; or, where noise, corruption or twins are asked
            for, two images have one path.
    """

    def _open(self) -> None:
        spec = self.spec
        folder = default_extra(spec.root) if spec.extra is None else spec.extra
        self._index = TarIndex(spec.root, find_shards(spec.root), folder)
        self._chosen: NDArray[np.uint32] | None = None
        self._targets: NDArray[np.int64] | None = None
        if spec.subset is not None:
            self._keep_subset(spec.subset)
        if (spec.noise, spec.corruption, spec.denoised) != (None, None, None):
            self._check_distinct()

    def _check_distinct(self) -> None:
        paths = self._index.rows["path"] if self._chosen is None else self._index.rows["path"][self._chosen]
        _, first, counts = np.unique(paths, return_index=True, return_counts=True)
        if (counts > 1).any():
            path = paths[first[counts > 1][0]]
            places = [self._row(int(index)) for index in np.flatnonzero(paths == path)[:2]]
            shards = [self._index.shard(place).name for place in places]
            raise ShardError(
                f"two images below {self.spec.root} are called {decode_path(path)}, in {' and '.join(shards)} "
                f"({(counts > 1).sum()} such names): noise seeds and denoised twins come from that path; write shards "
                "with names that occur once"
            )

    def __len__(self) -> int:
        return len(self._index.rows) if self._chosen is None else len(self._chosen)

    def _row(self, index: int) -> int:
        return index if self._chosen is None else int(self._chosen[index])

    def _keep_subset(self, subset: Subset) -> None:
        numbers, targets = np.unique(self._index.rows["target"], return_inverse=True)
        is_labelled = numbers[0] != NO_TARGET
        whole = Whole(
            root=self.spec.root,
            what=f"the shards below {self.spec.root}",
            targets=targets.astype(np.uint32) if is_labelled else None,
            class_ids=[str(number) for number in numbers] if is_labelled else [],
            paths=lambda: map(decode_path, self._index.rows["path"].tolist()),
            is_numbered=True,
        )
        chosen = select(subset, whole)
        self._chosen = chosen.rows
        if is_labelled:
            kept = targets[chosen.rows]
            self._targets = (numbers[kept] if subset.file is None else chosen.new_index[kept]).astype(np.int64)

    def get_target(self, index: int) -> int | None:
        target = int(self._index.rows[index]["target"] if self._targets is None else self._targets[index])
        return None if target == NO_TARGET else target

    def get_targets(self) -> NDArray[np.uint32] | None:
        """(n,) class indices of all images, or None where there are no labels."""
        targets = self._index.rows["target"] if self._targets is None else self._targets
        return None if targets[0] == NO_TARGET else targets.astype(np.uint32)

    def relative_path(self, index: int) -> str:
        return self._listed_path(index)

    def get_image_data(self, index: int) -> bytes:
        """The bytes of the image file in its shard, without on-the-fly noise or corruption."""
        return self._index.read(self._row(index))

    def _listed_path(self, index: int) -> str:
        return decode_path(self._index.rows[self._row(index)]["path"])

    def _pixels(self, index: int) -> NDArray[Any]:
        return decode_pixels(self.get_image_data(index), self._name(index), self.spec.values)

    def _size(self, index: int) -> tuple[int, int]:
        return decode_size(self.get_image_data(index), self._name(index))

    def _name(self, index: int) -> Path:
        return self._index.shard(self._row(index)) / self._listed_path(index)


register_dataset(
    "WebDataset", ShardedImages, keys=("root", "extra", "denoised", "noise", "corruption", "range", "depth", "subset")
)
