"""``ImageNet:…``: labelled images with metadata."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.datasets import PairedImages
from dinov2_noise.data.metadata import UNLABELLED, check_record, decode_path, default_extra
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.data.strings import SPLITS, USUAL_KEYS, register_dataset
from dinov2_noise.data.subset import Selection, Whole, select
from dinov2_noise.errors import DatasetStringError, MetadataError, MissingFolderError

_BLOCK = 65536
_MAPPED = ("_entries", "_paths")


class NoisyImageNet(PairedImages):
    """``ImageNet:split=…:root=…[:extra=…][:subset=…]``: labelled images, with the metadata of ``index``.

    Images of any suffix and number. Metadata written by DINOv2 itself work too (its file names are then assumed), and
    metadata of a clean root serve its noisy copies: where the listed file does not exist, one of the same stem is read.
    Arrays are memory-mapped at first use and never pickled.
    """

    def _open(self) -> None:
        folder = self.spec.root / self._split.lower()
        if not folder.is_dir():
            raise MissingFolderError(f"dataset root {self.spec.root} has no folder {folder.name}: check root and split")
        path = self._metadata_path("entries")
        if not path.is_file():
            raise MetadataError(f"metadata {path} are missing: {self._advice}")
        check_record(path.parent, self._advice)
        self._selection = None if self.spec.subset is None else self._select()

    def __len__(self) -> int:
        return len(self._entries) if self._selection is None else len(self._selection.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _MAPPED}

    def get_target(self, index: int) -> int | None:
        class_index = int(self._entry(index)["class_index"])
        if class_index == UNLABELLED:
            return None
        return class_index if self._selection is None else int(self._selection.new_index[class_index])

    def get_targets(self) -> NDArray[np.uint32] | None:
        """(n,) class indices of all images, or None for a split without labels."""
        targets = np.array(self._entries["class_index"])
        if self._selection is not None:
            targets = targets[self._selection.rows]
        if (targets == UNLABELLED).any():
            return None
        return targets if self._selection is None else self._selection.new_index[targets]

    @property
    def n_classes(self) -> int | None:
        """Number of classes, of which this split may lack some; None for a split without labels."""
        return len(self._class_ids) or None

    def find_class_id(self, class_index: int) -> str:
        """The folder's name of a class."""
        return self._class_ids[class_index]

    def find_class_name(self, class_index: int) -> str:
        """What a class is called."""
        if self._selection is not None:
            class_index = int(np.flatnonzero(self._selection.new_index == class_index)[0])
        return str(self._map("class-names")[class_index])

    def relative_path(self, index: int) -> str:
        listed = self._listed_path(index)
        found = find_twin(self.spec.root, listed)
        if found is None:
            raise MetadataError(
                f"{self.spec.root / listed} (image {index} of {self._metadata_path('entries')}) does not exist under "
                "any image suffix: images were moved or removed since, or the metadata belong to another root; "
                f"{self._advice} again"
            )
        return found

    def _listed_path(self, index: int) -> str:
        if self._paths is not None:
            return decode_path(self._paths[self._row(index)])
        entry = self._entry(index)
        return _imagenet_path(self._split, str(entry["class_id"]), int(entry["actual_index"]))

    def _listed_paths(self) -> Iterator[str]:
        return self._paths_of(None if self._selection is None else self._selection.rows)

    def _paths_of(self, rows: NDArray[np.uint32] | None) -> Iterator[str]:
        """Listed paths of some images of the whole set, or of all; block by block, as each access to a map is slow."""
        for start in range(0, len(self._entries) if rows is None else len(rows), _BLOCK):
            block = slice(start, start + _BLOCK) if rows is None else rows[start : start + _BLOCK]
            if self._paths is not None:
                yield from map(decode_path, self._paths[block].tolist())
            else:
                entries = self._entries[block]
                for class_id, number in zip(
                    entries["class_id"].tolist(), entries["actual_index"].tolist(), strict=True
                ):
                    yield _imagenet_path(self._split, class_id, number)

    def _row(self, index: int) -> int:
        return index if self._selection is None else int(self._selection.rows[index])

    def _entry(self, index: int) -> np.void:
        entry: np.void = self._entries[self._row(index)]
        return entry

    def _select(self) -> Selection:
        assert self.spec.subset is not None
        targets = np.array(self._entries["class_index"])
        labelled = not (targets == UNLABELLED).any()
        whole = Whole(
            root=self.spec.root,
            what=f"split {self._split} of {self.spec.root}",
            targets=targets if labelled else None,
            class_ids=self._all_class_ids if labelled else [],
            paths=lambda: self._paths_of(None),
            prefix=f"{self._split.lower()}/",
            prefixes=[f"{split.lower()}/" for split in SPLITS],
        )
        return select(self.spec.subset, whole)

    @property
    def _class_ids(self) -> list[str]:
        """By the class index that samples have."""
        return self._all_class_ids if self._selection is None else self._selection.class_ids

    @cached_property
    def _all_class_ids(self) -> list[str]:
        path = self._metadata_path("class-ids")
        return [str(class_id) for class_id in self._map("class-ids")] if path.is_file() else []

    @cached_property
    def _entries(self) -> NDArray[np.void]:
        return self._map("entries")

    @cached_property
    def _paths(self) -> NDArray[np.bytes_] | None:
        if not self._metadata_path("paths").is_file():
            return None
        paths = self._map("paths")
        if len(paths) != len(self._entries):
            raise MetadataError(
                f"{self._metadata_path('paths')} lists {len(paths)} images, {self._metadata_path('entries')} "
                f"{len(self._entries)}: {self._advice} again"
            )
        return paths

    def _map(self, kind: str) -> NDArray[Any]:
        path = self._metadata_path(kind)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as cause:
            raise MetadataError(f"cannot read metadata {path} ({cause}): {self._advice}") from cause
        return array

    def _metadata_path(self, kind: str) -> Path:
        extra = default_extra(self.spec.root) if self.spec.extra is None else self.spec.extra
        return extra / f"{kind}-{self._split}.npy"

    @property
    def _split(self) -> str:
        if self.spec.split is None:
            raise DatasetStringError(f"split missing for {self.spec.name}:root={self.spec.root}: add split=TRAIN")
        return self.spec.split

    @property
    def _advice(self) -> str:
        option = "" if self.spec.extra is None else f" --extra {self.spec.extra}"
        return f"run `dinov2-noise index {self.spec.root}{option}`"


def _imagenet_path(split: str, class_id: str, actual_index: int) -> str:
    """Where ImageNet-1k as distributed keeps an image; all that metadata written by DINOv2 itself tell of a path."""
    if split == "TRAIN":
        return f"train/{class_id}/{class_id}_{actual_index}.JPEG"
    folder = f"{split.lower()}/{class_id}" if split == "VAL" else split.lower()
    return f"{folder}/ILSVRC2012_{split.lower()}_{actual_index:08d}.JPEG"


register_dataset("ImageNet", NoisyImageNet, keys=(*USUAL_KEYS, "range", "depth", "subset"), required=("split", "root"))
