"""``ImageFolder:…``: the images of a folder tree, or those that a list names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.data.datasets import PairedImages
from dinov2_noise.data.listing import read_lines, relative_to_root
from dinov2_noise.data.metadata import decode_path, encode_path
from dinov2_noise.data.pairs import find_twin
from dinov2_noise.data.strings import register_dataset
from dinov2_noise.data.subset import Whole, select
from dinov2_noise.errors import MetadataError
from dinov2_noise.files import list_images

_BLOCK = 65536


class NoisyImageFolder(PairedImages):
    """``ImageFolder:root=…[:labels=folders][:list=FILE][:subset=…]``: images of a folder tree; no metadata.

    Without ``list`` all images below the root, in the order of their paths. With it those of its lines, in its order;
    whether they are there shows when they are read, and where one does not exist, one of the same stem is read: the
    list of a clean folder serves its noisy copies. Paths are held as one array, 8 bytes each more than their text.

    Without ``labels=folders`` ``get_target`` is None; for what a sample then holds see
    :meth:`PairedImages.__getitem__`. With it the class is the first folder below the root, numbered in sorted order.
    """

    def _open(self) -> None:
        root, file = self.spec.root, self.spec.list_file
        self._paths = _encoded(list_images(root, what="dataset root") if file is None else _listed(file, root))
        if file is not None:
            _check_list(self._paths, file)
        self._class_ids: list[str] = []
        self._targets: NDArray[np.uint32] | None = None
        if self.spec.class_folders:
            self._class_ids, self._targets = self._classes()
        if self.spec.subset is not None:
            self._keep_subset()

    def __len__(self) -> int:
        return len(self._paths)

    def get_target(self, index: int) -> int | None:
        return None if self._targets is None else int(self._targets[index])

    def get_targets(self) -> NDArray[np.uint32] | None:
        """(n,) class indices of all images, or None without labels."""
        return self._targets

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None without labels."""
        return len(self._class_ids) or None

    def find_class_id(self, class_index: int) -> str:
        """The folder's name of a class."""
        return self._class_ids[class_index]

    find_class_name = find_class_id

    def relative_path(self, index: int) -> str:
        listed = self._listed_path(index)
        if self.spec.list_file is None:
            return listed
        found = find_twin(self.spec.root, listed)
        if found is None:
            raise MetadataError(
                f"{self.spec.root / listed}, image {index} of {self.spec.list_file}, does not exist under any image "
                "suffix: check the list and the root, which its paths are relative to"
            )
        return found

    def _listed_path(self, index: int) -> str:
        return decode_path(self._paths[index])

    def _listed_paths(self) -> Iterator[str]:
        for start in range(0, len(self._paths), _BLOCK):
            yield from map(decode_path, self._paths[start : start + _BLOCK].tolist())

    def _classes(self) -> tuple[list[str], NDArray[np.uint32]]:
        folders: dict[str, int] = {}
        numbers = np.empty(len(self._paths), np.uint32)
        for index, path in enumerate(self._listed_paths()):
            folder, slash, _ = path.partition("/")
            if not slash:
                raise MetadataError(
                    f"{self.spec.root / path} lies outside of a class folder: with labels=folders the class is the "
                    "first folder below the root"
                )
            numbers[index] = folders.setdefault(folder, len(folders))
        class_ids = sorted(folders)
        order = np.empty(len(folders), np.uint32)
        order[[folders[class_id] for class_id in class_ids]] = np.arange(len(class_ids))
        return class_ids, order[numbers]

    def _keep_subset(self) -> None:
        assert self.spec.subset is not None
        whole = Whole(self.spec.root, str(self.spec.root), self._targets, self._class_ids, self._listed_paths)
        chosen = select(self.spec.subset, whole)
        self._paths, self._class_ids = self._paths[chosen.rows], chosen.class_ids
        if self._targets is not None:
            self._targets = chosen.new_index[self._targets[chosen.rows]]


def _listed(file: Path, root: Path) -> Iterator[str]:
    for number, text in read_lines(file):
        try:
            yield relative_to_root(text, root)
        except MetadataError as cause:
            raise MetadataError(f"line {number} of {file}: {cause}") from cause


def _encoded(paths: Iterable[str]) -> NDArray[np.bytes_]:
    """As `encode_paths`, of any number of paths."""
    source, blocks = iter(paths), []
    while block := list(islice(source, _BLOCK)):
        blocks.append(np.array([encode_path(path) for path in block]))
    return np.concatenate(blocks) if blocks else np.empty(0, "S1")


def _check_list(paths: NDArray[np.bytes_], file: Path) -> None:
    if not len(paths):
        raise MetadataError(f"list {file} names no image: expected one path a line, relative to the root")
    if (paths[1:] > paths[:-1]).all():
        return
    ordered = np.sort(paths)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise MetadataError(f"{decode_path(ordered[twice[0]])} stands twice in {file}: take one line out")


register_dataset(
    "ImageFolder",
    NoisyImageFolder,
    keys=("root", "denoised", "noise", "corruption", "range", "depth", "subset", "labels", "list"),
)
